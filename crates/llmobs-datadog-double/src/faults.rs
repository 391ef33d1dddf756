//! Faults: what a site does when something is wrong, on request.
//!
//! A fault applies to the next matching requests. Tests in the same process call [`Faults::add`];
//! other programs send `POST /_double/faults` with a JSON list of [`Fault`]s, and
//! `DELETE /_double/faults` to remove all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Json, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::post};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where faults are added and removed over HTTP.
pub const FAULTS_PATH: &str = "/_double/faults";

/// A fault of the next matching requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The path of a request starts with this. Default: every path.
    #[serde(default)]
    pub path: String,
    /// The method of a request, such as `POST`. Default: every method.
    #[serde(default)]
    pub method: Option<String>,
    /// How many requests it applies to. Default: 1.
    #[serde(default = "one")]
    pub times: u32,
    /// The wait before the response, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    /// The status of the response, such as 403, 404, 409, 429 or 503. Without it the request is
    /// executed and its own status is returned.
    #[serde(default)]
    pub status: Option<u16>,
    /// Additional response headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body of the response.
    #[serde(default)]
    pub body: FaultBody,
}

/// The body of a faulty response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultBody {
    /// Datadog's error object for a `status`; the unchanged body without one.
    #[default]
    Usual,
    /// An HTML page, as proxies send.
    Html,
    /// The first half of the usual body.
    Truncated,
    /// No body.
    Empty,
}

fn one() -> u32 {
    1
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            path: String::new(),
            method: None,
            times: one(),
            delay_ms: 0,
            status: None,
            headers: Vec::new(),
            body: FaultBody::default(),
        }
    }
}

impl Fault {
    /// A response with this status to the next request whose path starts with `path`.
    pub fn status(path: &str, status: u16) -> Self {
        Self {
            path: path.to_owned(),
            status: Some(status),
            ..Self::default()
        }
    }

    fn applies_to(&self, request: &Request) -> bool {
        request.uri().path().starts_with(&self.path)
            && self
                .method
                .as_deref()
                .is_none_or(|method| method.eq_ignore_ascii_case(request.method().as_str()))
    }
}

/// The faults of a double, in the order in which they apply.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Adds a fault behind the others.
    pub fn add(&self, fault: Fault) {
        self.lock().push(fault);
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first fault that applies to a request; it is used up by `times` requests.
    fn take(&self, request: &Request) -> Option<Fault> {
        let mut faults = self.lock();
        let at = faults
            .iter()
            .position(|fault| fault.applies_to(request) && fault.times > 0)?;
        let fault = faults.get_mut(at)?;
        fault.times -= 1;
        let taken = fault.clone();
        faults.retain(|fault| fault.times > 0);
        Some(taken)
    }
}

/// The routes under [`FAULTS_PATH`].
pub(crate) fn routes(faults: &Faults) -> Router {
    Router::new()
        .route(FAULTS_PATH, post(add).delete(clear))
        .with_state(faults.clone())
}

async fn add(State(faults): State<Faults>, Json(list): Json<Vec<Fault>>) -> StatusCode {
    for fault in list {
        faults.add(fault);
    }
    StatusCode::NO_CONTENT
}

async fn clear(State(faults): State<Faults>) -> StatusCode {
    faults.clear();
    StatusCode::NO_CONTENT
}

/// Middleware: applies the next matching fault.
pub(crate) async fn inject(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let Some(fault) = faults.take(&request) else {
        return next.run(request).await;
    };
    tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    let response = match fault.status {
        Some(status) => error_response(status),
        None => next.run(request).await,
    };
    let mut response = with_body(response, fault.body).await;
    for (name, value) in &fault.headers {
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name.as_str()),
            HeaderValue::from_str(value),
        ) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A response in Datadog's error format.
fn error_response(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = status.canonical_reason().unwrap_or("Error");
    let body: Value = json!({"errors": [reason]});
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

async fn with_body(response: Response, form: FaultBody) -> Response {
    let (mut parts, body) = response.into_parts();
    let replacement = match form {
        FaultBody::Usual => return Response::from_parts(parts, body),
        FaultBody::Html => {
            parts.headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/html; charset=utf-8"),
            );
            Bytes::from_static(b"<!doctype html><title>Error</title><h1>Something went wrong</h1>")
        }
        FaultBody::Truncated => {
            let whole = body.collect().await.map(|body| body.to_bytes());
            let whole = whole.unwrap_or_default();
            whole.slice(..whole.len() / 2)
        }
        FaultBody::Empty => Bytes::new(),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(replacement))
}
