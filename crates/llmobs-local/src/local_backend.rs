//! The backend as other crates use it: opening, routes, serving.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use tokio::net::TcpListener;

use crate::backend::{Backend, LocalInfo};
use crate::control::{Control, ControlStore, SqliteControl};
use crate::data_dir::{DataDir, DataDirectory};
use crate::error::LocalError;
use crate::intake::{self, Dialect};
use crate::listener;
use crate::options::LocalOptions;
use crate::proxy::route_with_prefixes;
use crate::span_store::SpanStore;
use crate::store::{Durability, SpanEngine, SqliteStore, StoreStats};
use crate::{agent, api, guard, legacy_evaluators};

/// The stores of a backend.
pub struct Stores {
    /// Spans and evaluations.
    pub spans: Arc<dyn SpanEngine>,
    /// Projects, datasets, experiments, evaluators and prompts.
    pub control: Arc<dyn ControlStore>,
    /// Identifies the data. It must not change while the data exists: clients use it to recognise
    /// a backend, and cache by it.
    pub store_id: String,
}

/// The backend. Clones share its stores.
#[derive(Clone)]
pub struct LocalBackend {
    pub(crate) inner: Arc<Backend>,
}

impl LocalBackend {
    /// Opens the SQLite stores in the data directory of the options. Blocks.
    ///
    /// Open a directory that other processes may use with
    /// [`own_or_attach`](crate::owner::own_or_attach) instead.
    ///
    /// # Errors
    ///
    /// [`LocalError`] when the directory or a store cannot be used.
    pub fn open(options: LocalOptions) -> Result<Self, LocalError> {
        let data_directory = DataDirectory::open(&options.data_dir)?;
        let path = data_directory.path();
        let durability = match options.data_dir {
            DataDir::Path(_) => Durability::Full,
            DataDir::Temporary => Durability::Process,
        };
        let spans = SqliteStore::open(path, durability)?;
        let control = SqliteControl::open(path, durability)?;
        let stores = Stores {
            store_id: spans.store_id().to_owned(),
            spans: Arc::new(spans),
            control: Arc::new(control),
        };
        let path = path.to_owned();
        let backend = Self::new(options, stores, Some(data_directory));
        legacy_evaluators::migrate(&path, &backend.inner.control)?;
        Ok(backend)
    }

    /// A backend on stores of any engine. Its methods and routes call the stores on threads that
    /// may block.
    pub fn with_stores(options: LocalOptions, stores: Stores) -> Self {
        Self::new(options, stores, None)
    }

    fn new(options: LocalOptions, stores: Stores, data_directory: Option<DataDirectory>) -> Self {
        Self {
            inner: Arc::new(Backend {
                store: SpanStore::new(stores.spans, stores.control.clone()),
                control: Control::new(stores.control),
                store_id: stores.store_id,
                admission: intake::Admission::new(options.intake_limits),
                ancestry: intake::otlp::Ancestry::default(),
                options,
                data_directory,
            }),
        }
    }

    /// All routes with their guards, for a listener and for calls within this process.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .merge(agent::routes(&self.inner))
            .merge(intake_routes(&self.inner))
            .merge(api::routes(&self.inner));
        guard::guarded(routes)
    }

    /// What `GET /info` returns about the backend.
    pub fn info(&self) -> LocalInfo {
        self.inner.info()
    }

    /// The id of the store.
    pub fn store_id(&self) -> &str {
        &self.inner.store_id
    }

    /// The data directory; `None` for a backend on other stores.
    pub fn data_directory(&self) -> Option<&Path> {
        let directory = self.inner.data_directory.as_ref();
        directory.map(DataDirectory::path)
    }

    /// Counts what is stored. Blocks.
    ///
    /// # Errors
    ///
    /// [`LocalError::Store`] when the store cannot be read.
    pub fn stats(&self) -> Result<StoreStats, LocalError> {
        Ok(self.inner.store.stats()?)
    }
}

fn intake_routes(backend: &Arc<Backend>) -> Router {
    let otlp = post(intake::otlp::ingest).with_state(backend.clone());
    let mut router = Router::new().route(intake::otlp::PATH, otlp);
    for (path, dialect) in Dialect::PATHS {
        let methods = post(intake::ingest);
        let state = (backend.clone(), dialect);
        if dialect == Dialect::Apm {
            router = router.route(path, methods.put(intake::ingest).with_state(state));
        } else {
            router = route_with_prefixes(router, path, &methods.with_state(state));
        }
    }
    router
}

/// Serves a backend until `shutdown` resolves, then finishes the running requests.
///
/// # Errors
///
/// [`LocalError::System`] when the listener fails.
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
        .map_err(|source| LocalError::System {
            action: "serve the local backend",
            source,
        })
}
