//! The body of a span search.
//!
//! The API ignores the structured filters if there is a query. So either the structured filters are
//! sent alone, or everything is combined into one query.

use serde_json::{Map, Value, json};

use llmobs_core::model::{SpanId, TimeWindow, TraceId};
use llmobs_core::query::combine::{SpanFilters, combine};

/// The filter of a search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    fields: Map<String, Value>,
}

impl Filter {
    /// All spans of a trace.
    pub(super) fn trace(id: &TraceId) -> Self {
        Self {
            fields: Map::from_iter([("trace_id".to_owned(), json!(id))]),
        }
    }

    /// These spans of a trace.
    pub(super) fn spans<'a>(trace: &TraceId, ids: impl Iterator<Item = &'a SpanId>) -> Self {
        Self::query(format!(
            "@trace_id:{} @span_id:({})",
            term(trace.as_str()),
            any_of(ids.map(SpanId::as_str))
        ))
    }

    /// All spans of a trace except these.
    pub(super) fn all_but<'a>(trace: &TraceId, ids: impl Iterator<Item = &'a SpanId>) -> Self {
        Self::query(format!(
            "@trace_id:{} -@span_id:({})",
            term(trace.as_str()),
            any_of(ids.map(SpanId::as_str))
        ))
    }

    /// The query and filters of a caller, optionally within `traces` (of one APM trace).
    pub(super) fn search(
        query: Option<&str>,
        filters: &SpanFilters,
        traces: Option<&[TraceId]>,
    ) -> Self {
        let query = query.map(str::trim).filter(|query| !query.is_empty());
        let mut filters = filters.clone();
        let mut text = query.map(str::to_owned);
        match traces {
            None => {}
            Some([one]) => filters.trace_id = Some(one.as_str().to_owned()),
            Some(several) => {
                let any = format!(
                    "@trace_id:({})",
                    any_of(several.iter().map(TraceId::as_str))
                );
                text = Some(text.map_or(any.clone(), |text| format!("({text}) AND {any}")));
            }
        }
        let needs_query = text.is_some()
            || filters.root_spans_only
            || filters.session_id.is_some()
            || traces.is_some()
            || repeats_a_tag(&filters);
        if needs_query {
            return Self::query(combine(text.as_deref(), &filters));
        }
        let mut fields = Map::new();
        for (key, value) in [
            ("ml_app", &filters.ml_app),
            ("span_kind", &filters.span_kind),
            ("span_name", &filters.span_name),
            ("trace_id", &filters.trace_id),
            ("span_id", &filters.span_id),
        ] {
            if let Some(value) = value {
                fields.insert(key.to_owned(), json!(value));
            }
        }
        if !filters.tags.is_empty() {
            let tags = filters.tags.iter().cloned().map(|(k, v)| (k, json!(v)));
            fields.insert("tags".to_owned(), Value::Object(tags.collect()));
        }
        Self { fields }
    }

    fn query(text: String) -> Self {
        Self {
            fields: Map::from_iter([("query".to_owned(), Value::String(text))]),
        }
    }
}

/// Whether two filters have the same tag key, which needs a query because an object cannot repeat a
/// key.
fn repeats_a_tag(filters: &SpanFilters) -> bool {
    let keys: std::collections::HashSet<&str> =
        filters.tags.iter().map(|(key, _)| key.as_str()).collect();
    keys.len() < filters.tags.len()
}

fn any_of<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.map(term).collect::<Vec<_>>().join(" OR ")
}

