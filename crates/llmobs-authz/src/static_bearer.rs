//! Mode `static-bearer`: callers send a shared secret and call with the server's credential.
//!
//! Refusals carry no link to metadata: this mode has no sign-in, and clients that find a link offer one.
//! Requests with the secret and Datadog keys are refused, because it is ambiguous which credential to
//! use.
//!
//! Failed attempts are limited per address of the connection. The right secret always passes, however
//! many failures came from its address: behind a proxy all callers share one address, and an attacker
//! must not be able to lock them out. The length of the secret protects against guessing; the limit
//! bounds the work that guessing causes.

use std::net::SocketAddr;
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

use super::gate::{CallerCredential, Gate};
use super::headers::BearerHeaders;
use super::peer::PeerAddress;
use super::public_url::PublicUrl;
use super::refusal::refusal;

/// The minimum length of a secret in characters: 32 hexadecimal digits hold 128 bits.
pub const MIN_SECRET_CHARS: usize = 32;

/// Failed attempts that one address may make at once, and per minute after that.
const MAX_FAILURES_PER_MINUTE: NonZeroU32 = match NonZeroU32::new(20) {
    Some(limit) => limit,
    None => NonZeroU32::MIN,
};

/// The number of failures after which the limiter drops addresses without recent failures.
const SWEEP_EVERY: u32 = 1_000;

/// The challenge for a request without a bearer. No `resource_metadata`: see the module documentation.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Bearer realm="llmobs-mcp""#);
/// The challenge for a request with a wrong bearer.
const CHALLENGE_WRONG: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="llmobs-mcp", error="invalid_token""#);

/// Why a secret is refused. Never contains the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerSecretError {
    /// It has fewer than [`MIN_SECRET_CHARS`] characters and could be guessed.
    #[error(
        "the bearer secret has {0} characters and needs at least {MIN_SECRET_CHARS}, so that it cannot be guessed; generate one with `openssl rand -hex 32`"
    )]
    TooShort(usize),
    /// An HTTP header cannot carry it.
    #[error(
        "the bearer secret contains a space, a control character or a non-ASCII character, which an HTTP \
         header cannot carry; generate one with `openssl rand -hex 32`"
    )]
    BadCharacters,
}

/// Admits requests with a shared secret. Holds only the hash of the secret.
pub struct StaticBearerGate {
    digest: [u8; 32],
    public_url: Option<PublicUrl>,
    failures: FailureLimiter,
}

impl StaticBearerGate {
    /// A gate for callers that send `secret` and reach the server at `public_url`, or on loopback only.
    ///
    /// # Errors
    /// The secret is too short, or an HTTP header cannot carry it.
    pub fn new(
        secret: &SecretString,
        public_url: Option<PublicUrl>,
    ) -> Result<Self, BearerSecretError> {
        let text = secret.expose_secret();
        let chars = text.chars().count();
        if chars < MIN_SECRET_CHARS {
            return Err(BearerSecretError::TooShort(chars));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BearerSecretError::BadCharacters);
        }
        Ok(Self {
            digest: digest(secret),
            public_url,
            failures: FailureLimiter::new(),
        })
    }

    fn decide(
        &self,
        peer: Option<SocketAddr>,
        sent: &BearerHeaders,
    ) -> Result<CallerCredential, Box<Response>> {
        let is_right = sent
            .bearer
            .as_ref()
            .is_some_and(|bearer| digest(bearer).ct_eq(&self.digest).into());
        if !is_right {
            let was_sent = sent.bearer.is_some();
            return Err(Box::new(match self.failures.count(peer) {
                Ok(()) => unauthorized(was_sent),
                Err(seconds) => too_many_requests(seconds),
            }));
        }
        if sent.datadog_keys {
            return Err(Box::new(refusal(
                StatusCode::BAD_REQUEST,
                "the request has the bearer of this server and Datadog keys; only one of them is allowed",
                "remove the headers DD_API_KEY and DD_APPLICATION_KEY: this server uses its own Datadog credentials",
            )));
        }
        Ok(CallerCredential::Server)
    }
}

impl Gate for StaticBearerGate {
    fn admit<'a>(
        &'a self,
        _path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>> {
        let sent = BearerHeaders::remove_from(headers);
        std::future::ready(self.decide(peer, &sent)).boxed()
    }

    fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }
}

/// The hash of a secret. The time to compare two hashes reveals neither the length nor a prefix of the
/// secret.
fn digest(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret().as_bytes()).into()
}

