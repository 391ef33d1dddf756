//! Lenient parsing of a page of spans.
//!
//! Documented attributes are read from their documented position. Undocumented ones (errors, sessions,
//! documents, links …) are read from every position that a dialect uses: beside the others, below
//! `meta`, or as flat keys with a dot. Unknown attributes are kept. A row that is not a span is
//! counted and skipped.

use serde_json::{Map, Value};

use super::evaluation;
use crate::fields::{
    integer, metrics, remove_map, remove_text, scalar_text, start_nanoseconds, tags, text_list,
};
use crate::json::JsonError;
use crate::page_body::{self, Container, PageRows};
use crate::pager;
use llmobs_core::model::{
    AgentAttribution, EventKind, Io, Message, Span, SpanError, SpanId, SpanKind, SpanLink, Status,
    TraceId,
};

/// A parsed page.
#[derive(Debug, Default)]
pub(super) struct WirePage {
    pub(super) spans: Vec<Span>,
    /// The number of rows without a span id.
    pub(super) unreadable_rows: usize,
    pub(super) next_cursor: Option<String>,
    /// Whether `meta.status` is `timeout`: the page has only the spans found until then.
    pub(super) timed_out: bool,
}

/// The rows of a page: spans.
#[derive(Debug, Default)]
struct SpanRows {
    spans: Vec<Span>,
    unreadable: usize,
}

impl PageRows for SpanRows {
    const CONTAINER: &'static str = "data";
    const LISTS: &'static [&'static str] = &["data"];

    fn push(&mut self, _list: &'static str, row: Value) {
        match read_row(row) {
            Some(span) => self.spans.push(span),
            None => self.unreadable += 1,
        }
    }
}

/// Parses a response of the search.
pub(super) fn parse_page(body: &[u8]) -> Result<WirePage, JsonError> {
    let page = page_body::parse::<SpanRows>(body)?;
    let envelope = Value::Object(page.envelope);
    let is_list = match page.container {
        Container::Present => true,
        Container::Null => envelope.get("meta").is_some(),
        Container::Missing => false,
    };
    if !is_list {
        return Err(JsonError::Unexpected(
            "JSON without the list of spans (`data`)",
        ));
    }
    let SpanRows { spans, unreadable } = page.rows;
    if spans.is_empty() && unreadable > 0 {
        return Err(JsonError::Unexpected(
            "JSON whose rows (`data`) are not spans",
        ));
    }
    Ok(WirePage {
        spans,
        unreadable_rows: unreadable,
        next_cursor: pager::next_cursor(&envelope),
        timed_out: envelope
            .pointer("/meta/status")
            .and_then(Value::as_str)
            .is_some_and(|status| status.eq_ignore_ascii_case("timeout")),
    })
}

/// Reads one row: `{id, type, attributes}`, or the attributes alone.
fn read_row(row: Value) -> Option<Span> {
    let Value::Object(mut row) = row else {
        return None;
    };
    match row.remove("attributes") {
        Some(Value::Object(mut attributes)) => {
            if !attributes.contains_key("span_id")
                && let Some(id) = row.remove("id")
            {
                attributes.insert("span_id".to_owned(), id);
            }
            read_span(attributes)
        }
        _ => read_span(row),
    }
}

/// The attributes and their `meta` object. A field may be in either.
struct SpanFields {
    top: Map<String, Value>,
    meta: Map<String, Value>,
}

impl SpanFields {
    fn remove(&mut self, key: &str) -> Option<Value> {
        let top = self.top.remove(key).filter(|value| !value.is_null());
        let meta = self.meta.remove(key).filter(|value| !value.is_null());
        top.or(meta)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.remove(key)
            .and_then(|value| scalar_text(&value))
            .filter(|text| !text.is_empty())
    }

    fn integer(&mut self, key: &str) -> Option<i64> {
        self.remove(key).and_then(|value| integer(&value))
    }

    fn list(&mut self, key: &str) -> Vec<Value> {
        match self.remove(key) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        }
    }

    fn map(&mut self, key: &str) -> Map<String, Value> {
        match self.remove(key) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }
}

