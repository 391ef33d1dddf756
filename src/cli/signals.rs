//! Ctrl-C and SIGTERM: the first one stops servers gracefully, the second one ends the process.

use tokio_util::sync::CancellationToken;

/// The exit code after a second signal.
const INTERRUPTED: i32 = 130;

/// A token that the first signal cancels.
pub(crate) fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        signal().await;
        signalled.cancel();
        signal().await;
        std::process::exit(INTERRUPTED);
    });
    stop
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}
