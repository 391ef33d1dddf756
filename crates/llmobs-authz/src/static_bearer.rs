//! Mode `static-bearer`: a shared secret stands in front of the server's own credentials.
//!
//! Refusals carry no link to metadata: there is no sign-in, and clients that find a link offer one.
//! Datadog keys beside the secret are refused too, because nobody could tell whose data was meant.
//!
//! Failed attempts are limited per address of the connection. The right secret is never turned away,
//! however many failures came from its address: behind a proxy all callers share one, and a stranger
//! must not be able to lock them out. What guessing cannot beat is the length of the secret; the
//! limit keeps it from costing anything else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::gate::{Admitted, Gate};
use super::headers::Presented;
use super::public_url::PublicUrl;
use super::refusal::refusal;

/// The shortest secret, in characters: 32 hexadecimal ones hold 128 bits.
pub const MIN_SECRET_CHARS: usize = 32;

/// Failures at once from one address, and how many a minute after that.
const FAILURES: NonZeroU32 = match NonZeroU32::new(20) {
    Some(failures) => failures,
    None => NonZeroU32::MIN,
};

/// After so many failures, addresses that were not seen lately are forgotten.
const SWEEP_EVERY: u32 = 1_000;

/// The answer to a request with no good bearer. No `resource_metadata`: see above.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="llmobs-mcp""#);
const CHALLENGE_WRONG: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="llmobs-mcp", error="invalid_token""#);

/// Why a secret is refused. Never holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// It could be guessed.
    #[error(
        "the bearer secret has {0} characters and needs at least {MIN_SECRET_CHARS}, so that it cannot be guessed"
    )]
    TooShort(usize),
    /// No header can carry it.
    #[error(
        "the bearer secret holds a space, a control character or a letter beyond ASCII, which no header \
         carries"
    )]
    BadCharacters,
}

/// The gate that asks for a shared secret. Keeps its hash only.
pub struct StaticBearer {
    digest: [u8; 32],
    public_url: Option<PublicUrl>,
    failures: Failures,
}

impl StaticBearer {
    /// A gate for callers who know `secret` and reach the server at this URL, or on loopback only.
    ///
    /// # Errors
    /// A secret that could be guessed, or that no header can carry.
    pub fn new(secret: &SecretString, public_url: Option<PublicUrl>) -> Result<Self, WeakSecret> {
        let text = secret.expose_secret();
        let chars = text.chars().count();
        if chars < MIN_SECRET_CHARS {
            return Err(WeakSecret::TooShort(chars));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WeakSecret::BadCharacters);
        }
        Ok(Self {
            digest: digest(secret),
            public_url,
            failures: Failures::new(),
        })
    }

    fn decide(
        &self,
        peer: Option<SocketAddr>,
        presented: &Presented,
    ) -> Result<Admitted, Box<Response>> {
        let right = presented
            .bearer
            .as_ref()
            .is_some_and(|bearer| digest(bearer).ct_eq(&self.digest).into());
        if !right {
            let wrong = presented.bearer.is_some();
            return Err(Box::new(match self.failures.count(peer) {
                Ok(()) => unauthorized(wrong),
                Err(seconds) => too_many(seconds),
            }));
        }
        if presented.datadog_keys {
            return Err(Box::new(refusal(
                StatusCode::BAD_REQUEST,
                "the request holds this server's bearer and Datadog keys, and only one can be meant",
                "leave out DD_API_KEY and DD_APPLICATION_KEY: this server uses credentials of its own",
            )));
        }
        Ok(Admitted::Own)
    }
}

impl Gate for StaticBearer {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<Admitted, Box<Response>>> {
        let presented = Presented::take(headers);
        std::future::ready(self.decide(peer, &presented)).boxed()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }
}

/// Hashes of equal length: comparing them tells neither the length nor the beginning of a secret.
fn digest(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret().as_bytes()).into()
}

