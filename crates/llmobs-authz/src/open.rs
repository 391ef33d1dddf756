//! Mode `none`: every program that can reach the address may call.
//!
//! The gate has no public URL, so the server listens on loopback only. Credentials in a request
//! replace those of the server for that request. They replace all of them: an API key from a request is
//! never combined with an application key of the server.

use std::net::SocketAddr;

use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::gate::{CallerCredential, Gate};
use super::headers::HeaderCredentials;

/// Admits every request, with the credential of the request or else that of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        _peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>> {
        let credential = match HeaderCredentials::remove_from(headers) {
            HeaderCredentials::Absent => CallerCredential::Server,
            sent => CallerCredential::Request(sent),
        };
        std::future::ready(Ok(credential)).boxed()
    }
}
