//! A server in mode `oauth` with a test double of DatadogDouble, a browser, and an OAuth client that can send
//! invalid requests.

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

/// The redirect URI of the client.
pub(super) const CALLBACK: &str = "http://127.0.0.1:45454/callback";
/// A valid PKCE verifier.
pub(super) const VERIFIER: &str = "a-verifier-of-more-than-43-characters-0123456789";

/// A user of the test double.
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
    /// The fields of the consent form that the user fills in.
    pub(super) fn fields(self) -> [(&'static str, &'static str); 2] {
        [("api_key", self.api_key), ("application_key", self.app_key)]
    }
}

/// A test double of Datadog's API: lists one project per user.
#[derive(Default)]
pub(super) struct DatadogDouble {
    received: Mutex<Vec<HeaderMap>>,
    /// Whether all credentials are revoked.
    pub(super) revoked: AtomicBool,
    /// A test that holds the write lock delays the responses.
    pub(super) answering: tokio::sync::RwLock<()>,
}

impl DatadogDouble {
    /// The number of requests.
    pub(super) fn request_count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Whether a request had this text in a header.
    pub(super) fn received(&self, text: &str) -> bool {
        let received = self.received.lock().unwrap();
        let mut values = received.iter().flat_map(HeaderMap::values);
        values.any(|value| String::from_utf8_lossy(value.as_bytes()).contains(text))
    }
}

fn datadog_api(datadog: &Arc<DatadogDouble>) -> Router {
    Router::new()
        .fallback(answer_by_user)
        .with_state(datadog.clone())
}

async fn answer_by_user(State(datadog): State<Arc<DatadogDouble>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
    let user = [ALICE, BOB]
        .into_iter()
        .find(|user| has("dd-api-key", user.api_key) && has("dd-application-key", user.app_key));
    datadog.received.lock().unwrap().push(headers);
    let _answering = datadog.answering.read().await;
    if datadog.revoked.load(Ordering::SeqCst) {
        let body = json!({"errors": ["Unauthorized"]});
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    }
    let Some(user) = user else {
        // Repeats the request, as a careless server does.
        let body = json!({"errors": [format!("Forbidden: {:?}", request.headers())]});
        return (StatusCode::FORBIDDEN, axum::Json(body)).into_response();
    };
    let id = format!("project-of-{}", user.name);
    let body = json!({"data": [{"id": id, "type": "projects", "attributes": {"name": id}}],
                      "meta": {}});
    axum::Json(body).into_response()
}

/// Metadata documents by URL, and the number of requests.
#[derive(Default)]
pub(super) struct DocumentLibrary {
    documents: Mutex<HashMap<String, Value>>,
    requests: AtomicI64,
}

impl DocumentLibrary {
    pub(super) fn put(&self, url: &str, document: Value) {
        self.documents
            .lock()
            .unwrap()
            .insert(url.to_owned(), document);
    }

    pub(super) fn request_count(&self) -> i64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl DocumentFetcher for DocumentLibrary {
    fn fetch<'a>(
        &'a self,
        url: &'a Url,
    ) -> BoxFuture<'a, Result<MetadataDocument, DocumentFetchError>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let found = self.documents.lock().unwrap().get(url.as_str()).cloned();
        let document = found.map(|value| MetadataDocument {
            body: value.to_string().into(),
            max_age: None,
        });
        std::future::ready(document.ok_or(DocumentFetchError::NoResponse)).boxed()
    }
}

/// A clock that a test advances.
#[derive(Default)]
pub(super) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(super) fn advance(&self, time: Duration) {
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

/// The configuration of a test server.
pub(super) struct ServerSetup {
    pub(super) upstream: Upstream,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) datadog: Arc<DatadogDouble>,
    pub(super) state: Arc<tempfile::TempDir>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) public: Option<String>,
    pub(super) sign_in: Option<DatadogSignIn>,
    /// Whether the server fetches client metadata documents.
    pub(super) documents: bool,
}

