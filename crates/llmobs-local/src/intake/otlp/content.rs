//! What went into and came out of an OpenTelemetry span.
//!
//! A side is looked for in this order: the messages of the GenAI conventions as an attribute, the
//! same in an event, the conventions' older events, OpenLLMetry's indexed keys, OpenInference's
//! indexed keys, and at last a plain value.

use serde_json::{Map, Value, json};

use super::flat::take_list;
use super::map::{Reader, sides};
use super::messages::{message_of, messages_of, parsed, system_message, value_of};
use crate::intake::fields::text_of;
use llmobs_core::model::{Io, Message, Span, SpanKind};

/// The event that carries the messages of a model call.
const DETAILS: &str = "gen_ai.client.inference.operation.details";

/// Which side of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

impl Side {
    fn pick<T>(self, input: T, output: T) -> T {
        match self {
            Side::Input => input,
            Side::Output => output,
        }
    }
}

/// Takes the provider that older events repeat to the span. One that the span contradicts stays.
pub(super) fn name_provider(reader: &mut Reader) {
    const PROVIDER: &str = "gen_ai.system";
    let events = reader.events.iter_mut();
    for event in events.filter(|event| event.name.starts_with("gen_ai.")) {
        let Some(said) = event.attributes.get(PROVIDER) else {
            continue;
        };
        match reader.fields.peek(PROVIDER) {
            Some(known) if known != said => continue,
            Some(_) => {}
            None => reader.fields.put_back(PROVIDER, said.clone()),
        }
        event.attributes.shift_remove(PROVIDER);
    }
}

/// Reads both sides, the documents and the tools that the model was offered.
pub(super) fn read(reader: &mut Reader, span: &mut Span) {
    span.tool_definitions = tool_definitions(reader);
    let system = details(reader, "gen_ai.system_instructions")
        .or_else(|| take_json(reader, "gen_ai.system_instructions"));
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for (side, messages) in [(Side::Input, &mut input), (Side::Output, &mut output)] {
        *messages = messages_on(reader, side);
    }
    let (sent, received) = older_events(reader);
    for (messages, older) in [(&mut input, sent), (&mut output, received)] {
        if messages.is_empty() {
            *messages = older;
        }
    }
    for (side, messages) in [(Side::Input, &mut input), (Side::Output, &mut output)] {
        // Keys of a convention that another one already answered stay, and so become tags.
        if messages.is_empty() {
            *messages = indexed(reader, side);
        }
    }
    if let Some(system) = system {
        input.insert(0, system_message(system));
    }
    read_documents(reader, span);
    let kind = span.kind.clone();
    for ((side, io), messages) in sides(span).into_iter().zip([input, output]) {
        fill(reader, side, io, messages, &kind);
    }
    read_prompt(reader, &mut span.input);
}

/// Puts the messages where a span of this kind has them, and the plain value where none are.
fn fill(reader: &mut Reader, side: Side, io: &mut Io, messages: Vec<Value>, kind: &SpanKind) {
    let tool = side.pick("gen_ai.tool.call.arguments", "gen_ai.tool.call.result");
    if let Some(value) = reader.fields.take(tool) {
        io.value = Some(as_text(value));
    }
    if !messages.is_empty() {
        match kind {
            SpanKind::Llm => io.messages = messages.into_iter().map(Message).collect(),
            SpanKind::Embedding if side == Side::Input => {
                let document = |message: &Value| json!({"text": message.get("content")});
                io.documents = messages.iter().map(document).collect();
            }
            _ if io.value.is_none() => io.value = Some(value_of(messages)),
            _ => {
                let key = side.pick("gen_ai.input.messages", "gen_ai.output.messages");
                reader.keep(key, Value::Array(messages));
            }
        }
    }
    let plain = side.pick(
        ["input.value", "traceloop.entity.input", "gen_ai.prompt"],
        [
            "output.value",
            "traceloop.entity.output",
            "gen_ai.completion",
        ],
    );
    for key in plain {
        let Some(value) = reader.fields.take(key) else {
            continue;
        };
        if io.value.is_none() && io.messages.is_empty() && io.documents.is_empty() {
            io.value = Some(as_text(value));
        } else {
            // The same again as the library's own request or answer: not worth a tag.
            reader.keep(key, value);
        }
    }
}

fn as_text(value: Value) -> Value {
    match value {
        Value::String(_) => value,
        other => Value::String(other.to_string()),
    }
}

/// An attribute that is JSON or the text of it.
fn take_json(reader: &mut Reader, key: &str) -> Option<Value> {
    reader.fields.take(key).map(parsed)
}

/// The same from the event that carries messages, if the attribute is not there.
fn details(reader: &mut Reader, key: &str) -> Option<Value> {
    if reader.fields.peek(key).is_some() {
        return None;
    }
    let event = reader
        .events
        .iter_mut()
        .find(|event| event.name == DETAILS)?;
    let found = event.attributes.shift_remove(key).map(parsed);
    if event.attributes.is_empty() {
        reader
            .events
            .retain(|event| event.name != DETAILS || !event.attributes.is_empty());
    }
    found
}

fn messages_on(reader: &mut Reader, side: Side) -> Vec<Value> {
    let key = side.pick("gen_ai.input.messages", "gen_ai.output.messages");
    let Some(sent) = details(reader, key).or_else(|| take_json(reader, key)) else {
        return Vec::new();
    };
    match messages_of(sent.clone()) {
        Some(messages) => messages,
        None => {
            reader.warn(side.pick("unreadable_input_messages", "unreadable_output_messages"));
            vec![json!({"role": "", "content": text_of(&sent)})]
        }
    }
}

