//! A test double of a Datadog site: the local backend on its own port, with a recorder of requests; and the
//! steps of a user who signs in datadog_url.

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

use super::test_server::{
    Browser, Form as _, Page, ServerSetup, TestServer, location, send_for_json,
};

/// A request and its response.
#[derive(Debug, Clone)]
pub(super) struct RecordedRequest {
    pub(super) path: String,
    pub(super) form: HashMap<String, String>,
    pub(super) status: u16,
    pub(super) answer: Value,
    /// The bearer of the request.
    pub(super) bearer: Option<String>,
}

/// The recorded requests, and the failures to simulate.
#[derive(Default)]
pub(super) struct Recorder {
    requests: Mutex<Vec<RecordedRequest>>,
    /// Refuses client registrations.
    pub(super) refuses_registration: AtomicBool,
    /// The token endpoint responds with 503.
    pub(super) refuses_tokens: AtomicBool,
    /// The API responds with 403; the sign-in works.
    pub(super) refuses_reading: AtomicBool,
    /// Grants the read scope only.
    pub(super) grants_reading_only: AtomicBool,
    /// The revocation endpoint responds with 503.
    pub(super) refuses_revocation: AtomicBool,
}

/// The site.
pub(super) struct SiteDouble {
    pub(super) base: String,
    pub(super) recorder: Arc<Recorder>,
    app: Router,
}

impl SiteDouble {
    pub(super) async fn new() -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let options = DoubleOptions {
            sign_in: true,
            ..DoubleOptions::default()
        };
        let recorder = Arc::<Recorder>::default();
        let app: Router = DatadogDouble::new(backend, options)
            .router()
            .layer(from_fn_with_state(recorder.clone(), record));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let served = app.clone();
        tokio::spawn(async move { axum::serve(listener, served).await });
        Self {
            base,
            recorder,
            app,
        }
    }

    fn upstream(&self) -> Upstream {
        Upstream::from_api_url(&self.base).unwrap()
    }

    /// A server over this site, without the sign-in at Datadog.
    pub(super) fn setup(&self) -> ServerSetup {
        let transport = HttpTransport::new(&HttpTransportOptions::default()).unwrap();
        ServerSetup {
            upstream: self.upstream(),
            transport: Arc::new(transport),
            ..ServerSetup::with_api(Router::new())
        }
    }

    /// A server over this site, with the sign-in at Datadog.
    pub(super) fn setup_with_sign_in(&self, client_id: Option<&str>) -> ServerSetup {
        ServerSetup {
            sign_in: Some(DatadogSignIn {
                target: LoginTarget::from_upstream(&self.upstream()).unwrap(),
                client_id: client_id.map(str::to_owned),
            }),
            ..self.setup()
        }
    }

    /// A server over the Datadog site `name`. Its requests go to this double.
    pub(super) fn setup_as(&self, name: &str) -> ServerSetup {
        let upstream = Upstream::Site(name.parse().unwrap());
        ServerSetup {
            sign_in: Some(DatadogSignIn {
                target: LoginTarget::from_upstream(&upstream).unwrap(),
                client_id: None,
            }),
            upstream,
            ..ServerSetup::with_api(self.app.clone().layer(map_request(set_loopback_host)))
        }
    }

    /// The requests to a path.
    pub(super) fn requests_to(&self, path: &str) -> Vec<RecordedRequest> {
        let requests = self.recorder.requests.lock().unwrap();
        let at = |request: &&RecordedRequest| request.path == path;
        requests.iter().filter(at).cloned().collect()
    }

    pub(super) fn registrations(&self) -> Vec<RecordedRequest> {
        self.requests_to("/api/v2/oauth2/register")
    }

    pub(super) fn revocations(&self) -> Vec<RecordedRequest> {
        self.requests_to("/oauth2/v1/revoke")
    }

    /// The requests to the token endpoint with this grant type.
    fn tokens(&self, grant_type: &str) -> Vec<RecordedRequest> {
        let mut requests = self.requests_to("/oauth2/v1/token");
        requests.retain(|request| request.form["grant_type"] == grant_type);
        requests
    }

    pub(super) fn exchanges(&self) -> Vec<RecordedRequest> {
        self.tokens("authorization_code")
    }

    pub(super) fn renewals(&self) -> Vec<RecordedRequest> {
        self.tokens("refresh_token")
    }

    /// The latest access token and refresh token.
    pub(super) fn last_tokens(&self) -> (String, String) {
        let requests = self.requests_to("/oauth2/v1/token");
        let last = requests.iter().rev().find(|request| request.status == 200);
        let answer = &last.expect("tokens were issued").answer;
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("access_token"), text("refresh_token"))
    }

    /// Every recorded secret: tokens, codes, verifiers.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for request in self.requests_to("/oauth2/v1/token") {
            for name in ["code", "code_verifier", "refresh_token"] {
                secrets.extend(request.form.get(name).cloned());
            }
            for name in ["access_token", "refresh_token"] {
                secrets.extend(request.answer[name].as_str().map(str::to_owned));
            }
        }
        secrets
    }

    /// The bearer of the latest API call.
    pub(super) fn last_bearer(&self) -> String {
        let requests = self.recorder.requests.lock().unwrap();
        let mut calls = requests
            .iter()
            .rev()
            .filter(|request| is_api(&request.path));
        calls.next().unwrap().bearer.clone().unwrap()
    }

    /// Whether the API accepts a token.
    pub(super) async fn accepts(&self, server: &TestServer, token: &str) -> bool {
        let url = format!("{}/api/v2/llm-obs/v1/projects", self.base);
        let answer = server
            .http
            .get(url)
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        answer.status() != StatusCode::UNAUTHORIZED
    }

    /// Revokes a token, as an administrator can.
    pub(super) async fn revoke(&self, server: &TestServer, token: &str) {
        let client_id = self.exchanges().last().unwrap().form["client_id"].clone();
        let request = server.http.post(format!("{}/oauth2/v1/revoke", self.base));
        let form = [("client_id", client_id.as_str()), ("token", token)];
        assert_eq!(request.form(&form).send().await.unwrap().status(), 200);
    }

    /// Registers a client, as an operator does.
    pub(super) async fn register(&self, server: &TestServer, redirect: &str) -> String {
        let url = format!("{}/api/v2/oauth2/register", self.base);
        let metadata = json!({"client_name": "ours", "redirect_uris": [redirect]});
        let (status, answer) = send_for_json(server.http.post(url).json(&metadata)).await;
        assert_eq!(status, 201, "{answer}");
        answer["client_id"].as_str().unwrap().to_owned()
    }

    /// Submits the consent page of the site, and returns the callback URL.
    pub(super) async fn decide(&self, server: &TestServer, url: &Url, decision: &str) -> Url {
        let mut datadog_url = Browser::default();
        let page = datadog_url.open(server, url.as_str()).await;
        assert_eq!(page.status, 200, "{}", page.html);
        let consent = page.hidden("consent");
        let cookie = datadog_url.cookies.iter().next().unwrap();
        let request = server
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

/// Submits the button for the sign-in at Datadog, and returns the URL at the site.
pub(super) async fn redirect_to_datadog(
    server: &TestServer,
    browser: &mut Browser,
    page: &Page,
    fields: &[(&str, &str)],
) -> Url {
    let form = browser.form(server, page, "datadog", fields);
    let answer = form.send().await.unwrap();
    browser.store_cookies(&answer);
    location(&answer)
}

/// Opens the consent page of a client, allows access at the site, and returns the callback URL.
pub(super) async fn complete_at_datadog(
    server: &TestServer,
    site: &SiteDouble,
    browser: &mut Browser,
    url: &str,
    fields: &[(&str, &str)],
) -> Url {
    let page = browser.open(server, url).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let datadog_url = redirect_to_datadog(server, browser, &page, fields).await;
    site.decide(server, &datadog_url, "allow").await
}

/// The URL of the client to which the page after the sign-in leads.
pub(super) async fn read_continue_page(answer: reqwest::Response) -> Url {
    let page = Page::from_response(answer).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("form-action 'none'"), "{policy}");
    let refresh = page.headers["refresh"].to_str().unwrap();
    let target = refresh.strip_prefix("0; url=").expect("a refresh header");
    let link = format!("<a href=\"{}\">", target.replace('&', "&amp;"));
    assert!(page.html.contains(&link), "{}", page.html);
    Url::parse(target).unwrap()
}

