//! Mode `datadog-headers`: each request calls with what it brought, and never with the server's own.
//!
//! Missing or half credentials are no refusal here: the tool call answers with an error that names
//! what is missing. A 401 would make clients offer a sign-in that does not exist.

use std::net::SocketAddr;

use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::gate::{Admitted, Gate};
use super::headers::HeaderCredentials;
use super::public_url::PublicUrl;

/// The gate that passes on what a request brought.
#[derive(Debug, Clone, Default)]
pub struct DatadogHeaders {
    public_url: Option<PublicUrl>,
}

impl DatadogHeaders {
    /// A gate for callers who reach the server at this URL, or on loopback only.
    pub fn new(public_url: Option<PublicUrl>) -> Self {
        Self { public_url }
    }
}

impl Gate for DatadogHeaders {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        _peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<Admitted, Box<Response>>> {
        std::future::ready(Ok(Admitted::Sent(HeaderCredentials::take(headers)))).boxed()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }
}
