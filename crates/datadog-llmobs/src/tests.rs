//! Tests of the client against servers that work, fail, and count requests.

mod contents;
mod evaluators;
mod faults;
mod gaps;
mod search;
mod secrets;
mod traces;
mod upstream;
mod wire;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use super::*;

/// The current time of these tests, in September 2026.
const NOW_MS: i64 = 1_790_000_000_000;

/// The default settings with short waits.
fn fast() -> HubSettings {
    HubSettings {
        backoff_base: Duration::from_millis(1),
        backoff_cap: Duration::from_millis(2),
        rate_jitter: Duration::from_millis(1),
        ..HubSettings::default()
    }
}

/// A client with keys that sends over HTTP to a server on this machine.
fn http_client(base: &str, settings: HubSettings) -> Client {
    let transport = HttpTransport::new(&HttpTransportOptions::default()).unwrap();
    let upstream = Upstream::from_api_url(base).unwrap();
    Hub::new(upstream, Arc::new(transport), settings).client(keys(), "test")
}

fn keys() -> Credential {
    Credential::from_parts(Some("alpha-secret-key"), Some("beta-secret-key"), None).unwrap()
}

fn search_request() -> SpanSearch {
    SpanSearch {
        query: None,
        filters: llmobs_core::query::combine::SpanFilters::default(),
        apm_trace_id: None,
        window: llmobs_core::model::TimeWindow {
            from_ms: NOW_MS - 3_600_000,
            to_ms: NOW_MS,
        },
        limit: 20,
        cursor: None,
        newest_first: true,
        content: false,
    }
}
