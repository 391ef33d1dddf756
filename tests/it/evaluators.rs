//! Evaluators: writing, reading, previewing and deleting them, the statistics of their evaluations, and
//! errors with an example that works.

use std::collections::BTreeMap;
use std::sync::Arc;

use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_mcp::tools::ToolContext;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{App, NOW_MS};

const GET: &str = "get_llmobs_evaluator";
const WRITE: &str = "create_or_update_llmobs_evaluator";
const DELETE: &str = "delete_llmobs_evaluator";
const STATS: &str = "get_llmobs_eval_aggregate_stats";
const PREVIEW: &str = "preview_llmobs_evaluator";
const NS: i64 = 1_000_000;

fn boolean() -> Value {
    json!({
        "eval_name": "faithful", "application_name": "shop", "enabled": false,
        "integration_provider": "openai", "model_name": "gpt-4.1-mini", "temperature": 0,
        "prompt_template": [{"role": "system", "content": "Judge {{span_input}}."},
            {"role": "user", "content": "Q: {{span_input}}\nA: {{span_output}}\nSource: {{meta.metadata.source}}"}],
        "parsing_type": "structured_output",
        "output_schema": {"type": "object", "properties": {"boolean_eval": {"type": "boolean"}},
            "required": ["boolean_eval"], "additionalProperties": false},
        "assessment_criteria": {"pass_when": true},
        "filter": "@meta.span.kind:llm", "sampling_percentage": 10,
    })
}

fn with(mut value: Value, mut changes: Value) -> Value {
    for (key, change) in changes.as_object_mut().unwrap() {
        if change.is_null() {
            value.as_object_mut().unwrap().remove(key);
        } else {
            value[key] = change.take();
        }
    }
    value
}

/// An answer without the times that change with every run.
fn without_times(mut value: Value) -> Value {
    fn visit(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in ["created_at", "updated_at"] {
                    if let Some(time) = map.get_mut(key).filter(|time| time.is_string()) {
                        *time = json!("[time]");
                    }
                }
                map.values_mut().for_each(visit);
            }
            Value::Array(items) => items.iter_mut().for_each(visit),
            _ => {}
        }
    }
    visit(&mut value);
    value
}

/// A root span with an LLM call as its child, in a session of three traces.
fn turn(number: i64) -> [Value; 2] {
    let span = |id: i64, parent: &str, name: &str, meta: Value| {
        json!({"span_id": id.to_string(), "trace_id": format!("{:032x}", 900 + number),
            "parent_id": parent, "name": name, "status": "ok",
            "start_ns": (NOW_MS - number * 600_000) * NS + id, "duration": 5_000_000,
            "session_id": format!("s{}", number / 3),
            "tags": ["ml_app:shop", format!("session_id:s{}", number / 3)], "meta": meta, "metrics": {}})
    };
    let root = span(
        1_000 + number,
        "undefined",
        "handle",
        json!({"span": {"kind": "workflow"}, "input": {"value": format!("question {number}")}, "output": {"value": "done"}}),
    );
    let llm = span(
        2_000 + number,
        &format!("{}", 1_000 + number),
        "ask",
        json!({"span": {"kind": "llm"},
            "input": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": format!("question {number}")}]},
            "output": {"messages": [{"role": "assistant", "content": format!("answer {number}")}]},
            "metadata": if number % 2 == 0 { json!({"source": "manual.pdf"}) } else { json!({}) }}),
    );
    [root, llm]
}

async fn shop() -> App {
    let app = App::new();
    let spans: Vec<Value> = (1..=9).flat_map(turn).collect();
    app.spans(json!(spans)).await;
    app
}

/// The same data behind a site with the documented API only.
fn without_private_endpoints(app: &App) -> ToolContext {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    let router = app.backend.router().layer(axum::middleware::from_fn(
        |request: axum::extract::Request, next: axum::middleware::Next| async move {
            if request.uri().path().contains("/llm-obs-mcp/") {
                return StatusCode::NOT_FOUND.into_response();
            }
            next.run(request).await
        },
    ));
    let transport = Arc::new(RouterTransport(router));
    let hub = Hub::new(Upstream::Local, transport, HubSettings::default());
    ToolContext {
        client: hub.client(Credential::None, "test"),
        now_ms: NOW_MS,
    }
}

