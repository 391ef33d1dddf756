//! Renaming, deleting, and optional parts of responses.

use http::Method;
use serde_json::{Value, json};

use super::super::{Local, START, span};
use super::{SDK, V1, body, id, texts};

#[tokio::test]
async fn dataset_is_renamed_and_deleted_within_its_project() {
    let local = Local::new();
    let project = local.project().await;
    let dataset = local.dataset(&project).await;
    let path = format!("{V1}/{project}/datasets");
    let other = id(&local.create(&path, json!({"name": "other"})).await);
    let change = json!({"name": "renamed", "description": "of the capitals", "metadata": {"owner": "search"}});
    let one = format!("{path}/{dataset}");
    let changed = local.ask(Method::PATCH, &one, &body(&change)).await.json()["data"].clone();
    assert_eq!(id(&changed), dataset);
    for (key, value) in change.as_object().unwrap() {
        assert_eq!(&changed["attributes"][key], value);
    }
    let taken = local
        .ask(Method::PATCH, &one, &body(&json!({"name": "other"})))
        .await;
    assert_eq!(taken.status, 409);
    assert!(taken.detail().contains("has this name"));
    let found = local.data(&format!("{path}?filter[name]=renamed")).await;
    assert_eq!(
        (id(&found[0]), found.as_array().unwrap().len()),
        (dataset.clone(), 1)
    );
    assert_eq!(
        local.data(&format!("{path}?filter[name]=d")).await,
        json!([]),
        "the old name is free"
    );

    let elsewhere = id(&local
        .create(&format!("{SDK}/projects"), json!({"name": "q"}))
        .await);
    let both = body(&json!({"dataset_ids": [dataset, other]}));
    let refused = local
        .post(&format!("{V1}/{elsewhere}/datasets/delete"), &both)
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.detail().as_str()),
        (404, "dataset not found")
    );
    assert_eq!(local.data(&path).await.as_array().unwrap().len(), 2);
    let gone = local.post(&format!("{path}/delete"), &both).await;
    assert_eq!(texts(&gone.json()["data"], "name"), ["renamed", "other"]);
    assert_eq!(local.data(&path).await, json!([]));
    let again = local
        .ask(Method::PATCH, &one, &body(&json!({"name": "x"})))
        .await;
    assert_eq!(again.status, 404, "a deleted object cannot be changed");
}

#[tokio::test]
async fn experiments_are_paged_with_requested_extras() {
    let local = Local::new();
    let project = local.project().await;
    let dataset = local.dataset(&project).await;
    let path = format!("{V1}/experiments");
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let attributes = json!({"name": name, "project_id": project, "dataset_id": dataset, "ensure_unique": false});
        made.push(id(&local.create(&path, attributes).await));
    }
    let twice = json!({"name": "a", "project_id": project, "ensure_unique": false});
    assert_eq!(local.post(&path, &body(&twice)).await.status, 409);
    let by_name = local.data(&format!("{path}?filter[name]=b")).await;
    assert_eq!(
        texts(&by_name, "name"),
        ["b"],
        "the run has the requested name"
    );

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = local
            .get(&format!(
                "{path}?filter[project_id]={project}&page[limit]=2&page[cursor]={after}"
            ))
            .await
            .json();
        seen.extend(page["data"].as_array().unwrap().iter().map(id));
        after = page["meta"]["after"].as_str().unwrap().to_owned();
        if after.is_empty() {
            break;
        }
        assert!(seen.len() <= 4, "{after}");
    }
    made.reverse();
    assert_eq!(seen, made, "each once, the newest first");

    let plain = local.data(&format!("{path}?filter[name]=c")).await[0]["attributes"].clone();
    assert_eq!(
        (plain.get("author"), plain.get("dataset_name")),
        (None, None)
    );
    let full = format!("{path}?filter[name]=c&include[user_data]=true&include[dataset_names]=true");
    let full = local.data(&full).await[0]["attributes"].clone();
    assert_eq!(full["dataset_name"], "d");
    assert_eq!(full["author"]["id"], "local");
}

