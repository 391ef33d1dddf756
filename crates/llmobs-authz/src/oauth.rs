//! An OAuth 2.1 authorization server for MCP clients, as the MCP specification requires.
//!
//! A client registers (`register`) or publishes a metadata document (`documents`). It sends the user's
//! browser to `authorize`, which shows the consent page (`page`). There the user enters a Datadog
//! credential (`decision`), which the server verifies and stores sealed (`seal`), or signs in at Datadog
//! (`broker`). The client exchanges its code for opaque tokens (`token`), each valid for one MCP path
//! (`gate`). The server accepts no Datadog token as a bearer and gives none to a client.
//!
//! All state is in the `store`. Only rate limits and fetched metadata documents are in memory; a restart
//! may lose them.

mod audience;
mod authorize;
mod broker;
mod browser;
mod client_metadata;
mod clock;
mod consent;
mod datadog_sign_in;
mod decision;
mod documents;
mod gate;
mod page;
pub mod primitives;
mod public_ip;
mod rate_limits;
mod redirect_uri;
mod redirection;
mod register;
mod scope;
mod seal;
mod server_metadata;
mod state;
mod store;
mod token;
mod wire;

pub use clock::{Clock, SystemClock};
pub use datadog_sign_in::DatadogSignIn;
pub use documents::{
    DocumentFetchError, DocumentFetcher, HttpDocumentFetcher, MetadataDocument, Resolver,
    SystemResolver,
};
pub use gate::{AuthorizationServer, AuthorizationServerOptions};
pub use seal::{SecretKey, SecretKeyError};
pub use store::SignInStoreError;
