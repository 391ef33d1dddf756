//! The experiment tools on recorded requests of the SDK, with a test double of the documented control
//! plane.

use std::time::Duration;

use datadog_llmobs::HubSettings;
use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use crate::control_double::Control;

const PROJECT: &str = "1c1ac87f-de95-5202-a44a-e3d038fadc94";
const DATASET: &str = "84366774-1f66-5ae6-9ea3-dd1654628ef6";
const BASELINE: &str = "bfa5535a-6d78-4cbd-a0dc-92cdfb6b1bf8";
const CANDIDATE: &str = "87529718-2849-4ea5-9c69-6a685ef9f628";
const RERUN: &str = "0dacd35e-f103-4536-a53e-938205d9ca54";

#[rstest]
#[case("summary", "get_llmobs_experiment_summary", json!({"experiment_id": BASELINE}))]
#[case("summary_of_rerun", "get_llmobs_experiment_summary", json!({"experiment_id": RERUN}))]
#[case("events", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "limit": 3,
    "sort_by_metric_label": "length_score", "filter_dimension_key": "run_iteration", "filter_dimension_value": "2"}))]
#[case("failed_events", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "filter_dimension_key": "error_type"}))]
#[case("events_by_value", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "limit": 1,
    "filter_metric_label": "verdict", "filter_metric_value": "correct"}))]
#[case("event", "get_llmobs_experiment_event", json!({"experiment_id": BASELINE, "event_id": "2440809235329283646"}))]
#[case("failed_event", "get_llmobs_experiment_event", json!({"experiment_id": BASELINE, "event_id": "3345210843670272022"}))]
#[case("score", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "length_score",
    "segment_by_dimension": "difficulty"}))]
#[case("boolean", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "exact_match",
    "segment_by_dimension": "region", "segment_dimension_value": "eu", "include_failed": true}))]
#[case("categorical", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "verdict",
    "segment_by_dimension": "run_iteration"}))]
#[case("json", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "breakdown"}))]
#[case("summary_metric", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "accuracy"}))]
#[case("errors", "get_llmobs_experiment_dimension_values", json!({"experiment_id": BASELINE, "dimension_key": "error_type"}))]
#[case("no_errors", "get_llmobs_experiment_dimension_values", json!({"experiment_id": CANDIDATE, "dimension_key": "error_type"}))]
#[case("compare", "compare_llmobs_experiments", json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": CANDIDATE}))]
#[case("compare_rerun", "compare_llmobs_experiments", json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": RERUN,
    "segment_by_dimension": "difficulty"}))]
#[case("experiments", "list_llmobs_experiments", json!({"project_id": PROJECT, "limit": 2}))]
#[case("projects", "list_llmobs_projects", json!({}))]
#[case("project", "get_llmobs_project", json!({"project_name": "geo-project"}))]
#[case("datasets", "list_llmobs_datasets", json!({"project_id": PROJECT}))]
#[case("records", "get_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "limit": 2}))]
#[case("records_by_tag", "get_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET,
    "tags": ["region:africa", "difficulty:hard"], "compute_schema": false}))]
#[case("full_records", "get_llmobs_full_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET,
    "record_ids": ["c46f27fff9a141028a91a5369794781c", "nope"]}))]
#[case("records_preview", "add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET,
    "records": [{"input": "Capital of Peru?", "tags": {"region": "latam"}}]}))]
#[case("records_added", "add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "confirmed": true,
    "records": [{"input": "Capital of Peru?", "expected_output": "Lima", "tags": ["region:latam"]}]}))]
#[case("created", "create_llmobs_experiment", json!({"project_id": PROJECT, "experiment_name": "try", "config": {"model": "m"}}))]
#[case("updated", "update_llmobs_experiment", json!({"experiment_id": BASELINE, "status": "Completed", "metadata": {"a": 1}}))]
#[case("submitted", "submit_llmobs_experiment_events", json!({"experiment_id": BASELINE, "tags": ["iteration:3"],
    "metrics": [{"label": "acc", "score_value": 0.5}, {"label": "ok", "metric_type": "boolean", "boolean_value": true}]}))]
#[tokio::test]
async fn answers_on_recorded_experiments_match_snapshots(
    #[case] name: &str,
    #[case] tool: &str,
    #[case] arguments: Value,
) {
    let control = Control::captured();
    insta::assert_json_snapshot!(
        format!("experiments_{name}"),
        control.call(tool, arguments).await
    );
}

