//! Input and output of an OpenTelemetry span.
//!
//! Each side is read from the first source that has it: messages as JSON in an attribute or an
//! event, one event per message, messages under indexed keys, a plain value.

use serde_json::{Map, Value, json};

use super::convention::{Side, ToolDefinitions};
use super::conventions::{CONVENTIONS, sorted_by_rank};
use super::indexed_keys::remove_list;
use super::messages::{
    message_of, messages_as_value, messages_of, parse_nested_json, system_message,
};
use super::reader::AttributeReader;
use crate::intake::json_value::to_text;
use llmobs_core::model::{Io, Message, Span, SpanKind};

/// Moves the provider from message events to the span. An event keeps a provider that differs
/// from the span's.
pub(super) fn read_event_provider(reader: &mut AttributeReader) {
    for convention in CONVENTIONS {
        let Some(provider) = convention.event_provider else {
            continue;
        };
        let is_marked = |name: &str| {
            let mut marks = convention.event_marks.iter();
            marks.any(|mark| name.starts_with(mark))
        };
        let events = reader.events.iter_mut();
        for event in events.filter(|event| is_marked(&event.name)) {
            let Some(on_event) = event.attributes.get(provider) else {
                continue;
            };
            match reader.fields.get(provider) {
                Some(on_span) if on_span != on_event => continue,
                Some(_) => {}
                None => reader.fields.insert(provider, on_event.clone()),
            }
            event.attributes.shift_remove(provider);
        }
    }
}

/// Reads input, output, documents and tool definitions.
pub(super) fn read(reader: &mut AttributeReader, span: &mut Span) {
    span.tool_definitions = read_tool_definitions(reader);
    let system = CONVENTIONS.into_iter().find_map(|convention| {
        let key = convention.system_instructions?;
        remove_from_event(reader, convention.message_event, key).or_else(|| reader.remove_json(key))
    });
    let mut input = read_messages(reader, Side::Input);
    let mut output = read_messages(reader, Side::Output);
    for read in CONVENTIONS
        .into_iter()
        .filter_map(|convention| convention.read_message_events)
    {
        let from_events = read(&mut reader.events);
        if input.is_empty() {
            input = from_events.input;
        }
        if output.is_empty() {
            output = from_events.output;
        }
    }
    for (side, messages) in [(Side::Input, &mut input), (Side::Output, &mut output)] {
        // Indexed keys of a side that already has messages stay and become tags.
        if messages.is_empty() {
            *messages = read_indexed_messages(reader, side);
        }
    }
    if let Some(system) = system {
        input.insert(0, system_message(system));
    }
    read_documents(reader, span);
    let kind = span.kind.clone();
    fill(reader, Side::Input, &mut span.input, input, &kind);
    fill(reader, Side::Output, &mut span.output, output, &kind);
    read_prompt(reader, &mut span.input);
}

/// Stores messages in the field that the span kind uses, and a plain value if there are none.
fn fill(
    reader: &mut AttributeReader,
    side: Side,
    io: &mut Io,
    messages: Vec<Value>,
    kind: &SpanKind,
) {
    let tool_value = CONVENTIONS
        .into_iter()
        .filter_map(|convention| convention.tool_values)
        .find_map(|keys| reader.fields.remove(keys.get(side)));
    if let Some(value) = tool_value {
        io.value = Some(as_text(value));
    }
    if !messages.is_empty() {
        match kind {
            SpanKind::Llm => io.messages = messages.into_iter().map(Message).collect(),
            SpanKind::Embedding if side == Side::Input => {
                let document = |message: &Value| json!({"text": message.get("content")});
                io.documents = messages.iter().map(document).collect();
            }
            _ if io.value.is_none() => io.value = Some(messages_as_value(messages)),
            _ => {
                let mut keys = CONVENTIONS
                    .into_iter()
                    .filter_map(|convention| convention.messages);
                if let Some(keys) = keys.next() {
                    reader.store(keys.get(side), Value::Array(messages));
                }
            }
        }
    }
    for keys in CONVENTIONS
        .into_iter()
        .flat_map(|convention| convention.values)
    {
        let key = keys.get(side);
        let Some(value) = reader.fields.remove(key) else {
            continue;
        };
        if io.value.is_none() && io.messages.is_empty() && io.documents.is_empty() {
            io.value = Some(as_text(value));
        } else {
            // The library's own request or response repeats the content: not worth a tag.
            reader.store(key, value);
        }
    }
}

fn as_text(value: Value) -> Value {
    match value {
        Value::String(_) => value,
        other => Value::String(other.to_string()),
    }
}

/// Removes an attribute from the event that carries messages, unless the span has the attribute.
fn remove_from_event(
    reader: &mut AttributeReader,
    event_name: Option<&str>,
    key: &str,
) -> Option<Value> {
    let event_name = event_name?;
    if reader.fields.get(key).is_some() {
        return None;
    }
    let event = reader
        .events
        .iter_mut()
        .find(|event| event.name == event_name)?;
    let removed = event.attributes.shift_remove(key).map(parse_nested_json);
    if event.attributes.is_empty() {
        reader
            .events
            .retain(|event| event.name != event_name || !event.attributes.is_empty());
    }
    removed
}

