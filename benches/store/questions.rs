//! The searches to measure, and the responses they must get.

use serde_json::{Value, json};

use super::generator::{BIG_APP, Facts, NOW_MS, SMALL_APP, WEEK_MS};

const SEARCH: &str = "/api/v2/llm-obs/v1/spans/events/search";
const AGGREGATE: &str = "/api/unstable/llm-obs-mcp/v1/trace/aggregate";

/// The default number of rows of a page.
const PAGE: usize = 50;

/// The kind of request. Growth with the number of spans is bounded for the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Search,
    LookUp,
    Groups,
}

/// One search.
pub struct Question {
    pub name: &'static str,
    pub kind: Kind,
    /// Upper bound of the median, in milliseconds.
    pub target_ms: Option<f64>,
    pub path: &'static str,
    pub body: Value,
    /// The rows or groups that the response must have.
    pub rows: Rows,
}

/// Their number.
#[derive(Debug, Clone, Copy)]
pub enum Rows {
    Exactly(usize),
    AtLeast(usize),
}

impl Question {
    /// Describes what is wrong with a response.
    pub fn check(&self, answer: &Value) -> Result<(), String> {
        let (rows, whole) = match self.kind {
            Kind::Groups => (&answer["groups"], answer["sampled"] == false),
            _ => (&answer["data"], answer["meta"]["status"] == "done"),
        };
        let found = rows.as_array().map(Vec::len).ok_or("no rows at all")?;
        match self.rows {
            _ if !whole => Err("ran out of time".to_owned()),
            Rows::Exactly(wanted) if found != wanted => Err(format!("{found} rows, not {wanted}")),
            Rows::AtLeast(wanted) if found < wanted => Err(format!("only {found} rows")),
            _ => Ok(()),
        }
    }
}

/// The week, and the time after it.
fn window() -> (i64, i64) {
    (NOW_MS - 2 * WEEK_MS, NOW_MS + WEEK_MS)
}

fn page(filter: &Value, limit: usize) -> Value {
    let (from, to) = window();
    let mut filter = filter.clone();
    filter["from"] = json!(from.to_string());
    filter["to"] = json!(to.to_string());
    json!({"data": {"type": "spans", "attributes": {"filter": filter, "page": {"limit": limit}}}})
}

fn search(name: &'static str, target_ms: f64, query: &str, rows: Rows) -> Question {
    Question {
        name,
        kind: Kind::Search,
        target_ms: Some(target_ms),
        path: SEARCH,
        body: page(&json!({"query": query}), PAGE),
        rows,
    }
}

fn groups(name: &'static str, more: &[(&str, Value)], rows: Rows) -> Question {
    let (from_ms, to_ms) = window();
    let mut body = json!({"window": {"from_ms": from_ms, "to_ms": to_ms},
        "group_by": [{"facet": "@meta.model_name"}], "measures": ["duration.p95"], "limit": 100});
    for (key, value) in more {
        body[key] = value.clone();
    }
    Question {
        name,
        kind: Kind::Groups,
        target_ms: Some(60.0),
        path: AGGREGATE,
        body,
        rows,
    }
}

/// The page after a response to the search for the newest spans of an application.
pub fn next_page(answer: &Value) -> Question {
    let mut body = page(&json!({"ml_app": BIG_APP}), PAGE);
    body["data"]["attributes"]["page"]["cursor"] = answer["meta"]["page"]["after"].clone();
    Question {
        name: "next page",
        kind: Kind::Search,
        target_ms: Some(10.0),
        path: SEARCH,
        body,
        rows: Rows::Exactly(PAGE),
    }
}

/// The search that [`next_page`] continues.
pub fn newest() -> Question {
    Question {
        name: "newest 50 of an app",
        kind: Kind::Search,
        target_ms: Some(10.0),
        path: SEARCH,
        body: page(&json!({"ml_app": BIG_APP}), PAGE),
        rows: Rows::Exactly(PAGE),
    }
}

