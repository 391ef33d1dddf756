//! Spans of each dialect, and errors of the intake.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Local, START, capture_records, gzip, span};

/// Removes ids and times, which differ between runs of an application.
fn without_identity(spans: Vec<Value>) -> Vec<Value> {
    let mut spans: Vec<Value> = spans
        .into_iter()
        .map(|mut span| {
            let map = span.as_object_mut().unwrap();
            for key in [
                "span_id",
                "trace_id",
                "parent_id",
                "start_ns",
                "duration",
                "apm_trace_id",
                "agent_attribution",
                "span_links",
                "extra",
                "evaluation",
                "feedback",
            ] {
                map.remove(key);
            }
            span
        })
        .collect();
    spans.sort_by_key(|span| format!("{} {span}", span["name"]));
    spans
}

#[tokio::test]
async fn python_sdk_modes_store_same_spans() {
    let mut modes = Vec::new();
    for capture in [
        "01-py-sdk-manual-agentless",
        "02-py-sdk-manual-apm-v04-meta_struct",
        "03-py-sdk-manual-evp-proxy",
    ] {
        let local = Local::new();
        local.replay(capture).await;
        let mut spans = local.all(json!({})).await.spans();
        // Some SDK modes drop the content of this large span, or the span itself.
        spans.retain(|span| span["name"] != "huge");
        assert_eq!(spans.len(), 37, "{capture}");
        modes.push(without_identity(spans));
    }
    let [agentless, apm, proxy] = modes.try_into().unwrap();
    for (at, span) in agentless.iter().enumerate() {
        assert_eq!(span, &apm[at]);
        assert_eq!(span, &proxy[at]);
    }
}

#[tokio::test]
async fn stores_python_sdk_spans_and_evaluations() {
    let local = Local::new();
    local.replay("01-py-sdk-manual-agentless").await;
    let trace = "6b00ee9000000000878647e47133ae20";
    let answer = local.all(json!({"trace_id": trace})).await;
    insta::assert_json_snapshot!("python_sdk_trace", answer.spans());
    let failed = local.all(json!({"query": "@status:error"})).await;
    let errors: Vec<Value> = failed
        .spans()
        .iter()
        .map(|span| {
            json!([
                span["name"],
                span["error"]["type"],
                span["error"]["message"]
            ])
        })
        .collect();
    insta::assert_json_snapshot!("python_sdk_errors", errors);
    let with_rubric = local
        .all(json!({"query": "@evaluation.rubric.assessment:pass"}))
        .await;
    insta::assert_json_snapshot!("python_sdk_rubric", with_rubric.spans()[0]["evaluation"]);
}

#[tokio::test]
async fn experiment_spans_keep_values_of_any_type() {
    let local = Local::new();
    local.replay("20-experiments-all-requests").await;
    let roots = local
        .all(json!({"query": "@meta.span.kind:experiment"}))
        .await
        .spans();
    assert_eq!(roots.len(), 16);
    let root = &roots[0];
    assert_eq!(root["scope"], "experiments");
    assert_eq!(
        root["input"]["raw_value"],
        json!({"question": "Capital of France?"})
    );
    assert_eq!(
        root["input"]["value"],
        r#"{"question":"Capital of France?"}"#
    );
    assert_eq!(root["output"], json!({"value": "Paris"}));
    assert_eq!(root["expected_output"], "Paris, France");
    assert_eq!(root["extra"]["config"]["nested"], json!({"top_p": 1}));
}

#[tokio::test]
async fn stores_all_spans_of_frameworks() {
    for (capture, count) in [
        ("10-py-auto-langgraph", 28),
        ("10-py-auto-openai_agents", 22),
    ] {
        let local = Local::new();
        local.replay(capture).await;
        let spans = local.all(json!({})).await.spans();
        assert_eq!(spans.len(), count, "{capture}");
        let sent: usize = capture_records(capture)
            .iter()
            .flat_map(|record| record["body"].as_array().unwrap())
            .map(|envelope| envelope["spans"].as_array().unwrap().len())
            .sum();
        assert_eq!(sent, count);
        assert!(
            spans
                .iter()
                .all(|span| span.get("collection_errors").is_none())
        );
    }
}

/// The capture as the SDK sent it: MessagePack inside MessagePack.
fn msgpack_of(value: &Value) -> rmpv::Value {
    match value {
        Value::Object(map) => rmpv::Value::Map(
            map.iter()
                .map(|(key, value)| {
                    let packed = msgpack_of(value);
                    let packed = if key == "_llmobs" {
                        let mut blob = Vec::new();
                        rmpv::encode::write_value(&mut blob, &packed).unwrap();
                        rmpv::Value::Binary(blob)
                    } else {
                        packed
                    };
                    (key.as_str().into(), packed)
                })
                .collect(),
        ),
        Value::Array(items) => rmpv::Value::Array(items.iter().map(msgpack_of).collect()),
        Value::String(text) => text.as_str().into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => number.as_f64().unwrap().into(),
        },
        Value::Bool(flag) => (*flag).into(),
        Value::Null => rmpv::Value::Nil,
    }
}

