//! Sign-in at Datadog in place of a token or keys: this server is an OAuth client of Datadog, between the
//! consent page and the code for its own client.
//!
//! - `registration`: the client id of this server at Datadog.
//! - `start`: redirects the browser from the consent page to Datadog.
//! - `callback`: exchanges Datadog's code for tokens and stores a grant.
//! - `renewal`: renews tokens before they expire, one task per grant at a time.
//! - `revocation`: revokes a login when its grant ends.
//!
//! Two authorization flows meet here and share no values. `state`, PKCE and code towards Datadog belong to
//! this server; those of the client are stored with the consent page. Consent comes first: only the form of
//! a consent page sends the browser to Datadog, and the response counts only from that browser, and once.
//! The data of an unfinished sign-in is in the store (`state` and cookie as hashes, the verifier sealed), so
//! that another process can handle the response.

mod callback;
mod registration;
mod renewal;
mod revocation;
mod start;

pub(super) use callback::callback;
pub(super) use renewal::GrantLogin;
pub(super) use start::redirect_to_datadog;
