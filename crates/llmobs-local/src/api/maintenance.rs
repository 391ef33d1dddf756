//! Maintenance endpoints for `llmobs-mcp local stats`, `purge`, `verify`, `reindex`, `export` and
//! `import`. Datadog has no such endpoints.
//!
//! The commands use them whether this process or another one owns the data. Each request does a
//! bounded step and returns where to continue. So no request stays open for minutes, commands can
//! show progress, and the intake runs meanwhile. A request contains the id of its store, because
//! another store may be served at an address by now.

mod exchange;
mod request;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use self::request::{TargetStore, read_request};
use crate::Backend;
use crate::http::{ApiError, json_plain, run_blocking};
use crate::retention::{Purge, RemovedCounts, SpaceRelease};
use crate::store::{CheckStep, IndexProgress};

/// Prefix of the paths.
const PREFIX: &str = "/api/unstable/llm-obs-mcp/v1/store";

/// Time budget of one request.
const STEP_BUDGET: Duration = Duration::from_millis(500);

pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    let endpoints = [
        ("stats", post(stats)),
        ("purge", post(purge)),
        ("verify", post(verify)),
        ("reindex", post(reindex)),
        ("export", post(exchange::export)),
        ("import", post(exchange::import)),
    ];
    let mut router = Router::new();
    for (name, methods) in endpoints {
        let methods = methods.with_state(backend.clone());
        router = router.route(&format!("{PREFIX}/{name}"), methods);
    }
    router
}

fn respond(result: Result<Value, ApiError>) -> Response {
    match result {
        Ok(body) => json_plain(StatusCode::OK, &body),
        Err(error) => error.into_response(),
    }
}

async fn stats(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let result = async {
        let _: TargetStore = read_request(&backend, request).await?;
        run_blocking(move || {
            let stats = backend.store.stats()?;
            let usage = backend.store.maintenance().usage()?;
            let directory = backend.data_directory.as_ref();
            let directory = directory.map(|directory| directory.path().display().to_string());
            Ok(json!({
                "store_id": backend.store_id,
                "folder": directory,
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
                "index": index_state(backend.store.maintenance().index_progress(), usage.last_change),
            }))
        })
        .await
    };
    respond(result.await)
}

/// The state of the index, with the number of changes that it has not read.
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
struct PurgeRequest {
    before_ms: Option<i64>,
    max_bytes: Option<u64>,
    /// The state that the previous request returned, to continue.
    purge: Option<Purge>,
}

async fn purge(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let result = async {
        let request: PurgeRequest = read_request(&backend, request).await?;
        if request.before_ms.is_none() && request.max_bytes.is_none() && request.purge.is_none() {
            return Err(ApiError::bad_request(
                "`before_ms` or `max_bytes` is required",
            ));
        }
        run_blocking(move || {
            let started = Instant::now();
            let mut purge = request.purge.unwrap_or_else(|| {
                Purge::new(request.before_ms, request.max_bytes, SpaceRelease::All)
            });
            let mut removed = RemovedCounts::default();
            while !purge.is_done() && started.elapsed() < STEP_BUDGET {
                let step = purge.step(&backend.store)?;
                removed.spans += step.spans;
                removed.evaluations += step.evaluations;
            }
            let next = (!purge.is_done()).then_some(purge);
            Ok(json!({"removed": removed, "purge": next}))
        })
        .await
    };
    respond(result.await)
}

#[derive(Deserialize)]
struct VerifyRequest {
    step: CheckStep,
}

async fn verify(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let result = async {
        let request: VerifyRequest = read_request(&backend, request).await?;
        run_blocking(move || Ok(json!(backend.store.check(request.step)?))).await
    };
    respond(result.await)
}

#[derive(Deserialize)]
struct ReindexRequest {
    /// Whether to start a rebuild. Otherwise only the progress is returned.
    begin: bool,
}

async fn reindex(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let result = async {
        let request: ReindexRequest = read_request(&backend, request).await?;
        run_blocking(move || {
            if request.begin {
                backend.store.maintenance().reindex();
            }
            Ok(match backend.store.maintenance().index_progress() {
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
                        format!("the index cannot be built ({reason}); the backend retries automatically, and searches read the store until then"),
                    ));
                }
            })
        })
        .await
    };
    respond(result.await)
}
