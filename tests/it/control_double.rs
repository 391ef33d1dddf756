//! A test double of the documented control plane: projects, datasets, experiments and their v3 events,
//! filled from recorded requests of the SDK. It pages, counts requests, and can fail on request.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_mcp::tools::{self, ToolContext, ToolError};
use serde_json::{Value, json};

use crate::support::NOW_MS;

#[derive(Default)]
pub(crate) struct ControlState {
    pub(crate) projects: Vec<Value>,
    /// By project.
    pub(crate) datasets: BTreeMap<String, Vec<Value>>,
    /// By dataset.
    pub(crate) records: BTreeMap<String, Vec<Value>>,
    /// Newest first.
    pub(crate) experiments: Vec<Value>,
    /// By experiment.
    pub(crate) spans: BTreeMap<String, Vec<Value>>,
    pub(crate) summary: BTreeMap<String, Vec<Value>>,
    /// Number of requests by method and route.
    pub(crate) request_counts: BTreeMap<String, usize>,
    /// The requested page sizes of events.
    pub(crate) event_pages: Vec<String>,
    /// The bodies of all writes.
    pub(crate) written: Vec<Value>,
    /// The largest page, whatever size is requested.
    pub(crate) page: Option<usize>,
    /// The status of the next write, if it fails.
    pub(crate) write_fails: Option<u16>,
}

/// The test double and a client for the tools.
#[derive(Clone)]
pub(crate) struct Control {
    state: Arc<Mutex<ControlState>>,
    context: ToolContext,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self::with(HubSettings::default())
    }

    pub(crate) fn with(settings: HubSettings) -> Self {
        let state: Arc<Mutex<ControlState>> = Arc::default();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&state));
        let hub = Hub::new(Upstream::Local, Arc::new(RouterTransport(router)), settings);
        let context = ToolContext {
            client: hub.client(Credential::None, "test"),
            now_ms: NOW_MS,
        };
        Self { state, context }
    }

    /// The test double with the recorded experiments of the SDK.
    pub(crate) fn captured() -> Self {
        let control = Self::new();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/captures/20-experiments-all-requests.json.zst");
        let text = zstd::decode_all(std::fs::read(path).unwrap().as_slice()).unwrap();
        let requests: Vec<Value> = serde_json::from_slice(&text).unwrap();
        let mut state = control.state();
        let mut metrics = Vec::new();
        for request in &requests {
            state.ingest(request, &mut metrics);
        }
        state.join(metrics);
        drop(state);
        control
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state().request_counts.values().sum()
    }

    pub(crate) async fn text(&self, tool: &str, arguments: Value) -> Result<String, ToolError> {
        let context = ToolContext {
            client: self.context.client.for_call(),
            ..self.context.clone()
        };
        let tool = tools::find(tool).expect("a tool of that name");
        tool.call(&context, arguments.as_object().unwrap().clone())
            .await
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        match self.text(tool, arguments.clone()).await {
            Ok(text) => serde_json::from_str(&text).unwrap(),
            Err(error) => panic!("{tool} {arguments}: {}", error.to_json()),
        }
    }

    pub(crate) async fn refusal(&self, tool: &str, arguments: Value) -> Value {
        match self.text(tool, arguments.clone()).await {
            Ok(text) => panic!("{tool} {arguments} was answered: {text}"),
            Err(error) => serde_json::from_str(&error.to_json()).unwrap(),
        }
    }
}

