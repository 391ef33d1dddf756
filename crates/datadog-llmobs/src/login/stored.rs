//! A kept login that renews itself.
//!
//! Renewal happens five minutes before the end, and once when the upstream refuses a token. In one
//! process one renewal runs at a time; between processes a file lock says whose turn it is, and who
//! gets it looks first whether the other one has done the work. A renewal is never dropped half way:
//! the old refresh token may be spent the moment the request is out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};

use super::super::client::RenewCredential;
use super::super::credential::Credential;
use super::super::transport::Transport;
use super::error::LoginError;
use super::now_ms;
use super::renewal::{RenewalError, Times, renew};
use super::store::{Login, LoginStore, LoginStoreError, TokenStorage};
use super::target::LoginTarget;

/// A token that was renewed so recently and is refused is not refused for its age.
const FRESH: Duration = Duration::from_secs(60);

/// A login of the store, in use. Clones share one renewal.
#[derive(Clone)]
pub struct StoredLogin {
    inner: Arc<Inner>,
}

struct Inner {
    store: LoginStore,
    name: String,
    target: LoginTarget,
    transport: Arc<dyn Transport>,
    held: Mutex<Held>,
    /// Held through a renewal.
    flight: tokio::sync::Mutex<()>,
}

/// What this process knows of the login.
struct Held {
    access: SecretString,
    times: Times,
    /// When this process last renewed it.
    renewed: Option<Instant>,
    /// A refresh token that was refused; asking again with the same one is useless.
    refused: Option<SecretString>,
}

/// What can be told of a login in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginState {
    /// The profile.
    pub name: String,
    /// When the access token ends, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

