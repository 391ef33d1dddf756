//! Aggregation of the demo's data: typical questions of a team, each answered by one call and compared
//! with the results of `fixtures/apps/answers.py`. The answers are the same whether the backend
//! aggregates or the client reads pages.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Site, Upstream};
use http::StatusCode;
use llmobs_mcp::tools::ToolContext;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{App, NOW_MS};

const TOOL: &str = "aggregate_llmobs_spans";
const ENDPOINT: &str = "/api/unstable/llm-obs-mcp/v1/trace/aggregate";
const DAY_MS: i64 = 86_400_000;

fn answers() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo-answers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The same data behind a router, as another upstream.
fn app_with_router(app: &App, router: Router, upstream: Upstream, settings: HubSettings) -> App {
    let hub = Hub::new(upstream, Arc::new(RouterTransport(router)), settings);
    App {
        backend: app.backend.clone(),
        context: ToolContext {
            client: hub.client(Credential::None, "test"),
            now_ms: NOW_MS,
        },
    }
}

/// The same data from a backend without the aggregation endpoint.
fn app_without_aggregation(app: &App, settings: HubSettings) -> App {
    let refuse = post(|| async { StatusCode::FORBIDDEN });
    let router = Router::new()
        .route(ENDPOINT, refuse)
        .fallback_service(app.backend.router());
    app_with_router(app, router, Upstream::Local, settings)
}

/// The group with a key.
fn group<'a>(answer: &'a Value, key: &Value) -> &'a Value {
    let groups = answer["groups"].as_array().unwrap();
    let found = groups.iter().find(|group| group["key"] == *key);
    found.unwrap_or_else(|| panic!("no group {key} in {answer}"))
}

fn assert_close(found: &Value, expected: &Value, within: f64) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!(
        (found - expected).abs() <= within,
        "{found} is not {expected}"
    );
}

const MISS: &str = "@meta.span.kind:retrieval @status:ok -@meta.output.documents.score:>=0.5";

#[tokio::test]
async fn finds_prompt_version_with_malformed_output() {
    let app = App::new().demo();
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "docs-assistant", "from": "now-8d", "unit": "trace",
                "group_by": ["@meta.input.prompt.version",
                    {"name": "malformed", "query": "@name:parse_answer @status:error"}],
                "measures": ["failure_rate"]}),
        )
        .await;
    for version in ["2", "3"] {
        let expected = &answers()["prompt_versions"][version];
        let key = |bucket| json!({"@meta.input.prompt.version": version, "bucket": bucket});
        let bad = group(&answer, &key(json!("malformed")));
        let good = group(&answer, &key(Value::Null));
        assert_eq!(bad["count"], expected["malformed_json"]);
        let all = bad["count"].as_u64().unwrap() + good["count"].as_u64().unwrap();
        assert_eq!(all, expected["answers"].as_u64().unwrap());
        assert_close(&bad["share"], &expected["malformed_share"], 0.001);
        let failed = bad["failure_rate"].as_f64().unwrap() * bad["count"].as_f64().unwrap();
        assert_close(&json!(failed), &expected["failed"], 1e-6);
    }
}

#[rstest]
#[case("model_arm")]
#[case("@meta.model_name")]
#[tokio::test]
async fn finds_model_with_tool_timeouts(#[case] model: &str) {
    let app = App::new().demo();
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "support-agent", "from": "now-8d", "unit": "trace", "group_by": [model,
                {"name": "timeout", "query": "@meta.span.kind:tool @meta.error.type:*CarrierTimeout"}]}),
        )
        .await;
    for name in ["gpt-4.1", "gpt-4.1-mini"] {
        let expected = &answers()["carrier_timeouts_by_model"][name];
        let timeouts = group(&answer, &json!({model: name, "bucket": "timeout"}));
        let others = group(&answer, &json!({model: name, "bucket": null}));
        assert_eq!(timeouts["count"], expected["turns_with_a_tool_timeout"]);
        let turns = timeouts["count"].as_u64().unwrap() + others["count"].as_u64().unwrap();
        assert_eq!(turns, expected["turns"].as_u64().unwrap());
    }
}

