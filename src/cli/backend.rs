//! The local backend of this process: owned, or attached to its owner.
//!
//! One process owns a data directory. It serves the backend on a loopback address, so that SDKs and
//! other processes find it, and calls the backend directly. Every further process attaches over HTTP.
//! It takes over after the owner ends: at the next call or at the next check of the owner, so that
//! SDKs find a listener again even without calls.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use datadog_llmobs::{
    HttpTransport, HttpTransportOptions, Hub, HubSettings, ResponseLimits, RouterTransport,
    Transport, TransportError, Upstream,
};
use llmobs_local::owner::{Listen, OwnerLock, Ownership, own_or_attach};
use llmobs_local::{DataDir, LocalBackend, LocalError, LocalOptions, Retention, retain, serve};

use crate::server::UpstreamInfo;

use super::error::CliError;
use super::settings::LocalSettings;

/// How often an attached process checks that the owner is alive, and how long a check may take.
const OWNER_CHECK: Duration = Duration::from_secs(5);

/// How long serving may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A local backend that receives calls.
pub(crate) struct Backend {
    inner: Arc<Inner>,
}

struct Inner {
    options: LocalOptions,
    listen: Listen,
    http: HttpTransport,
    state: RwLock<State>,
    /// Locked while ownership changes.
    owned: Mutex<OwnerResources>,
    stop: CancellationToken,
}

/// The tasks and the lock of an owner.
#[derive(Default)]
struct OwnerResources {
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
        // It sends to loopback only, so it needs no certificates.
        let http = HttpTransport::new(&HttpTransportOptions::default())
            .map_err(|error| CliError::failed(error, ""))?;
        let stop = CancellationToken::new();
        let mut owned = OwnerResources::default();
        let state = own_or_attach_state(&options, listen, &stop, &mut owned)
            .await
            .map_err(|error| {
                CliError::failed(format!("cannot open the local backend: {error}"), "")
            })?;
        let attached = matches!(state, State::Attached { .. });
        let inner = Arc::new(Inner {
            options,
            listen,
            http,
            state: RwLock::new(state),
            owned: Mutex::new(owned),
            stop,
        });
        if attached {
            let watched = inner.clone();
            let watch = tokio::spawn(async move { watched.watch().await });
            inner.owned.lock().await.tasks.push(watch);
        }
        Ok(Self { inner })
    }

    /// Owns the data directory of the settings, or attaches to its owner.
    pub(crate) async fn open(settings: &LocalSettings) -> Result<Self, CliError> {
        Self::share(options(settings), Listen::Default).await
    }

    /// A hub whose calls go to this backend.
    pub(crate) fn hub(&self) -> Hub {
        Hub::new(Upstream::Local, self.transport(), HubSettings::default())
    }

    /// The description of this backend for people.
    pub(crate) fn describe(&self) -> UpstreamInfo {
        UpstreamInfo {
            site: None,
            url: Some(self.url()),
        }
    }

    /// The transport to the backend.
    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(LocalTransport(self.inner.clone()))
    }

    /// The base URL of the backend, without a trailing slash.
    pub(crate) fn url(&self) -> String {
        let (State::Owner { url, .. } | State::Attached { url }) = self.inner.state();
        url
    }

    /// The backend, if this process owns the data.
    pub(crate) fn owned(&self) -> Option<LocalBackend> {
        match self.inner.state() {
            State::Owner { backend, .. } => Some(backend),
            State::Attached { .. } => None,
        }
    }

    /// Stops serving and releases the data. Everything acknowledged is already durable.
    pub(crate) async fn close(self) {
        self.inner.stop.cancel();
        let mut owned = self.inner.owned.lock().await;
        for task in owned.tasks.drain(..) {
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                tracing::debug!("the local backend did not stop in time");
            }
        }
        owned.lock = None;
    }
}

