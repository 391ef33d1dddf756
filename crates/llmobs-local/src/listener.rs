//! Connections within bounds: so many at once, none silent for ever.
//!
//! A client that sends the head of a request byte by byte, or opens connections and says nothing,
//! would otherwise hold a task, a buffer and a file descriptor for as long as it likes. Bodies have
//! their own time from the moment that a handler reads them; what comes before is bounded here.

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

/// Bounds of connections to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at once. Further ones wait with the system, unanswered. Default 512.
    pub at_once: usize,
    /// Time for the head of a request, from its first byte. Default 30 seconds.
    pub head: Duration,
    /// Time without a request after which a connection is closed, and time for a client to take
    /// some of an answer. Default 2 minutes.
    pub idle: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            at_once: 512,
            head: Duration::from_secs(30),
            idle: Duration::from_secs(120),
        }
    }
}

/// A listener that accepts within its limits.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    limits: ConnectionLimits,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener, limits: ConnectionLimits) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(limits.at_once)),
            limits,
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; without a place the connection would not be counted.
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            working: Working::default(),
            receiving: false,
            deadline: Box::pin(tokio::time::sleep(self.limits.idle)),
            limits: self.limits,
            _place: place,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Listener::local_addr(&self.listener)
    }
}

/// How many requests of a connection are being worked on.
#[derive(Debug, Clone, Default)]
pub(super) struct Working(Arc<AtomicUsize>);

impl Connected<IncomingStream<'_, Bounded>> for Working {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        stream.io().working.clone()
    }
}

/// Counts down when its request is done or given up.
struct Counted(Working);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes that a request is being worked on: from here on its handler bounds its time.
pub(super) async fn note_work(request: Request, next: Next) -> Response {
    let working = request.extensions().get::<ConnectInfo<Working>>();
    let _counted = working.map(|ConnectInfo(working)| {
        working.0.fetch_add(1, Ordering::Relaxed);
        Counted(working.clone())
    });
    next.run(request).await
}

/// A connection that ends when its client is silent for too long.
pub(super) struct Connection {
    stream: TcpStream,
    working: Working,
    /// Whether bytes of a request have come since the last answer.
    receiving: bool,
    deadline: Pin<Box<Sleep>>,
    limits: ConnectionLimits,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn wait(&mut self, time: Duration) {
        self.deadline.as_mut().reset(Instant::now() + time);
    }

    /// What a write means: an answer is on its way, and some of it was taken or not.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        let taken = matches!(written, Poll::Ready(Ok(bytes)) if *bytes > 0);
        if taken || self.receiving {
            self.receiving = false;
            self.wait(self.limits.idle);
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
        if this.working.0.load(Ordering::Relaxed) > 0 {
            this.receiving = false;
            this.wait(this.limits.idle);
            return read;
        }
        if buffer.filled().len() > before && !this.receiving {
            this.receiving = true;
            this.wait(this.limits.head);
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
        this.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(&written);
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
