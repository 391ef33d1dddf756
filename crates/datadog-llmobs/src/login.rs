//! Sign-in at Datadog: OAuth for a program on a person's machine.
//!
//! The program registers as a public client, opens Datadog's consent page in the browser, receives
//! the response on a loopback port, exchanges the code and stores the tokens:
//!
//! - [`LoginTarget`]: the hosts of a sign-in, and the hosts that a response may name.
//! - `register`: dynamic client registration.
//! - [`AuthorizationRequest`], [`AuthorizationResponse`], [`ClientRegistration::redeem`]: the URL for
//!   the browser, the query that it returns, and the exchange of the code.
//! - [`PendingSignIn`]: one sign-in from a terminal, through all of these steps.
//! - [`CallbackListener`]: the loopback listener.
//! - `token`: code exchange, refresh and revocation.
//! - [`renew_login`]: the renewal of a stored login, over any [`RenewalStore`].
//! - [`LoginStore`]: the file of logins, by profile name.
//! - [`StoredLogin`]: a login of that file that renews itself.
//!
//! The authorization server (`llmobs-authz`) runs the same steps between two requests of a browser,
//! without [`PendingSignIn`] and with a store of its own.
//!
//! A response is untrusted until its `state` matches, and its contents are untrusted after that: it
//! may name only hosts that [`LoginTarget`] accepts, so that the code goes to no other host.

mod authorization;
mod callback;
mod error;
mod register;
mod renewal;
mod response;
mod sign_in;
mod store;
mod store_error;
mod stored;
mod target;
mod token;

#[cfg(test)]
mod tests;

pub use authorization::{AuthorizationRequest, ClientRegistration, CompletedSignIn};
pub use callback::{CALLBACK_PORTS, CallbackListener};
pub use error::LoginError;
pub use renewal::{Claimed, LoadResult, RenewalFailure, RenewalOutcome, RenewalStore, renew_login};
pub use response::{AuthorizationResponse, VerifiedResponse};
pub use sign_in::{PendingSignIn, SignInRequest};
pub use store::{Login, LoginStore, LoginSummary, TokenStorage};
pub use store_error::LoginStoreError;
pub use stored::{LoginState, StoredLogin};
pub use target::LoginTarget;
pub use token::revoke;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::transport::ResponseLimits;

/// The client name in registrations of this program.
pub const CLIENT_NAME: &str = "llmobs-mcp";

/// The scopes that a sign-in requests by default.
pub const DEFAULT_SCOPES: [&str; 2] = ["llm_observability_read", "llm_observability_write"];

/// Limits of every response of a sign-in.
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
