//! Black-box tests of the backend through its router.

mod control;
mod hostile;
mod intake;
mod limits;
mod otlp;
mod overload;
mod search;
mod served;
mod slow;
mod update;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{DataDir, LocalBackend, LocalOptions};

/// A backend on temporary data.
struct Local {
    backend: LocalBackend,
}

/// A complete response.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {:?}", self.status, self.body);
        })
    }

    /// The attributes of the spans of a page.
    fn spans(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        let data = self.json()["data"].as_array().unwrap().clone();
        data.into_iter()
            .map(|item| item["attributes"].clone())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let spans = self.spans();
        let names = spans.iter().map(|span| span["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    /// The message of an error in Datadog's format.
    fn detail(&self) -> String {
        let body = self.json();
        assert_eq!(self.headers["content-type"], "application/vnd.api+json");
        assert_eq!(body["errors"][0]["title"], "Generic Error");
        body["errors"][0]["detail"].as_str().unwrap().to_owned()
    }
}

impl Local {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LocalOptions)) -> Self {
        let mut options = LocalOptions::new(DataDir::Temporary);
        change(&mut options);
        let backend = LocalBackend::open(options).unwrap();
        Self { backend }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.backend.router().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.raw(Method::POST, path, &headers, body.to_string().into_bytes())
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, &[], Vec::new()).await
    }

    /// Searches all time.
    async fn search(&self, filter: Value, page: Value) -> Answer {
        let mut filter = filter;
        let times = filter.as_object_mut().unwrap();
        times.entry("from").or_insert(json!("1970-01-02T00:00:00Z"));
        times.entry("to").or_insert(json!("2200-01-01T00:00:00Z"));
        let attributes = json!({"filter": filter, "page": page, "sort": "timestamp"});
        self.post(
            "/api/v2/llm-obs/v1/spans/events/search",
            &json!({"data": {"type": "spans", "attributes": attributes}}),
        )
        .await
    }

    async fn all(&self, filter: Value) -> Answer {
        self.search(filter, json!({"limit": 5000})).await
    }

    /// Sends spans of the application `shop` in the HTTP API dialect.
    async fn ingest(&self, spans: Value) {
        let attributes = json!({"ml_app": "shop", "spans": spans});
        let body = json!({"data": {"type": "span", "attributes": attributes}});
        let answer = self.post("/api/intake/llm-obs/v1/trace/spans", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        assert!(answer.body.is_empty());
    }

    async fn evaluate(&self, metrics: Value) -> Answer {
        let body =
            json!({"data": {"type": "evaluation_metric", "attributes": {"metrics": metrics}}});
        self.post("/api/intake/llm-obs/v2/eval-metric", &body).await
    }

    /// Replays a capture, as JSON.
    async fn replay(&self, capture: &str) {
        for record in capture_records(capture) {
            let path = record["path"].as_str().unwrap();
            if super::intake::Dialect::from_path(path).is_none() {
                continue;
            }
            let answer = self.post(path, &record["body"]).await;
            assert!(answer.status.is_success(), "{:?}", answer.body);
            assert!(answer.body.is_empty() || answer.json().get("errors").is_none());
        }
    }
}

fn capture_records(capture: &str) -> Vec<Value> {
    let file = format!(
        "{}/../../fixtures/captures/{capture}.json.zst",
        env!("CARGO_MANIFEST_DIR")
    );
    let json = zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    let mut packed = Vec::new();
    std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
    packed
}

/// A span in the HTTP API dialect, with the entries of `more`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write `json!` in place"
)]
fn span(id: u64, start_ns: i64, more: Value) -> Value {
    let mut span = json!({
        "trace_id": "t1", "span_id": id.to_string(), "parent_id": "undefined",
        "name": format!("span-{id}"), "start_ns": start_ns, "duration": 1_000_000.0,
        "meta": {"kind": "task"},
    });
    for (key, value) in more.as_object().unwrap() {
        span[key] = value.clone();
    }
    span
}

const SECOND: i64 = 1_000_000_000;
/// 2023-11-14T22:13:20Z in nanoseconds.
const START: i64 = 1_700_000_000 * SECOND;
