//! The state that all endpoints of the authorization server share.

use std::sync::Arc;

use datadog_llmobs::Hub;
use datadog_llmobs::login::LoginTarget;

use crate::peer::PeerAddress;
use crate::public_url::PublicUrl;

use super::clock::Clock;
use super::datadog_sign_in::DatadogSignIn;
use super::documents::DocumentCache;
use super::primitives::OauthError;
use super::rate_limits::{Action, RateLimits};
use super::seal::SecretKey;
use super::store::SignInStore;

/// Shared state of the authorization server.
pub(super) struct ServerState {
    /// The URL at which callers reach the server; also the issuer of its tokens.
    pub(super) public_url: PublicUrl,
    /// The key that encrypts Datadog credentials in the store.
    pub(super) secret_key: SecretKey,
    /// The upstream, which verifies credentials.
    pub(super) hub: Hub,
    /// Client metadata documents; `None` if the server does not fetch them.
    pub(super) documents: Option<DocumentCache>,
    /// How users sign in at Datadog; `None` if they cannot.
    pub(super) datadog_sign_in: Option<DatadogSignIn>,
    /// The time.
    pub(super) clock: Arc<dyn Clock>,
    /// Rate limits per peer and in total.
    pub(super) rate_limits: RateLimits,
    /// Clients, consents, grants and tokens.
    pub(super) store: Arc<SignInStore>,
}

impl ServerState {
    /// Counts an action of a peer.
    ///
    /// # Errors
    /// The peer, or all peers together, exceeded the limit.
    pub(super) fn check_rate_limit(
        &self,
        action: Action,
        peer: PeerAddress,
    ) -> Result<(), OauthError> {
        self.rate_limits.check(action, peer).map_err(|seconds| {
            tracing::warn!(?action, "rate limit exceeded");
            OauthError::rate_limited(seconds)
        })
    }

    /// Whether a login belongs to the upstream of this server. Its tokens are sent nowhere else.
    pub(super) fn is_upstream(&self, target: &LoginTarget) -> bool {
        LoginTarget::from_upstream(self.hub.upstream()).is_ok_and(|upstream| upstream == *target)
    }
}