fn pack(value: &Value) -> Vec<u8> {
    let mut packed = Vec::new();
    rmpv::encode::write_value(&mut packed, &msgpack_of(value)).unwrap();
    packed
}

#[tokio::test]
async fn apm_msgpack_equals_json() {
    let capture = "02-py-sdk-manual-apm-v04-meta_struct";
    let (json, packed) = (Local::new(), Local::new());
    json.replay(capture).await;
    let body = pack(&capture_records(capture)[0]["body"]);
    let headers = [
        ("content-type", "application/msgpack"),
        ("content-encoding", "gzip"),
    ];
    for method in [Method::PUT, Method::POST] {
        let answer = packed
            .raw(method, "/v0.4/traces", &headers, gzip(&body))
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json(), json!({"rate_by_service": {}}));
    }
    let spans = json.all(json!({})).await.spans();
    assert_eq!(packed.all(json!({})).await.spans(), spans);
    let root = spans
        .iter()
        .find(|span| span["name"] == "handle_ticket")
        .unwrap();
    assert_eq!(root["span_id"], "900092431681217016");
    assert_eq!(root["trace_id"], "6b00eecc00000000c0a16c52657686fe");
    assert_eq!(root["start_ns"], 1_795_223_244_368_360_947i64);
    assert_eq!(root["apm_trace_id"], "6b00eecc00000000ee9a7528ed6c88f0");
    let agent = spans
        .iter()
        .find(|span| span["name"] == "refund_agent")
        .unwrap();
    assert_eq!(agent["apm_trace_id"], root["apm_trace_id"]);
    assert_eq!(agent["span_id"], "14974561003060379888");
}

#[tokio::test]
async fn accepts_and_drops_apm_spans_without_blob() {
    let local = Local::new();
    let web = json!({"trace_id": 7, "span_id": 8, "name": "web.request", "start": START,
        "duration": 1, "meta": {"_dd.p.tid": "00000000000000aa"}});
    let llm = json!({"trace_id": 7, "span_id": u64::MAX, "parent_id": 8, "name": "x",
        "start": START, "duration": 1, "error": 1, "meta_struct": {"_llmobs": {"name": "chat",
        "ml_app": "shop", "trace_id": "t", "parent_id": "undefined", "tags": {"a": "b"},
        "meta": {"span": {"kind": "llm"}, "error": {"type": "E", "message": "m"}}}}});
    let broken = json!({"trace_id": 7, "span_id": 9, "start": START, "duration": 1,
        "meta_struct": {"_llmobs": "\u{1}"}});
    let headers = [("content-type", "application/msgpack")];
    let only_web = pack(&json!([[web]]));
    let answer = local
        .raw(Method::PUT, "/v0.4/traces", &headers, only_web)
        .await;
    assert_eq!(answer.json(), json!({"rate_by_service": {}}));
    let all = pack(&json!([[web, llm, broken]]));
    let answer = local.raw(Method::PUT, "/v0.4/traces", &headers, all).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.json()["errors"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("trace 0, span 2")
    );
    let spans = local.all(json!({})).await.spans();
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0]["span_id"], "18446744073709551615");
    assert_eq!(spans[0]["apm_trace_id"], "00000000000000aa0000000000000007");
    assert_eq!(spans[0]["status"], "error");
    assert_eq!(
        spans[0]["tags"],
        json!(["a:b", "error:1", "error_type:E", "ml_app:shop"])
    );
}

#[tokio::test]
async fn reads_flat_keys_of_js_sdk() {
    let local = Local::new();
    let body = json!({"_dd.stage": "raw", "event_type": "span", "spans": [{
        "trace_id": "t1", "span_id": "5", "parent_id": "undefined", "name": "chat",
        "start_ns": START, "duration": 12, "status": "error", "tags": ["ml_app:shop", "source:integration"],
        "meta": {"span.kind": "llm", "input": {}, "output": {}, "model_name": "gpt-4o",
                 "error.message": "boom", "error.type": "Error", "error.stack": "at x"},
        "metrics": {"input_tokens": 3}, "_dd": {"span_id": "5", "trace_id": "apm"}}]});
    let answer = local.post("/evp_proxy/v4/api/v2/llmobs", &body).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::ACCEPTED, json!({}))
    );
    insta::assert_json_snapshot!("js_sdk_span", local.all(json!({})).await.spans());
}

