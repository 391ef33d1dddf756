//! When a login has to be renewed, and the renewal itself. Whose turn it is, and where the new tokens
//! are kept, is for whoever keeps the login.

use super::super::transport::Transport;
use super::error::LoginError;
use super::store::Login;
use super::target::LoginTarget;
use super::token::{self, Failure};

/// How long before its end a token is renewed, unless it lives so shortly that half its life is
/// less.
const MARGIN_MS: i64 = 300_000;

/// A clock that went back by more makes all times doubtful.
const CLOCK_SLACK_MS: i64 = 60_000;

/// From when to when an access token is good.
#[derive(Clone, Copy)]
pub(super) struct Times {
    issued_at_ms: i64,
    pub(super) expires_at_ms: i64,
}

impl Times {
    pub(super) fn of(profile: &Login) -> Self {
        Self {
            issued_at_ms: profile.issued_at_ms,
            expires_at_ms: profile.expires_at_ms,
        }
    }

    /// Whether a token of these times can be used for a while yet.
    pub(super) fn are_good(self, now_ms: i64) -> bool {
        let life = self.expires_at_ms.saturating_sub(self.issued_at_ms);
        let margin = MARGIN_MS.min(life / 2);
        now_ms < self.expires_at_ms.saturating_sub(margin)
            && now_ms >= self.issued_at_ms.saturating_sub(CLOCK_SLACK_MS)
    }
}

impl Login {
    /// Whether its access token can be used for a while yet: there are more than five minutes, or
    /// half its life, before its end.
    pub fn is_good(&self, now_ms: i64) -> bool {
        Times::of(self).are_good(now_ms)
    }
}

/// Why a login was not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalError {
    /// It came without a refresh token.
    NoRefreshToken,
    /// The refresh token, or the registration that it was given to, is not accepted any more.
    Refused,
    /// Anything else, which may pass.
    Failed(LoginError),
}

/// The same login with new tokens. The old refresh token may be spent once the request is out, so
/// this must not be dropped half way, and what it gives must be kept.
///
/// # Errors
/// See [`RenewalError`].
pub async fn renew(transport: &dyn Transport, profile: &Login) -> Result<Login, RenewalError> {
    let refresh = profile
        .refresh
        .as_ref()
        .ok_or(RenewalError::NoRefreshToken)?;
    let tokens = token::refresh(transport, &profile.target, &profile.client_id, refresh)
        .await
        .map_err(|failure| match failure {
            Failure::Grant(_) | Failure::Client(_) | Failure::Scope(_) => RenewalError::Refused,
            Failure::Other(error) => RenewalError::Failed(error),
        })?;
    if let Some(ahead) = tokens.clock_ahead_ms {
        tracing::warn!("{}", clock_note(ahead, &profile.target));
    }
    Ok(Login {
        access: tokens.access,
        refresh: tokens.refresh.or_else(|| Some(refresh.clone())),
        issued_at_ms: tokens.issued_at_ms,
        expires_at_ms: tokens.expires_at_ms,
        scope: tokens.scope.unwrap_or_else(|| profile.scope.clone()),
        ..profile.clone()
    })
}

/// What to say of a clock that is off.
pub(super) fn clock_note(ahead_ms: i64, target: &LoginTarget) -> String {
    let minutes = ahead_ms.saturating_abs() / 60_000;
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "this machine's clock is {minutes} minutes {direction} the one of {}; set it right, or logins end early or late",
        target.name()
    )
}