#[tokio::test]
async fn compares_scores_with_and_without_retrieval_misses() {
    let app = App::new().demo();
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "docs-assistant", "from": "now-8d", "unit": "trace",
                "query": "@meta.span.kind:retrieval @status:ok",
                "group_by": [{"name": "miss", "query": MISS}],
                "measures": ["evaluation.faithfulness"]}),
        )
        .await;
    let expected = &answers()["retrieval"];
    let miss = group(&answer, &json!({"bucket": "miss"}));
    let hit = group(&answer, &json!({"bucket": null}));
    assert_eq!(miss["count"], expected["misses"]);
    let mean = "evaluation.faithfulness.mean";
    assert_close(&miss[mean], &expected["mean_faithfulness"]["miss"], 0.0005);
    assert_close(&hit[mean], &expected["mean_faithfulness"]["hit"], 0.0005);
    let failed = &answers()["failed_assessments"]["faithfulness"];
    let passed = miss["evaluation.faithfulness.pass_rate"].as_f64().unwrap();
    assert_close(&json!((1.0 - passed) * 13.0), failed, 0.001);
}

#[tokio::test]
async fn compares_cost_per_success_between_releases() {
    let app = App::new().demo();
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "docs-assistant", "from": "now-8d", "unit": "trace",
                "query": "@meta.span.kind:llm", "group_by": ["version"],
                "measures": ["failure_rate", "cost.per_success"]}),
        )
        .await;
    for (release, prompt) in [("5.2.1", "2"), ("5.3.0", "3")] {
        let expected = &answers()["prompt_versions"][prompt];
        let found = group(&answer, &json!({"version": release}));
        assert_eq!(found["count"], expected["answers"]);
        let per_1000 = found["cost.per_success"].as_f64().unwrap() * 1000.0;
        assert_close(
            &json!(per_1000),
            &expected["usd_per_1000_successes"],
            0.0005,
        );
    }
}

#[tokio::test]
async fn shows_falling_correctness_scores() {
    let app = App::new().demo();
    // The answers count days back from the end of the newest span of the data.
    let newest = app
        .all_spans(json!({"from": "now-1d", "limit": 500, "summary": true}))
        .await
        .iter()
        .map(|span| span["start_ms"].as_f64().unwrap() + span["duration_ms"].as_f64().unwrap())
        .fold(0.0, f64::max) as i64;
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "docs-assistant", "unit": "trace", "interval": "1d",
                "from": newest - 7 * DAY_MS, "to": newest, "query": "@meta.output.documents.score:>=0.5",
                "measures": ["evaluation.correctness.mean"]}),
        )
        .await;
    let expected = answers()["mean_correctness_on_hits_by_days_ago"].clone();
    let days = answer["groups"].as_array().unwrap();
    assert_eq!(days.len(), expected.as_object().unwrap().len());
    for (day, ago) in days.iter().zip((0..7).rev()) {
        let mean = &day["evaluation.correctness.mean"];
        assert_close(mean, &expected[ago.to_string()], 0.0005);
    }
}

#[tokio::test]
async fn counts_traces_and_tokens_per_application() {
    let app = App::new().demo();
    let spans = app
        .call(
            TOOL,
            json!({"from": "now-8d", "group_by": ["@ml_app"], "query": "@meta.span.kind:llm",
                "measures": ["total_tokens.sum"]}),
        )
        .await;
    let traces = app
        .call(
            TOOL,
            json!({"from": "now-8d", "group_by": "@ml_app", "unit": "traces",
                "measures": "error_rate, failure_rate"}),
        )
        .await;
    for (name, expected) in answers()["apps"].as_object().unwrap() {
        let key = json!({"@ml_app": name});
        let tokens = &group(&spans, &key)["total_tokens.sum"];
        assert_eq!(tokens, &expected["total_tokens"], "{name}");
        let found = group(&traces, &key);
        assert_eq!(found["count"], expected["traces"]);
        let of_all =
            |rate: &str| json!(found[rate].as_f64().unwrap() * found["count"].as_f64().unwrap());
        assert_close(&of_all("error_rate"), &expected["error_traces"], 0.001);
        assert_close(&of_all("failure_rate"), &expected["failed_traces"], 0.001);
    }
    // One call has two spans; three calls failed before they reported tokens.
    let code = group(&spans, &json!({"@ml_app": "code-agent"}));
    assert_eq!(code["total_tokens.known_for"], "329 of 332");
}

