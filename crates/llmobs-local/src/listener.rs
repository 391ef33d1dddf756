//! A listener with a limit on connections, and timeouts for slow and idle clients.
//!
//! Without them, a client that opens connections and sends nothing, or sends a request head byte by
//! byte, holds a task, a buffer and a file descriptor indefinitely. The body of a request has a
//! timeout of its own, which starts when a handler reads it.
//!
//! hyper's `header_read_timeout` covers the head only. The idle timeout of a connection and the
//! timeout of a client that does not read its response need a wrapper of the stream, which then
//! covers the head too.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Limits of connections to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections. Further ones wait in the backlog of the system. Default 512.
    pub max_connections: usize,
    /// Time for the head of a request, from its first byte. Default 30 seconds.
    pub head_timeout: Duration,
    /// Time without a request, and time without progress of a response, after which a connection is
    /// closed. Default 2 minutes.
    pub idle_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// A listener that enforces [`ConnectionLimits`].
pub(super) struct LimitedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limits: ConnectionLimits,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
        }
    }
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so this always returns a slot.
        let slot = self.slots.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            active_requests: ActiveRequests::default(),
            receiving: false,
            deadline: Box::pin(tokio::time::sleep(self.limits.idle_timeout)),
            limits: self.limits,
            _slot: slot,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

/// The number of requests of a connection in handlers.
#[derive(Debug, Clone, Default)]
pub(super) struct ActiveRequests(Arc<AtomicUsize>);

impl Connected<IncomingStream<'_, LimitedListener>> for ActiveRequests {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> Self {
        stream.io().active_requests.clone()
    }
}

/// Counts a request until it is finished or abandoned.
struct ActiveRequestGuard(ActiveRequests);

impl Drop for ActiveRequestGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts requests in handlers. A handler has timeouts of its own, so the connection has none
/// meanwhile.
pub(super) async fn count_active_requests(request: Request, next: Next) -> Response {
    let active = request.extensions().get::<ConnectInfo<ActiveRequests>>();
    let _guard = active.map(|ConnectInfo(active)| {
        active.0.fetch_add(1, Ordering::Relaxed);
        ActiveRequestGuard(active.clone())
    });
    next.run(request).await
}

/// A connection that fails with a timeout when its client makes no progress.
pub(super) struct Connection {
    stream: TcpStream,
    active_requests: ActiveRequests,
    /// Whether bytes of a request have arrived since the last response.
    receiving: bool,
    deadline: Pin<Box<Sleep>>,
    limits: ConnectionLimits,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn set_deadline(&mut self, timeout: Duration) {
        self.deadline.as_mut().reset(Instant::now() + timeout);
    }

    /// Extends the deadline at the start of a response and whenever the client reads some of it.
    fn record_write(&mut self, written: &Poll<io::Result<usize>>) {
        let progressed = matches!(written, Poll::Ready(Ok(bytes)) if *bytes > 0);
        if progressed || self.receiving {
            self.receiving = false;
            self.set_deadline(self.limits.idle_timeout);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if this.active_requests.0.load(Ordering::Relaxed) > 0 {
            this.receiving = false;
            this.set_deadline(this.limits.idle_timeout);
            return read;
        }
        if buffer.filled().len() > before && !this.receiving {
            this.receiving = true;
            this.set_deadline(this.limits.head_timeout);
        }
        if this.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.record_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.record_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