impl ControlState {
    fn ingest(&mut self, request: &Value, metrics: &mut Vec<(String, Value)>) {
        let path = request["path"].as_str().unwrap();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let data = &request["body"]["data"];
        let answer = &request["response"]["data"];
        match (request["method"].as_str().unwrap(), parts.as_slice()) {
            ("POST", [.., "projects"]) if !self.projects.contains(answer) => {
                self.projects.push(answer.clone());
            }
            ("GET", [.., project, "datasets"]) => {
                let rows = answer.as_array().unwrap().clone();
                self.datasets.insert((*project).to_owned(), rows);
            }
            ("GET", [.., dataset, "records"])
                if request["query"].get("filter[version]").is_none() =>
            {
                let rows = self.records.entry((*dataset).to_owned()).or_default();
                for row in answer.as_array().unwrap() {
                    if !rows.contains(row) {
                        rows.push(row.clone());
                    }
                }
            }
            ("POST", [.., "experiments"]) => self.experiments.insert(0, answer.clone()),
            ("PATCH", [.., "experiments", id]) => {
                for row in self.experiments.iter_mut().filter(|row| row["id"] == **id) {
                    *row = answer.clone();
                }
            }
            ("POST", [.., "experiments", id, "events"]) => {
                let attributes = &data["attributes"];
                for span in attributes["spans"].as_array().into_iter().flatten() {
                    self.spans
                        .entry((*id).to_owned())
                        .or_default()
                        .push(span.clone());
                }
                for metric in attributes["metrics"].as_array().into_iter().flatten() {
                    let mut metric = metric.clone();
                    let tags = metric["tags"].as_array_mut().unwrap();
                    tags.extend(attributes["tags"].as_array().into_iter().flatten().cloned());
                    metrics.push(((*id).to_owned(), metric));
                }
            }
            ("POST", [.., "v2", "llmobs"]) => {
                for event in request["body"].as_array().unwrap() {
                    for span in event["spans"].as_array().unwrap() {
                        let tags = span["tags"].as_array().unwrap();
                        let id = tags
                            .iter()
                            .find_map(|tag| tag.as_str()?.strip_prefix("experiment_id:"));
                        if let Some(id) = id {
                            self.spans
                                .entry(id.to_owned())
                                .or_default()
                                .push(span.clone());
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds metrics to their spans, as the events endpoint returns them.
    fn join(&mut self, metrics: Vec<(String, Value)>) {
        for (id, metric) in metrics {
            let spans = self.spans.entry(id.clone()).or_default();
            match spans
                .iter_mut()
                .find(|span| span["span_id"] == metric["span_id"])
            {
                Some(span) => match span["eval_metrics"].as_array_mut() {
                    Some(known) => known.push(metric),
                    None => span["eval_metrics"] = json!([metric]),
                },
                None => self.summary.entry(id).or_default().push(metric),
            }
        }
    }

    fn answer(&mut self, method: &Method, uri: &Uri, body: &Value) -> Response {
        let path = uri.path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let route = match parts.as_slice() {
            [.., "v3", "experiments", _, "events"] => "v3 events",
            [.., "experiments", _, "events"] => "events",
            [.., "experiments"] => "experiments",
            [.., "experiments", _] => "experiment",
            [.., "projects"] => "projects",
            [.., "datasets"] => "datasets",
            [.., last] => last,
            [] => "",
        };
        *self
            .request_counts
            .entry(format!("{method} {route}"))
            .or_default() += 1;
        if method != Method::GET {
            self.written.push(body.clone());
            if let Some(status) = self.write_fails.take() {
                return error_response(status, "requested failure");
            }
        }
        let query_values = |key: &str| -> Vec<&String> {
            let matching = query.iter().filter(|(name, _)| name == key);
            matching.map(|(_, value)| value).collect()
        };
        let narrowed = |rows: &[Value]| -> Vec<Value> {
            let fits = |row: &&Value| {
                [
                    "project_id",
                    "dataset_id",
                    "experiment",
                    "parent_experiment_id",
                    "name",
                ]
                .into_iter()
                .all(|key| {
                    let wanted = query_values(&format!("filter[{key}]"));
                    wanted.is_empty() || wanted.iter().any(|one| row["attributes"][key] == **one)
                }) && (query_values("filter[id]").is_empty()
                    || query_values("filter[id]")
                        .iter()
                        .any(|id| row["id"] == **id))
                    && query_values("filter[tags]").iter().all(|tag| {
                        row["attributes"]["tags"]
                            .as_array()
                            .unwrap()
                            .contains(&json!(tag))
                    })
            };
            rows.iter().filter(fits).cloned().collect()
        };
        match (method.as_str(), parts.as_slice()) {
            ("GET", [.., "v3", "experiments", id, "events"]) => {
                let limits = query_values("page[limit]").into_iter().cloned();
                self.event_pages.extend(limits);
                let known = self.experiments.iter().any(|row| row["id"] == **id);
                let none = Vec::new();
                let Some(spans) = self.spans.get(*id).or(known.then_some(&none)) else {
                    return error_response(404, "experiment not found");
                };
                let (rows, after) = self.paged(spans, &query);
                let summary = self.summary.get(*id).cloned().unwrap_or_default();
                axum::Json(json!({"data": {"id": id, "type": "experiment_events",
                    "attributes": {"spans": rows, "summary_metrics": summary}}, "meta": {"after": after}}))
                .into_response()
            }
            ("GET", [.., "experiments"]) => self.list(&narrowed(&self.experiments), &query),
            ("GET", [.., "projects"]) => self.list(&narrowed(&self.projects), &query),
            ("GET", [.., project, "datasets"]) => match self.datasets.get(*project) {
                Some(rows) => self.list(&narrowed(rows), &query),
                None => error_response(404, "project not found"),
            },
            ("GET", [.., project, "datasets", dataset, "records"]) => {
                match (
                    self.datasets.contains_key(*project),
                    self.records.get(*dataset),
                ) {
                    (true, Some(rows)) => self.list(&narrowed(rows), &query),
                    _ => error_response(404, "dataset not found"),
                }
            }
            ("POST", [.., "batch_update"]) => {
                let rows: Vec<Value> = body["data"]["attributes"]["insert_records"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .enumerate()
                    .map(|(at, row)| json!({"id": format!("new-{at}"), "type": "datasets", "attributes": row}))
                    .collect();
                axum::Json(json!({ "data": rows })).into_response()
            }
            ("POST", [.., "experiments"]) => {
                let mut attributes = body["data"]["attributes"].clone();
                attributes["experiment"] = attributes["name"].clone();
                attributes["name"] = json!(format!(
                    "{}-1795262400000",
                    attributes["name"].as_str().unwrap()
                ));
                attributes.as_object_mut().unwrap().remove("config");
                axum::Json(json!({"data": {"id": "new-experiment", "type": "experiments", "attributes": attributes}}))
                    .into_response()
            }
            ("PATCH", [.., "experiments", id]) | ("POST", [.., "experiments", id, "events"])
                if self.experiments.iter().any(|row| row["id"] == **id) =>
            {
                StatusCode::OK.into_response()
            }
            _ => error_response(404, "no such thing"),
        }
    }

    fn paged(&self, rows: &[Value], query: &[(String, String)]) -> (Vec<Value>, Value) {
        let query_number = |key: &str| -> Option<usize> {
            let found = query.iter().find(|(name, _)| name == key);
            found.and_then(|(_, value)| value.parse().ok())
        };
        let start = query_number("page[cursor]").unwrap_or(0);
        let limit = query_number("page[limit]")
            .unwrap_or(5_000)
            .min(self.page.unwrap_or(5_000));
        let page: Vec<Value> = rows.iter().skip(start).take(limit).cloned().collect();
        let end = start + page.len();
        let after = if end < rows.len() {
            json!(end.to_string())
        } else {
            json!("")
        };
        (page, after)
    }

    fn list(&self, rows: &[Value], query: &[(String, String)]) -> Response {
        let (rows, after) = self.paged(rows, query);
        axum::Json(json!({"data": rows, "meta": {"after": after}})).into_response()
    }
}

fn error_response(status: u16, words: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, axum::Json(json!({ "errors": [words] }))).into_response()
}

async fn serve(
    State(state): State<Arc<Mutex<ControlState>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    state.lock().unwrap().answer(&method, &uri, &body)
}