/// Messages as JSON.
fn read_messages(reader: &mut AttributeReader, side: Side) -> Vec<Value> {
    let sent = CONVENTIONS.into_iter().find_map(|convention| {
        let key = convention.messages?.get(side);
        remove_from_event(reader, convention.message_event, key).or_else(|| reader.remove_json(key))
    });
    let Some(sent) = sent else {
        return Vec::new();
    };
    match messages_of(sent.clone()) {
        Some(messages) => messages,
        None => {
            reader.warn(match side {
                Side::Input => "unreadable_input_messages",
                Side::Output => "unreadable_output_messages",
            });
            vec![json!({"role": "", "content": to_text(&sent)})]
        }
    }
}

fn read_indexed_messages(reader: &mut AttributeReader, side: Side) -> Vec<Value> {
    let conventions = sorted_by_rank(|convention| convention.message_rank);
    for prefixes in conventions
        .into_iter()
        .flat_map(|convention| convention.indexed_messages)
    {
        let items = remove_list(reader.fields.map_mut(), prefixes.get(side));
        if !items.is_empty() {
            return items
                .into_iter()
                .map(|item| message_of(completion_as_message(item)))
                .collect();
        }
    }
    Vec::new()
}

/// The prompt or completion of a text completion model as a message.
fn completion_as_message(item: Value) -> Value {
    let text = ["prompt", "completion"]
        .into_iter()
        .find_map(|key| item.get(key)?.get("text"));
    match text {
        Some(text) => json!({"role": "", "content": text}),
        None => item,
    }
}

/// The tools that the model was offered, as `{name, description, schema}`.
fn read_tool_definitions(reader: &mut AttributeReader) -> Vec<Value> {
    let sources = CONVENTIONS
        .into_iter()
        .filter_map(|convention| convention.tool_definitions.as_ref());
    for source in sources {
        let definitions = match source {
            ToolDefinitions::Json(key) => match reader.remove_json(key) {
                None => continue,
                Some(Value::Array(items)) => items,
                Some(other) => {
                    reader.warn("unreadable_tool_definitions");
                    vec![other]
                }
            },
            ToolDefinitions::Indexed(prefix) => {
                let items = remove_list(reader.fields.map_mut(), prefix);
                if items.is_empty() {
                    continue;
                }
                items
            }
        };
        return definitions.into_iter().map(tool_definition_of).collect();
    }
    Vec::new()
}

fn tool_definition_of(sent: Value) -> Value {
    let sent = parse_nested_json(sent);
    let schema = sent.get("tool").and_then(|tool| tool.get("json_schema"));
    let sent = schema.cloned().map_or(sent, parse_nested_json);
    let Value::Object(mut map) = sent else {
        return sent;
    };
    if let Some(Value::Object(function)) = map.shift_remove("function") {
        map.extend(function);
    }
    if map.get("type").is_some_and(|kind| kind == "function") {
        map.shift_remove("type");
    }
    for key in ["parameters", "input_schema"] {
        if let Some(schema) = map.shift_remove(key) {
            map.insert("schema".to_owned(), parse_nested_json(schema));
        }
    }
    Value::Object(map)
}

fn read_documents(reader: &mut AttributeReader, span: &mut Span) {
    for convention in CONVENTIONS {
        for (prefix, side) in convention.documents {
            let items = remove_list(reader.fields.map_mut(), prefix);
            let io = match side {
                Side::Input => &mut span.input,
                Side::Output => &mut span.output,
            };
            io.documents.extend(items.into_iter().map(document_of));
        }
        if let Some(prefix) = convention.embeddings {
            read_embeddings(reader, prefix, span);
        }
        if let Some(key) = convention.retrieval_query
            && let Some(query) = reader.remove_text(key)
        {
            span.input.value.get_or_insert(Value::String(query));
        }
    }
}

fn read_embeddings(reader: &mut AttributeReader, prefix: &str, span: &mut Span) {
    let mut vectors = Vec::new();
    for item in remove_list(reader.fields.map_mut(), prefix) {
        let inner = item.get("embedding").unwrap_or(&item);
        if let Some(text) = inner.get("text") {
            span.input.documents.push(json!({"text": text}));
        }
        vectors.extend(inner.get("vector").cloned());
    }
    if !vectors.is_empty() {
        let key = "embedding".to_owned();
        span.output.extra.insert(key, Value::Array(vectors));
    }
}

fn document_of(item: Value) -> Value {
    let Value::Object(mut map) = item else {
        return item;
    };
    match map.shift_remove("document") {
        // Keys beside the document belong to it too.
        Some(Value::Object(inner)) => map.extend(inner),
        Some(other) => {
            map.insert("document".to_owned(), other);
        }
        None => {}
    }
    let mut document = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "content" => document.insert("text".to_owned(), value),
            _ => document.insert(key, parse_nested_json(value)),
        };
    }
    Value::Object(document)
}

fn read_prompt(reader: &mut AttributeReader, input: &mut Io) {
    let mut prompt = Map::new();
    for (key, name) in CONVENTIONS
        .into_iter()
        .flat_map(|convention| convention.prompt)
    {
        if !prompt.contains_key(*name)
            && let Some(value) = reader.remove_json(key)
        {
            prompt.insert((*name).to_owned(), value);
        }
    }
    if !prompt.is_empty() {
        input.prompt = Some(Value::Object(prompt));
    }
}
