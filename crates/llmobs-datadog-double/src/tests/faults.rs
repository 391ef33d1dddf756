//! Faults apply to the next matching requests, then the double answers as before.

use http::{Method, StatusCode};
use serde_json::json;

use super::Harness;
use crate::{DoubleOptions, FAULTS_PATH, Fault, FaultBody};

#[tokio::test]
async fn a_status_applies_to_matching_requests_as_often_as_set() {
    let harness = Harness::new(DoubleOptions::default());
    harness.double.faults().add(Fault {
        times: 2,
        headers: vec![("retry-after".to_owned(), "7".to_owned())],
        ..Fault::status("/api/v2/", 429)
    });
    assert_eq!(harness.get("/info").await.status, StatusCode::OK);
    for _ in 0..2 {
        let refused = harness.get("/api/v2/llm-obs/v1/spans/events").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers["retry-after"], "7");
        assert_eq!(refused.json(), json!({"errors": ["Too Many Requests"]}));
    }
    let answered = harness.get("/api/v2/llm-obs/v1/spans/events").await;
    assert_eq!(answered.status, StatusCode::OK);
}

#[tokio::test]
async fn bodies_can_be_html_truncated_or_empty() {
    let harness = Harness::new(DoubleOptions::default());
    let usual = harness.get("/info").await;
    for body in [FaultBody::Html, FaultBody::Truncated, FaultBody::Empty] {
        harness.double.faults().add(Fault {
            body,
            ..Fault::default()
        });
        let faulty = harness.get("/info").await;
        assert_eq!(faulty.status, StatusCode::OK);
        match body {
            FaultBody::Html => assert!(faulty.text().starts_with("<!doctype html>")),
            FaultBody::Truncated => assert_eq!(faulty.body, usual.body[..usual.body.len() / 2]),
            _ => assert!(faulty.body.is_empty()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_the_response_back() {
    let harness = Harness::new(DoubleOptions::default());
    harness.double.faults().add(Fault {
        delay_ms: 5_000,
        ..Fault::default()
    });
    let start = tokio::time::Instant::now();
    assert_eq!(harness.get("/info").await.status, StatusCode::OK);
    assert!(start.elapsed().as_millis() >= 5_000);
}

#[tokio::test]
async fn faults_are_added_and_removed_over_http() {
    let harness = Harness::new(DoubleOptions::default());
    let faults =
        json!([{"path": "/info", "method": "GET", "status": 503, "body": "html", "times": 5}]);
    let added = harness.post(FAULTS_PATH, &faults).await;
    assert_eq!(added.status, StatusCode::NO_CONTENT, "{}", added.text());
    assert_eq!(
        harness.get("/info").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let host = [("host", "127.0.0.1:8126")];
    let cleared = harness
        .send(Method::DELETE, FAULTS_PATH, &host, Vec::new())
        .await;
    assert_eq!(cleared.status, StatusCode::NO_CONTENT);
    assert_eq!(harness.get("/info").await.status, StatusCode::OK);
}
