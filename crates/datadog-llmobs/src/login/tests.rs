//! Sign-ins and renewals against an authorization server that fails in many ways.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::super::call::{ApiCall, Operation};
use super::super::client::RenewCredential;
use super::super::retry::OperationClass;
use super::super::transport::{ResponseLimits, TransportError};
use super::super::{Credential, Hub, HubSettings, Site, Transport, Upstream};
use super::*;

/// A received request: its URL without query, and its form.
type ReceivedRequest = (String, HashMap<String, String>);
type Script = Box<dyn Fn(&str, usize) -> Result<Response<Bytes>, TransportError> + Send + Sync>;

/// A server that responds by a script, which gets the path and the number of earlier requests to it.
struct ScriptedServer {
    requests: Mutex<Vec<ReceivedRequest>>,
    script: Script,
    delay: Duration,
}

impl ScriptedServer {
    fn new(
        script: impl Fn(&str, usize) -> Result<Response<Bytes>, TransportError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            requests: Mutex::default(),
            script: Box::new(script),
            delay: Duration::ZERO,
        })
    }

    /// Accepts registrations; the token endpoint returns the given responses.
    fn with_tokens(respond: impl Fn(usize) -> (u16, Value) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |path, nth| {
            Ok(match path {
                "/api/v2/oauth2/register" => reply(201, &json!({"client_id": "client-1"})),
                "/oauth2/v1/token" => {
                    let (status, body) = respond(nth);
                    reply(status, &body)
                }
                _ => reply(200, &json!({})),
            })
        })
    }

    fn requests_to(&self, path: &str) -> Vec<ReceivedRequest> {
        let requests = self.requests.lock().unwrap();
        let matches = |(url, _): &&ReceivedRequest| url.ends_with(path);
        requests.iter().filter(matches).cloned().collect()
    }
}

impl Transport for ScriptedServer {
    fn send(
        &self,
        request: Request<Bytes>,
        _limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        async move {
            tokio::time::sleep(self.delay).await;
            let path = request.uri().path().to_owned();
            let form = url::form_urlencoded::parse(request.body())
                .into_owned()
                .collect();
            let nth = {
                let mut requests = self.requests.lock().unwrap();
                let before = requests
                    .iter()
                    .filter(|(url, _)| url.ends_with(&path))
                    .count();
                requests.push((request.uri().to_string(), form));
                before
            };
            (self.script)(&path, nth)
        }
        .boxed()
    }
}

fn reply(status: u16, body: &Value) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_string()))
        .unwrap()
}

fn new_tokens(n: usize) -> (u16, Value) {
    let body = json!({
        "access_token": format!("access-secret-{n}"), "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": format!("refresh-secret-{n}"),
        "scope": "llm_observability_read llm_observability_write"});
    (200, body)
}

fn site(name: &str) -> LoginTarget {
    LoginTarget::from_upstream(&Upstream::Site(Site::parse(name).unwrap())).unwrap()
}

const REDIRECT_URI: &str = "http://127.0.0.1:8000/oauth/callback";

async fn start_sign_in(server: &Arc<ScriptedServer>) -> PendingSignIn {
    try_start_sign_in(server, None).await.unwrap()
}

async fn try_start_sign_in(
    server: &Arc<ScriptedServer>,
    org: Option<&str>,
) -> Result<PendingSignIn, LoginError> {
    let request = SignInRequest {
        target: site("eu"),
        scopes: DEFAULT_SCOPES.map(str::to_owned).to_vec(),
        client_name: CLIENT_NAME.to_owned(),
        org: org.map(str::to_owned),
    };
    PendingSignIn::start(server.clone(), request, REDIRECT_URI).await
}

/// The query parameters of the URL for the browser.
fn url_parameters(sign_in: &PendingSignIn) -> HashMap<String, String> {
    sign_in.url().query_pairs().into_owned().collect()
}

fn response_url(sign_in: &PendingSignIn, rest: &str) -> String {
    format!(
        "{REDIRECT_URI}?state={}&{rest}",
        url_parameters(sign_in)["state"]
    )
}