#[tokio::test]
async fn evaluator_is_written_read_listed_and_deleted() {
    let app = App::new();
    let created = app.call(WRITE, boolean()).await;
    assert_eq!(
        created,
        json!({"status": "ok", "eval_name": "faithful", "created": true,
        "changed": [], "reset_to_default": []})
    );
    let shown = app.call(GET, json!({"eval_name": "faithful"})).await;
    insta::assert_json_snapshot!("get", without_times(shown.clone()));
    let by_old_name = app
        .call("get_llmobs_eval_config", json!({"eval_name": "faithful"}))
        .await;
    assert_eq!(by_old_name, shown);

    app.call(
        WRITE,
        with(
            boolean(),
            json!({"eval_name": "tone", "application_name": "bank", "enabled": true}),
        ),
    )
    .await;
    let all = app.call("list_llmobs_evals", json!({})).await;
    insta::assert_json_snapshot!("list", without_times(all));
    let shop = app
        .call("list_llmobs_evals_by_ml_app", json!({"ml_app": "shop"}))
        .await;
    assert_eq!(shop["evaluators"][0]["eval_name"], "faithful");
    assert_eq!(shop["total_count"], 1);
    let none = app
        .call("list_llmobs_evals_by_ml_app", json!({"ml_app": "nope"}))
        .await;
    assert_eq!(none["evaluators"], json!([]));
    assert_eq!(none["apps_with_evaluators"], json!(["bank", "shop"]));

    let deleted = app.call(DELETE, json!({"eval_name": "faithful"})).await;
    insta::assert_json_snapshot!("deleted", without_times(deleted.clone()));
    app.refusal(GET, json!({"eval_name": "faithful"})).await;
    app.call(WRITE, deleted["deleted"].clone()).await;
    let back = app.call(GET, json!({"eval_name": "faithful"})).await;
    assert_eq!(without_times(back), without_times(shown));
}

#[tokio::test]
async fn update_lists_changed_and_reset_fields() {
    let app = App::new();
    app.call(WRITE, boolean()).await;
    let less = with(
        boolean(),
        json!({"enabled": true, "filter": null, "sampling_percentage": null,
        "model_name": "gpt-4.1", "preview": true}),
    );
    let preview = app.call(WRITE, less.clone()).await;
    insta::assert_json_snapshot!("update_preview", preview);
    let unchanged = app.call(GET, json!({"eval_name": "faithful"})).await;
    assert_eq!(unchanged["target"]["filter"], "@meta.span.kind:llm");
    let written = app.call(WRITE, with(less, json!({"preview": null}))).await;
    assert_eq!(written["changed"], preview["changed"]);
    assert_eq!(written["reset_to_default"], preview["reset_to_default"]);
    let now = app.call(GET, json!({"eval_name": "faithful"})).await;
    assert_eq!(
        now["target"],
        json!({"application_name": "shop", "enabled": true, "eval_scope": "span", "root_spans_only": false})
    );
    let same = app.call(WRITE, now).await;
    assert_eq!(
        same["notes"],
        json!(["the configuration equals the saved one"])
    );
}

#[tokio::test]
async fn private_endpoints_share_the_evaluators() {
    let app = App::new();
    let private = |path: &str| format!("/api/unstable/llm-obs-mcp/v1/custom-evaluator/{path}");
    let (status, _) = app
        .send("POST", &private("create-or-update"), &boolean())
        .await;
    assert_eq!(status, 200);
    let name = json!({"eval_name": "faithful"});
    let (_, theirs) = app.send("POST", &private("get"), &name).await;
    assert_eq!(theirs, app.call(GET, name.clone()).await);
    let (status, refused) = app
        .send(
            "POST",
            &private("create-or-update"),
            &json!({"eval_name": "x"}),
        )
        .await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(app.send("POST", &private("delete"), &name).await.0, 200);
    assert_eq!(app.send("POST", &private("delete"), &name).await.0, 404);
    app.refusal(GET, name).await;
}

