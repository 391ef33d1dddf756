//! Reads maintenance requests, each of which names the store that it is for.

use axum::extract::Request;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Backend;
use crate::http::{ApiError, read_small_json};

/// The store that a request is for. Every request contains it.
#[derive(Deserialize)]
pub(super) struct TargetStore {
    store_id: String,
}

/// Reads a request for this store.
pub(super) async fn read_request<T: DeserializeOwned>(
    backend: &Backend,
    request: Request,
) -> Result<T, ApiError> {
    let body = read_small_json(request.into_body()).await?;
    let invalid = |_| {
        ApiError::bad_request(
            "invalid maintenance request; use the same version of llmobs-mcp for the command and for the process that serves the data",
        )
    };
    let target: TargetStore = serde_json::from_value(body.clone()).map_err(invalid)?;
    backend.require_store(&target.store_id)?;
    serde_json::from_value(body).map_err(invalid)
}

impl Backend {
    pub(super) fn require_store(&self, store_id: &str) -> Result<(), ApiError> {
        if store_id == self.store_id {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::CONFLICT,
            "this backend now serves another store; run the command again",
        ))
    }
}
