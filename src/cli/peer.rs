//! Identifies the program that listens at an address, by its `/info`.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use datadog_llmobs::ResponseLimits;

use super::settings::Settings;
use super::upstream::http_transport;

/// How long `/info` may take.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest `/info` that is read, in bytes.
const MAX_INFO_BYTES: usize = 1 << 20;

/// The kind of program that listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A local backend of this program.
    LocalBackend,
    /// A Datadog Agent.
    Agent,
    /// Any other program.
    Other,
}

/// Identifies the program that listens at `base`; `None` if the connection is refused.
pub(crate) async fn identify(settings: &Settings, base: &str) -> Option<Peer> {
    let transport = http_transport(settings).ok()?;
    let request = Request::get(format!("{base}/info"))
        .body(Bytes::new())
        .ok()?;
    let limits = ResponseLimits {
        timeout: INFO_TIMEOUT,
        max_body_bytes: MAX_INFO_BYTES,
    };
    match transport.send(request, limits).await {
        Ok(response) => {
            let info: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            Some(if info.pointer("/llmobs_mcp/store_id").is_some() {
                Peer::LocalBackend
            } else if info.get("endpoints").is_some() {
                Peer::Agent
            } else {
                Peer::Other
            })
        }
        Err(error) if error.surely_not_executed() => None,
        Err(_) => Some(Peer::Other),
    }
}
