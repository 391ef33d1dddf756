//! Inference of an evaluator. The local backend has no model and reports that as an error.

use http::StatusCode;
use serde_json::json;

use super::call::{Call, Reply};
use crate::Backend;
use crate::http::ApiError;

/// Responds with an error in the format that the SDK copies into the metric.
#[expect(
    clippy::unnecessary_wraps,
    reason = "all operations have the same signature"
)]
pub(super) fn infer(_backend: &Backend, _call: &Call) -> Result<Reply, ApiError> {
    let body = json!({"data": {
        "id": uuid::Uuid::new_v4().to_string(),
        "type": "evaluator_inference",
        "attributes": {
            "status": "ERROR",
            "error": {
                "type": "NO_MODEL",
                "message": "the local backend has no model to evaluate with",
                "recommended_resolution": "run this evaluator in your own process, for example as an LLMJudge of the SDK with your own client, or point the SDK at a Datadog site",
            },
        },
    }});
    // The SDK does not retry this status.
    Ok(Reply::Status(StatusCode::UNPROCESSABLE_ENTITY, body))
}
