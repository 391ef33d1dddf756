//! One request to an address that a stranger chose.
//!
//! Names are resolved by a resolver that gives public addresses only, and the connection goes to
//! what it gave: a name that resolves differently the second time gains nothing. Addresses written
//! in a URL never reach it, so an id must be a name. No proxy is used, because a proxy would resolve
//! the name again; no redirect is followed; the answer is small and quick or not used.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use thiserror::Error;
use url::Url;

use crate::oauth::address::is_public;

/// Bytes of a document.
const MOST_BYTES: usize = 5 * 1024;
/// Time for the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A document as it was served.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its bytes.
    pub body: Bytes,
    /// How long its host allows it to be kept; `None` if it does not say.
    pub max_age: Option<Duration>,
}

/// Why a document did not come. Holds nothing that the other side said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The name leads to no public address.
    #[error("its host has no public address")]
    NotPublic,
    /// There was no connection, or it broke.
    #[error("its host did not answer")]
    NoAnswer,
    /// Not in time.
    #[error("its host did not answer within 10 s")]
    TooSlow,
    /// Any status but 200; redirects are not followed.
    #[error("its host answered with status {0} instead of 200")]
    Status(u16),
    /// Not JSON by its content type.
    #[error("it is not served as JSON")]
    NotJson,
    /// More than 5 KiB.
    #[error("it is larger than 5 KiB")]
    TooLarge,
}

/// Fetches documents.
pub trait FetchDocument: Send + Sync {
    /// Fetches the document at an https URL with a host name.
    fn fetch<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Document, FetchError>>;
}

/// Gives the addresses of a name.
pub trait Resolver: Send + Sync {
    /// All addresses, whatever they are; whoever asks checks them.
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
    }
}

/// Fetches over the network.
pub struct HttpFetch {
    client: reqwest::Client,
}

impl HttpFetch {
    /// A fetcher that trusts the system's certificates and those in a PEM file.
    ///
    /// # Errors
    /// An unreadable file, or a system without trusted certificates.
    pub fn new(resolver: Arc<dyn Resolver>, ca_file: Option<&Path>) -> Result<Self, String> {
        Self::guarded(resolver, ca_file, is_public)
    }

