//! Failures that no status shows: a tool that answers "it went wrong" has still returned.
//!
//! What counts, by the kind of the span:
//!
//! | Kind | What is looked at |
//! |---|---|
//! | tool, retrieval, embedding | output: JSON and text; metadata: an HTTP status |
//! | task | output: JSON and text |
//! | agent, workflow, step, experiment, others | output: JSON, and text that is a stack trace |
//! | llm | output: a provider's error body; input: tool results that no tool span shows |
//!
//! A model's own words are never judged: an answer about an error is not an error. Of JSON only
//! the outermost object is judged, and the envelopes that protocols put around an answer
//! (`result`, `response`, `body`, …): rows inside an answer are data, and a log search that finds
//! failures has not failed.

mod given;
mod judge;
mod sketch;

use std::borrow::Cow;

use given::GivenResults;
pub use given::tool_call_ids;
use judge::{HTTP_METADATA_KEYS, Texts, child_path, http_failure, judge, short, tells_error};
use serde::Serialize;
use serde_json::Value;
use sketch::sketch;

use crate::analysis::content::ContentField;
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{Io, Span, SpanKind};

/// A span with status `ok` whose payload says that it failed.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftError {
    /// The span.
    pub node: NodeId,
    /// What says so.
    pub evidence: Evidence,
}

/// The place in a span that shows a failure, and what stands there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The content field, a dot, and the JSONPath inside it, for example `output.$.isError`.
    pub path: String,
    /// The value there, shortened to about 200 characters. Where the path ends at a text that is
    /// JSON itself, the part of it that tells.
    pub value: Value,
}

/// The failures that no status shows, by start; at most one for each output, and one for each
/// tool result that an LLM call was given.
pub fn soft_errors(tree: &TraceTree) -> Vec<SoftError> {
    let mut results = GivenResults::of(tree);
    let mut found = Vec::new();
    for node in tree.nodes().filter(|node| !tree.is_error(*node)) {
        let span = tree.span(node);
        if span.kind == SpanKind::Llm {
            found.extend(provider_error(span).map(|evidence| SoftError { node, evidence }));
            for evidence in results.failed(span) {
                found.push(SoftError { node, evidence });
            }
        } else {
            found.extend(failed_output(span).map(|evidence| SoftError { node, evidence }));
        }
    }
    found
}

fn failed_output(span: &Span) -> Option<Evidence> {
    let tool_like = matches!(
        span.kind,
        SpanKind::Tool | SpanKind::Retrieval | SpanKind::Embedding
    );
    let texts = if tool_like || span.kind == SpanKind::Task {
        Texts::AnyError
    } else {
        Texts::StackTrace
    };
    let found = match output_value(&span.output) {
        Some(Cow::Borrowed(value)) => judge(value, "$".to_owned(), texts),
        Some(Cow::Owned(value)) => judge(&value, "$".to_owned(), texts),
        None => None,
    };
    if let Some((path, value)) = found {
        return Some(evidence(ContentField::Output, &path, value));
    }
    if !tool_like {
        return None;
    }
    let (key, value) = http_failure(&span.metadata, HTTP_METADATA_KEYS)?;
    Some(evidence(
        ContentField::Metadata,
        &child_path("$", key),
        value.clone(),
    ))
}

/// The output as JSON where it is JSON, also inside a text: then what of it can be judged.
fn output_value(output: &Io) -> Option<Cow<'_, Value>> {
    match &output.value {
        None | Some(Value::Null) => {}
        Some(plain @ Value::String(text)) => {
            return Some(sketch(text).map_or(Cow::Borrowed(plain), Cow::Owned));
        }
        Some(other) => return Some(Cow::Borrowed(other)),
    }
    let text = output.text()?;
    let told = sketch(&text).unwrap_or_else(|| Value::String(text.into_owned()));
    Some(Cow::Owned(told))
}

/// A provider's error body that an SDK recorded as the output: `{"error": {"message": …}}`.
fn provider_error(span: &Span) -> Option<Evidence> {
    let value = match span.output.value.as_ref()? {
        Value::String(text) => Cow::Owned(sketch(text)?),
        other => Cow::Borrowed(other),
    };
    let error = value.get("error")?;
    let is_body = ["message", "type", "code"]
        .into_iter()
        .any(|key| error.get(key).is_some_and(|value| !value.is_null()));
    (is_body && tells_error(error)).then(|| evidence(ContentField::Output, "$.error", short(error)))
}

