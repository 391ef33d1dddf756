//! Datadog as the local backend plays it, on a port of its own, with everything noted that passes at
//! its sign-in; and the steps of a user who goes there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use datadog_llmobs::login::LoginTarget;
use datadog_llmobs::{HttpTransport, HttpTransportOptions, Upstream};
use llmobs_authz::oauth::DatadogSignIn;
use llmobs_datadog_double::{DatadogDouble, DoubleOptions};
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::stage::{Browser, Form as _, Page, Setup, Stage, json_of, location};

/// One request and its answer.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) form: HashMap<String, String>,
    pub(super) status: u16,
    pub(super) answer: Value,
    /// What the request showed.
    pub(super) bearer: Option<String>,
}

/// What was seen, and what is refused on purpose.
#[derive(Default)]
pub(super) struct Tap {
    seen: Mutex<Vec<Seen>>,
    /// Refuses to register anybody.
    pub(super) registers_nobody: AtomicBool,
    /// Answers the token endpoint with 503.
    pub(super) gives_no_tokens: AtomicBool,
    /// Answers the API, and not the sign-in, with 403.
    pub(super) lets_nobody_read: AtomicBool,
    /// Grants reading only, whatever was asked.
    pub(super) grants_no_writes: AtomicBool,
    /// Answers revocations with 503.
    pub(super) revokes_nothing: AtomicBool,
}

/// The site.
pub(super) struct Site {
    pub(super) base: String,
    pub(super) tap: Arc<Tap>,
    app: Router,
}

impl Site {
    pub(super) async fn new() -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let tap = Arc::<Tap>::default();
        let options = DoubleOptions {
            sign_in: true,
            ..DoubleOptions::default()
        };
        let app: Router = DatadogDouble::new(backend, options)
            .router()
            .layer(from_fn_with_state(tap.clone(), note));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = app.clone();
        tokio::spawn(async move { axum::serve(listener, served).await });
        Self { base, tap, app }
    }

    fn upstream(&self) -> Upstream {
        Upstream::from_api_url(&self.base).unwrap()
    }

    /// A server over this site, without a way to sign in at it.
    pub(super) fn setup(&self) -> Setup {
        let transport = HttpTransport::new(&HttpTransportOptions::default()).unwrap();
        Setup {
            upstream: self.upstream(),
            transport: Arc::new(transport),
            ..Setup::over(Router::new())
        }
    }

    /// A server over this site whose users may sign in there.
    pub(super) fn setup_with_sign_in(&self, client_id: Option<&str>) -> Setup {
        Setup {
            sign_in: Some(DatadogSignIn {
                target: LoginTarget::from_upstream(&self.upstream()).unwrap(),
                client_id: client_id.map(str::to_owned),
            }),
            ..self.setup()
        }
    }

    /// A server over the site of this name, which is this one in truth; nothing leaves this process.
    pub(super) fn setup_as(&self, name: &str) -> Setup {
        let upstream = Upstream::Site(name.parse().unwrap());
        Setup {
            sign_in: Some(DatadogSignIn {
                target: LoginTarget::from_upstream(&upstream).unwrap(),
                client_id: None,
            }),
            upstream,
            ..Setup::over(self.app.clone().layer(map_request(by_its_own_name)))
        }
    }

    /// What was asked at a path.
    pub(super) fn asked(&self, path: &str) -> Vec<Seen> {
        let seen = self.tap.seen.lock().unwrap();
        let at = |seen: &&Seen| seen.path == path;
        seen.iter().filter(at).cloned().collect()
    }

    pub(super) fn registrations(&self) -> Vec<Seen> {
        self.asked("/api/v2/oauth2/register")
    }

    pub(super) fn revocations(&self) -> Vec<Seen> {
        self.asked("/oauth2/v1/revoke")
    }

    /// What was asked of the token endpoint with this kind of grant.
    fn tokens(&self, grant_type: &str) -> Vec<Seen> {
        let mut asked = self.asked("/oauth2/v1/token");
        asked.retain(|seen| seen.form["grant_type"] == grant_type);
        asked
    }

    pub(super) fn exchanges(&self) -> Vec<Seen> {
        self.tokens("authorization_code")
    }

    pub(super) fn renewals(&self) -> Vec<Seen> {
        self.tokens("refresh_token")
    }

    /// The access token and refresh token that were given last.
    pub(super) fn given(&self) -> (String, String) {
        let asked = self.asked("/oauth2/v1/token");
        let given = asked.iter().rev().find(|seen| seen.status == 200);
        let answer = &given.expect("tokens were given").answer;
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("access_token"), text("refresh_token"))
    }

    /// Every secret that passed: tokens, codes, verifiers.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for seen in self.asked("/oauth2/v1/token") {
            for name in ["code", "code_verifier", "refresh_token"] {
                secrets.extend(seen.form.get(name).cloned());
            }
            for name in ["access_token", "refresh_token"] {
                secrets.extend(seen.answer[name].as_str().map(str::to_owned));
            }
        }
        secrets
    }

    /// The bearer of the last call of the API.
    pub(super) fn last_bearer(&self) -> String {
        let seen = self.tap.seen.lock().unwrap();
        let mut calls = seen.iter().rev().filter(|seen| is_api(&seen.path));
        calls.next().unwrap().bearer.clone().unwrap()
    }

    /// Whether the API takes a token.
    pub(super) async fn takes(&self, stage: &Stage, token: &str) -> bool {
        let url = format!("{}/api/v2/llm-obs/v1/projects", self.base);
        let answer = stage.http.get(url).bearer_auth(token).send().await.unwrap();
        answer.status() != StatusCode::UNAUTHORIZED
    }

    /// Revokes a token, as an administrator could.
    pub(super) async fn revoke(&self, stage: &Stage, token: &str) {
        let client_id = self.exchanges().last().unwrap().form["client_id"].clone();
        let request = stage.http.post(format!("{}/oauth2/v1/revoke", self.base));
        let form = [("client_id", client_id.as_str()), ("token", token)];
        assert_eq!(request.form(&form).send().await.unwrap().status(), 200);
    }

    /// Registers a client, as an operator does for a server.
    pub(super) async fn register(&self, stage: &Stage, redirect: &str) -> String {
        let url = format!("{}/api/v2/oauth2/register", self.base);
        let metadata = json!({"client_name": "ours", "redirect_uris": [redirect]});
        let (status, answer) = json_of(stage.http.post(url).json(&metadata)).await;
        assert_eq!(status, 201, "{answer}");
        answer["client_id"].as_str().unwrap().to_owned()
    }

    /// Answers the site's own consent page and gives the address that it leads back to.
    pub(super) async fn decide(&self, stage: &Stage, url: &Url, decision: &str) -> Url {
        let mut there = Browser::default();
        let page = there.open(stage, url.as_str()).await;
        assert_eq!(page.status, 200, "{}", page.html);
        let consent = page.hidden("consent");
        let cookie = there.cookies.iter().next().unwrap();
        let request = stage
            .http
            .post(format!("{}/oauth2/v1/authorize", self.base));
        let answer = request
            .form(&[("consent", consent.as_str()), ("decision", decision)])
            .header("cookie", format!("{}={}", cookie.0, cookie.1))
            .header("origin", &self.base)
            .send()
            .await
            .unwrap();
        location(&answer)
    }
}