#[tokio::test]
async fn http_api_applies_payload_values_and_stores_unknown_keys() {
    let local = Local::new();
    let spans = json!([
        span(
            1,
            START,
            json!({
        "apm_trace_id": "apm-1", "session_id": "own", "future_key": {"a": [1, {"b": null}]},
        "metrics": {"total_cost": 0.1, "odd": "12", "flag": true},
        "tags": ["env:prod", 7],
        "meta": {"kind": "retrieval", "novel": 1, "metadata": {"k": {"deep": [1]}},
                 "input": {"value": "q"}, "output": {"documents": [{"text": "d", "score": 0.5}]},
                 "intent": "why", "model_version": "2", "error": {"message": "m", "code": 5}}})
        ),
        span(2, START + 1, json!({"ml_app": "bank", "status": "odd"}))
    ]);
    let body = json!({"data": {"type": "span", "attributes": {
        "ml_app": "shop", "session_id": "payload", "tags": ["team:x"],
        "feedback_join_key": "ticket-1", "spans": spans}}});
    let answer = local
        .post("/api/intake/llm-obs/v1/trace/spans", &body)
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
    insta::assert_json_snapshot!("http_api_spans", local.all(json!({})).await.spans());
}

#[tokio::test]
async fn stores_valid_spans_and_reports_invalid_ones() {
    let local = Local::new();
    let mut without_start = span(2, START, json!({}));
    without_start.as_object_mut().unwrap().remove("start_ns");
    let spans = json!([
        span(1, START, json!({})),
        without_start,
        5,
        span(3, START, json!({"span_id": ""})),
        span(4, START, json!({"start_ns": u64::MAX})),
        span(5, START, json!({"trace_id": {"a": 1}})),
        span(6, START, json!({"meta": []})),
        span(7, START, json!({"duration": "long"})),
        span(8, START, json!({"name": null}))
    ]);
    let body = json!({"data": {"type": "span", "attributes": {"ml_app": "shop", "spans": spans}}});
    let answer = local
        .post("/api/intake/llm-obs/v1/trace/spans", &body)
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    insta::assert_json_snapshot!("refused_spans", answer.json());
    assert_eq!(local.all(json!({})).await.names(), ["span-1"]);
}

#[tokio::test]
async fn refuses_request_without_valid_items() {
    let local = Local::new();
    let envelopes = json!([{"spans": [{"trace_id": "t"}]}, {"no": "spans"}, 3]);
    for (path, body) in [
        ("/api/v2/llmobs", envelopes),
        ("/api/v2/llmobs", json!("text")),
        ("/api/v2/llmobs", Value::Null),
        ("/v0.4/traces", json!({})),
        ("/v0.4/traces", json!([5])),
        (
            "/api/intake/llm-obs/v1/trace/spans",
            json!({"data": {"type": "other"}}),
        ),
        ("/api/intake/llm-obs/v2/eval-metric", json!({"data": []})),
        (
            "/api/intake/llm-obs/v2/eval-metric",
            json!({"data": {"type": "evaluation_metric", "attributes": {"metrics": {}}}}),
        ),
    ] {
        let answer = local.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert!(!answer.detail().is_empty());
    }
    assert_eq!(local.backend.stats().unwrap().spans, 0);
}

#[tokio::test]
async fn same_span_id_updates_only_within_trace() {
    let local = Local::new();
    let running = span(1, START, json!({"duration": -1}));
    local.ingest(json!([running])).await;
    let done = span(1, START, json!({"duration": 5, "name": "done"}));
    local
        .ingest(json!([done, span(1, START, json!({"trace_id": "t2"}))]))
        .await;
    assert_eq!(local.all(json!({})).await.names(), ["done", "span-1"]);
}

#[tokio::test]
async fn refuses_spans_older_than_limit() {
    let local = Local::with(|options| {
        options.max_span_age = Some(std::time::Duration::from_secs(86_400));
    });
    let body = json!([{"spans": [span(1, START, json!({}))]}]);
    let answer = local.post("/api/v2/llmobs", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.detail().contains("older than 24 hours"));
}

