//! Embeds the local backend in a program: opens it on temporary data, sends one span as an SDK
//! would, and calls a tool over it. No port is opened.
//!
//!     cargo run --example embed

use std::error::Error;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use http::{Request, header};
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use llmobs_mcp::tools::{self, ToolContext};
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary))?;

    let span = json!({
        "trace_id": "6a0b1c2d000000001122334455667788", "span_id": "1", "parent_id": "undefined",
        "name": "answer_question", "ml_app": "my-app", "status": "ok",
        "start_ns": (now_ms - 2_000) * 1_000_000, "duration": 1_500_000_000_i64,
        "tags": ["ml_app:my-app"],
        "meta": {
            "span": {"kind": "workflow"},
            "input": {"value": "What is a span?"},
            "output": {"value": "One operation of a trace."},
        },
    });
    let body = json!([{"_dd.stage": "raw", "event_type": "span", "spans": [span]}]);
    let request = Request::post("/api/v2/llmobs")
        .header(header::HOST, "127.0.0.1:8126")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))?;
    let response = backend.router().oneshot(request).await?;
    eprintln!("sent one span: {}", response.status());

    let transport = Arc::new(RouterTransport(backend.router()));
    let hub = Hub::new(Upstream::Local, transport, HubSettings::default());
    let context = ToolContext {
        client: hub.client(Credential::None, "embed"),
        now_ms,
    };
    let tool = tools::find("search_llmobs_spans").ok_or("no such tool")?;
    let arguments: Value = json!({"ml_app": "my-app"});
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let answer = tool
        .call(&context, arguments)
        .await
        .map_err(|error| error.error)?;
    print(&answer)
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
