//! The local backend as this process reaches it: owned, or attached to whoever owns it.
//!
//! One process owns a data folder. It serves the backend on a loopback address, so that SDKs and
//! other processes find it, and calls it directly itself. A process that comes second attaches over
//! HTTP, and takes over when the owner is gone: at the next call, or at the next look at the owner,
//! so that SDKs find a listener again even if nobody calls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use datadog_llmobs::{
    HttpTransport, HttpTransportOptions, ResponseLimits, RouterTransport, Transport, TransportError,
};
use llmobs_local::owner::{Listen, OwnerLock, Ownership, own_or_attach};
use llmobs_local::{DataDir, LocalBackend, LocalError, LocalOptions, Retention, retain, serve};

use super::error::CliError;

/// How often an attached process looks whether the owner still lives.
const LOOK: Duration = Duration::from_secs(5);

/// How long serving may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// A local backend that calls can go to.
pub(crate) struct Backend {
    inner: Arc<Inner>,
}

struct Inner {
    options: LocalOptions,
    listen: Listen,
    http: HttpTransport,
    state: RwLock<State>,
    /// Held while ownership changes.
    held: Mutex<Held>,
    stop: CancellationToken,
}

/// What an owner keeps for as long as it is one.
#[derive(Default)]
struct Held {
    tasks: Vec<JoinHandle<()>>,
    lock: Option<OwnerLock>,
}

#[derive(Clone)]
enum State {
    Owner {
        backend: LocalBackend,
        router: RouterTransport,
        url: String,
    },
    Attached {
        url: String,
    },
}

impl Backend {
    /// Owns the data of `options`, or attaches to its owner.
    pub(crate) async fn share(options: LocalOptions, listen: Listen) -> Result<Self, CliError> {
        // Nothing but loopback is reached through it.
        let http = HttpTransport::new(&HttpTransportOptions::default())
            .map_err(|error| CliError::failed(error, ""))?;
        let stop = CancellationToken::new();
        let mut held = Held::default();
        let state = settle(&options, listen, &stop, &mut held)
            .await
            .map_err(|error| {
                CliError::failed(
                    format!("the local backend could not be opened: {error}"),
                    "",
                )
            })?;
        let attached = matches!(state, State::Attached { .. });
        let inner = Arc::new(Inner {
            options,
            listen,
            http,
            state: RwLock::new(state),
            held: Mutex::new(held),
            stop,
        });
        if attached {
            let watched = inner.clone();
            let watch = tokio::spawn(async move { watched.watch().await });
            inner.held.lock().await.tasks.push(watch);
        }
        Ok(Self { inner })
    }

    /// How calls reach the backend.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(LocalTransport(self.inner.clone()))
    }

    /// Where the backend listens: no trailing slash.
    pub(crate) fn url(&self) -> String {
        let (State::Owner { url, .. } | State::Attached { url }) = self.inner.state();
        url
    }

    /// The backend itself, if this process owns the data.
    pub(crate) fn owned(&self) -> Option<LocalBackend> {
        match self.inner.state() {
            State::Owner { backend, .. } => Some(backend),
            State::Attached { .. } => None,
        }
    }

    /// Stops serving and lets others have the data. Everything acknowledged is already durable.
    pub(crate) async fn close(self) {
        self.inner.stop.cancel();
        let mut held = self.inner.held.lock().await;
        for task in held.tasks.drain(..) {
            if tokio::time::timeout(GRACE, task).await.is_err() {
                tracing::debug!("the local backend did not end in time");
            }
        }
        held.lock = None;
    }
}

impl Inner {
    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Becomes the owner, or attaches to the next one, after the owner at `gone` did not answer.
    /// Says whether anything changed.
    async fn take_over(&self, gone: &str) -> bool {
        let mut held = self.held.lock().await;
        match self.state() {
            State::Attached { url } if url == gone => {}
            // Somebody else was faster.
            _ => return true,
        }
        match settle(&self.options, self.listen, &self.stop, &mut held).await {
            Ok(state) => {
                tracing::info!("the owner of the local data is gone; took over");
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                true
            }
            Err(error) => {
                tracing::warn!("the owner of the local data is gone: {error}");
                false
            }
        }
    }

    /// Looks at the owner from time to time while attached.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let State::Attached { url } = self.state() else {
                return;
            };
            let Ok(request) = Request::get(format!("{url}/info")).body(Bytes::new()) else {
                return;
            };
            let limits = ResponseLimits {
                timeout: LOOK,
                max_body_bytes: 1 << 20,
            };
            if let Err(error) = self.http.send(request, limits).await
                && error.surely_not_executed()
            {
                self.take_over(&url).await;
            }
        }
    }
}

/// Reaches the backend wherever it is now.
struct LocalTransport(Arc<Inner>);

