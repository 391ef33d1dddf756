//! The local backend: Datadog's LLM Observability API on this machine, without an account.
//!
//! It takes in what SDKs send, keeps it durably, and answers the documented API as documented, so
//! that one client code path serves a Datadog site and this. It knows nothing of MCP.
//!
//! - `intake`: one file per dialect of spans and evaluations.
//! - `api`: the reading side, one file per family.
//! - `oauth`: Datadog's sign-in for programs.
//! - [`store`]: where it is kept.
//! - [`owner`]: one process owns a data folder; others attach to it.
//! - `retention`: what is not kept for ever.
//! - [`demo`]: sample data.
//!
//! It listens on loopback only and refuses foreign `Host` and `Origin` headers: a web page must
//! neither read prompts nor plant text. The error shape is Datadog's.

mod agent;
mod api;
mod control;
mod counters;
pub mod demo;
mod folder;
mod guard;
mod http;
mod intake;
mod listener;
mod oauth;
pub mod owner;
mod response;
mod retention;
pub mod store;
mod values;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use serde::Serialize;
use tokio::net::TcpListener;

pub use counters::RequestCounts;
pub use folder::{DataDir, has_store};
pub use http::BodyLimits;
pub use intake::IntakeLimits;
pub use listener::ConnectionLimits;
pub use retention::{Retention, retain};

use control::{Control, ControlStore, Membered, SqliteControl};
use counters::Counters;
use folder::Folder;
use store::{Durability, EvaluatorStore, SpanStore, SqliteStore, StoreError, StoreStats};

/// The Agent's proxy puts these before the paths it forwards.
const PROXY_PREFIXES: [&str; 2] = ["/evp_proxy/v2", "/evp_proxy/v4"];

/// How the backend behaves.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where the data lives.
    pub data_dir: DataDir,
    /// Answer with the documented attributes only, so that a client has to fill the gaps. For tests.
    pub documented_only: bool,
    /// Refuse spans and evaluations older than this. Datadog does after 24 hours; by default any
    /// age is taken, so that old data can be looked at.
    pub max_span_age: Option<Duration>,
    /// Take the content out of spans that are this large as JSON, as Datadog's SDKs do from
    /// 5,000,000 bytes on. By default all content is kept.
    pub max_span_bytes: Option<usize>,
    /// Bounds of request bodies.
    pub body_limits: BodyLimits,
    /// Bounds of what the intake holds at once.
    pub intake_limits: IntakeLimits,
    /// Bounds of connections to a listener.
    pub connection_limits: ConnectionLimits,
    /// A search that takes longer answers what it has, with `meta.status` `timeout` and a cursor.
    /// Default 20 seconds.
    pub search_budget: Duration,
    /// Largest page of spans in bytes; a larger one is refused with 413. Default 50 MB, as documented.
    pub page_bytes: usize,
    /// What is kept and what goes, once [`retain`] runs. Default: all is kept.
    pub retention: Retention,
    /// Count which spans were read with their content. For tests: it grows with every span read.
    pub count_reads: bool,
}

impl LocalOptions {
    /// Datadog's own limits on what is sent: spans and evaluations of the last 24 hours, and
    /// content only in spans under 5,000,000 bytes.
    #[must_use]
    pub fn with_datadog_limits(self) -> Self {
        Self {
            max_span_age: Some(Duration::from_secs(24 * 60 * 60)),
            max_span_bytes: Some(5_000_000),
            ..self
        }
    }

    /// The defaults, on the given data.
    pub fn new(data_dir: DataDir) -> Self {
        Self {
            data_dir,
            documented_only: false,
            max_span_age: None,
            max_span_bytes: None,
            body_limits: BodyLimits::default(),
            intake_limits: IntakeLimits::default(),
            connection_limits: ConnectionLimits::default(),
            search_budget: Duration::from_secs(20),
            page_bytes: 50_000_000,
            retention: Retention::default(),
            count_reads: false,
        }
    }
}

/// The backend; clones share one store.
#[derive(Clone)]
pub struct LocalBackend {
    inner: Arc<Backend>,
}

/// What all handlers share. The store is closed before its folder goes.
struct Backend {
    store: Arc<dyn SpanStore>,
    control: Control,
    evaluators: EvaluatorStore,
    store_id: String,
    options: LocalOptions,
    counters: Counters,
    authority: oauth::Authority,
    admission: intake::Admission,
    ancestry: intake::otlp::Ancestry,
    folder: Folder,
}

/// What a backend says of itself under `llmobs_mcp` in `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LocalInfo {
    /// Version of this program.
    pub version: &'static str,
    /// The id of the store, made with it.
    pub store_id: String,
    /// Whether only documented attributes are answered.
    pub documented_only: bool,
}

