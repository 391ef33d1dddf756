//! The renewal of a stored login, over any store.
//!
//! A server accepts a refresh token once, so one task renews a login at a time, over all processes
//! that share the store. A task reads the login, decides whether it needs a renewal, and claims it;
//! the claim is the store's: a file lock, or a compare-and-set on a row. After the claim it decides
//! again, because another task may have renewed the login in between. All of this runs in a spawned
//! task: the old refresh token is spent once the request is sent, so a cancelled caller must not
//! stop the renewal.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::super::transport::Transport;
use super::error::LoginError;
use super::store::Login;
use super::token::{self, TokenError};

/// How long before its expiry a token is renewed; half its lifetime if that is less.
const RENEWAL_MARGIN_MS: i64 = 300_000;

/// A clock that was set back by more makes all times doubtful.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// How long to wait for the renewal of another task.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(25);

/// How often to look for the result of another task.
const CLAIM_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The times between which an access token is valid.
#[derive(Clone, Copy)]
pub(super) struct TokenLifetime {
    issued_at_ms: i64,
    pub(super) expires_at_ms: i64,
}

impl TokenLifetime {
    pub(super) fn from_login(login: &Login) -> Self {
        Self {
            issued_at_ms: login.issued_at_ms,
            expires_at_ms: login.expires_at_ms,
        }
    }

    /// Whether a token of this lifetime needs no renewal yet.
    pub(super) fn is_fresh(self, now_ms: i64) -> bool {
        let lifetime = self.expires_at_ms.saturating_sub(self.issued_at_ms);
        let margin = RENEWAL_MARGIN_MS.min(lifetime / 2);
        now_ms < self.expires_at_ms.saturating_sub(margin)
            && now_ms >= self.issued_at_ms.saturating_sub(CLOCK_TOLERANCE_MS)
    }
}

impl Login {
    /// Whether its access token needs no renewal yet: more than five minutes, or half its lifetime,
    /// remain.
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        TokenLifetime::from_login(self).is_fresh(now_ms)
    }
}

/// The store of one login, as the renewal needs it.
pub trait RenewalStore: Clone + Send + Sync + 'static {
    /// Store-specific data of a login that [`RenewalStore::save`] needs.
    type Context: Send + Sync;
    /// The exclusive right to renew the login.
    type Claim: Send;
    /// The error of the store.
    type Error: Send + 'static;

    /// The time in milliseconds since the Unix epoch, by the clock that dates the stored logins.
    fn now_ms(&self) -> i64;

    /// Reads the login; `None` if it does not exist any more.
    fn load(&self) -> impl Future<Output = LoadResult<Self>> + Send;

    /// Claims the renewal of a login that was read before, and returns the login as it is after the
    /// claim. `None` if another task holds the claim or the login has changed. `urgent` if the
    /// current token cannot be used until it is renewed.
    fn claim(
        &self,
        login: &Login,
        context: &Self::Context,
        urgent: bool,
    ) -> impl Future<Output = Result<Option<Claimed<Self>>, Self::Error>> + Send;

    /// Saves the renewed login and releases the claim. `false` if the login ended in the meantime;
    /// the store has then disposed of the new tokens.
    fn save(
        &self,
        claim: Self::Claim,
        context: &Self::Context,
        login: &Login,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Records that the server rejected the refresh token, and releases the claim.
    fn reject(
        &self,
        claim: Self::Claim,
        context: &Self::Context,
        login: Login,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Releases the claim without a renewal. Others may pause before they try again.
    fn release(&self, claim: Self::Claim) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Whether the server has rejected the refresh token of this login before.
    fn is_rejected(&self, login: &Login) -> bool;

    /// Whether the access token is so new that the server does not reject it for its age.
    fn is_just_renewed(&self, login: &Login) -> bool;
}

/// The result of [`RenewalStore::load`].
pub type LoadResult<S> =
    Result<Option<(Login, <S as RenewalStore>::Context)>, <S as RenewalStore>::Error>;

/// A claimed login.
pub struct Claimed<S: RenewalStore> {
    /// The claim.
    pub claim: S::Claim,
    /// The login after the claim.
    pub login: Login,
    /// Its context.
    pub context: S::Context,
}

/// The result of a renewal.
#[derive(Debug)]
pub enum RenewalOutcome {
    /// An access token to use.
    Token(SecretString),
    /// The server rejects a token that was just renewed. Another one would not help.
    JustRenewed,
}

/// Why a login was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenewalFailure<E> {
    /// The login does not exist any more.
    #[error("the login has ended")]
    Ended,
    /// The login has no refresh token.
    #[error("the login has no refresh token")]
    NoRefreshToken,
    /// The server no longer accepts the refresh token, or its client.
    #[error("the refresh token was rejected")]
    Rejected,
    /// Another task has been renewing the login for a long time.
    #[error("another renewal of the login is still running")]
    Busy,
    /// The process is shutting down.
    #[error("the program is shutting down")]
    ShuttingDown,
    /// The request failed; a later one may succeed.
    #[error(transparent)]
    Request(LoginError),
    /// The store failed.
    #[error("the store of logins failed")]
    Store(E),
}

impl<E> From<E> for RenewalFailure<E> {
    fn from(error: E) -> Self {
        Self::Store(error)
    }
}

