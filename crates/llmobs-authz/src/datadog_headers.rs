//! Mode `datadog-headers`: each request brings its own Datadog credential, and the server's credential
//! is never used.
//!
//! The gate also admits requests with missing or incomplete credentials: the tool call then returns an
//! error that names what is missing. A 401 would make clients offer a sign-in that does not exist.

use std::net::SocketAddr;

use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::gate::{CallerCredential, Gate};
use super::headers::HeaderCredentials;
use super::public_url::PublicUrl;

/// Admits every request, with the credential in its headers only.
#[derive(Debug, Clone, Default)]
pub struct DatadogHeadersGate {
    public_url: Option<PublicUrl>,
}

impl DatadogHeadersGate {
    /// A gate for callers that reach the server at `public_url`, or on loopback only.
    pub fn new(public_url: Option<PublicUrl>) -> Self {
        Self { public_url }
    }
}

impl Gate for DatadogHeadersGate {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        _peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>> {
        let sent = HeaderCredentials::remove_from(headers);
        std::future::ready(Ok(CallerCredential::Request(sent))).boxed()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }
}
