//! Searching: all filters apply together, pages return each span once, and an empty answer has a
//! reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_mcp::tools::ToolContext;
use rstest::rstest;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{App, NOW_MS};

const NS: i64 = 1_000_000;

/// A root span of an application, a number of minutes ago.
fn root(number: i64, app: &str, minutes_ago: i64) -> Value {
    json!({
        "span_id": format!("{}", 1_000 + number), "trace_id": format!("{:032x}", 7_000 + number),
        "parent_id": "undefined", "name": "handle", "status": "ok",
        "start_ns": (NOW_MS - minutes_ago * 60_000) * NS, "duration": 5_000_000,
        "session_id": format!("s{}", number % 3),
        "tags": [format!("ml_app:{app}"), "env:prod", format!("session_id:s{}", number % 3)],
        "meta": {"span": {"kind": "workflow"}, "input": {"value": format!("question {number}")}},
        "metrics": {},
    })
}

/// A failed tool call, a child of [`root`].
fn tool(number: i64, app: &str, minutes_ago: i64) -> Value {
    let mut span = root(number, app, minutes_ago);
    span["span_id"] = json!(format!("{}", 2_000 + number));
    span["parent_id"] = json!(format!("{}", 1_000 + number));
    span["name"] = json!("lookup");
    span["status"] = json!("error");
    span["meta"] = json!({"span": {"kind": "tool"}, "input": {"value": "{}"}});
    span
}

async fn two_apps() -> App {
    let app = App::new();
    let mut spans = Vec::new();
    for number in 0..30 {
        let name = if number % 2 == 0 { "shop" } else { "other" };
        spans.push(root(number, name, 10 + number));
        spans.push(tool(number, name, 10 + number));
    }
    app.spans(json!(spans)).await;
    app
}

fn ids(answer: &Value) -> Vec<String> {
    let rows = answer["spans"].as_array().unwrap();
    rows.iter()
        .map(|row| row["span_id"].as_str().unwrap().to_owned())
        .collect()
}

#[rstest]
#[case(json!({"ml_app": "shop"}), 30)]
#[case(json!({"query": "@ml_app:shop"}), 30)]
#[case(json!({"query": "@status:error", "ml_app": "shop"}), 15)]
#[case(json!({"query": "@status:error", "ml_app": "shop", "tags": {"env": "prod"}}), 15)]
#[case(json!({"query": "@status:error", "ml_app": "shop", "root_spans_only": true}), 0)]
#[case(json!({"ml_app": "shop", "root_spans_only": true}), 15)]
#[case(json!({"tags": {"session_id": "s1"}, "root_spans_only": true}), 10)]
#[case(json!({"tags": {"session_id": "s1"}, "root_spans_only": true, "ml_app": "shop"}), 5)]
#[case(json!({"query": "session_id:s1", "root_spans_only": true, "ml_app": "other"}), 5)]
#[case(json!({"query": "@ml_app:shop OR @ml_app:other", "ml_app": "shop", "span_kind": "tool"}), 15)]
#[case(json!({"span_kind": "tool", "span_name": "lookup", "session_id": "s2"}), 10)]
#[case(json!({"tags": ["env:prod"], "span_id": 1004}), 1)]
#[case(json!({"trace_id": format!("{:032x}", 7_004)}), 2)]
#[case(json!({"query": "\"question 7\""}), 1)]
#[tokio::test]
async fn all_filters_apply_together(#[case] mut question: Value, #[case] expected: usize) {
    let app = two_apps().await;
    question["limit"] = json!(100);
    let answer = app.call("search_llmobs_spans", question.clone()).await;
    assert_eq!(answer["returned"], expected, "{question}: {answer}");
    let wants_shop = question.to_string().contains("\"ml_app\":\"shop\"");
    for row in answer["spans"].as_array().unwrap() {
        assert!(
            !wants_shop || row["ml_app"] == "shop",
            "{question} brought {row}"
        );
    }
}

