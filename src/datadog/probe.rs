//! What an upstream really answers: each endpoint that the tools need, tried with one small read.
//!
//! The result is made to be pasted into a bug report: statuses and the names of keys, no content.

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::call::{Call, JSON, Operation};
use super::client::Client;
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
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// The rest in one line: the time and the keys, or what went wrong and the mend.
    pub detail: String,
}

impl ProbeResult {
    /// Whether the endpoint gave what it promises.
    pub fn is_ok(&self) -> bool {
        !self.top_level_keys.is_empty() && self.status.is_some_and(|status| status < 300)
    }

    fn of(operation: &'static Operation, name: &'static str) -> Self {
        Self {
            name,
            endpoint: format!("{} {}", operation.method, operation.route),
            status: None,
            top_level_keys: Vec::new(),
            row_keys: Vec::new(),
            elapsed_ms: 0,
            detail: String::new(),
        }
    }
}

impl Client {
    /// Tries each endpoint once. Never fails: what went wrong stands in the results.
    pub async fn probe(&self) -> Vec<ProbeResult> {
        let mut results = vec![
            self.try_out(Call::new(&VALIDATE), &VALIDATE, VALIDATE.name)
                .await
                .0,
        ];
        let list = Call::new(&LIST)
            .query("filter[from]", "now-7d")
            .query("filter[to]", "now")
            .query("page[limit]", "1");
        results.push(self.try_out(list, &LIST, LIST.name).await.0);
        let search = json!({"data": {"type": "spans", "attributes": {
            "filter": {"from": "now-7d", "to": "now"},
            "options": {"include_attachments": false},
            "page": {"limit": 1},
            "sort": "-timestamp"}}});
        let (result, answer) = self
            .try_out(Call::new(&SEARCH).body(search), &SEARCH, SEARCH.name)
            .await;
        results.push(result);
        let window = json!({"from": "now-7d", "to": "now"});
        let with = |extra: Value| {
            let mut body = window.as_object().cloned().unwrap_or_default();
            body.extend(extra.as_object().cloned().unwrap_or_default());
            Value::Object(body)
        };
        let call = Call::new(&PRIVATE_SEARCH).body(with(json!({"limit": 1})));
        results.push(
            self.try_out(call, &PRIVATE_SEARCH, "private span search")
                .await
                .0,
        );
        let id = |key: &str| {
            let row = answer.as_ref()?.pointer("/data/0/attributes")?;
            row.get(key)?.as_str().map(str::to_owned)
        };
        match (id("trace_id"), id("span_id")) {
            (Some(trace), Some(span)) => {
                let call = Call::new(&FIND_ERROR_SPANS).body(with(json!({"trace_id": trace})));
                results.push(
                    self.try_out(call, &FIND_ERROR_SPANS, FIND_ERROR_SPANS.name)
                        .await
                        .0,
                );
                let body = json!({"trace_id": trace, "span_id": span, "field": "metadata"});
                let call = Call::new(&SPAN_CONTENT).body(with(body));
                results.push(self.try_out(call, &SPAN_CONTENT, SPAN_CONTENT.name).await.0);
            }
            _ => results.extend(
                [&FIND_ERROR_SPANS, &SPAN_CONTENT].map(|operation| ProbeResult {
                    detail: "not tried: there is no span in the last 7 days".to_owned(),
                    ..ProbeResult::of(operation, operation.name)
                }),
            ),
        }
        results
    }

    async fn try_out(
        &self,
        call: Call,
        operation: &'static Operation,
        name: &'static str,
    ) -> (ProbeResult, Option<Value>) {
        let start = Instant::now();
        let client = self.with_deadline(super::Deadline::after(TIMEOUT));
        let answer = client.execute_up_to(call, 1).await;
        let mut result = ProbeResult {
            elapsed_ms: start.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            ..ProbeResult::of(operation, name)
        };
        match answer {
            Ok(answer) => {
                result.status = Some(answer.status);
                result.top_level_keys = keys(answer.value.as_object());
                result.row_keys = keys(first_row(&answer.value));
                result.detail = format!(
                    "in {} ms; keys: {}; first row: {}",
                    result.elapsed_ms,
                    listed(&result.top_level_keys),
                    listed(&result.row_keys),
                );
                (result, Some(answer.value))
            }
            Err(error) => {
                result.status = error.status();
                result.detail = format!("in {} ms; {error}. {}", result.elapsed_ms, error.hint());
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

fn first_row(answer: &Value) -> Option<&Map<String, Value>> {
    let rows = ["data", "spans", "error_spans"]
        .into_iter()
        .find_map(|key| answer.get(key)?.as_array())?;
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
