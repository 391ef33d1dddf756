//! Reads a page of events row by row.
//!
//! A page holds thousands of spans with ten metrics each. As one tree it takes several times the
//! memory of its text; so each row becomes a tree, is read, and is gone before the next.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::list::next_cursor;
use super::wire;
use crate::json::{self, JsonError};
use llmobs_core::model::{ExperimentMetric, ExperimentSpan};

/// One page of events.
#[derive(Debug, Default)]
pub(super) struct EventsPage {
    pub(super) spans: Vec<ExperimentSpan>,
    pub(super) summary: Vec<ExperimentMetric>,
    pub(super) unreadable_rows: usize,
    pub(super) next_cursor: Option<String>,
}

/// Reads `{data: {attributes: {spans, summary_metrics}}, meta: {after}}`; `None` if it is some
/// other JSON.
pub(super) fn read(text: &[u8]) -> Result<Option<EventsPage>, JsonError> {
    let mut reading = Reading::default();
    json::parse_into(text, &mut reading)?;
    reading.page.next_cursor = next_cursor(&Value::Object(reading.beside));
    Ok(reading.found.then_some(reading.page))
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    page: EventsPage,
    /// What stands beside `data`: where the cursor is.
    beside: Map<String, Value>,
    /// Whether there were attributes.
    found: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        Level(self, Place::Body).deserialize(deserializer)
    }
}

/// Where in the body a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Data,
    Attributes,
    Spans,
    Summary,
}

/// Reads a value by its place. What is not of the expected form is passed over.
struct Level<'r>(&'r mut Reading, Place);

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self(reading, place) = self;
        reading.found |= place == Place::Attributes;
        while let Some(key) = entries.next_key::<String>()? {
            let inner = match (place, key.as_str()) {
                (Place::Body, "data") => Place::Data,
                (Place::Data, "attributes") => Place::Attributes,
                (Place::Attributes, "spans") => Place::Spans,
                (Place::Attributes, "summary_metrics") => Place::Summary,
                (Place::Body, _) => {
                    reading.beside.insert(key, entries.next_value()?);
                    continue;
                }
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            entries.next_value_seed(Level(reading, inner))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let Self(reading, place) = self;
        let page = &mut reading.page;
        match place {
            Place::Spans => {
                while let Some(row) = rows.next_element()? {
                    match wire::span(row) {
                        Some(span) => page.spans.push(span),
                        None => page.unreadable_rows += 1,
                    }
                }
            }
            Place::Summary => {
                while let Some(row) = rows.next_element()? {
                    match wire::metric(row) {
                        Some(metric) => page.summary.push(metric),
                        None => page.unreadable_rows += 1,
                    }
                }
            }
            _ => while rows.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_is_read_whatever_the_order_of_its_parts() {
        let page = |text: &str| read(text.as_bytes()).unwrap().unwrap();
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
    fn what_is_not_events_is_not_read_as_none() {
        for body in [
            json!({}),
            json!({"data": []}),
            json!([]),
            json!("text"),
            json!({"data": {"id": "e"}}),
            json!({"data": {"attributes": []}}),
        ] {
            assert!(read(body.to_string().as_bytes()).unwrap().is_none());
        }
        assert_eq!(
            read(br#"{"data": {"attributes": {"spans": [{"span_id""#).unwrap_err(),
            JsonError::Truncated
        );
    }
}
