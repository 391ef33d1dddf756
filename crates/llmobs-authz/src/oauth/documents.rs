//! Client-id metadata documents: a client whose id is an https URL describes itself at that URL.
//!
//! It needs requests to addresses that strangers choose, so each is bounded and checked before it
//! leaves ([`fetch`]), they are limited in number, and the whole feature can be turned off. What was
//! read is kept in memory for as long as its host says, at most a day; failures are not kept. An id
//! proves nothing by itself: the document must name it, and addresses are compared as always.

mod fetch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

pub use fetch::{Document, FetchDocument, FetchError, HttpFetch, Resolver, SystemResolver};

use super::client::Metadata;
use super::clock::Clock;

/// The longest id in bytes.
const LONGEST_ID: usize = 500;
/// Documents kept at a time.
const MOST: usize = 500;
/// How long a document is kept whose host says nothing.
const DEFAULT_LIFE: Duration = Duration::from_secs(3_600);
/// How long one is kept at least and at most.
const LIVES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 3_600)];

/// A client that described itself at its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// What the document says.
    pub(super) metadata: Metadata,
    /// The host that serves it.
    pub(super) host: String,
}

/// Why a document is not used. The words hold nothing that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum DocumentError {
    /// The id is no URL that a document can stand at.
    #[error(
        "a client_id that is a URL must be https with a path, on the standard port of a named host, without user, query, fragment and dot segments"
    )]
    BadId,
    /// The document could not be fetched.
    #[error("the client's metadata document could not be used: {0}")]
    Fetch(#[from] FetchError),
    /// The document names another id, or none.
    #[error("the client's metadata document names another client_id than its own address")]
    OtherId,
    /// The document describes a client with a secret, which everybody could read there.
    #[error(
        "the client's metadata document describes a client with a secret; only public clients are served"
    )]
    Secret,
    /// The document's content.
    #[error("the client's metadata document cannot be used: {0}")]
    Content(&'static str),
}

/// Documents, fetched and kept.
pub(super) struct Documents {
    fetcher: Arc<dyn FetchDocument>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    described: Described,
    until: Duration,
}

impl Documents {
    pub(super) fn new(fetcher: Arc<dyn FetchDocument>, clock: Arc<dyn Clock>) -> Self {
        Self {
            fetcher,
            clock,
            kept: Mutex::new(HashMap::new()),
        }
    }

    /// What is kept of this id.
    pub(super) fn known(&self, id: &str) -> Option<Described> {
        let now = self.clock.uptime();
        let kept = self.kept();
        let kept = kept.get(id).filter(|kept| kept.until > now)?;
        Some(kept.described.clone())
    }

    /// Fetches and reads the document at an id.
    pub(super) async fn fetch(&self, id: &str) -> Result<Described, DocumentError> {
        let (url, host) = read_id(id)?;
        let document = self.fetcher.fetch(&url).await?;
        let described = Described {
            metadata: read(&document, id)?,
            host,
        };
        let [least, most] = LIVES;
        let life = document.max_age.unwrap_or(DEFAULT_LIFE).clamp(least, most);
        self.keep(id, described.clone(), life);
        Ok(described)
    }

    fn keep(&self, id: &str, described: Described, life: Duration) {
        let now = self.clock.uptime();
        let mut kept = self.kept();
        if kept.len() >= MOST {
            kept.retain(|_, kept| kept.until > now);
        }
        if kept.len() >= MOST {
            let soonest = kept.iter().min_by_key(|(_, kept)| kept.until);
            if let Some(id) = soonest.map(|(id, _)| id.clone()) {
                kept.remove(&id);
            }
        }
        let until = now.saturating_add(life);
        kept.insert(id.to_owned(), Kept { described, until });
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a client id asks for a metadata document.
pub(super) fn is_document_id(id: &str) -> bool {
    id.contains("://")
}

/// The URL and host of an id.
fn read_id(id: &str) -> Result<(Url, String), DocumentError> {
    let url = Url::parse(id).map_err(|_| DocumentError::BadId)?;
    let Some(Host::Domain(host)) = url.host() else {
        return Err(DocumentError::BadId);
    };
    let fine = id.len() <= LONGEST_ID
        && url.scheme() == "https"
        // Written in its one form: no dot segments, no upper-case host, no written standard port.
        && url.as_str() == id
        && url.path() != "/"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && host.contains('.');
    let host = host.to_owned();
    if fine {
        Ok((url, host))
    } else {
        Err(DocumentError::BadId)
    }
}

fn read(document: &Document, id: &str) -> Result<Metadata, DocumentError> {
    let value: Value = serde_json::from_slice(&document.body)
        .map_err(|_| DocumentError::Content("it is not JSON"))?;
    if value.get("client_id").and_then(Value::as_str) != Some(id) {
        return Err(DocumentError::OtherId);
    }
    let method = value.get("token_endpoint_auth_method");
    let public = method.is_none_or(|method| method == "none");
    if !public || value.get("client_secret").is_some() {
        return Err(DocumentError::Secret);
    }
    Metadata::read(&value).map_err(|bad| DocumentError::Content(bad.words))
}

#[cfg(test)]
mod tests;
