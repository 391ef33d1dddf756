//! The backend over TCP, as SDKs use it.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Local, START, span};
use crate::serve;

#[tokio::test]
async fn serves_sdk_and_client_over_tcp() {
    let local = Local::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(local.backend.clone(), listener, async {
        let _ = stopped.await;
    }));
    let client = datadog_llmobs::http_client().no_proxy().build().unwrap();
    let info: Value = client
        .get(format!("{base}/info"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let endpoints = info["endpoints"].as_array().unwrap();
    for needed in ["/v0.4/traces", "/evp_proxy/v2/", "/evp_proxy/v4/"] {
        assert!(endpoints.contains(&json!(needed)));
    }
    assert_eq!(info["llmobs_mcp"]["store_id"], local.backend.store_id());
    for path in ["/telemetry/proxy/api/v2/apmtelemetry", "/v0.7/config"] {
        let answer = client
            .post(format!("{base}{path}"))
            .body("{}")
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
    }
    for prefix in ["", "/evp_proxy/v2"] {
        let path = format!("{base}{prefix}/api/v1/validate");
        let valid: Value = client.get(path).send().await.unwrap().json().await.unwrap();
        assert_eq!(valid, json!({"valid": true}));
    }
    let body = json!([{"spans": [span(1, START, json!({}))]}]);
    let sent = client
        .post(format!("{base}/evp_proxy/v2/api/v2/llmobs"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 202);
    let found: Value = client
        .get(format!(
            "{base}/api/v2/llm-obs/v1/spans/events?filter[from]=2000-01-01"
        ))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(found["data"][0]["attributes"]["name"], "span-1");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
