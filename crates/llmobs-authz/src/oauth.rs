//! Our own authorization server, for MCP clients that log in: OAuth 2.1 as the MCP specification
//! asks for it.
//!
//! A client registers (`register`) or describes itself at its id (`documents`); the user's
//! browser comes with a request (`authorize`) and is shown our consent page (`page`); there the
//! user gives a Datadog credential, which is tried before it is accepted (`consent`) and kept
//! sealed (`seal`), or signs in at Datadog (`broker`); the client exchanges its code for opaque
//! tokens (`token`) that are good for one of our addresses only (`admit`). No token of Datadog's
//! is accepted as a bearer here, and none is ever given to a client.
//!
//! All state is in the `store`. In memory are rate limits and fetched metadata documents, which a
//! restart may forget.

mod address;
mod admit;
mod answer;
mod audience;
mod authorize;
mod broker;
mod browser;
mod client;
mod clock;
mod consent;
mod documents;
mod form;
mod limits;
mod metadata;
mod opaque;
mod page;
mod redirect;
mod register;
mod scope;
mod seal;
mod store;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;

use crate::{MCP_PATHS, PublicUrl};
use datadog_llmobs::Hub;
use datadog_llmobs::login::LoginTarget;

pub use broker::DatadogSignIn;
pub use clock::{Clock, SystemClock};
pub use documents::{Document, FetchDocument, FetchError, HttpFetch, Resolver, SystemResolver};
pub use seal::{SecretKey, SecretKeyError};
pub use store::StoreError;

use answer::{OauthError, answer};
use documents::Documents;
use limits::Limits;
use store::Store;

const AUTHORIZE: &str = "/oauth/authorize";
const CONSENT: &str = "/oauth/consent";
/// Where browsers come back from Datadog; a part of how Datadog knows this server.
const CALLBACK: &str = "/oauth/callback";
const TOKEN: &str = "/oauth/token";
const REGISTER: &str = "/oauth/register";
const REVOKE: &str = "/oauth/revoke";
const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";
const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";
/// The same document where OpenID puts it: some clients look only there.
const OPENID_METADATA: &str = "/.well-known/openid-configuration";

/// How often what is over is deleted.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// What an authorization server is made of.
pub struct Options {
    /// The name under which callers know this server.
    pub public_url: PublicUrl,
    /// What Datadog credentials are sealed with.
    pub key: SecretKey,
    /// The upstream: credentials are tried there. Not a local one, which takes any.
    pub hub: Hub,
    /// Fetches metadata documents; `None` turns them off.
    pub documents: Option<Arc<dyn FetchDocument>>,
    /// Lets users sign in at Datadog too.
    pub sign_in: Option<DatadogSignIn>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// The authorization server. Clones are the same one.
#[derive(Clone)]
pub struct AuthorizationServer {
    inner: Arc<Inner>,
}

struct Inner {
    public: PublicUrl,
    key: SecretKey,
    hub: Hub,
    documents: Option<Documents>,
    sign_in: Option<DatadogSignIn>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    store: Arc<Store>,
}

impl AuthorizationServer {
    /// Opens the store in the state folder, and makes it if there is none.
    ///
    /// # Errors
    /// A folder or file that cannot be used, or that was begun with another key.
    pub fn open(state_folder: &Path, options: Options) -> Result<Self, StoreError> {
        let store = Store::open(state_folder, options.key.id())?;
        let documents = options
            .documents
            .map(|fetcher| Documents::new(fetcher, options.clock.clone()));
        Ok(Self {
            inner: Arc::new(Inner {
                public: options.public_url,
                key: options.key,
                hub: options.hub,
                documents,
                sign_in: options.sign_in,
                limits: Limits::new(options.clock.clone()),
                clock: options.clock,
                store: Arc::new(store),
            }),
        })
    }

    /// Puts in order what is over, whether anybody signs in or not: deletes it, and revokes at
    /// Datadog the logins of grants that ended. Goes on until it is dropped.
    pub async fn tend(&self) {
        loop {
            self.inner.purge().await;
            tokio::time::sleep(PURGE_EVERY).await;
        }
    }

    /// The routes of the sign-in, which stand beside the MCP endpoint.
    fn router(&self) -> Router {
        let inner = &self.inner;
        let mut routes = Router::new()
            .route(AUTHORIZE, get(authorize::ask))
            .route(CONSENT, post(consent::decide))
            .route(TOKEN, post(token::token))
            .route(REVOKE, post(token::revoke))
            .route(REGISTER, post(register::register))
            .route(SERVER_METADATA, get(server_metadata))
            .route(OPENID_METADATA, get(server_metadata));
        if inner.sign_in.is_some() {
            routes = routes.route(CALLBACK, get(broker::back));
        }
        // The root form is for clients that do not know the path form.
        let root = [("", audience::DEFAULT_PATH)];
        let forms = MCP_PATHS.map(|path| (path, path));
        for (suffix, path) in root.into_iter().chain(forms) {
            let document = move |State(inner): State<Arc<Inner>>| async move {
                answer(StatusCode::OK, &metadata::resource(&inner, path))
            };
            routes = routes.route(&format!("{RESOURCE_METADATA}{suffix}"), get(document));
        }
        routes.with_state(inner.clone())
    }
}

async fn server_metadata(State(inner): State<Arc<Inner>>) -> Response {
    answer(StatusCode::OK, &metadata::authorization_server(&inner))
}

impl Inner {
    /// Counts an act of a peer.
    fn count(&self, act: limits::Act, peer: limits::Peer) -> Result<(), OauthError> {
        self.limits.count(act, peer).map_err(|seconds| {
            tracing::warn!(?act, "too many requests of this kind");
            OauthError::too_many(seconds)
        })
    }

    /// Whether a login's place is this server's upstream, which alone may see its tokens.
    fn is_upstream(&self, place: &LoginTarget) -> bool {
        LoginTarget::from_upstream(self.hub.upstream()).is_ok_and(|upstream| upstream == *place)
    }

    /// Deletes what is over. A failure only leaves it for the next time.
    async fn purge(self: &Arc<Self>) {
        if let Err(error) = self.store.purge(self.clock.now_ms()).await {
            tracing::warn!(%error, "what is over could not be deleted");
        }
        self.revoke_ended();
    }
}
