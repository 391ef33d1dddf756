//! Probes each endpoint that the tools need with one small read.
//!
//! The results are meant for bug reports: they contain statuses and names of keys, but no content.

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::{ApiCall, JSON, Operation};
use super::client::Client;
use super::datasets::{DATASETS, PROJECTS, RECORDS};
use super::evaluators::{AGGREGATE_STATS, GET as EVALUATOR, LIST as EVALUATORS, LIST_FOR_ORG};
use super::experiments::{EVENTS, LIST as EXPERIMENTS};
use super::retry::OperationClass;
use super::spans::{FIND_ERROR_SPANS, PRIVATE_SEARCH, SEARCH, SPAN_CONTENT};
use super::text;

static VALIDATE: Operation = Operation {
    name: "API key check",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v1/validate",
    media: JSON,
};

static LIST: Operation = Operation {
    name: "span list",
    class: OperationClass::Read,
    method: Method::GET,
    route: "/api/v2/llm-obs/v1/spans/events",
    media: JSON,
};

/// The timeout for one endpoint.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum number of keys in a result.
const MAX_KEYS: usize = 60;

/// The result for one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// The operation, for example `span search`.
    pub name: &'static str,
    /// Method and path, for example `POST /api/v2/llm-obs/v1/spans/events/search`.
    pub endpoint: String,
    /// The HTTP status; `None` without a response, or if the endpoint was not probed.
    pub status: Option<u16>,
    /// The keys of the response.
    pub top_level_keys: Vec<String>,
    /// The keys of the attributes of the first row.
    pub row_keys: Vec<String>,
    /// The duration in milliseconds; `None` if the endpoint was not probed.
    pub elapsed_ms: Option<u64>,
    /// A summary in one line: the duration and the keys, the error and its hint, or why the endpoint
    /// was not probed.
    pub detail: String,
}

impl ProbeResult {
    /// Whether the endpoint returned what the tools need.
    pub fn is_ok(&self) -> bool {
        !self.top_level_keys.is_empty() && self.status.is_some_and(|status| status < 300)
    }

    fn not_probed(operation: &'static Operation, why: &str) -> Self {
        Self {
            detail: format!("not probed: {why}"),
            ..Self::new(operation)
        }
    }

    fn new(operation: &'static Operation) -> Self {
        Self {
            name: operation.name,
            endpoint: format!("{} {}", operation.method, operation.route),
            status: None,
            top_level_keys: Vec::new(),
            row_keys: Vec::new(),
            elapsed_ms: None,
            detail: String::new(),
        }
    }
}

impl Client {
    /// Probes each endpoint once. Errors become part of the results.
    pub async fn probe(&self) -> Vec<ProbeResult> {
        let (key, _) = self
            .probe_endpoint(&VALIDATE, ApiCall::new(&VALIDATE))
            .await;
        let mut results = vec![key];
        self.probe_spans(&mut results).await;
        self.probe_experiments(&mut results).await;
        self.probe_evaluators(&mut results).await;
        results
    }

    async fn probe_spans(&self, results: &mut Vec<ProbeResult>) {
        let list = one_row(ApiCall::new(&LIST))
            .query("filter[from]", "now-7d")
            .query("filter[to]", "now");
        results.push(self.probe_endpoint(&LIST, list).await.0);
        let search = json!({"data": {"type": "spans", "attributes": {
            "filter": {"from": "now-7d", "to": "now"},
            "options": {"include_attachments": false},
            "page": {"limit": 1},
            "sort": "-timestamp"}}});
        let (result, response) = self
            .probe_endpoint(&SEARCH, ApiCall::new(&SEARCH).body(search))
            .await;
        results.push(result);
        let private = json!({"from": "now-7d", "to": "now", "limit": 1});
        let private = ApiCall::new(&PRIVATE_SEARCH).body(private);
        results.push(self.probe_endpoint(&PRIVATE_SEARCH, private).await.0);
        let id = |key: &str| {
            let row = response.as_ref()?.pointer("/data/0/attributes")?;
            row.get(key)?.as_str().map(str::to_owned)
        };
        let (Some(trace), Some(span)) = (id("trace_id"), id("span_id")) else {
            let why = "there is no span in the last 7 days";
            results.extend(
                [&FIND_ERROR_SPANS, &SPAN_CONTENT]
                    .map(|operation| ProbeResult::not_probed(operation, why)),
            );
            return;
        };
        let errors = json!({"from": "now-7d", "to": "now", "trace_id": trace});
        let errors = ApiCall::new(&FIND_ERROR_SPANS).body(errors);
        results.push(self.probe_endpoint(&FIND_ERROR_SPANS, errors).await.0);
        let content = json!({"from": "now-7d", "to": "now", "trace_id": trace, "span_id": span, "field": "metadata"});
        let content = ApiCall::new(&SPAN_CONTENT).body(content);
        results.push(self.probe_endpoint(&SPAN_CONTENT, content).await.0);
    }