async fn failed_sign_in(server: &Arc<ScriptedServer>, rest: &str) -> LoginError {
    let sign_in = start_sign_in(server).await;
    let answer = response_url(&sign_in, rest);
    sign_in.finish(&answer).await.err().expect("fails")
}

#[tokio::test]
async fn sign_in_uses_pkce_and_state() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let sign_in = start_sign_in(&server).await;
    let url = sign_in.url().clone();
    assert_eq!(url.host_str(), Some("app.datadoghq.eu"));
    let values = url_parameters(&sign_in);
    assert_eq!(values["response_type"], "code");
    assert_eq!(values["client_id"], "client-1");
    assert_eq!(values["redirect_uri"], REDIRECT_URI);
    assert_eq!(values["code_challenge_method"], "S256");
    assert_eq!(
        values["scope"],
        "llm_observability_read llm_observability_write"
    );
    assert!(values["state"].len() >= 40);
    let org = "8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1";
    let query = response_url(
        &sign_in,
        &format!("code=c0de&domain=us5.datadoghq.com&dd_oid={org}&dd_org_name=Acme%E2%80%AE"),
    );
    let outcome = sign_in.finish(&query).await.unwrap();
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes);
    let login = outcome.login;
    assert_eq!(login.target.key(), "us5.datadoghq.com");
    assert_eq!(login.org_id.as_deref(), Some(org));
    assert_eq!(login.org_name.as_deref(), Some("Acme"));
    assert_eq!(login.access_token.expose_secret(), "access-secret-0");

    let [(url, form)] = server.requests_to("/oauth2/v1/token").try_into().unwrap();
    assert_eq!(url, "https://api.us5.datadoghq.com/oauth2/v1/token");
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!(form["code"], "c0de");
    assert_eq!(form["redirect_uri"], REDIRECT_URI);
    use base64::Engine;
    use sha2::Digest;
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(sha2::Sha256::digest(form["code_verifier"].as_bytes()));
    assert_eq!(challenge, values["code_challenge"]);
    let other = try_start_sign_in(&server, None).await.unwrap();
    assert_ne!(url_parameters(&other)["state"], values["state"]);
    assert_ne!(
        url_parameters(&other)["code_challenge"],
        values["code_challenge"]
    );
}

#[rstest]
#[case::foreign_domain("code=c&domain=evil.example", "not one of Datadog's sites")]
#[case::lookalike(
    "code=c&domain=datadoghq.com.evil.example",
    "not one of Datadog's sites"
)]
#[case::denied(
    "error=access_denied&error_description=No%20thanks",
    "denied (No thanks)"
)]
#[case::scope("error=invalid_scope&error_description=x", "a scope was rejected")]
#[case::other("error=server_error", "failed with `server_error`")]
#[case::nothing("domain=datadoghq.eu", "neither a code nor an error")]
#[case::twice("code=c&code=d", "neither a code nor an error")]
#[case::error_beside_a_code("code=c&error=access_denied", "denied")]
#[tokio::test]
async fn invalid_response_does_not_send_code(#[case] rest: &str, #[case] words: &str) {
    let server = ScriptedServer::with_tokens(new_tokens);
    let error = failed_sign_in(&server, rest).await;
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().len() > 20);
    assert!(server.requests_to("/oauth2/v1/token").is_empty());
}

#[tokio::test]
async fn rejects_wrong_state() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let sign_in = start_sign_in(&server).await;
    for query in [
        "code=c&state=guessed",
        "code=c",
        "",
        "state=&code=c",
        "not a query",
    ] {
        let error = sign_in.finish(query).await.err().unwrap();
        assert_eq!(error, LoginError::WrongState);
    }
    let twice = response_url(&sign_in, "code=c&state=guessed");
    assert!(sign_in.finish(&twice).await.is_err());
    assert!(server.requests_to("/oauth2/v1/token").is_empty());
}

