//! Under which client id this server asks Datadog.
//!
//! Whether Datadog registers a client whose redirect address is not on loopback is not documented for
//! this flow, so an operator can bring a client id of their own; nothing else depends on which of the
//! two it is. A registration of ours is used for a day: for many sign-ins, and not for so long that
//! one which was removed at Datadog stays in the way.

use std::time::Duration;

use crate::oauth::answer::OauthError;
use crate::oauth::clock::millis;
use crate::oauth::store::registrations;
use crate::oauth::{CALLBACK, Inner};
use datadog_llmobs::login::{CLIENT_NAME, ClientRegistration, LoginError};

use super::DatadogSignIn;

/// How long a registration is used for new sign-ins.
const LIFE: Duration = Duration::from_secs(24 * 3_600);

impl Inner {
    /// Our registration at Datadog, made if there is none. The inner error is Datadog's refusal.
    pub(super) async fn registration(
        &self,
        sign_in: &DatadogSignIn,
    ) -> Result<Result<ClientRegistration, LoginError>, OauthError> {
        let redirect = self.public.at(CALLBACK);
        let known = match &sign_in.client_id {
            Some(given) => Some(given.clone()),
            None => {
                let (place, redirect) = (sign_in.place.key(), redirect.clone());
                let now = self.clock.now_ms();
                self.store
                    .read(move |c| registrations::get(c, &place, &redirect, now))
                    .await?
            }
        };
        if let Some(client_id) = known {
            return Ok(Ok(sign_in.registered_as(client_id, redirect)));
        }
        let transport = self.hub.transport();
        let made =
            ClientRegistration::new(&*transport, &sign_in.place, CLIENT_NAME, &redirect).await;
        let made = match made {
            Ok(made) => made,
            Err(refused) => return Ok(Err(refused)),
        };
        let (place, client_id) = (sign_in.place.key(), made.client_id.clone());
        let until = self.clock.now_ms().saturating_add(millis(LIFE));
        self.store
            .write(move |c| registrations::put(c, &place, &redirect, &client_id, until))
            .await?;
        tracing::info!(
            client_id = made.client_id,
            "registered at Datadog for sign-ins"
        );
        Ok(Ok(made))
    }

    /// Forgets a registration that Datadog does not know.
    pub(super) async fn forget_registration(&self, client_id: &str) -> Result<(), OauthError> {
        let client_id = client_id.to_owned();
        self.store
            .write(move |c| registrations::forget(c, &client_id))
            .await?;
        Ok(())
    }
}

impl DatadogSignIn {
    /// The registration with this client id.
    pub(super) fn registered_as(&self, client_id: String, redirect: String) -> ClientRegistration {
        ClientRegistration {
            target: self.place.clone(),
            client_id,
            redirect,
        }
    }

    /// The scopes to ask for: changes only if the user ticked them.
    pub(super) fn scopes(writes: bool) -> Vec<String> {
        datadog_llmobs::login::DEFAULT_SCOPES
            .iter()
            .filter(|scope| writes || **scope != WRITE)
            .map(|scope| (*scope).to_owned())
            .collect()
    }

    /// Whether Datadog granted changes, by the scopes of a login.
    pub(super) fn may_write(scope: &str) -> bool {
        scope.split(' ').any(|scope| scope == WRITE)
    }
}

/// The scope that changes need.
const WRITE: &str = "llm_observability_write";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_asked_for_when_they_were_ticked_and_at_no_other_time() {
        assert_eq!(DatadogSignIn::scopes(false), ["llm_observability_read"]);
        let both = DatadogSignIn::scopes(true);
        assert_eq!(both.len(), 2);
        assert!(DatadogSignIn::may_write(&both.join(" ")));
        assert!(!DatadogSignIn::may_write("llm_observability_read"));
    }
}