fn unauthorized(wrong: bool) -> Response {
    let (error, challenge) = if wrong {
        (
            "the bearer is not the secret of this server",
            CHALLENGE_WRONG,
        )
    } else {
        ("this server asks for a bearer secret", CHALLENGE)
    };
    let mut response = refusal(
        StatusCode::UNAUTHORIZED,
        error,
        "send the header 'Authorization: Bearer SECRET' with the secret that whoever runs this server \
         gave you; there is no sign-in",
    );
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn too_many(seconds: u64) -> Response {
    let mut response = refusal(
        StatusCode::TOO_MANY_REQUESTS,
        "too many requests without the right bearer came from this address",
        &format!("wait {seconds} s, then send the right one"),
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    response
}

/// Failed attempts by address.
struct Failures {
    by_address: DefaultKeyedRateLimiter<Option<IpAddr>>,
    counted: AtomicU32,
}

impl Failures {
    fn new() -> Self {
        Self {
            by_address: RateLimiter::keyed(Quota::per_minute(FAILURES)),
            counted: AtomicU32::new(0),
        }
    }

    /// Counts one; the error says how many seconds to wait.
    fn count(&self, peer: Option<SocketAddr>) -> Result<(), u64> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.by_address.retain_recent();
            self.by_address.shrink_to_fit();
        }
        let address = peer.map(|peer| network(peer.ip().to_canonical()));
        self.by_address.check_key(&address).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

/// An IPv6 address by its network, of which one host has many.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use rstest::rstest;

    const SECRET: &str = "the-secret-of-these-tests-is-long-enough";

    fn gate() -> StaticBearer {
        StaticBearer::new(&SECRET.into(), None).expect("a good secret")
    }

    async fn asked(
        gate: &StaticBearer,
        peer: &str,
        sent: &[(&str, &str)],
    ) -> Result<(), Box<Response>> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        let peer = Some(peer.parse().expect("an address"));
        let admitted = gate.admit("/mcp", peer, &mut headers).await;
        assert!(headers.is_empty(), "no credential is left: {headers:?}");
        admitted.map(|admitted| assert!(matches!(admitted, Admitted::Own)))
    }

    const PEER: &str = "192.0.2.1:5000";

    #[rstest]
    #[case::right("Bearer the-secret-of-these-tests-is-long-enough", None)]
    #[case::any_case_of_the_scheme("bearer the-secret-of-these-tests-is-long-enough", None)]
    #[case::one_letter_off("Bearer the-secret-of-these-tests-is-long-enougH", Some(401))]
    #[case::beginning("Bearer the-secret-of-these-tests", Some(401))]
    #[case::longer("Bearer the-secret-of-these-tests-is-long-enough-", Some(401))]
    #[case::no_scheme("the-secret-of-these-tests-is-long-enough", Some(401))]
    #[case::basic("Basic the-secret-of-these-tests-is-long-enough", Some(401))]
    #[case::empty("Bearer ", Some(401))]
    #[tokio::test]
    async fn only_the_whole_secret_passes(#[case] value: &str, #[case] refused: Option<u16>) {
        let answer = asked(&gate(), PEER, &[("authorization", value)]).await;
        assert_eq!(answer.err().map(|r| r.status().as_u16()), refused);
    }

    #[tokio::test]
    async fn a_refusal_challenges_without_offering_a_sign_in() {
        for (sent, challenge) in [
            (&[][..], r#"Bearer realm="llmobs-mcp""#),
            (
                &[("authorization", "Bearer x")][..],
                r#"Bearer realm="llmobs-mcp", error="invalid_token""#,
            ),
        ] {
            let refused = asked(&gate(), PEER, sent).await.expect_err("refused");
            assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], challenge);
        }
    }

    #[tokio::test]
    async fn datadog_keys_beside_the_secret_are_refused_and_beside_a_wrong_one_not_told() {
        let bearer = format!("Bearer {SECRET}");
        let keys = ("DD_API_KEY", "key-a");
        let both = asked(&gate(), PEER, &[("authorization", &bearer), keys]).await;
        assert_eq!(both.expect_err("refused").status(), StatusCode::BAD_REQUEST);
        let wrong = asked(&gate(), PEER, &[("authorization", "Bearer x"), keys]).await;
        assert_eq!(
            wrong.expect_err("refused").status(),
            StatusCode::UNAUTHORIZED
        );
        let empty = [("authorization", bearer.as_str()), ("DD_API_KEY", "")];
        assert!(asked(&gate(), PEER, &empty).await.is_ok());
    }

    #[tokio::test]
    async fn failures_of_one_address_are_limited_and_lock_out_nobody() {
        let gate = gate();
        let wrong = [("authorization", "Bearer x")];
        let mut tried = 0;
        let refused = loop {
            let refused = asked(&gate, PEER, &wrong).await.expect_err("refused");
            if refused.status() == StatusCode::TOO_MANY_REQUESTS {
                break refused;
            }
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            tried += 1;
            assert!(tried < 100 * FAILURES.get(), "no limit");
        };
        assert!(tried >= FAILURES.get(), "{tried}");
        let wait = &refused.headers()[header::RETRY_AFTER];
        let wait: u64 = wait.to_str().expect("text").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        let other = asked(&gate, "192.0.2.2:5000", &wrong).await;
        assert_eq!(
            other.expect_err("refused").status(),
            StatusCode::UNAUTHORIZED
        );
        let bearer = format!("Bearer {SECRET}");
        assert!(
            asked(&gate, PEER, &[("authorization", &bearer)])
                .await
                .is_ok()
        );
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[rstest]
    #[case("short", WeakSecret::TooShort(5))]
    #[case("a secret with spaces is no header value", WeakSecret::BadCharacters)]
    #[case("ein-geheimnis-mit-überraschenden-umlauten", WeakSecret::BadCharacters)]
    fn a_weak_secret_is_refused_and_not_repeated(
        #[case] secret: &str,
        #[case] expected: WeakSecret,
    ) {
        let error = StaticBearer::new(&secret.into(), None)
            .err()
            .expect("refused");
        assert_eq!(error, expected);
        assert!(!error.to_string().contains(secret));
    }
}
