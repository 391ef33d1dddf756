//! What an upstream really answers: each endpoint that the tools need, tried with one small read.
//!
//! The result is made to be pasted into a bug report: statuses and the names of keys, no content.

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

/// Time for one endpoint.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Names of keys that are shown at most.
const MOST_KEYS: usize = 60;

/// What one endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// What was asked, for example `span search`.
    pub name: &'static str,
    /// Method and path, for example `POST /api/v2/llm-obs/v1/spans/events/search`.
    pub endpoint: String,
    /// The HTTP status; `None` if there was no answer, or nothing to try it with.
    pub status: Option<u16>,
    /// Keys of the answer.
    pub top_level_keys: Vec<String>,
    /// Keys of the first row's attributes.
    pub row_keys: Vec<String>,
    /// How long it took, in milliseconds; `None` if there was nothing to try it with.
    pub elapsed_ms: Option<u64>,
    /// The rest in one line: the time and the keys, what went wrong and the mend, or why it was not
    /// tried.
    pub detail: String,
}

impl ProbeResult {
    /// Whether the endpoint gave what it promises.
    pub fn is_ok(&self) -> bool {
        !self.top_level_keys.is_empty() && self.status.is_some_and(|status| status < 300)
    }

    fn not_tried(operation: &'static Operation, why: &str) -> Self {
        Self {
            detail: format!("not tried: {why}"),
            ..Self::of(operation)
        }
    }

    fn of(operation: &'static Operation) -> Self {
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
    /// Tries each endpoint once. Never fails: what went wrong stands in the results.
    pub async fn probe(&self) -> Vec<ProbeResult> {
        let (key, _) = self.try_out(&VALIDATE, ApiCall::new(&VALIDATE)).await;
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
        results.push(self.try_out(&LIST, list).await.0);
        let search = json!({"data": {"type": "spans", "attributes": {
            "filter": {"from": "now-7d", "to": "now"},
            "options": {"include_attachments": false},
            "page": {"limit": 1},
            "sort": "-timestamp"}}});
        let (result, answer) = self
            .try_out(&SEARCH, ApiCall::new(&SEARCH).body(search))
            .await;
        results.push(result);
        let private = json!({"from": "now-7d", "to": "now", "limit": 1});
        let private = ApiCall::new(&PRIVATE_SEARCH).body(private);
        results.push(self.try_out(&PRIVATE_SEARCH, private).await.0);
        let id = |key: &str| {
            let row = answer.as_ref()?.pointer("/data/0/attributes")?;
            row.get(key)?.as_str().map(str::to_owned)
        };
        let (Some(trace), Some(span)) = (id("trace_id"), id("span_id")) else {
            let why = "there is no span in the last 7 days";
            results.extend(
                [&FIND_ERROR_SPANS, &SPAN_CONTENT].map(|one| ProbeResult::not_tried(one, why)),
            );
            return;
        };
        let errors = json!({"from": "now-7d", "to": "now", "trace_id": trace});
        let errors = ApiCall::new(&FIND_ERROR_SPANS).body(errors);
        results.push(self.try_out(&FIND_ERROR_SPANS, errors).await.0);
        let content = json!({"from": "now-7d", "to": "now", "trace_id": trace, "span_id": span, "field": "metadata"});
        let content = ApiCall::new(&SPAN_CONTENT).body(content);
        results.push(self.try_out(&SPAN_CONTENT, content).await.0);
    }

    async fn probe_experiments(&self, results: &mut Vec<ProbeResult>) {
        let (result, answer) = self
            .try_out(&PROJECTS, one_row(ApiCall::new(&PROJECTS)))
            .await;
        results.push(result);
        let project = first_id(answer.as_ref());
        let dataset = self
            .try_below(&DATASETS, &[project.as_deref()], "project", results)
            .await;
        let ids = [project.as_deref(), dataset.as_deref()];
        self.try_below(&RECORDS, &ids, "dataset", results).await;
        let (result, answer) = self
            .try_out(&EXPERIMENTS, one_row(ApiCall::new(&EXPERIMENTS)))
            .await;
        results.push(result);
        let experiment = first_id(answer.as_ref());
        self.try_below(&EVENTS, &[experiment.as_deref()], "experiment", results)
            .await;
    }

    async fn probe_evaluators(&self, results: &mut Vec<ProbeResult>) {
        let (result, answer) = self.try_out(&EVALUATORS, ApiCall::new(&EVALUATORS)).await;
        results.push(result);
        let name = first_id(answer.as_ref());
        self.try_below(&EVALUATOR, &[name.as_deref()], "custom evaluator", results)
            .await;
        let all = ApiCall::new(&LIST_FOR_ORG).body(json!({}));
        results.push(self.try_out(&LIST_FOR_ORG, all).await.0);
        results.push(match name {
            Some(name) => {
                let asked = json!({"eval_name": name, "from": "now-7d", "to": "now"});
                let asked = ApiCall::new(&AGGREGATE_STATS).body(asked);
                self.try_out(&AGGREGATE_STATS, asked).await.0
            }
            None => ProbeResult::not_tried(&AGGREGATE_STATS, "no custom evaluator was found"),
        });
    }

    /// Tries what needs ids that an answer before may have given. The first row's id.
    async fn try_below(
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
            results.push(ProbeResult::not_tried(operation, &why));
            return None;
        };
        let (result, answer) = self.try_out(operation, one_row(call)).await;
        results.push(result);
        first_id(answer.as_ref())
    }

    async fn try_out(
        &self,
        operation: &'static Operation,
        call: ApiCall,
    ) -> (ProbeResult, Option<Value>) {
        let start = Instant::now();
        let client = self.with_deadline(super::Deadline::after(TIMEOUT));
        let answer = client.execute_up_to(call, 1).await;
        let elapsed_ms = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        let mut result = ProbeResult {
            elapsed_ms: Some(elapsed_ms),
            ..ProbeResult::of(operation)
        };
        match answer {
            Ok(answer) => {
                result.status = Some(answer.status);
                result.top_level_keys = keys(answer.value.as_object());
                result.row_keys = keys(first_row(&answer.value));
                result.detail = format!(
                    "in {elapsed_ms} ms; keys: {}; first row: {}",
                    listed(&result.top_level_keys),
                    listed(&result.row_keys),
                );
                (result, Some(answer.value))
            }
            Err(error) => {
                result.status = error.status();
                result.detail = format!("in {elapsed_ms} ms; {error}. {}", error.hint());
                (result, None)
            }
        }
    }
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    }
}

fn one_row(call: ApiCall) -> ApiCall {
    call.query("page[limit]", "1")
}

fn first_id(answer: Option<&Value>) -> Option<String> {
    let id = answer?.pointer("/data/0/id")?.as_str()?;
    Some(id.to_owned())
}

fn first_row(answer: &Value) -> Option<&Map<String, Value>> {
    let events = answer.pointer("/data/attributes/spans");
    let rows = ["data", "spans", "error_spans", "evaluators"]
        .into_iter()
        .find_map(|key| answer.get(key)?.as_array())
        .or_else(|| events?.as_array())?;
    let row = rows.first()?;
    row.get("attributes").unwrap_or(row).as_object()
}

fn keys(map: Option<&Map<String, Value>>) -> Vec<String> {
    map.into_iter()
        .flat_map(Map::keys)
        .take(MOST_KEYS)
        .map(|key| text::excerpt(key, 60))
        .collect()
}