/// A value in the query language: bare if it is plain, else quoted.
fn term(value: &str) -> String {
    let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !matches!(value, "AND" | "OR" | "NOT");
    if plain {
        value.to_owned()
    } else {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// One page of a search.
pub(super) struct PageRequest<'a> {
    pub(super) filter: &'a Filter,
    pub(super) window: TimeWindow,
    pub(super) limit: usize,
    pub(super) cursor: Option<&'a str>,
    pub(super) newest_first: bool,
    pub(super) attachments: bool,
}

impl PageRequest<'_> {
    /// The documented request body.
    pub(super) fn body(&self) -> Value {
        let mut filter = Map::new();
        filter.insert("from".to_owned(), json!(rfc3339(self.window.from_ms)));
        filter.insert("to".to_owned(), json!(rfc3339(self.window.to_ms)));
        filter.extend(self.filter.fields.clone());
        let mut page = Map::from_iter([("limit".to_owned(), json!(self.limit))]);
        if let Some(cursor) = self.cursor {
            page.insert("cursor".to_owned(), json!(cursor));
        }
        json!({"data": {"type": "spans", "attributes": {
            "filter": filter,
            "options": {"include_attachments": self.attachments},
            "page": page,
            "sort": if self.newest_first { "-timestamp" } else { "timestamp" },
        }}})
    }
}

/// `2026-07-01T10:00:00.000Z`. A time that the calendar does not contain becomes the nearest one.
fn rfc3339(ms: i64) -> String {
    let timestamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    timestamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> SpanFilters {
        SpanFilters {
            ml_app: Some("shop".into()),
            span_kind: Some("llm".into()),
            tags: vec![("env".into(), "prod".into())],
            ..SpanFilters::default()
        }
    }

    fn query_of(filter: &Filter) -> &str {
        assert_eq!(filter.fields.len(), 1, "{filter:?}");
        filter.fields["query"].as_str().unwrap()
    }

    #[test]
    fn sends_structured_filters_without_query() {
        let filter = Filter::search(Some("  "), &filters(), None);
        assert_eq!(
            Value::Object(filter.fields),
            json!({"ml_app":"shop","span_kind":"llm","tags":{"env":"prod"}})
        );
    }

    #[test]
    fn combines_everything_into_query() {
        let query = Filter::search(Some("@status:error"), &filters(), None);
        let text = query_of(&query);
        assert!(text.contains("(@status:error)") && text.contains("shop") && text.contains("prod"));
        for filters in [
            SpanFilters {
                root_spans_only: true,
                ..filters()
            },
            SpanFilters {
                session_id: Some("s".into()),
                ..filters()
            },
            SpanFilters {
                tags: vec![("env".into(), "a".into()), ("env".into(), "b".into())],
                ..filters()
            },
        ] {
            assert!(query_of(&Filter::search(None, &filters, None)).contains("shop"));
        }
    }

    #[test]
    fn apm_trace_filters_by_its_traces() {
        let one = Filter::search(None, &filters(), Some(&["t1".into()]));
        assert!(query_of(&one).contains("@trace_id:t1"));
        let two = Filter::search(Some("x"), &filters(), Some(&["t1".into(), "t2".into()]));
        assert!(query_of(&two).contains("(x) AND @trace_id:(t1 OR t2)"));
    }

    #[test]
    fn quotes_special_ids() {
        let ids: [SpanId; 3] = ["17".into(), "a b".into(), "-\"\\".into()];
        let filter = Filter::spans(&"t:1".into(), ids.iter());
        assert_eq!(
            query_of(&filter),
            r#"@trace_id:"t:1" @span_id:(17 OR "a b" OR "-\"\\")"#
        );
        let filter = Filter::all_but(&"t".into(), ids.iter().take(1));
        assert_eq!(query_of(&filter), "@trace_id:t -@span_id:(17)");
    }

    #[test]
    fn builds_documented_body() {
        let body = PageRequest {
            filter: &Filter::trace(&"t".into()),
            window: TimeWindow {
                from_ms: 0,
                to_ms: 1_790_000_000_123,
            },
            limit: 10,
            cursor: Some("c"),
            newest_first: true,
            attachments: false,
        }
        .body();
        assert_eq!(
            body,
            json!({"data":{"type":"spans","attributes":{
                "filter":{"from":"1970-01-01T00:00:00.000Z","to":"2026-09-21T14:13:20.123Z","trace_id":"t"},
                "options":{"include_attachments":false},"page":{"limit":10,"cursor":"c"},"sort":"-timestamp"}}})
        );
        assert!(rfc3339(i64::MIN).starts_with('-'));
    }
}
