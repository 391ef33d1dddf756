//! The control plane, as the SDK and the documented API use it.

mod changes;

use std::collections::HashMap;

use http::Method;
use serde_json::{Value, json};

use super::{Answer, Local, START, capture_records};

const V1: &str = "/api/v2/llm-obs/v1";
const SDK: &str = "/api/unstable/llm-obs/v1";

fn body(attributes: &Value) -> Value {
    json!({"data": {"type": "any", "attributes": attributes}})
}

impl Local {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        let bytes = body.to_string().into_bytes();
        self.raw(method, path, &headers, bytes).await
    }

    /// Creates an object and returns `data` of the response.
    async fn create(&self, path: &str, attributes: Value) -> Value {
        let answer = self.post(path, &body(&attributes)).await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.json()["data"].clone()
    }

    async fn data(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.json()["data"].clone()
    }

    async fn project(&self) -> String {
        id(&self
            .create(&format!("{V1}/projects"), json!({"name": "p"}))
            .await)
    }

    async fn dataset(&self, project: &str) -> String {
        let path = format!("{V1}/{project}/datasets");
        id(&self.create(&path, json!({"name": "d"})).await)
    }
}

fn id(item: &Value) -> String {
    item["id"].as_str().unwrap().to_owned()
}

fn texts(items: &Value, key: &str) -> Vec<String> {
    let items = items.as_array().unwrap().iter();
    items
        .map(|item| item["attributes"][key].as_str().unwrap_or("-").to_owned())
        .collect()
}

/// Replaces recorded ids by the ids of this backend.
fn replace_ids(text: &str, ids: &HashMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (recorded, own) in ids {
        text = text.replace(recorded, own);
    }
    text
}

/// Replays all requests of the SDK and checks the keys that the SDK reads.
#[tokio::test]
async fn answers_all_requests_of_sdk_session() {
    let local = Local::new();
    let mut ids: HashMap<String, String> = HashMap::new();
    let mut listed = 0;
    for record in capture_records("20-experiments-all-requests") {
        let path = replace_ids(record["path"].as_str().unwrap(), &ids);
        if path.contains("/config/evaluators/") {
            continue;
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, values) in record["query"].as_object().unwrap() {
            for value in values.as_array().unwrap() {
                // Recorded page tokens are not valid here.
                if key != "page[cursor]" {
                    query.append_pair(key, &replace_ids(value.as_str().unwrap(), &ids));
                }
            }
        }
        let full = format!("{path}?{}", query.finish());
        let method: Method = record["method"].as_str().unwrap().parse().unwrap();
        let sent = replace_ids(&record["body"].to_string(), &ids);
        let answer = local
            .ask(method.clone(), &full, &serde_json::from_str(&sent).unwrap())
            .await;
        let recorded = &record["response"]["data"];
        if path.ends_with("/infer") {
            assert_eq!(answer.status, 422);
            assert_eq!(answer.json()["data"]["attributes"]["status"], "ERROR");
            continue;
        }
        assert!(answer.status.is_success(), "{full}: {:?}", answer.body);
        if method == Method::PATCH || (method == Method::POST && path.ends_with("/events")) {
            assert!(answer.body.is_empty());
            continue;
        }
        let data = answer.json()["data"].clone();
        if method == Method::POST && recorded.is_object() && path.contains("/llm-obs/v1/") {
            if let (Some(theirs), Some(own)) = (recorded["id"].as_str(), data["id"].as_str()) {
                ids.insert(theirs.to_owned(), own.to_owned());
            }
            for key in ["experiment", "current_version", "dataset_version"] {
                let recorded = &recorded["attributes"][key];
                if recorded.is_number() && !path.ends_with("/projects") {
                    assert!(data["attributes"][key].is_number(), "{full}: {data}");
                }
            }
        }
        if path.ends_with("/batch_update") {
            let rows = |data: &Value| -> Vec<(Value, Value)> {
                let rows = data.as_array().unwrap().iter();
                rows.map(|row| (row["id"].clone(), row["attributes"]["version"].clone()))
                    .collect()
            };
            let (mut own, mut theirs) = (rows(&data), rows(recorded));
            own.sort_by_key(|row| row.0.to_string());
            theirs.sort_by_key(|row| row.0.to_string());
            assert_eq!(own, theirs, "{full}");
        }
        if method == Method::GET && path.ends_with("/events") && path.starts_with(SDK) {
            compare_events(
                &data,
                &serde_json::from_str(&replace_ids(&recorded.to_string(), &ids)).unwrap(),
            );
            listed += 1;
        }
    }
    assert_eq!(listed, 1);
    let all = local.data(&format!("{V1}/experiments")).await;
    let mut names = texts(&all, "status");
    names.sort();
    assert_eq!(names, ["completed", "completed", "failed"]);
}

