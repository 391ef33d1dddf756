//! The lowest layer of the client: it sends one request and returns the response.
//!
//! [`HttpTransport`] sends over the network; [`RouterTransport`] calls the router of the local backend
//! in this process, so that stdio, `call` and tests need no port. Both guarantee the same: a timeout
//! for the complete response, a limit on its decompressed size, no redirects, and errors that state
//! whether the request can have been executed.

mod http;
mod router;

use std::time::Duration;

use ::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use thiserror::Error;

use super::cause::ErrorCause;

pub use http::{HttpTransport, HttpTransportError, HttpTransportOptions};
pub use router::RouterTransport;

/// Limits of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseLimits {
    /// The timeout of the exchange: connecting, sending, and reading the complete body.
    pub timeout: Duration,
    /// The maximum size of the body after decompression.
    pub max_body_bytes: usize,
}

/// Sends requests.
pub trait Transport: Send + Sync {
    /// Sends one request once and reads the complete response, whatever its status. The URI is
    /// absolute. Dropping the future cancels the request.
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>>;
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The host name has no address.
    #[error("the host name could not be resolved")]
    Dns,
    /// The connection was refused or the host is unreachable.
    #[error("no connection could be made ({0})")]
    Connect(#[source] ErrorCause),
    /// The connection attempt timed out.
    #[error("no connection could be made in time")]
    ConnectTimeout,
    /// The certificate is not trusted, or there is no common TLS protocol.
    #[error("no secure connection could be made ({0})")]
    Tls(#[source] ErrorCause),
    /// The request may not be sent: plain HTTP to another machine, or a malformed URI.
    #[error("the request was not sent: {0}")]
    NotSent(&'static str),
    /// The response was not complete in time.
    #[error("no complete response came within {0:?}")]
    Timeout(Duration),
    /// The connection broke after it was established.
    #[error("the connection broke before the response was complete ({0})")]
    Interrupted(#[source] ErrorCause),
    /// The decompressed body is too large.
    #[error("the response is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body does not match its `Content-Encoding`.
    #[error("the response could not be decompressed")]
    BadEncoding,
}

impl TransportError {
    /// Whether the request certainly did not reach the server.
    pub fn surely_not_executed(&self) -> bool {
        matches!(
            self,
            Self::Dns | Self::Connect(_) | Self::ConnectTimeout | Self::Tls(_) | Self::NotSent(_)
        )
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Dns
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::Interrupted(_) => true,
            Self::NotSent(_) | Self::BodyTooLarge { .. } | Self::BadEncoding => false,
        }
    }
}

/// The part of an error body that is read. Messages are truncated far below this.
const MAX_ERROR_BODY_BYTES: usize = 256 * 1024;

/// Collects a body up to a limit. On a success status a larger body is an error; on an error status
/// the rest is dropped.
struct BodyCollector {
    bytes: BytesMut,
    limit: usize,
    success: bool,
}

impl BodyCollector {
    fn new(success: bool, limits: ResponseLimits) -> Self {
        let limit = if success {
            limits.max_body_bytes
        } else {
            limits.max_body_bytes.min(MAX_ERROR_BODY_BYTES)
        };
        Self {
            bytes: BytesMut::new(),
            limit,
            success,
        }
    }

    /// Adds a chunk; `false` if no more chunks are needed.
    fn push(&mut self, chunk: &[u8]) -> Result<bool, TransportError> {
        if self.bytes.len().saturating_add(chunk.len()) > self.limit {
            return if self.success {
                Err(TransportError::BodyTooLarge { limit: self.limit })
            } else {
                Ok(false)
            };
        }
        self.bytes.extend_from_slice(chunk);
        Ok(true)
    }

    /// Handles a body that breaks off: an error status is worth more than the rest of its body.
    fn interrupted(&self, error: TransportError) -> Result<(), TransportError> {
        if self.success { Err(error) } else { Ok(()) }
    }

    fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
