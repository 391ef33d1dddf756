//! The demo data gives the answers in `fixtures/demo-answers.json`, which a separate program computed
//! from the data files.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::App;

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo-answers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn tools_show_every_demo_scenario() {
    let app = App::new().demo();
    let expected = expected();
    for (title, story) in expected["stories"].as_object().unwrap() {
        let trace = json!({"trace_id": story["trace_id"]});
        let tree = app.call("get_llmobs_trace", trace.clone()).await;
        assert_eq!(tree["total_spans"], story["spans"], "{title}");

        let errors = app.call("find_llmobs_error_spans", trace.clone()).await;
        assert_eq!(errors["error_count"], story["error_spans"], "{title}");
        assert_eq!(
            span_ids(&errors["error_spans"], |row| row["is_origin"] == true),
            span_ids(&story["origin"], |_| true),
            "{title}: error origins"
        );
        assert_eq!(
            span_ids(&errors["soft_errors"], |row| row["span_kind"] == "tool"),
            span_ids(&story["soft_errors"], |_| true),
            "{title}: soft errors"
        );

        let followed = app.call("get_llmobs_agent_loop", trace).await;
        assert!(
            followed["total_iterations"].as_u64() > Some(0),
            "{title}: an empty loop"
        );
    }
}

/// The span ids of some rows, sorted.
fn span_ids(rows: &Value, matches: impl Fn(&Value) -> bool) -> Vec<String> {
    let rows = rows.as_array().unwrap().iter().filter(|row| matches(row));
    let mut ids: Vec<String> = rows
        .map(|row| row["span_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn each_application_has_its_spans() {
    let app = App::new().demo();
    for (name, numbers) in expected()["apps"].as_object().unwrap() {
        let roots = app
            .all_spans(json!({"ml_app": name, "from": "now-30d", "limit": 500, "summary": true}))
            .await;
        assert_eq!(
            roots.len(),
            numbers["spans"].as_u64().unwrap() as usize,
            "{name}"
        );
    }
}

/// The demo's project, baseline and candidate.
async fn experiments(app: &App) -> (String, String, String) {
    let project = app
        .call(
            "get_llmobs_project",
            json!({"project_name": "refund-helper-quality"}),
        )
        .await;
    let project = project["id"].as_str().unwrap().to_owned();
    let listed = app
        .call("list_llmobs_experiments", json!({"project_id": project}))
        .await;
    let id = |name: &str| {
        let rows = listed["experiments"].as_array().unwrap();
        let row = rows.iter().find(|row| row["experiment"] == name);
        row.unwrap_or_else(|| panic!("{name} in {listed}"))["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (baseline, candidate) = (id("help-desk-baseline"), id("help-desk-candidate"));
    (project, baseline, candidate)
}

#[tokio::test]
async fn experiment_errors_have_candidates_and_working_examples() {
    let app = App::new().demo();
    let (_, baseline, candidate) = experiments(&app).await;
    let with = |key: &str, value: &str| json!({"experiment_id": baseline, key: value});
    let pair = |second: &str, label: &str| json!({"baseline_experiment_id": baseline, "candidate_experiment_id": second, "metric_labels": [label]});
    let summary = "get_llmobs_experiment_summary";
    let values = "get_llmobs_experiment_metric_values";
    let dimension = "get_llmobs_experiment_dimension_values";
    let compare = "compare_llmobs_experiments";
    let typo = "policy_corect";
    for (tool, arguments, wrong, nearest) in [
        (
            summary,
            json!({"experiment_id": "no-such"}),
            "experiment not found: no-such",
            None,
        ),
        (
            summary,
            json!({"experiment_id": "help-desk-baseline"}),
            "this is the name of an experiment",
            Some(baseline.as_str()),
        ),
        (
            values,
            with("metric_label", typo),
            "metric not found",
            Some("policy_correct"),
        ),
        (
            "list_llmobs_experiment_events",
            with("sort_by_metric_label", typo),
            "metric not found",
            Some("policy_correct"),
        ),
        (
            dimension,
            with("dimension_key", "teir"),
            "dimension not found: teir",
            Some("tier"),
        ),
        (
            compare,
            pair(&candidate, typo),
            "metric not found in both experiments",
            Some("policy_correct"),
        ),
        (
            compare,
            pair("another", "tone"),
            "experiment not found: another",
            None,
        ),
        (
            "get_llmobs_project",
            json!({"project_name": "refund-helper"}),
            "project not found",
            Some("refund-helper-quality"),
        ),
        (
            "list_llmobs_datasets",
            json!({"project_id": "another"}),
            "project not found: another",
            None,
        ),
    ] {
        let error = app.refusal(tool, arguments).await;
        assert!(error.to_string().contains(wrong), "{tool}: {error}");
        assert_eq!(error["candidates"][0].as_str(), nearest, "{tool}: {error}");
        let example = &error["example"];
        let works = example["tool"].as_str().expect("a call that works");
        app.call(works, example["arguments"].clone()).await;
    }
    let none = app
        .refusal("get_llmobs_experiment_event", with("event_id", "17"))
        .await;
    let event = none["candidates"][0].as_str().expect("an existing event");
    app.call("get_llmobs_experiment_event", with("event_id", event))
        .await;
}

#[tokio::test]
async fn notes_running_experiment_and_missing_metrics() {
    let app = App::new().demo();
    let (project, baseline, _) = experiments(&app).await;
    let created = json!({"project_id": project, "experiment_name": "begun"});
    let made = app.call("create_llmobs_experiment", created).await;
    let id = made["experiment_id"].as_str().unwrap().to_owned();
    let one = json!({"experiment_id": id});
    let change = json!({"experiment_id": id, "status": "running"});
    app.call("update_llmobs_experiment", change).await;

    let summary = app.call("get_llmobs_experiment_summary", one).await;
    assert_eq!(summary["total_events"], 0);
    assert_eq!(summary["evals"], json!({}));
    assert!(
        summary["notes"].to_string().contains("still running"),
        "{summary}"
    );
    let label = json!({"experiment_id": id, "metric_label": "tone"});
    let error = app
        .refusal("get_llmobs_experiment_metric_values", label)
        .await;
    assert!(
        error
            .to_string()
            .contains("no event of this experiment has a metric"),
        "{error}"
    );
    let both = json!({"baseline_experiment_id": baseline, "candidate_experiment_id": id});
    let compared = app.call("compare_llmobs_experiments", both).await;
    assert_eq!(compared["verdicts"], json!({}));
    assert_eq!(compared["only_in_baseline"]["records"], 72);
    let notes = compared["notes"].to_string();
    for note in [
        "the candidate is still running",
        "the candidate has no events",
    ] {
        assert!(notes.contains(note), "{notes}");
    }

    let here = json!({"project_id": project, "experiment_name": "begun"});
    assert_eq!(
        app.call("list_llmobs_experiments", here).await["experiments"][0]["id"],
        id.as_str()
    );
    let project = json!({"project_name": "another"});
    let other = json!({"project_id": "another"});
    let other = app.call("list_llmobs_experiments", other).await;
    assert_eq!(other["experiments"], json!([]));
    assert_eq!(
        app.refusal("get_llmobs_project", project).await["status"],
        404
    );
}
