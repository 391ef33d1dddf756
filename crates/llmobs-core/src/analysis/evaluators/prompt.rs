//! Rendering of an evaluator's prompt, and the data that its placeholders read.

use serde_json::{Map, Value, json};

use super::placeholders::{FilledText, PromptTemplate};
use crate::model::{Evaluator, Io, ROOT_PARENT, Span, SpanKind};

/// A prompt as the judge receives it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderedPrompt {
    /// Pairs of role and content.
    pub messages: Vec<(String, String)>,
    /// Placeholders without a value, as written.
    pub empty: Vec<String>,
    /// Placeholders with a truncated value, as written.
    pub cut: Vec<String>,
}

/// The context of a span-scoped evaluator: the span, with `span_input` and `span_output`.
pub fn span_context(span: &Span) -> Value {
    let mut context = span_value(span);
    if let Some(map) = context.as_object_mut() {
        map.insert("span_input".to_owned(), content_value(span, &span.input));
        map.insert("span_output".to_owned(), content_value(span, &span.output));
    }
    context
}

/// The context of a trace-scoped evaluator. The spans are sorted by start.
pub fn trace_context<'a>(trace_id: &str, spans: impl Iterator<Item = &'a Span>) -> Value {
    json!({"trace_id": trace_id, "spans": spans.map(span_value).collect::<Vec<_>>()})
}

/// The context of a session-scoped evaluator. `traces` are the contexts of its traces.
pub fn session_context(session_id: &str, traces: &[Value]) -> Value {
    json!({"session_id": session_id, "traces": traces})
}

/// `span_input` or `span_output`: the contents of an LLM span's messages, or the value of any other
/// span.
fn content_value(span: &Span, io: &Io) -> Value {
    if span.kind == SpanKind::Llm {
        let contents = io.messages.iter().filter_map(|m| m.0.get("content"));
        return Value::Array(contents.cloned().collect());
    }
    io.value.clone().unwrap_or_default()
}

/// The wire form of an input or output.
fn io_value(io: &Io) -> Value {
    let mut map = Map::new();
    if let Some(value) = &io.value {
        map.insert("value".to_owned(), value.clone());
    }
    if !io.messages.is_empty() {
        map.insert("messages".to_owned(), json!(io.messages));
    }
    if !io.documents.is_empty() {
        map.insert("documents".to_owned(), json!(io.documents));
    }
    if let Some(prompt) = &io.prompt {
        map.insert("prompt".to_owned(), prompt.clone());
    }
    map.extend(io.extra.clone());
    Value::Object(map)
}

/// The wire form of a span's `meta`, without empty values.
fn meta_value(span: &Span) -> Map<String, Value> {
    let error = span.error.as_ref().map(
        |error| json!({"type": error.error_type, "message": error.message, "stack": error.stack}),
    );
    let mut meta = Map::new();
    for (key, value) in [
        ("kind", json!(span.kind.as_str())),
        ("span", json!({"kind": span.kind.as_str()})),
        ("input", io_value(&span.input)),
        ("output", io_value(&span.output)),
        ("expected_output", json!(span.expected_output)),
        ("metadata", json!(span.metadata)),
        ("model_name", json!(span.model_name)),
        ("model_provider", json!(span.model_provider)),
        ("tool_definitions", json!(span.tool_definitions)),
        ("intent", json!(span.intent)),
        ("error", json!(error)),
    ] {
        meta.insert(key.to_owned(), value);
    }
    meta.extend(span.meta_extra.clone());
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    meta.retain(|_, value| !is_empty(value));
    meta
}

/// A span in its wire form, in which placeholders are resolved.
fn span_value(span: &Span) -> Value {
    let parent = span
        .parent_id
        .as_ref()
        .map_or(ROOT_PARENT, |id| id.as_str());
    json!({
        "name": span.name,
        "span_id": span.span_id,
        "trace_id": span.trace_id,
        "parent_id": parent,
        "session_id": span.session_id,
        "ml_app": span.ml_app,
        "service": span.service,
        "status": span.status.as_str(),
        "start_ns": span.start_ns,
        "duration": span.duration_ns,
        "tags": span.tags,
        "metrics": span.metrics,
        "meta": meta_value(span),
    })
}

