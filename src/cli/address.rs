//! Addresses to listen on: parsing and binding.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use tokio::net::TcpListener;

use super::error::CliError;

/// Parses a loopback address. The local backend does not authenticate callers, and it shows the content
/// of LLM calls.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = any(text)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(
            "other machines can reach this address, and the server does not authenticate callers; use a \
             loopback address such as 127.0.0.1:8787"
                .to_owned(),
        )
    }
}

/// Parses `127.0.0.1:8787`, `[::1]:8787`, `localhost:8787`, `:8787` or `8787` or a port alone, which means loopback.
pub(crate) fn any(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let local = |port: &str| {
        port.parse()
            .ok()
            .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    text.parse()
        .ok()
        .or_else(|| local(text))
        .or_else(|| local(text.strip_prefix(':')?))
        .or_else(|| local(text.strip_prefix("localhost:")?))
        .ok_or_else(|| "an address is IP:PORT, such as 127.0.0.1:8787, or just a port".to_owned())
}

/// Binds `named`, or else the first free port of `ports` on loopback, or else any free port.
pub(crate) async fn bind(
    named: Option<SocketAddr>,
    ports: Range<u16>,
) -> Result<TcpListener, CliError> {
    if let Some(address) = named {
        return TcpListener::bind(address).await.map_err(|error| {
            CliError::failed(
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    format!("{address} is already in use")
                } else {
                    format!("cannot listen on {address}: {error}")
                },
                "stop the other program, or name another port; port 0 selects a free one",
            )
        });
    }
    for port in ports.chain([0]) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(CliError::failed(
        "127.0.0.1 has no free port",
        "stop a program that listens on 127.0.0.1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:8787", Some("127.0.0.1:8787"))]
    #[case("[::1]:9", Some("[::1]:9"))]
    #[case("localhost:0", Some("127.0.0.1:0"))]
    #[case(":8126", Some("127.0.0.1:8126"))]
    #[case("8126", Some("127.0.0.1:8126"))]
    #[case("0.0.0.0:8787", None)]
    #[case("192.168.1.5:80", None)]
    #[case("[::]:80", None)]
    #[case("127.0.0.1", None)]
    #[case("99999", None)]
    #[case("http://127.0.0.1:8787", None)]
    #[case("", None)]
    fn parses_loopback_addresses(#[case] text: &str, #[case] expected: Option<&str>) {
        let parsed = loopback(text).ok().map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), expected);
    }

    #[rstest]
    #[case("0.0.0.0:8787", Some("0.0.0.0:8787"))]
    #[case("[::]:80", Some("[::]:80"))]
    #[case("8787", Some("127.0.0.1:8787"))]
    #[case("mcp.example.com:8787", None)]
    fn parses_any_address(#[case] text: &str, #[case] expected: Option<&str>) {
        let parsed = any(text).ok().map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), expected);
    }

    #[tokio::test]
    async fn skips_port_in_use_unless_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let other = bind(None, address.port()..address.port() + 1)
            .await
            .expect("another");
        assert_ne!(other.local_addr().expect("address"), address);
        let error = bind(Some(address), 0..0).await.expect_err("in use");
        assert_eq!(error.code(), 1);
    }
}
