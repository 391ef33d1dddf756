//! Datadog's sign-in, as far as a program needs it: registration, consent, tokens, revocation.
//!
//! It is here so that `login` can be tried and tested without an account, over the same HTTP and
//! with the same refusals. The local API asks nobody for a token; but a token that was given here
//! and is over is refused as Datadog refuses it, so that renewal can be seen to work. Everything is
//! in memory, tokens and codes as hashes only: a restart ends all logins.

mod authorize;
mod grants;
mod page;
mod register;
mod token;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Backend;
use super::http::{BodyLimits, json_plain, read_body};
use grants::Grants;

/// Bounds of the bodies of these routes.
const BODY: BodyLimits = BodyLimits {
    max_encoded_bytes: 64 * 1024,
    max_decoded_bytes: 64 * 1024,
};

/// Registrations kept at a time; the oldest goes.
const MOST_CLIENTS: usize = 1_000;
/// Open consent pages kept at a time.
const MOST_CONSENTS: usize = 200;

/// Everything that was registered, asked and granted.
pub(super) struct Authority {
    state: Mutex<Known>,
}

struct Known {
    clients: Table<String, register::Registration>,
    consents: Table<String, authorize::Consent>,
    grants: Grants,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(Known {
                clients: Table::of(MOST_CLIENTS),
                consents: Table::of(MOST_CONSENTS),
                grants: Grants::new(),
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of the sign-in.
pub(super) fn routes(backend: &Arc<Backend>) -> Router {
    Router::new()
        .route("/api/v2/oauth2/register", post(register::register))
        .route(
            "/oauth2/v1/authorize",
            get(authorize::ask).post(authorize::decide),
        )
        .route("/oauth2/v1/token", post(token::token))
        .route("/api/v2/oauth2/token", post(token::token))
        .route("/oauth2/v1/revoke", post(token::revoke))
        .with_state(backend.clone())
}

/// Refuses a token that was given here and is over. Any other credential, and none, is welcome.
pub(super) async fn check_bearer(
    State(backend): State<Arc<Backend>>,
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
        && !backend.authority.known().grants.is_live(token)
    {
        return json_plain(
            StatusCode::UNAUTHORIZED,
            &json!({"errors": ["Unauthorized"]}),
        );
    }
    next.run(request).await
}

/// A refusal in OAuth's shape and, beside it, in Datadog's.
struct OauthError {
    status: StatusCode,
    code: &'static str,
    words: String,
}

impl OauthError {
    fn new(code: &'static str, words: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code,
            words: words.into(),
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let body = json!({
            "error": self.code,
            "error_description": self.words,
            "errors": [format!("{} - {}", self.code, self.words)],
        });
        unstored(json_plain(self.status, &body))
    }
}

/// An answer that nobody may keep.
fn unstored(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The whole body of one of these requests.
async fn body_of(request: Request) -> Result<Bytes, OauthError> {
    read_body(request.into_body(), BODY)
        .await
        .map_err(|error| OauthError {
            status: error.status,
            code: "invalid_request",
            words: error.detail,
        })
}

/// The values of a form or a query. A name that comes twice is an error: whose value would count?
struct Form(HashMap<String, String>);

impl Form {
    fn read(text: &[u8]) -> Result<Self, OauthError> {
        let mut values = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if values
                .insert(name.into_owned(), value.into_owned())
                .is_some()
            {
                return Err(OauthError::new(
                    "invalid_request",
                    "a parameter was given twice",
                ));
            }
        }
        Ok(Self(values))
    }

    /// A value; an empty one is absent.
    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    fn need(&self, name: &'static str) -> Result<&str, OauthError> {
        self.get(name)
            .ok_or_else(|| OauthError::new("invalid_request", format!("{name} is missing")))
    }
}

/// What stands for a secret in memory.
type Hashed = [u8; 32];

fn hashed(secret: &str) -> Hashed {
    Sha256::digest(secret.as_bytes()).into()
}

/// 256 random bits as text.
fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A map of bounded size: the oldest entry makes room.
struct Table<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    fn of(most: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    fn insert(&mut self, key: K, value: V) {
        while self.order.len() >= self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
        self.order.push_back(key.clone());
        self.values.insert(key, value);
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.values.remove(key)?;
        self.order.retain(|other| other != key);
        Some(value)
    }
}