/// Why the backend could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address is not one of this machine's loopback.
    #[error(
        "{0} is not a loopback address, and the local backend has no access control yet; use for example --listen 127.0.0.1:8126"
    )]
    NotLoopback(SocketAddr),
    /// The address named is in use.
    #[error(
        "{address} cannot be listened on ({reason}); stop the program that uses it, perhaps a Datadog Agent, or name another port, for example --listen 127.0.0.1:8127"
    )]
    PortTaken {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Another process owns the data folder but cannot be talked to.
    #[error(
        "another process holds the data folder {folder} but does not answer ({reason}); stop it, or choose another --data-dir"
    )]
    OwnerUnreachable {
        /// The data folder.
        folder: String,
        /// What was tried.
        reason: String,
    },
    /// The data folder or the network failed.
    #[error("{what}: {reason}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl LocalBackend {
    /// Opens the store. Blocks for the time of that.
    ///
    /// A folder that others may use is opened through [`owner::own_or_attach`] instead.
    pub fn open(options: LocalOptions) -> Result<Self, LocalError> {
        let folder = Folder::open(&options.data_dir)?;
        let durability = match options.data_dir {
            DataDir::Folder(_) => Durability::Full,
            DataDir::Temporary => Durability::Process,
        };
        let store = SqliteStore::open(folder.path(), durability)?;
        let control: Arc<dyn ControlStore> =
            Arc::new(SqliteControl::open(folder.path(), durability)?);
        Ok(Self {
            inner: Arc::new(Backend {
                store_id: store.store_id().to_owned(),
                store: Arc::new(Membered::new(Arc::new(store), control.clone())),
                control: Control::new(control),
                evaluators: EvaluatorStore::open(folder.path(), durability)?,
                counters: Counters::new(options.count_reads),
                authority: oauth::Authority::new(),
                admission: intake::Admission::new(options.intake_limits),
                ancestry: intake::otlp::Ancestry::default(),
                options,
                folder,
            }),
        })
    }

    /// All routes, guarded: for a listener, and for calls within this process.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .merge(agent::routes(&self.inner))
            .merge(intake_routes(&self.inner))
            .merge(
                api::routes(&self.inner).layer(axum::middleware::from_fn_with_state(
                    self.inner.clone(),
                    oauth::check_bearer,
                )),
            )
            .merge(oauth::routes(&self.inner));
        guard::guarded(routes, &self.inner)
    }

    /// What the backend says of itself.
    pub fn info(&self) -> LocalInfo {
        self.inner.info()
    }

    /// The id of the store.
    pub fn store_id(&self) -> &str {
        &self.inner.store_id
    }

    /// The folder that holds the data.
    pub fn data_folder(&self) -> &std::path::Path {
        self.inner.folder.path()
    }

    /// How much is kept. Blocks.
    pub fn stats(&self) -> Result<StoreStats, LocalError> {
        Ok(self.inner.store.stats()?)
    }

    /// What was asked of this backend since it started.
    pub fn request_counts(&self) -> RequestCounts {
        self.inner.counters.read()
    }
}

impl Backend {
    fn info(&self) -> LocalInfo {
        LocalInfo {
            version: env!("CARGO_PKG_VERSION"),
            store_id: self.store_id.clone(),
            documented_only: self.options.documented_only,
        }
    }
}

fn intake_routes(backend: &Arc<Backend>) -> Router {
    let otlp = axum::routing::post(intake::otlp::ingest).with_state(backend.clone());
    let mut router = Router::new().route(intake::otlp::PATH, otlp);
    for (path, dialect) in intake::Dialect::PATHS {
        let state = (backend.clone(), dialect);
        let post = axum::routing::post(intake::ingest);
        if dialect == intake::Dialect::Apm {
            let both = post.put(intake::ingest).with_state(state);
            router = router.route(path, both);
            continue;
        }
        let post = post.with_state(state);
        router = route_with_prefixes(router, path, &post);
    }
    router
}

/// A route under its own path and under the Agent's proxy prefixes.
fn route_with_prefixes(
    mut router: Router,
    path: &str,
    methods: &axum::routing::MethodRouter,
) -> Router {
    router = router.route(path, methods.clone());
    for prefix in PROXY_PREFIXES {
        router = router.route(&format!("{prefix}{path}"), methods.clone());
    }
    router
}

/// Serves until `shutdown` resolves, then finishes what is running.
pub async fn serve(
    backend: LocalBackend,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), LocalError> {
    let listener =
        listener::LimitedListener::new(listener, backend.inner.options.connection_limits);
    let app = backend
        .router()
        .layer(axum::middleware::from_fn(listener::count_active_requests))
        .into_make_service_with_connect_info::<listener::ActiveRequests>();
    axum::serve(listener, app)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(|error| LocalError::System {
            what: "the local backend stopped serving",
            reason: error.to_string(),
        })
}

/// The wall clock in milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}
