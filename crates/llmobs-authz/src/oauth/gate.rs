//! The authorization server as a gate: mode `oauth`.
//!
//! The gate admits access tokens of this server that were issued for the called path, and nothing else.
//! It refuses Datadog tokens, because they were not issued for this server. Valid tokens always pass;
//! requests with invalid ones are rate limited, to stop guessing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::gate::{CallerCredential, Gate, MCP_PATHS, SignedInUser};
use crate::headers::HeaderCredentials;
use crate::peer::PeerAddress;
use crate::public_url::PublicUrl;
use crate::refusal::refusal;
use datadog_llmobs::{Credential, Hub, RenewCredential};

use super::broker::{self, GrantLogin};
use super::clock::Clock;
use super::datadog_sign_in::DatadogSignIn;
use super::documents::{DocumentCache, DocumentFetcher};
use super::primitives::{TokenHash, json_response};
use super::rate_limits::{Action, RateLimits};
use super::seal::{SealContext, SecretKey, StoredCredential};
use super::state::ServerState;
use super::store::{SignInStore, SignInStoreError, grants};
use super::wire;
use super::{audience, authorize, decision, register, scope, server_metadata, token};

/// The time between two maintenance runs.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// Options of an authorization server.
pub struct AuthorizationServerOptions {
    /// The URL at which callers reach the server.
    pub public_url: PublicUrl,
    /// The key that encrypts Datadog credentials.
    pub key: SecretKey,
    /// The upstream, which verifies credentials. It must not be a local backend, which accepts any.
    pub hub: Hub,
    /// Fetches client metadata documents; with `None` clients cannot use them.
    pub documents: Option<Arc<dyn DocumentFetcher>>,
    /// Lets users sign in at Datadog instead of entering a credential.
    pub sign_in: Option<DatadogSignIn>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
}

/// The authorization server. Clones share their state.
#[derive(Clone)]
pub struct AuthorizationServer {
    state: Arc<ServerState>,
}

impl AuthorizationServer {
    /// Opens the store in the state directory, and creates it if it is missing.
    ///
    /// # Errors
    /// The directory or the file cannot be used, or the file was created with another key.
    pub fn open(
        state_directory: &Path,
        options: AuthorizationServerOptions,
    ) -> Result<Self, SignInStoreError> {
        let store = SignInStore::open(state_directory, options.key.id())?;
        let documents = options
            .documents
            .map(|fetcher| DocumentCache::new(fetcher, options.clock.clone()));
        Ok(Self {
            state: Arc::new(ServerState {
                public_url: options.public_url,
                secret_key: options.key,
                hub: options.hub,
                documents,
                datadog_sign_in: options.sign_in,
                rate_limits: RateLimits::new(options.clock.clone()),
                clock: options.clock,
                store: Arc::new(store),
            }),
        })
    }

    /// Deletes expired data and revokes the Datadog logins of ended grants, at a fixed interval. Runs
    /// until it is dropped.
    pub async fn run_maintenance(&self) {
        loop {
            let now = self.state.clock.now_ms();
            // After a failure the next run deletes the data.
            if let Err(error) = self.state.store.purge(now).await {
                tracing::warn!(%error, "expired sign-ins could not be deleted");
            }
            self.state.revoke_ended();
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
        }
    }

    fn router(&self) -> Router {
        let server = &self.state;
        let mut routes = Router::new()
            .route(wire::AUTHORIZE, get(authorize::authorize))
            .route(wire::CONSENT, post(decision::decide))
            .route(wire::TOKEN, post(token::token))
            .route(wire::REVOKE, post(token::revoke))
            .route(wire::REGISTER, post(register::register))
            .route(wire::SERVER_METADATA, get(authorization_server_metadata))
            .route(wire::OPENID_METADATA, get(authorization_server_metadata));
        if server.datadog_sign_in.is_some() {
            routes = routes.route(wire::CALLBACK, get(broker::callback));
        }
        // Clients that do not append the path of the resource read the document without a suffix.
        let without_suffix = [("", audience::DEFAULT_PATH)];
        let with_suffix = MCP_PATHS.map(|path| (path, path));
        for (suffix, path) in without_suffix.into_iter().chain(with_suffix) {
            let document = move |State(server): State<Arc<ServerState>>| async move {
                json_response(
                    StatusCode::OK,
                    &server_metadata::protected_resource(&server, path),
                )
            };
            let route = format!("{}{suffix}", wire::RESOURCE_METADATA);
            routes = routes.route(&route, get(document));
        }
        routes.with_state(server.clone())
    }
}

async fn authorization_server_metadata(State(server): State<Arc<ServerState>>) -> Response {
    json_response(
        StatusCode::OK,
        &server_metadata::authorization_server(&server),
    )
}

impl Gate for AuthorizationServer {
    fn admit<'a>(
        &'a self,
        path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>> {
        // Removed first, so that no later step can log them.
        let sent = remove_credentials(headers);
        async move {
            let peer = PeerAddress::from_socket(peer);
            let user = self.state.admit(path, peer, sent).await;
            user.map(CallerCredential::User).map_err(Box::new)
        }
        .boxed()
    }

    fn routes(&self) -> Router {
        self.router()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        Some(&self.state.public_url)
    }
}

