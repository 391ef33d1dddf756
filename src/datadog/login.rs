//! Signing in at Datadog: OAuth for a program on somebody's machine.
//!
//! The program registers itself as a public client, opens the browser on Datadog's consent page,
//! takes the answer on a loopback port, exchanges the code, and keeps the tokens. Steps in files:
//!
//! - `place`: which hosts take part, and which hosts an answer may name.
//! - `register`: dynamic client registration.
//! - [`Attempt`]: one sign-in, from the address for the browser to the tokens.
//! - `callback`: the loopback listener.
//! - `token`: code exchange, refresh and revocation.
//! - [`LoginStore`]: where tokens are kept, named by profile.
//! - [`StoredLogin`]: a kept login that renews itself, in one process and between processes.
//!
//! What comes from the browser is hostile until its `state` is right, and stays unproven after:
//! an answer can only name hosts that `place` knows, or it would send the code to a stranger.

mod attempt;
mod callback;
mod error;
mod place;
mod register;
mod store;
mod stored;
mod token;

#[cfg(test)]
mod tests;

pub use attempt::{Attempt, LoginRequest, Outcome};
pub use callback::{Listener, PORTS};
pub use error::LoginError;
pub use place::Place;
pub use store::{Kept, LoginStore, Profile, Safe, StoreError};
pub use stored::{LoginState, StoredLogin};
pub use token::revoke;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::transport::Limits;

/// The name that this program registers under.
pub const CLIENT_NAME: &str = "llmobs-mcp";

/// What is asked for when nobody says otherwise.
pub const SCOPES: [&str; 2] = ["llm_observability_read", "llm_observability_write"];

/// Bounds of every request of a sign-in: its answers are small.
const LIMITS: Limits = Limits {
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