#[tokio::test]
async fn pages_return_each_span_once_while_spans_arrive() {
    let app = two_apps().await;
    let mut question = json!({"ml_app": "shop", "limit": 4});
    let mut seen = Vec::new();
    for round in 0..100 {
        let page = app.call("search_llmobs_spans", question.clone()).await;
        seen.extend(ids(&page));
        // A newer and an older span arrive between the pages.
        app.spans(json!([
            root(100 + round, "shop", 1),
            root(200 + round, "shop", 2_000)
        ]))
        .await;
        match &page["next_cursor"] {
            Value::Null => break,
            cursor => question["cursor"] = cursor.clone(),
        }
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a span is returned twice");
    let there_all_along =
        |id: &&&String| matches!(id.parse::<i64>().unwrap(), 1_000..=1_029 | 2_000..=2_029);
    assert_eq!(distinct.iter().filter(there_all_along).count(), 30);
}

#[tokio::test]
async fn refuses_cursor_of_another_search() {
    let app = two_apps().await;
    let page = app
        .call("search_llmobs_spans", json!({"ml_app": "shop", "limit": 4}))
        .await;
    let error = app
        .refusal(
            "search_llmobs_spans",
            json!({"ml_app": "other", "cursor": page["next_cursor"]}),
        )
        .await;
    assert_eq!(error["status"], 400);
    assert!(
        error["error"].as_str().unwrap().contains("other arguments"),
        "{error}"
    );
}

#[tokio::test]
async fn pages_stay_within_the_budget_and_lose_no_span() {
    let app = App::new();
    let spans: Vec<Value> = (0..120)
        .map(|number| {
            let mut span = root(number, "wordy", 10);
            span["meta"]["input"]["value"] = json!("w".repeat(5_000));
            span["tags"] = json!(
                (0..40)
                    .map(|t| format!("k{t}:{}", "v".repeat(t)))
                    .collect::<Vec<_>>()
            );
            span["tags"]
                .as_array_mut()
                .unwrap()
                .push(json!("ml_app:wordy"));
            span
        })
        .collect();
    app.spans(json!(spans)).await;
    let mut question = json!({"ml_app": "wordy", "limit": 500, "max_tokens": 3_000});
    let mut seen = BTreeSet::new();
    loop {
        let text = app
            .text("search_llmobs_spans", question.clone())
            .await
            .unwrap();
        assert!(text.chars().count() <= 12_000, "{}", text.chars().count());
        let page: Value = serde_json::from_str(&text).unwrap();
        for id in ids(&page) {
            assert!(seen.insert(id));
        }
        match &page["next_cursor"] {
            Value::Null => break,
            cursor => question["cursor"] = cursor.clone(),
        }
    }
    assert_eq!(seen.len(), 120);
}

#[tokio::test]
async fn empty_answer_names_the_excluding_filter() {
    let app = two_apps().await;
    let wrong_app = app
        .call(
            "search_llmobs_spans",
            json!({"ml_app": "shopp", "span_kind": "tool"}),
        )
        .await;
    assert_eq!(wrong_app["spans"], json!([]));
    assert_eq!(wrong_app["why_empty"]["filter"], "ml_app");
    assert_eq!(wrong_app["why_empty"]["matches_without"], 30);
    assert_eq!(
        wrong_app["why_empty"]["candidates"],
        json!(["shop", "other"])
    );

    let narrow = app
        .call(
            "search_llmobs_spans",
            json!({"ml_app": "shop", "from": "now-5m", "query": "@status:error"}),
        )
        .await;
    assert_eq!(narrow["why_empty"]["filter"], "window");
    assert_eq!(narrow["why_empty"]["nearest"], "2026-11-21T11:50:00.000Z");
}

#[tokio::test]
async fn reason_costs_two_requests_and_is_cached() {
    let app = two_apps().await;
    let searches = |app: &App| -> u64 {
        app.counts()
            .requests
            .iter()
            .filter(|(route, _)| route.contains("search"))
            .map(|(_, n)| n)
            .sum()
    };
    let question = json!({"ml_app": "nowhere", "tags": {"replay_run_id": "r1"}});
    let before = app.call("search_llmobs_spans", question.clone()).await;
    let first = searches(&app);
    assert!(first <= 3, "{first} requests for one empty search");
    let again = app.call("search_llmobs_spans", question).await;
    assert_eq!(searches(&app) - first, 1);
    assert_eq!(again["why_empty"], before["why_empty"]);
    assert!(again["why_empty"].is_object(), "{again}");
}

#[tokio::test]
async fn id_is_found_outside_the_window_with_a_note() {
    let app = two_apps().await;
    let trace_id = format!("{:032x}", 7_004);
    let answer = app
        .call(
            "search_llmobs_spans",
            json!({"trace_id": trace_id, "from": "now-1m"}),
        )
        .await;
    assert_eq!(answer["returned"], 2);
    assert!(answer["notes"].to_string().contains("outside"), "{answer}");
    let tree = app
        .call(
            "get_llmobs_trace",
            json!({"trace_id": trace_id, "from": "now-1m"}),
        )
        .await;
    assert_eq!(tree["total_spans"], 2);
    assert!(tree["notes"].to_string().contains("outside"), "{tree}");
}

#[tokio::test]
async fn every_form_of_time_finds_the_same_spans() {
    let app = two_apps().await;
    let from_ms = NOW_MS - 86_400_000;
    for from in [
        json!("now-1d"),
        json!("now-24h"),
        json!("1d"),
        json!("2026-11-20T12:00:00Z"),
        json!(from_ms),
        json!(from_ms.to_string()),
    ] {
        let answer = app
            .call("search_llmobs_spans", json!({"from": from, "limit": 100}))
            .await;
        assert_eq!(answer["returned"], 60, "{from}");
        assert_eq!(
            answer["window"]["from"], "2026-11-20T12:00:00.000Z",
            "{from}"
        );
    }
    let months = app
        .call("search_llmobs_spans", json!({"from": "now-2M"}))
        .await;
    assert_eq!(months["window"]["from"], "2026-09-21T12:00:00.000Z");
}

#[tokio::test]
async fn evaluations_are_found_by_presence_and_value() {
    let app = two_apps().await;
    let metric = |span: &str, trace: i64, label: &str, kind: &str, value: Value| {
        json!({"join_on": {"span": {"span_id": span, "trace_id": format!("{trace:032x}")}},
            "ml_app": "shop", "timestamp_ms": NOW_MS, "label": label, "metric_type": kind,
            (format!("{kind}_value")): value, "assessment": "fail"})
    };
    app.evaluations(json!([
        metric("1004", 7_004, "faithfulness", "score", json!(0.2)),
        metric("1006", 7_006, "faithfulness", "score", json!(0.9)),
        metric("1008", 7_008, "rubric", "json", json!({"accuracy": 4})),
        metric("1400", 7_400, "faithfulness", "score", json!(0.1)),
    ]))
    .await;
    app.spans(json!([root(400, "shop", 5)])).await;
    for (query, expected) in [
        (
            "@evaluations.custom.faithfulness:*",
            vec!["1400", "1004", "1006"],
        ),
        ("@evaluation.faithfulness.value:<0.5", vec!["1400", "1004"]),
        ("@evaluations.custom.rubric:*", vec!["1008"]),
        ("@evaluation.rubric.assessment:fail", vec!["1008"]),
    ] {
        let answer = app
            .call("search_llmobs_spans", json!({"query": query}))
            .await;
        assert_eq!(ids(&answer), expected, "{query}");
    }
}

#[tokio::test]
async fn search_with_a_page_token_too_long_to_pass_on_names_the_time_to_continue() {
    let app = two_apps().await;
    let backend = app.backend.router();
    // An upstream whose page tokens are longer than ours can be.
    let search = move |request: axum::extract::Request| {
        let backend = backend.clone();
        async move {
            let response = backend.oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX);
            let mut page: Value = serde_json::from_slice(&body.await.unwrap()).unwrap();
            if let Some(token) = page.pointer_mut("/meta/page/after") {
                *token = json!("x".repeat(600));
            }
            axum::Json(page)
        }
    };
    let router = axum::Router::new().fallback(search);
    let hub = Hub::new(
        Upstream::Local,
        Arc::new(RouterTransport(router)),
        HubSettings::default(),
    );
    let app = App {
        backend: app.backend.clone(),
        context: ToolContext {
            client: hub.client(Credential::None, "test"),
            now_ms: NOW_MS,
        },
    };
    let arguments = json!({"from": "now-1d", "limit": 5});
    let answer = app.call("search_llmobs_spans", arguments).await;
    assert_eq!(answer["returned"], 5);
    assert_eq!(answer["next_cursor"], Value::Null);
    let oldest = answer["spans"][4]["start_ms"].as_i64().unwrap();
    let to = llmobs_core::query::time::format_rfc3339(oldest + 1);
    assert!(answer["notes"].to_string().contains(&to), "{answer}");
}
