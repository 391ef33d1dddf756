//! A login of the [`LoginStore`] that renews itself.
//!
//! It is renewed five minutes before its access token expires, and once when the upstream rejects
//! the token. The claim on a renewal is the lock of the login file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OwnedMutexGuard;

use super::super::client::RenewCredential;
use super::super::credential::Credential;
use super::super::transport::Transport;
use super::error::LoginError;
use super::now_ms;
use super::renewal::{
    Claimed, RenewalFailure, RenewalOutcome, RenewalStore, TokenLifetime, renew_login,
};
use super::store::{Login, LoginStore, LoginStoreLock, TokenStorage};
use super::store_error::LoginStoreError;
use super::target::LoginTarget;

/// A token that was renewed within this time is not rejected for its age.
const JUST_RENEWED: Duration = Duration::from_secs(60);

const OPERATION: &str = "the renewal of the login";

/// A stored login in use. Clones share its renewals.
#[derive(Clone)]
pub struct StoredLogin {
    inner: Arc<StoredLoginInner>,
    transport: Arc<dyn Transport>,
}

struct StoredLoginInner {
    store: LoginStore,
    name: String,
    target: LoginTarget,
    tokens: Mutex<CachedTokens>,
    /// Held through a renewal, so that tasks of this process do not poll the file lock.
    renewal: Arc<tokio::sync::Mutex<()>>,
}

/// The tokens as this process knows them.
struct CachedTokens {
    access_token: SecretString,
    lifetime: TokenLifetime,
    /// When this process last renewed them.
    renewed_at: Option<Instant>,
    /// A refresh token that was rejected; it is not sent again.
    rejected_refresh_token: Option<SecretString>,
}

/// What is shown of a login in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginState {
    /// The profile.
    pub name: String,
    /// When the access token expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

impl StoredLogin {
    /// Opens a stored login for use at this target.
    ///
    /// # Errors
    /// There is no login of that name for that target, or it cannot be read.
    pub fn open(
        store: LoginStore,
        name: &str,
        target: &LoginTarget,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, LoginError> {
        let (login, _) = store
            .get(name)?
            .filter(|(login, _)| login.target == *target)
            .ok_or_else(|| LoginError::NotLoggedIn(name.to_owned()))?;
        let tokens = CachedTokens {
            access_token: login.access_token.clone(),
            lifetime: TokenLifetime::from_login(&login),
            renewed_at: None,
            rejected_refresh_token: None,
        };
        let inner = StoredLoginInner {
            store,
            name: name.to_owned(),
            target: login.target,
            tokens: Mutex::new(tokens),
            renewal: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            transport,
        })
    }

    /// The current credential, which may have expired.
    pub fn current(&self) -> Credential {
        Credential::Bearer(self.inner.tokens().access_token.clone())
    }

    /// The profile and the expiry.
    pub fn state(&self) -> LoginState {
        LoginState {
            name: self.inner.name.clone(),
            expires_at_ms: self.inner.tokens().lifetime.expires_at_ms,
        }
    }

    /// The credential for a call that starts now, renewed first if it is about to expire. If the
    /// renewal fails for a transient reason, a token that is still valid is returned unchanged.
    ///
    /// # Errors
    /// There is no usable token any more.
    pub async fn ready(&self) -> Result<Credential, LoginError> {
        let (access_token, lifetime) = {
            let tokens = self.inner.tokens();
            (tokens.access_token.clone(), tokens.lifetime)
        };
        let now = now_ms();
        if lifetime.is_fresh(now) {
            return Ok(Credential::Bearer(access_token));
        }
        match self.renew_tokens(None).await {
            Ok(Some(renewed)) => Ok(Credential::Bearer(renewed)),
            Ok(None) => Ok(self.current()),
            Err(error) if now < lifetime.expires_at_ms && is_transient(&error) => {
                tracing::warn!("the login could not be renewed yet: {error}");
                Ok(Credential::Bearer(access_token))
            }
            Err(error) => Err(error),
        }
    }

    /// A usable access token in place of `rejected`, or of one that is about to expire. `None` if
    /// the upstream rejects a token that this process just received.
    async fn renew_tokens(
        &self,
        rejected: Option<&SecretString>,
    ) -> Result<Option<SecretString>, LoginError> {
        let inner = &self.inner;
        match renew_login(inner, &self.transport, rejected).await {
            Ok(RenewalOutcome::Token(token)) => Ok(Some(token)),
            Ok(RenewalOutcome::JustRenewed) => Ok(None),
            Err(RenewalFailure::Ended) => Err(LoginError::NotLoggedIn(inner.name.clone())),
            Err(RenewalFailure::NoRefreshToken) => Err(LoginError::Expired(inner.name.clone())),
            Err(RenewalFailure::Rejected) => Err(LoginError::Revoked {
                profile: inner.name.clone(),
                target: inner.target.name(),
            }),
            Err(RenewalFailure::Request(error)) => Err(error),
            Err(RenewalFailure::Store(error)) => Err(LoginError::Store(error)),
            Err(failure @ (RenewalFailure::Busy | RenewalFailure::ShuttingDown)) => {
                Err(LoginError::NoResponse {
                    target: inner.target.name(),
                    operation: OPERATION,
                    source: failure.to_string().as_str().into(),
                })
            }
        }
    }
}

