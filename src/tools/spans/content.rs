//! `get_llmobs_span_content`: one field of one span, complete or by a JSONPath.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::details::fill_missing_content;
use super::opened_trace::{OpenedTrace, span_not_found};
use crate::render::{Budget, json_chars, squeeze};
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use datadog_llmobs::SpanSelection;
use llmobs_core::analysis::content::{ContentField, content_info, field_value, select};
use llmobs_core::analysis::estimate_tokens;
use llmobs_core::model::Span;

const NAME: &str = "get_llmobs_span_content";
/// Characters reserved for the note about a cut and for numbers that become longer with it.
const RESERVED_CHARS: usize = 160;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Read span content",
    description: "Read the content of one span: input, output, expected_output, messages (prompt \
        and completion of an LLM call, input messages first), documents (retrieval) or metadata. \
        path is a JSONPath applied before anything is cut: $.messages[0] is the system prompt, \
        $.messages[-1] the answer, $[-5:] the last five messages, $[*].role. Text that contains \
        JSON is searched too. total_tokens_approx is the size of the complete field.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: String,
    /// Span of that trace.
    span_id: String,
    /// The content field to read.
    #[schemars(with = "FieldName")]
    field: String,
    /// JSONPath inside the field.
    path: Option<String>,
    /// Size of the answer in tokens. Default 8000, at most 100000.
    max_tokens: Option<usize>,
    /// Start of the time window.
    from: Option<String>,
    /// End of the time window.
    to: Option<String>,
}

/// The names in the schema. The tool itself accepts them in upper case too.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
#[expect(dead_code, reason = "the schema is derived from it")]
enum FieldName {
    Input,
    Output,
    ExpectedOutput,
    Messages,
    Documents,
    Metadata,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let field = arguments.field()?;
    let window = (arguments.from.as_deref(), arguments.to.as_deref());
    let mut trace = OpenedTrace::open(context, NAME, &arguments.trace_id, window).await?;
    let span = read_span(context, &mut trace, &arguments, field).await?;
    let Some(value) = field_value(&span, field) else {
        return Err(arguments.field_absent(field, &content_info(&span), &trace.notes));
    };
    let total_tokens = estimate_tokens(json_chars(&value));
    let content = match &arguments.path {
        None => value,
        Some(path) => {
            let selection = select(&value, path, field).map_err(|error| {
                let example = arguments.example_with_path(field.as_str(), error.example);
                ToolError::arguments(
                    error.to_string(),
                    "paths look like $.messages[-1].content, $[-5:] or $[*].role; leave path out \
                     to read the complete field",
                )
                .example(NAME, example)
            })?;
            if selection.matched == 0 {
                trace
                    .notes
                    .add("the path matches nothing in this field; leave it out to see the field");
            }
            selection.value
        }
    };
    let mut answer = JsonObject::default();
    answer.set("trace_id", arguments.trace_id);
    answer.set("span_id", arguments.span_id);
    answer.set("field", field.as_str());
    answer.set_some("path", arguments.path);
    answer.set("content", Value::Null);
    answer.set("total_tokens_approx", total_tokens);
    answer.set("truncated", false);
    answer.set(
        "returned_tokens_approx",
        estimate_tokens(json_chars(&content)),
    );
    answer.0.extend(trace.tail().0);
    let budget = Budget::within(arguments.max_tokens, Budget::MAX_CONTENT_TOKENS);
    set_content(&mut answer, content, &mut trace.notes, budget);
    write_object(answer, &trace.notes, budget)
}

/// Sets the content. If the answer would exceed the budget, the content loses its middle.
fn set_content(answer: &mut JsonObject, content: Value, notes: &mut Notes, budget: Budget) {
    let mut frame = json_chars(answer);
    if !notes.is_empty() {
        frame += json_chars(notes) + ",\"notes\":".len();
    }
    if frame - "null".len() + json_chars(&content) <= budget.chars() {
        answer.set("content", content);
        return;
    }
    let room = budget.chars().saturating_sub(frame + RESERVED_CHARS);
    let (content, cut) = squeeze(&content, room);
    if cut {
        answer.set("truncated", true);
        notes.add("the middle is left out: raise max_tokens, or read a part with path");
    }
    answer.set(
        "returned_tokens_approx",
        estimate_tokens(json_chars(&content)),
    );
    answer.set("content", content);
}

/// Loads the span with the content that the field needs.
async fn read_span(
    context: &ToolContext,
    trace: &mut OpenedTrace,
    arguments: &Arguments,
    field: ContentField,
) -> Result<Span, ToolError> {
    let tree = trace.tree();
    let Some(node) = tree.find(&arguments.span_id) else {
        let missing = std::slice::from_ref(&arguments.span_id);
        let error = span_not_found(NAME, &arguments.trace_id, missing, &tree);
        let example = json!({"trace_id": arguments.trace_id, "span_id": error.candidates.first(), "field": field.as_str()});
        return Err(error.example(NAME, example));
    };
    let span = tree.span(node);
    let ids = std::slice::from_ref(&span.span_id);
    let client = &context.client;
    let contents = client
        .contents(&trace.loaded, SpanSelection::Spans(ids))
        .await?;
    trace.notes.add_gaps(&contents.gaps);
    let mut span = contents.with_content(span).as_ref().clone();
    if field_value(&span, field).is_none() {
        let gaps = fill_missing_content(context, &trace.loaded, &mut span, Some(field)).await?;
        trace.notes.add_gaps(&gaps);
    }
    Ok(span)
}

impl Arguments {
    /// Arguments that read another field of the same span.
    fn example(&self, field: &str) -> Value {
        json!({"trace_id": self.trace_id, "span_id": self.span_id, "field": field})
    }

    /// The arguments of an example for a span and a path.
    fn example_with_path(&self, field: &str, path: &str) -> Value {
        json!({"trace_id": self.trace_id, "span_id": self.span_id, "field": field, "path": path})
    }

    fn field(&self) -> Result<ContentField, ToolError> {
        self.field.to_ascii_lowercase().parse().map_err(|_| {
            let names: Vec<&str> = ContentField::ALL
                .iter()
                .map(|field| field.as_str())
                .collect();
            ToolError::arguments(
                format!(
                    "argument `field` of {NAME} must be one of {}",
                    names.join(", ")
                ),
                "content_info of get_llmobs_span_details lists the fields of a span",
            )
            .example(NAME, self.example("output"))
        })
    }

    fn field_absent(
        &self,
        field: ContentField,
        content_info: &Map<String, Value>,
        notes: &Notes,
    ) -> ToolError {
        let hint = if !notes.is_empty() {
            "the site did not return this field; get_llmobs_span_details lists the other fields"
        } else if content_info.is_empty() {
            "this span has no content: the application sent it without input and output"
        } else {
            "`candidates` lists the fields of this span"
        };
        let error = ToolError::new(
            Some(404),
            format!("not found: the span has no {}", field.as_str()),
            hint,
        )
        .candidates(content_info.keys());
        match content_info.keys().next() {
            Some(existing) => error.example(NAME, self.example(existing)),
            None => error,
        }
    }
}