impl ServerSetup {
    /// A server over an API in this process, with an empty store.
    pub(super) fn with_api(api: Router) -> Self {
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

    fn with(self, datadog: Arc<DatadogDouble>) -> Self {
        Self { datadog, ..self }
    }

    /// The setup with the store, the clock and the public URL of a running server.
    pub(super) fn sharing_state_of(self, server: &TestServer) -> Self {
        Self {
            state: server.state.clone(),
            clock: server.clock.clone(),
            public: Some(server.public.clone()),
            ..self
        }
    }
}

/// A running server.
pub(super) struct TestServer {
    pub(super) base: String,
    public: String,
    pub(super) datadog: Arc<DatadogDouble>,
    pub(super) library: Arc<DocumentLibrary>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) state: Arc<tempfile::TempDir>,
    pub(super) http: reqwest::Client,
    gate: Arc<AuthorizationServer>,
    stop: CancellationToken,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestServer {
    /// A server over the test double.
    pub(super) async fn new() -> Self {
        let datadog = Arc::new(DatadogDouble::default());
        Self::start(ServerSetup::with_api(datadog_api(&datadog)).with(datadog)).await
    }

    /// A server over any Datadog-compatible API.
    pub(super) async fn with_api(api: Router) -> Self {
        Self::start(ServerSetup::with_api(api)).await
    }

    /// Another server with the same store and the same public URL.
    pub(super) async fn restart(&self) -> Self {
        let setup = ServerSetup::with_api(datadog_api(&self.datadog)).with(self.datadog.clone());
        Self::start(setup.sharing_state_of(self)).await
    }

    /// Starts a server.
    pub(super) async fn start(setup: ServerSetup) -> Self {
        let ServerSetup {
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
        let server_credential = FixedCredential::new(Credential::None, "nowhere");
        let described = UpstreamInfo {
            site: None,
            url: None,
        };
        let upstreams = Upstreams::datadog(hub.clone(), Arc::new(server_credential), described);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let public = public.unwrap_or_else(|| base.clone());
        let library = Arc::<DocumentLibrary>::default();
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

    /// Starts the maintenance task of the server.
    pub(super) fn start_maintenance(&self) {
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
        send_for_json(request).await
    }

    /// Registers a client with this redirect URI.
    pub(super) async fn client(&self, name: &str, redirect: &str) -> Client {
        let metadata = json!({"client_name": name, "redirect_uris": [redirect]});
        let (status, answer) = self.register(&metadata).await;
        assert_eq!(status, 201, "{answer}");
        Client {
            id: answer["client_id"].as_str().unwrap().to_owned(),
            redirect: redirect.to_owned(),
        }
    }

    /// Sends a form to the token endpoint.
    pub(super) async fn token(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        send_for_json(self.http.post(self.at("/oauth/token")).form(form)).await
    }

    /// Exchanges a code for tokens.
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

    /// The code of a client after a user allowed access.
    pub(super) async fn code(&self, client: &Client, user: User) -> String {
        let mut browser = Browser::default();
        let page = browser.open(self, &client.authorize(self, &[])).await;
        let answer = browser.allow(self, &page, &user.fields()).await;
        parameter(&location(&answer), "code").expect("a code")
    }

    /// The tokens of a client after a user allowed access.
    pub(super) async fn sign_in(&self, client: &Client, user: User) -> Tokens {
        let code = self.code(client, user).await;
        let (status, answer) = self.exchange(client, &code).await;
        assert_eq!(status, 200, "{answer}");
        Tokens::from_response(&answer)
    }

    /// A request that calls a tool.
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

    /// The text of the answer of a tool, called with a bearer.
    pub(super) async fn projects(&self, token: &str) -> String {
        let call = self.call("/mcp", "list_llmobs_projects").bearer_auth(token);
        let (status, answer) = send_for_json(call).await;
        assert_eq!(status, 200, "{answer}");
        let text = answer.pointer("/result/content/0/text").unwrap();
        text.as_str().unwrap().to_owned()
    }
}

/// An OAuth client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) redirect: String,
}

impl Client {
    /// The authorization URL, with some parameters replaced or added; an empty value removes a parameter.
    pub(super) fn authorize(&self, server: &TestServer, changes: &[(&str, &str)]) -> String {
        let challenge = challenge(VERIFIER);
        let resource = server.at("/mcp");
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
        let url = Url::parse_with_params(&server.at("/oauth/authorize"), &parameters);
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

/// The tokens of a client.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) scope: String,
}

impl Tokens {
    pub(super) fn from_response(answer: &Value) -> Self {
        let text = |key: &str| answer[key].as_str().expect(key).to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
            scope: text("scope"),
        }
    }
}

/// A browser with cookies.
#[derive(Debug, Default, Clone)]
pub(super) struct Browser {
    pub(super) cookies: HashMap<String, String>,
}

/// A response that is a page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) html: String,
}

impl Page {
    pub(super) async fn from_response(answer: reqwest::Response) -> Self {
        Self {
            status: answer.status(),
            headers: answer.headers().clone(),
            html: answer.text().await.unwrap(),
        }
    }