#[tokio::test]
async fn evaluators_survive_a_restart() {
    use llmobs_datadog_double::{DatadogDouble, DoubleOptions};
    use llmobs_local::{DataDir, LocalBackend, LocalOptions};
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let options = LocalOptions::new(DataDir::Path(directory.path().to_owned()));
        let backend = LocalBackend::open(options).unwrap();
        DatadogDouble::new(backend, DoubleOptions::default())
    };
    let app = App {
        backend: open(),
        context: App::new().context,
    };
    let path = "/api/unstable/llm-obs-mcp/v1/custom-evaluator/create-or-update";
    assert_eq!(app.send("POST", path, &boolean()).await.0, 200);
    drop(app);
    let app = App {
        backend: open(),
        context: App::new().context,
    };
    let (status, stored) = app
        .send(
            "GET",
            "/api/unstable/llm-obs/config/evaluators/custom/faithful",
            &json!({}),
        )
        .await;
    assert_eq!((status, &stored["data"]["id"]), (200, &json!("faithful")));
}

// --- statistics -------------------------------------------------------------------------------------

/// 10,000 evaluations of four types on 2,500 spans, and their expected statistics.
async fn evaluated_spans() -> (App, BTreeMap<&'static str, Value>) {
    let app = App::new();
    let spans: Vec<Value> = (0..2_500)
        .map(|n: i64| {
            json!({"span_id": format!("{n}"), "trace_id": format!("{n:032x}"), "parent_id": "undefined",
                "name": "handle", "status": "ok", "start_ns": (NOW_MS - n * 1_000) * NS, "duration": 1,
                "tags": ["ml_app:shop"], "meta": {"span": {"kind": "workflow"}}, "metrics": {}})
        })
        .collect();
    for batch in spans.chunks(500) {
        app.spans(json!(batch)).await;
    }
    let (mut passes, mut scores, mut words) = (0, Vec::new(), BTreeMap::<String, u64>::new());
    let mut metrics = Vec::new();
    for n in 0..2_500_i64 {
        let metric = |label: &str, kind: &str, value: Value, assessment: Option<&str>| {
            let mut metric = json!({"label": label, "metric_type": kind, "ml_app": "shop", "timestamp_ms": NOW_MS,
                "join_on": {"span": {"span_id": format!("{n}"), "trace_id": format!("{n:032x}")}}});
            metric[format!("{kind}_value")] = value;
            if let Some(assessment) = assessment {
                metric["assessment"] = json!(assessment);
            }
            metric
        };
        let noise = (n * 7_919) % 1_000;
        let good = noise < 730;
        passes += u64::from(good);
        let score = noise as f64 / 100.0;
        scores.push(score);
        let word = ["calm", "angry", "happy"][usize::try_from(noise % 3).unwrap()];
        *words.entry(word.to_owned()).or_default() += 1;
        metrics.push(metric(
            "ok",
            "boolean",
            json!(good),
            Some(if good { "pass" } else { "fail" }),
        ));
        metrics.push(metric("quality", "score", json!(score), None));
        metrics.push(metric("mood", "categorical", json!(word), None));
        metrics.push(metric("facts", "json", json!({"n": n}), None));
    }
    for batch in metrics.chunks(1_000) {
        app.evaluations(json!(batch)).await;
    }
    scores.sort_by(f64::total_cmp);
    let rank = |percent: f64| scores[((scores.len() as f64 * percent).ceil() as usize).max(1) - 1];
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let rate = passes as f64 / 2_500.0;
    let mut top: Vec<(&String, &u64)> = words.iter().collect();
    top.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let top: Vec<Value> = top
        .iter()
        .map(|(word, count)| json!({"value": word, "count": count}))
        .collect();
    let expected = BTreeMap::from([
        (
            "ok",
            json!({"type": "boolean", "total_count": 2_500, "pass_count": passes,
            "fail_count": 2_500 - passes, "pass_rate": (rate * 1e4).round() / 1e4}),
        ),
        (
            "quality",
            json!({"type": "score", "total_count": 2_500, "score": {
            "mean": (mean * 1e4).round() / 1e4, "min": scores[0], "max": scores[2_499],
            "p50": rank(0.5), "p90": rank(0.9)}}),
        ),
        (
            "mood",
            json!({"type": "categorical", "total_count": 2_500, "top_values": top}),
        ),
        ("facts", json!({"type": "json", "total_count": 2_500})),
    ]);
    (app, expected)
}

