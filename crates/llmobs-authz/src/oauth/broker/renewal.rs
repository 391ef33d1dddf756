//! The renewal of the Datadog login of a grant, before its access token expires.
//!
//! The state machine is that of [`renew_login`]. The store is the row of the grant: the claim is a
//! compare-and-set of its renewer (`store::renewals`), and a renewed login is saved in the grant at
//! once. Callers use the current token while it is valid, and otherwise wait for the new one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use thiserror::Error;

use crate::oauth::clock::millis;
use crate::oauth::seal::{SealContext, SealError, StoredCredential};
use crate::oauth::state::ServerState;
use crate::oauth::store::SignInStoreError;
use crate::oauth::store::grants::{self, Grant};
use crate::oauth::store::renewals::{self, Claim};
use datadog_llmobs::login::{
    Claimed, Login, LoginError, RenewalFailure, RenewalOutcome, RenewalStore, renew_login,
};
use datadog_llmobs::{Credential, RenewCredential};

/// When a claim expires: later than a renewal takes.
const CLAIM_LIFETIME: Duration = Duration::from_secs(60);
/// How long callers with a valid token wait after a failed renewal before they try again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// A token that was renewed within this time is not rejected for its age.
const JUST_RENEWED: Duration = Duration::from_secs(60);

/// Why there is no usable token. Each message says how to fix it.
#[derive(Debug, Error)]
enum GrantRenewalError {
    #[error(
        "the sign-in at Datadog has ended (revoked, expired, or removed by an administrator); sign in to \
         this server again"
    )]
    Ended,
    #[error(
        "Datadog rejected a token that it has just renewed, so the sign-in lacks the permission; sign in to \
         this server again, with an access token or API keys that have it"
    )]
    NotPermitted,
    #[error(
        "the sign-in at Datadog could not be renewed ({0}); try again in a minute, and if it fails again, \
         sign in to this server again"
    )]
    Request(#[source] LoginError),
    #[error("the renewal of the sign-in at Datadog is still running; try again in a minute")]
    Busy,
    #[error("the sign-in could not be renewed; the log of this server has the reason")]
    Internal,
}

impl From<RenewalFailure<GrantStoreError>> for GrantRenewalError {
    fn from(failure: RenewalFailure<GrantStoreError>) -> Self {
        match failure {
            RenewalFailure::Ended | RenewalFailure::NoRefreshToken | RenewalFailure::Rejected => {
                Self::Ended
            }
            RenewalFailure::Request(error) => Self::Request(error),
            RenewalFailure::Busy => Self::Busy,
            RenewalFailure::ShuttingDown => Self::Internal,
            RenewalFailure::Store(error) => {
                tracing::error!(%error, "a login could not be renewed");
                Self::Internal
            }
        }
    }
}

