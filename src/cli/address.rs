//! Parses addresses to listen on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
}