/// Arguments with every kind of grouping and measure.
fn all_arguments() -> Vec<Value> {
    vec![
        json!({"group_by": ["@ml_app", "@meta.span.kind", "@status"], "measures": ["duration", "tokens", "cost"]}),
        json!({"group_by": ["@meta.model_name"], "query": "@meta.span.kind:llm", "interval": "12h", "limit": 200}),
        json!({"ml_app": "support-agent", "group_by": ["@meta.error.type"], "query": "@status:error", "tags": {"env": "production"}}),
        json!({"ml_app": "docs-assistant", "unit": "trace", "group_by": ["@meta.input.prompt.version", {"name": "miss", "query": MISS}],
    "measures": ["evaluation.faithfulness", "evaluation.correctness", "feedback.thumbs", "duration.p95", "cost.per_success"]}),
        json!({"unit": "trace", "query": "@meta.span.kind:tool @status:error", "group_by": ["@ml_app", "@name"], "measures": ["tokens", "failure_rate"], "limit": 500}),
        json!({"unit": "trace", "ml_app": "support-agent", "query": "@trace.tool_calls:>2", "interval": "1d",
    "group_by": [{"name": "below an error", "query": "@child.@status:error"}, {"name": "long", "query": "@trace.llm_calls:>4"}]}),
        json!({"group_by": [{"name": "many calls", "query": "@trace.llm_calls:>4"}, {"name": "text", "query": "refund OR crate"}]}),
        json!({"unit": "trace", "tags": {"session_id": "docs-2cf71a3"}, "group_by": ["session_id"]}),
        json!({"ml_app": "unknown-app"}),
    ]
}

#[tokio::test]
async fn client_and_backend_aggregate_alike() {
    let app = App::new().demo();
    // Small pages, and few ids per query.
    let settings = HubSettings {
        structure_page: 97,
        content_page: 61,
        ids_per_query: 7,
        max_pages: 1_000,
        ..HubSettings::default()
    };
    let site = app_without_aggregation(&app, settings);
    for mut question in all_arguments() {
        question["from"] = json!("now-8d");
        let mut there = app.call(TOOL, question.clone()).await;
        let mut here = site.call(TOOL, question.clone()).await;
        assert_eq!(here["sampled"], false);
        for answer in [&mut there, &mut here] {
            answer.as_object_mut().unwrap().remove("rows_read");
        }
        assert_eq!(here, there, "{question}");
    }
}

#[tokio::test]
async fn buckets_group_by_attributes_that_the_documented_api_lacks() {
    let app = App::documented_only().demo();
    let site = app_with_router(
        &app,
        app.backend.router(),
        Upstream::Local,
        HubSettings::default(),
    );
    let answer = site
        .call(
            TOOL,
            json!({"ml_app": "docs-assistant", "from": "now-8d", "unit": "trace",
                "group_by": [{"name": "malformed", "query": "@meta.error.type:*JSONDecodeError"}, {"name": "miss", "query": MISS}],
                "measures": ["evaluation.faithfulness.mean"]}),
        )
        .await;
    assert_eq!(group(&answer, &json!({"bucket": "malformed"}))["count"], 15);
    assert_eq!(group(&answer, &json!({"bucket": "miss"}))["count"], 13);
    let by_facet = site
        .call(
            TOOL,
            json!({"from": "now-8d", "group_by": ["@meta.error.type"], "query": "@status:error"}),
        )
        .await;
    assert!(
        by_facet["notes"].to_string().contains("@meta.error.type"),
        "{by_facet}"
    );
}

