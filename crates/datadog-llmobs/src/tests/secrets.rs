//! No output contains a credential, at any log level; and the spans of upstream requests.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tracing_subscriber::filter::LevelFilter;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::*;
use super::{fast, search_request};

#[derive(Clone, Default)]
struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn echoed_secrets_are_in_no_log_and_no_message() {
    let log = LogBuffer::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // With a single dispatcher, the interest in a callsite is cached for the thread that reaches it
    // first, and other tests have no subscriber. With two dispatchers, it is not cached.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let secrets = ["alpha-secret-key", "beta-secret-key", "gamma-secret-token"];
    let echo = json!({"errors": [format!("no: {}", secrets.join(" ")),
        {"title": secrets[1], "detail": secrets[2]}]});
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(
            ResponseTemplate::new(500)
                .insert_header("x-request-id", "alpha-secret-key")
                .set_body_json(echo),
        )
        .mount(&server)
        .await;
    let transport = Arc::new(HttpTransport::new(&HttpTransportOptions::default()).unwrap());
    let upstream = Upstream::from_api_url(&server.uri()).unwrap();
    let hub = Hub::new(upstream, transport, fast());
    let mut shown = format!("{hub:?}");
    for (api, app, bearer, visible) in [
        (Some(secrets[0]), Some(secrets[1]), None, secrets[2]),
        (None, None, Some(secrets[2]), secrets[0]),
    ] {
        let credential = Credential::from_parts(api, app, bearer).unwrap();
        shown.push_str(&format!("{credential:?} {credential}"));
        let client = hub.client(credential, "test");
        let error = client.search_spans(&search_request()).await.unwrap_err();
        let messages = format!("{client:?} {error} {error:?} {}", error.hint());
        // Secrets of other credentials may appear here, as in any untrusted text.
        let own = secrets
            .iter()
            .filter(|secret| [api, app, bearer].contains(&Some(**secret)));
        for secret in own {
            assert!(!messages.contains(secret), "{messages}");
        }
        assert!(messages.contains(visible));
        let probed = format!("{:?}", client.probe().await);
        assert!(!probed.contains(api.or(bearer).unwrap()), "{probed}");
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("span search"), "the log was captured");
    let span = "upstream_request{operation=\"span search\" attempt=2 elapsed_ms=";
    assert!(logged.contains(span), "{logged}");
    assert!(logged.contains("status=500"), "{logged}");
    for secret in secrets {
        assert!(!logged.contains(secret), "{secret} was logged");
        assert!(!shown.contains(secret));
    }
}
