//! Keeping the store in order, for `llmobs-mcp local stats`, `purge`, `verify`, `reindex`, `export`
//! and `import`. Ours alone: Datadog has nothing like it.
//!
//! The commands go through these whether they own the data or another process does. Each request
//! does a bounded piece of work and says where to go on, so that no command holds a request open
//! for minutes, each can show how far it is, and ingest goes on meanwhile. A request names the store
//! that it means: an address may have a new user since it was looked up.

mod exchange;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Backend;
use crate::http::{ApiError, blocking, json_plain, read_question};
use crate::retention::{GiveBack, Purge, Removed};
use crate::store::{CheckStep, IndexProgress};

/// Stands before the names of all of them.
const PREFIX: &str = "/api/unstable/llm-obs-mcp/v1/store";

/// How long one request works before it answers how far it is.
const PIECE: Duration = Duration::from_millis(500);

pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let named = [
        ("stats", post(stats)),
        ("purge", post(purge)),
        ("verify", post(verify)),
        ("reindex", post(reindex)),
        ("export", post(exchange::export)),
        ("import", post(exchange::import)),
    ];
    let mut router = Router::new();
    for (name, methods) in named {
        let methods = methods.with_state(backend.clone());
        router = router.route(&format!("{PREFIX}/{name}"), methods);
    }
    router
}

/// What every request says.
#[derive(Deserialize)]
struct Meant {
    store_id: String,
}

/// Reads a request, which must mean this store.
async fn asked<T: DeserializeOwned>(backend: &Backend, request: Request) -> Result<T, ApiError> {
    let body = read_question(request.into_body()).await?;
    let unreadable = |_| {
        ApiError::bad_request(
            "the request is not one that this version of llmobs-mcp makes; use the same version for the command and for the process that holds the data",
        )
    };
    let meant: Meant = serde_json::from_value(body.clone()).map_err(unreadable)?;
    backend.is_meant(&meant.store_id)?;
    serde_json::from_value(body).map_err(unreadable)
}

impl Backend {
    fn is_meant(&self, store_id: &str) -> Result<(), ApiError> {
        if store_id == self.store_id {
            return Ok(());
        }
        Err(ApiError::new(
            StatusCode::CONFLICT,
            "another store is served here now; run the command again",
        ))
    }
}

/// Answers with JSON, or with why not.
fn answer(result: Result<Value, ApiError>) -> Response {
    match result {
        Ok(body) => json_plain(StatusCode::OK, &body),
        Err(error) => error.into_response(),
    }
}

async fn stats(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let told = async {
        let _: Meant = asked(&backend, request).await?;
        blocking(move || {
            let stats = backend.store.stats()?;
            let usage = backend.store.usage()?;
            Ok(json!({
                "store_id": backend.store_id,
                "folder": backend.folder.path().display().to_string(),
                "spans": stats.spans,
                "traces": stats.traces,
                "evaluations": stats.evaluations,
                "oldest_start_ns": usage.oldest_start_ns,
                "newest_start_ns": stats.newest_start_ns,
                "bytes": {
                    "used": usage.used_bytes,
                    "free": usage.free_bytes,
                    "log": usage.log_bytes,
                    "index": usage.index_bytes,
                    "experiments": backend.control.store.bytes()?,
                },
                "last_change": usage.last_change,
                "index": index_state(backend.store.index(), usage.last_change),
            }))
        })
        .await
    };
    answer(told.await)
}

/// How far the index is, with the changes that it has yet to take in.
fn index_state(index: Option<IndexProgress>, last_change: i64) -> Value {
    match index {
        None => Value::Null,
        Some(IndexProgress::UpTo(seq)) => {
            json!({"state": "ready", "changes_behind": last_change.saturating_sub(seq).max(0)})
        }
        Some(IndexProgress::Building { done, total }) => {
            json!({"state": "building", "done": done, "total": total})
        }
        Some(IndexProgress::Failed(reason)) => json!({"state": "failed", "reason": reason}),
    }
}

#[derive(Deserialize)]
struct PurgeAsked {
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
    /// The answer of the request before, to go on.
    purge: Option<Purge>,
}

async fn purge(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let told = async {
        let asked: PurgeAsked = asked(&backend, request).await?;
        if asked.before_ms.is_none() && asked.max_bytes.is_none() && asked.purge.is_none() {
            return Err(ApiError::bad_request(
                "`before_ms` or `max_bytes` is needed",
            ));
        }
        blocking(move || {
            let started = Instant::now();
            let mut purge = asked
                .purge
                .unwrap_or_else(|| Purge::new(asked.before_ms, asked.max_bytes, GiveBack::All));
            let mut removed = Removed::default();
            while !purge.is_done() && started.elapsed() < PIECE {
                let step = purge.step(backend.store.as_ref())?;
                removed.spans += step.spans;
                removed.evaluations += step.evaluations;
            }
            let next = (!purge.is_done()).then_some(purge);
            Ok(json!({"removed": removed, "purge": next}))
        })
        .await
    };
    answer(told.await)
}

#[derive(Deserialize)]
struct VerifyAsked {
    step: CheckStep,
}

async fn verify(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let told = async {
        let asked: VerifyAsked = asked(&backend, request).await?;
        blocking(move || Ok(json!(backend.store.check(asked.step)?))).await
    };
    answer(told.await)
}

#[derive(Deserialize)]
struct ReindexAsked {
    /// Begin anew; else only say how far it is.
    begin: bool,
}

async fn reindex(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let told = async {
        let asked: ReindexAsked = asked(&backend, request).await?;
        blocking(move || {
            if asked.begin {
                backend.store.reindex();
            }
            Ok(match backend.store.index() {
                None => json!({}),
                Some(IndexProgress::Building { done, total }) => {
                    json!({"building": {"done": done, "total": total}})
                }
                Some(IndexProgress::UpTo(_)) => {
                    json!({"indexed_spans": backend.store.stats()?.spans})
                }
                Some(IndexProgress::Failed(reason)) => {
                    return Err(ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        format!("the index cannot be built ({reason}); it is tried again by itself, and searches read the data themselves until then"),
                    ));
                }
            })
        })
        .await
    };
    answer(told.await)
}
