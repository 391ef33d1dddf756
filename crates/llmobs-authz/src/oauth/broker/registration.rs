//! The client id of this server at Datadog.
//!
//! Datadog does not document whether it registers clients whose redirect URI is not on loopback, so an
//! operator can configure a client id. Otherwise the server registers itself and uses the registration for
//! a day, so that a registration that was deleted at Datadog is replaced soon.

use std::time::Duration;

use crate::oauth::clock::millis;
use crate::oauth::datadog_sign_in::DatadogSignIn;
use crate::oauth::primitives::OauthError;
use crate::oauth::state::ServerState;
use crate::oauth::store::registrations;
use crate::oauth::wire::CALLBACK;
use datadog_llmobs::login::{CLIENT_NAME, ClientRegistration, LoginError};

/// How long a registration is used for new sign-ins.
const REGISTRATION_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

impl ServerState {
    /// The registration of this server at Datadog; registers it if there is none. The inner error is
    /// Datadog's refusal.
    pub(super) async fn registration(
        &self,
        sign_in: &DatadogSignIn,
    ) -> Result<Result<ClientRegistration, LoginError>, OauthError> {
        let redirect = self.public_url.at(CALLBACK);
        let stored = match &sign_in.client_id {
            Some(configured) => Some(configured.clone()),
            None => {
                let (place, redirect) = (sign_in.target.key(), redirect.clone());
                let now = self.clock.now_ms();
                self.store
                    .read(move |c| registrations::get(c, &place, &redirect, now))
                    .await?
            }
        };
        if let Some(client_id) = stored {
            return Ok(Ok(sign_in.registration(client_id, redirect)));
        }
        let transport = self.hub.transport();
        let result =
            ClientRegistration::new(&*transport, &sign_in.target, CLIENT_NAME, &redirect).await;
        let registration = match result {
            Ok(registration) => registration,
            Err(error) => return Ok(Err(error)),
        };
        let (place, client_id) = (sign_in.target.key(), registration.client_id.clone());
        let until = self
            .clock
            .now_ms()
            .saturating_add(millis(REGISTRATION_LIFETIME));
        self.store
            .write(move |c| registrations::insert(c, &place, &redirect, &client_id, until))
            .await?;
        tracing::info!(
            client_id = registration.client_id,
            "registered a client at Datadog"
        );
        Ok(Ok(registration))
    }

    /// Deletes a registration that Datadog does not know any more.
    pub(super) async fn forget_registration(&self, client_id: &str) -> Result<(), OauthError> {
        let client_id = client_id.to_owned();
        self.store
            .write(move |c| registrations::delete(c, &client_id))
            .await?;
        Ok(())
    }
}