impl Transport for LocalTransport {
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        async move {
            let owner = match self.0.state() {
                State::Owner { router, .. } => return router.send(request, limits).await,
                State::Attached { url } => url,
            };
            let again = request.clone();
            match self.0.http.send(towards(request, &owner)?, limits).await {
                // It surely did not reach anyone, so even a write may be sent again.
                Err(error) if error.surely_not_executed() => {
                    if !self.0.take_over(&owner).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
            match self.0.state() {
                State::Owner { router, .. } => router.send(again, limits).await,
                State::Attached { url } => self.0.http.send(towards(again, &url)?, limits).await,
            }
        }
        .boxed()
    }
}

/// The same request to another loopback address.
fn towards(mut request: Request<Bytes>, base: &str) -> Result<Request<Bytes>, TransportError> {
    let lost = |_| TransportError::NotSent("its address cannot be written");
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri: Uri = format!("{base}{path}").parse().map_err(lost)?;
    *request.uri_mut() = uri;
    request.headers_mut().remove(http::header::HOST);
    Ok(request)
}

/// Owns or attaches; an owner begins to serve.
async fn settle(
    options: &LocalOptions,
    listen: Listen,
    stop: &CancellationToken,
    held: &mut Held,
) -> Result<State, LocalError> {
    Ok(match own_or_attach(options.clone(), listen).await? {
        Ownership::Owner(owner) => {
            let owner = *owner;
            if let Some(note) = &owner.note {
                tracing::warn!("{note}");
            }
            let retaining = retain(owner.backend.clone(), stop.clone());
            held.tasks.push(tokio::spawn(retaining));
            let stop = stop.clone().cancelled_owned();
            let served = owner.backend.clone();
            held.lock = Some(owner.lock);
            held.tasks.push(tokio::spawn(async move {
                if let Err(error) = serve(served, owner.listener, stop).await {
                    tracing::error!("the local backend stopped serving: {error}");
                }
            }));
            State::Owner {
                router: RouterTransport(owner.backend.router()),
                backend: owner.backend,
                url: owner.url,
            }
        }
        Ownership::Attached { url, .. } => State::Attached { url },
    })
}

/// The options of the shared store in this folder. Who owns it holds to the retention.
pub(crate) fn in_folder(folder: &Path, retention: Retention) -> LocalOptions {
    LocalOptions {
        retention,
        ..LocalOptions::new(DataDir::Folder(folder.to_owned()))
    }
}

/// Binds the address that was named, which must be free, or the first free one of `ports` on
/// loopback, at last any.
pub(crate) async fn bind(
    named: Option<SocketAddr>,
    ports: std::ops::Range<u16>,
) -> Result<TcpListener, CliError> {
    if let Some(address) = named {
        return TcpListener::bind(address).await.map_err(|error| {
            CliError::failed(
                format!("{address} cannot be listened on: {error}"),
                "stop the other program, or name another port; port 0 takes a free one",
            )
        });
    }
    for port in ports.chain([0]) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(CliError::failed(
        "no free port was found on 127.0.0.1",
        "stop a program that listens there",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_path_and_changes_its_host() {
        let request = Request::post("http://127.0.0.1:8126/api/x?page%5Blimit%5D=1")
            .header("host", "127.0.0.1:8126")
            .body(Bytes::from_static(b"{}"))
            .expect("request");
        let moved = towards(request, "http://127.0.0.1:4000").expect("moved");
        assert_eq!(moved.uri(), "http://127.0.0.1:4000/api/x?page%5Blimit%5D=1");
        assert!(moved.headers().is_empty());
        assert_eq!(moved.body().as_ref(), b"{}");
    }

    #[tokio::test]
    async fn a_taken_port_is_passed_over_unless_it_was_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = taken.local_addr().expect("address");
        let other = bind(None, address.port()..address.port() + 1)
            .await
            .expect("another");
        assert_ne!(other.local_addr().expect("address"), address);
        let error = bind(Some(address), 0..0).await.expect_err("taken");
        assert_eq!(error.code(), 1);
    }

    fn anywhere() -> Listen {
        Listen::Exactly(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    async fn status(transport: &Arc<dyn Transport>) -> Result<u16, TransportError> {
        let request = Request::get("http://127.0.0.1:8126/info")
            .body(Bytes::new())
            .expect("request");
        let limits = ResponseLimits {
            timeout: Duration::from_secs(10),
            max_body_bytes: 1 << 20,
        };
        let answer = transport.send(request, limits).await?;
        Ok(answer.status().as_u16())
    }

    #[tokio::test]
    async fn the_second_process_attaches_and_takes_over_when_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = in_folder(folder.path(), Retention::default());
        let first = Backend::share(options.clone(), anywhere())
            .await
            .expect("owns");
        let second = Backend::share(options, anywhere()).await.expect("attaches");
        assert!(first.owned().is_some() && second.owned().is_none());
        assert_eq!(first.url(), second.url());
        let transport = second.transport();
        assert_eq!(status(&transport).await, Ok(200));

        first.close().await;
        assert_eq!(status(&transport).await, Ok(200));
        assert!(second.owned().is_some());
        second.close().await;
    }
}
