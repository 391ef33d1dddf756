//! Property tests: a valid evaluator survives the tool, the wire and the backend without loss.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use crate::tools::{ToolContext, find};
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_core::analysis::evaluators::properties::configurations;
use llmobs_local::{DataDir, LocalBackend, LocalOptions};

struct TestBackend {
    local: LocalBackend,
    context: ToolContext,
}

impl TestBackend {
    fn new() -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let transport = Arc::new(RouterTransport(backend.router()));
        let hub = Hub::new(Upstream::Local, transport, HubSettings::default());
        let context = ToolContext {
            client: hub.client(Credential::None, "test"),
            now_ms: 1_795_262_400_000,
        };
        Self {
            local: backend,
            context,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        let context = ToolContext {
            client: self.context.client.for_call(),
            now_ms: self.context.now_ms,
        };
        let arguments = arguments.as_object().unwrap().clone();
        let answer = find(tool).unwrap().call(&context, arguments).await;
        serde_json::from_str(&answer.unwrap_or_else(|e| panic!("{}", e.to_json()))).unwrap()
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Value {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        let response = self.local.router().oneshot(request).await.unwrap();
        assert!(
            response.status().is_success(),
            "{method} {path}: {}",
            response.status()
        );
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        serde_json::from_slice(&body).unwrap_or_default()
    }
}

/// An evaluator without its times.
fn without_times(mut value: Value) -> Value {
    for key in ["created_at", "updated_at"] {
        value.as_object_mut().unwrap().shift_remove(key);
    }
    value
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .unwrap()
}

const GET: &str = "get_llmobs_evaluator";
const WRITE: &str = "create_or_update_llmobs_evaluator";

#[test]
fn evaluator_is_written_read_and_rewritten_without_loss() {
    let runtime = runtime();
    let backend = runtime.block_on(async { TestBackend::new() });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let outcome = runner.run(&configurations(), |flat: Map<String, Value>| {
        runtime.block_on(async {
            let name = json!({"eval_name": flat["eval_name"]});
            backend.call(WRITE, Value::Object(flat.clone())).await;
            let first = backend.call(GET, name.clone()).await;
            let again = backend.call(WRITE, first.clone()).await;
            prop_assert_eq!(&again["changed"], &json!([]));
            prop_assert_eq!(&again["reset_to_default"], &json!([]));
            let second = backend.call(GET, name.clone()).await;
            prop_assert_eq!(without_times(first.clone()), without_times(second));
            for (key, value) in &flat {
                let places = [
                    first.get(key),
                    first["target"].get(key),
                    first["llm_provider"].get(key),
                ];
                let shown = places.into_iter().flatten().next().unwrap();
                if key != "output_schema" {
                    prop_assert_eq!(shown, value, "{}", key);
                }
            }
            // Deleted, and restored from the answer of the deletion.
            let deleted = backend.call("delete_llmobs_evaluator", name.clone()).await;
            prop_assert_eq!(&deleted["deleted"]["target"], &first["target"]);
            backend.call(WRITE, deleted["deleted"].clone()).await;
            prop_assert_eq!(
                without_times(first),
                without_times(backend.call(GET, name).await)
            );
            Ok(())
        })
    });
    outcome.unwrap();
}

#[test]
fn sdk_body_and_documented_body_are_equivalent() {
    let runtime = runtime();
    let backend = runtime.block_on(async { TestBackend::new() });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(60));
    let outcome = runner.run(&configurations(), |mut flat: Map<String, Value>| {
        runtime.block_on(async {
            // The fields that the SDK sends; it always sends a draft.
            flat.retain(|key, _| {
                ["eval_name", "application_name", "integration_provider", "model_name",
                    "prompt_template", "parsing_type", "output_schema", "assessment_criteria",
                    "temperature", "max_tokens"].contains(&key.as_str())
            });
            flat.insert("enabled".into(), json!(false));
            let name = json!({"eval_name": flat["eval_name"]});
            backend.call(WRITE, Value::Object(flat.clone())).await;
            let by_tool = backend.call(GET, name.clone()).await;
            backend.call("delete_llmobs_evaluator", name.clone()).await;

            let mut params = json!({});
            for key in ["temperature", "max_tokens"] {
                if let Some(value) = flat.get(key) {
                    params[key] = value.clone();
                }
            }
            let mut config = json!({"inference_params": params, "prompt_template": flat["prompt_template"],
                "output_schema": flat["output_schema"], "parsing_type": flat["parsing_type"]});
            if let Some(criteria) = flat.get("assessment_criteria") {
                config["assessment_criteria"] = criteria.clone();
            }
            let body = json!({"data": {"type": "evaluator_config", "attributes": {"evaluation": {
                "eval_name": flat["eval_name"], "applications": [{
                    "application_name": flat["application_name"], "enabled": false,
                    "integration_provider": "openai", "model_provider": "openai",
                    "model_name": flat["model_name"], "byop_config": config}]}}}});
            backend.send("PUT", "/api/unstable/llm-obs/v1/config/evaluators/custom", body).await;
            let by_sdk = backend.call(GET, name.clone()).await;
            prop_assert_eq!(without_times(by_sdk), without_times(by_tool.clone()));

            // Reading and writing through the documented path changes nothing.
            let segment = flat["eval_name"].as_str().unwrap().replace(' ', "%20");
            let path = format!("/api/unstable/llm-obs/config/evaluators/custom/{segment}");
            let document = backend.send("GET", &path, json!({})).await;
            prop_assert_eq!(&document["data"]["attributes"]["target"]["enabled"], &json!(false));
            backend.send("DELETE", &path, json!({})).await;
            backend.send("PUT", &path, document).await;
            prop_assert_eq!(without_times(backend.call(GET, name).await), without_times(by_tool));
            Ok(())
        })
    });
    outcome.unwrap();
}
