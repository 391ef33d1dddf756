//! The task that applies the retention of a backend.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clock::now_ms;
use super::local_backend::LocalBackend;
use super::retention::RemovedCounts;
use super::store::StoreError;

/// Time between two runs.
const RUN_INTERVAL: Duration = Duration::from_secs(60);

/// Applies the retention of a backend now and then regularly, until `stop` is cancelled.
pub async fn retain(backend: LocalBackend, stop: CancellationToken) {
    if backend.inner.options.retention.keeps_all() {
        return;
    }
    loop {
        let (worker, stop_worker) = (backend.clone(), stop.clone());
        let run = move || worker.enforce_retention(now_ms(), &stop_worker);
        match tokio::task::spawn_blocking(run).await {
            Ok(Err(error)) => tracing::warn!("cannot remove old data: {error}"),
            // The message of a panic may contain data.
            Err(_) => tracing::warn!("the retention task panicked"),
            Ok(Ok(())) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RUN_INTERVAL) => {}
        }
    }
}

impl LocalBackend {
    /// Runs one purge by the retention of this backend. Blocks.
    fn enforce_retention(&self, now_ms: i64, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut purge = self.inner.options.retention.purge(now_ms);
        let mut removed = RemovedCounts::default();
        while !purge.is_done() && !stop.is_cancelled() {
            let step = purge.step(&self.inner.store)?;
            removed.spans += step.spans;
            removed.evaluations += step.evaluations;
        }
        let RemovedCounts { spans, evaluations } = removed;
        if spans + evaluations > 0 {
            tracing::info!(
                spans,
                evaluations,
                "removed data beyond the retention limits"
            );
        }
        Ok(())
    }
}
