//! Soft errors: failures in spans with status `ok`. A tool that returns an error message has
//! returned successfully.
//!
//! What is searched for failures, by span kind:
//!
//! | Span kind | Searched |
//! |---|---|
//! | tool, retrieval, embedding | output: JSON and text; metadata: an HTTP status |
//! | task | output: JSON and text |
//! | agent, workflow, step, experiment, others | output: JSON, and text that is a stack trace |
//! | llm | output: a provider's error body; input: results of tools without a span |
//!
//! The text of a model is never searched: an answer about an error is not an error. In JSON, only
//! the outermost object counts, and the envelopes that protocols put around an answer (`result`,
//! `response`, `body`, …). Rows in an answer are data: a log search that finds failures has not
//! failed.

mod evidence;
mod failure;
mod keys;
mod skim;
mod tool_results;

use std::borrow::Cow;

pub use evidence::Evidence;
use evidence::evidence;
use failure::{TextRule, child_path, find_failure, http_failure, is_error_value, shorten};
use keys::HTTP_STATUS_METADATA_KEYS;
use serde_json::Value;
use skim::skim;
use tool_results::ToolResultScanner;
pub use tool_results::tool_call_ids;

use crate::analysis::content::ContentField;
use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{Io, Span, SpanKind};

/// A span with status `ok` whose content reports a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftError {
    /// The span.
    pub node: NodeId,
    /// Where and how.
    pub evidence: Evidence,
}

/// The soft errors of a trace, by start: at most one for each output, and one for each tool result
/// that a model received.
pub fn soft_errors(tree: &TraceTree) -> Vec<SoftError> {
    let mut results = ToolResultScanner::new(tree);
    let mut found = Vec::new();
    for node in tree.nodes().filter(|node| !tree.is_error(*node)) {
        let span = tree.span(node);
        if span.kind == SpanKind::Llm {
            found.extend(provider_error(span).map(|evidence| SoftError { node, evidence }));
            for evidence in results.failed_results(span) {
                found.push(SoftError { node, evidence });
            }
        } else {
            found.extend(failed_output(span).map(|evidence| SoftError { node, evidence }));
        }
    }
    found
}

/// The evidence that the output or the metadata of a span reports a failure.
fn failed_output(span: &Span) -> Option<Evidence> {
    let tool_like = matches!(
        span.kind,
        SpanKind::Tool | SpanKind::Retrieval | SpanKind::Embedding
    );
    let rule = if tool_like || span.kind == SpanKind::Task {
        TextRule::AnyError
    } else {
        TextRule::StackTrace
    };
    let found = match output_value(&span.output) {
        Some(Cow::Borrowed(value)) => find_failure(value, "$".to_owned(), rule),
        Some(Cow::Owned(value)) => find_failure(&value, "$".to_owned(), rule),
        None => None,
    };
    if let Some((path, value)) = found {
        return Some(evidence(ContentField::Output, &path, value));
    }
    if !tool_like {
        return None;
    }
    let (key, value) = http_failure(&span.metadata, HTTP_STATUS_METADATA_KEYS)?;
    Some(evidence(
        ContentField::Metadata,
        &child_path("$", key),
        value.clone(),
    ))
}

/// The output. A text that holds JSON is parsed to its relevant parts.
fn output_value(output: &Io) -> Option<Cow<'_, Value>> {
    match &output.value {
        None | Some(Value::Null) => {}
        Some(plain @ Value::String(text)) => {
            return Some(skim(text).map_or(Cow::Borrowed(plain), Cow::Owned));
        }
        Some(other) => return Some(Cow::Borrowed(other)),
    }
    let text = output.text()?;
    let value = skim(&text).unwrap_or_else(|| Value::String(text.into_owned()));
    Some(Cow::Owned(value))
}

/// A provider's error body that an SDK recorded as the output: `{"error": {"message": …}}`.
fn provider_error(span: &Span) -> Option<Evidence> {
    let value = match span.output.value.as_ref()? {
        Value::String(text) => Cow::Owned(skim(text)?),
        other => Cow::Borrowed(other),
    };
    let error = value.get("error")?;
    let is_body = ["message", "type", "code"]
        .into_iter()
        .any(|key| error.get(key).is_some_and(|value| !value.is_null()));
    (is_body && is_error_value(error))
        .then(|| evidence(ContentField::Output, "$.error", shorten(error)))
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
    fn finds_failures_with_their_path() {
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
    fn ignores_answers_that_only_mention_errors() {
        let successes = [
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
        for output in successes {
            assert_eq!(tool(output.clone()), None, "{output}");
        }
    }

    #[test]
    fn ignores_text_of_models() {
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
    fn span_with_status_error_is_not_a_soft_error() {
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
    fn finds_http_status_in_tool_metadata() {
        let span = Span {
            kind: SpanKind::Tool,
            metadata: json!({"http.status": 502}).as_object().cloned().unwrap(),
            ..Span::default()
        };
        let found = soft_errors(&TraceTree::build(&[Arc::new(span)]));
        assert_eq!(found[0].evidence.path, "metadata.$['http.status']");
    }

    #[test]
    fn reports_result_without_tool_span_once_on_the_first_call_that_received_it() {
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
        assert_eq!(soft_errors(&tree), [], "the tool has a span");
    }
}
