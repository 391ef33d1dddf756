//! The content of a span by field, and parts of it by JSONPath.

mod budget;
mod path;

use std::fmt;
use std::io;
use std::str::FromStr;

pub use path::{MAX_PATH_CHARS, PathError, Selection, select};
use serde_json::{Map, Value, json};

use crate::model::{Io, Span};

/// A content field of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentField {
    /// The input as text, or as JSON if the span holds JSON (experiments).
    Input,
    /// The output as text, or as JSON if the span holds JSON (experiments).
    Output,
    /// The expected output.
    ExpectedOutput,
    /// The conversation of an LLM call: input messages, then output messages.
    Messages,
    /// Documents that were retrieved or embedded.
    Documents,
    /// Free-form metadata.
    Metadata,
}

impl ContentField {
    /// All fields, in the order of the documentation.
    pub const ALL: [ContentField; 6] = [
        ContentField::Input,
        ContentField::Output,
        ContentField::ExpectedOutput,
        ContentField::Messages,
        ContentField::Documents,
        ContentField::Metadata,
    ];

    /// The name of the field in tool arguments and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            ContentField::Input => "input",
            ContentField::Output => "output",
            ContentField::ExpectedOutput => "expected_output",
            ContentField::Messages => "messages",
            ContentField::Documents => "documents",
            ContentField::Metadata => "metadata",
        }
    }

    /// A JSONPath that works on a typical value of this field.
    pub fn example_path(self) -> &'static str {
        match self {
            ContentField::Input => "$.question",
            ContentField::Output => "$.results[0]",
            ContentField::ExpectedOutput => "$.answer",
            ContentField::Messages => "$.messages[-1].content",
            ContentField::Documents => "$.documents[0].text",
            ContentField::Metadata => "$.temperature",
        }
    }
}

impl fmt::Display for ContentField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ContentField {
    type Err = UnknownField;

    fn from_str(text: &str) -> Result<Self, UnknownField> {
        Self::ALL
            .into_iter()
            .find(|field| field.as_str() == text)
            .ok_or(UnknownField)
    }
}

/// The error for a name that is not a content field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown content field; use input, output, expected_output, messages, documents or metadata"
)]
pub struct UnknownField;

/// The complete content of a field; `None` if the span has none.
///
/// Input and output are text, by [`Io::text`], unless the span holds JSON other than text. Messages
/// and documents are arrays, metadata is an object.
pub fn field_value(span: &Span, field: ContentField) -> Option<Value> {
    match field {
        ContentField::Input => io_value(&span.input),
        ContentField::Output => io_value(&span.output),
        ContentField::ExpectedOutput => span
            .expected_output
            .clone()
            .filter(|value| !value.is_null()),
        ContentField::Messages => {
            let messages: Vec<Value> = span.messages().map(|message| message.0.clone()).collect();
            (!messages.is_empty()).then_some(Value::Array(messages))
        }
        ContentField::Documents => {
            let documents = span.documents();
            (!documents.is_empty()).then(|| Value::Array(documents.to_vec()))
        }
        ContentField::Metadata => {
            (!span.metadata.is_empty()).then(|| Value::Object(span.metadata.clone()))
        }
    }
}

fn io_value(io: &Io) -> Option<Value> {
    match &io.value {
        Some(Value::String(_) | Value::Null) | None => Some(Value::String(io.text()?.into_owned())),
        Some(other) => Some(other.clone()),
    }
}

/// The content fields of a span and their sizes. The keys are the fields for which [`field_value`]
/// is not `None`. `chars` is the number of characters of the complete field; for metadata, the
/// value lists its keys with their types.
pub fn content_info(span: &Span) -> Map<String, Value> {
    let mut info = Map::new();
    for field in ContentField::ALL {
        let Some(value) = field_value(span, field) else {
            continue;
        };
        let entry = match (field, &value) {
            (ContentField::Messages | ContentField::Documents, Value::Array(items)) => {
                json!({"count": items.len(), "chars": char_count(&value)})
            }
            (ContentField::Metadata, Value::Object(map)) => Value::Object(
                map.iter()
                    .map(|(key, value)| (key.clone(), type_name(value).into()))
                    .collect(),
            ),
            _ => json!({"chars": char_count(&value)}),
        };
        info.insert(field.as_str().to_owned(), entry);
    }
    info
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Number of characters of a value in an answer: a text as it is, other values as compact JSON.
fn char_count(value: &Value) -> usize {
    if let Value::String(text) = value {
        return text.chars().count();
    }
    let mut counter = CharCounter(0);
    // The counter accepts every write, and every value has a JSON form.
    let _written = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// Counts the UTF-8 characters that are written to it.
struct CharCounter(usize);

impl io::Write for CharCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::captures;

    #[test]
    fn content_info_lists_exactly_the_fields_with_content() {
        for name in captures::NAMES {
            for tree in captures::traces(name).into_values() {
                for node in tree.nodes() {
                    let span = tree.span(node);
                    let info = content_info(span);
                    for field in ContentField::ALL {
                        let present = field_value(span, field).is_some();
                        assert_eq!(info.contains_key(field.as_str()), present, "{field}");
                    }
                }
            }
        }
    }

    #[test]
    fn content_info_counts_characters_and_lists_metadata_types() {
        let span = Span {
            input: Io {
                value: Some(json!("Zoë 👋")),
                ..Io::default()
            },
            output: Io {
                messages: serde_json::from_value(json!([{"role": "assistant"}])).unwrap(),
                ..Io::default()
            },
            metadata: json!({"temperature": 0.1, "tags": []})
                .as_object()
                .cloned()
                .unwrap(),
            ..Span::default()
        };
        assert_eq!(
            Value::Object(content_info(&span)),
            json!({
                "input": {"chars": 5},
                "output": {"chars": 0},
                "messages": {"count": 1, "chars": 22},
                "metadata": {"temperature": "number", "tags": "array"},
            })
        );
        assert!(content_info(&Span::default()).is_empty());
    }

    #[test]
    fn input_messages_precede_output_messages() {
        let io = |text: &str| Io {
            messages: serde_json::from_value(json!([{"role": "x", "content": text}])).unwrap(),
            ..Io::default()
        };
        let span = Span {
            input: io("in"),
            output: io("out"),
            ..Span::default()
        };
        let messages = field_value(&span, ContentField::Messages).unwrap();
        assert_eq!(messages[0]["content"], "in");
        assert_eq!(messages[1]["content"], "out");
    }

    #[test]
    fn json_input_of_experiment_is_not_converted_to_text() {
        let span = Span {
            input: Io {
                value: Some(json!({"q": 1})),
                ..Io::default()
            },
            expected_output: Some(Value::Null),
            ..Span::default()
        };
        assert_eq!(
            field_value(&span, ContentField::Input),
            Some(json!({"q": 1}))
        );
        assert_eq!(field_value(&span, ContentField::ExpectedOutput), None);
    }

    #[test]
    fn fields_round_trip_through_their_names() {
        for field in ContentField::ALL {
            assert_eq!(field.as_str().parse(), Ok(field));
        }
        let error = "inputs".parse::<ContentField>().unwrap_err().to_string();
        assert!(error.contains("expected_output"));
    }
}
