//! The double as clients see it.

mod documented;
mod faults;
mod sign_in;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{DatadogDouble, DoubleOptions};

/// A double over an empty backend, without a port.
struct Harness {
    double: DatadogDouble,
    router: Router,
}

struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Harness {
    fn new(options: DoubleOptions) -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let double = DatadogDouble::new(backend, options);
        let router = double.router();
        Self { double, router }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let (parts, body) = self
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_parts();
        Response {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    async fn get(&self, path: &str) -> Response {
        let headers = [("host", "127.0.0.1:8126")];
        self.send(Method::GET, path, &headers, Vec::new()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        let headers = [
            ("host", "127.0.0.1:8126"),
            ("content-type", "application/json"),
        ];
        self.send(Method::POST, path, &headers, body.to_string().into_bytes())
            .await
    }
}
