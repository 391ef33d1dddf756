//! Bodies of refused requests.

use std::time::Duration;

use axum::extract::Request;

/// The most that is read of a refused body, in bytes.
const MAX_DRAINED_BYTES: usize = 64 * 1024;

/// How long a refused body may take to arrive.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the body of a refused request. Without that the server would close the connection, and
/// clients that reuse it for the next request (often the one with credentials) would see it break.
/// A large or slow body is not read to its end.
pub(super) async fn drain_body(request: Request) {
    let body = axum::body::to_bytes(request.into_body(), MAX_DRAINED_BYTES);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, body).await;
}