fn read_span(mut top: Map<String, Value>) -> Option<Span> {
    let meta = remove_map(&mut top, "meta");
    let mut fields = SpanFields { top, meta };
    let span_id = fields.text("span_id")?;
    let tags = tags(fields.remove("tags"));
    let error = read_error(&mut fields);
    let status = read_status(&mut fields, error.is_some());
    let kind = read_kind(&mut fields);
    let dd = fields.map("_dd");
    let parent = fields.text("parent_id");
    let mut span = Span {
        trace_id: TraceId::from(fields.text("trace_id").unwrap_or_default()),
        span_id: SpanId::from(span_id),
        parent_id: SpanId::parse_parent(parent.as_deref()),
        apm_trace_id: fields
            .text("apm_trace_id")
            .or_else(|| dd.get("apm_trace_id").and_then(scalar_text)),
        name: fields.text("name").unwrap_or_default(),
        input: read_io(fields.remove("input"), &kind),
        output: read_io(fields.remove("output"), &kind),
        kind,
        ml_app: fields.text("ml_app").unwrap_or_default(),
        service: fields.text("service"),
        session_id: fields.text("session_id"),
        status,
        start_ns: start_nanoseconds(fields.integer("start_ns").unwrap_or_default()),
        duration_ns: fields.integer("duration").unwrap_or_default(),
        tags,
        metrics: metrics(fields.map("metrics")),
        model_name: fields.text("model_name"),
        model_provider: fields.text("model_provider"),
        model_version: fields.text("model_version"),
        error,
        expected_output: fields.remove("expected_output"),
        metadata: fields.map("metadata"),
        tool_definitions: fields.list("tool_definitions"),
        intent: fields.text("intent"),
        agent: read_agent(fields.map("agent_attribution")),
        links: fields
            .list("span_links")
            .into_iter()
            .filter_map(read_link)
            .collect(),
        collection_errors: text_list(fields.remove("collection_errors")),
        scope: fields
            .text("scope")
            .or_else(|| dd.get("scope").and_then(scalar_text)),
        evaluations: evaluation::read_map(
            first_present(&mut fields, ["evaluation", "evaluations"]),
            EventKind::Evaluation,
        ),
        feedback: evaluation::read_map(fields.remove("feedback"), EventKind::Feedback),
        ..Span::default()
    };
    fill_from_tags(&mut span);
    keep_unknown_fields(&mut span, fields, dd);
    Some(span)
}

fn read_status(fields: &mut SpanFields, has_error: bool) -> Status {
    match fields.text("status") {
        Some(text) if text.eq_ignore_ascii_case("error") => Status::Error,
        Some(_) => Status::Ok,
        None if has_error => Status::Error,
        None => Status::Ok,
    }
}

fn keep_unknown_fields(span: &mut Span, mut fields: SpanFields, dd: Map<String, Value>) {
    span.extra = fields.map("extra");
    span.meta_extra = fields.map("meta_extra");
    if !dd.is_empty() {
        span.extra.insert("_dd".to_owned(), Value::Object(dd));
    }
    span.extra.extend(fields.top);
    span.meta_extra.extend(fields.meta);
}

/// Sets fields without an attribute from the tags.
fn fill_from_tags(span: &mut Span) {
    let tag = |key: &str| span.tag(key).map(str::to_owned);
    let (service, session_id, ml_app) = (tag("service"), tag("session_id"), tag("ml_app"));
    span.service = span.service.take().or(service);
    span.session_id = span.session_id.take().or(session_id);
    if span.ml_app.is_empty() {
        span.ml_app = ml_app.unwrap_or_default();
    }
}

fn first_present<const N: usize>(fields: &mut SpanFields, keys: [&str; N]) -> Option<Value> {
    keys.into_iter()
        .filter_map(|key| fields.remove(key))
        .reduce(|first, _| first)
}

