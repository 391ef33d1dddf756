//! New tokens for the login of a grant, before the old ones end.
//!
//! Whoever finds a login that is about to end asks for the turn (`store::renewals`), and who gets it
//! renews. The others go on with the token that is there while it lives, and wait for the new one
//! after that. What is renewed is kept in the grant at once; nothing of it stays in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::oauth::clock::millis;
use crate::oauth::seal::{SealContext, SealError, StoredCredential};
use crate::oauth::state::ServerState;
use crate::oauth::store::SignInStoreError;
use crate::oauth::store::grants::{self, Grant};
use crate::oauth::store::renewals::{self, Claim};
use datadog_llmobs::login::{Login, LoginError, RenewalError, renew};
use datadog_llmobs::{Credential, RenewCredential};

/// The longest turn: more than a renewal may take.
const TURN: Duration = Duration::from_secs(60);
/// How long those who still have a living token leave a failed renewal alone.
const PAUSE: Duration = Duration::from_secs(10);
/// How long somebody else's renewal is waited for.
const PATIENCE: Duration = Duration::from_secs(25);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A token that was renewed so recently and is refused is not refused for its age.
const FRESH: Duration = Duration::from_secs(60);

/// Why there is no better token. What to do stands in the words.
#[derive(Debug, Error)]
enum Unrenewed {
    #[error(
        "the sign-in at Datadog is over (revoked, expired, or ended by an administrator): sign in to this \
         server again"
    )]
    Over,
    #[error(
        "the token of the sign-in at Datadog is new and was refused all the same: it may not do this; sign \
         in to this server again, with an access token or a pair of keys that may"
    )]
    Useless,
    #[error(
        "the sign-in at Datadog could not be renewed ({0}): try again in a minute, and if it stays so, sign \
         in to this server again"
    )]
    Failed(#[from] LoginError),
    #[error("the sign-in at Datadog is being renewed, and that takes long: try again in a minute")]
    Busy,
    #[error("the sign-in cannot be renewed at the moment; the server's log says why")]
    Store,
}

impl From<SignInStoreError> for Unrenewed {
    fn from(error: SignInStoreError) -> Self {
        tracing::error!(%error, "a login could not be renewed");
        Self::Store
    }
}

impl From<SealError> for Unrenewed {
    fn from(error: SealError) -> Self {
        tracing::error!(%error, "a login could not be renewed");
        Self::Store
    }
}

/// The login of a grant, in use by one request.
pub(in crate::oauth) struct Renewing {
    server: Arc<ServerState>,
    grant: String,
}

impl Renewing {
    pub(in crate::oauth) fn new(server: &Arc<ServerState>, grant: &Grant) -> Self {
        Self {
            server: server.clone(),
            grant: grant.id.clone(),
        }
    }

    /// The credential for a call that begins now, renewed first if it is about to end. When that
    /// fails it is the old one: if that is over, Datadog refuses it, and the refusal says the rest.
    pub(in crate::oauth) async fn ready(&self, login: &Login) -> Credential {
        if login.is_good(self.server.clock.now_ms()) {
            return Credential::Bearer(login.access.clone());
        }
        match self.renewed(None).await {
            Ok(access) => Credential::Bearer(access),
            Err(error) => {
                tracing::warn!(grant = self.grant, "a login was not renewed: {error}");
                Credential::Bearer(login.access.clone())
            }
        }
    }