    fn guarded(
        resolver: Arc<dyn Resolver>,
        ca_file: Option<&Path>,
        allowed: fn(std::net::IpAddr) -> bool,
    ) -> Result<Self, String> {
        let extra = match ca_file {
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| {
                    format!("the CA file {} cannot be read ({error})", path.display())
                })?;
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| {
                    format!("the CA file {} holds no PEM certificate", path.display())
                })?
            }
            None => Vec::new(),
        };
        let client = datadog_llmobs::http_client()
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .tls_certs_merge(extra)
            .dns_resolver(Arc::new(Guard { resolver, allowed }))
            .user_agent(concat!("llmobs-mcp/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("TLS could not be set up ({error})"))?;
        Ok(Self { client })
    }

    async fn get(&self, url: &Url) -> Result<Document, FetchError> {
        let request = self
            .client
            .get(url.clone())
            .header(header::ACCEPT, "application/json");
        let mut answer = request.send().await.map_err(|error| classify(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        if !is_json(answer.headers()) {
            return Err(FetchError::NotJson);
        }
        let max_age = max_age(answer.headers());
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| classify(&error))? {
            if body.len().saturating_add(piece.len()) > MOST_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Document {
            body: body.freeze(),
            max_age,
        })
    }
}

impl FetchDocument for HttpFetch {
    fn fetch<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, Result<Document, FetchError>> {
        self.get(url).boxed()
    }
}

/// A resolver that gives allowed addresses or none at all.
struct Guard {
    resolver: Arc<dyn Resolver>,
    allowed: fn(std::net::IpAddr) -> bool,
}

/// A name with an address that is not allowed.
#[derive(Debug, Error)]
#[error("the name has an address that is not public")]
struct NotAllowed;

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.resolver.resolve(name.as_str().to_owned());
        let allowed = self.allowed;
        Box::pin(async move {
            let found = found.await?;
            // One private address among public ones is reason enough to distrust the name.
            if found.is_empty() || !found.iter().all(|address| allowed(address.ip())) {
                return Err(NotAllowed.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn classify(error: &reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotAllowed>() {
            return FetchError::NotPublic;
        }
        cause = error.source();
    }
    if error.is_timeout() {
        FetchError::TooSlow
    } else {
        FetchError::NoAnswer
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|kind| kind.trim().to_ascii_lowercase())
        .is_some_and(|kind| {
            kind == "application/json"
                || (kind.starts_with("application/") && kind.ends_with("+json"))
        })
}

/// `max-age` of `Cache-Control`; zero where keeping is forbidden.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::CACHE_CONTROL)?.to_str().ok()?;
    let mut age = None;
    for directive in text.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            age = value.parse().ok().map(Duration::from_secs);
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    /// Gives fixed addresses and counts how often it was asked.
    struct Fixed {
        addresses: Vec<SocketAddr>,
        asked: AtomicUsize,
    }

    impl Fixed {
        fn of(addresses: &[SocketAddr]) -> Arc<Self> {
            Arc::new(Self {
                addresses: addresses.to_vec(),
                asked: AtomicUsize::new(0),
            })
        }
    }

    impl Resolver for Fixed {
        fn resolve(&self, _name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(self.addresses.clone())).boxed()
        }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn url(port: u16) -> Url {
        Url::parse(&format!("https://client.example:{port}/oauth.json")).unwrap()
    }

    #[tokio::test]
    async fn a_name_with_a_private_address_is_not_connected_to() {
        let (listener, address) = listener().await;
        let public: SocketAddr = "93.184.215.14:0".parse().unwrap();
        let here = SocketAddr::new(address.ip(), 0);
        for addresses in [vec![here], vec![public, here], vec![]] {
            let fetch = HttpFetch::new(Fixed::of(&addresses), None).unwrap();
            let error = fetch.fetch(&url(address.port())).await.unwrap_err();
            assert_eq!(error, FetchError::NotPublic, "{addresses:?}");
        }
        let knock = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(knock.is_err(), "somebody connected");
    }

    #[tokio::test]
    async fn the_connection_goes_to_the_address_that_was_checked() {
        let (listener, address) = listener().await;
        let resolver = Fixed::of(&[SocketAddr::new(address.ip(), 0)]);
        let any: fn(IpAddr) -> bool = |_| true;
        let fetch = HttpFetch::guarded(resolver.clone(), None, any).unwrap();
        let target = url(address.port());
        let fetching = fetch.fetch(&target);
        let accepting = async {
            let (socket, _) = listener.accept().await.unwrap();
            // No TLS here: closing is answer enough.
            drop(socket);
        };
        let (fetched, ()) = tokio::join!(fetching, accepting);
        assert_eq!(fetched.unwrap_err(), FetchError::NoAnswer);
        assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn plain_http_is_never_asked() {
        let (listener, address) = listener().await;
        let any: fn(IpAddr) -> bool = |_| true;
        let fetch = HttpFetch::guarded(Fixed::of(&[address]), None, any).unwrap();
        let plain = Url::parse(&format!("http://client.example:{}/x", address.port())).unwrap();
        assert!(fetch.fetch(&plain).await.is_err());
        let knock = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(knock.is_err(), "somebody connected");
    }

    #[test]
    fn how_long_a_document_may_be_kept() {
        let age = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("cache-control", value.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=600"), Some(600));
        assert_eq!(age("Max-Age=600, no-store"), Some(0));
        assert_eq!(age("max-age=x"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[test]
    fn json_by_its_content_type() {
        let json = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", value.parse().unwrap());
            is_json(&headers)
        };
        assert!(json("application/json; charset=utf-8"));
        assert!(json("application/oauth-client+json"));
        assert!(!json("text/html"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