#[tokio::test]
async fn sample_is_noted_and_covers_the_whole_trend() {
    let app = App::new().demo();
    let few = HubSettings {
        structure_page: 50,
        aggregate_rows: 400,
        ..HubSettings::default()
    };
    let site = app_without_aggregation(&app, few);
    let newest = site.call(TOOL, json!({"from": "now-8d"})).await;
    assert_eq!(newest["sampled"], true);
    assert_eq!(newest["rows_read"], 400);
    assert_eq!(newest["rows_matched"], Value::Null);
    assert_eq!(newest["total"]["count"], 400);
    assert!(newest["notes"].to_string().contains("a sample"), "{newest}");
    let trend = site
        .call(TOOL, json!({"from": "now-8d", "interval": "1d"}))
        .await;
    assert_eq!(trend["sampled"], true);
    // The data cover seven of the eight days, and so does the sample.
    assert_eq!(trend["groups"].as_array().unwrap().len(), 7);
    assert!(trend["rows_read"].as_u64().unwrap() <= 400);
}

#[tokio::test]
async fn only_documented_endpoints_of_a_site_are_called() {
    let app = App::new();
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    let router = Router::new().fallback(move |request: axum::extract::Request| {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        async { axum::Json(json!({"data": [], "meta": {"status": "done", "page": {}}})) }
    });
    let site = Upstream::Site(Site::parse("datadoghq.eu").unwrap());
    let site = app_with_router(&app, router, site, HubSettings::default());
    site.call(TOOL, json!({"group_by": ["@name"]})).await;
    let paths = paths.lock().unwrap();
    assert!(!paths.is_empty());
    for path in paths.iter() {
        assert_eq!(path, "/api/v2/llm-obs/v1/spans/events/search");
    }
}

#[tokio::test]
async fn pages_return_each_group_once_within_the_budget() {
    let app = App::new().demo();
    let mut question = json!({"from": "now-8d", "group_by": ["@trace_id", "@name"],
        "measures": ["duration", "error_rate"], "max_tokens": 1_000, "limit": 300});
    let mut seen = Vec::new();
    let total_groups = loop {
        let text = app.text(TOOL, question.clone()).await.unwrap();
        assert!(text.chars().count() <= 4_000);
        let page: Value = serde_json::from_str(&text).unwrap();
        for group in page["groups"].as_array().unwrap() {
            assert!(!seen.contains(&group["key"]), "{group} is returned twice");
            seen.push(group["key"].clone());
        }
        match &page["next_cursor"] {
            // The remaining groups are read in larger pages.
            Value::Null => break page["total_groups"].as_u64().unwrap(),
            cursor => question["cursor"] = cursor.clone(),
        }
        question["max_tokens"] = json!(1_000);
        if seen.len() > 100 {
            question["max_tokens"] = json!(20_000);
            read_remaining(&app, &mut question, &mut seen).await;
            break u64::try_from(seen.len()).unwrap();
        }
    };
    assert_eq!(total_groups, seen.len() as u64);
    let other = app
        .refusal(
            TOOL,
            json!({"group_by": ["@name"], "cursor": question["cursor"]}),
        )
        .await;
    assert!(other["error"].to_string().contains("other arguments"));
}

/// Reads the remaining pages.
async fn read_remaining(app: &App, question: &mut Value, seen: &mut Vec<Value>) {
    loop {
        let page = app.call(TOOL, question.clone()).await;
        for group in page["groups"].as_array().unwrap() {
            seen.push(group["key"].clone());
        }
        match &page["next_cursor"] {
            Value::Null => {
                assert_eq!(page["total_groups"], seen.len());
                return;
            }
            cursor => question["cursor"] = cursor.clone(),
        }
    }
}

