//! Converts a span to a document of the index.

use std::borrow::Cow;

use tantivy::TantivyDocument;
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf, Value};

use super::schema::{IndexFields, column_name, join_keys};
use llmobs_core::model::{Span, SpanKind};
use llmobs_core::query::index::index_document;
use llmobs_core::query::text::searched_texts;

/// The document of a span with its evaluations. `id` is the key of its row.
pub(super) fn document(fields: &IndexFields, id: i64, span: &Span) -> TantivyDocument {
    let content = index_document(span);
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
    document.add_text(fields.keys, join_keys(content.keys.iter()));
    for text in searched_texts(span) {
        document.add_text(fields.words, text);
    }
    let numbers = content.numbers.iter();
    let numbers = numbers.map(|(name, value)| (column_name(name), ColumnValue::Number(*value)));
    let numbers: Vec<_> = numbers.collect();
    document.add_field_value(fields.numbers, ColumnValue::Object(&numbers));
    let groups = content.groups.iter();
    let groups = groups.map(|(name, value)| (column_name(name), ColumnValue::Text(value)));
    let groups: Vec<_> = groups.collect();
    document.add_field_value(fields.groups, ColumnValue::Object(&groups));
    document
}

/// Columns in the form that tantivy reads: an object of single values. A name may occur twice.
#[derive(Debug, Clone, Copy)]
enum ColumnValue<'a> {
    Object(&'a [(Cow<'a, str>, ColumnValue<'a>)]),
    Number(f64),
    Text(&'a str),
}

impl<'a> Value<'a> for ColumnValue<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = ColumnIter<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match *self {
            ColumnValue::Object(columns) => ReferenceValue::Object(ColumnIter(columns.iter())),
            ColumnValue::Number(value) => ReferenceValueLeaf::F64(value).into(),
            ColumnValue::Text(text) => ReferenceValueLeaf::Str(text).into(),
        }
    }
}

/// Iterates over columns with their names.
struct ColumnIter<'a>(std::slice::Iter<'a, (Cow<'a, str>, ColumnValue<'a>)>);

impl<'a> Iterator for ColumnIter<'a> {
    type Item = (&'a str, ColumnValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), *value))
    }
}
