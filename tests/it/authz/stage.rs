//! A server in mode `oauth` over a double of Datadog with two users, a browser, and a client that is
//! made by hand so that it can do everything wrong.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Transport, Upstream};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use llmobs_authz::PublicUrl;
use llmobs_authz::oauth::{
    AuthorizationServer, AuthorizationServerOptions, Clock, DatadogSignIn, DocumentFetchError,
    DocumentFetcher, MetadataDocument, SecretKey,
};
use llmobs_mcp::server::{
    FixedCredential, McpServer, ToolFilter, UpstreamInfo, Upstreams, serve_http,
};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Where the hand-made client says it listens.
pub(super) const CALLBACK: &str = "http://127.0.0.1:45454/callback";
/// A verifier of the right form, and its challenge.
pub(super) const VERIFIER: &str = "a-verifier-of-more-than-43-characters-0123456789";

/// A user of the double.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) api_key: &'static str,
    pub(super) app_key: &'static str,
}

pub(super) const ALICE: User = User {
    name: "alice",
    api_key: "key-of-alice",
    app_key: "app-key-of-alice",
};
pub(super) const BOB: User = User {
    name: "bob",
    api_key: "key-of-bob",
    app_key: "app-key-of-bob",
};

impl User {
    /// What a user fills in.
    pub(super) fn fields(self) -> [(&'static str, &'static str); 2] {
        [("api_key", self.api_key), ("application_key", self.app_key)]
    }
}

/// Datadog, as far as these tests need it: projects, by user.
#[derive(Default)]
pub(super) struct Datadog {
    seen: Mutex<Vec<HeaderMap>>,
    /// Whether every credential was revoked.
    pub(super) revoked: AtomicBool,
    /// Held by a test that wants no answers yet.
    pub(super) answering: tokio::sync::RwLock<()>,
}

impl Datadog {
    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Whether any request carried this text in a header.
    pub(super) fn saw(&self, text: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        let mut values = seen.iter().flat_map(HeaderMap::values);
        values.any(|value| String::from_utf8_lossy(value.as_bytes()).contains(text))
    }
}

fn double(datadog: &Arc<Datadog>) -> Router {
    Router::new()
        .fallback(answer_by_user)
        .with_state(datadog.clone())
}

async fn answer_by_user(State(datadog): State<Arc<Datadog>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    let user = [ALICE, BOB]
        .into_iter()
        .find(|user| has("dd-api-key", user.api_key) && has("dd-application-key", user.app_key));
    datadog.seen.lock().unwrap().push(headers);
    let _answering = datadog.answering.read().await;
    if datadog.revoked.load(Ordering::SeqCst) {
        let body = json!({"errors": ["Unauthorized"]});
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    let Some(user) = user else {
        // With what it was sent, as a careless server would.
        let body = json!({"errors": [format!("Forbidden: {:?}", request.headers())]});
        return (StatusCode::FORBIDDEN, axum::Json(body)).into_response();
    };
    let id = format!("project-of-{}", user.name);
    let body = json!({"data": [{"id": id, "type": "projects", "attributes": {"name": id}}],
                      "meta": {}});
    axum::Json(body).into_response()
}

/// Metadata documents by address, and how often one was asked for.
#[derive(Default)]
pub(super) struct Library {
    documents: Mutex<HashMap<String, Value>>,
    asked: AtomicI64,
}

impl Library {
    pub(super) fn put(&self, url: &str, document: Value) {
        self.documents
            .lock()
            .unwrap()
            .insert(url.to_owned(), document);
    }

    pub(super) fn asked(&self) -> i64 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl DocumentFetcher for Library {
    fn fetch<'a>(
        &'a self,
        url: &'a Url,
    ) -> BoxFuture<'a, Result<MetadataDocument, DocumentFetchError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.documents.lock().unwrap().get(url.as_str()).cloned();
        let document = found.map(|value| MetadataDocument {
            body: value.to_string().into(),
            max_age: None,
        });
        std::future::ready(document.ok_or(DocumentFetchError::NoResponse)).boxed()
    }
}

