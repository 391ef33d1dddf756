//! Signing in at Datadog: OAuth for a program on somebody's machine.
//!
//! The program registers itself as a public client, opens the browser on Datadog's consent page,
//! takes the answer on a loopback port, exchanges the code, and keeps the tokens. Steps in files:
//!
//! - `place`: which hosts take part, and which hosts an answer may name.
//! - `register`: dynamic client registration.
//! - [`AuthorizationRequest`], [`AuthorizationResponse`], [`ClientRegistration::redeem`]: the address for the
//!   browser, what it brings back, and the exchange of the code.
//! - [`PendingSignIn`]: one sign-in of a person at a terminal, through all of them.
//! - `callback`: the loopback listener.
//! - `token`: code exchange, refresh and revocation.
//! - [`renew`]: new tokens in time.
//! - [`LoginStore`]: where tokens are kept, named by profile.
//! - [`StoredLogin`]: a kept login that renews itself, in one process and between processes.
//!
//! A server whose users sign in at Datadog (`authz::oauth`) takes the same steps between two requests
//! of a browser, without [`PendingSignIn`] and with a store of its own.
//!
//! What comes from the browser is hostile until its `state` is right, and stays unproven after:
//! an answer can only name hosts that `place` knows, or it would send the code to a stranger.

mod authorization;
mod callback;
mod error;
mod register;
mod renewal;
mod response;
mod sign_in;
mod store;
mod stored;
mod target;
mod token;

#[cfg(test)]
mod tests;

pub use authorization::{AuthorizationRequest, ClientRegistration, CompletedSignIn};
pub use callback::{CALLBACK_PORTS, CallbackListener};
pub use error::LoginError;
pub use renewal::{RenewalError, renew};
pub use response::{AuthorizationResponse, VerifiedResponse};
pub use sign_in::{PendingSignIn, SignInRequest};
pub use store::{Login, LoginStore, LoginStoreError, LoginSummary, TokenStorage};
pub use stored::{LoginState, StoredLogin};
pub use target::LoginTarget;
pub use token::revoke;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::transport::ResponseLimits;

/// The name that this program registers under.
pub const CLIENT_NAME: &str = "llmobs-mcp";

/// What is asked for when nobody says otherwise.
pub const DEFAULT_SCOPES: [&str; 2] = ["llm_observability_read", "llm_observability_write"];

/// Bounds of every request of a sign-in: its answers are small.
const RESPONSE_LIMITS: ResponseLimits = ResponseLimits {
    timeout: Duration::from_secs(20),
    max_body_bytes: 256 * 1024,
};

/// The wall clock in milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| {
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    })
}
