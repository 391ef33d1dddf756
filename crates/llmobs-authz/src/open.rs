//! Mode `none`: whoever reaches the address may call.
//!
//! It has no public address, so the server listens on loopback only. A request may still bring
//! credentials of its own; they then replace the server's for that request, all of them: half a pair
//! is never completed with a half of the server's.

use std::net::SocketAddr;

use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::gate::{Admitted, Gate};
use super::headers::HeaderCredentials;

/// The gate that lets everybody in, with the server's own credentials unless the request has some.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl Gate for Open {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        _peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<Admitted, Box<Response>>> {
        let admitted = match HeaderCredentials::take(headers) {
            HeaderCredentials::Absent => Admitted::Own,
            sent => Admitted::Sent(sent),
        };
        std::future::ready(Ok(admitted)).boxed()
    }
}