/// Returns a usable access token in place of `rejected`, or of one that is about to expire. Renews
/// the login if no other task has done so.
///
/// # Errors
/// See [`RenewalFailure`].
pub async fn renew_login<S: RenewalStore>(
    store: &S,
    transport: &Arc<dyn Transport>,
    rejected: Option<&SecretString>,
) -> Result<RenewalOutcome, RenewalFailure<S::Error>> {
    let renewal = wait_or_renew(store.clone(), Arc::clone(transport), rejected.cloned());
    tokio::spawn(renewal)
        .await
        .unwrap_or(Err(RenewalFailure::ShuttingDown))
}

async fn wait_or_renew<S: RenewalStore>(
    store: S,
    transport: Arc<dyn Transport>,
    rejected: Option<SecretString>,
) -> Result<RenewalOutcome, RenewalFailure<S::Error>> {
    let rejected = rejected.as_ref();
    let started = Instant::now();
    loop {
        let Some((login, context)) = store.load().await? else {
            return Err(RenewalFailure::Ended);
        };
        let urgent = match next_step(&store, &login, rejected)? {
            Step::Finish(outcome) => return Ok(outcome),
            Step::Renew { urgent } => urgent,
        };
        if let Some(claimed) = store.claim(&login, &context, urgent).await? {
            return renew_claimed(&store, &*transport, claimed, rejected).await;
        }
        if !urgent {
            return Ok(RenewalOutcome::Token(login.access_token));
        }
        if started.elapsed() > CLAIM_TIMEOUT {
            return Err(RenewalFailure::Busy);
        }
        tokio::time::sleep(CLAIM_POLL_INTERVAL).await;
    }
}

enum Step {
    Finish(RenewalOutcome),
    Renew { urgent: bool },
}

fn next_step<S: RenewalStore>(
    store: &S,
    login: &Login,
    rejected: Option<&SecretString>,
) -> Result<Step, RenewalFailure<S::Error>> {
    let now_ms = store.now_ms();
    let is_rejected =
        rejected.is_some_and(|token| token.expose_secret() == login.access_token.expose_secret());
    if !is_rejected && login.is_fresh(now_ms) {
        let token = login.access_token.clone();
        return Ok(Step::Finish(RenewalOutcome::Token(token)));
    }
    if login.refresh_token.is_none() {
        return Err(RenewalFailure::NoRefreshToken);
    }
    if store.is_rejected(login) {
        return Err(RenewalFailure::Rejected);
    }
    if is_rejected && store.is_just_renewed(login) {
        return Ok(Step::Finish(RenewalOutcome::JustRenewed));
    }
    Ok(Step::Renew {
        urgent: is_rejected || now_ms >= login.expires_at_ms,
    })
}

/// Renews a claimed login and releases the claim.
async fn renew_claimed<S: RenewalStore>(
    store: &S,
    transport: &dyn Transport,
    claimed: Claimed<S>,
    rejected: Option<&SecretString>,
) -> Result<RenewalOutcome, RenewalFailure<S::Error>> {
    let Claimed {
        claim,
        login,
        context,
    } = claimed;
    match next_step(store, &login, rejected) {
        Ok(Step::Renew { .. }) => {}
        Ok(Step::Finish(outcome)) => {
            store.release(claim).await?;
            return Ok(outcome);
        }
        Err(failure) => {
            store.release(claim).await?;
            return Err(failure);
        }
    }
    match request_tokens(transport, &login).await {
        Ok(renewed) => {
            if store.save(claim, &context, &renewed).await? {
                Ok(RenewalOutcome::Token(renewed.access_token))
            } else {
                Err(RenewalFailure::Ended)
            }
        }
        Err(RequestError::NoRefreshToken) => {
            store.release(claim).await?;
            Err(RenewalFailure::NoRefreshToken)
        }
        Err(RequestError::Rejected) => {
            store.reject(claim, &context, login).await?;
            Err(RenewalFailure::Rejected)
        }
        Err(RequestError::Failed(error)) => {
            store.release(claim).await?;
            Err(RenewalFailure::Request(error))
        }
    }
}

enum RequestError {
    NoRefreshToken,
    Rejected,
    Failed(LoginError),
}

/// Requests new tokens. The caller must not be dropped before it has saved them.
async fn request_tokens(transport: &dyn Transport, login: &Login) -> Result<Login, RequestError> {
    let refresh_token = login
        .refresh_token
        .as_ref()
        .ok_or(RequestError::NoRefreshToken)?;
    let tokens = token::refresh(transport, &login.target, &login.client_id, refresh_token)
        .await
        .map_err(|error| match error {
            TokenError::Grant(_) | TokenError::Client(_) | TokenError::Scope(_) => {
                RequestError::Rejected
            }
            TokenError::Other(error) => RequestError::Failed(error),
        })?;
    if let Some(note) = tokens.clock_note(&login.target) {
        tracing::warn!("{note}");
    }
    Ok(Login {
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token.or_else(|| Some(refresh_token.clone())),
        issued_at_ms: tokens.issued_at_ms,
        expires_at_ms: tokens.expires_at_ms,
        scope: tokens.scope.unwrap_or_else(|| login.scope.clone()),
        ..login.clone()
    })
}