#[tokio::test]
async fn statistics_equal_a_recount() {
    let (app, expected) = evaluated_spans().await;
    let counted = App {
        context: without_private_endpoints(&app),
        backend: app.backend.clone(),
    };
    for (name, sums) in &expected {
        for (source, app) in [("site", &app), ("counted", &counted)] {
            let started = std::time::Instant::now();
            let answer = app
                .call(STATS, json!({"eval_name": name, "ml_app": "shop"}))
                .await;
            println!("{name} {source}: {:?}", started.elapsed());
            assert_eq!(answer["source"], source);
            for (key, value) in sums.as_object().unwrap() {
                assert_eq!(&answer[key], value, "{name} {key} {source}");
            }
            if source == "counted" {
                assert_eq!(answer["sample"]["complete"], true);
                assert_eq!(answer["sample"]["spans_read"], 2_500);
            }
        }
    }
    let none = app.call(STATS, json!({"eval_name": "nothing"})).await;
    insta::assert_json_snapshot!("stats_of_nothing", none);
}

// --- preview ----------------------------------------------------------------------------------------

#[tokio::test]
async fn preview_counts_traffic_and_fills_in_prompts() {
    let app = shop().await;
    app.call(WRITE, boolean()).await;
    let saved = app.call(PREVIEW, json!({"eval_name": "faithful"})).await;
    insta::assert_json_snapshot!("preview_span", saved);
    let draft = app
        .call(PREVIEW, json!({"draft": boolean().to_string()}))
        .await;
    assert_eq!(draft["traffic"], saved["traffic"]);
    assert_eq!(draft["saved"], false);
}

#[tokio::test]
async fn preview_of_traces_and_sessions() {
    let app = shop().await;
    let trace = with(
        boolean(),
        json!({"eval_scope": "trace", "root_spans_only": true, "filter": null,
        "prompt_template": [{"role": "user", "content": "{{spans[*].name}} | {{spans[meta.span.kind:llm].meta.output.messages[0].content}} | {{spans[9].name}}"}]}),
    );
    let answer = app
        .call(PREVIEW, json!({"draft": trace, "sample": 1}))
        .await;
    insta::assert_json_snapshot!("preview_trace", answer);
    let session = with(
        boolean(),
        json!({"eval_scope": "session", "filter": null,
        "prompt_template": [{"role": "user", "content": "{{session_id}}: {{traces[*].spans[0].meta.input.value}}"}]}),
    );
    let answer = app
        .call(PREVIEW, json!({"draft": session, "sample": 1}))
        .await;
    insta::assert_json_snapshot!("preview_session", answer);
}

// --- errors ---------------------------------------------------------------------------------------

fn schema(name: &str, mut verdict: Value) -> Value {
    json!({"name": name, "strict": true, "schema": {"type": "object", "properties": {name: verdict.take()},
        "required": [name], "additionalProperties": false}})
}