#[tokio::test]
async fn evaluations_join_spans_in_any_order() {
    let local = Local::new();
    let evaluation = |label: &str, target: Value| {
        let mut metric = json!({"label": label, "metric_type": "score", "score_value": 1,
            "timestamp_ms": 5, "ml_app": "shop"});
        for (key, value) in target.as_object().unwrap() {
            metric[key] = value.clone();
        }
        metric
    };
    let before = json!([
        evaluation(
            "by_span",
            json!({"join_on": {"span": {"trace_id": "t1", "span_id": "1"}}})
        ),
        evaluation(
            "by_tag",
            json!({"join_on": {"tag": {"key": "ticket", "value": "a:1"}}})
        ),
        evaluation("by_v1", json!({"trace_id": "t1", "span_id": "2"})),
        evaluation(
            "other_app",
            json!({"ml_app": "bank", "join_on": {"tag": {"key": "ticket", "value": "a:1"}}})
        ),
        evaluation(
            "whole_trace",
            json!({"eval_scope": "trace", "trace_id": "t1"})
        ),
        evaluation(
            "session",
            json!({"eval_scope": "session", "session_id": "s1"})
        ),
    ]);
    let answer = local.evaluate(before).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let metrics = answer.json()["data"]["attributes"]["metrics"].clone();
    assert!(metrics.as_array().unwrap().iter().all(|metric| {
        metric["id"].as_str().unwrap().len() == 10 && metric["score_value"] == 1
    }));
    local
        .ingest(json!([
            span(
                1,
                START,
                json!({"tags": ["ticket:a:1"], "session_id": "s1"})
            ),
            span(2, START + 1, json!({"parent_id": "1", "session_id": "s1"})),
        ]))
        .await;
    let after = json!([
        evaluation(
            "late",
            json!({"join_on": {"span": {"trace_id": "t1", "span_id": "2"}}})
        ),
        evaluation(
            "by_span",
            json!({"timestamp_ms": 4, "score_value": 0,
            "join_on": {"span": {"trace_id": "t1", "span_id": "1"}}})
        ),
    ]);
    local.evaluate(after).await;
    let feedback = |label: &str, target: Value| {
        let mut metric = evaluation(label, target);
        metric["event_kind"] = json!("feedback");
        metric["submitter"] = json!({"id": "user-7"});
        metric
    };
    local
        .evaluate(json!([feedback("thumbs", json!({"span_id": "2"}))]))
        .await;
    let spans = local.all(json!({})).await.spans();
    let labels = |span: &Value, key: &str| -> Vec<String> {
        let map = span[key].as_object().cloned().unwrap_or_default();
        map.into_iter().map(|(label, _)| label).collect()
    };
    assert_eq!(
        labels(&spans[0], "evaluation"),
        ["by_span", "by_tag", "session", "whole_trace"]
    );
    assert_eq!(spans[0]["evaluation"]["by_span"]["value"], 1);
    assert_eq!(labels(&spans[1], "evaluation"), ["by_v1", "late"]);
    assert_eq!(labels(&spans[1], "feedback"), ["thumbs"]);
    let found = local
        .all(json!({"query": "@evaluations.custom.late:*"}))
        .await;
    assert_eq!(found.names(), ["span-2"]);
}

#[tokio::test]
async fn feedback_joins_spans_by_join_key() {
    let local = Local::new();
    let body = json!({"data": {"type": "span", "attributes": {"ml_app": "shop",
        "feedback_join_key": "ticket-991", "spans": [span(1, START, json!({}))]}}});
    local
        .post("/api/intake/llm-obs/v1/trace/spans", &body)
        .await;
    local
        .evaluate(
            json!([{"event_kind": "feedback", "label": "bucket", "ml_app": "shop",
        "metric_type": "text", "text_value": "billing", "timestamp_ms": 1,
        "feedback_join_key": "ticket-991"}]),
        )
        .await;
    let spans = local.all(json!({})).await.spans();
    assert_eq!(spans[0]["feedback"]["bucket"]["value"], "billing");
}

#[tokio::test]
async fn reports_each_invalid_evaluation() {
    let local = Local::new();
    let on = json!({"span": {"span_id": "1", "trace_id": "t"}});
    let metric = |more: Value| {
        let mut metric = json!({"label": "tone", "metric_type": "score", "score_value": 1,
            "timestamp_ms": 5, "join_on": on});
        for (key, value) in more.as_object().unwrap() {
            metric[key] = value.clone();
        }
        metric
    };
    let answer = local.evaluate(json!([
        metric(json!({})),
        metric(json!({"label": "a.b"})),
        metric(json!({"metric_type": "stars"})),
        metric(json!({"metric_type": "boolean"})),
        metric(json!({"score_value": "5"})),
        metric(json!({"timestamp_ms": "soon"})),
        metric(json!({"join_on": null})),
        metric(json!({"join_on": {"span": {}}})),
        metric(json!({"join_on": {"tag": {"key": "k"}}})),
        metric(json!({"assessment": "good"})),
        metric(json!({"status": "FINE"})),
        metric(json!({"metric_type": "text", "text_value": "x"})),
        metric(json!({"event_kind": "feedback", "join_on": null, "span_id": "1", "session_id": "s"})),
        metric(json!({"score_value": null, "status": "ERROR", "error": {"message": "judge down"}})),
    ])).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = answer.json();
    insta::assert_json_snapshot!("refused_evaluations", body["errors"]);
    assert_eq!(
        body["data"]["attributes"]["metrics"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