fn read_kind(fields: &mut SpanFields) -> SpanKind {
    let nested = fields
        .meta
        .remove("span")
        .or_else(|| fields.top.remove("span"));
    let nested = nested
        .as_ref()
        .and_then(|span| span.get("kind")?.as_str().map(str::to_owned));
    ["span_kind", "kind", "span.kind"]
        .into_iter()
        .filter_map(|key| fields.text(key))
        .reduce(|first, _| first)
        .or(nested)
        .map(|text| SpanKind::from(text.to_lowercase()))
        .unwrap_or_default()
}

/// `error: {message, type, stack}`, the same below `meta`, or flat keys. A bare `error: 1` only
/// repeats the status.
fn read_error(fields: &mut SpanFields) -> Option<SpanError> {
    let mut error = match fields.remove("error") {
        Some(Value::Object(mut map)) => SpanError {
            error_type: remove_text(&mut map, "type").unwrap_or_default(),
            message: remove_text(&mut map, "message").unwrap_or_default(),
            stack: remove_text(&mut map, "stack").unwrap_or_default(),
        },
        Some(Value::String(message)) => SpanError {
            message,
            ..SpanError::default()
        },
        _ => SpanError::default(),
    };
    for (key, field) in [
        ("error.type", &mut error.error_type),
        ("error.message", &mut error.message),
        ("error.stack", &mut error.stack),
    ] {
        if let Some(text) = fields.text(key)
            && field.is_empty()
        {
            *field = text;
        }
    }
    (!error.is_empty()).then_some(error)
}

/// The error of a row of the private endpoint.
pub(super) fn read_error_object(value: Value) -> Option<SpanError> {
    let mut fields = SpanFields {
        top: Map::from_iter([("error".to_owned(), value)]),
        meta: Map::new(),
    };
    read_error(&mut fields)
}

const IO_KEYS: [&str; 8] = [
    "value",
    "raw_value",
    "messages",
    "documents",
    "prompt",
    "attachment_key",
    "embedding",
    "parameters",
];

fn read_io(value: Option<Value>, kind: &SpanKind) -> Io {
    let mut map = match value {
        None | Some(Value::Null) => return Io::default(),
        Some(Value::Object(map)) => map,
        Some(raw) => {
            return Io {
                value: Some(raw),
                ..Io::default()
            };
        }
    };
    // The input of an experiment is any JSON, without a wrapper.
    let is_wrapped = map.is_empty() || map.keys().any(|key| IO_KEYS.contains(&key.as_str()));
    if *kind == SpanKind::Experiment && !is_wrapped {
        return Io {
            value: Some(Value::Object(map)),
            ..Io::default()
        };
    }
    let mut list = |key: &str| match map.remove(key) {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => Vec::new(),
        Some(single) => vec![single],
    };
    let messages = list("messages").into_iter().map(Message).collect();
    let documents = list("documents");
    // The documented value is text; `raw_value` is the original JSON.
    let text = map.remove("value").filter(|value| !value.is_null());
    let raw = map.remove("raw_value").filter(|value| !value.is_null());
    Io {
        messages,
        documents,
        value: raw.or(text),
        prompt: map.remove("prompt").filter(|value| !value.is_null()),
        extra: map,
    }
}

fn read_agent(mut map: Map<String, Value>) -> Option<AgentAttribution> {
    let name = remove_text(&mut map, "pagent_name").unwrap_or_default();
    let span_id = remove_text(&mut map, "pagent_span_id");
    let span_id = SpanId::parse_parent(span_id.as_deref());
    (!name.is_empty() || span_id.is_some()).then_some(AgentAttribution { name, span_id })
}