    /// The value of a hidden field.
    pub(super) fn hidden(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let rest = self.html.split(&mark).nth(1).expect(name);
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    /// Opens a URL and stores its cookies.
    pub(super) async fn open(&mut self, server: &TestServer, url: &str) -> Page {
        let answer = self
            .with_cookies(server.http.get(url))
            .send()
            .await
            .unwrap();
        self.store_cookies(&answer);
        Page::from_response(answer).await
    }

    /// Stores the cookies of a response.
    pub(super) fn store_cookies(&mut self, answer: &reqwest::Response) {
        for value in answer.headers().get_all("set-cookie") {
            let pair = value.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Follows a redirect of another site to the server. The browser does not send cookies with
    /// `SameSite=Strict`.
    pub(super) async fn arrive(&self, server: &TestServer, url: &str) -> reqwest::Response {
        let mut cookies = self.cookies.clone();
        cookies.retain(|name, _| !name.contains("llmobs-consent-"));
        let request = Self { cookies }.with_cookies(server.http.get(url));
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

    /// The form of a page with these fields filled in, as a browser sends it.
    pub(super) fn form(
        &self,
        server: &TestServer,
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
        let request = server.http.post(server.at("/oauth/consent")).form(&form);
        self.with_cookies(request)
            .header("origin", &server.base)
            .header("sec-fetch-site", "same-origin")
    }

    /// Submits a page with the decision to allow access.
    pub(super) async fn allow(
        &self,
        server: &TestServer,
        page: &Page,
        fields: &[(&str, &str)],
    ) -> reqwest::Response {
        let form = self.form(server, page, "allow", fields);
        form.send().await.unwrap()
    }
}

/// The `Origin` header of a form from a page of this server. A load balancer may send the form to another
/// server.
pub(super) fn origin_header(server: &TestServer) -> HeaderMap {
    let origin = reqwest::header::HeaderValue::from_str(&server.base).unwrap();
    HeaderMap::from_iter([(reqwest::header::ORIGIN, origin)])
}

/// The target of a redirect.
pub(super) fn location(answer: &reqwest::Response) -> Url {
    let location = answer.headers().get("location");
    let location = location.unwrap_or_else(|| panic!("no redirect: {}", answer.status()));
    Url::parse(location.to_str().unwrap()).unwrap()
}

/// A parameter of a URL.
pub(super) fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs().filter(|(key, _)| key == name);
    let found = pairs.next().map(|(_, value)| value.into_owned());
    assert!(pairs.next().is_none(), "{name} is repeated");
    found
}

pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

/// Sends a request, and returns status and JSON of the response.
pub(super) async fn send_for_json(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap_or(Value::Null))
}

/// Adds an HTML form as the body of a request.
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
