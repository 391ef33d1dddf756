//! A backend, a client and tools in one process, without a port.

pub(crate) mod sender;

use std::path::Path;
use std::sync::Arc;

use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_datadog_double::{DatadogDouble, DoubleOptions, RequestCounts};
use llmobs_local::demo::Recording;
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use llmobs_mcp::tools::{self, ToolContext, ToolError};
use serde_json::Value;

/// A moment after every capture was made: 2026-11-21T12:00:00Z.
pub(crate) const NOW_MS: i64 = 1_795_262_400_000;

/// A local backend behind a double of Datadog, and a client of it.
pub(crate) struct App {
    pub(crate) backend: DatadogDouble,
    pub(crate) context: ToolContext,
}

impl App {
    /// An empty backend that answers everything it knows.
    pub(crate) fn new() -> Self {
        Self::with(false, HubSettings::default())
    }

    /// An empty backend that answers documented attributes only.
    pub(crate) fn documented_only() -> Self {
        Self::with(true, HubSettings::default())
    }

    /// An empty backend.
    pub(crate) fn with(documented_only: bool, settings: HubSettings) -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let options = DoubleOptions {
            documented_only,
            ..DoubleOptions::default()
        };
        let backend = DatadogDouble::new(backend, options);
        let transport = Arc::new(RouterTransport(backend.router()));
        let hub = Hub::new(Upstream::Local, transport, settings);
        let context = ToolContext {
            client: hub.client(Credential::None, "test"),
            now_ms: NOW_MS,
        };
        Self { backend, context }
    }

    /// Adds a capture as it was sent.
    pub(crate) fn capture(self, name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/captures")
            .join(format!("{name}.json.zst"));
        let recording = Recording::read(&std::fs::read(path).unwrap()).unwrap();
        let summary = recording.replay(self.backend.backend(), NOW_MS).unwrap();
        assert!(summary.spans > 0, "{name} brought no spans");
        self
    }

    /// Adds the demo data, the newest of which is a few minutes older than [`NOW_MS`].
    pub(crate) fn demo(self) -> Self {
        llmobs_local::demo::load(self.backend.backend(), NOW_MS).unwrap();
        self
    }

    /// Sends a body to the backend and returns status and JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        use tower::ServiceExt as _;
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:8126")
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        let response = self.backend.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    /// Sends spans in the SDK's form.
    pub(crate) async fn spans(&self, spans: Value) {
        let body = serde_json::json!([{"_dd.stage": "raw", "event_type": "span", "spans": spans}]);
        let (status, answer) = self.send("POST", "/api/v2/llmobs", &body).await;
        assert_eq!(status, 202, "{answer}");
    }

    /// Sends evaluations.
    pub(crate) async fn evaluations(&self, metrics: Value) {
        let body = serde_json::json!({"data": {"type": "evaluation_metric",
            "attributes": {"metrics": metrics}}});
        let (status, answer) = self
            .send("POST", "/api/intake/llm-obs/v2/eval-metric", &body)
            .await;
        assert_eq!(status, 202, "{answer}");
    }

    /// The text of a tool's answer.
    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> Result<String, ToolError> {
        let Value::Object(arguments) = arguments else {
            panic!("arguments are an object")
        };
        let tool = tools::find(tool).expect("a tool of that name");
        let context = ToolContext {
            client: self.context.client.for_call(),
            ..self.context.clone()
        };
        tool.call(&context, arguments).await
    }

    /// A tool's answer.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        match self.text(tool, arguments.clone()).await {
            Ok(text) => serde_json::from_str(&text).unwrap(),
            Err(error) => panic!("{tool} {arguments}: {}", error.to_json()),
        }
    }

    /// A tool's refusal.
    pub(crate) async fn refusal(&self, tool: &str, arguments: Value) -> Value {
        match self.text(tool, arguments.clone()).await {
            Ok(text) => panic!("{tool} {arguments} was answered: {text}"),
            Err(error) => serde_json::from_str(&error.to_json()).unwrap(),
        }
    }

    /// What the backend was asked.
    pub(crate) fn counts(&self) -> RequestCounts {
        self.backend.request_counts()
    }

    /// All rows of a search, page after page.
    pub(crate) async fn all_spans(&self, mut arguments: Value) -> Vec<Value> {
        let mut rows = Vec::new();
        loop {
            let page = self.call("search_llmobs_spans", arguments.clone()).await;
            rows.extend(page["spans"].as_array().unwrap().clone());
            match &page["next_cursor"] {
                Value::Null => return rows,
                cursor => arguments["cursor"] = cursor.clone(),
            }
        }
    }

    /// The ids of all traces, oldest first.
    pub(crate) async fn trace_ids(&self) -> Vec<String> {
        let arguments = serde_json::json!({"from": "now-90d", "limit": 500, "summary": true});
        let mut ids: Vec<String> = Vec::new();
        for row in self.all_spans(arguments).await.into_iter().rev() {
            let id = row["trace_id"].as_str().unwrap().to_owned();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}