impl Inner {
    fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Becomes the owner, or attaches to a new one, after the owner at `lost` did not answer. Returns
    /// whether the backend is usable again.
    async fn take_over(&self, lost: &str) -> bool {
        let mut owned = self.owned.lock().await;
        match self.state() {
            State::Attached { url } if url == lost => {}
            // Another task has already taken over.
            _ => return true,
        }
        match own_or_attach_state(&self.options, self.listen, &self.stop, &mut owned).await {
            Ok(state) => {
                tracing::info!("the owner of the local data ended; took over");
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                true
            }
            Err(error) => {
                tracing::warn!(
                    "the owner of the local data ended, and taking over failed: {error}"
                );
                false
            }
        }
    }

    /// Checks the owner periodically while attached.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(OWNER_CHECK) => {}
            }
            let State::Attached { url } = self.state() else {
                return;
            };
            let Ok(request) = Request::get(format!("{url}/info")).body(Bytes::new()) else {
                return;
            };
            let limits = ResponseLimits {
                timeout: OWNER_CHECK,
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

/// Sends to the backend: directly if owned, else over HTTP.
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
            let retry = request.clone();
            match self.0.http.send(redirect(request, &owner)?, limits).await {
                // The request did not reach a backend, so even a write may be sent again.
                Err(error) if error.surely_not_executed() => {
                    if !self.0.take_over(&owner).await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
            match self.0.state() {
                State::Owner { router, .. } => router.send(retry, limits).await,
                State::Attached { url } => self.0.http.send(redirect(retry, &url)?, limits).await,
            }
        }
        .boxed()
    }
}

/// Changes the address of a request.
fn redirect(mut request: Request<Bytes>, base: &str) -> Result<Request<Bytes>, TransportError> {
    let invalid = |_| TransportError::NotSent("its address is invalid");
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri: Uri = format!("{base}{path}").parse().map_err(invalid)?;
    *request.uri_mut() = uri;
    request.headers_mut().remove(http::header::HOST);
    Ok(request)
}

/// Owns the data and starts to serve it, or attaches to its owner.
async fn own_or_attach_state(
    options: &LocalOptions,
    listen: Listen,
    stop: &CancellationToken,
    owned: &mut OwnerResources,
) -> Result<State, LocalError> {
    Ok(match own_or_attach(options.clone(), listen).await? {
        Ownership::Owner(owner) => {
            let owner = *owner;
            if let Some(note) = &owner.note {
                tracing::warn!("{note}");
            }
            let retention = retain(owner.backend.clone(), stop.clone());
            owned.tasks.push(tokio::spawn(retention));
            let stop = stop.clone().cancelled_owned();
            let backend = owner.backend.clone();
            owned.lock = Some(owner.lock);
            owned.tasks.push(tokio::spawn(async move {
                if let Err(error) = serve(backend, owner.listener, stop).await {
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

/// The options of the shared store in the data directory of these settings.
pub(crate) fn options(settings: &LocalSettings) -> LocalOptions {
    let options = LocalOptions {
        retention: Retention {
            max_age: settings.max_age,
            max_bytes: settings.max_bytes,
        },
        ..LocalOptions::new(DataDir::Path(settings.data_dir.clone()))
    };
    if settings.datadog_limits {
        return options.with_datadog_limits();
    }
    options
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn redirect_keeps_path_and_changes_host() {
        let request = Request::post("http://127.0.0.1:8126/api/x?page%5Blimit%5D=1")
            .header("host", "127.0.0.1:8126")
            .body(Bytes::from_static(b"{}"))
            .expect("request");
        let redirected = redirect(request, "http://127.0.0.1:4000").expect("redirected");
        assert_eq!(
            redirected.uri(),
            "http://127.0.0.1:4000/api/x?page%5Blimit%5D=1"
        );
        assert!(redirected.headers().is_empty());
        assert_eq!(redirected.body().as_ref(), b"{}");
    }

    fn free_port() -> Listen {
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
    async fn second_process_attaches_and_takes_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = LocalOptions::new(DataDir::Path(directory.path().to_owned()));
        let first = Backend::share(options.clone(), free_port())
            .await
            .expect("owns");
        let second = Backend::share(options, free_port())
            .await
            .expect("attaches");
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
