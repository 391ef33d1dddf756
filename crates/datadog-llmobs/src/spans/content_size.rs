//! The size of span content, and which spans lack content in the structure of a trace.

use llmobs_core::analysis::tree::{NodeId, TraceTree};
use llmobs_core::model::{Io, Span};
use serde_json::Value;

/// An input or output below this size is complete in the structure. The API leaves out those above
/// 25 KB; the margin covers differences in how sizes are counted.
const MAX_INLINE_BYTES: usize = 16 * 1024;

/// The spans whose content must be read separately from the structure, in order. Of spans that share
/// an id, only the first.
pub(super) fn deferred_content(tree: &TraceTree) -> Vec<NodeId> {
    let is_first = |node: NodeId| tree.find(tree.span(node).span_id.as_str()) == Some(node);
    tree.nodes()
        .filter(|node| !is_inline(tree.span(*node)) && is_first(*node))
        .collect()
}

/// Whether the structure contains the complete content of a span.
fn is_inline(span: &Span) -> bool {
    let is_complete = |io: &Io| {
        !io.is_empty()
            && !io.extra.keys().any(|key| key.contains("attachment"))
            && io_bytes_up_to(io, MAX_INLINE_BYTES) < MAX_INLINE_BYTES
    };
    is_complete(&span.input) && is_complete(&span.output)
}

/// The approximate size of a span's content in bytes.
pub(super) fn content_bytes(span: &Span) -> usize {
    let max = usize::MAX;
    let mut bytes = io_bytes_up_to(&span.input, max) + io_bytes_up_to(&span.output, max);
    let expected = span.expected_output.iter();
    for value in expected
        .chain(span.metadata.values())
        .chain(&span.tool_definitions)
    {
        add_bytes(value, &mut bytes, max);
    }
    bytes
}

/// The approximate size of an input or output. Counting stops at `max`.
fn io_bytes_up_to(io: &Io, max: usize) -> usize {
    let mut bytes = 0;
    let messages = io.messages.iter().map(|message| &message.0);
    for value in messages
        .chain(&io.value)
        .chain(&io.documents)
        .chain(&io.prompt)
        .chain(io.extra.values())
    {
        add_bytes(value, &mut bytes, max);
    }
    bytes
}

fn add_bytes(value: &Value, bytes: &mut usize, max: usize) {
    if *bytes >= max {
        return;
    }
    *bytes = bytes.saturating_add(8);
    match value {
        Value::String(text) => *bytes = bytes.saturating_add(text.len()),
        Value::Array(items) => items.iter().for_each(|item| add_bytes(item, bytes, max)),
        Value::Object(map) => map.iter().for_each(|(key, item)| {
            *bytes = bytes.saturating_add(key.len());
            add_bytes(item, bytes, max);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
