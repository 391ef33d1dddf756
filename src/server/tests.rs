//! Tests of the server over HTTP on a free port and over an in-memory pair of streams, in both protocol
//! eras. The upstream is a transport that records its requests.

mod gates;
mod http;
mod log;
mod stdio;
mod support;