/// A clock that a test moves.
#[derive(Default)]
pub(super) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(super) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        1_795_262_400_000 + self.0.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst) as u64)
    }
}

/// What a server is started with.
pub(super) struct Setup {
    pub(super) upstream: Upstream,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) datadog: Arc<Datadog>,
    pub(super) state: Arc<tempfile::TempDir>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) public: Option<String>,
    pub(super) sign_in: Option<DatadogSignIn>,
    /// Whether URLs are taken for client ids.
    pub(super) documents: bool,
}

impl Setup {
    /// An API in this process, and nothing kept yet.
    pub(super) fn over(api: Router) -> Self {
        Self {
            upstream: Upstream::from_api_url("http://127.0.0.1:8126").unwrap(),
            transport: Arc::new(RouterTransport(api)),
            datadog: Arc::default(),
            state: Arc::new(tempfile::tempdir().unwrap()),
            clock: Arc::default(),
            public: None,
            sign_in: None,
            documents: true,
        }
    }

    fn with(self, datadog: Arc<Datadog>) -> Self {
        Self { datadog, ..self }
    }

    /// With the state, the time and the public URL of a server that runs.
    pub(super) fn beside(self, stage: &Stage) -> Self {
        Self {
            state: stage.state.clone(),
            clock: stage.clock.clone(),
            public: Some(stage.public.clone()),
            ..self
        }
    }
}

