//! Datadog's sign-in for programs: registration, consent, tokens, revocation.
//!
//! It follows the same HTTP exchange with the same refusals, so that `login` is tested without an
//! account. Requests without a token, or with any other credential, are accepted as before; an
//! access token of this sign-in that is no longer valid is refused as Datadog refuses it, so that
//! renewal can be observed. All state is in memory; codes and tokens are stored as hashes.

mod authorize;
mod grants;
mod page;
mod register;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use llmobs_authz::oauth::primitives::{OauthError, json_response};
use moka::sync::Cache;
use serde_json::json;

use authorize::PendingConsent;
use grants::Grants;
use register::ClientRegistration;

/// Most registered clients; the least recently used one is removed.
const MAX_CLIENTS: u64 = 1_000;
/// Most open consent pages.
const MAX_CONSENTS: u64 = 200;

/// Clients, open consent pages and grants.
pub(crate) struct SignIn {
    /// The organisation id in the redirect to the client.
    org_id: String,
    clients: Cache<String, ClientRegistration>,
    consents: Cache<String, Arc<PendingConsent>>,
    grants: Mutex<Grants>,
}

impl SignIn {
    pub(crate) fn new(org_id: &str) -> Self {
        Self {
            org_id: org_id.to_owned(),
            clients: Cache::new(MAX_CLIENTS),
            consents: Cache::new(MAX_CONSENTS),
            grants: Mutex::new(Grants::new()),
        }
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoints of the sign-in.
pub(crate) fn routes(sign_in: &Arc<SignIn>) -> Router {
    Router::new()
        .route("/api/v2/oauth2/register", post(register::register))
        .route(
            "/oauth2/v1/authorize",
            get(authorize::show_page).post(authorize::submit),
        )
        .route("/oauth2/v1/token", post(token::token))
        .route("/api/v2/oauth2/token", post(token::token))
        .route("/oauth2/v1/revoke", post(token::revoke))
        .with_state(sign_in.clone())
}

/// Middleware: refuses an access token of this sign-in that is expired or revoked.
pub(crate) async fn check_bearer(
    State(sign_in): State<Arc<SignIn>>,
    request: Request,
    next: Next,
) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| token.starts_with(grants::ACCESS_PREFIX));
    if let Some(token) = token
        && !sign_in.grants().is_valid(token)
    {
        return json_response(
            StatusCode::UNAUTHORIZED,
            &json!({"errors": ["Unauthorized"]}),
        );
    }
    next.run(request).await
}

/// An OAuth error response that also has Datadog's list of errors.
struct DatadogOauthError(OauthError);

impl From<OauthError> for DatadogOauthError {
    fn from(error: OauthError) -> Self {
        Self(error)
    }
}

impl IntoResponse for DatadogOauthError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let body = json!({
            "error": error.code,
            "error_description": error.description,
            "errors": [format!("{} - {}", error.code, error.description)],
        });
        json_response(error.status, &body)
    }
}