#[rstest]
#[case("nothing", WRITE, json!({}))]
#[case("unknown_field", WRITE, with(boolean(), json!({"sampling": 5})))]
#[case("unknown_nested_field", WRITE, with(boolean(), json!({"target": {"filters": "x"}})))]
#[case("given_twice", WRITE, with(boolean(), json!({"target": {"enabled": true}})))]
#[case("bad_name", WRITE, with(boolean(), json!({"eval_name": "../other"})))]
#[case("dotted_name", WRITE, with(boolean(), json!({"eval_name": "tone.score"})))]
#[case("bad_provider", WRITE, with(boolean(), json!({"integration_provider": "opnai"})))]
#[case("bad_sampling", WRITE, with(boolean(), json!({"sampling_percentage": 0})))]
#[case("bad_filter", WRITE, with(boolean(), json!({"filter": "@name:\"x"})))]
#[case("bad_placeholder", WRITE, with(boolean(), json!({"prompt_template": [{"role": "user", "content": "{{spans[-1].name}}"}]})))]
#[case("misplaced_placeholder", WRITE, with(boolean(), json!({"prompt_template": [{"role": "user", "content": "{{spans[0].name}}"}]})))]
#[case("no_user_message", WRITE, with(boolean(), json!({"prompt_template": [{"role": "system", "content": "x"}]})))]
#[case("trace_without_roots", WRITE, with(boolean(), json!({"eval_scope": "trace", "prompt_template": [{"role": "user", "content": "{{spans[0].name}}"}]})))]
#[case("bad_schema_name", WRITE, with(boolean(), json!({"output_schema": schema("vibes", json!({}))})))]
#[case("open_schema", WRITE, with(boolean(), json!({"output_schema": {"type": "object", "properties": {"boolean_eval": {"type": "boolean"}}, "required": ["boolean_eval"]}})))]
#[case("score_without_range", WRITE, with(boolean(), json!({"output_schema": schema("score_eval", json!({"type": "number"}))})))]
#[case("categories_missing", WRITE, with(boolean(), json!({"output_schema": schema("categorical_eval", json!({"type": "string"}))})))]
#[case("criteria_of_another_type", WRITE, with(boolean(), json!({"assessment_criteria": {"min_threshold": 3}})))]
#[case("criteria_out_of_range", WRITE, with(boolean(), json!({"output_schema": schema("score_eval", json!({"type": "number", "minimum": 0, "maximum": 4})), "assessment_criteria": {"min_threshold": 5}})))]
#[case("criteria_of_no_category", WRITE, with(boolean(), json!({"output_schema": schema("categorical_eval", json!({"type": "string", "anyOf": [{"const": "calm"}]})), "assessment_criteria": {"pass_values": ["angry"]}})))]
#[case("keywords_that_score", WRITE, with(boolean(), json!({"parsing_type": "keyword_search", "output_schema": schema("score_eval", json!({"type": "number", "minimum": 0, "maximum": 4}))})))]
#[case("bad_parameters", WRITE, with(boolean(), json!({"temperature": 9, "max_tokens": 0})))]
#[case("bad_preview_flag", WRITE, with(boolean(), json!({"preview": "perhaps"})))]
#[case("unknown_evaluator", GET, json!({"eval_name": "faithfull"}))]
#[case("path_as_name", GET, json!({"eval_name": "../../x"}))]
#[case("no_name", GET, json!({}))]
#[case("delete_unknown", DELETE, json!({"eval_name": "nope"}))]
#[case("delete_unknown_argument", DELETE, json!({"eval_name": "faithful", "eval": "x"}))]
#[case("delete_path", DELETE, json!({"eval_name": ".."}))]
#[case("preview_of_nothing", PREVIEW, json!({}))]
#[case("preview_of_a_bad_draft", PREVIEW, json!({"draft": {"filter": "((", "eval_name": "x"}}))]
#[case("preview_of_unknown", PREVIEW, json!({"eval_name": "nope"}))]
#[case("stats_bad_time", STATS, json!({"eval_name": "faithful", "from": "yesterday"}))]
#[case("list_bad_cursor", "list_llmobs_evals", json!({"cursor": "x"}))]
#[tokio::test]
async fn every_error_has_an_example_that_works(
    #[case] name: &str,
    #[case] tool: &str,
    #[case] arguments: Value,
) {
    let app = App::new();
    app.call(WRITE, boolean()).await;
    let error = app.refusal(tool, arguments).await;
    insta::assert_json_snapshot!(format!("refused_{name}"), error);

    let example = &error["example"];
    let tool = example["tool"].as_str().expect("a call that works");
    app.call(tool, example["arguments"].clone()).await;
    if tool == WRITE {
        // The corrected call writes when it is sent without `preview`.
        app.call(
            tool,
            with(example["arguments"].clone(), json!({"preview": null})),
        )
        .await;
    }
}

#[tokio::test]
async fn name_with_special_characters_is_one_path_segment() {
    let app = App::new();
    let odd = with(boolean(), json!({"eval_name": "Süß & bitter+1 @2"}));
    app.call(WRITE, odd).await;
    let name = json!({"eval_name": "Süß & bitter+1 @2"});
    assert_eq!(
        app.call(GET, name.clone()).await["eval_name"],
        name["eval_name"]
    );
    app.call(DELETE, name).await;
}

#[tokio::test]
async fn update_keeps_fields_unknown_to_this_program() {
    let app = App::new();
    app.call(WRITE, boolean()).await;
    let path = "/api/unstable/llm-obs/config/evaluators/custom/faithful";
    let (_, mut document) = app.send("GET", path, &json!({})).await;
    document["data"]["attributes"]["target"]["span_age"] = json!("5m");
    document["data"]["attributes"]["llm_judge_config"]["inference_params"]["effort"] = json!("low");
    assert_eq!(app.send("PUT", path, &document).await.0, 200);
    let shown = app.call(GET, json!({"eval_name": "faithful"})).await;
    assert_eq!(
        shown["other"],
        json!({"target.span_age": "5m", "llm_judge_config.inference_params.effort": "low"})
    );
    app.call(WRITE, with(boolean(), json!({"enabled": true})))
        .await;
    let (_, after) = app.send("GET", path, &json!({})).await;
    assert_eq!(after["data"]["attributes"]["target"]["span_age"], "5m");
    assert_eq!(
        after["data"]["attributes"]["llm_judge_config"]["inference_params"]["effort"],
        "low"
    );
}