/// A running server.
pub(super) struct Stage {
    pub(super) base: String,
    public: String,
    pub(super) datadog: Arc<Datadog>,
    pub(super) library: Arc<Library>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) state: Arc<tempfile::TempDir>,
    pub(super) http: reqwest::Client,
    gate: Arc<AuthorizationServer>,
    stop: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    /// A server over the double.
    pub(super) async fn new() -> Self {
        let datadog = Arc::new(Datadog::default());
        Self::start(Setup::over(double(&datadog)).with(datadog)).await
    }

    /// A server over any Datadog-compatible API.
    pub(super) async fn over(api: Router) -> Self {
        Self::start(Setup::over(api)).await
    }

    /// Another process over the same state, behind the same public URL.
    pub(super) async fn restarted(&self) -> Self {
        let setup = Setup::over(double(&self.datadog)).with(self.datadog.clone());
        Self::start(setup.beside(self)).await
    }

    /// A server as it is described.
    pub(super) async fn start(setup: Setup) -> Self {
        let Setup {
            upstream,
            transport,
            datadog,
            state,
            clock,
            public,
            sign_in,
            documents,
        } = setup;
        let hub = Hub::new(upstream, transport, HubSettings::default());
        let own = FixedCredential::new(Credential::None, "nowhere");
        let described = UpstreamInfo {
            site: None,
            url: None,
        };
        let upstreams = Upstreams::datadog(hub.clone(), Arc::new(own), described);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let public = public.unwrap_or_else(|| base.clone());
        let library = Arc::<Library>::default();
        let options = AuthorizationServerOptions {
            public_url: PublicUrl::parse(&public).unwrap(),
            key: SecretKey::parse(&"a0".repeat(32).into()).unwrap(),
            hub,
            documents: documents.then(|| library.clone() as Arc<dyn DocumentFetcher>),
            sign_in,
            clock: clock.clone(),
        };
        let gate = AuthorizationServer::open(&state.path().join("state"), options).unwrap();
        let gate = Arc::new(gate);
        let stop = CancellationToken::new();
        let server = McpServer::new(upstreams, ToolFilter::default());
        tokio::spawn(serve_http(server, gate.clone(), listener, stop.clone()));
        Self {
            base,
            public,
            datadog,
            library,
            clock,
            state,
            http: datadog_llmobs::http_client()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .unwrap(),
            gate,
            stop,
        }
    }

    /// What the server does beside requests, from now until the test ends.
    pub(super) fn tend(&self) {
        let (gate, stop) = (self.gate.clone(), self.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled_owned(gate.run_maintenance()).await });
    }

    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(super) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.at(path)).send().await.unwrap()
    }

    /// Registers a client.
    pub(super) async fn register(&self, metadata: &Value) -> (StatusCode, Value) {
        let request = self.http.post(self.at("/oauth/register")).json(metadata);
        json_of(request).await
    }

    /// A registered client with an address of its own.
    pub(super) async fn client(&self, name: &str, redirect: &str) -> Client {
        let metadata = json!({"client_name": name, "redirect_uris": [redirect]});
        let (status, answer) = self.register(&metadata).await;
        assert_eq!(status, 201, "{answer}");
        Client {
            id: answer["client_id"].as_str().unwrap().to_owned(),
            redirect: redirect.to_owned(),
        }
    }

    /// Asks the token endpoint.
    pub(super) async fn token(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        json_of(self.http.post(self.at("/oauth/token")).form(form)).await
    }

    /// Asks for the tokens of a code, as the client should.
    pub(super) async fn exchange(&self, client: &Client, code: &str) -> (StatusCode, Value) {
        self.token(&client.exchange(code)).await
    }

    pub(super) async fn refresh(&self, client: &Client, token: &str) -> (StatusCode, Value) {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &client.id),
            ("refresh_token", token),
        ];
        self.token(&form).await
    }

    /// The code that a client gets when a user says yes.
    pub(super) async fn code(&self, client: &Client, user: User) -> String {
        let mut browser = Browser::default();
        let page = browser.open(self, &client.authorize(self, &[])).await;
        let answer = browser.allow(self, &page, &user.fields()).await;
        parameter(&location(&answer), "code").expect("a code")
    }

    /// The tokens that a client gets when a user says yes.
    pub(super) async fn signed_in(&self, client: &Client, user: User) -> Tokens {
        let code = self.code(client, user).await;
        let (status, answer) = self.exchange(client, &code).await;
        assert_eq!(status, 200, "{answer}");
        Tokens::of(&answer)
    }

    /// Calls a tool and gives the HTTP answer.
    pub(super) fn call(&self, path: &str, tool: &str) -> RequestBuilder {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                          "params": {"name": tool, "arguments": {}}});
        self.http
            .post(self.at(path))
            .header("accept", "application/json, text/event-stream")
            .json(&body)
    }

    /// The status of a call with a bearer.
    pub(super) async fn status(&self, path: &str, token: &str) -> StatusCode {
        let call = self.call(path, "list_llmobs_projects").bearer_auth(token);
        call.send().await.unwrap().status()
    }

    /// The text of the answer to a call with a bearer.
    pub(super) async fn projects(&self, token: &str) -> String {
        let call = self.call("/mcp", "list_llmobs_projects").bearer_auth(token);
        let (status, answer) = json_of(call).await;
        assert_eq!(status, 200, "{answer}");
        let text = answer.pointer("/result/content/0/text").unwrap();
        text.as_str().unwrap().to_owned()
    }
}

/// A client made by hand.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) redirect: String,
}

impl Client {
    /// The address to open in a browser, with some parameters changed, added or (empty) left out.
    pub(super) fn authorize(&self, stage: &Stage, changes: &[(&str, &str)]) -> String {
        let challenge = challenge(VERIFIER);
        let resource = stage.at("/mcp");
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "a-state"),
            ("resource", &resource),
        ];
        for (name, value) in changes {
            parameters.retain(|(known, _)| known != name);
            if !value.is_empty() {
                parameters.push((name, value));
            }
        }
        let url = Url::parse_with_params(&stage.at("/oauth/authorize"), &parameters);
        url.unwrap().to_string()
    }

    /// The form that exchanges a code.
    pub(super) fn exchange<'a>(&'a self, code: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("grant_type", "authorization_code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect),
            ("code", code),
            ("code_verifier", VERIFIER),
        ]
    }
}

/// What a client holds after a sign-in.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) scope: String,
}

impl Tokens {
    pub(super) fn of(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().expect(key).to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
            scope: text("scope"),
        }
    }
}

