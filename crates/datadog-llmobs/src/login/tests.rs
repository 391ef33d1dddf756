//! Sign-ins and renewals against an authorization server that misbehaves.

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

/// What was asked: the address without its query, and the form.
type Asked = (String, HashMap<String, String>);
type Script = Box<dyn Fn(&str, usize) -> Result<Response<Bytes>, TransportError> + Send + Sync>;

/// Answers by a script: the path, and how often it was asked before.
struct Fake {
    asked: Mutex<Vec<Asked>>,
    script: Script,
    delay: Duration,
}

impl Fake {
    fn new(
        script: impl Fn(&str, usize) -> Result<Response<Bytes>, TransportError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            script: Box::new(script),
            delay: Duration::ZERO,
        })
    }

    /// Registers fine; the token endpoint answers this.
    fn tokens(answer: impl Fn(usize) -> (u16, Value) + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |path, nth| {
            Ok(match path {
                "/api/v2/oauth2/register" => reply(201, &json!({"client_id": "client-1"})),
                "/oauth2/v1/token" => {
                    let (status, body) = answer(nth);
                    reply(status, &body)
                }
                _ => reply(200, &json!({})),
            })
        })
    }

    fn asked_at(&self, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let at = |(url, _): &&Asked| url.ends_with(path);
        asked.iter().filter(at).cloned().collect()
    }
}

