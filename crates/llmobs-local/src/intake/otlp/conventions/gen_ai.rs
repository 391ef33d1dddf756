//! OpenTelemetry GenAI semantic conventions: `gen_ai.*` attributes and events.
//!
//! Current versions put messages into JSON attributes, or into the attributes of one event.
//! Earlier versions record one event per message.

use serde_json::{Map, Value, json};

use llmobs_core::model::SpanKind;

use super::super::convention::{
    Convention, FinishReasons, KindAttribute, MetricFamily, PerSide, ToolDefinitions,
};
use super::super::decoded::OtelEvent;
use super::super::messages::{message_of, messages_of, parse_nested_json};
use crate::intake::json_value::to_text;

/// Token counts that the conventions spell in several ways.
pub(super) const USAGE_METRICS: &[(&str, &str)] = &[
    ("cache_read.input_tokens", "cache_read_input_tokens"),
    ("cache_read_input_tokens", "cache_read_input_tokens"),
    ("cache_creation.input_tokens", "cache_write_input_tokens"),
    ("cache_creation_input_tokens", "cache_write_input_tokens"),
    ("reasoning.output_tokens", "reasoning_output_tokens"),
    ("reasoning_tokens", "reasoning_output_tokens"),
];

pub(super) static CONVENTION: Convention = Convention {
    marks: &["gen_ai."],
    event_marks: &["gen_ai."],
    kinds: &[KindAttribute {
        key: "gen_ai.operation.name",
        values: &[
            ("chat", SpanKind::Llm),
            ("generate_content", SpanKind::Llm),
            ("text_completion", SpanKind::Llm),
            ("completion", SpanKind::Llm),
            ("embeddings", SpanKind::Embedding),
            ("embedding", SpanKind::Embedding),
            ("execute_tool", SpanKind::Tool),
            ("invoke_agent", SpanKind::Agent),
            ("create_agent", SpanKind::Agent),
        ],
    }],
    names: &["gen_ai.tool.name"],
    metadata: &[
        ("gen_ai.tool.call.id", "tool_call_id"),
        ("gen_ai.tool.description", "tool_description"),
        ("gen_ai.tool.type", "tool_type"),
    ],
    metadata_prefix: Some("gen_ai.request."),
    tag_prefix: Some("gen_ai."),
    finish_reasons: Some(FinishReasons::List("gen_ai.response.finish_reasons")),
    providers: &["gen_ai.provider.name", "gen_ai.system"],
    event_provider: Some("gen_ai.system"),
    models: &["gen_ai.response.model"],
    requested_model: Some("gen_ai.request.model"),
    conversation: Some("gen_ai.conversation.id"),
    metrics: &[MetricFamily {
        prefix: "gen_ai.usage.",
        suffix: "",
        renames: USAGE_METRICS,
    }],
    tool_definitions: Some(ToolDefinitions::Json("gen_ai.tool.definitions")),
    system_instructions: Some("gen_ai.system_instructions"),
    messages: Some(PerSide::new(
        "gen_ai.input.messages",
        "gen_ai.output.messages",
    )),
    message_event: Some("gen_ai.client.inference.operation.details"),
    read_message_events: Some(read_message_events),
    tool_values: Some(PerSide::new(
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
    )),
    ..Convention::EMPTY
};

/// What an event of an earlier version records.
enum MessageEvent {
    /// One input message, with the role that the name of the event implies.
    Input(&'static str),
    /// One choice of the model.
    Choice,
    /// All input messages, as JSON in an attribute.
    Prompt,
    /// All output messages, as JSON in an attribute.
    Completion,
}

impl MessageEvent {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gen_ai.system.message" => Self::Input("system"),
            "gen_ai.user.message" => Self::Input("user"),
            "gen_ai.assistant.message" => Self::Input("assistant"),
            "gen_ai.tool.message" => Self::Input("tool"),
            "gen_ai.choice" => Self::Choice,
            "gen_ai.content.prompt" => Self::Prompt,
            "gen_ai.content.completion" => Self::Completion,
            _ => return None,
        })
    }
}

/// Removes the message events of earlier versions and returns their messages. An event with
/// further attributes stays, without its messages.
fn read_message_events(events: &mut Vec<OtelEvent>) -> PerSide<Vec<Value>> {
    let (mut input, mut output, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for mut event in std::mem::take(events) {
        match MessageEvent::from_name(&event.name) {
            None => others.push(event),
            Some(MessageEvent::Input(role)) => input.push(input_message(event, role)),
            Some(MessageEvent::Choice) => output.push(choice_message(event)),
            Some(MessageEvent::Prompt) => {
                input.extend(remove_messages(&mut event, "gen_ai.prompt"));
                others.extend((!event.attributes.is_empty()).then_some(event));
            }
            Some(MessageEvent::Completion) => {
                output.extend(remove_messages(&mut event, "gen_ai.completion"));
                others.extend((!event.attributes.is_empty()).then_some(event));
            }
        }
    }
    *events = others;
    PerSide { input, output }
}

fn remove_messages(event: &mut OtelEvent, key: &str) -> Vec<Value> {
    let sent = event.attributes.shift_remove(key);
    let sent = sent.map(parse_nested_json).unwrap_or_default();
    messages_of(sent.clone())
        .unwrap_or_else(|| vec![json!({"role": "", "content": to_text(&sent)})])
}

fn event_attributes(event: OtelEvent) -> Map<String, Value> {
    let attributes = event.attributes.into_iter();
    attributes
        .map(|(key, value)| (key, parse_nested_json(value)))
        .collect()
}

fn input_message(event: OtelEvent, role: &str) -> Value {
    let mut message = event_attributes(event);
    if let Some(id) = message.shift_remove("id") {
        message.insert("tool_call_id".to_owned(), id);
    }
    message.entry("role").or_insert_with(|| role.into());
    message_of(Value::Object(message))
}

fn choice_message(event: OtelEvent) -> Value {
    let mut message = event_attributes(event);
    let inner = match message.shift_remove("message") {
        Some(Value::Object(inner)) => inner,
        Some(text) => Map::from_iter([("content".to_owned(), text)]),
        None => Map::new(),
    };
    message.extend(inner);
    message.entry("role").or_insert_with(|| "assistant".into());
    message_of(Value::Object(message))
}
