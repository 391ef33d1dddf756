//! The lowest layer of the client: a request in, a response out.
//!
//! [`HttpTransport`] reaches a host; [`RouterTransport`] calls the local backend's router in this
//! process, so that stdio, `call` and tests need no port. Both keep the same promises: the whole
//! answer within the time given, at most so many bytes once decompressed, redirects never
//! followed, and errors that say whether the request can have been executed.

mod http;
mod router;

use std::time::Duration;

use ::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use thiserror::Error;

pub use http::{HttpTransport, HttpTransportError, HttpTransportOptions};
pub use router::RouterTransport;

/// What an answer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Time for the whole exchange: connecting, sending, and reading the body to its end.
    pub timeout: Duration,
    /// Bytes of the body after decompression.
    pub max_body_bytes: usize,
}

/// Sends requests.
pub trait Transport: Send + Sync {
    /// Sends one request, once, and reads the whole answer, whatever its status. The URI is
    /// absolute. Dropping the future gives up.
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The name has no address.
    #[error("the host name could not be resolved")]
    Dns,
    /// Nobody listens, or the way there is closed.
    #[error("no connection could be made ({0})")]
    Connect(String),
    /// Nobody answered the connection attempt in time.
    #[error("no connection could be made in time")]
    ConnectTimeout,
    /// The certificate is not trusted, or the two sides share no protocol.
    #[error("no secure connection could be made ({0})")]
    Tls(String),
    /// The request may not leave as it is: plain HTTP to another machine, a broken URI.
    #[error("the request was not sent: {0}")]
    NotSent(&'static str),
    /// The answer did not come whole in time.
    #[error("no complete answer came within {0:?}")]
    Timeout(Duration),
    /// The connection broke after it stood.
    #[error("the connection broke before the whole answer had come ({0})")]
    Interrupted(String),
    /// The decompressed body is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not what its `Content-Encoding` says.
    #[error("the answer could not be decompressed")]
    BadEncoding,
}

impl TransportError {
    /// Whether the request surely did not reach the other side.
    pub fn surely_not_executed(&self) -> bool {
        matches!(
            self,
            Self::Dns | Self::Connect(_) | Self::ConnectTimeout | Self::Tls(_) | Self::NotSent(_)
        )
    }

    /// Whether the same request may fare better a moment later.
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

/// How much of the body of a failed request is read: its text is cut far below this.
const MAX_ERROR_BODY_BYTES: usize = 256 * 1024;

/// Gathers a body. On a success status too many bytes are an error; on any other the rest is not
/// needed.
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

    /// Takes a piece; `false` when no more is wanted.
    fn push(&mut self, piece: &[u8]) -> Result<bool, TransportError> {
        if self.bytes.len().saturating_add(piece.len()) > self.limit {
            return if self.success {
                Err(TransportError::BodyTooLarge { limit: self.limit })
            } else {
                Ok(false)
            };
        }
        self.bytes.extend_from_slice(piece);
        Ok(true)
    }

    /// What to do when the body breaks off: an error status is worth more than the rest of its
    /// words.
    fn broken(&self, error: TransportError) -> Result<(), TransportError> {
        if self.success { Err(error) } else { Ok(()) }
    }

    fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