#[rstest]
#[case("unknown_experiment", "get_llmobs_experiment_summary", json!({"experiment_id": "no-such-experiment"}))]
#[case("name_for_id", "get_llmobs_experiment_summary", json!({"experiment_id": "capitals-baseline"}))]
#[case("no_experiment", "get_llmobs_experiment_summary", json!({}))]
#[case("unknown_metric", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "exact-mach"}))]
#[case("unknown_sort", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "sort_by_metric_label": "length"}))]
#[case("bad_direction", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "sort_direction": "up"}))]
#[case("value_alone", "list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "filter_dimension_value": "eu"}))]
#[case("unknown_dimension", "get_llmobs_experiment_dimension_values", json!({"experiment_id": BASELINE, "dimension_key": "regoin"}))]
#[case("unknown_segment", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "exact_match",
    "segment_by_dimension": "region", "segment_dimension_value": "euro"}))]
#[case("segment_alone", "get_llmobs_experiment_metric_values", json!({"experiment_id": BASELINE, "metric_label": "exact_match",
    "segment_dimension_value": "eu"}))]
#[case("unknown_event", "get_llmobs_experiment_event", json!({"experiment_id": BASELINE, "event_id": "17"}))]
#[case("record_for_event", "get_llmobs_experiment_event", json!({"experiment_id": BASELINE, "event_id": "c46f27fff9a141028a91a5369794781c"}))]
#[case("same_twice", "compare_llmobs_experiments", json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": BASELINE}))]
#[case("compare_unknown_metric", "compare_llmobs_experiments", json!({"baseline_experiment_id": BASELINE,
    "candidate_experiment_id": CANDIDATE, "metric_labels": ["exact"]}))]
#[case("no_project", "list_llmobs_experiments", json!({"limit": 3}))]
#[case("unknown_project", "get_llmobs_project", json!({"project_name": "geo"}))]
#[case("wrong_project", "list_llmobs_datasets", json!({"project_id": "another"}))]
#[case("wrong_dataset", "get_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": "another"}))]
#[case("unknown_records", "get_llmobs_full_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "record_ids": ["a"]}))]
#[case("four_records", "get_llmobs_full_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET,
    "record_ids": ["c46f27fff9a141028a91a5369794781c", "b", "c", "d"]}))]
#[tokio::test]
async fn every_error_has_an_example_that_works(
    #[case] name: &str,
    #[case] tool: &str,
    #[case] arguments: Value,
) {
    let control = Control::captured();
    let error = control.refusal(tool, arguments).await;
    insta::assert_json_snapshot!(format!("experiments_refused_{name}"), error);
    let example = &error["example"];
    let tool = example["tool"].as_str().expect("a call that works");
    control.call(tool, example["arguments"].clone()).await;
}

#[rstest]
#[case("add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "confirm": true, "records": [{"input": 1}]}), "confirmed")]
#[case("add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "confirmed": true, "records": [{"inptu": 1}]}), "input")]
#[case("add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": DATASET, "confirmed": true, "records": []}), "list of objects")]
#[case("add_llmobs_dataset_records", json!({"project_id": PROJECT, "dataset_id": "other", "confirmed": true, "records": [{"input": 1}]}), "dataset not found")]
#[case("create_llmobs_experiment", json!({"project_id": PROJECT, "name": "x"}), "experiment_name")]
#[case("update_llmobs_experiment", json!({"experiment_id": BASELINE, "state": "failed"}), "status")]
#[case("update_llmobs_experiment", json!({"experiment_id": BASELINE, "status": "done"}), "completed")]
#[case("update_llmobs_experiment", json!({"experiment_id": BASELINE}), "changes no field")]
#[case("submit_llmobs_experiment_events", json!({"experiment_id": BASELINE, "metrics": [{"label": "a", "score": 1}]}), "score_value")]
#[case("submit_llmobs_experiment_events", json!({"experiment_id": BASELINE, "metrics": [{"label": "a", "score_value": "high"}]}), "score_value")]
#[case("submit_llmobs_experiment_events", json!({"experiment_id": BASELINE, "metrics": [{"label": "a.b", "score_value": 1}]}), "dot")]
#[tokio::test]
async fn invalid_write_writes_nothing(
    #[case] tool: &str,
    #[case] arguments: Value,
    #[case] named: &str,
) {
    let control = Control::captured();
    let error = control.refusal(tool, arguments).await;
    assert!(error.to_string().contains(named), "{error}");
    assert!(error.to_string().contains("nothing was written"), "{error}");
    assert_eq!(control.state().written.len(), 0);
}