fn read_link(value: Value) -> Option<SpanLink> {
    let Value::Object(mut map) = value else {
        return None;
    };
    Some(SpanLink {
        span_id: remove_text(&mut map, "span_id").unwrap_or_default(),
        trace_id: remove_text(&mut map, "trace_id").unwrap_or_default(),
        attributes: remove_map(&mut map, "attributes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(body: &Value) -> Result<WirePage, JsonError> {
        parse_page(body.to_string().as_bytes())
    }

    fn span(attributes: Value) -> Span {
        let row = [("attributes".to_owned(), attributes)];
        read_row(Value::Object(Map::from_iter(row))).unwrap()
    }

    #[test]
    fn reads_documented_attributes() {
        let span = span(json!({
            "span_id":"17","trace_id":"ab","parent_id":"undefined","name":"chat","span_kind":"llm","status":"error",
            "ml_app":"shop","start_ns":1_790_000_000_123_456_789_i64,"duration":1500.7,"tags":["env:prod"],
            "metadata":{"t":0},"metrics":{"input_tokens":3,"bad":"x","text":"2.5"},"model_name":"m","model_provider":"p",
            "intent":"why","input":{"messages":[{"role":"user","content":"hi"}],"prompt":{"id":"q"}},
            "output":{"value":"yes"},"tool_definitions":[{"name":"t"}],"evaluation":{"e":{"value":1}},"feedback":{"f":{"value":"ok"}}}));
        assert_eq!(span.span_id.as_str(), "17");
        assert_eq!(span.parent_id, None);
        assert_eq!(
            (span.kind.clone(), span.status),
            (SpanKind::Llm, Status::Error)
        );
        assert_eq!(
            (span.start_ns, span.duration_ns),
            (1_790_000_000_123_456_789, 1500)
        );
        assert_eq!(
            span.metrics,
            [("input_tokens".into(), 3.0), ("text".into(), 2.5)].into()
        );
        assert_eq!(span.input.messages.len(), 1);
        assert_eq!(span.input.prompt, Some(json!({"id":"q"})));
        assert_eq!(span.output.text().as_deref(), Some("yes"));
        assert_eq!(span.evaluations["e"].value, Some(json!(1)));
        assert_eq!(span.feedback["f"].event_kind, EventKind::Feedback);
        assert!(span.extra.is_empty() && span.meta_extra.is_empty());
    }

    #[test]
    fn reads_undocumented_attributes_and_keeps_unknown_ones() {
        let span = span(json!({
            "span_id":"1","trace_id":"ab","error":{"message":"m","type":"T","stack":"s"},"session_id":"c","service":"svc",
            "apm_trace_id":"apm","expected_output":{"any":1},"input":{"documents":[{"text":"d"}],"embedding":[1]},
            "collection_errors":["dropped_io"],"span_links":[{"span_id":"2","trace_id":"t","attributes":{"from":"output"}}],
            "agent_attribution":{"pagent_name":"planner","pagent_span_id":9},"model_version":"v","scope":"experiments",
            "extra":{"config":{"a":1}},"meta_extra":{"z":2},"unknown":[1],"meta":{"odd":true}}));
        let error = span.error.unwrap();
        assert_eq!(
            (&*error.error_type, &*error.message, &*error.stack),
            ("T", "m", "s")
        );
        assert_eq!(span.status, Status::Error);
        assert_eq!(span.session_id.as_deref(), Some("c"));
        assert_eq!(span.apm_trace_id.as_deref(), Some("apm"));
        assert_eq!(span.expected_output, Some(json!({"any":1})));
        assert_eq!(span.input.documents.len(), 1);
        assert_eq!(span.input.extra["embedding"], json!([1]));
        assert_eq!(span.agent.unwrap().span_id, Some("9".into()));
        assert_eq!(span.links[0].span_id, "2");
        assert_eq!(span.collection_errors, ["dropped_io"]);
        assert_eq!(
            Value::Object(span.extra),
            json!({"config":{"a":1},"unknown":[1]})
        );
        assert_eq!(Value::Object(span.meta_extra), json!({"z":2,"odd":true}));
    }

    #[test]
    fn reads_kind_and_error_of_each_dialect() {
        let python =
            span(json!({"span_id":"1","meta":{"span":{"kind":"tool"},"error":{"message":"m"}}}));
        let js = span(json!({"span_id":"1","meta":{"span.kind":"tool","error.message":"m"}}));
        let http = span(
            json!({"span_id":"1","meta":{"kind":"tool","error":{"message":"m","stack":null}}}),
        );
        for span in [python, js, http] {
            assert_eq!(span.kind, SpanKind::Tool);
            assert_eq!(span.error.unwrap().message, "m");
            assert!(span.meta_extra.is_empty());
        }
        let flag = span(json!({"span_id":"1","status":"ok","error":0}));
        assert_eq!(flag.error, None);
    }

    #[test]
    fn keeps_digits_of_ids_and_converts_milliseconds() {
        let text = r#"{"attributes":{"span_id":18446744073709551615,"trace_id":"t","parent_id":9223372036854775809,"start_ns":1790000000123}}"#;
        let span = read_row(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(span.span_id.as_str(), "18446744073709551615");
        assert_eq!(span.parent_id, Some("9223372036854775809".into()));
        assert_eq!(span.start_ns, 1_790_000_000_123_000_000);
        assert_eq!(
            start_nanoseconds(1_790_000_000_123_000_001),
            1_790_000_000_123_000_001
        );
    }

    #[test]
    fn tags_replace_missing_attributes() {
        let span =
            span(json!({"span_id":"1","tags":["service:a","session_id:s:1","ml_app:shop",7,null]}));
        assert_eq!(span.service.as_deref(), Some("a"));
        assert_eq!(span.session_id.as_deref(), Some("s:1"));
        assert_eq!(span.ml_app, "shop");
        assert_eq!(span.tags.last().map(String::as_str), Some("7"));
    }

    #[test]
    fn input_of_experiment_is_its_value() {
        let raw = |kind: &str, input: Value| {
            span(json!({"span_id":"1","span_kind":kind,"input":input})).input
        };
        assert_eq!(
            raw("experiment", json!({"question":"q"})).value,
            Some(json!({"question":"q"}))
        );
        assert_eq!(raw("experiment", json!([1])).value, Some(json!([1])));
        assert_eq!(
            raw("experiment", json!({"value":"v"})).value,
            Some(json!("v"))
        );
        assert_eq!(
            raw("llm", json!({"value":"{\"a\": 1}","raw_value":{"a":1}})).value,
            Some(json!({"a":1}))
        );
        assert!(raw("llm", json!({})).is_empty());
        assert_eq!(raw("llm", json!({"question":"q"})).extra["question"], "q");
    }

    #[test]
    fn reads_status_and_cursor_of_page() {
        let page = parse(
            &json!({"data":[{"attributes":{"span_id":"1"}},{"attributes":{}},5],
            "meta":{"status":"timeout","page":{"after":"c"}}}),
        )
        .unwrap();
        assert_eq!((page.spans.len(), page.unreadable_rows), (1, 2));
        assert!(page.timed_out);
        assert_eq!(page.next_cursor.as_deref(), Some("c"));
        let empty = parse(&json!({"data":[],"meta":{"status":"done","page":null}})).unwrap();
        assert!(empty.spans.is_empty() && !empty.timed_out && empty.next_cursor.is_none());
        for bad in [
            json!({}),
            json!([]),
            json!({"data":{}}),
            json!({"data":[1]}),
            json!("x"),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_any_field_value(
            values in proptest::collection::vec(
                prop_oneof![
                    Just(Value::Null), Just(json!({})), Just(json!([])), Just(json!([1, "a", null])),
                    any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
                    any::<f64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from),
                    Just(json!({"kind":1,"value":{},"messages":{},"x":{"value":[]}})),
                ],
                26,
            )
        ) {
            let keys = ["trace_id","parent_id","name","span_kind","status","ml_app","start_ns","duration","tags",
                "metadata","metrics","model_name","input","output","tool_definitions","evaluation","feedback","error",
                "span","span_links","agent_attribution","collection_errors","_dd","extra","meta","meta_extra"];
            let mut attributes: Map<String, Value> = keys.into_iter().map(str::to_owned).zip(values).collect();
            attributes.insert("span_id".into(), json!("1"));
            prop_assert!(read_span(attributes).is_some());
        }
    }
}
