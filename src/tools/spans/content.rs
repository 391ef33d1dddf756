//! `get_llmobs_span_content`: one field of one span, whole or by a JSONPath.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::details::fill_unlisted;
use super::{OpenTrace, open};
use crate::render::{Budget, Shrink, fit, squeeze, to_json};
use crate::tools::answer::{Notes, Window};
use crate::tools::args::{self, Count, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::SpanSelection;
use llmobs_core::analysis::content::{ContentField, content_info, field_value, select};
use llmobs_core::analysis::estimate_tokens;

const NAME: &str = "get_llmobs_span_content";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Read span content",
    description: "Read the content of one span: input, output, expected_output, messages (prompt \
        and completion of an LLM call, input messages first), documents (retrieval) or metadata. \
        path is a JSONPath applied before anything is cut: $.messages[0] is the system prompt, \
        $.messages[-1] the answer, $[-5:] the last five messages, $[*].role. Text that holds JSON \
        is searched too. total_tokens_approx is the size of the whole field.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// Span of that trace.
    span_id: Text,
    /// What to read.
    #[schemars(with = "FieldName")]
    field: Text,
    /// JSONPath inside the field.
    path: Option<Text>,
    /// Size of the answer in tokens. Default 8000, at most 100000.
    max_tokens: Option<Count>,
    /// Start of the time window.
    from: Option<When>,
    /// End of the time window.
    to: Option<When>,
}

/// The field names, for the schema only: spelling is judged when the tool runs.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
#[expect(dead_code, reason = "stands for its schema")]
enum FieldName {
    Input,
    Output,
    ExpectedOutput,
    Messages,
    Documents,
    Metadata,
}

#[derive(Serialize)]
struct Answer {
    trace_id: String,
    span_id: String,
    field: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    content: Value,
    total_tokens_approx: usize,
    truncated: bool,
    returned_tokens_approx: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    room: usize,
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::once(chars(&self.content))
    }

    /// There is one part, the content; what gives way is its middle.
    fn keep(&mut self, _count: usize) {
        let (content, cut) = squeeze(&self.content, self.room);
        self.content = content;
        self.truncated |= cut;
        self.returned_tokens_approx = estimate_tokens(chars(&self.content));
        if cut {
            self.notes
                .add("the middle was left out: raise max_tokens, or read a part with path");
        }
    }
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (trace_id, span_id) = (&arguments.trace_id.0, &arguments.span_id.0);
    let field = field_named(&arguments)?;
    let (from, to) = (arguments.from.as_ref(), arguments.to.as_ref());
    let mut opened = open(context, NAME, trace_id, from, to).await?;
    let tree = opened.structure();
    let OpenTrace {
        loaded,
        window,
        mut notes,
    } = opened;
    let Some(node) = tree.find(span_id) else {
        let mut error = super::span_not_found(NAME, trace_id, std::slice::from_ref(span_id), &tree);
        error.example = Some(json!({"tool": NAME, "arguments": {"trace_id": trace_id,
            "span_id": error.candidates.first(), "field": field.as_str()}}));
        return Err(error);
    };
    let id = tree.span(node).span_id.clone();
    let contents = context
        .client
        .contents(&loaded, SpanSelection::Spans(std::slice::from_ref(&id)))
        .await?;
    notes.gaps(&contents.gaps);
    let mut span = contents.with_content(tree.span(node)).as_ref().clone();
    if field_value(&span, field).is_none() {
        notes.gaps(&fill_unlisted(context, &loaded, &mut span, Some(field)).await?);
    }
    let Some(whole) = field_value(&span, field) else {
        return Err(field_absent(
            &arguments,
            field,
            &content_info(&span),
            &notes,
        ));
    };
    let total_tokens_approx = estimate_tokens(chars(&whole));
    let path = arguments.path.as_ref().map(|path| path.0.clone());
    let content = match &path {
        None => whole,
        Some(path) => {
            let selection = select(&whole, path, field).map_err(|error| {
                ToolError::arguments(
                    error.to_string(),
                    "paths look like $.messages[-1].content, $[-5:] or $[*].role; leave path out \
                     to read the whole field",
                )
                .example(
                    NAME,
                    json!({"trace_id": trace_id, "span_id": span_id, "field": field.as_str(),
                        "path": error.example}),
                )
            })?;
            if selection.matched == 0 {
                notes.add("the path matches nothing in this field; leave it out to see the field");
            }
            selection.value
        }
    };
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_CONTENT_TOKENS,
    );
    let mut answer = Answer {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        field: field.as_str(),
        path,
        returned_tokens_approx: estimate_tokens(chars(&content)),
        content: Value::Null,
        total_tokens_approx,
        truncated: false,
        window,
        notes,
        room: 0,
    };
    // The note about the cut and the numbers that grow with it need room too.
    answer.room = budget.chars().saturating_sub(chars(&answer) + 160);
    answer.content = content;
    Ok(fit(answer, budget)?)
}

fn chars<T: Serialize>(value: &T) -> usize {
    to_json(value).map_or(0, |text| text.chars().count())
}

fn field_named(arguments: &Arguments) -> Result<ContentField, ToolError> {
    arguments.field.0.to_ascii_lowercase().parse().map_err(|_| {
        let names: Vec<&str> = ContentField::ALL.iter().map(|field| field.as_str()).collect();
        ToolError::arguments(
            format!("argument `field` of {NAME} is none of {}", names.join(", ")),
            "content_info of get_llmobs_span_details lists the fields that a span has",
        )
        .example(
            NAME,
            json!({"trace_id": arguments.trace_id.0, "span_id": arguments.span_id.0, "field": "output"}),
        )
    })
}

fn field_absent(
    arguments: &Arguments,
    field: ContentField,
    info: &Map<String, Value>,
    notes: &Notes,
) -> ToolError {
    let hint = if !notes.is_empty() {
        "the site did not answer for this field; see get_llmobs_span_details for the others"
    } else if info.is_empty() {
        "nothing was recorded on this span: the application sent it without input and output"
    } else {
        "`candidates` holds the fields that this span has"
    };
    let error = ToolError::new(
        Some(404),
        format!("not found: the span has no {}", field.as_str()),
        hint,
    )
    .candidates(info.keys());
    match info.keys().next() {
        Some(existing) => error.example(
            NAME,
            json!({"trace_id": arguments.trace_id.0, "span_id": arguments.span_id.0, "field": existing}),
        ),
        None => error,
    }
}