// --- evaluations of every type, as they are sent -----------------------------------------------------

#[tokio::test]
async fn every_evaluation_type_is_found_by_both_facets() {
    let app = App::new();
    let on_span = json!({"span": {"span_id": "2001", "trace_id": format!("{:032x}", 901)}});
    let on_root = json!({"span": {"span_id": "1001", "trace_id": format!("{:032x}", 901)}});
    let base = |label: &str, more: Value| {
        with(
            json!({"label": label, "ml_app": "shop", "timestamp_ms": NOW_MS, "join_on": on_span}),
            more,
        )
    };
    // Sent before their spans.
    app.evaluations(json!([
        base("b", json!({"metric_type": "boolean", "boolean_value": false, "assessment": "fail", "reasoning": "no source"})),
        base("s", json!({"metric_type": "score", "score_value": 0.4})),
        base("c", json!({"metric_type": "categorical", "categorical_value": "calm"})),
        base("j", json!({"metric_type": "json", "json_value": {"facts": [1]}})),
    ])).await;
    let spans: Vec<Value> = (1..=4).flat_map(turn).collect();
    app.spans(json!(spans)).await;
    // Sent after their spans.
    app.evaluations(json!([
        base("t", json!({"metric_type": "boolean", "boolean_value": true, "eval_scope": "trace", "join_on": on_root})),
        base("whole_session", json!({"metric_type": "score", "score_value": 5, "eval_scope": "session", "join_on": null, "session_id": "s0"})),
        base("unsure", json!({"metric_type": "score", "status": "WARN", "error": {"message": "short"}})),
        base("broken", json!({"metric_type": "score", "status": "ERROR", "error": {"type": "timeout", "message": "judge timed out"}})),
        base("tagged", json!({"metric_type": "categorical", "categorical_value": "x", "join_on": {"tag": {"key": "session_id", "value": "s1"}}})),
    ])).await;
    let one = vec!["2001"];
    let cases = [
        ("@evaluations.custom.b:*", one.clone()),
        ("@evaluations.custom.b:false", one.clone()),
        ("@evaluation.b.value:false", one.clone()),
        ("@evaluation.b.assessment:fail", one.clone()),
        ("@evaluations.custom.b.assessment:fail", one.clone()),
        ("@evaluation.s.value:<0.5", one.clone()),
        ("@evaluations.custom.s:<0.5", one.clone()),
        ("@evaluation.c.value:calm", one.clone()),
        ("@evaluations.custom.c:calm", one.clone()),
        ("@evaluations.custom.j:*", one.clone()),
        ("@evaluation.j.value.facts:1", one.clone()),
        ("@evaluation.t.value:true", vec!["1001"]),
        ("@evaluation.whole_session.value:5", vec!["1001", "1002"]),
        ("@evaluation.unsure.status:WARN", one.clone()),
        ("@evaluations.custom.broken:*", one.clone()),
        (
            "@evaluation.tagged.value:x @parent_id:undefined",
            vec!["1003", "1004"],
        ),
    ];
    for (query, expected) in cases {
        let answer = app
            .call("search_llmobs_spans", json!({"query": query}))
            .await;
        let mut ids: Vec<&str> = answer["spans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["span_id"].as_str().unwrap())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{query}");
    }
    let details = app
        .call(
            "get_llmobs_span_details",
            json!({"trace_id": format!("{:032x}", 901), "span_ids": ["2001", "1001"]}),
        )
        .await;
    let spans = details["spans"].as_array().unwrap();
    let of =
        |id: &str| spans.iter().find(|span| span["span_id"] == id).unwrap()["evaluations"].clone();
    insta::assert_json_snapshot!(
        "evaluations_shown",
        json!({"llm": of("2001"), "root": of("1001")})
    );
    // The evaluation of the session is on two roots and counts once.
    let sums = app.call(STATS, json!({"eval_name": "whole_session"})).await;
    assert_eq!(sums["total_count"], 1);
    let sums = app.call(STATS, json!({"eval_name": "broken"})).await;
    assert_eq!(
        (&sums["total_count"], &sums["by_status"]),
        (&json!(1), &json!({"ERROR": 1}))
    );
}
