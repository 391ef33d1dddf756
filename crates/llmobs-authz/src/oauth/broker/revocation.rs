//! The end of a login at Datadog, when its grant ends.
//!
//! However a grant ends (revoked, replayed, over), the store notes the login that it held; here it is
//! revoked, a few times if need be. Best effort: the grant is gone whether Datadog answers or not.

use std::sync::Arc;
use std::time::Duration;

use crate::oauth::Inner;
use crate::oauth::clock::millis;
use crate::oauth::seal::{Held, Place};
use crate::oauth::store::StoreError;
use crate::oauth::store::revocations::{self, Ended};
use datadog_llmobs::login::{Login, revoke};

/// How often a revocation is tried.
const MOST_ATTEMPTS: i64 = 5;
/// The least time between two attempts.
const AGAIN: Duration = Duration::from_secs(60);

impl Inner {
    /// Revokes, beside the caller, the logins of grants that ended.
    pub(in crate::oauth) fn revoke_ended(self: &Arc<Self>) {
        let inner = self.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.revoke_due().await {
                tracing::warn!(%error, "logins of grants that ended could not be revoked");
            }
        });
    }

    async fn revoke_due(&self) -> Result<(), StoreError> {
        loop {
            let now = self.clock.now_ms();
            // Reading first: most of the time there is nothing to write.
            if !self
                .store
                .read(move |c| revocations::are_due(c, now))
                .await?
            {
                return Ok(());
            }
            let again = now.saturating_add(millis(AGAIN));
            let next = self
                .store
                .write(move |c| revocations::next(c, now, again))
                .await?;
            let Some(ended) = next else {
                return Ok(());
            };
            if self.revoke_of(&ended).await || ended.attempts >= MOST_ATTEMPTS {
                self.store
                    .write(move |c| revocations::done(c, &ended.grant))
                    .await?;
            }
        }
    }

    /// Revokes the login of a grant that ended; `false` if it may be tried again.
    async fn revoke_of(&self, ended: &Ended) -> bool {
        let place = Place {
            grant: &ended.grant,
            client: &ended.client,
            resource: &ended.resource,
        };
        match self.key.open(&ended.credential, &place) {
            Ok(Held::Login(profile)) => self.revoke(&profile).await,
            Ok(Held::Given(_)) => true,
            Err(error) => {
                tracing::error!(grant = ended.grant, %error, "a login could not be revoked");
                true
            }
        }
    }

    /// Revokes a login at Datadog; `false` if it may be tried again.
    pub(super) async fn revoke(&self, profile: &Login) -> bool {
        if !self.is_upstream(&profile.target) {
            // Tokens go to the upstream only, and this is another one's.
            tracing::warn!("a login at another upstream than this server's was not revoked");
            return true;
        }
        match revoke(&*self.hub.transport(), profile).await {
            Ok(()) => {
                tracing::info!("a login at Datadog was revoked");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a login at Datadog could not be revoked");
                false
            }
        }
    }
}
