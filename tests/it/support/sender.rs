//! What an application sends, and what a reader finds: over a real port.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Spans of one batch.
pub(crate) const BATCH: usize = 5;

/// A trace of five spans that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) trace: String,
    /// Whether its evaluations were acknowledged too.
    pub(crate) judged: bool,
}

pub(crate) fn client() -> reqwest::Client {
    datadog_llmobs::http_client().no_proxy().build().unwrap()
}

/// The milliseconds since 1970, now.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}

/// A batch in the SDK's form. `filler` is text that makes it larger.
pub(crate) fn batch(app: &str, trace: &str, filler: &str) -> Value {
    let start = now_ms() * 1_000_000;
    let spans: Vec<Value> = (0..BATCH)
        .map(|n| {
            json!({"trace_id": trace, "span_id": n.to_string(),
                "parent_id": if n == 0 { "undefined" } else { "first" },
                "name": "work", "start_ns": start + n as i64, "duration": 1_000, "status": "ok",
                "tags": [format!("ml_app:{app}")],
                "meta": {"kind": "task", "input": {"value": format!("word-{trace} {filler}")}}})
        })
        .collect();
    json!([{"event_type": "span", "spans": spans}])
}

/// A score for each span of a batch: its number.
pub(crate) fn scores(trace: &str) -> Value {
    let metrics: Vec<Value> = (0..BATCH)
        .map(|n| {
            json!({"join_on": {"span": {"trace_id": trace, "span_id": n.to_string()}},
                "label": "place", "metric_type": "score", "score_value": n, "ml_app": "x",
                "timestamp_ms": now_ms()})
        })
        .collect();
    json!({"data": {"type": "evaluation_metric", "attributes": {"metrics": metrics}}})
}

/// Posts a body; the answer, or `None` when there was none.
pub(crate) async fn answered(
    client: &reqwest::Client,
    url: &str,
    path: &str,
    body: &Value,
) -> Option<reqwest::Response> {
    let answer = client.post(format!("{url}{path}")).json(body).send().await;
    answer.ok()
}

/// The same, of which only the status matters.
pub(crate) async fn post(
    client: &reqwest::Client,
    url: &str,
    path: &str,
    body: &Value,
) -> Option<u16> {
    let answer = answered(client, url, path, body).await?;
    Some(answer.status().as_u16())
}

/// All spans that a query finds, page by page, from the documented endpoint.
pub(crate) async fn found(client: &reqwest::Client, url: &str, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut page = json!({"limit": 1_000});
        if !cursor.is_null() {
            page["cursor"] = cursor;
        }
        let body = json!({"data": {"type": "spans", "attributes": {
            "filter": {"query": query, "from": "now-1d", "to": "now"}, "page": page}}});
        let answer = client
            .post(format!("{url}/api/v2/llm-obs/v1/spans/events/search"))
            .json(&body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        let items = answer["data"].as_array().unwrap().iter();
        all.extend(items.map(|item| item["attributes"].clone()));
        cursor = answer["meta"]["page"]["after"].clone();
        if cursor.is_null() {
            return all;
        }
    }
}

/// Every trace that was acknowledged is there whole and once with what was said about it, and none
/// is there in part.
pub(crate) fn assert_all_there(spans: &[Value], sent: &[Sent]) {
    let mut traces: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for span in spans {
        let trace = span["trace_id"].as_str().unwrap();
        traces.entry(trace).or_default().push(span);
    }
    for (trace, spans) in &traces {
        let mut ids: Vec<&str> = spans
            .iter()
            .map(|span| span["span_id"].as_str().unwrap())
            .collect();
        ids.sort_unstable();
        assert_eq!(
            ids,
            ["0", "1", "2", "3", "4"],
            "{trace}: each span once, or none at all"
        );
    }
    for sent in sent {
        let spans = traces.get(sent.trace.as_str());
        let spans =
            spans.unwrap_or_else(|| panic!("{} was acknowledged and is missing", sent.trace));
        for span in spans.iter().filter(|_| sent.judged) {
            let number: f64 = span["span_id"].as_str().unwrap().parse().unwrap();
            let value = &span["evaluation"]["place"]["value"];
            assert_eq!(value.as_f64(), Some(number), "{}: its score", sent.trace);
        }
    }
}

/// Numbers that repeat.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below another.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}
