//! Requests to URLs that untrusted clients choose.
//!
//! The resolver returns public addresses only, and the connection goes to the address that it checked: a
//! name that resolves differently the second time has no effect (DNS rebinding). IP addresses in URLs do
//! not pass through a resolver, so an id must have a host name. The client uses no proxy, because a proxy
//! would resolve the name again, and follows no redirects. Responses are bounded in size and time.

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

use crate::oauth::public_ip::is_public_ip;

/// The maximum size of a document in bytes.
const MAX_DOCUMENT_BYTES: usize = 5 * 1024;
/// The time limit for a request, with its response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A fetched document.
#[derive(Debug, Clone)]
pub struct MetadataDocument {
    /// The body of the response.
    pub body: Bytes,
    /// How long the host allows caches to keep the document; `None` if the response does not specify it.
    pub max_age: Option<Duration>,
}

/// Why a document could not be fetched. Contains no text of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DocumentFetchError {
    /// The host name resolves to a non-public address, or to none.
    #[error("its host has no public address")]
    NotPublic,
    /// The connection failed.
    #[error("its host did not respond")]
    NoResponse,
    /// The request took too long.
    #[error("its host did not respond within 10 s")]
    TimedOut,
    /// The status was not 200. Redirects are not followed.
    #[error("its host responded with status {0} instead of 200")]
    Status(u16),
    /// The content type is not JSON.
    #[error("its content type is not JSON")]
    NotJson,
    /// The document is larger than 5 KiB.
    #[error("it is larger than 5 KiB")]
    TooLarge,
}

/// Fetches documents.
pub trait DocumentFetcher: Send + Sync {
    /// Fetches the document at an https URL with a host name.
    fn fetch<'a>(
        &'a self,
        url: &'a Url,
    ) -> BoxFuture<'a, Result<MetadataDocument, DocumentFetchError>>;
}

/// Resolves host names.
pub trait Resolver: Send + Sync {
    /// All addresses of a name. The caller checks whether they are public.
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
    }
}

/// Fetches documents over HTTPS.
pub struct HttpDocumentFetcher {
    client: reqwest::Client,
}

impl HttpDocumentFetcher {
    /// A fetcher that trusts the certificates of the system and those in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read or has no certificates, or the system has no trusted certificates.
    pub fn new(resolver: Arc<dyn Resolver>, ca_file: Option<&Path>) -> Result<Self, String> {
        Self::with_allowed_addresses(resolver, ca_file, is_public_ip)
    }

    fn with_allowed_addresses(
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
                    format!("the CA file {} contains no PEM certificate", path.display())
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
            .dns_resolver(Arc::new(CheckedResolver { resolver, allowed }))
            .user_agent(concat!("llmobs-mcp/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("TLS could not be set up ({error})"))?;
        Ok(Self { client })
    }

    async fn get(&self, url: &Url) -> Result<MetadataDocument, DocumentFetchError> {
        let request = self
            .client
            .get(url.clone())
            .header(header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        if response.status() != StatusCode::OK {
            return Err(DocumentFetchError::Status(response.status().as_u16()));
        }
        if !is_json(response.headers()) {
            return Err(DocumentFetchError::NotJson);
        }
        let max_age = max_age(response.headers());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len().saturating_add(chunk.len()) > MAX_DOCUMENT_BYTES {
                return Err(DocumentFetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(MetadataDocument {
            body: body.freeze(),
            max_age,
        })
    }
}

impl DocumentFetcher for HttpDocumentFetcher {
    fn fetch<'a>(
        &'a self,
        url: &'a Url,
    ) -> BoxFuture<'a, Result<MetadataDocument, DocumentFetchError>> {
        self.get(url).boxed()
    }
}

/// Refuses names with an address that is not allowed.
struct CheckedResolver {
    resolver: Arc<dyn Resolver>,
    allowed: fn(std::net::IpAddr) -> bool,
}

/// The error for a name with an address that is not allowed.
#[derive(Debug, Error)]
#[error("the name has an address that is not public")]
struct AddressNotAllowed;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolving = self.resolver.resolve(name.as_str().to_owned());
        let allowed = self.allowed;
        Box::pin(async move {
            let addresses = resolving.await?;
            // A name with public and private addresses is refused too.
            if addresses.is_empty() || !addresses.iter().all(|address| allowed(address.ip())) {
                return Err(AddressNotAllowed.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn classify(error: &reqwest::Error) -> DocumentFetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<AddressNotAllowed>() {
            return DocumentFetchError::NotPublic;
        }
        cause = error.source();
    }
    if error.is_timeout() {
        DocumentFetchError::TimedOut
    } else {
        DocumentFetchError::NoResponse
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

/// The `max-age` of `Cache-Control`; zero if the response forbids caching.
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

    /// Returns fixed addresses and counts the calls.
    struct FixedResolver {
        addresses: Vec<SocketAddr>,
        calls: AtomicUsize,
    }

    impl FixedResolver {
        fn new(addresses: &[SocketAddr]) -> Arc<Self> {
            Arc::new(Self {
                addresses: addresses.to_vec(),
                calls: AtomicUsize::new(0),
            })
        }
    }

    impl Resolver for FixedResolver {
        fn resolve(&self, _name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
            self.calls.fetch_add(1, Ordering::SeqCst);
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
    async fn does_not_connect_to_private_addresses() {
        let (listener, address) = listener().await;
        let public: SocketAddr = "93.184.215.14:0".parse().unwrap();
        let loopback = SocketAddr::new(address.ip(), 0);
        for addresses in [vec![loopback], vec![public, loopback], vec![]] {
            let fetch = HttpDocumentFetcher::new(FixedResolver::new(&addresses), None).unwrap();
            let error = fetch.fetch(&url(address.port())).await.unwrap_err();
            assert_eq!(error, DocumentFetchError::NotPublic, "{addresses:?}");
        }
        let connection = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(connection.is_err(), "a connection was made");
    }

    #[tokio::test]
    async fn connects_to_the_checked_address() {
        let (listener, address) = listener().await;
        let resolver = FixedResolver::new(&[SocketAddr::new(address.ip(), 0)]);
        let any: fn(IpAddr) -> bool = |_| true;
        let fetch =
            HttpDocumentFetcher::with_allowed_addresses(resolver.clone(), None, any).unwrap();
        let target = url(address.port());
        let fetching = fetch.fetch(&target);
        let accepting = async {
            let (socket, _) = listener.accept().await.unwrap();
            // Closing the connection is enough: the TLS handshake fails.
            drop(socket);
        };
        let (fetched, ()) = tokio::join!(fetching, accepting);
        assert_eq!(fetched.unwrap_err(), DocumentFetchError::NoResponse);
        assert_eq!(resolver.calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn refuses_plain_http() {
        let (listener, address) = listener().await;
        let any: fn(IpAddr) -> bool = |_| true;
        let fetch =
            HttpDocumentFetcher::with_allowed_addresses(FixedResolver::new(&[address]), None, any)
                .unwrap();
        let plain = Url::parse(&format!("http://client.example:{}/x", address.port())).unwrap();
        assert!(fetch.fetch(&plain).await.is_err());
        let connection = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(connection.is_err(), "a connection was made");
    }

    #[test]
    fn parses_max_age() {
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
    fn recognises_json_content_types() {
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