#[tokio::test]
async fn experiment_totals_sum_its_runs() {
    let local = Local::new();
    let project = local.project().await;
    let path = format!("{V1}/experiments");
    let experiment = id(&local
        .create(&path, json!({"name": "e", "project_id": project}))
        .await);
    let empty = local.data(&path).await[0]["attributes"]["aggregate_data"].clone();
    assert_eq!(empty, Value::Null, "nothing has run");
    let run = |number: u64, status: &str| {
        json!({"span_id": number.to_string(), "trace_id": format!("{number:032x}"), "parent_id": "undefined",
            "name": "task", "project_id": project, "dataset_id": "", "start_ns": START, "duration": number * 1_000,
            "status": status, "tags": [], "meta": {"input": 1, "output": 2}})
    };
    let pushed = json!({"spans": [run(1, "ok"), run(2, "error")], "metrics": []});
    let pushed = json!({"data": {"type": "events", "attributes": pushed}});
    let answer = local
        .post(&format!("{path}/{experiment}/events"), &pushed)
        .await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    // Descendants of a task arrive through the intake. An agent span repeats the usage of its model calls.
    let below = |number: u64, kind: &str| {
        let tags = ["ml_app:a".to_owned(), format!("experiment_id:{experiment}")];
        let counts = json!({"input_tokens": 10, "output_tokens": 3, "total_tokens": 13, "total_cost": 0.002});
        span(
            number,
            START,
            json!({"tags": tags, "meta": {"kind": kind}, "metrics": counts, "duration": 500,
            "_dd": {"scope": "experiments"}}),
        )
    };
    let sent = json!([{"spans": [below(3, "llm"), below(4, "agent"), below(5, "llm")]}]);
    assert_eq!(local.post("/api/v2/llmobs", &sent).await.status, 202);
    let sums = local.data(&path).await[0]["attributes"]["aggregate_data"].clone();
    for (key, value) in [
        ("total_spans", 2),
        ("total_errors", 1),
        ("total_duration_ns", 3_000),
        ("total_input_tokens", 20),
        ("total_output_tokens", 6),
        ("total_tokens", 26),
        ("estimated_total_cost", 4_000_000),
    ] {
        assert_eq!(sums[key], value, "{key}: {sums}");
    }
}

#[tokio::test]
async fn prompts_are_filtered_and_renamed_in_both_formats() {
    let local = Local::new();
    let path = format!("{SDK}/prompts");
    for prompt in ["greeting", "farewell"] {
        let create = json!({"prompt_id": prompt, "template": "Hi", "title": prompt});
        assert!(local.post(&path, &create).await.status.is_success());
    }
    let ids = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|item| item.pointer(key).unwrap().as_str().unwrap().to_owned())
            .collect()
    };
    let all = local.get(&path).await.json();
    assert_eq!(ids(&all, "/prompt_id").len(), 2);
    let one = local
        .data(&format!("{V1}/prompts?filter[prompt_id]=farewell"))
        .await;
    assert_eq!(ids(&one, "/attributes/prompt_id"), ["farewell"]);
    assert_eq!(one[0]["type"], "prompt-templates");
    let change = json!({"title": "Goodbye", "description": "at the end"});
    let changed = local
        .ask(Method::PATCH, &format!("{path}/farewell"), &change)
        .await
        .json();
    assert_eq!(
        (&changed["title"], &changed["description"]),
        (&json!("Goodbye"), &json!("at the end"))
    );
    let changed = body(&json!({"title": "So long"}));
    let changed = local
        .ask(Method::PATCH, &format!("{V1}/prompts/farewell"), &changed)
        .await
        .json();
    assert_eq!(changed["data"]["attributes"]["title"], "So long");
    assert_eq!(
        changed["data"]["attributes"]["description"], "at the end",
        "absent fields keep their values"
    );
    let unknown = local
        .ask(Method::PATCH, &format!("{path}/unknown"), &change)
        .await;
    assert_eq!(unknown.status, 404);
}