impl Transport for Fake {
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
                let mut asked = self.asked.lock().unwrap();
                let before = asked.iter().filter(|(url, _)| url.ends_with(&path)).count();
                asked.push((request.uri().to_string(), form));
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

fn good(n: usize) -> (u16, Value) {
    let body = json!({
        "access_token": format!("access-secret-{n}"), "token_type": "Bearer", "expires_in": 3600,
        "refresh_token": format!("refresh-secret-{n}"),
        "scope": "llm_observability_read llm_observability_write"});
    (200, body)
}

fn site(name: &str) -> LoginTarget {
    LoginTarget::from_upstream(&Upstream::Site(Site::parse(name).unwrap())).unwrap()
}

const REDIRECT: &str = "http://127.0.0.1:8000/oauth/callback";

async fn attempt(fake: &Arc<Fake>) -> PendingSignIn {
    attempt_at(fake, None).await.unwrap()
}

async fn attempt_at(fake: &Arc<Fake>, org: Option<&str>) -> Result<PendingSignIn, LoginError> {
    let request = SignInRequest {
        target: site("eu"),
        scopes: DEFAULT_SCOPES.map(str::to_owned).to_vec(),
        client_name: CLIENT_NAME.to_owned(),
        org: org.map(str::to_owned),
    };
    PendingSignIn::start(fake.clone(), request, REDIRECT).await
}

/// The values that the browser's address carries.
fn carried(attempt: &PendingSignIn) -> HashMap<String, String> {
    attempt.url().query_pairs().into_owned().collect()
}

fn answer(attempt: &PendingSignIn, rest: &str) -> String {
    format!("{REDIRECT}?state={}&{rest}", carried(attempt)["state"])
}

async fn fail(fake: &Arc<Fake>, rest: &str) -> LoginError {
    let attempt = attempt(fake).await;
    let answer = answer(&attempt, rest);
    attempt.finish(&answer).await.err().expect("fails")
}

#[tokio::test]
async fn a_sign_in_asks_with_pkce_and_state_and_proves_it_with_the_verifier() {
    let fake = Fake::tokens(good);
    let attempt = attempt(&fake).await;
    let url = attempt.url().clone();
    assert_eq!(url.host_str(), Some("app.datadoghq.eu"));
    let values = carried(&attempt);
    assert_eq!(values["response_type"], "code");
    assert_eq!(values["client_id"], "client-1");
    assert_eq!(values["redirect_uri"], REDIRECT);
    assert_eq!(values["code_challenge_method"], "S256");
    assert_eq!(
        values["scope"],
        "llm_observability_read llm_observability_write"
    );
    assert!(values["state"].len() >= 40);
    let org = "8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1";
    let query = answer(
        &attempt,
        &format!("code=c0de&domain=us5.datadoghq.com&dd_oid={org}&dd_org_name=Acme%E2%80%AE"),
    );
    let outcome = attempt.finish(&query).await.unwrap();
    assert!(outcome.notes.is_empty(), "{:?}", outcome.notes);
    let profile = outcome.profile;
    assert_eq!(profile.target.key(), "us5.datadoghq.com");
    assert_eq!(profile.org_id.as_deref(), Some(org));
    assert_eq!(profile.org_name.as_deref(), Some("Acme"));
    assert_eq!(profile.access.expose_secret(), "access-secret-0");

    let [(to, form)] = fake.asked_at("/oauth2/v1/token").try_into().unwrap();
    assert_eq!(to, "https://api.us5.datadoghq.com/oauth2/v1/token");
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!(form["code"], "c0de");
    assert_eq!(form["redirect_uri"], REDIRECT);
    use base64::Engine;
    use sha2::Digest;
    let challenge = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(sha2::Sha256::digest(form["code_verifier"].as_bytes()));
    assert_eq!(challenge, values["code_challenge"]);
    let other = attempt_at(&fake, None).await.unwrap();
    assert_ne!(carried(&other)["state"], values["state"]);
    assert_ne!(carried(&other)["code_challenge"], values["code_challenge"]);
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
#[case::scope("error=invalid_scope&error_description=x", "a scope was refused")]
#[case::other("error=server_error", "ended with `server_error`")]
#[case::nothing("domain=datadoghq.eu", "neither a code nor an error")]
#[case::twice("code=c&code=d", "neither a code nor an error")]
#[case::error_beside_a_code("code=c&error=access_denied", "denied")]
#[tokio::test]
async fn an_answer_that_is_wrong_sends_the_code_nowhere(#[case] rest: &str, #[case] words: &str) {
    let fake = Fake::tokens(good);
    let error = fail(&fake, rest).await;
    assert!(error.to_string().contains(words), "{error}");
    assert!(error.hint().len() > 20);
    assert!(fake.asked_at("/oauth2/v1/token").is_empty());
}

#[tokio::test]
async fn a_wrong_state_is_another_sign_in() {
    let fake = Fake::tokens(good);
    let attempt = attempt(&fake).await;
    for query in [
        "code=c&state=guessed",
        "code=c",
        "",
        "state=&code=c",
        "not a query",
    ] {
        let error = attempt.finish(query).await.err().unwrap();
        assert_eq!(error, LoginError::WrongState);
    }
    let twice = answer(&attempt, "code=c&state=guessed");
    assert!(attempt.finish(&twice).await.is_err());
    assert!(fake.asked_at("/oauth2/v1/token").is_empty());
}

#[tokio::test]
async fn another_organisation_than_the_one_asked_for_is_refused() {
    let fake = Fake::tokens(good);
    let wanted = "8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1";
    let other = "00000000-45ad-4d2b-9b6c-6f4a50a1b7a1";
    for rest in [format!("code=c&dd_oid={other}"), "code=c".to_owned()] {
        let attempt = attempt_at(&fake, Some(wanted)).await.unwrap();
        assert_eq!(carried(&attempt)["dd_oid"], wanted);
        let error = attempt
            .finish(&answer(&attempt, &rest))
            .await
            .err()
            .unwrap();
        assert_eq!(error, LoginError::OtherOrganisation);
    }
    assert!(fake.asked_at("/oauth2/v1/token").is_empty());
}

#[rstest]
#[case::rfc(400, json!({"error": "invalid_client_metadata", "error_description": "no such redirect"}), "no such redirect")]
#[case::datadogs(403, json!({"errors": ["Forbidden"]}), "(403): Forbidden")]
#[case::no_id(201, json!({"client_name": "x"}), "no client id")]
#[case::odd_id(201, json!({"client_id": "a b\n"}), "no client id")]
#[tokio::test]
async fn a_refused_registration(#[case] status: u16, #[case] body: Value, #[case] words: &str) {
    let fake = Fake::new(move |_, _| Ok(reply(status, &body)));
    let error = attempt_at(&fake, None).await.err().unwrap();
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn nobody_at_home() {
    let fake = Fake::new(|_, _| Err(TransportError::Dns));
    let error = attempt_at(&fake, None).await.err().unwrap();
    assert!(matches!(error, LoginError::NoAnswer { .. }), "{error}");
    assert!(error.hint().contains("HTTPS_PROXY"));
}

#[rstest]
#[case::used_code(400, json!({"errors": ["invalid_grant - Invalid authorization code or code verifier."]}), "did not accept the code")]
#[case::rfc(400, json!({"error": "invalid_grant", "error_description": "expired"}), "did not accept the code")]
#[case::other_site(400, json!({"errors": ["invalid_request - Invalid client_id parameter value."]}), "does not know this program")]
#[case::scope(400, json!({"error": "invalid_scope"}), "a scope was refused")]
#[case::trouble(503, json!({"errors": ["later"]}), "answered 503 to the code exchange (later)")]
#[case::echo(400, json!({"errors": ["bad code c0de-secret"]}), "bad code [redacted]")]
#[case::not_a_bearer(200, json!({"access_token": "t", "token_type": "mac"}), "no bearer token")]
#[case::no_token(200, json!({"token_type": "bearer", "secret": "hunter2"}), "not the promised JSON")]
#[case::odd_token(200, json!({"access_token": "a\r\nb", "token_type": "bearer"}), "odd characters")]
#[tokio::test]
async fn a_code_that_is_not_exchanged(
    #[case] status: u16,
    #[case] body: Value,
    #[case] words: &str,
) {
    let fake = Fake::tokens(move |_| (status, body.clone()));
    let error = fail(&fake, "code=c0de-secret&domain=datadoghq.eu").await;
    let text = format!("{error} {error:?}");
    assert!(error.to_string().contains(words), "{text}");
    assert!(
        !text.contains("c0de-secret") && !text.contains("hunter2"),
        "{text}"
    );
}

#[tokio::test]
async fn fewer_scopes_and_a_clock_that_is_off_are_said() {
    let fake = Fake::new(|path, _| {
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
    let attempt = attempt(&fake).await;
    let outcome = attempt.finish(&answer(&attempt, "code=c")).await.unwrap();
    let notes = outcome.notes.join("\n");
    assert!(
        notes.contains("not granted: llm_observability_write"),
        "{notes}"
    );
    assert!(notes.contains("this machine's clock is"), "{notes}");
    let profile = outcome.profile;
    assert!(profile.refresh.is_none());
    // Counted by this machine's clock, so that its error does not count.
    assert_eq!(profile.expires_at_ms - profile.issued_at_ms, 3_600_000);
}

#[tokio::test]
async fn scopes_are_checked_before_anything_is_sent() {
    let fake = Fake::tokens(good);
    let request = SignInRequest {
        target: site("eu"),
        scopes: vec!["a b".to_owned()],
        client_name: "x".to_owned(),
        org: None,
    };
    let error = PendingSignIn::start(fake.clone(), request, REDIRECT)
        .await
        .err();
    assert_eq!(error, Some(LoginError::BadScope("a b".to_owned())));
    assert!(fake.asked_at("/register").is_empty());
}

// What follows is about stored logins.

struct LoginSummary {
    _folder: tempfile::TempDir,
    store: LoginStore,
}

/// A stored login whose token was received and ends so many seconds from now.
async fn kept(received: i64, ends: i64) -> LoginSummary {
    let folder = tempfile::tempdir().unwrap();
    let store = LoginStore::new(folder.path().join("state"));
    keep(&store, "old", received, ends).await;
    LoginSummary {
        _folder: folder,
        store,
    }
}

async fn keep(store: &LoginStore, token: &str, received: i64, ends: i64) {
    let profile = Login {
        target: site("eu"),
        client_id: "client-1".into(),
        access: format!("access-secret-{token}").into(),
        refresh: Some(format!("refresh-secret-{token}").into()),
        issued_at_ms: now_ms() + received * 1_000,
        expires_at_ms: now_ms() + ends * 1_000,
        scope: "llm_observability_read".into(),
        org_id: None,
        org_name: None,
    };
    let lock = store.lock().await.unwrap();
    store
        .put(&lock, "default", &profile, TokenStorage::File, true)
        .unwrap();
}

fn open(kept: &LoginSummary, fake: &Arc<Fake>) -> StoredLogin {
    StoredLogin::open(kept.store.clone(), "default", &site("eu"), fake.clone()).unwrap()
}

fn token(credential: &Credential) -> String {
    match credential {
        Credential::Bearer(token) => token.expose_secret().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn stored(kept: &LoginSummary) -> (String, String) {
    let (profile, _) = kept.store.get("default").unwrap().unwrap();
    let refresh = profile.refresh.unwrap();
    (
        profile.access.expose_secret().to_owned(),
        refresh.expose_secret().to_owned(),
    )
}

#[tokio::test]
async fn a_token_with_time_left_is_used_as_it_is() {
    let kept = kept(-60, 3_000).await;
    let fake = Fake::tokens(good);
    let login = open(&kept, &fake);
    assert_eq!(token(&login.ready().await.unwrap()), "access-secret-old");
    assert!(fake.asked_at("/token").is_empty());
}

#[rstest]
#[case::about_to_end(-3_400, 200)]
#[case::ended(-9_000, -5_400)]
#[case::clock_went_back(7_200, 10_800)]
#[tokio::test]
async fn a_token_that_may_end_is_renewed_once_for_all_callers(
    #[case] received: i64,
    #[case] ends: i64,
) {
    let kept = kept(received, ends).await;
    let fake = Fake::tokens(good);
    let login = open(&kept, &fake);
    let calls = (0..20).map(|_| login.ready());
    for ready in futures_util::future::join_all(calls).await {
        assert_eq!(token(&ready.unwrap()), "access-secret-0");
    }
    let [(to, form)] = fake.asked_at("/token").try_into().unwrap();
    assert_eq!(to, "https://api.datadoghq.eu/oauth2/v1/token");
    assert_eq!(form["grant_type"], "refresh_token");
    assert_eq!(form["refresh_token"], "refresh-secret-old");
    assert_eq!(form["client_id"], "client-1");
    let expected = ("access-secret-0".to_owned(), "refresh-secret-0".to_owned());
    assert_eq!(stored(&kept), expected);
}

#[tokio::test]
async fn two_processes_at_once_renew_once() {
    let kept = kept(-3_600, 10).await;
    let slow = Arc::new(Fake {
        asked: Mutex::default(),
        script: Box::new(|_, nth| Ok(reply(200, &good(nth).1))),
        delay: Duration::from_millis(300),
    });
    // Each has its own lock on the file, as two processes have.
    let (one, other) = (open(&kept, &slow), open(&kept, &slow));
    let (one, other) = tokio::join!(one.ready(), other.ready());
    assert_eq!(token(&one.unwrap()), "access-secret-0");
    assert_eq!(token(&other.unwrap()), "access-secret-0");
    assert_eq!(slow.asked_at("/token").len(), 1);
}

#[tokio::test]
async fn a_renewal_is_finished_although_its_caller_went_away() {
    let kept = kept(-3_600, 10).await;
    let slow = Arc::new(Fake {
        asked: Mutex::default(),
        script: Box::new(|_, nth| Ok(reply(200, &good(nth).1))),
        delay: Duration::from_millis(200),
    });
    let login = open(&kept, &slow);
    let gone = tokio::time::timeout(Duration::from_millis(50), login.ready()).await;
    assert!(gone.is_err());
    for _ in 0..100 {
        if stored(&kept).0 == "access-secret-0" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the spent refresh token was never replaced");
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_leaves_the_old_one() {
    let kept = kept(-3_600, 10).await;
    let fake = Fake::tokens(|_| {
        let mut body = good(0).1;
        body.as_object_mut().unwrap().remove("refresh_token");
        (200, body)
    });
    open(&kept, &fake).ready().await.unwrap();
    assert_eq!(stored(&kept).1, "refresh-secret-old");
}

#[tokio::test]
async fn a_revoked_refresh_token_is_said_asked_once_and_healed_by_a_new_sign_in() {
    let kept = kept(-9_000, -5_400).await;
    let fake = Fake::tokens(|_| (400, json!({"errors": ["invalid_grant - revoked"]})));
    let login = open(&kept, &fake);
    for _ in 0..3 {
        let error = login.ready().await.err().unwrap();
        assert!(matches!(error, LoginError::Revoked { .. }), "{error}");
        assert!(error.hint().contains("llmobs-mcp login --profile default"));
    }
    assert_eq!(fake.asked_at("/token").len(), 1);
    keep(&kept.store, "new", 0, 3_600).await;
    assert_eq!(token(&login.ready().await.unwrap()), "access-secret-new");
}

#[tokio::test]
async fn while_a_token_lives_a_renewal_may_fail_for_now() {
    let kept = kept(-3_400, 200).await;
    let fake = Fake::new(|_, _| Err(TransportError::ConnectTimeout));
    let login = open(&kept, &fake);
    assert_eq!(token(&login.ready().await.unwrap()), "access-secret-old");
    keep(&kept.store, "old", -9_000, -5_400).await;
    let login = open(&kept, &fake);
    let error = login.ready().await.err().unwrap();
    assert!(matches!(error, LoginError::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn a_login_that_moved_to_another_site_or_went_away_is_not_sent_to_the_old_one() {
    let kept = kept(-9_000, -5_400).await;
    let fake = Fake::tokens(good);
    let login = open(&kept, &fake);
    let lock = kept.store.lock().await.unwrap();
    let (mut profile, safe) = kept.store.get("default").unwrap().unwrap();
    profile.target = site("us5");
    kept.store
        .put(&lock, "default", &profile, safe, true)
        .unwrap();
    drop(lock);
    let gone = LoginError::NotLoggedIn("default".to_owned());
    assert_eq!(login.ready().await.err(), Some(gone.clone()));
    let lock = kept.store.lock().await.unwrap();
    kept.store.remove(&lock, "default").unwrap();
    drop(lock);
    assert_eq!(login.ready().await.err(), Some(gone));
    assert!(fake.asked_at("/token").is_empty());
}

static WRITE: Operation = Operation {
    name: "a write",
    class: OperationClass::NonIdempotent,
    method: http::Method::POST,
    route: "/api/v2/things",
    media: "application/json",
};

/// An API that accepts only this token, and the token endpoint beside it.
fn api(accepted: &'static str, token_endpoint: fn(usize) -> (u16, Value)) -> Arc<Api> {
    Arc::new(Api {
        accepted,
        tokens: Fake::tokens(token_endpoint),
        calls: Mutex::default(),
    })
}

struct Api {
    accepted: &'static str,
    tokens: Arc<Fake>,
    calls: Mutex<Vec<String>>,
}

impl Transport for Api {
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

async fn write_with(kept: &LoginSummary, api: &Arc<Api>, times: usize) -> Vec<Result<u16, String>> {
    let login = StoredLogin::open(kept.store.clone(), "default", &site("eu"), api.clone()).unwrap();
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
async fn a_401_renews_once_and_sends_again_once_even_a_write() {
    let kept = kept(-60, 3_000).await;
    let api = api("access-secret-0", good);
    let answers = write_with(&kept, &api, 1).await;
    assert_eq!(answers, [Ok(200)]);
    let calls = api.calls.lock().unwrap().clone();
    assert_eq!(
        calls,
        ["Bearer access-secret-old", "Bearer access-secret-0"]
    );
    assert_eq!(api.tokens.asked_at("/token").len(), 1);
}

#[tokio::test]
async fn many_calls_that_are_refused_at_once_renew_once() {
    let kept = kept(-60, 3_000).await;
    let api = api("access-secret-0", good);
    let answers = write_with(&kept, &api, 10).await;
    assert!(
        answers.iter().all(|answer| *answer == Ok(200)),
        "{answers:?}"
    );
    assert_eq!(api.tokens.asked_at("/token").len(), 1);
}

#[tokio::test]
async fn an_upstream_that_takes_no_such_tokens_is_not_asked_for_ever() {
    let kept = kept(-60, 3_000).await;
    let api = api("keys only", good);
    let answers = write_with(&kept, &api, 3).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(error.contains("401"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(api.tokens.asked_at("/token").len(), 1);
    assert!(api.calls.lock().unwrap().len() <= 6);
}

#[tokio::test]
async fn a_401_that_cannot_be_helped_says_how_to_sign_in() {
    let kept = kept(-60, 3_000).await;
    let api = api("x", |_| (400, json!({"error": "invalid_grant"})));
    let answers = write_with(&kept, &api, 1).await;
    let [Err(error)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert!(error.contains("sign in again: llmobs-mcp login"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn other_credentials_are_not_renewed() {
    let kept = kept(-60, 3_000).await;
    let fake = Fake::tokens(good);
    let login = open(&kept, &fake);
    assert!(login.renew(&Credential::None).await.unwrap().is_none());
}

#[tokio::test]
async fn revoking_ends_the_refresh_token_first_and_minds_no_dead_access_token() {
    let kept = kept(-60, 3_000).await;
    let (profile, _) = kept.store.get("default").unwrap().unwrap();
    let fake = Fake::new(|_, nth| {
        Ok(match nth {
            0 => reply(200, &json!({})),
            _ => reply(401, &json!({"errors": ["Unauthorized"]})),
        })
    });
    revoke(&*fake, &profile).await.unwrap();
    let asked = fake.asked_at("/oauth2/v1/revoke");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].1["token"], "refresh-secret-old");
    assert_eq!(asked[0].1["token_type_hint"], "refresh_token");
    let fake = Fake::new(|_, _| Ok(reply(500, &json!({"errors": ["no refresh-secret-old"]}))));
    let error = revoke(&*fake, &profile).await.err().unwrap();
    assert!(!error.to_string().contains("secret"), "{error}");
}

// What follows is about the loopback listener.

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
async fn the_listener_takes_the_one_answer_that_is_ours() {
    let fake = Fake::tokens(good);
    let attempt = Arc::new(attempt(&fake).await);
    let listener = CallbackListener::bind(Some(0)).await.unwrap();
    let here = listener.redirect();
    let wait = tokio::spawn(listener.wait(attempt.clone(), Duration::from_secs(20)));

    let (status, ..) = get(&here.replace("/oauth/callback", "/favicon.ico"), None).await;
    assert_eq!(status, 404);
    let mark = "%3Cscript%3E";
    let (status, page, headers) = get(&format!("{here}?code=c&state={mark}"), None).await;
    assert_eq!(status, 400);
    assert!(!page.contains("script"), "{page}");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["cache-control"], "no-store");
    let state = &carried(&attempt)["state"];
    let good = format!("{here}?code=c&state={state}");
    let (status, ..) = get(&good, Some("evil.example")).await;
    assert_eq!(status, 403, "a name that was made to lead here");
    let (status, page, _) = get(&good, None).await;
    assert_eq!(status, 200);
    assert!(page.contains("close this window") && !page.contains(state.as_str()));
    let query = wait.await.unwrap().unwrap();
    assert_eq!(query, format!("code=c&state={state}"));
    assert!(
        crate::http_client()
            .build()
            .unwrap()
            .get(&good)
            .send()
            .await
            .is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn nobody_came_and_strangers_did() {
    let fake = Fake::tokens(good);
    let attempt = Arc::new(attempt(&fake).await);
    let listener = CallbackListener::bind(Some(0)).await.unwrap();
    let here = listener.redirect();
    let wait = tokio::spawn(listener.wait(attempt, Duration::from_millis(500)));
    get(&format!("{here}?code=c&state=guess"), None).await;
    let error = wait.await.unwrap().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("one answer came that belongs to another sign-in"),
        "{text}"
    );
    assert!(error.hint().contains("--no-browser"));
}

#[tokio::test]
async fn a_port_that_was_named_is_taken_or_refused() {
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = used.local_addr().unwrap().port();
    let error = CallbackListener::bind(Some(port)).await.err().unwrap();
    assert!(matches!(error, LoginError::PortTaken { .. }), "{error}");
    assert!(error.hint().contains("--callback-port"));
    assert!(LoginError::PortsTaken.hint().contains("--callback-port 0"));
}

#[tokio::test]
async fn the_first_port_that_is_free_is_taken_and_a_refusal_names_them_all() {
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let used = (used.local_addr().unwrap().port(), used);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let listener = CallbackListener::first_free(&[used.0, port]).await.unwrap();
    let expected = format!("http://127.0.0.1:{port}/oauth/callback");
    assert_eq!(listener.redirect(), expected);
    let error = CallbackListener::first_free(&[used.0, port])
        .await
        .err()
        .unwrap();
    assert_eq!(error, LoginError::PortsTaken);
    for port in CALLBACK_PORTS {
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}
