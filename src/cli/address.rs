//! Addresses to listen on, as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads `127.0.0.1:8787`, `[::1]:8787`, `localhost:8787`, `:8787` or `8787`. Loopback only: neither
/// the MCP endpoint nor the local backend has a sign-in yet, and both show what users said to LLMs.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let local = |port: &str| {
        port.parse()
            .ok()
            .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    let address = text
        .parse()
        .ok()
        .or_else(|| local(text))
        .or_else(|| local(text.strip_prefix(':')?))
        .or_else(|| local(text.strip_prefix("localhost:")?));
    match address {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(_) => Err(
            "this address can be reached from other machines, and there is no sign-in for them yet; \
             use a loopback address such as 127.0.0.1:8787"
                .to_owned(),
        ),
        None => Err("an address is IP:PORT, such as 127.0.0.1:8787, or just a port".to_owned()),
    }
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
    fn addresses(#[case] text: &str, #[case] expected: Option<&str>) {
        let found = loopback(text).ok().map(|address| address.to_string());
        assert_eq!(found.as_deref(), expected);
    }
}
