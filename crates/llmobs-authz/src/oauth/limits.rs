//! Rate limits: per caller's address, and over all.
//!
//! They are in memory and per process, on purpose: they bound work and guessing, and forgetting them
//! at a restart costs nothing. An address is that of the connection, never of a forwarding header,
//! which anyone can write; behind a proxy all callers share one, so the numbers are generous for an
//! organisation and small for a guesser.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::ConnectInfo;
use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::Extensions;

use super::clock::Clock;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Registering a client.
    Register,
    /// Opening a consent page, or answering one.
    Authorize,
    /// Trying a Datadog credential.
    Key,
    /// Asking for tokens, or revoking one.
    Token,
    /// Showing a bearer that is not good.
    BadBearer,
    /// Having a metadata document fetched.
    Document,
}

impl Act {
    const ALL: [Self; 6] = [
        Self::Register,
        Self::Authorize,
        Self::Key,
        Self::Token,
        Self::BadBearer,
        Self::Document,
    ];

    /// How often in a minute: from one address, and over all.
    fn per_minute(self) -> (u32, u32) {
        match self {
            Self::Register => (20, 120),
            Self::Authorize => (120, 1_200),
            Self::Key => (20, 60),
            Self::Token => (120, 1_200),
            Self::BadBearer => (60, 600),
            Self::Document => (20, 60),
        }
    }
}

/// After so many checks, addresses that were not seen lately are forgotten.
const SWEEP_EVERY: u32 = 1_000;

/// Who acts: the address of the connection, an IPv6 one by its network, of which one host has many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    /// The peer of a request.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let info = extensions.get::<ConnectInfo<SocketAddr>>();
        Self::at(info.map(|ConnectInfo(address)| *address))
    }

    /// The peer at an address; requests that came through no connection share one.
    pub(super) fn at(address: Option<SocketAddr>) -> Self {
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

type Each = RateLimiter<Peer, DashMapStateStore<Peer>, Ticker, NoOpMiddleware<Duration>>;
type All = RateLimiter<NotKeyed, InMemoryState, Ticker, NoOpMiddleware<Duration>>;

/// The limits of one act.
struct Gauge {
    act: Act,
    each: Each,
    all: All,
    checks: AtomicU32,
}

/// All limits.
pub(super) struct Limits {
    gauges: Vec<Gauge>,
    ticker: Ticker,
}

impl Limits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let ticker = Ticker(clock);
        let quota = |per_minute: u32| {
            Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN))
        };
        let gauges = Act::ALL.map(|act| {
            let (each, all) = act.per_minute();
            Gauge {
                act,
                each: RateLimiter::dashmap_with_clock(quota(each), ticker.clone()),
                all: RateLimiter::direct_with_clock(quota(all), ticker.clone()),
                checks: AtomicU32::new(0),
            }
        });
        Self {
            gauges: gauges.into(),
            ticker,
        }
    }

    /// Counts an act. The error says how many seconds to wait.
    pub(super) fn count(&self, act: Act, peer: Peer) -> Result<(), u64> {
        let Some(gauge) = self.gauges.iter().find(|gauge| gauge.act == act) else {
            return Ok(());
        };
        if gauge.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            gauge.each.retain_recent();
        }
        // The address first: one noisy caller should not use up what all share.
        let now = self.ticker.now();
        let wait = |not_until: governor::NotUntil<Duration>| {
            not_until.wait_time_from(now).as_secs().saturating_add(1)
        };
        gauge.each.check_key(&peer).map_err(wait)?;
        gauge.all.check().map_err(wait)
    }
}

/// Our clock in the limiter's terms.
#[derive(Clone)]
struct Ticker(Arc<dyn Clock>);

impl GovernorClock for Ticker {
    type Instant = Duration;

    fn now(&self) -> Duration {
        // Never zero: the limiter reaches back from now.
        self.0.uptime().saturating_add(Duration::from_secs(3_600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::clock::testing::ManualClock;

    fn peer(ip: &str) -> Peer {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(ip.parse().unwrap(), 1)));
        Peer::of(&extensions)
    }

    #[test]
    fn an_address_is_limited_and_let_in_again() {
        let clock = Arc::new(ManualClock::default());
        let limits = Limits::new(clock.clone());
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        for _ in 0..20 {
            limits.count(Act::Key, one).unwrap();
        }
        let wait = limits.count(Act::Key, one).unwrap_err();
        assert!((1..=4).contains(&wait), "{wait}");
        limits.count(Act::Key, other).unwrap();
        limits.count(Act::Token, one).unwrap();
        clock.pass(Duration::from_secs(wait));
        limits.count(Act::Key, one).unwrap();
        assert!(limits.count(Act::Key, one).is_err());
    }

    #[test]
    fn many_addresses_together_are_limited_too() {
        let limits = Limits::new(Arc::new(ManualClock::default()));
        let tries = (0..=60).map(|n| limits.count(Act::Key, peer(&format!("192.0.2.{n}"))));
        assert_eq!(tries.filter(Result::is_ok).count(), 60);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_ipv4() {
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(Peer::of(&Extensions::new()), Peer::of(&Extensions::new()));
    }
}