/// Compares the events of the baseline: spans with the keys that the SDK reads, and metrics.
fn compare_events(own: &Value, recorded: &Value) {
    let by_span = |events: &Value| -> HashMap<String, Value> {
        let spans = events["attributes"]["spans"].as_array().unwrap().iter();
        spans
            .map(|span| (span["span_id"].as_str().unwrap().to_owned(), span.clone()))
            .collect()
    };
    let (own_spans, recorded_spans) = (by_span(own), by_span(recorded));
    assert_eq!(own_spans.len(), 14);
    for (id, span) in &own_spans {
        let recorded = &recorded_spans[id];
        for key in [
            "trace_id", "name", "start_ns", "duration", "status", "tags", "config",
        ] {
            assert_eq!(span[key], recorded[key], "{key}");
        }
        for key in ["input", "output", "expected_output", "metadata"] {
            assert_eq!(span["meta"][key], recorded["meta"][key], "{key}");
        }
        let metrics = span["eval_metrics"].as_array().unwrap();
        assert_eq!(metrics.len(), 10);
        for metric in metrics {
            assert_eq!(metric["id"].as_str().unwrap().len(), 10);
            let tags = metric["tags"].as_array().unwrap();
            assert!(tags.contains(&json!("branch:main")));
            assert!(
                tags.iter()
                    .any(|tag| tag.as_str().unwrap().starts_with("run_iteration:"))
            );
        }
    }
    let summary = own["attributes"]["summary_metrics"].as_array().unwrap();
    assert_eq!(summary.len(), 4);
}

#[tokio::test]
async fn project_is_created_once_per_name() {
    let local = Local::new();
    let path = format!("{SDK}/projects");
    let first = local
        .create(&path, json!({"name": "a", "description": "x"}))
        .await;
    let again = local
        .create(
            "/evp_proxy/v2/api/unstable/llm-obs/v1/projects",
            json!({"name": "a"}),
        )
        .await;
    assert_eq!(first, again);
    local.create(&path, json!({"name": "b"})).await;
    let all = local.data(&format!("{V1}/projects?filter[name]=b")).await;
    assert_eq!(texts(&all, "name"), ["b"]);
    let changed = local
        .ask(
            Method::PATCH,
            &format!("{path}/{}", id(&first)),
            &body(&json!({"name": "b"})),
        )
        .await;
    assert_eq!(changed.status, 409);
    let page = local
        .get(&format!("{V1}/projects?page[limit]=1"))
        .await
        .json();
    let after = page["meta"]["after"].as_str().unwrap();
    let last = local
        .get(&format!("{V1}/projects?page[limit]=1&page[cursor]={after}"))
        .await;
    assert_eq!(texts(&last.json()["data"], "name"), ["a"]);
    assert_eq!(last.json()["meta"]["after"], "");
    local
        .create(
            &format!("{V1}/projects/delete"),
            json!({"project_ids": [id(&first)]}),
        )
        .await;
    assert_eq!(
        texts(&local.data(&format!("{V1}/projects")).await, "name"),
        ["b"]
    );
    let refused = local.post(&path, &body(&json!({"name": " "}))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.detail().contains("`name` is required"));
}

