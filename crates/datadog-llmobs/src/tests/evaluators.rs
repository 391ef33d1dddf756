//! Evaluators at sites that accept one schema format, and at failing sites.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, post, put};
use serde_json::{Value, json};

use super::super::*;
use super::{NOW_MS, fast, keys};
use llmobs_core::model::{Evaluator, TimeWindow};

const NAMED: &str = "/api/unstable/llm-obs/config/evaluators/custom/{name}";

fn client(routes: Vec<(&str, MethodRouter)>) -> Client {
    let mut router = Router::new();
    for (path, methods) in routes {
        router = router.route(path, methods);
    }
    let transport = Arc::new(RouterTransport(router));
    Hub::new(Upstream::Local, transport, fast()).client(keys(), "test")
}

fn evaluator() -> Evaluator {
    Evaluator::from_attributes(json!({
        "eval_name": "tone", "target": {"application_name": "shop"}, "created_at": "then",
        "llm_judge_config": {"output_schema": {"name": "boolean_eval", "strict": true, "schema": {"type": "object"}}},
    }))
    .unwrap()
}

/// Returns the given responses in turn, and records the received schemas.
async fn put_to(
    responses: Vec<(u16, &'static str)>,
) -> (Result<EvaluatorWriteResult, ClientError>, Vec<Value>) {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sent);
    let handler = put(move |axum::Json(body): axum::Json<Value>| async move {
        let attributes = &body["data"]["attributes"];
        assert_eq!(body["data"]["type"], "evaluator_config");
        assert_eq!(attributes.get("created_at"), None, "{body}");
        let mut seen = seen.lock().unwrap();
        seen.push(attributes["llm_judge_config"]["output_schema"].clone());
        let (status, text) = responses[seen.len() - 1];
        (StatusCode::from_u16(status).unwrap(), text).into_response()
    });
    let result = client(vec![(NAMED, handler)])
        .put_evaluator(&evaluator())
        .await;
    let sent = sent.lock().unwrap().clone();
    (result, sent)
}

const WRONG_FORMAT: &str = r#"{"errors":["Invalid BYOP output schema"]}"#;

#[tokio::test(start_paused = true)]
async fn sends_schema_without_wrapper_once_after_rejection() {
    let (result, sent) = put_to(vec![(400, WRONG_FORMAT), (200, "{}")]).await;
    assert!(result.unwrap().bare_schema);
    assert_eq!(sent[0]["name"], "boolean_eval");
    assert_eq!(sent[1], json!({"type": "object"}));
    let (result, sent) = put_to(vec![(400, WRONG_FORMAT), (400, WRONG_FORMAT)]).await;
    assert_eq!(result.unwrap_err().status(), Some(400));
    assert_eq!(sent.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn resends_only_after_rejected_schema_format() {
    for (status, words, unknown) in [
        (500, WRONG_FORMAT, true),
        (503, "", true),
        (
            400,
            r#"{"errors":["custom evaluator \"tone\" is versioned"]}"#,
            false,
        ),
        (403, r#"{"errors":["forbidden"]}"#, false),
    ] {
        let (result, sent) = put_to(vec![(status, words)]).await;
        let error = result.unwrap_err();
        assert_eq!(error.outcome_unknown(), unknown, "{error}");
        assert_eq!(sent.len(), 1);
    }
}

#[tokio::test]
async fn write_accepts_empty_body() {
    let (result, sent) = put_to(vec![(200, "")]).await;
    assert!(!result.unwrap().bare_schema);
    assert_eq!(sent.len(), 1);
    let handler = axum::routing::delete(|| async { StatusCode::NO_CONTENT });
    let client = client(vec![(NAMED, handler)]);
    assert!(client.delete_evaluator("a b").await.unwrap());
}

#[tokio::test]
async fn falls_back_to_documented_list_with_gap() {
    let data = json!({"data": [
        {"id": "tone", "type": "evaluator_config", "attributes": evaluator().to_attributes()},
        {"id": "odd", "type": "evaluator_config", "attributes": {"target": 7}},
    ]});
    let list = axum::routing::get(move || async move { axum::Json(data) });
    let client = client(vec![(
        "/api/unstable/llm-obs/config/evaluators/custom",
        list,
    )]);
    let all = client.evaluators(None).await.unwrap();
    assert_eq!(all.rows.len(), 1);
    assert_eq!(all.rows[0].metric_type.as_deref(), Some("boolean"));
    let words: Vec<String> = all.gaps.iter().map(ToString::to_string).collect();
    assert!(words[0].starts_with("an evaluator missing"), "{words:?}");
    assert!(
        words[1].starts_with("out-of-the-box evaluators missing"),
        "{words:?}"
    );
    assert_eq!(client.evaluators(Some("other")).await.unwrap().rows, []);
}

#[tokio::test]
async fn unknown_evaluation_is_a_gap_and_not_cached() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let handler = post(move || async move {
        *counted.lock().unwrap() += 1;
        (
            StatusCode::NOT_FOUND,
            r#"{"detail":"evaluation not found"}"#,
        )
    });
    let client = client(vec![(
        "/api/unstable/llm-obs-mcp/v1/eval/aggregate-stats",
        handler,
    )]);
    let window = TimeWindow {
        from_ms: 0,
        to_ms: NOW_MS,
    };
    for _ in 0..2 {
        let gap = client
            .evaluation_stats("x", None, window)
            .await
            .unwrap_err();
        assert!(gap.why.contains("no evaluation of that name"));
    }
    assert_eq!(*calls.lock().unwrap(), 2);
}
