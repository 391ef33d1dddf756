use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::oauth::clock::testing::ManualClock;

const ID: &str = "https://client.example/oauth.json";

/// Serves one document and counts the requests.
struct CountingFetcher {
    body: Value,
    max_age: Option<Duration>,
    requests: AtomicUsize,
}

impl DocumentFetcher for CountingFetcher {
    fn fetch<'a>(
        &'a self,
        _url: &'a Url,
    ) -> BoxFuture<'a, Result<MetadataDocument, DocumentFetchError>> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let document = MetadataDocument {
            body: Bytes::from(self.body.to_string()),
            max_age: self.max_age,
        };
        std::future::ready(Ok(document)).boxed()
    }
}

fn body() -> Value {
    json!({
        "client_id": ID,
        "client_name": "A client",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
    })
}

fn documents(
    body: Value,
    max_age: Option<Duration>,
) -> (DocumentCache, Arc<CountingFetcher>, Arc<ManualClock>) {
    let served = Arc::new(CountingFetcher {
        body,
        max_age,
        requests: AtomicUsize::new(0),
    });
    let clock = Arc::new(ManualClock::default());
    let documents = DocumentCache::new(served.clone(), clock.clone());
    (documents, served, clock)
}

#[rstest]
#[case("https://client.example/oauth.json", true)]
#[case("https://claude.ai/oauth/claude-code-client-metadata", true)]
#[case("http://client.example/oauth.json", false)]
#[case("https://client.example/", false)]
#[case("https://client.example", false)]
#[case("https://client.example:8443/oauth.json", false)]
#[case("https://client.example:443/oauth.json", false)]
#[case("https://CLIENT.example/oauth.json", false)]
#[case("https://me@client.example/oauth.json", false)]
#[case("https://client.example/a/../oauth.json", false)]
#[case("https://client.example/oauth.json?x", false)]
#[case("https://client.example/oauth.json#x", false)]
#[case("https://127.0.0.1/oauth.json", false)]
#[case("https://0x7f.1/oauth.json", false)]
#[case("https://2130706433/oauth.json", false)]
#[case("https://169.254.169.254/latest/meta-data", false)]
#[case("https://[::1]/oauth.json", false)]
#[case("https://[::ffff:127.0.0.1]/oauth.json", false)]
#[case("https://localhost/oauth.json", false)]
#[case("https://metadata/oauth.json", false)]
#[case("file:///etc/passwd", false)]
fn validates_document_ids(#[case] id: &str, #[case] valid: bool) {
    assert_eq!(parse_id(id).is_ok(), valid);
}

#[tokio::test]
async fn invalid_id_is_not_fetched() {
    let (documents, served, _) = documents(body(), None);
    let error = documents.fetch("https://127.0.0.1/x").await.unwrap_err();
    assert_eq!(error, DocumentError::BadId);
    assert_eq!(served.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn caches_document_as_long_as_its_host_allows() {
    let (documents, _, clock) = documents(body(), Some(Duration::from_secs(600)));
    assert!(documents.cached(ID).is_none());
    let client = documents.fetch(ID).await.unwrap();
    assert_eq!(client.host, "client.example");
    assert_eq!(client.metadata.name, "A client");
    clock.advance(Duration::from_secs(599));
    assert_eq!(documents.cached(ID), Some(client));
    clock.advance(Duration::from_secs(1));
    assert!(documents.cached(ID).is_none());
}

#[rstest]
#[case(Duration::from_secs(365 * 86_400), Duration::from_secs(86_400))]
#[case(Duration::ZERO, Duration::from_secs(60))]
#[tokio::test]
async fn cache_lifetime_is_bounded(#[case] max_age: Duration, #[case] lifetime: Duration) {
    let (documents, _, clock) = documents(body(), Some(max_age));
    documents.fetch(ID).await.unwrap();
    clock.advance(lifetime - Duration::from_millis(1));
    assert!(documents.cached(ID).is_some());
    clock.advance(Duration::from_millis(1));
    assert!(documents.cached(ID).is_none());
}

#[rstest]
#[case("client_id", json!("https://client.example/other.json"), DocumentError::OtherId)]
#[case("client_id", Value::Null, DocumentError::OtherId)]
#[case("token_endpoint_auth_method", json!("client_secret_post"), DocumentError::Secret)]
#[case("client_secret", json!("x"), DocumentError::Secret)]
#[tokio::test]
async fn refuses_documents_of_other_or_confidential_clients(
    #[case] key: &str,
    #[case] value: Value,
    #[case] expected: DocumentError,
) {
    let mut body = body();
    body[key] = value;
    let (documents, _, _) = documents(body, None);
    assert_eq!(documents.fetch(ID).await.unwrap_err(), expected);
    assert!(documents.cached(ID).is_none());
}

#[tokio::test]
async fn cache_size_is_bounded() {
    let (documents, _, _) = documents(body(), None);
    let client = documents.fetch(ID).await.unwrap();
    for n in 0..MAX_CACHED_DOCUMENTS {
        let id = format!("https://client.example/{n}");
        documents.insert(&id, client.clone(), Duration::from_secs(7_200));
    }
    assert_eq!(documents.lock().len(), MAX_CACHED_DOCUMENTS);
    assert!(
        documents.cached(ID).is_none(),
        "the entry that expires first is removed"
    );
}
