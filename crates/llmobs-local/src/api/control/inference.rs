//! Inference of an evaluator. There is no model here, and the answer says so.

use http::StatusCode;
use serde_json::json;

use super::call::{Call, Reply};
use crate::Backend;
use crate::http::ApiError;

/// Answers an error in the form that the SDK makes the metric's error of.
///
/// The signature is that of all operations, which may refuse.
#[expect(clippy::unnecessary_wraps, reason = "all operations have one form")]
pub(super) fn infer(_backend: &Backend, _call: &Call) -> Result<Reply, ApiError> {
    let body = json!({"data": {
        "id": uuid::Uuid::new_v4().to_string(),
        "type": "evaluator_inference",
        "attributes": {
            "status": "ERROR",
            "error": {
                "type": "NO_MODEL",
                "message": "the local backend has no model to judge with",
                "recommended_resolution": "run this evaluator in your own process, for example as an LLMJudge of the SDK with your own client, or point the SDK at a Datadog site",
            },
        },
    }});
    // Not one of the statuses that the SDK repeats a request on.
    Ok(Reply::Status(StatusCode::UNPROCESSABLE_ENTITY, body))
}