/// Leaves a consent page by its button, and gives the address at the site.
pub(super) async fn leave(
    stage: &Stage,
    browser: &mut Browser,
    page: &Page,
    fields: &[(&str, &str)],
) -> Url {
    let form = browser.form(stage, page, "datadog", fields);
    let answer = form.send().await.unwrap();
    browser.keep(&answer);
    location(&answer)
}

/// Opens the consent page of a client, and goes from there to the site and back: the address at which
/// the browser arrives.
pub(super) async fn through(
    stage: &Stage,
    site: &Site,
    browser: &mut Browser,
    url: &str,
    fields: &[(&str, &str)],
) -> Url {
    let page = browser.open(stage, url).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let there = leave(stage, browser, &page, fields).await;
    site.decide(stage, &there, "allow").await
}

/// Where the page that the browser arrives at takes it: to the client.
pub(super) async fn onward(answer: reqwest::Response) -> Url {
    let page = Page::of(answer).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'none'"), "{policy}");
    let refresh = page.headers["refresh"].to_str().unwrap();
    let target = refresh.strip_prefix("0; url=").expect("a way on");
    let link = format!("<a href=\"{}\">", target.replace('&', "&amp;"));
    assert!(page.html.contains(&link), "{}", page.html);
    Url::parse(target).unwrap()
}

/// Waits until something is so; work beside requests takes its time.
pub(super) async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it did not come to be");
}

fn is_api(path: &str) -> bool {
    !path.contains("oauth2")
}

/// The local backend answers to no other name than this machine's.
async fn by_its_own_name(mut request: Request) -> Request {
    let path = request.uri().path_and_query().unwrap().as_str();
    *request.uri_mut() = path.parse().unwrap();
    let here = axum::http::HeaderValue::from_static("127.0.0.1");
    request.headers_mut().insert("host", here);
    request
}

async fn note(State(tap): State<Arc<Tap>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    let bearer = parts.headers.get("authorization");
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut seen = Seen {
        form: url::form_urlencoded::parse(&body).into_owned().collect(),
        bearer: bearer.map(str::to_owned),
        status: 0,
        answer: Value::Null,
        path: path.clone(),
    };
    let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
    let refused = match path.as_str() {
        "/api/v2/oauth2/register" if is(&tap.registers_nobody) => Some(400),
        "/oauth2/v1/token" if is(&tap.gives_no_tokens) => Some(503),
        "/oauth2/v1/revoke" if is(&tap.revokes_nothing) => Some(503),
        path if is_api(path) && is(&tap.lets_nobody_read) => Some(403),
        _ => None,
    };
    let answer = match refused {
        Some(status) => {
            let body = json!({"errors": ["invalid_request - Invalid redirect_uri"]});
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
    };
    let (mut parts, body) = answer.into_parts();
    let mut body = to_bytes(body, 1 << 24).await.unwrap();
    seen.status = parts.status.as_u16();
    seen.answer = serde_json::from_slice(&body).unwrap_or_default();
    if is(&tap.grants_no_writes) && seen.answer.get("scope").is_some() {
        seen.answer["scope"] = json!("llm_observability_read");
        body = seen.answer.to_string().into();
        parts.headers.remove("content-length");
    }
    tap.seen.lock().unwrap().push(seen);
    Response::from_parts(parts, Body::from(body))
}
