//! The server as clients meet it: over real HTTP on a free port and over an in-memory pair of
//! streams, in both eras of the protocol. The upstream is a transport that records what it was sent.

mod gates;
mod http;
mod stdio;
mod support;
