//! A span as a document of the index.

use std::borrow::Cow;

use tantivy::TantivyDocument;
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf, Value};

use super::schema::{Fields, column_name, joined};
use llmobs_core::model::{Span, SpanKind};
use llmobs_core::query::index::index_document;
use llmobs_core::query::text::searched_texts;

/// The document of a span, with the evaluations that stand on it. `id` is the key of its row.
pub(super) fn document(fields: &Fields, id: i64, span: &Span) -> TantivyDocument {
    let facts = index_document(span);
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
    document.add_text(fields.keys, joined(facts.keys.iter()));
    for text in searched_texts(span) {
        document.add_text(fields.words, text);
    }
    let numbers = facts.numbers.iter();
    let numbers = numbers.map(|(name, value)| (column_name(name), Columns::Number(*value)));
    let numbers: Vec<_> = numbers.collect();
    document.add_field_value(fields.numbers, Columns::All(&numbers));
    let groups = facts.groups.iter();
    let groups = groups.map(|(name, value)| (column_name(name), Columns::Text(value)));
    let groups: Vec<_> = groups.collect();
    document.add_field_value(fields.groups, Columns::All(&groups));
    document
}

/// Columns as the engine reads them: an object of single values, in which a name may come twice.
#[derive(Debug, Clone, Copy)]
enum Columns<'a> {
    All(&'a [(Cow<'a, str>, Columns<'a>)]),
    Number(f64),
    Text(&'a str),
}

impl<'a> Value<'a> for Columns<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = Named<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match *self {
            Columns::All(columns) => ReferenceValue::Object(Named(columns.iter())),
            Columns::Number(value) => ReferenceValueLeaf::F64(value).into(),
            Columns::Text(text) => ReferenceValueLeaf::Str(text).into(),
        }
    }
}

/// The columns with their names.
struct Named<'a>(std::slice::Iter<'a, (Cow<'a, str>, Columns<'a>)>);

impl<'a> Iterator for Named<'a> {
    type Item = (&'a str, Columns<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_ref(), *value))
    }
}