    async fn probe_experiments(&self, results: &mut Vec<ProbeResult>) {
        let (result, response) = self
            .probe_endpoint(&PROJECTS, one_row(ApiCall::new(&PROJECTS)))
            .await;
        results.push(result);
        let project = first_id(response.as_ref());
        let dataset = self
            .probe_with_ids(&DATASETS, &[project.as_deref()], "project", results)
            .await;
        let ids = [project.as_deref(), dataset.as_deref()];
        self.probe_with_ids(&RECORDS, &ids, "dataset", results)
            .await;
        let (result, response) = self
            .probe_endpoint(&EXPERIMENTS, one_row(ApiCall::new(&EXPERIMENTS)))
            .await;
        results.push(result);
        let experiment = first_id(response.as_ref());
        self.probe_with_ids(&EVENTS, &[experiment.as_deref()], "experiment", results)
            .await;
    }

    async fn probe_evaluators(&self, results: &mut Vec<ProbeResult>) {
        let (result, response) = self
            .probe_endpoint(&EVALUATORS, ApiCall::new(&EVALUATORS))
            .await;
        results.push(result);
        let name = first_id(response.as_ref());
        self.probe_with_ids(&EVALUATOR, &[name.as_deref()], "custom evaluator", results)
            .await;
        let all = ApiCall::new(&LIST_FOR_ORG).body(json!({}));
        results.push(self.probe_endpoint(&LIST_FOR_ORG, all).await.0);
        results.push(match name {
            Some(name) => {
                let body = json!({"eval_name": name, "from": "now-7d", "to": "now"});
                let call = ApiCall::new(&AGGREGATE_STATS).body(body);
                self.probe_endpoint(&AGGREGATE_STATS, call).await.0
            }
            None => ProbeResult::not_probed(&AGGREGATE_STATS, "no custom evaluator was found"),
        });
    }

    /// Probes an endpoint that needs ids from earlier responses. Returns the id of the first row.
    async fn probe_with_ids(
        &self,
        operation: &'static Operation,
        ids: &[Option<&str>],
        parent: &str,
        results: &mut Vec<ProbeResult>,
    ) -> Option<String> {
        let ids: Option<Vec<&str>> = ids.iter().copied().collect();
        let call = ids.and_then(|ids| ApiCall::with_ids(operation, &ids).ok());
        let Some(call) = call else {
            let why = format!("no {parent} was found");
            results.push(ProbeResult::not_probed(operation, &why));
            return None;
        };
        let (result, response) = self.probe_endpoint(operation, one_row(call)).await;
        results.push(result);
        first_id(response.as_ref())
    }

    async fn probe_endpoint(
        &self,
        operation: &'static Operation,
        call: ApiCall,
    ) -> (ProbeResult, Option<Value>) {
        let start = Instant::now();
        let client = self.with_deadline(super::Deadline::after(PROBE_TIMEOUT));
        let response = client.execute_with_attempts(call, 1).await;
        let elapsed_ms = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let mut result = ProbeResult {
            elapsed_ms: Some(elapsed_ms),
            ..ProbeResult::new(operation)
        };
        match response {
            Ok(response) => {
                result.status = Some(response.status);
                result.top_level_keys = keys(response.value.as_object());
                result.row_keys = keys(first_row(&response.value));
                result.detail = format!(
                    "in {elapsed_ms} ms; keys: {}; first row: {}",
                    joined(&result.top_level_keys),
                    joined(&result.row_keys),
                );
                (result, Some(response.value))
            }
            Err(error) => {
                result.status = error.status();
                result.detail = format!("in {elapsed_ms} ms; {error}. {}", error.hint());
                (result, None)
            }
        }
    }
}

fn joined(keys: &[String]) -> String {
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    }
}

fn one_row(call: ApiCall) -> ApiCall {
    call.query("page[limit]", "1")
}

fn first_id(response: Option<&Value>) -> Option<String> {
    let id = response?.pointer("/data/0/id")?.as_str()?;
    Some(id.to_owned())
}

fn first_row(response: &Value) -> Option<&Map<String, Value>> {
    let events = response.pointer("/data/attributes/spans");
    let rows = ["data", "spans", "error_spans", "evaluators"]
        .into_iter()
        .find_map(|key| response.get(key)?.as_array())
        .or_else(|| events?.as_array())?;
    let row = rows.first()?;
    row.get("attributes").unwrap_or(row).as_object()
}

fn keys(map: Option<&Map<String, Value>>) -> Vec<String> {
    map.into_iter()
        .flat_map(Map::keys)
        .take(MAX_KEYS)
        .map(|key| text::excerpt(key, 60))
        .collect()
}
