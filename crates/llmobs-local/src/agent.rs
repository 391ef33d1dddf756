//! Endpoints of the Datadog Agent that SDKs call besides the intake.
//!
//! ddtrace uses the Agent only if `/info` lists `/evp_proxy/v2/` and `/v0.4/traces`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};

use super::http::{drain, json_plain};
use super::{Backend, route_with_prefixes};

/// The endpoints that `/info` lists.
const ENDPOINTS: [&str; 7] = [
    "/v1/traces",
    "/v0.4/traces",
    "/evp_proxy/v2/",
    "/evp_proxy/v4/",
    "/api/v2/llmobs",
    "/api/intake/llm-obs/",
    "/api/v2/llm-obs/v1/spans/events",
];

pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let router = Router::new()
        .route("/info", get(info).with_state(backend.clone()))
        // Telemetry and statistics of the SDK itself, remote configuration.
        .route("/telemetry/proxy/{*path}", any(accept_and_discard))
        .route("/v0.6/stats", any(accept_and_discard))
        .route("/v0.7/config", any(accept_and_discard));
    route_with_prefixes(router, "/api/v1/validate", &get(validate))
}

async fn info(State(backend): State<Arc<Backend>>) -> Json<Value> {
    Json(json!({
        "endpoints": ENDPOINTS,
        "client_drop_p0s": false,
        "span_meta_structs": true,
        "llmobs_mcp": backend.info(),
    }))
}

async fn validate() -> Json<Value> {
    Json(json!({"valid": true}))
}

async fn accept_and_discard(request: Request) -> Response {
    drain(request.into_body()).await;
    json_plain(StatusCode::OK, &json!({}))
}
