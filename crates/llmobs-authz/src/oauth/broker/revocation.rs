//! Revocation of logins at Datadog, after their grants ended.
//!
//! Whenever a grant with a login ends (revoked, replayed or expired), the store queues the login. This module
//! revokes it, with a few retries. The grant stays deleted even if Datadog does not respond.

use std::sync::Arc;
use std::time::Duration;

use crate::oauth::clock::millis;
use crate::oauth::seal::{SealContext, StoredCredential};
use crate::oauth::state::ServerState;
use crate::oauth::store::SignInStoreError;
use crate::oauth::store::revocations::{self, PendingRevocation};
use datadog_llmobs::login::{Login, revoke};

/// The maximum number of attempts to revoke a login.
const MAX_ATTEMPTS: i64 = 5;
/// The minimum time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);

impl ServerState {
    /// Revokes the logins of ended grants, in a task of the background.
    pub(in crate::oauth) fn revoke_ended(self: &Arc<Self>) {
        let server = self.clone();
        tokio::spawn(async move {
            if let Err(error) = server.revoke_due().await {
                tracing::warn!(%error, "logins of ended grants could not be revoked");
            }
        });
    }

    async fn revoke_due(&self) -> Result<(), SignInStoreError> {
        loop {
            let now = self.clock.now_ms();
            // A read first: usually no revocation is due.
            if !self
                .store
                .read(move |c| revocations::are_due(c, now))
                .await?
            {
                return Ok(());
            }
            let again = now.saturating_add(millis(RETRY_INTERVAL));
            let next = self
                .store
                .write(move |c| revocations::next_due(c, now, again))
                .await?;
            let Some(ended) = next else {
                return Ok(());
            };
            if self.revoke_ended_login(&ended).await || ended.attempts >= MAX_ATTEMPTS {
                self.store
                    .write(move |c| revocations::remove(c, &ended.grant))
                    .await?;
            }
        }
    }

    /// Revokes the login of an ended grant. `false` if a retry may help.
    async fn revoke_ended_login(&self, ended: &PendingRevocation) -> bool {
        let context = SealContext {
            grant: &ended.grant,
            client: &ended.client,
            resource: &ended.resource,
        };
        match self.secret_key.open(&ended.credential, &context) {
            Ok(StoredCredential::Login(login)) => self.revoke(&login).await,
            Ok(StoredCredential::Entered(_)) => true,
            Err(error) => {
                tracing::error!(grant = ended.grant, %error, "a login could not be revoked");
                true
            }
        }
    }

    /// Revokes a login at Datadog. `false` if a retry may help.
    pub(super) async fn revoke(&self, login: &Login) -> bool {
        if !self.is_upstream(&login.target) {
            // Tokens are sent to their own upstream only.
            tracing::warn!("a login of another upstream was not revoked");
            return true;
        }
        match revoke(&*self.hub.transport(), login).await {
            Ok(()) => {
                tracing::info!("revoked a login at Datadog");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a login at Datadog could not be revoked");
                false
            }
        }
    }
}
