//! Recognises names and addresses of this machine.

use std::net::IpAddr;

use http::uri::Authority;
use url::{Host, Url};

/// Whether the host of a URL is `localhost` or a loopback address.
pub(crate) fn is_loopback_url(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether `host[:port]` names this machine.
pub(crate) fn is_loopback_authority(text: &str) -> bool {
    parse_authority(text).is_some_and(|authority| is_loopback_host(authority.host()))
}

/// Parses `host[:port]`, and nothing else: a URL may have a user name before the host, and
/// [`Authority`] accepts text between the brackets of an IPv6 address and the port.
pub(crate) fn parse_authority(text: &str) -> Option<Authority> {
    let authority = text.parse::<Authority>().ok()?;
    let after_host = text.strip_prefix(authority.host())?;
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_valid = after_host.is_empty() || after_host.strip_prefix(':').is_some_and(is_port);
    is_valid.then_some(authority)
}

fn is_loopback_host(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("localhost", true)]
    #[case("LocalHost:8787", true)]
    #[case("127.0.0.1:8787", true)]
    #[case("127.8.0.1", true)]
    #[case("[::1]:8787", true)]
    #[case("[::1]", true)]
    #[case("evil.example", false)]
    #[case("localhost.evil.example", false)]
    #[case("127.0.0.1.evil.example:8126", false)]
    #[case("127.0.0.1@evil.example", false)]
    #[case("evil.example@127.0.0.1", false)]
    #[case("127.0.0.1:8126@evil.example", false)]
    #[case("[::1].evil.example", false)]
    #[case("192.168.0.2:8787", false)]
    #[case("0.0.0.0", false)]
    #[case("2130706433", false)]
    #[case("localhost:port", false)]
    #[case("", false)]
    fn recognises_loopback_authorities(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(is_loopback_authority(text), expected);
    }
}
