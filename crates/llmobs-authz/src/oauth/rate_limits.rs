//! Rate limits, per peer and in total.
//!
//! The limits are in memory and per process. They bound work and guessing, and losing them at a restart
//! is harmless. The peer is the address of the connection, never of a forwarding header, which any sender
//! can set. Behind a proxy all callers share one address, so the limits are generous for an organisation
//! and small for an attacker.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::peer::PeerAddress;

use super::clock::Clock;

/// An action that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Registering a client.
    Register,
    /// Opening a consent page, or submitting one.
    Authorize,
    /// Entering a Datadog credential, which the server verifies.
    VerifyCredential,
    /// Requesting tokens, or revoking one.
    RequestToken,
    /// Calling with an invalid bearer token.
    PresentInvalidToken,
    /// Using a client id whose metadata document must be fetched.
    FetchDocument,
}

impl Action {
    const ALL: [Self; 6] = [
        Self::Register,
        Self::Authorize,
        Self::VerifyCredential,
        Self::RequestToken,
        Self::PresentInvalidToken,
        Self::FetchDocument,
    ];

    /// The limits per minute: of one peer, and of all peers together.
    fn max_per_minute(self) -> (u32, u32) {
        match self {
            Self::Register => (20, 120),
            Self::Authorize => (120, 1_200),
            Self::VerifyCredential => (20, 60),
            Self::RequestToken => (120, 1_200),
            Self::PresentInvalidToken => (60, 600),
            Self::FetchDocument => (20, 60),
        }
    }
}

/// The number of checks after which a limiter drops peers without recent actions.
const SWEEP_EVERY: u32 = 1_000;

type PeerLimiter = RateLimiter<
    PeerAddress,
    DashMapStateStore<PeerAddress>,
    GovernorTime,
    NoOpMiddleware<Duration>,
>;
type TotalLimiter = RateLimiter<NotKeyed, InMemoryState, GovernorTime, NoOpMiddleware<Duration>>;

/// The limits of one action.
struct ActionLimits {
    action: Action,
    per_peer: PeerLimiter,
    total: TotalLimiter,
    checks: AtomicU32,
}

/// The limits of all actions.
pub(super) struct RateLimits {
    actions: Vec<ActionLimits>,
    time: GovernorTime,
}

impl RateLimits {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let time = GovernorTime(clock);
        let quota = |per_minute: u32| {
            Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN))
        };
        let actions = Action::ALL.map(|action| {
            let (per_peer, total) = action.max_per_minute();
            ActionLimits {
                action,
                per_peer: RateLimiter::dashmap_with_clock(quota(per_peer), time.clone()),
                total: RateLimiter::direct_with_clock(quota(total), time.clone()),
                checks: AtomicU32::new(0),
            }
        });
        Self {
            actions: actions.into(),
            time,
        }
    }

    /// Counts an action. The error is the number of seconds to wait.
    pub(super) fn check(&self, action: Action, peer: PeerAddress) -> Result<(), u64> {
        let Some(limits) = self.actions.iter().find(|limits| limits.action == action) else {
            return Ok(());
        };
        if limits.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            limits.per_peer.retain_recent();
        }
        let now = self.time.now();
        let wait = |not_until: governor::NotUntil<Duration>| {
            not_until.wait_time_from(now).as_secs().saturating_add(1)
        };
        // The peer first: one peer must not use up the limit that all share.
        limits.per_peer.check_key(&peer).map_err(wait)?;
        limits.total.check().map_err(wait)
    }
}

/// The server's clock for the limiters.
#[derive(Clone)]
struct GovernorTime(Arc<dyn Clock>);

impl GovernorClock for GovernorTime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        // Offset, because the limiter computes instants before now.
        self.0.uptime().saturating_add(Duration::from_secs(3_600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::clock::testing::ManualClock;
    use std::net::SocketAddr;

    fn peer(ip: &str) -> PeerAddress {
        PeerAddress::from_socket(Some(SocketAddr::new(ip.parse().unwrap(), 1)))
    }

    #[test]
    fn limits_one_peer_and_recovers() {
        let clock = Arc::new(ManualClock::default());
        let limits = RateLimits::new(clock.clone());
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        for _ in 0..20 {
            limits.check(Action::VerifyCredential, one).unwrap();
        }
        let wait = limits.check(Action::VerifyCredential, one).unwrap_err();
        assert!((1..=4).contains(&wait), "{wait}");
        limits.check(Action::VerifyCredential, other).unwrap();
        limits.check(Action::RequestToken, one).unwrap();
        clock.advance(Duration::from_secs(wait));
        limits.check(Action::VerifyCredential, one).unwrap();
        assert!(limits.check(Action::VerifyCredential, one).is_err());
    }

    #[test]
    fn limits_all_peers_together() {
        let limits = RateLimits::new(Arc::new(ManualClock::default()));
        let tries =
            (0..=60).map(|n| limits.check(Action::VerifyCredential, peer(&format!("192.0.2.{n}"))));
        assert_eq!(tries.filter(Result::is_ok).count(), 60);
    }
}