#[tokio::test]
async fn rejects_other_organisation() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let required = "8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1";
    let other = "00000000-45ad-4d2b-9b6c-6f4a50a1b7a1";
    for rest in [format!("code=c&dd_oid={other}"), "code=c".to_owned()] {
        let sign_in = try_start_sign_in(&server, Some(required)).await.unwrap();
        assert_eq!(url_parameters(&sign_in)["dd_oid"], required);
        let error = sign_in
            .finish(&response_url(&sign_in, &rest))
            .await
            .err()
            .unwrap();
        assert_eq!(error, LoginError::OtherOrganisation);
    }
    assert!(server.requests_to("/oauth2/v1/token").is_empty());
}

#[rstest]
#[case::rfc(400, json!({"error": "invalid_client_metadata", "error_description": "no such redirect"}), "no such redirect")]
#[case::datadogs(403, json!({"errors": ["Forbidden"]}), "(403): Forbidden")]
#[case::no_id(201, json!({"client_name": "x"}), "no client id")]
#[case::invalid_id(201, json!({"client_id": "a b\n"}), "no client id")]
#[tokio::test]
async fn reports_rejected_registration(
    #[case] status: u16,
    #[case] body: Value,
    #[case] words: &str,
) {
    let server = ScriptedServer::new(move |_, _| Ok(reply(status, &body)));
    let error = try_start_sign_in(&server, None).await.err().unwrap();
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn reports_unreachable_server() {
    let server = ScriptedServer::new(|_, _| Err(TransportError::Dns));
    let error = try_start_sign_in(&server, None).await.err().unwrap();
    assert!(matches!(error, LoginError::NoResponse { .. }), "{error}");
    assert!(error.hint().contains("HTTPS_PROXY"));
}

#[rstest]
#[case::used_code(400, json!({"errors": ["invalid_grant - Invalid authorization code or code verifier."]}), "rejected the code")]
#[case::rfc(400, json!({"error": "invalid_grant", "error_description": "expired"}), "rejected the code")]
#[case::unknown_client(400, json!({"errors": ["invalid_request - Invalid client_id parameter value."]}), "does not know the registration")]
#[case::scope(400, json!({"error": "invalid_scope"}), "a scope was rejected")]
#[case::server_error(503, json!({"errors": ["later"]}), "returned 503 to the code exchange (later)")]
#[case::echo(400, json!({"errors": ["bad code c0de-secret"]}), "bad code [redacted]")]
#[case::not_a_bearer(200, json!({"access_token": "t", "token_type": "mac"}), "not a bearer token")]
#[case::no_token(200, json!({"token_type": "bearer", "secret": "hunter2"}), "not the expected JSON")]
#[case::invalid_token(200, json!({"access_token": "a\r\nb", "token_type": "bearer"}), "invalid characters")]
#[tokio::test]
async fn reports_failed_code_exchange(
    #[case] status: u16,
    #[case] body: Value,
    #[case] words: &str,
) {
    let server = ScriptedServer::with_tokens(move |_| (status, body.clone()));
    let error = failed_sign_in(&server, "code=c0de-secret&domain=datadoghq.eu").await;
    let text = format!("{error} {error:?}");
    assert!(error.to_string().contains(words), "{text}");
    assert!(
        !text.contains("c0de-secret") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn notes_missing_scopes_and_wrong_clock() {
    let server = ScriptedServer::new(|path, _| {
        let mut answer = match path {
            "/api/v2/oauth2/register" => reply(201, &json!({"client_id": "c"})),
            _ => reply(
                200,
                &json!({"access_token": "t", "token_type": "bearer", "scope": "llm_observability_read"}),
            ),
        };
        let date = http::HeaderValue::from_static("Sat, 21 Nov 2026 04:33:31 GMT");
        answer.headers_mut().insert("date", date);
        Ok(answer)
    });
    let sign_in = start_sign_in(&server).await;
    let outcome = sign_in
        .finish(&response_url(&sign_in, "code=c"))
        .await
        .unwrap();
    let notes = outcome.notes.join("\n");
    assert!(
        notes.contains("not granted: llm_observability_write"),
        "{notes}"
    );
    assert!(notes.contains("the clock of this machine is"), "{notes}");
    let login = outcome.login;
    assert!(login.refresh_token.is_none());
    // The lifetime counts from this machine's clock, so its error does not matter.
    assert_eq!(login.expires_at_ms - login.issued_at_ms, 3_600_000);
}

#[tokio::test]
async fn checks_scopes_before_sending() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let request = SignInRequest {
        target: site("eu"),
        scopes: vec!["a b".to_owned()],
        client_name: "x".to_owned(),
        org: None,
    };
    let error = PendingSignIn::start(server.clone(), request, REDIRECT_URI)
        .await
        .err();
    assert_eq!(error, Some(LoginError::BadScope("a b".to_owned())));
    assert!(server.requests_to("/register").is_empty());
}

// Stored logins.

struct TestStore {
    _directory: tempfile::TempDir,
    store: LoginStore,
}

/// A stored login whose token was received and expires at these seconds relative to now.
async fn stored_login(received: i64, expires: i64) -> TestStore {
    let directory = tempfile::tempdir().unwrap();
    let store = LoginStore::new(directory.path().join("state"));
    put_login(&store, "old", received, expires).await;
    TestStore {
        _directory: directory,
        store,
    }
}

async fn put_login(store: &LoginStore, token: &str, received: i64, expires: i64) {
    let login = Login {
        target: site("eu"),
        client_id: "client-1".into(),
        access_token: format!("access-secret-{token}").into(),
        refresh_token: Some(format!("refresh-secret-{token}").into()),
        issued_at_ms: now_ms() + received * 1_000,
        expires_at_ms: now_ms() + expires * 1_000,
        scope: "llm_observability_read".into(),
        org_id: None,
        org_name: None,
    };
    let lock = store.lock().await.unwrap();
    store
        .put(&lock, "default", &login, TokenStorage::File, true)
        .unwrap();
}

fn open(stored: &TestStore, server: &Arc<ScriptedServer>) -> StoredLogin {
    StoredLogin::open(stored.store.clone(), "default", &site("eu"), server.clone()).unwrap()
}

fn bearer_token(credential: &Credential) -> String {
    match credential {
        Credential::Bearer(token) => token.expose_secret().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn stored_tokens(stored: &TestStore) -> (String, String) {
    let (login, _) = stored.store.get("default").unwrap().unwrap();
    let refresh_token = login.refresh_token.unwrap();
    (
        login.access_token.expose_secret().to_owned(),
        refresh_token.expose_secret().to_owned(),
    )
}

#[tokio::test]
async fn fresh_token_is_not_renewed() {
    let stored = stored_login(-60, 3_000).await;
    let server = ScriptedServer::with_tokens(new_tokens);
    let login = open(&stored, &server);
    assert_eq!(
        bearer_token(&login.ready().await.unwrap()),
        "access-secret-old"
    );
    assert!(server.requests_to("/token").is_empty());
}

#[rstest]
#[case::about_to_expire(-3_400, 200)]
#[case::expired(-9_000, -5_400)]
#[case::clock_set_back(7_200, 10_800)]
#[tokio::test]
async fn expiring_token_is_renewed_once_for_all_callers(
    #[case] received: i64,
    #[case] expires: i64,
) {
    let stored = stored_login(received, expires).await;
    let server = ScriptedServer::with_tokens(new_tokens);
    let login = open(&stored, &server);
    let calls = (0..20).map(|_| login.ready());
    for ready in futures_util::future::join_all(calls).await {
        assert_eq!(bearer_token(&ready.unwrap()), "access-secret-0");
    }
    let [(url, form)] = server.requests_to("/token").try_into().unwrap();
    assert_eq!(url, "https://api.datadoghq.eu/oauth2/v1/token");
    assert_eq!(form["grant_type"], "refresh_token");
    assert_eq!(form["refresh_token"], "refresh-secret-old");
    assert_eq!(form["client_id"], "client-1");
    let expected = ("access-secret-0".to_owned(), "refresh-secret-0".to_owned());
    assert_eq!(stored_tokens(&stored), expected);
}

#[tokio::test]
async fn two_processes_renew_once() {
    let stored = stored_login(-3_600, 10).await;
    let slow = Arc::new(ScriptedServer {
        requests: Mutex::default(),
        script: Box::new(|_, nth| Ok(reply(200, &new_tokens(nth).1))),
        delay: Duration::from_millis(300),
    });
    // Each opens the lock file, as two processes do.
    let (one, other) = (open(&stored, &slow), open(&stored, &slow));
    let (one, other) = tokio::join!(one.ready(), other.ready());
    assert_eq!(bearer_token(&one.unwrap()), "access-secret-0");
    assert_eq!(bearer_token(&other.unwrap()), "access-secret-0");
    assert_eq!(slow.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn cancelled_caller_does_not_stop_renewal() {
    let stored = stored_login(-3_600, 10).await;
    let slow = Arc::new(ScriptedServer {
        requests: Mutex::default(),
        script: Box::new(|_, nth| Ok(reply(200, &new_tokens(nth).1))),
        delay: Duration::from_millis(200),
    });
    let login = open(&stored, &slow);
    let cancelled = tokio::time::timeout(Duration::from_millis(50), login.ready()).await;
    assert!(cancelled.is_err());
    for _ in 0..100 {
        if stored_tokens(&stored).0 == "access-secret-0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the new refresh token was not stored");
}

#[tokio::test]
async fn keeps_refresh_token_if_none_is_returned() {
    let stored = stored_login(-3_600, 10).await;
    let server = ScriptedServer::with_tokens(|_| {
        let mut body = new_tokens(0).1;
        body.as_object_mut().unwrap().remove("refresh_token");
        (200, body)
    });
    open(&stored, &server).ready().await.unwrap();
    assert_eq!(stored_tokens(&stored).1, "refresh-secret-old");
}

#[tokio::test]
async fn revoked_refresh_token_is_sent_once_until_new_sign_in() {
    let stored = stored_login(-9_000, -5_400).await;
    let server =
        ScriptedServer::with_tokens(|_| (400, json!({"errors": ["invalid_grant - revoked"]})));
    let login = open(&stored, &server);
    for _ in 0..3 {
        let error = login.ready().await.err().unwrap();
        assert!(matches!(error, LoginError::Revoked { .. }), "{error}");
        assert!(error.hint().contains("llmobs-mcp login --profile default"));
    }
    assert_eq!(server.requests_to("/token").len(), 1);
    put_login(&stored.store, "new", 0, 3_600).await;
    assert_eq!(
        bearer_token(&login.ready().await.unwrap()),
        "access-secret-new"
    );
}

#[tokio::test]
async fn valid_token_survives_failed_renewal() {
    let stored = stored_login(-3_400, 200).await;
    let server = ScriptedServer::new(|_, _| Err(TransportError::ConnectTimeout));
    let login = open(&stored, &server);
    assert_eq!(
        bearer_token(&login.ready().await.unwrap()),
        "access-secret-old"
    );
    put_login(&stored.store, "old", -9_000, -5_400).await;
    let login = open(&stored, &server);
    let error = login.ready().await.err().unwrap();
    assert!(matches!(error, LoginError::NoResponse { .. }), "{error}");
}

#[tokio::test]
async fn moved_or_removed_login_is_not_sent_to_old_site() {
    let stored = stored_login(-9_000, -5_400).await;
    let server = ScriptedServer::with_tokens(new_tokens);
    let login = open(&stored, &server);
    let lock = stored.store.lock().await.unwrap();
    let (mut moved, storage) = stored.store.get("default").unwrap().unwrap();
    moved.target = site("us5");
    stored
        .store
        .put(&lock, "default", &moved, storage, true)
        .unwrap();
    drop(lock);
    let not_logged_in = LoginError::NotLoggedIn("default".to_owned());
    assert_eq!(login.ready().await.err(), Some(not_logged_in.clone()));
    let lock = stored.store.lock().await.unwrap();
    stored.store.remove(&lock, "default").unwrap();
    drop(lock);
    assert_eq!(login.ready().await.err(), Some(not_logged_in));
    assert!(server.requests_to("/token").is_empty());
}

static WRITE: Operation = Operation {
    name: "write",
    class: OperationClass::NonIdempotent,
    method: http::Method::POST,
    route: "/api/v2/entries",
    media: "application/json",
};

/// An API that accepts only one token, with a token endpoint.
fn api_accepting(
    accepted: &'static str,
    token_endpoint: fn(usize) -> (u16, Value),
) -> Arc<TestApi> {
    Arc::new(TestApi {
        accepted,
        tokens: ScriptedServer::with_tokens(token_endpoint),
        calls: Mutex::default(),
    })
}

struct TestApi {
    accepted: &'static str,
    tokens: Arc<ScriptedServer>,
    calls: Mutex<Vec<String>>,
}

impl Transport for TestApi {
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        if request.uri().path().contains("oauth2") {
            return self.tokens.send(request, limits);
        }
        let sent = request.headers()["authorization"].to_str().unwrap();
        self.calls.lock().unwrap().push(sent.to_owned());
        let answer = if sent == format!("Bearer {}", self.accepted) {
            reply(200, &json!({"data": []}))
        } else {
            reply(401, &json!({"errors": [format!("Unauthorized {sent}")]}))
        };
        async move { Ok(answer) }.boxed()
    }
}

async fn write_with(
    stored: &TestStore,
    api: &Arc<TestApi>,
    times: usize,
) -> Vec<Result<u16, String>> {
    let login =
        StoredLogin::open(stored.store.clone(), "default", &site("eu"), api.clone()).unwrap();
    let hub = Hub::new(
        Upstream::Site(Site::parse("eu").unwrap()),
        api.clone(),
        HubSettings::default(),
    );
    let client = hub
        .client(login.ready().await.unwrap(), "test")
        .with_renewal(Arc::new(login));
    let calls = (0..times).map(|_| client.execute(ApiCall::new(&WRITE).body(json!({}))));
    let answers = futures_util::future::join_all(calls).await;
    let outcome = |answer: Result<super::super::ApiResponse, super::super::ClientError>| {
        answer.map(|a| a.status).map_err(|error| error.to_string())
    };
    answers.into_iter().map(outcome).collect()
}

#[tokio::test]
async fn status_401_renews_and_resends_write_once() {
    let stored = stored_login(-60, 3_000).await;
    let api = api_accepting("access-secret-0", new_tokens);
    let answers = write_with(&stored, &api, 1).await;
    assert_eq!(answers, [Ok(200)]);
    let calls = api.calls.lock().unwrap().clone();
    assert_eq!(
        calls,
        ["Bearer access-secret-old", "Bearer access-secret-0"]
    );
    assert_eq!(api.tokens.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn parallel_rejected_calls_renew_once() {
    let stored = stored_login(-60, 3_000).await;
    let api = api_accepting("access-secret-0", new_tokens);
    let answers = write_with(&stored, &api, 10).await;
    assert!(
        answers.iter().all(|answer| *answer == Ok(200)),
        "{answers:?}"
    );
    assert_eq!(api.tokens.requests_to("/token").len(), 1);
}

#[tokio::test]
async fn rejected_new_token_is_not_renewed_again() {
    let stored = stored_login(-60, 3_000).await;
    let api = api_accepting("no token", new_tokens);
    let answers = write_with(&stored, &api, 3).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(error.contains("401"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(api.tokens.requests_to("/token").len(), 1);
    assert!(api.calls.lock().unwrap().len() <= 6);
}

#[tokio::test]
async fn failed_renewal_after_401_has_sign_in_hint() {
    let stored = stored_login(-60, 3_000).await;
    let api = api_accepting("x", |_| (400, json!({"error": "invalid_grant"})));
    let answers = write_with(&stored, &api, 1).await;
    let [Err(error)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert!(error.contains("sign in again: llmobs-mcp login"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn other_credentials_are_not_renewed() {
    let stored = stored_login(-60, 3_000).await;
    let server = ScriptedServer::with_tokens(new_tokens);
    let login = open(&stored, &server);
    assert!(login.renew(&Credential::None).await.unwrap().is_none());
}

#[tokio::test]
async fn revokes_refresh_token_first_and_ignores_expired_access_token() {
    let stored = stored_login(-60, 3_000).await;
    let (login, _) = stored.store.get("default").unwrap().unwrap();
    let server = ScriptedServer::new(|_, nth| {
        Ok(match nth {
            0 => reply(200, &json!({})),
            _ => reply(401, &json!({"errors": ["Unauthorized"]})),
        })
    });
    revoke(&*server, &login).await.unwrap();
    let asked = server.requests_to("/oauth2/v1/revoke");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].1["token"], "refresh-secret-old");
    assert_eq!(asked[0].1["token_type_hint"], "refresh_token");
    let server =
        ScriptedServer::new(|_, _| Ok(reply(500, &json!({"errors": ["no refresh-secret-old"]}))));
    let error = revoke(&*server, &login).await.err().unwrap();
    assert!(!error.to_string().contains("secret"), "{error}");
}

// The loopback listener.

async fn get(url: &str, host: Option<&str>) -> (u16, String, http::HeaderMap) {
    let client = crate::http_client().no_proxy().build().unwrap();
    let mut request = client.get(url);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, answer.text().await.unwrap(), headers)
}

#[tokio::test]
async fn listener_accepts_matching_response_once() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let sign_in = Arc::new(start_sign_in(&server).await);
    let listener = CallbackListener::bind(Some(0)).await.unwrap();
    let here = listener.redirect_uri();
    let wait = tokio::spawn(listener.wait(sign_in.clone(), Duration::from_secs(20)));

    let (status, ..) = get(&here.replace("/oauth/callback", "/favicon.ico"), None).await;
    assert_eq!(status, 404);
    let state = "%3Cscript%3E";
    let (status, page, headers) = get(&format!("{here}?code=c&state={state}"), None).await;
    assert_eq!(status, 400);
    assert!(!page.contains("script"), "{page}");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["cache-control"], "no-store");
    let state = &url_parameters(&sign_in)["state"];
    let callback_url = format!("{here}?code=c&state={state}");
    let (status, ..) = get(&callback_url, Some("evil.example")).await;
    assert_eq!(status, 403, "a host name that resolves to this address");
    let (status, page, _) = get(&callback_url, None).await;
    assert_eq!(status, 200);
    assert!(page.contains("close this window") && !page.contains(state.as_str()));
    let query = wait.await.unwrap().unwrap();
    assert_eq!(query, format!("code=c&state={state}"));
    assert!(
        crate::http_client()
            .build()
            .unwrap()
            .get(&callback_url)
            .send()
            .await
            .is_err(),
        "the listener has stopped"
    );
}

#[tokio::test]
async fn timeout_counts_responses_of_other_sign_ins() {
    let server = ScriptedServer::with_tokens(new_tokens);
    let sign_in = Arc::new(start_sign_in(&server).await);
    let listener = CallbackListener::bind(Some(0)).await.unwrap();
    let here = listener.redirect_uri();
    let wait = tokio::spawn(listener.wait(sign_in, Duration::from_millis(500)));
    get(&format!("{here}?code=c&state=guess"), None).await;
    let error = wait.await.unwrap().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("one response belonged to another sign-in"),
        "{text}"
    );
    assert!(error.hint().contains("--no-browser"));
}

#[tokio::test]
async fn reports_used_port() {
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = used.local_addr().unwrap().port();
    let error = CallbackListener::bind(Some(port)).await.err().unwrap();
    assert!(matches!(error, LoginError::PortInUse { .. }), "{error}");
    assert!(error.hint().contains("--callback-port"));
    assert!(
        LoginError::AllPortsInUse
            .hint()
            .contains("--callback-port 0")
    );
}

#[tokio::test]
async fn binds_first_free_port_or_names_all() {
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let used = (used.local_addr().unwrap().port(), used);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let listener = CallbackListener::bind_first_free(&[used.0, port])
        .await
        .unwrap();
    let expected = format!("http://127.0.0.1:{port}/oauth/callback");
    assert_eq!(listener.redirect_uri(), expected);
    let error = CallbackListener::bind_first_free(&[used.0, port])
        .await
        .err()
        .unwrap();
    assert_eq!(error, LoginError::AllPortsInUse);
    for port in CALLBACK_PORTS {
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}
