//! Client id metadata documents: a client whose id is an https URL publishes its metadata at that URL.
//!
//! The server fetches these documents from URLs that untrusted clients choose. Each request is checked
//! and bounded ([`fetch`]), the number of requests is limited, and an operator can disable the feature.
//! Documents are cached in memory as long as their host allows, at most a day; failures are not cached.
//! A document must contain its own URL as `client_id`, and its redirect URIs are compared like those of
//! registered clients.

mod fetch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

pub use fetch::{
    DocumentFetchError, DocumentFetcher, HttpDocumentFetcher, MetadataDocument, Resolver,
    SystemResolver,
};

use super::client_metadata::ClientMetadata;
use super::clock::Clock;

/// The maximum length of an id in bytes.
const MAX_ID_BYTES: usize = 500;
/// The maximum number of cached documents.
const MAX_CACHED_DOCUMENTS: usize = 500;
/// How long a document without `max-age` is cached.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3_600);
/// The shortest and the longest time that a document is cached.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// A client with a metadata document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DescribedClient {
    /// The metadata in the document.
    pub(super) metadata: ClientMetadata,
    /// The host that serves it.
    pub(super) host: String,
}

/// Why a document is refused. The message never contains text of the document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum DocumentError {
    /// The id is not an acceptable URL.
    #[error(
        "a client_id that is a URL must be https with a host name and a path, without port, user, query, fragment and dot segments, for example https://client.example/oauth.json"
    )]
    BadId,
    /// The document could not be fetched.
    #[error("the client's metadata document could not be fetched: {0}")]
    Fetch(#[from] DocumentFetchError),
    /// The document has another `client_id`, or none.
    #[error("the client's metadata document must contain its own URL as client_id")]
    OtherId,
    /// The document describes a client with a secret, which would be public.
    #[error(
        "the client's metadata document describes a client with a secret; only public clients are supported"
    )]
    Secret,
    /// The content of the document is invalid.
    #[error("the client's metadata document is invalid: {0}")]
    Content(&'static str),
}

/// Fetches documents and caches them.
pub(super) struct DocumentCache {
    fetcher: Arc<dyn DocumentFetcher>,
    clock: Arc<dyn Clock>,
    entries: Mutex<HashMap<String, CacheEntry>>,
}

struct CacheEntry {
    client: DescribedClient,
    /// The uptime at which the entry expires.
    expires_at: Duration,
}

impl DocumentCache {
    pub(super) fn new(fetcher: Arc<dyn DocumentFetcher>, clock: Arc<dyn Clock>) -> Self {
        Self {
            fetcher,
            clock,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The client with this id, if its document is cached.
    pub(super) fn cached(&self, id: &str) -> Option<DescribedClient> {
        let now = self.clock.uptime();
        let entries = self.lock();
        let entry = entries.get(id).filter(|entry| entry.expires_at > now)?;
        Some(entry.client.clone())
    }

    /// Fetches the document of an id, and caches it.
    pub(super) async fn fetch(&self, id: &str) -> Result<DescribedClient, DocumentError> {
        let (url, host) = parse_id(id)?;
        let document = self.fetcher.fetch(&url).await?;
        let client = DescribedClient {
            metadata: parse_document(&document, id)?,
            host,
        };
        let lifetime = document
            .max_age
            .unwrap_or(DEFAULT_LIFETIME)
            .clamp(MIN_LIFETIME, MAX_LIFETIME);
        self.insert(id, client.clone(), lifetime);
        Ok(client)
    }

    fn insert(&self, id: &str, client: DescribedClient, lifetime: Duration) {
        let now = self.clock.uptime();
        let mut entries = self.lock();
        if entries.len() >= MAX_CACHED_DOCUMENTS {
            entries.retain(|_, entry| entry.expires_at > now);
        }
        if entries.len() >= MAX_CACHED_DOCUMENTS {
            let first = entries.iter().min_by_key(|(_, entry)| entry.expires_at);
            if let Some(id) = first.map(|(id, _)| id.clone()) {
                entries.remove(&id);
            }
        }
        let expires_at = now.saturating_add(lifetime);
        entries.insert(id.to_owned(), CacheEntry { client, expires_at });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CacheEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a client id is the URL of a metadata document.
pub(super) fn is_document_id(id: &str) -> bool {
    id.contains("://")
}

/// The URL and the host of an id.
fn parse_id(id: &str) -> Result<(Url, String), DocumentError> {
    let url = Url::parse(id).map_err(|_| DocumentError::BadId)?;
    let Some(Host::Domain(host)) = url.host() else {
        return Err(DocumentError::BadId);
    };
    let is_valid = id.len() <= MAX_ID_BYTES
        && url.scheme() == "https"
        // Canonical: no dot segments, no upper-case host, no explicit default port.
        && url.as_str() == id
        && url.path() != "/"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && host.contains('.');
    let host = host.to_owned();
    if is_valid {
        Ok((url, host))
    } else {
        Err(DocumentError::BadId)
    }
}

fn parse_document(document: &MetadataDocument, id: &str) -> Result<ClientMetadata, DocumentError> {
    let value: Value = serde_json::from_slice(&document.body)
        .map_err(|_| DocumentError::Content("it is not JSON"))?;
    if value.get("client_id").and_then(Value::as_str) != Some(id) {
        return Err(DocumentError::OtherId);
    }
    let method = value.get("token_endpoint_auth_method");
    let is_public = method.is_none_or(|method| method == "none");
    if !is_public || value.get("client_secret").is_some() {
        return Err(DocumentError::Secret);
    }
    ClientMetadata::parse(&value).map_err(|error| DocumentError::Content(error.description))
}

#[cfg(test)]
mod tests;