fn look_up(name: &'static str, target_ms: Option<f64>, filter: &Value, rows: usize) -> Question {
    Question {
        name,
        kind: Kind::LookUp,
        target_ms,
        path: SEARCH,
        body: page(filter, 5_000),
        rows: Rows::Exactly(rows),
    }
}

/// All but the first two.
pub fn others(facts: &Facts) -> Vec<Question> {
    let common = &facts.common_word;
    let full = Rows::Exactly(PAGE);
    let some = Rows::AtLeast(1);
    let trace = &facts.small_trace;
    let day = [
        ("ml_app", json!(BIG_APP)),
        (
            "window",
            json!({"from_ms": NOW_MS - 3 * 86_400_000, "to_ms": NOW_MS - 2 * 86_400_000}),
        ),
    ];
    let score = [(
        "measures",
        json!(["duration.p95", "evaluation.quality.mean"]),
    )];
    let by_tag = [("group_by", json!([{"facet": "prompt_version"}]))];
    vec![
        search(
            "error AND tool AND tag",
            20.0,
            "@status:error @meta.span.kind:tool env:prod",
            some,
        ),
        search(
            "common word AND small app AND duration",
            20.0,
            &format!("{common} @ml_app:\"{SMALL_APP}\" @duration:>60s"),
            Rows::AtLeast(0),
        ),
        search(
            "tag AND tag AND NOT common word",
            20.0,
            &format!("env:staging team:search -{common}"),
            some,
        ),
        search(
            "NOT tag AND tokens > 20,000",
            20.0,
            "-env:prod @metrics.total_tokens:>20000",
            some,
        ),
        search(
            "evaluation exists",
            10.0,
            "@evaluations.custom.faithfulness:*",
            full,
        ),
        search(
            "evaluation exists AND app",
            10.0,
            &format!("@evaluations.custom.faithfulness:* @ml_app:\"{BIG_APP}\""),
            some,
        ),
        search(
            "evaluation score < 0.5",
            10.0,
            "@evaluations.custom.quality:<0.5",
            some,
        ),
        search("common word", 20.0, common, full),
        search(
            "rare word",
            20.0,
            &facts.rare_word,
            Rows::Exactly(facts.rare.min(PAGE)),
        ),
        search(
            "phrase",
            20.0,
            &format!("\"{}\"", facts.phrase_words),
            Rows::Exactly(facts.phrase.min(PAGE)),
        ),
        groups("p95 by model, whole week", &[], Rows::Exactly(13)),
        groups(
            "p95 by tag prompt_version, whole week",
            &by_tag,
            Rows::Exactly(6),
        ),
        groups(
            "p95 and mean score by model, whole week",
            &score,
            Rows::Exactly(13),
        ),
        groups("p95 by model, one app, one day", &day, Rows::AtLeast(2)),
        look_up(
            "trace of 15 spans, all content",
            None,
            &json!({"trace_id": trace}),
            15,
        ),
        look_up(
            "trace of 2,000 spans, all content",
            Some(80.0),
            &json!({"trace_id": facts.large_trace}),
            facts.large_size,
        ),
        look_up(
            "one span",
            Some(2.0),
            &json!({"trace_id": trace, "span_id": facts.small_span}),
            1,
        ),
    ]
}

/// Searches that are counted and not measured, with the expected number.
pub fn counts(facts: &Facts) -> Vec<(Question, usize)> {
    let queries = [
        (facts.rare_word.clone(), facts.rare),
        (format!("\"{}\"", facts.phrase_words), facts.phrase),
        (format!("@ml_app:{BIG_APP}"), facts.big_app),
        ("@status:error".to_owned(), facts.errors),
        ("@evaluations.custom.quality:*".to_owned(), facts.quality),
        (
            "@evaluations.custom.quality:<0.5".to_owned(),
            facts.quality_low,
        ),
        ("*".to_owned(), facts.spans),
    ];
    queries
        .into_iter()
        .map(|(query, right)| {
            (
                groups("count", &[("query", json!(query))], Rows::AtLeast(0)),
                right,
            )
        })
        .collect()
}