#[tokio::test]
async fn empty_answer_has_a_reason() {
    let app = App::new().demo();
    let answer = app
        .call(
            TOOL,
            json!({"ml_app": "docs-asistant", "from": "now-8d", "group_by": ["@name"]}),
        )
        .await;
    assert_eq!(answer["groups"], json!([]));
    assert_eq!(answer["why_empty"]["filter"], "ml_app");
    let candidates = answer["why_empty"]["candidates"].to_string();
    assert!(candidates.contains("docs-assistant"), "{answer}");
}

#[rstest]
#[case(json!({"group_by": ["a", "b", "c", "d"]}), "at most 3")]
#[case(json!({"group_by": ["@trace.llm_calls"]}), "@child and @trace")]
#[case(json!({"group_by": [17]}), "list of facets")]
#[case(json!({"group_by": ["a b"]}), "group_by is not valid")]
#[case(json!({"group_by": [{"name": "x", "query": "(open"}]}), "the query of a bucket")]
#[case(json!({"group_by": [{"name": "x", "query": "@a:1"}, {"name": "x", "query": "@b:1"}]}), "same name")]
#[case(json!({"measures": ["speed"]}), "unknown measure")]
#[case(json!({"measures": {"a": 1}}), "list of names")]
#[case(json!({"interval": "soon"}), "not a length of time")]
#[case(json!({"interval": "1s", "from": "now-7d"}), "buckets")]
#[case(json!({"unit": "session"}), "span or trace")]
#[case(json!({"query": "\"open"}), "query is not valid")]
#[case(json!({"query": "@duration:>"}), "invalid query")]
#[case(json!({"from": "yesterday"}), "time")]
#[case(json!({"cursor": "page2"}), "not valid for")]
#[tokio::test]
async fn error_of_wrong_arguments_has_an_example_that_works(
    #[case] question: Value,
    #[case] words: &str,
) {
    let app = App::new();
    let error = app.refusal(TOOL, question).await;
    assert!(error["error"].as_str().unwrap().contains(words), "{error}");
    assert_eq!(error["status"], 400, "{error}");
    let example = &error["example"];
    let tool = example["tool"].as_str().unwrap();
    app.call(tool, example["arguments"].clone()).await;
}

#[rstest]
#[case(json!({}), "invalid aggregation request")]
#[case(json!({"window": {"from_ms": 0, "to_ms": 1}, "limit": 1, "measures": ["speed"]}), "a measure is one of")]
#[case(json!({"window": {"from_ms": 0, "to_ms": 1}, "limit": 1, "group_by": [{"facet": "a b"}]}), "invalid `group_by`")]
#[case(json!({"window": {"from_ms": 0, "to_ms": 1}, "limit": 1, "query": "("}), "invalid query")]
#[tokio::test]
async fn endpoint_refuses_malformed_requests(#[case] body: Value, #[case] words: &str) {
    let app = App::new();
    let (status, answer) = app.send("POST", ENDPOINT, &body).await;
    assert_eq!(status, 400);
    assert!(answer.to_string().contains(words), "{answer}");
}

#[tokio::test]
async fn extreme_numbers_are_accepted() {
    let app = App::new().demo();
    let window = json!({"from_ms": i64::MIN, "to_ms": i64::MAX});
    let body = json!({"window": window, "limit": u64::MAX, "offset": 3, "interval_ms": 1,
        "group_by": [{"facet": "@name"}, {"facet": "@name"}]});
    let (status, answer) = app.send("POST", ENDPOINT, &body).await;
    assert_eq!(status, 200, "{answer}");
    let body = json!({"window": window, "limit": 1, "interval_ms": -5});
    assert_eq!(app.send("POST", ENDPOINT, &body).await.0, 200);
}

#[test]
fn tool_costs_less_than_900_tokens() {
    let tool = llmobs_mcp::tools::find(TOOL).unwrap();
    let schema = Value::Object(tool.input_schema()).to_string();
    let tokens = (schema.len() + tool.description.len() + tool.title.len()).div_ceil(4);
    println!("{TOOL}: about {tokens} tokens");
    assert!(tokens < 900, "{tokens}");
}