/// A browser: it keeps cookies and sends forms as pages hold them.
#[derive(Debug, Default, Clone)]
pub(super) struct Browser {
    pub(super) cookies: HashMap<String, String>,
}

/// A page that was shown.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) html: String,
}

impl Page {
    pub(super) async fn of(answer: reqwest::Response) -> Self {
        Self {
            status: answer.status(),
            headers: answer.headers().clone(),
            html: answer.text().await.unwrap(),
        }
    }

    /// A hidden field.
    pub(super) fn hidden(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let rest = self.html.split(&mark).nth(1).expect(name);
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    /// Opens an address, as by a link.
    pub(super) async fn open(&mut self, stage: &Stage, url: &str) -> Page {
        let answer = self.with_cookies(stage.http.get(url)).send().await.unwrap();
        self.keep(&answer);
        Page::of(answer).await
    }

    /// Keeps the cookies of an answer.
    pub(super) fn keep(&mut self, answer: &reqwest::Response) {
        for value in answer.headers().get_all("set-cookie") {
            let pair = value.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Opens an address of the server by a redirect of another site: cookies that are not for other
    /// sites stay at home.
    pub(super) async fn arrive(&self, stage: &Stage, url: &str) -> reqwest::Response {
        let mut cookies = self.cookies.clone();
        cookies.retain(|name, _| !name.contains("llmobs-consent-"));
        let request = Self { cookies }.with_cookies(stage.http.get(url));
        let request = request.header("sec-fetch-site", "cross-site");
        request.send().await.unwrap()
    }

    fn with_cookies(&self, request: RequestBuilder) -> RequestBuilder {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if cookies.is_empty() {
            request
        } else {
            request.header("cookie", cookies.join("; "))
        }
    }

    /// A page's form with these fields filled in, as the browser would send it.
    pub(super) fn form(
        &self,
        stage: &Stage,
        page: &Page,
        decision: &str,
        fields: &[(&str, &str)],
    ) -> RequestBuilder {
        let (id, csrf) = (page.hidden("page"), page.hidden("csrf"));
        let mut form = vec![
            ("page", id.as_str()),
            ("csrf", &csrf),
            ("decision", decision),
        ];
        form.extend(fields);
        let request = stage.http.post(stage.at("/oauth/consent")).form(&form);
        self.with_cookies(request)
            .header("origin", &stage.base)
            .header("sec-fetch-site", "same-origin")
    }

    /// Says yes on a page.
    pub(super) async fn allow(
        &self,
        stage: &Stage,
        page: &Page,
        fields: &[(&str, &str)],
    ) -> reqwest::Response {
        let form = self.form(stage, page, "allow", fields);
        form.send().await.unwrap()
    }
}

/// What a browser adds to the form of a page of this server, also where a balancer hands it to another
/// one.
pub(super) fn by_name_of(stage: &Stage) -> HeaderMap {
    let origin = reqwest::header::HeaderValue::from_str(&stage.base).unwrap();
    HeaderMap::from_iter([(reqwest::header::ORIGIN, origin)])
}

/// Where an answer sends the browser.
pub(super) fn location(answer: &reqwest::Response) -> Url {
    let location = answer.headers().get("location");
    let location = location.unwrap_or_else(|| panic!("no redirect: {}", answer.status()));
    Url::parse(location.to_str().unwrap()).unwrap()
}

/// A parameter of an address.
pub(super) fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs().filter(|(key, _)| key == name);
    let found = pairs.next().map(|(_, value)| value.into_owned());
    assert!(pairs.next().is_none(), "{name} came twice");
    found
}

pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Status and JSON of an answer.
pub(super) async fn json_of(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// Sends a form as a browser and an OAuth client do.
pub(super) trait Form {
    fn form<K: AsRef<str>, V: AsRef<str>>(self, form: &[(K, V)]) -> Self;
}

impl Form for RequestBuilder {
    fn form<K: AsRef<str>, V: AsRef<str>>(self, form: &[(K, V)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }
}
