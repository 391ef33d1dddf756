//! Overload: requests are limited and refused with an error, and acknowledged data is stored.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Local, START, span};
use crate::{IntakeLimits, serve};

const CLIENTS: u64 = 50;

fn body(id: u64) -> Value {
    json!([{"spans": [span(id, START, json!({"tags": ["ml_app:shop"]}))]}])
}

/// Sends from fifty clients at once over TCP, and returns the statuses.
async fn burst(local: &Local) -> Vec<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v2/llmobs", listener.local_addr().unwrap());
    let serving = tokio::spawn(serve(
        local.backend.clone(),
        listener,
        std::future::pending(),
    ));
    let client = datadog_llmobs::http_client().no_proxy().build().unwrap();
    let sends = (0..CLIENTS).map(|id| {
        let send = client.post(&url).json(&body(id + 1)).send();
        async {
            let answer = send.await.unwrap();
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(answer.headers()["retry-after"], "1");
                assert!(answer.text().await.unwrap().contains("send it again"));
                return 503;
            }
            answer.status().as_u16()
        }
    });
    let statuses = futures_util::future::join_all(sends).await;
    serving.abort();
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_burst_of_fifty_clients() {
    let local = Local::new();
    assert_eq!(burst(&local).await, vec![202; CLIENTS as usize]);
    assert_eq!(local.backend.stats().unwrap().spans, CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_refused_with_retry_after() {
    let local = Local::with(|options| {
        options.intake_limits = IntakeLimits {
            max_processing: 1,
            max_requests: 5,
            wait_timeout: Duration::from_secs(60),
            ..IntakeLimits::default()
        };
    });
    // Occupy the only slot.
    let admission = &local.backend.inner.admission;
    let slot = admission.occupy_slot();
    let (statuses, ()) = tokio::join!(burst(&local), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(slot);
    });
    let kept = statuses.iter().filter(|status| **status == 202).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(kept + refused, CLIENTS as usize);
    assert!(kept >= 5 && refused > 0, "{kept} kept, {refused} refused");
    assert_eq!(local.backend.stats().unwrap().spans, kept as u64);
}

#[tokio::test]
async fn byte_limit_is_refused_in_both_error_formats() {
    let local = Local::with(|options| options.intake_limits.max_bytes = 10);
    let answer = local.post("/api/v2/llmobs", &body(1)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    answer.detail();
    let json = [("content-type", "application/json")];
    let sent = b"{\"resourceSpans\":[]}".to_vec();
    let answer = local.raw(Method::POST, "/v1/traces", &json, sent).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json()["code"], 14);
}

#[tokio::test]
async fn limits_apply_to_control_plane_writes_only() {
    let local = Local::with(|options| options.intake_limits.max_bytes = 10);
    let path = "/api/v2/llm-obs/v1/projects";
    let project = json!({"data": {"type": "projects", "attributes": {"name": "p"}}});
    let answer = local.post(path, &project).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    let listed = local.get(path).await;
    assert_eq!(
        (listed.status, listed.json()["data"].clone()),
        (StatusCode::OK, json!([]))
    );
    let search = json!({"data": {"type": "spans", "attributes": {}}});
    let answer = local
        .post("/api/v2/llm-obs/v1/spans/events/search", &search)
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn limits_size_of_read_requests() {
    let local = Local::new();
    let long = "x".repeat(1 << 20);
    let search = json!({"data": {"type": "spans", "attributes": {"filter": {"query": long}}}});
    let paths = [
        "/api/v2/llm-obs/v1/spans/events/search",
        "/api/unstable/llm-obs/config/evaluators/custom/judge",
    ];
    for path in paths {
        let headers = [("content-type", "application/json")];
        let body = search.to_string().into_bytes();
        let method = if path.ends_with("search") {
            Method::POST
        } else {
            Method::PUT
        };
        let answer = local.raw(method, path, &headers, body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert!(
            answer.detail().contains("1048576 bytes"),
            "{}",
            answer.detail()
        );
    }
}

#[tokio::test]
async fn refuses_body_with_too_many_values() {
    let local = Local::new();
    let many = crate::values::MAX_VALUES + 1;
    let json = format!("[{}0]", "0,".repeat(many));
    let msgpack = vec![0xc0; many];
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    for (kind, sent) in [
        ("application/json", zstd(json.as_bytes())),
        ("application/msgpack", zstd(&msgpack)),
    ] {
        assert!(sent.len() < 10_000);
        let headers = [("content-type", kind), ("content-encoding", "zstd")];
        let answer = local
            .raw(Method::POST, "/api/v2/llmobs", &headers, sent)
            .await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{kind}");
        assert!(answer.detail().contains("values"));
    }
}