/// The events of earlier versions of the conventions: one per message.
fn older_events(reader: &mut Reader) -> (Vec<Value>, Vec<Value>) {
    let (mut input, mut output, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for mut event in std::mem::take(&mut reader.events) {
        let role = match event.name.as_str() {
            "gen_ai.system.message" => "system",
            "gen_ai.user.message" => "user",
            "gen_ai.assistant.message" => "assistant",
            "gen_ai.tool.message" => "tool",
            "gen_ai.choice" => "",
            "gen_ai.content.prompt" | "gen_ai.content.completion" => {
                let prompt = event.name == "gen_ai.content.prompt";
                let key = if prompt {
                    "gen_ai.prompt"
                } else {
                    "gen_ai.completion"
                };
                let sent = event
                    .attributes
                    .shift_remove(key)
                    .map(parsed)
                    .unwrap_or_default();
                let read = messages_of(sent.clone())
                    .unwrap_or_else(|| vec![json!({"role": "", "content": text_of(&sent)})]);
                if prompt {
                    input.extend(read);
                } else {
                    output.extend(read);
                }
                if !event.attributes.is_empty() {
                    others.push(event);
                }
                continue;
            }
            _ => {
                others.push(event);
                continue;
            }
        };
        let mut message: Map<String, Value> = event
            .attributes
            .into_iter()
            .map(|(key, value)| (key, parsed(value)))
            .collect();
        if role.is_empty() {
            let inner = match message.shift_remove("message") {
                Some(Value::Object(inner)) => inner,
                Some(text) => Map::from_iter([("content".to_owned(), text)]),
                None => Map::new(),
            };
            message.extend(inner);
            message.entry("role").or_insert_with(|| "assistant".into());
            output.push(message_of(Value::Object(message)));
        } else {
            if let Some(id) = message.shift_remove("id") {
                message.insert("tool_call_id".to_owned(), id);
            }
            message.entry("role").or_insert_with(|| role.into());
            input.push(message_of(Value::Object(message)));
        }
    }
    reader.events = others;
    (input, output)
}

/// Messages under indexed keys.
fn indexed(reader: &mut Reader, side: Side) -> Vec<Value> {
    for prefix in side.pick(
        ["gen_ai.prompt.", "llm.input_messages.", "llm.prompts."],
        ["gen_ai.completion.", "llm.output_messages.", "llm.choices."],
    ) {
        let found = take_list(reader.fields.map_mut(), prefix);
        if !found.is_empty() {
            return found
                .into_iter()
                .map(|item| message_of(completed(item)))
                .collect();
        }
    }
    Vec::new()
}

/// A prompt or completion of a model that does not chat, as a message.
fn completed(item: Value) -> Value {
    let text = ["prompt", "completion"]
        .into_iter()
        .find_map(|key| item.get(key)?.get("text"));
    match text {
        Some(text) => json!({"role": "", "content": text}),
        None => item,
    }
}

/// The tools offered, as `{name, description, schema}`.
fn tool_definitions(reader: &mut Reader) -> Vec<Value> {
    let sent = match take_json(reader, "gen_ai.tool.definitions") {
        Some(Value::Array(items)) => items,
        Some(other) => {
            reader.warn("unreadable_tool_definitions");
            vec![other]
        }
        None => ["llm.tools.", "llm.request.functions."]
            .into_iter()
            .map(|prefix| take_list(reader.fields.map_mut(), prefix))
            .find(|found| !found.is_empty())
            .unwrap_or_default(),
    };
    sent.into_iter().map(definition_of).collect()
}

fn definition_of(sent: Value) -> Value {
    let sent = parsed(sent);
    let schema = sent.get("tool").and_then(|tool| tool.get("json_schema"));
    let sent = schema.cloned().map_or(sent, parsed);
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
            map.insert("schema".to_owned(), parsed(schema));
        }
    }
    Value::Object(map)
}

fn read_documents(reader: &mut Reader, span: &mut Span) {
    for (prefix, input) in [
        ("retrieval.documents.", false),
        ("reranker.input_documents.", true),
        ("reranker.output_documents.", false),
    ] {
        let found = take_list(reader.fields.map_mut(), prefix);
        let io = if input {
            &mut span.input
        } else {
            &mut span.output
        };
        io.documents.extend(found.into_iter().map(document_of));
    }
    let mut vectors = Vec::new();
    for item in take_list(reader.fields.map_mut(), "embedding.embeddings.") {
        let inner = item.get("embedding").unwrap_or(&item);
        if let Some(text) = inner.get("text") {
            span.input.documents.push(json!({"text": text}));
        }
        vectors.extend(inner.get("vector").cloned());
    }
    if !vectors.is_empty() {
        span.output
            .extra
            .insert("embedding".to_owned(), Value::Array(vectors));
    }
    if let Some(query) = reader.text("reranker.query") {
        span.input.value.get_or_insert(Value::String(query));
    }
}

fn document_of(item: Value) -> Value {
    let Value::Object(mut map) = item else {
        return item;
    };
    match map.shift_remove("document") {
        // What stands beside the document belongs to it too.
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
            _ => document.insert(key, parsed(value)),
        };
    }
    Value::Object(document)
}

fn read_prompt(reader: &mut Reader, input: &mut Io) {
    let mut prompt = Map::new();
    for (key, name) in [
        ("llm.prompt_template.template", "template"),
        ("llm.prompt_template.variables", "variables"),
        ("llm.prompt_template.version", "version"),
    ] {
        if let Some(value) = take_json(reader, key) {
            prompt.insert(name.to_owned(), value);
        }
    }
    if !prompt.is_empty() {
        input.prompt = Some(Value::Object(prompt));
    }
}