/// Why a grant could not be read or written.
#[derive(Debug, Error)]
pub(in crate::oauth) enum GrantStoreError {
    #[error(transparent)]
    Store(#[from] SignInStoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The login of a grant, as one request uses it.
pub(in crate::oauth) struct GrantLogin(GrantLoginStore);

/// The stored login of a grant.
#[derive(Clone)]
struct GrantLoginStore {
    server: Arc<ServerState>,
    grant_id: String,
}

impl GrantLogin {
    pub(in crate::oauth) fn new(server: &Arc<ServerState>, grant: &Grant) -> Self {
        Self(GrantLoginStore {
            server: server.clone(),
            grant_id: grant.id.clone(),
        })
    }

    /// The credential for a call that starts now, renewed first if it is about to expire. If the
    /// renewal fails, it is the old one: if that has expired, Datadog rejects it with the reason.
    pub(in crate::oauth) async fn ready(&self, login: &Login) -> Credential {
        if login.is_fresh(self.0.now_ms()) {
            return Credential::Bearer(login.access_token.clone());
        }
        match self.renew_token(None).await {
            Ok(access_token) => Credential::Bearer(access_token),
            Err(error) => {
                tracing::warn!(grant = self.0.grant_id, "a login was not renewed: {error}");
                Credential::Bearer(login.access_token.clone())
            }
        }
    }

    /// A usable access token in place of `rejected`, or of one that is about to expire.
    async fn renew_token(
        &self,
        rejected: Option<&SecretString>,
    ) -> Result<SecretString, GrantRenewalError> {
        let transport = self.0.server.hub.transport();
        match renew_login(&self.0, &transport, rejected).await? {
            RenewalOutcome::Token(token) => Ok(token),
            RenewalOutcome::JustRenewed => Err(GrantRenewalError::NotPermitted),
        }
    }
}

impl GrantLoginStore {
    /// Seals a login and replaces that of the grant. `false` if the grant or the claim has ended.
    async fn replace(
        &self,
        renewer: String,
        grant: &Grant,
        login: Login,
    ) -> Result<bool, GrantStoreError> {
        let held = StoredCredential::Login(Box::new(login));
        let contents = self
            .server
            .secret_key
            .seal(&held, &SealContext::of(grant))?;
        let id = grant.id.clone();
        Ok(self
            .server
            .store
            .write(move |c| renewals::keep(c, &id, &renewer, &contents))
            .await?)
    }
}

impl RenewalStore for GrantLoginStore {
    type Context = Grant;
    /// The id of the renewer.
    type Claim = String;
    type Error = GrantStoreError;

    fn now_ms(&self) -> i64 {
        self.server.clock.now_ms()
    }

    async fn load(&self) -> Result<Option<(Login, Grant)>, GrantStoreError> {
        let id = self.grant_id.clone();
        let grant = self.server.store.read(move |c| grants::get(c, &id)).await?;
        let Some(grant) = grant else {
            return Ok(None);
        };
        match self
            .server
            .secret_key
            .open(&grant.credential, &SealContext::of(&grant))?
        {
            StoredCredential::Login(login) => Ok(Some((*login, grant))),
            _ => Ok(None),
        }
    }

    async fn claim(
        &self,
        login: &Login,
        grant: &Grant,
        urgent: bool,
    ) -> Result<Option<Claimed<Self>>, GrantStoreError> {
        let now = self.now_ms();
        let claim = Claim {
            grant: grant.id.clone(),
            seen: grant.credential.clone(),
            renewer: uuid::Uuid::new_v4().to_string(),
            until_ms: now.saturating_add(millis(CLAIM_LIFETIME)),
            urgent,
        };
        let renewer = claim.renewer.clone();
        let store = &self.server.store;
        let is_claimed = store
            .write(move |c| renewals::claim(c, &claim, now))
            .await?;
        // The claim succeeds only if the grant is unchanged.
        Ok(is_claimed.then(|| Claimed {
            claim: renewer,
            login: login.clone(),
            context: grant.clone(),
        }))
    }

    async fn save(
        &self,
        renewer: String,
        grant: &Grant,
        login: &Login,
    ) -> Result<bool, GrantStoreError> {
        let login = self.server.dated(login.clone());
        if self.replace(renewer, grant, login.clone()).await? {
            tracing::info!(grant = grant.id, "renewed a login at Datadog");
            return Ok(true);
        }
        // The grant has ended, and its stored login was revoked; the new tokens are still valid.
        self.server.revoke(&login).await;
        Ok(false)
    }

    async fn reject(
        &self,
        renewer: String,
        grant: &Grant,
        login: Login,
    ) -> Result<(), GrantStoreError> {
        // Removes the refresh token, so that it is not sent again.
        let login = Login {
            refresh_token: None,
            ..login
        };
        if self.replace(renewer, grant, login.clone()).await? {
            tracing::warn!(
                grant = grant.id,
                "Datadog no longer renews the login of a grant; its user has to sign in again"
            );
        } else {
            self.server.revoke(&login).await;
        }
        Ok(())
    }

    async fn release(&self, renewer: String) -> Result<(), GrantStoreError> {
        let id = self.grant_id.clone();
        let pause_until = self.now_ms().saturating_add(millis(RETRY_PAUSE));
        Ok(self
            .server
            .store
            .write(move |c| renewals::give_up(c, &id, &renewer, pause_until))
            .await?)
    }

    fn is_rejected(&self, _login: &Login) -> bool {
        // A rejected refresh token is removed from the grant.
        false
    }

    fn is_just_renewed(&self, login: &Login) -> bool {
        self.now_ms().saturating_sub(login.issued_at_ms) < millis(JUST_RENEWED)
    }
}

impl ServerState {
    /// A login that was just issued, dated by the clock of the store.
    pub(super) fn dated(&self, login: Login) -> Login {
        let lifetime = login.expires_at_ms.saturating_sub(login.issued_at_ms);
        let now = self.clock.now_ms();
        Login {
            issued_at_ms: now,
            expires_at_ms: now.saturating_add(lifetime),
            ..login
        }
    }
}

impl RenewCredential for GrantLogin {
    fn renew<'a>(
        &'a self,
        rejected: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        async move {
            let Credential::Bearer(rejected) = rejected else {
                return Ok(None);
            };
            match self.renew_token(Some(rejected)).await {
                Ok(access_token) => Ok(Some(Credential::Bearer(access_token))),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}