/// Whether the same renewal may succeed a moment later.
fn is_transient(error: &LoginError) -> bool {
    matches!(
        error,
        LoginError::NoResponse { .. }
            | LoginError::Status { .. }
            | LoginError::Unreadable { .. }
            | LoginError::Store(LoginStoreError::Locked { .. } | LoginStoreError::File { .. })
    )
}

impl StoredLoginInner {
    fn tokens(&self) -> MutexGuard<'_, CachedTokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_tokens(&self, login: &Login) {
        let mut tokens = self.tokens();
        if tokens.access_token.expose_secret() != login.access_token.expose_secret() {
            tokens.renewed_at = None;
        }
        tokens.access_token = login.access_token.clone();
        tokens.lifetime = TokenLifetime::from_login(login);
    }
}

impl RenewalStore for Arc<StoredLoginInner> {
    type Context = TokenStorage;
    type Claim = (OwnedMutexGuard<()>, LoginStoreLock);
    type Error = LoginStoreError;

    fn now_ms(&self) -> i64 {
        now_ms()
    }

    async fn load(&self) -> Result<Option<(Login, TokenStorage)>, LoginStoreError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        let stored = blocking(move || store.get(&name)).await?;
        // Tokens of one target are not sent to another, even if the file has changed.
        let stored = stored.filter(|(login, _)| login.target == self.target);
        if let Some((login, _)) = &stored
            && login.is_fresh(now_ms())
        {
            self.cache_tokens(login);
        }
        Ok(stored)
    }

    async fn claim(
        &self,
        _login: &Login,
        _storage: &TokenStorage,
        _urgent: bool,
    ) -> Result<Option<Claimed<Self>>, LoginStoreError> {
        let guard = Arc::clone(&self.renewal).lock_owned().await;
        let claim = (guard, self.store.lock().await?);
        let stored = self.load().await?;
        Ok(stored.map(|(login, context)| Claimed {
            claim,
            login,
            context,
        }))
    }

    async fn save(
        &self,
        claim: Self::Claim,
        storage: &TokenStorage,
        login: &Login,
    ) -> Result<bool, LoginStoreError> {
        self.cache_tokens(login);
        self.tokens().renewed_at = Some(Instant::now());
        let (store, name) = (self.store.clone(), self.name.clone());
        let (login, storage) = (login.clone(), *storage);
        let saved = blocking(move || store.put(&claim.1, &name, &login, storage, false)).await;
        match saved {
            Ok(None) => {}
            Ok(Some(note)) => tracing::warn!("{note}"),
            // This process can use the token; only the next one has to sign in.
            Err(error) => tracing::warn!("the renewed login could not be saved: {error}"),
        }
        tracing::info!(profile = self.name, "renewed the stored login");
        Ok(true)
    }

    async fn reject(
        &self,
        _claim: Self::Claim,
        _storage: &TokenStorage,
        login: Login,
    ) -> Result<(), LoginStoreError> {
        self.tokens().rejected_refresh_token = login.refresh_token;
        Ok(())
    }

    async fn release(&self, _claim: Self::Claim) -> Result<(), LoginStoreError> {
        Ok(())
    }

    fn is_rejected(&self, login: &Login) -> bool {
        let tokens = self.tokens();
        match (&tokens.rejected_refresh_token, &login.refresh_token) {
            (Some(rejected), Some(current)) => rejected.expose_secret() == current.expose_secret(),
            _ => false,
        }
    }

    fn is_just_renewed(&self, _login: &Login) -> bool {
        let renewed_at = self.tokens().renewed_at;
        renewed_at.is_some_and(|renewed_at| renewed_at.elapsed() < JUST_RENEWED)
    }
}

/// Runs work that may wait for a disk or a keyring on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoginStoreError> + Send + 'static,
) -> Result<T, LoginStoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(LoginStoreError::Keyring(
            "the program is shutting down".to_owned(),
        ))
    })
}

impl RenewCredential for StoredLogin {
    fn renew<'a>(
        &'a self,
        rejected: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        async move {
            let Credential::Bearer(rejected) = rejected else {
                return Ok(None);
            };
            match self.renew_tokens(Some(rejected)).await {
                Ok(token) => Ok(token.map(Credential::Bearer)),
                Err(error) => Err(format!("{error}; {}", error.hint())),
            }
        }
        .boxed()
    }
}