#[tokio::test]
async fn dataset_keeps_versions() {
    let local = Local::new();
    let project = local.project().await;
    let dataset = local.dataset(&project).await;
    let path = format!("{V1}/{project}/datasets/{dataset}");
    let insert = json!({"insert_records": [
        {"id": "r1", "input": {"q": 1}, "expected_output": "one", "metadata": {"m": 1}, "tags": ["lang:de", "x:1"]},
        {"id": "r2", "input": {"q": 2}, "tags": ["lang:en"]},
        {"id": "copy", "input": {"q": 2}},
    ], "tags": ["batch:1"]});
    let made = local
        .create(&format!("{path}/batch_update"), insert.clone())
        .await;
    assert_eq!(made.as_array().unwrap().len(), 2, "a duplicate is left out");
    assert_eq!(made[0]["records"][0]["id"], "r1");
    let again = local.create(&format!("{path}/batch_update"), insert).await;
    assert_eq!(again, json!([]), "sent again after a lost answer");
    let update = json!({
        "update_records": [
            {"id": "r1", "input": null, "expected_output": "", "metadata": null,
             "tag_operations": {"remove": ["x:1"], "add": ["y:2", "lang:de"]}},
            {"id": "r2", "tag_operations": {"add": ["z:1"], "set": ["only:this"]}}],
        "delete_records": ["never-there"]});
    let updated = local.create(&format!("{path}/batch_update"), update).await;
    assert_eq!(updated[0]["attributes"]["version"], 2);
    assert_eq!(
        updated[0]["attributes"]["tags"],
        json!(["lang:de", "batch:1", "y:2"])
    );
    assert_eq!(updated[0]["attributes"]["input"], json!({"q": 1}));
    assert_eq!(updated[0]["attributes"]["metadata"], json!({"m": 1}));
    assert_eq!(updated[0]["attributes"].get("expected_output"), None);
    assert_eq!(updated[1]["attributes"]["tags"], json!(["only:this"]));
    assert_eq!(
        updated[0]["attributes"]["canonical_id"],
        made[0]["attributes"]["canonical_id"]
    );
    let delete = json!({"record_ids": ["r2"]});
    local
        .create(&format!("{path}/records/delete"), delete)
        .await;
    let ids = async |query: &str| -> Vec<String> {
        let data = local.data(&format!("{path}/records?{query}")).await;
        data.as_array().unwrap().iter().map(id).collect()
    };
    assert_eq!(ids("").await, ["r1"]);
    assert_eq!(ids("filter[version]=2").await, ["r1", "r2"]);
    assert_eq!(
        ids("filter[version]=1&filter[tags]=lang:de&filter[tags]=x:1").await,
        ["r1"]
    );
    assert_eq!(ids("filter[version]=0").await, [""; 0]);
    let beyond = local
        .get(&format!("{path}/records?filter[version]=9"))
        .await;
    assert_eq!(beyond.status, 400);
    assert_eq!(
        beyond.detail(),
        "invalid version: version is greater than the current version or negative"
    );
    local
        .create(&format!("{path}/restore"), json!({"dataset_version": 1}))
        .await;
    assert_eq!(ids("").await, ["r1", "r2"]);
    assert_eq!(ids("filter[tags]=x:1").await, ["r1"]);
    let versions = local.data(&format!("{path}/versions")).await;
    assert_eq!(versions[0]["attributes"]["version_number"], 4);
    let copy = local
        .create(&format!("{path}/clone"), json!({"name": "copy"}))
        .await;
    let copied = local
        .data(&format!("{V1}/{project}/datasets/{}/records", id(&copy)))
        .await;
    assert_ne!(copied[0]["id"], "r1");
    assert_eq!(
        copied[0]["canonical_id"],
        made[0]["attributes"]["canonical_id"]
    );
    let in_place = json!({"records": [{"id": "r2", "input": "new"}], "create_new_version": false});
    let answer = local
        .ask(Method::PATCH, &format!("{path}/records"), &body(&in_place))
        .await;
    assert_eq!(answer.json()["data"][0]["attributes"]["version"], 4);
    let unknown = json!({"records": [{"id": "unknown", "input": 1}]});
    let answer = local
        .ask(Method::PATCH, &format!("{path}/records"), &body(&unknown))
        .await;
    assert_eq!(answer.status, 404);
    let elsewhere = local
        .get(&format!("{V1}/other/datasets/{dataset}/records"))
        .await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn record_pages_show_one_version() {
    let local = Local::new();
    let project = local.project().await;
    let dataset = local.dataset(&project).await;
    let path = format!("{V1}/{project}/datasets/{dataset}");
    let records: Vec<Value> = (0..1_200).map(|n| json!({"input": n})).collect();
    local
        .create(&format!("{path}/records"), json!({"records": records}))
        .await;
    let first = local.get(&format!("{path}/records")).await.json();
    assert_eq!(first["data"].as_array().unwrap().len(), 1_000);
    local
        .create(
            &format!("{path}/records"),
            json!({"records": [{"input": "late"}]}),
        )
        .await;
    let after = first["meta"]["after"].as_str().unwrap();
    let rest = local
        .get(&format!("{path}/records?page[cursor]={after}"))
        .await
        .json();
    assert_eq!(rest["data"].as_array().unwrap().len(), 200);
    assert_eq!(rest["meta"]["after"], "");
    let foreign = local.get(&format!("{path}/records?page[cursor]=zzz")).await;
    assert_eq!(foreign.status, 400);
}

#[tokio::test]
async fn exported_dataset_can_be_uploaded() {
    let local = Local::new();
    let project = local.project().await;
    let dataset = local.dataset(&project).await;
    let path = format!("{V1}/{project}/datasets/{dataset}");
    let records = json!([{"input": {"q": "a, \"b\"\nc"}, "expected_output": [1, null], "metadata": {"k": "v"}}, {"input": "text"}]);
    local
        .create(
            &format!("{path}/records"),
            json!({"records": records, "tags": ["t:1"]}),
        )
        .await;
    let csv = local.get(&format!("{path}/export?format=csv")).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    let other = local
        .create(
            &format!("{V1}/{project}/datasets"),
            json!({"name": "other"}),
        )
        .await;
    let mut form = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.csv\"\r\nContent-Type: text/csv\r\n\r\n".to_vec();
    form.extend_from_slice(&csv.body);
    form.extend_from_slice(b"\r\n--b--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    for target in [
        format!(
            "{SDK}/datasets/{}/records/upload?deduplicate=True",
            id(&other)
        ),
        format!(
            "/api/v2/llm-obs/v2/{project}/datasets/{}/records/upload",
            id(&other)
        ),
    ] {
        let answer = local
            .raw(Method::POST, &target, &headers, form.clone())
            .await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    let uploaded = local
        .data(&format!("{SDK}/datasets/{}/records", id(&other)))
        .await;
    for (record, sent) in uploaded
        .as_array()
        .unwrap()
        .iter()
        .zip(records.as_array().unwrap())
    {
        assert_eq!(record["attributes"]["input"], sent["input"]);
        assert_eq!(
            record["expected_output"],
            sent.get("expected_output").cloned().unwrap_or(Value::Null)
        );
        assert_eq!(record["tags"], json!(["t:1"]));
    }
    let broken = local
        .raw(
            Method::POST,
            &format!("{SDK}/datasets/{dataset}/records/upload"),
            &headers,
            b"--b--".to_vec(),
        )
        .await;
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn experiments_are_filtered_and_named_uniquely() {
    let local = Local::new();
    let project = local.project().await;
    let path = format!("{V1}/experiments");
    let make = async |more: Value| {
        let mut attributes = json!({"name": "e", "project_id": project, "config": {"model": "m"}});
        for (key, value) in more.as_object().unwrap() {
            attributes[key] = value.clone();
        }
        local.create(&path, attributes).await
    };
    let first = make(json!({"metadata": {"tags": ["branch:main"]}})).await;
    let second = make(json!({"parent_experiment_id": id(&first), "name": "other"})).await;
    let third = make(json!({})).await;
    assert_eq!(first["attributes"]["experiment"], "e");
    assert_ne!(first["attributes"]["name"], third["attributes"]["name"]);
    assert_eq!(
        first["attributes"].get("config"),
        None,
        "as Datadog answers"
    );
    let found = async |query: &str| -> Vec<String> {
        let data = local.data(&format!("{path}?{query}")).await;
        data.as_array().unwrap().iter().map(id).collect()
    };
    let (first, second, third) = (id(&first), id(&second), id(&third));
    let project_filter = format!("filter[project_id]={project}");
    assert_eq!(
        found(&project_filter).await,
        [third.as_str(), &second, &first]
    );
    assert_eq!(
        found("filter[experiment]=e").await,
        [third.as_str(), &first]
    );
    assert_eq!(
        found(&format!("filter[id]={first}&filter[id]={second}")).await,
        [second.as_str(), &first]
    );
    assert_eq!(
        found(&format!("filter[parent_experiment_id]={first}")).await,
        [second.as_str()]
    );
    assert_eq!(
        found("filter[metadata]=%7B%22tags%22%3A%5B%22branch%3Amain%22%5D%7D").await,
        [first.as_str()]
    );
    assert_eq!(found("filter[dataset_id]=none").await, [""; 0]);
    assert_eq!(
        local
            .get(&format!("{path}?filter[metadata]=x"))
            .await
            .status,
        400
    );
    let patch = body(&json!({"status": "completed", "error": "e", "metadata": {"a": 1}}));
    let answer = local
        .ask(Method::PATCH, &format!("{path}/{first}"), &patch)
        .await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    let shown = local.data(&format!("{path}?filter[id]={first}")).await;
    assert_eq!(shown[0]["attributes"]["metadata"], json!({"a": 1}));
    assert_eq!(shown[0]["attributes"]["config"], json!({"model": "m"}));
    let patch = body(&json!({"status": "done"}));
    let answer = local
        .ask(Method::PATCH, &format!("{path}/{first}"), &patch)
        .await;
    assert!(
        answer
            .detail()
            .contains("running, completed, failed, interrupted")
    );
    local
        .create(
            &format!("{path}/delete"),
            json!({"experiment_ids": [first]}),
        )
        .await;
    assert_eq!(found("filter[is_deleted]=true").await, [first.as_str()]);
    assert_eq!(found("").await, [third.as_str(), &second]);
    let unknown = local
        .post(&path, &body(&json!({"name": "e", "project_id": "nope"})))
        .await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.detail().as_str()),
        (404, "project not found")
    );
}

#[tokio::test]
async fn documented_events_are_readable_in_every_api_version() {
    let local = Local::new();
    let project = local.project().await;
    let made = local
        .create(
            &format!("{V1}/experiments"),
            json!({"name": "e", "project_id": project}),
        )
        .await;
    let path = format!("{V1}/experiments/{}/events", id(&made));
    let spans: Vec<Value> = (0..3)
        .map(|n| json!({"span_id": n.to_string(), "trace_id": "t", "name": "task", "project_id": project,
                        "dataset_id": "d", "start_ns": START + n, "duration": 5, "status": "ok", "tags": ["lang:de"],
                        "meta": {"input": n, "output": [n], "expected_output": "x"}}))
        .collect();
    let metric = |ms: i64, value: f64| json!({"span_id": "1", "label": "score", "metric_type": "score", "score_value": value, "timestamp_ms": ms});
    let sent =
        json!({"spans": spans, "metrics": [metric(2, 0.5), metric(1, 0.1)], "tags": ["run:1"]});
    let answer = local.post(&path, &body(&sent)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.len()),
        (202, 0),
        "{:?}",
        answer.body
    );
    let ingest = json!({"experiment_id": id(&made), "tags": ["a:b"], "metrics": [
        {"label": "whole", "metric_type": "json", "json_value": {"n": 3}, "timestamp_ms": 5}]});
    let answer = local
        .post(
            "/api/unstable/llm-obs-mcp/v1/experiment/ingest-events",
            &ingest,
        )
        .await;
    assert_eq!(answer.json()["metrics_ingested"], 1);
    let v3 = format!("/api/v2/llm-obs/v3/experiments/{}/events", id(&made));
    let first = local.get(&format!("{v3}?page[limit]=2")).await.json();
    let attributes = &first["data"]["attributes"];
    assert_eq!(attributes["spans"].as_array().unwrap().len(), 2);
    assert_eq!(attributes["spans"][1]["meta"]["output"], json!([1]));
    let values: Vec<&Value> = attributes["spans"][1]["eval_metrics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["score_value"])
        .collect();
    assert_eq!(
        values,
        [&json!(0.5), &json!(0.1)],
        "all metrics are stored unchanged"
    );
    assert_eq!(attributes["summary_metrics"][0]["metric_source"], "summary");
    assert_eq!(attributes["summary_metrics"][0]["tags"], json!(["a:b"]));
    let after = first["meta"]["after"].as_str().unwrap();
    let last = local
        .get(&format!("{v3}?page[limit]=2&page[cursor]={after}"))
        .await
        .json();
    assert_eq!(last["data"]["attributes"]["spans"][0]["span_id"], "2");
    assert_eq!(last["data"]["attributes"]["summary_metrics"], json!([]));
    assert_eq!(last["meta"]["after"], "");
    let v2 = local
        .data(&format!(
            "/api/v2/llm-obs/v2/experiments/{}/events",
            id(&made)
        ))
        .await;
    assert_eq!(v2["attributes"]["spans"].as_array().unwrap().len(), 3);
    let v1 = local.data(&path).await;
    assert_eq!(
        (v1[0]["type"].as_str(), v1.as_array().unwrap().len()),
        (Some("experiments"), 3)
    );
    let named = local
        .data(&format!(
            "{SDK}/experiments/events?filter[project_name]=p&filter[experiment_name]=e"
        ))
        .await;
    assert_eq!(named["id"], made["id"]);
    assert_eq!(named["attributes"]["spans"][0].get("eval_metrics"), None);
    let listed = local.data(&format!("{V1}/experiments")).await;
    assert_eq!(listed[0]["attributes"]["aggregate_data"]["total_spans"], 3);
}

#[tokio::test]
async fn one_invalid_metric_refuses_the_request() {
    let local = Local::with(|options| {
        options.max_span_age = Some(std::time::Duration::from_secs(86_400));
    });
    let project = local.project().await;
    let made = local
        .create(
            &format!("{V1}/experiments"),
            json!({"name": "e", "project_id": project}),
        )
        .await;
    let path = format!("{SDK}/experiments/{}/events", id(&made));
    let good = json!({"label": "a", "metric_type": "boolean", "boolean_value": true});
    let cases = [
        (
            json!({"label": "a", "metric_type": "text", "text_value": "x"}),
            "`metric_type` must be",
        ),
        (
            json!({"label": "a", "metric_type": "score", "score_value": "1"}),
            "must be a number",
        ),
        (
            json!({"label": "a", "metric_type": "score"}),
            "`score_value` is required",
        ),
        (
            json!({"label": "", "metric_type": "score", "score_value": 1}),
            "`label` is required",
        ),
        (
            json!({"label": "a", "metric_type": "score", "score_value": 1, "assessment": "good"}),
            "pass or fail",
        ),
        (
            json!({"label": "a", "metric_type": "score", "score_value": 1, "timestamp_ms": 5}),
            "'timestamp_within_24hr' tag",
        ),
        (json!("x"), "must be an object"),
    ];
    for (bad, words) in cases {
        let sent = json!({"scope": "experiments", "metrics": [good, bad]});
        let answer = local.post(&path, &body(&sent)).await;
        assert_eq!(answer.status, 400);
        let detail = answer.detail();
        assert!(
            detail.starts_with("metric 1: ") && detail.contains(words),
            "{detail}"
        );
    }
    let failed = json!({"label": "a", "metric_type": "categorical", "categorical_value": null, "error": {"message": "x"}, "status": "ERROR"});
    let answer = local
        .post(&path, &body(&json!({"metrics": [failed]})))
        .await;
    assert_eq!(answer.status, 202);
    let answer = local.post(&path, &body(&json!({"metrics": []}))).await;
    assert_eq!(answer.status, 400);
    let events = local
        .data(&format!("{SDK}/experiments/{}/events", id(&made)))
        .await;
    assert_eq!(
        events["attributes"]["summary_metrics"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn label_belongs_to_one_prompt_version() {
    let local = Local::new();
    let path = format!("{SDK}/prompts");
    let template = json!([{"role": "system", "content": "You greet {{user}}."}]);
    let create = json!({"prompt_id": "greeting", "template": template, "labels": ["production"], "user_version": "v1"});
    let made = local.post(&path, &create).await.json();
    assert_eq!(made["num_versions"], 1);
    assert_eq!(local.post(&path, &create).await.status, 409);
    let second = json!({"template": "Hi {{user}}", "labels": ["production", "dev"]});
    let version = local
        .post(&format!("{path}/greeting/versions"), &second)
        .await
        .json();
    assert_eq!(version["version"], 2);
    let versions = local.get(&format!("{path}/greeting/versions")).await.json();
    assert_eq!(versions[1]["labels"], json!([]), "the label has moved");
    let newest = local
        .get(&format!("{path}/greeting?label=production"))
        .await
        .json();
    assert_eq!(
        (&newest["version"], &newest["template"]),
        (&json!("2"), &json!("Hi {{user}}"))
    );
    let labels = json!({"labels": ["production"]});
    local
        .ask(
            Method::PATCH,
            &format!("{path}/greeting/versions/1"),
            &labels,
        )
        .await;
    let resolve = body(&json!({"env": "prod"}));
    let resolved = local
        .post(&format!("{path}/greeting/resolve"), &resolve)
        .await
        .json();
    assert_eq!(
        (&resolved["version"], &resolved["chat_template"]),
        (&json!("v1"), &template)
    );
    let resolve = body(&json!({"env": "dev"}));
    let resolved = local
        .post(&format!("{path}/greeting/resolve"), &resolve)
        .await
        .json();
    assert_eq!(resolved["version"], "2");
    let resource = local
        .data(&format!("{V1}/prompts/greeting/versions/1"))
        .await;
    assert_eq!(resource["type"], "prompt-template-versions");
    assert_eq!(
        local
            .get(&format!("{path}/greeting?label=none"))
            .await
            .status,
        404
    );
    let gone = local
        .ask(Method::DELETE, &format!("{path}/greeting"), &Value::Null)
        .await;
    assert_eq!(gone.json()["prompt_id"], "greeting");
    assert_eq!(local.get(&path).await.json(), json!([]));
    local.post(&path, &create).await;
    let versions = local.get(&format!("{path}/greeting/versions")).await.json();
    assert_eq!(
        versions.as_array().unwrap().len(),
        1,
        "those of the deleted one stay away"
    );
}

#[tokio::test]
async fn demo_has_baseline_and_candidate_experiments() {
    let local = Local::new();
    let now = 1_900_000_000_000;
    for _ in 0..2 {
        crate::demo::load(&local.backend, now).unwrap();
        let experiments = local.data(&format!("{V1}/experiments")).await;
        assert_eq!(
            texts(&experiments, "experiment"),
            ["help-desk-candidate", "help-desk-baseline"]
        );
        for experiment in experiments.as_array().unwrap() {
            let path = format!("/api/v2/llm-obs/v3/experiments/{}/events", id(experiment));
            let events = local.data(&path).await;
            let spans = events["attributes"]["spans"].as_array().unwrap();
            assert_eq!(spans.len(), 72);
            assert!(
                spans
                    .iter()
                    .all(|span| span["eval_metrics"].as_array().unwrap().len() == 4)
            );
            assert_eq!(
                events["attributes"]["summary_metrics"]
                    .as_array()
                    .unwrap()
                    .len(),
                1
            );
            let record = spans[0]["dataset_record_id"].as_str().unwrap();
            let dataset = experiment["attributes"]["dataset_id"].as_str().unwrap();
            let records = local
                .data(&format!(
                    "{SDK}/datasets/{dataset}/records?filter[id]={record}"
                ))
                .await;
            let canonical = format!(
                "dataset_record_canonical_id:{}",
                records[0]["canonical_id"].as_str().unwrap()
            );
            assert!(
                spans[0]["tags"]
                    .as_array()
                    .unwrap()
                    .contains(&json!(canonical))
            );
            assert_eq!(experiment["attributes"]["dataset_version"], 1);
        }
    }
}