/// Waits until a condition holds, for work in background tasks.
pub(super) async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the condition did not become true");
}

fn is_api(path: &str) -> bool {
    !path.contains("oauth2")
}

/// Sets a host that the local backend accepts.
async fn set_loopback_host(mut request: Request) -> Request {
    let path = request.uri().path_and_query().unwrap().as_str();
    *request.uri_mut() = path.parse().unwrap();
    let loopback = axum::http::HeaderValue::from_static("127.0.0.1");
    request.headers_mut().insert("host", loopback);
    request
}

async fn record(State(recorder): State<Arc<Recorder>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.path().to_owned();
    let bearer = parts.headers.get("authorization");
    let bearer = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut recorded = RecordedRequest {
        form: url::form_urlencoded::parse(&body).into_owned().collect(),
        bearer: bearer.map(str::to_owned),
        status: 0,
        answer: Value::Null,
        path: path.clone(),
    };
    let is = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
    let refused = match path.as_str() {
        "/api/v2/oauth2/register" if is(&recorder.refuses_registration) => Some(400),
        "/oauth2/v1/token" if is(&recorder.refuses_tokens) => Some(503),
        "/oauth2/v1/revoke" if is(&recorder.refuses_revocation) => Some(503),
        path if is_api(path) && is(&recorder.refuses_reading) => Some(403),
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
    recorded.status = parts.status.as_u16();
    recorded.answer = serde_json::from_slice(&body).unwrap_or_default();
    if is(&recorder.grants_reading_only) && recorded.answer.get("scope").is_some() {
        recorded.answer["scope"] = json!("llm_observability_read");
        body = recorded.answer.to_string().into();
        parts.headers.remove("content-length");
    }
    recorder.requests.lock().unwrap().push(recorded);
    Response::from_parts(parts, Body::from(body))
}