#[tokio::test]
async fn confirmed_write_is_sent_once() {
    let control = Control::captured();
    let mut records =
        json!({"project_id": PROJECT, "dataset_id": DATASET, "records": [{"input": {"q": 1}}]});
    control
        .call("add_llmobs_dataset_records", records.clone())
        .await;
    assert_eq!(control.state().written.len(), 0);
    records["confirmed"] = json!("true");
    control.state().write_fails = Some(503);
    let error = control.refusal("add_llmobs_dataset_records", records).await;
    assert_eq!(error["outcome_unknown"], true);
    assert_eq!(control.state().written.len(), 1);
    control.state().write_fails = Some(500);
    let change = json!({"experiment_id": BASELINE, "status": "failed"});
    let error = control.refusal("update_llmobs_experiment", change).await;
    assert!(error["hint"].as_str().unwrap().contains("safe"), "{error}");
    assert_eq!(control.state().written.len(), 2);
    let unknown = json!({"experiment_id": "../projects", "status": "failed"});
    let error = control.refusal("update_llmobs_experiment", unknown).await;
    assert_eq!(error["status"], 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_calls_load_an_experiment_once() {
    let control = Control::captured();
    control.state().page = Some(20);
    let mut questions = Vec::new();
    for label in [
        "exact_match",
        "verdict",
        "length_score",
        "breakdown",
        "crashy",
        "class_eval",
    ] {
        questions.extend([
            ("get_llmobs_experiment_summary", json!({"experiment_id": BASELINE})),
            ("list_llmobs_experiment_events", json!({"experiment_id": BASELINE, "sort_by_metric_label": label})),
            ("get_llmobs_experiment_event", json!({"experiment_id": BASELINE, "event_id": "2440809235329283646"})),
            ("get_llmobs_experiment_metric_values",
                json!({"experiment_id": BASELINE, "metric_label": label, "segment_by_dimension": "region"})),
            ("get_llmobs_experiment_dimension_values", json!({"experiment_id": BASELINE, "dimension_key": "region"})),
            ("compare_llmobs_experiments",
                json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": RERUN})),
        ]);
    }
    let ask = || {
        join_all(
            questions
                .iter()
                .map(|(tool, arguments)| control.call(tool, arguments.clone())),
        )
    };
    ask().await;
    let spans = |id: &str| control.state().spans[id].len().div_ceil(20);
    let pages = spans(BASELINE) + spans(RERUN);
    assert_eq!(control.state().request_counts["GET v3 events"], pages);
    let requests = control.requests();
    assert_eq!(requests, pages + 2, "and one request for the list of each");
    ask().await;
    assert_eq!(
        control.requests(),
        requests,
        "within thirty seconds the network is not touched"
    );

    control
        .call(
            "submit_llmobs_experiment_events",
            json!({"experiment_id": BASELINE,
        "metrics": [{"label": "acc", "score_value": 1}]}),
        )
        .await;
    control
        .call(
            "get_llmobs_experiment_summary",
            json!({"experiment_id": BASELINE}),
        )
        .await;
    assert!(
        control.requests() > requests + 1,
        "our own write makes it old at once"
    );
}

#[tokio::test]
async fn events_are_requested_in_the_largest_pages() {
    let control = Control::captured();
    control.state().page = Some(10);
    let summary = json!({"experiment_id": BASELINE});
    let answer = control.call("get_llmobs_experiment_summary", summary).await;
    assert_eq!(answer["total_events"], 14);
    let state = control.state();
    assert!(state.event_pages.len() > 1, "{:?}", state.event_pages);
    assert!(state.event_pages.iter().all(|limit| limit == "5000"));
}

#[tokio::test]
async fn unrelated_experiments_have_no_paired_records() {
    let control = Control::captured();
    let elsewhere = json!({"project_id": "another", "experiment_name": "capitals-baseline"});
    let listed = control.call("list_llmobs_experiments", elsewhere).await;
    assert_eq!(listed["experiments"], json!([]));
    let notes = listed["notes"].to_string();
    assert!(
        notes.contains("no experiment matches all of these filters"),
        "{notes}"
    );

    large(&control, "unrelated", 12, false);
    let both = json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": "unrelated"});
    let compared = control.call("compare_llmobs_experiments", both).await;
    assert_eq!(compared["paired_records"], 0);
    assert_eq!(compared["only_in_candidate"]["records"], 12);
    let notes = compared["notes"].to_string();
    assert!(
        notes.contains("no record is in both experiments"),
        "{notes}"
    );
}

#[tokio::test]
async fn later_events_appear_after_the_cache_expires() {
    assert_eq!(
        HubSettings::default().experiment_life,
        Duration::from_secs(30)
    );
    let life = Duration::from_millis(40);
    let control = Control::with(HubSettings {
        experiment_life: life,
        ..HubSettings::default()
    });
    control
        .state()
        .experiments
        .push(json!({"id": "e", "attributes": {"name": "n", "status": "running"}}));
    let question = json!({"experiment_id": "e"});
    let empty = control
        .call("get_llmobs_experiment_summary", question.clone())
        .await;
    assert_eq!(empty["total_events"], 0);
    assert!(
        empty["notes"][0]
            .as_str()
            .unwrap()
            .contains("still running"),
        "{empty}"
    );
    control.state().spans.insert(
        "e".into(),
        vec![json!({"id": "1", "span_id": "1", "trace_id": "t", "tags": []})],
    );
    tokio::time::sleep(life * 2).await;
    let later = control
        .call("get_llmobs_experiment_summary", question)
        .await;
    assert_eq!(later["total_events"], 1);
    assert!(
        later["notes"].to_string().contains("no event has a metric"),
        "{later}"
    );
}

#[tokio::test]
async fn pages_of_every_list_return_each_row_once() {
    let control = Control::captured();
    for (tool, list, mut arguments) in [
        (
            "list_llmobs_experiments",
            "experiments",
            json!({"project_id": PROJECT, "limit": 1}),
        ),
        (
            "get_llmobs_dataset_records",
            "records",
            json!({"project_id": PROJECT, "dataset_id": DATASET, "limit": 3, "max_tokens": 300}),
        ),
        (
            "get_llmobs_experiment_dimension_values",
            "values",
            json!({"experiment_id": BASELINE, "dimension_key": "dataset_record_id", "max_tokens": 200}),
        ),
        (
            "compare_llmobs_experiments",
            "flips",
            json!({"baseline_experiment_id": BASELINE, "candidate_experiment_id": RERUN, "max_tokens": 20_000}),
        ),
    ] {
        let mut rows: Vec<Value> = Vec::new();
        for _ in 0..50 {
            let page = control.call(tool, arguments.clone()).await;
            rows.extend(page[list].as_array().unwrap().clone());
            if page["next_cursor"].is_null() {
                break;
            }
            arguments["cursor"] = page["next_cursor"].clone();
        }
        let unique: std::collections::HashSet<String> =
            rows.iter().map(ToString::to_string).collect();
        let expected = match list {
            "experiments" => 3,
            "flips" => rows.len(),
            _ => 7,
        };
        assert_eq!((unique.len(), rows.len()), (expected, expected), "{tool}");
    }
}

/// An experiment with a number of records, each run twice, with ten metrics.
fn large(control: &Control, id: &str, records: usize, better: bool) {
    let mut spans = Vec::new();
    for record in 0..records {
        for run in 1..=2 {
            let metrics: Vec<Value> = (0..10)
                .map(|metric| {
                    let value = ((record * 7 + metric * 3 + run) % 10) as f64 / 10.0;
                    let worse = better && record % 4 == 0 && metric == 0;
                    json!({"label": format!("m{metric}"), "metric_type": "score", "timestamp_ms": 1,
                        "score_value": if worse { 0.0 } else { value }, "status": "OK"})
                })
                .collect();
            spans.push(json!({"span_id": (record * 2 + run).to_string(), "trace_id": "t", "status": "ok",
                "start_ns": 1_795_000_000_000_000_000_i64 + i64::try_from(record).unwrap(), "duration": 1_000_000,
                "tags": [format!("dataset_record_id:r{record}"), format!("run_iteration:{run}"),
                    format!("region:{}", ["eu", "asia", "latam", "africa"][record % 4])],
                "meta": {"span": {"kind": "experiment"}, "input": {"q": record}, "output": "x".repeat(200)},
                "eval_metrics": metrics}));
        }
    }
    control.state().spans.insert(id.to_owned(), spans);
    control
        .state()
        .experiments
        .push(json!({"id": id, "attributes": {"name": id, "status": "completed"}}));
}

#[tokio::test]
async fn finds_regression_in_one_region_of_hundreds_of_records() {
    let control = Control::new();
    large(&control, "base", 300, false);
    large(&control, "cand", 300, true);
    let answer = control
        .call(
            "compare_llmobs_experiments",
            json!({"baseline_experiment_id": "base",
        "candidate_experiment_id": "cand"}),
        )
        .await;
    assert_eq!(answer["verdicts"]["m0"], "regressed");
    assert_eq!(answer["verdicts"]["m1"], "no clear change");
    assert_eq!(
        answer["metrics"][0]["segments_worst_first"][0]["value"],
        "eu"
    );
    let all = answer.to_string().len();
    assert!(all < 8_000 * 4, "{all}");
}