/// The credentials in a request.
enum SentCredentials {
    /// No credential.
    Absent,
    /// The hash of a bearer that has the form of this server's access tokens.
    AccessToken(TokenHash),
    /// A credential that is not a token of this server.
    Foreign,
    /// A bearer and Datadog keys.
    BearerAndKeys,
}

impl ServerState {
    async fn admit(
        self: &Arc<Self>,
        path: &str,
        peer: PeerAddress,
        sent: SentCredentials,
    ) -> Result<SignedInUser, Response> {
        let token = match sent {
            SentCredentials::AccessToken(token) => token,
            SentCredentials::Absent => return Err(self.unauthorized(path, None)),
            SentCredentials::Foreign => return Err(self.invalid_token(path, peer)),
            SentCredentials::BearerAndKeys => {
                return Err(refusal(
                    StatusCode::BAD_REQUEST,
                    "the request has a bearer token and Datadog keys; only one of them is allowed",
                    "remove the headers DD_API_KEY and DD_APPLICATION_KEY from the client's settings: \
                     users sign in to this server",
                ));
            }
        };
        let now = self.clock.now_ms();
        let grant = self
            .store
            .read(move |connection| grants::find_by_access_token(connection, &token, now))
            .await
            .map_err(|error| {
                tracing::error!(%error, "an access token could not be checked");
                refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "sign-ins cannot be checked at the moment",
                    "try again in a minute; the server's log has the reason",
                )
            })?
            .filter(|grant| grant.resource == self.public_url.at(path))
            .ok_or_else(|| self.invalid_token(path, peer))?;
        let (credential, renewal) = self
            .credential_of(&grant)
            .await
            .ok_or_else(|| self.invalid_token(path, peer))?;
        Ok(SignedInUser {
            credential,
            renewal: Some(renewal),
            subject: format!("sign-in {}", grant.id),
            may_write: scope::allows_writing(&grant.scope),
        })
    }

    /// The credential of a grant and its renewal. `None` if it cannot be used here; the log has the
    /// reason.
    async fn credential_of(
        self: &Arc<Self>,
        grant: &grants::Grant,
    ) -> Option<(Credential, Arc<dyn RenewCredential>)> {
        match self
            .secret_key
            .open(&grant.credential, &SealContext::of(grant))
        {
            Ok(StoredCredential::Entered(credential)) => {
                Some((credential, Arc::new(EnteredCredential)))
            }
            Ok(StoredCredential::Login(login)) if self.is_upstream(&login.target) => {
                let grant_login = GrantLogin::new(self, grant);
                Some((grant_login.ready(&login).await, Arc::new(grant_login)))
            }
            Ok(StoredCredential::Login(_)) => {
                // The server now has another upstream, which must not receive this login.
                tracing::warn!(grant = grant.id, "refused a login of another upstream");
                None
            }
            Err(error) => {
                tracing::error!(grant = grant.id, %error, "refused a grant");
                None
            }
        }
    }

    /// 401 for an invalid token, or 429 after too many of them.
    fn invalid_token(&self, path: &str, peer: PeerAddress) -> Response {
        if let Err(seconds) = self.rate_limits.check(Action::PresentInvalidToken, peer) {
            tracing::warn!("too many invalid bearer tokens");
            let mut response = refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests with invalid tokens",
                "wait as long as Retry-After says, then sign in again in the client",
            );
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
            return response;
        }
        let description = "the token is unknown, expired, or issued for another address";
        self.unauthorized(path, Some(("invalid_token", description)))
    }

    fn unauthorized(&self, path: &str, error: Option<(&str, &str)>) -> Response {
        let mut response = refusal(
            StatusCode::UNAUTHORIZED,
            "unauthorized: sign in to this server first",
            "sign in from the client, for example with `codex mcp login NAME`, or /mcp in Claude Code",
        );
        let challenge = server_metadata::challenge(self, path, error);
        if let Ok(challenge) = HeaderValue::from_str(&challenge) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The renewal of a credential that a user entered: only the user can replace it. The grant stays valid,
/// because Datadog also answers 401 where an endpoint does not accept a kind of token.
struct EnteredCredential;

impl RenewCredential for EnteredCredential {
    fn renew<'a>(
        &'a self,
        _refused: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        let reason = "Datadog refused the credential that was entered at sign-in: if it was revoked or has \
                      expired, sign in to this server again";
        std::future::ready(Err(reason.to_owned())).boxed()
    }
}

/// Removes all credentials from the headers.
fn remove_credentials(headers: &mut HeaderMap) -> SentCredentials {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = match (sent.next(), sent.next()) {
        (None, _) => SentCredentials::Absent,
        (Some(value), None) => parse_access_token(value),
        (Some(_), Some(_)) => SentCredentials::Foreign,
    };
    headers.remove(header::AUTHORIZATION);
    let has_keys = !matches!(
        HeaderCredentials::remove_from(headers),
        HeaderCredentials::Absent
    );
    match bearer {
        SentCredentials::AccessToken(_) | SentCredentials::Foreign if has_keys => {
            SentCredentials::BearerAndKeys
        }
        bearer => bearer,
    }
}

fn parse_access_token(value: &HeaderValue) -> SentCredentials {
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| token.starts_with(wire::ACCESS_TOKEN_PREFIX));
    token.map_or(SentCredentials::Foreign, |token| {
        SentCredentials::AccessToken(TokenHash::of(token))
    })
}
