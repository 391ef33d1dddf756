//! Parsing of a page of experiment events.

use serde_json::Value;

use super::wire;
use crate::json::JsonError;
use crate::page_body::{self, Container, PageRows};
use crate::pager::{self, CursorPage};
use llmobs_core::model::{ExperimentMetric, ExperimentSpan};

const SPANS: &str = "data/attributes/spans";
const SUMMARY_METRICS: &str = "data/attributes/summary_metrics";

/// One page of events.
#[derive(Debug, Default)]
pub(super) struct EventsPage {
    pub(super) spans: Vec<ExperimentSpan>,
    pub(super) summary: Vec<ExperimentMetric>,
    pub(super) unreadable_rows: usize,
    next_cursor: Option<String>,
}

impl PageRows for EventsPage {
    const CONTAINER: &'static str = "data/attributes";
    const LISTS: &'static [&'static str] = &[SPANS, SUMMARY_METRICS];

    fn push(&mut self, list: &'static str, row: Value) {
        let is_read = if list == SPANS {
            wire::span(row).map(|span| self.spans.push(span))
        } else {
            wire::metric(row).map(|metric| self.summary.push(metric))
        };
        if is_read.is_none() {
            self.unreadable_rows += 1;
        }
    }
}

impl CursorPage for EventsPage {
    fn take_next_cursor(&mut self) -> Option<String> {
        self.next_cursor.take()
    }
}

/// Parses `{data: {attributes: {spans, summary_metrics}}, meta: {after}}`.
pub(super) fn parse_page(body: &[u8]) -> Result<EventsPage, JsonError> {
    let page = page_body::parse::<EventsPage>(body)?;
    if page.container != Container::Present {
        return Err(JsonError::Unexpected(
            "JSON without the events (`data.attributes`)",
        ));
    }
    let mut events = page.rows;
    events.next_cursor = pager::next_cursor(&Value::Object(page.envelope));
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_members_in_any_order() {
        let page = |text: &str| parse_page(text.as_bytes()).unwrap();
        let rows = r#""summary_metrics": [{"label": "m", "score_value": 1}, 7], "spans": [{"span_id": "1"}, {}]"#;
        for text in [
            format!(
                r#"{{"data": {{"id": "e", "attributes": {{{rows}}}}}, "meta": {{"after": "c"}}}}"#
            ),
            format!(
                r#"{{"meta": {{"after": "c"}}, "data": {{"attributes": {{"x": [], {rows}}}}}}}"#
            ),
        ] {
            let page = page(&text);
            assert_eq!((page.spans.len(), page.summary.len()), (1, 1));
            assert_eq!(page.unreadable_rows, 2);
            assert_eq!(page.next_cursor.as_deref(), Some("c"));
        }
        let empty = page(r#"{"data": {"attributes": {"spans": null, "summary_metrics": {}}}}"#);
        assert!(empty.spans.is_empty() && empty.next_cursor.is_none());
    }

    #[test]
    fn rejects_other_json_and_truncated_pages() {
        for body in [
            json!({}),
            json!({"data": []}),
            json!([]),
            json!("text"),
            json!({"data": {"id": "e"}}),
            json!({"data": {"attributes": []}}),
        ] {
            let error = parse_page(body.to_string().as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::Unexpected(_)), "{body}");
        }
        assert_eq!(
            parse_page(br#"{"data": {"attributes": {"spans": [{"span_id""#).unwrap_err(),
            JsonError::Truncated
        );
    }
}