    /// A good access token in place of `refused`, or of one that is about to end.
    async fn renewed(&self, refused: Option<&SecretString>) -> Result<SecretString, Unrenewed> {
        let server = &self.server;
        let since = Instant::now();
        loop {
            let id = self.grant.clone();
            let grant = server.store.read(move |c| grants::get(c, &id)).await?;
            let Some(grant) = grant else {
                return Err(Unrenewed::Over);
            };
            let StoredCredential::Login(login) = server
                .secret_key
                .open(&grant.credential, &SealContext::of(&grant))?
            else {
                return Err(Unrenewed::Over);
            };
            let now = server.clock.now_ms();
            let is_refused = refused
                .is_some_and(|refused| refused.expose_secret() == login.access.expose_secret());
            if !is_refused && login.is_good(now) {
                return Ok(login.access);
            }
            if login.refresh.is_none() {
                return Err(Unrenewed::Over);
            }
            let age = now.saturating_sub(login.issued_at_ms);
            if is_refused && age < millis(FRESH) {
                return Err(Unrenewed::Useless);
            }
            let lives = !is_refused && now < login.expires_at_ms;
            let claim = Claim {
                grant: grant.id.clone(),
                seen: grant.credential.clone(),
                renewer: uuid::Uuid::new_v4().to_string(),
                until_ms: now.saturating_add(millis(TURN)),
                urgent: !lives,
            };
            let renewer = claim.renewer.clone();
            if server
                .store
                .write(move |c| renewals::claim(c, &claim, now))
                .await?
            {
                let server = server.clone();
                // A task of its own: the caller may go away, the work must be done.
                let work =
                    tokio::spawn(
                        async move { server.renew_in_turn(&grant, *login, &renewer).await },
                    );
                return work.await.unwrap_or(Err(Unrenewed::Store));
            }
            if lives {
                return Ok(login.access);
            }
            if since.elapsed() > PATIENCE {
                return Err(Unrenewed::Busy);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl ServerState {
    /// Renews the login of a grant whose turn is ours, and ends the turn.
    async fn renew_in_turn(
        self: &Arc<Self>,
        grant: &Grant,
        login: Login,
        renewer: &str,
    ) -> Result<SecretString, Unrenewed> {
        let renewed = renew(&*self.hub.transport(), &login).await;
        let (login, access) = match renewed {
            Ok(renewed) => {
                let renewed = self.dated(renewed);
                let access = renewed.access.clone();
                (renewed, Ok(access))
            }
            Err(RenewalError::Failed(error)) => {
                let (id, renewer) = (grant.id.clone(), renewer.to_owned());
                let pause = self.clock.now_ms().saturating_add(millis(PAUSE));
                self.store
                    .write(move |c| renewals::give_up(c, &id, &renewer, pause))
                    .await?;
                return Err(error.into());
            }
            // Forgotten, so that nobody asks with it again.
            Err(RenewalError::Refused | RenewalError::NoRefreshToken) => {
                let over = Login {
                    refresh: None,
                    ..login
                };
                (over, Err(Unrenewed::Over))
            }
        };
        if self.keep_renewed(grant, &login, renewer).await? {
            match &access {
                Ok(_) => tracing::info!(grant = grant.id, "a login at Datadog was renewed"),
                Err(_) => tracing::warn!(
                    grant = grant.id,
                    "Datadog no longer renews the login of a grant; its user has to sign in again"
                ),
            }
            return access;
        }
        // The grant ended meanwhile, and the login that it held with it; not this one.
        self.revoke(&login).await;
        Err(Unrenewed::Over)
    }

    async fn keep_renewed(
        &self,
        grant: &Grant,
        login: &Login,
        renewer: &str,
    ) -> Result<bool, Unrenewed> {
        let held = StoredCredential::Login(Box::new(login.clone()));
        let contents = self.secret_key.seal(&held, &SealContext::of(grant))?;
        let (id, renewer) = (grant.id.clone(), renewer.to_owned());
        Ok(self
            .store
            .write(move |c| renewals::keep(c, &id, &renewer, &contents))
            .await?)
    }

    /// A login that was just given, dated by the clock that everything in the store is dated by.
    pub(super) fn dated(&self, login: Login) -> Login {
        let life = login.expires_at_ms.saturating_sub(login.issued_at_ms);
        let now = self.clock.now_ms();
        Login {
            issued_at_ms: now,
            expires_at_ms: now.saturating_add(life),
            ..login
        }
    }
}

impl RenewCredential for Renewing {
    fn renew<'a>(
        &'a self,
        refused: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        async move {
            let Credential::Bearer(refused) = refused else {
                return Ok(None);
            };
            match self.renewed(Some(refused)).await {
                Ok(access) => Ok(Some(Credential::Bearer(access))),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}
