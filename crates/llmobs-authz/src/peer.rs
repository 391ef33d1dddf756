//! The network address of a caller, as rate limits count it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address at the other end of a connection. IPv6 addresses count by their /64 network, because
/// one host has many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PeerAddress(IpAddr);

impl PeerAddress {
    /// The peer of a request that carries `ConnectInfo`.
    #[cfg(feature = "oauth")]
    pub(crate) fn from_extensions(extensions: &http::Extensions) -> Self {
        let info = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        Self::from_socket(info.map(|info| info.0))
    }

    /// The peer at a socket address. All requests without a connection share one address.
    pub(crate) fn from_socket(address: Option<SocketAddr>) -> Self {
        match address.map(|address| address.ip().to_canonical()) {
            Some(IpAddr::V6(ip)) => {
                let network = u128::from(ip) & !u128::from(u64::MAX);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            Some(ip) => Self(ip),
            None => Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> PeerAddress {
        PeerAddress::from_socket(Some(SocketAddr::new(ip.parse().expect("an address"), 1)))
    }

    #[test]
    fn counts_ipv6_by_network_and_mapped_addresses_as_ipv4() {
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(
            PeerAddress::from_socket(None),
            PeerAddress::from_socket(None)
        );
    }
}
