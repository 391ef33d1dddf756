//! A span as a document of the index.

use std::collections::BTreeMap;

use tantivy::TantivyDocument;
use tantivy::schema::OwnedValue;

use super::schema::{Fields, column_name};
use crate::model::{Span, SpanKind};
use crate::query::index::facts;
use crate::query::text::segments;

/// The document of a span, with the evaluations that stand on it. `id` is the key of its row.
pub(super) fn document(fields: &Fields, id: i64, span: &Span) -> TantivyDocument {
    let facts = facts(span);
    let mut document = TantivyDocument::new();
    document.add_i64(fields.id, id);
    document.add_i64(fields.start, span.start_ns);
    document.add_i64(fields.duration, span.duration_ns);
    document.add_bool(fields.failed, span.is_error());
    document.add_bool(fields.root, span.is_root());
    document.add_text(fields.trace, span.trace_id.as_str());
    if matches!(span.kind, SpanKind::Llm | SpanKind::Embedding) {
        document.add_text(fields.call, span.span_id.as_str());
        if let Some(parent) = &span.parent_id {
            document.add_text(fields.call_parent, parent.as_str());
        }
    }
    for key in &facts.keys {
        document.add_text(fields.keys, key);
    }
    for text in segments(span) {
        document.add_text(fields.words, text);
    }
    let numbers = facts
        .numbers
        .into_iter()
        .map(|(name, value)| (name, OwnedValue::F64(value)));
    document.add_object(fields.numbers, by_column(numbers));
    let groups = facts
        .groups
        .into_iter()
        .map(|(name, value)| (name, OwnedValue::Str(value)));
    document.add_object(fields.groups, by_column(groups));
    document
}

fn by_column(values: impl Iterator<Item = (String, OwnedValue)>) -> BTreeMap<String, OwnedValue> {
    let mut columns: BTreeMap<String, OwnedValue> = BTreeMap::new();
    for (name, value) in values {
        match columns.entry(column_name(&name).into_owned()) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(value);
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => match slot.get_mut() {
                OwnedValue::Array(values) => values.push(value),
                first => {
                    let first_value = std::mem::replace(first, OwnedValue::Null);
                    *first = OwnedValue::Array(vec![first_value, value]);
                }
            },
        }
    }
    columns
}