/// The texts of a message: its `content`, or the text parts of its `contents`.
pub(super) fn message_texts(message: &Value) -> Vec<&str> {
    if let Some(text) = message.get("content").and_then(Value::as_str) {
        return vec![text];
    }
    let parts = message.get("contents").and_then(Value::as_array);
    parts
        .into_iter()
        .flatten()
        .filter_map(|part| part.pointer("/value/text").and_then(Value::as_str))
        .collect()
}

/// Renders a valid evaluator's prompt. Placeholders are filled in user messages only.
pub fn render_prompt(evaluator: &Evaluator, context: &Value) -> RenderedPrompt {
    // `{{*}}` does not repeat the content under its short names.
    let mut full_context = context.clone();
    if let Some(map) = full_context.as_object_mut() {
        map.shift_remove("span_input");
        map.shift_remove("span_output");
    }
    let mut rendered = RenderedPrompt::default();
    for message in &evaluator.llm_judge_config.prompt_template {
        let role = message
            .get("role")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut content = Vec::new();
        for text in message_texts(message) {
            let template = if role == "user" {
                PromptTemplate::parse(text).ok()
            } else {
                None
            };
            let Some(template) = template else {
                content.push(text.to_owned());
                continue;
            };
            let FilledText { text, empty, cut } = template.fill(context, &full_context);
            content.push(text);
            for (all, added) in [(&mut rendered.empty, empty), (&mut rendered.cut, cut)] {
                for placeholder in added {
                    if !all.contains(&placeholder) {
                        all.push(placeholder);
                    }
                }
            }
        }
        rendered
            .messages
            .push((role.to_owned(), content.join("\n")));
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JudgeConfig;

    fn evaluator(content: &str) -> Evaluator {
        Evaluator {
            llm_judge_config: JudgeConfig {
                prompt_template: vec![
                    json!({"role": "system", "content": "{{span_input}} stays"}),
                    json!({"role": "user", "content": content}),
                ],
                ..JudgeConfig::default()
            },
            ..Evaluator::default()
        }
    }

    fn span(kind: SpanKind) -> Span {
        Span {
            kind,
            name: "ask".into(),
            input: Io {
                value: Some(json!("the value")),
                messages: serde_json::from_value(json!([
                    {"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]))
                .unwrap(),
                ..Io::default()
            },
            ..Span::default()
        }
    }

    #[test]
    fn span_input_is_messages_of_llm_span_or_value() {
        let with_content = evaluator("Q: {{span_input}} A: {{span_output}}");
        let llm = render_prompt(&with_content, &span_context(&span(SpanKind::Llm)));
        assert_eq!(llm.messages[0].1, "{{span_input}} stays");
        assert_eq!(llm.messages[1].1, "Q: be brief\nwhy? A: ");
        assert_eq!(llm.empty, ["span_output"]);
        let task = render_prompt(&with_content, &span_context(&span(SpanKind::Task)));
        assert_eq!(task.messages[1].1, "Q: the value A: ");
    }

    #[test]
    fn reads_traces_and_sessions_through_their_spans() {
        let spans = [span(SpanKind::Agent), span(SpanKind::Llm)];
        let trace = trace_context("t1", spans.iter());
        let kinds = render_prompt(
            &evaluator("{{spans[*].meta.span.kind}} {{trace_id}}"),
            &trace,
        );
        assert_eq!(kinds.messages[1].1, "agent\nllm t1");
        let session = session_context("s1", &[trace.clone(), trace]);
        let names = render_prompt(
            &evaluator("{{session_id}} {{traces[*].spans[0].name}}"),
            &session,
        );
        assert_eq!(names.messages[1].1, "s1 ask\nask");
    }
}