fn unauthorized(was_sent: bool) -> Response {
    let (error, challenge) = if was_sent {
        (
            "the bearer is not the secret of this server",
            CHALLENGE_WRONG,
        )
    } else {
        ("this server requires a bearer secret", CHALLENGE)
    };
    let mut response = refusal(
        StatusCode::UNAUTHORIZED,
        error,
        "send the header 'Authorization: Bearer SECRET'; the operator of this server has the secret, and \
         there is no sign-in",
    );
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn too_many_requests(seconds: u64) -> Response {
    let mut response = refusal(
        StatusCode::TOO_MANY_REQUESTS,
        "too many requests with a wrong bearer came from this address",
        &format!("wait {seconds} s, then send the right bearer"),
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds.into());
    response
}

/// Limits failed attempts per address.
struct FailureLimiter {
    by_address: DefaultKeyedRateLimiter<PeerAddress>,
    counted: AtomicU32,
}

impl FailureLimiter {
    fn new() -> Self {
        Self {
            by_address: RateLimiter::keyed(Quota::per_minute(MAX_FAILURES_PER_MINUTE)),
            counted: AtomicU32::new(0),
        }
    }

    /// Counts a failed attempt. The error is the number of seconds to wait.
    fn count(&self, peer: Option<SocketAddr>) -> Result<(), u64> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.by_address.retain_recent();
            self.by_address.shrink_to_fit();
        }
        let address = PeerAddress::from_socket(peer);
        self.by_address.check_key(&address).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use rstest::rstest;

    const SECRET: &str = "the-secret-of-these-tests-is-long-enough";

    fn gate() -> StaticBearerGate {
        StaticBearerGate::new(&SECRET.into(), None).expect("a valid secret")
    }

    async fn admit(
        gate: &StaticBearerGate,
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
        assert!(headers.is_empty(), "a credential is left: {headers:?}");
        admitted.map(|credential| assert!(matches!(credential, CallerCredential::Server)))
    }

    const PEER: &str = "192.0.2.1:5000";

    #[rstest]
    #[case::right("Bearer the-secret-of-these-tests-is-long-enough", None)]
    #[case::scheme_in_lower_case("bearer the-secret-of-these-tests-is-long-enough", None)]
    #[case::one_letter_off("Bearer the-secret-of-these-tests-is-long-enougH", Some(401))]
    #[case::prefix("Bearer the-secret-of-these-tests", Some(401))]
    #[case::longer("Bearer the-secret-of-these-tests-is-long-enough-", Some(401))]
    #[case::no_scheme("the-secret-of-these-tests-is-long-enough", Some(401))]
    #[case::basic("Basic the-secret-of-these-tests-is-long-enough", Some(401))]
    #[case::empty("Bearer ", Some(401))]
    #[tokio::test]
    async fn admits_exact_secret_only(#[case] value: &str, #[case] refused: Option<u16>) {
        let answer = admit(&gate(), PEER, &[("authorization", value)]).await;
        assert_eq!(answer.err().map(|r| r.status().as_u16()), refused);
    }

    #[tokio::test]
    async fn challenge_offers_no_sign_in() {
        for (sent, challenge) in [
            (&[][..], r#"Bearer realm="llmobs-mcp""#),
            (
                &[("authorization", "Bearer x")][..],
                r#"Bearer realm="llmobs-mcp", error="invalid_token""#,
            ),
        ] {
            let refused = admit(&gate(), PEER, sent).await.expect_err("refused");
            assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], challenge);
        }
    }

    #[tokio::test]
    async fn refuses_datadog_keys_beside_the_secret() {
        let bearer = format!("Bearer {SECRET}");
        let keys = ("DD_API_KEY", "key-a");
        let both = admit(&gate(), PEER, &[("authorization", &bearer), keys]).await;
        assert_eq!(both.expect_err("refused").status(), StatusCode::BAD_REQUEST);
        let wrong = admit(&gate(), PEER, &[("authorization", "Bearer x"), keys]).await;
        assert_eq!(
            wrong.expect_err("refused").status(),
            StatusCode::UNAUTHORIZED
        );
        let empty = [("authorization", bearer.as_str()), ("DD_API_KEY", "")];
        assert!(admit(&gate(), PEER, &empty).await.is_ok());
    }

    #[tokio::test]
    async fn limits_failures_without_locking_out_the_secret() {
        let gate = gate();
        let wrong = [("authorization", "Bearer x")];
        let mut tried = 0;
        let refused = loop {
            let refused = admit(&gate, PEER, &wrong).await.expect_err("refused");
            if refused.status() == StatusCode::TOO_MANY_REQUESTS {
                break refused;
            }
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            tried += 1;
            assert!(tried < 100 * MAX_FAILURES_PER_MINUTE.get(), "no limit");
        };
        assert!(tried >= MAX_FAILURES_PER_MINUTE.get(), "{tried}");
        let wait = &refused.headers()[header::RETRY_AFTER];
        let wait: u64 = wait.to_str().expect("text").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        let other = admit(&gate, "192.0.2.2:5000", &wrong).await;
        assert_eq!(
            other.expect_err("refused").status(),
            StatusCode::UNAUTHORIZED
        );
        let bearer = format!("Bearer {SECRET}");
        assert!(
            admit(&gate, PEER, &[("authorization", &bearer)])
                .await
                .is_ok()
        );
    }

    #[rstest]
    #[case("short", BearerSecretError::TooShort(5))]
    #[case(
        "a secret with spaces is no header value",
        BearerSecretError::BadCharacters
    )]
    #[case(
        "ein-geheimnis-mit-überraschenden-umlauten",
        BearerSecretError::BadCharacters
    )]
    fn refuses_weak_secret_without_repeating_it(
        #[case] secret: &str,
        #[case] expected: BearerSecretError,
    ) {
        let error = StaticBearerGate::new(&secret.into(), None)
            .err()
            .expect("refused");
        assert_eq!(error, expected);
        assert!(!error.to_string().contains(secret));
    }
}