fn evidence(field: ContentField, path: &str, value: Value) -> Evidence {
    Evidence {
        path: format!("{}.{path}", field.as_str()),
        value,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::Status;

    fn output_of(kind: SpanKind, value: Value) -> Option<Evidence> {
        let span = Span {
            span_id: "1".into(),
            kind,
            output: Io {
                value: Some(value),
                ..Io::default()
            },
            ..Span::default()
        };
        soft_errors(&TraceTree::build(&[Arc::new(span)]))
            .pop()
            .map(|soft| soft.evidence)
    }

    fn tool(value: Value) -> Option<(String, Value)> {
        output_of(SpanKind::Tool, value).map(|evidence| (evidence.path, evidence.value))
    }

    #[test]
    fn an_answer_that_says_it_failed_is_found_with_its_place() {
        let cases = [
            (json!({"isError": true}), "output.$.isError", json!(true)),
            (
                json!(r#"{"content": [], "isError": true}"#),
                "output.$.isError",
                json!(true),
            ),
            (
                json!({"status_code": 503}),
                "output.$.status_code",
                json!(503),
            ),
            (
                json!({"statusCode": "404"}),
                "output.$.statusCode",
                json!("404"),
            ),
            (
                json!({"http.status": 500}),
                "output.$['http.status']",
                json!(500),
            ),
            (
                json!({"http": {"status": 500}}),
                "output.$.http.status",
                json!(500),
            ),
            (
                json!({"code": 404, "message": "no such order"}),
                "output.$.code",
                json!(404),
            ),
            (
                json!({"error": "no stock"}),
                "output.$.error",
                json!("no stock"),
            ),
            (
                json!({"error": {"code": 7}}),
                "output.$.error",
                json!({"code": 7}),
            ),
            (
                json!({"errors": [{"m": "x"}]}),
                "output.$.errors",
                json!([{"m": "x"}]),
            ),
            (json!({"success": false}), "output.$.success", json!(false)),
            (json!({"ok": false}), "output.$.ok", json!(false)),
            (
                json!({"status": "Failed"}),
                "output.$.status",
                json!("Failed"),
            ),
            (
                json!({"result": {"response": {"status": 502}}}),
                "output.$.result.response.status",
                json!(502),
            ),
            (
                json!({"result": r#"{"isError": true}"#}),
                "output.$.result",
                json!({"isError": true}),
            ),
            (
                json!([{"type": "text", "text": "Error: no file"}]),
                "output.$[0].text",
                json!("Error: no file"),
            ),
            (json!("Error: 404"), "output.$", json!("Error: 404")),
            (
                json!("requests.exceptions.HTTPError: 404 Client Error"),
                "output.$",
                json!("requests.exceptions.HTTPError: 404 Client Error"),
            ),
            (
                json!("Traceback (most recent call last):\n  File"),
                "output.$",
                json!("Traceback (most recent call last):\n  File"),
            ),
        ];
        for (output, path, value) in cases {
            assert_eq!(
                tool(output.clone()),
                Some((path.to_owned(), value)),
                "{output}"
            );
        }
    }

    #[test]
    fn an_answer_that_merely_speaks_of_errors_is_left_alone() {
        let fine = [
            json!({"error": null}),
            json!({"error": ""}),
            json!({"error": false}),
            json!({"error": []}),
            json!({"error": {}}),
            json!({"error": {"code": 0, "message": ""}}),
            json!({"error": "none"}),
            json!({"error": 0.03}),
            json!({"errors": 0}),
            json!({"errors": [null]}),
            json!({"status": 200}),
            json!({"status": "refunded"}),
            json!({"status": "error_free"}),
            json!({"code": 404}),
            json!({"code": 450, "name": "blue"}),
            json!({"isError": false, "content": [{"type": "text", "text": "fine"}]}),
            json!({"success": true, "error": "ignored"}),
            json!({"data": {"order": 1, "status": "failed"}}),
            json!({"rows": [{"status": 500}, {"error": "x"}]}),
            json!([{"status": 500}]),
            json!("The Error: code was 404 in the log"),
            json!("MeanSquaredError: 0.03"),
            json!("404 rooms, 500 beds"),
            json!("[not json"),
            json!(500),
            Value::Null,
        ];
        for output in fine {
            assert_eq!(tool(output.clone()), None, "{output}");
        }
    }

    #[test]
    fn a_models_words_are_never_judged() {
        for text in ["Error: that is what the log says", r#"{"success": false}"#] {
            assert_eq!(output_of(SpanKind::Llm, json!(text)), None);
        }
        assert_eq!(output_of(SpanKind::Agent, json!("Error: see log")), None);
        let body = json!(r#"{"error": {"message": "overloaded", "type": "server_error"}}"#);
        assert_eq!(
            output_of(SpanKind::Llm, body).unwrap().path,
            "output.$.error"
        );
    }

    #[test]
    fn a_span_with_status_error_is_no_soft_error() {
        let span = Span {
            kind: SpanKind::Tool,
            status: Status::Error,
            output: Io {
                value: Some(json!("Error: x")),
                ..Io::default()
            },
            ..Span::default()
        };
        assert_eq!(soft_errors(&TraceTree::build(&[Arc::new(span)])), []);
    }

    #[test]
    fn a_tools_http_status_in_its_metadata_counts() {
        let span = Span {
            kind: SpanKind::Tool,
            metadata: json!({"http.status": 502}).as_object().cloned().unwrap(),
            ..Span::default()
        };
        let found = soft_errors(&TraceTree::build(&[Arc::new(span)]));
        assert_eq!(found[0].evidence.path, "metadata.$['http.status']");
    }

    #[test]
    fn a_result_that_only_the_model_saw_is_reported_once_on_the_call_that_got_it_first() {
        let messages = json!([
            {"role": "assistant", "tool_calls": [{"name": "lookup", "tool_id": "c1"}]},
            {"role": "tool", "tool_results": [{"name": "", "tool_id": "c1",
                "result": "{\"isError\": true}"}]},
        ]);
        let llm = |id: &str, start_ns| Span {
            span_id: id.into(),
            start_ns,
            kind: SpanKind::Llm,
            input: Io {
                messages: serde_json::from_value(messages.clone()).unwrap(),
                ..Io::default()
            },
            ..Span::default()
        };
        let tree = TraceTree::build(&[Arc::new(llm("a", 1)), Arc::new(llm("b", 2))]);
        let found = soft_errors(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(tree.span(found[0].node).span_id.as_str(), "a");
        assert_eq!(
            found[0].evidence.path,
            "messages.$.messages[1].tool_results[0].result"
        );

        let tool = Span {
            span_id: "t".into(),
            kind: SpanKind::Tool,
            name: "lookup".into(),
            ..Span::default()
        };
        let tree = TraceTree::build(&[Arc::new(llm("a", 1)), Arc::new(tool)]);
        assert_eq!(soft_errors(&tree), [], "the tool span speaks for itself");
    }
}