impl StoredLogin {
    /// Takes a login of the store into use at this target.
    ///
    /// # Errors
    /// There is none of that name for that target, or it cannot be read.
    pub fn open(
        store: LoginStore,
        name: &str,
        target: &LoginTarget,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, LoginError> {
        let (profile, _) = store
            .get(name)?
            .filter(|(profile, _)| profile.target == *target)
            .ok_or_else(|| LoginError::NotLoggedIn(name.to_owned()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                name: name.to_owned(),
                transport,
                held: Mutex::new(Held {
                    access: profile.access.clone(),
                    times: Times::of(&profile),
                    renewed: None,
                    refused: None,
                }),
                target: profile.target,
                flight: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// The credential as it is, which may have ended.
    pub fn current(&self) -> Credential {
        Credential::Bearer(self.inner.held().access.clone())
    }

    /// What can be told of it.
    pub fn state(&self) -> LoginState {
        LoginState {
            name: self.inner.name.clone(),
            expires_at_ms: self.inner.held().times.expires_at_ms,
        }
    }

    /// The credential for a call that begins now, renewed first if it is about to end. When the
    /// renewal fails for a passing reason and the token still lives, the token it is.
    ///
    /// # Errors
    /// There is no usable token any more.
    pub async fn ready(&self) -> Result<Credential, LoginError> {
        let (access, times) = {
            let held = self.inner.held();
            (held.access.clone(), held.times)
        };
        let now = now_ms();
        if times.are_good(now) {
            return Ok(Credential::Bearer(access));
        }
        match self.renewed(None).await {
            Ok(access) => Ok(Credential::Bearer(access.unwrap_or_else(|| {
                // Renewed a moment ago; nothing better can be had.
                self.inner.held().access.clone()
            }))),
            Err(error) if now < times.expires_at_ms && is_passing(&error) => {
                tracing::warn!("the login could not be renewed yet: {error}");
                Ok(Credential::Bearer(access))
            }
            Err(error) => Err(error),
        }
    }

    /// A good access token in target of `refused`, or of one that is about to end. `None` when a
    /// token that this process just received is refused: another one would fare no better.
    async fn renewed(
        &self,
        refused: Option<SecretString>,
    ) -> Result<Option<SecretString>, LoginError> {
        let inner = self.inner.clone();
        // A task of its own: the caller may go away, the work must be done.
        let work = tokio::spawn(async move { inner.renew(refused).await });
        work.await.unwrap_or_else(|_| {
            Err(LoginError::NoAnswer {
                target: self.inner.target.name(),
                what: WHAT,
                why: "this program is ending".to_owned(),
            })
        })
    }
}

const WHAT: &str = "the renewal of the login";

/// Whether the same renewal may succeed a moment later.
fn is_passing(error: &LoginError) -> bool {
    matches!(
        error,
        LoginError::NoAnswer { .. }
            | LoginError::Status { .. }
            | LoginError::Unreadable { .. }
            | LoginError::Store(LoginStoreError::Locked { .. } | LoginStoreError::File { .. })
    )
}

impl Inner {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(
        &self,
        refused: Option<SecretString>,
    ) -> Result<Option<SecretString>, LoginError> {
        let _flight = self.flight.lock().await;
        let lock = self.store.lock().await?;
        let (profile, storage) = self.load().await?;
        let is_refused = refused
            .as_ref()
            .is_some_and(|refused| refused.expose_secret() == profile.access.expose_secret());
        if !is_refused && profile.is_good(now_ms()) {
            // Somebody else did the work, here or in another process.
            return Ok(Some(self.hold(&profile, None)));
        }
        let over = || LoginError::Revoked {
            profile: self.name.clone(),
            target: self.target.name(),
        };
        if let Some(refresh) = &profile.refresh {
            let held = self.held();
            if held
                .refused
                .as_ref()
                .is_some_and(|other| other.expose_secret() == refresh.expose_secret())
            {
                return Err(over());
            }
            if is_refused && held.renewed.is_some_and(|at| at.elapsed() < FRESH) {
                return Ok(None);
            }
        }
        let profile = match renew(&*self.transport, &profile).await {
            Ok(profile) => profile,
            Err(RenewalError::NoRefreshToken) => {
                return Err(LoginError::Expired(self.name.clone()));
            }
            Err(RenewalError::Refused) => {
                self.held().refused = profile.refresh;
                return Err(over());
            }
            Err(RenewalError::Failed(error)) => return Err(error),
        };
        let access = self.hold(&profile, Some(Instant::now()));
        let (store, name) = (self.store.clone(), self.name.clone());
        let kept = blocking(move || store.put(&lock, &name, &profile, storage, false)).await;
        match kept {
            Ok(None) => {}
            Ok(Some(note)) => tracing::warn!("{note}"),
            // The token is good; only the next process will have to sign in.
            Err(error) => tracing::warn!("the renewed login could not be kept: {error}"),
        }
        tracing::info!(profile = self.name, "the stored login was renewed");
        Ok(Some(access))
    }

    async fn load(&self) -> Result<(Login, TokenStorage), LoginError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        let found = blocking(move || store.get(&name)).await?;
        match found {
            // Tokens of one target are not sent to another, whatever the file says now.
            Some((profile, storage)) if profile.target == self.target => Ok((profile, storage)),
            _ => Err(LoginError::NotLoggedIn(self.name.clone())),
        }
    }

    fn hold(&self, profile: &Login, renewed: Option<Instant>) -> SecretString {
        let mut held = self.held();
        held.access = profile.access.clone();
        held.times = Times::of(profile);
        held.renewed = renewed;
        profile.access.clone()
    }
}

/// Runs what may wait for a disk or a keyring where waiting is fine.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoginStoreError> + Send + 'static,
) -> Result<T, LoginStoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(LoginStoreError::Keyring(
            "the work on the store was given up".to_owned(),
        ))
    })
}

impl RenewCredential for StoredLogin {
    fn renew<'a>(
        &'a self,
        refused: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        async move {
            let Credential::Bearer(refused) = refused else {
                return Ok(None);
            };
            match self.renewed(Some(refused.clone())).await {
                Ok(access) => Ok(access.map(Credential::Bearer)),
                Err(error) => Err(format!("{error}; {}", error.hint())),
            }
        }
        .boxed()
    }
}
