//! The demo's data give the answers that `fixtures/demo-answers.json` worked out from the files
//! with a program of its own.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::App;

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo-answers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn every_story_of_the_demo_is_told_by_the_tools() {
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
            "{title}: where the errors began"
        );
        assert_eq!(
            span_ids(&errors["soft_errors"], |row| row["span_kind"] == "tool"),
            span_ids(&story["soft_errors"], |_| true),
            "{title}: tools that failed quietly"
        );

        let followed = app.call("get_llmobs_agent_loop", trace).await;
        assert!(
            followed["total_iterations"].as_u64() > Some(0),
            "{title}: an empty loop"
        );
    }
}

/// The span ids of some rows, sorted.
fn span_ids(rows: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let rows = rows.as_array().unwrap().iter().filter(|row| wanted(row));
    let mut ids: Vec<String> = rows
        .map(|row| row["span_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn each_application_has_its_traces() {
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
