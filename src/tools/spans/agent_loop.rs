//! `get_llmobs_agent_loop`: what an agent did, decision by decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{OpenTrace, open};
use crate::render::{Budget, Shrink, cut_middle, fit, to_json};
use crate::tools::answer::{Notes, Window, offset_cursor, read_offset};
use crate::tools::args::{self, Count, Text, When};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::agent_loop::{AgentLoop, TimelineEntry, agent_loop, truncate_texts};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::SpanKind;

const NAME: &str = "get_llmobs_agent_loop";
const DEFAULT_CONTENT_LENGTH: usize = 2_000;
const MIN_CONTENT_LENGTH: usize = 80;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Follow an agent's loop",
    description: "Follow what an agent did step by step: one iteration per decision of the model, \
        with its text, the tools it called, their arguments and results, errors, tokens, cost and \
        duration, then the conversation as a timeline. Understands nested frameworks (LangGraph, \
        OpenAI Agents, Pydantic AI), hand-offs and sub-agents, and traces without an agent span. \
        repeated_calls shows an agent going in circles. span_id chooses an agent; without it the \
        outermost agents are followed.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// LLM Observability trace id.
    trace_id: Text,
    /// Span of the agent to follow; any span works: the loop below it.
    span_id: Option<Text>,
    /// Characters per text. Default 2000.
    max_content_length: Option<Count>,
    /// Start of the time window.
    from: Option<When>,
    /// End of the time window.
    to: Option<When>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

#[derive(Serialize)]
struct Answer<'t> {
    #[serde(flatten)]
    followed: AgentLoop<'t>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    question: [String; 3],
    #[serde(skip)]
    first: usize,
}

impl Shrink for Answer<'_> {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        let size =
            |text: Result<String, _>| text.map_or(0, |text: String| text.chars().count() + 1);
        // The timeline goes through the iterations in their order.
        let mut said = self.followed.timeline.iter().peekable();
        let iterations = self.followed.iterations.iter().enumerate();
        iterations.map(move |(part, iteration)| {
            let mut total = size(to_json(iteration));
            // What was said before the first decision is shown with it.
            let belongs =
                |entry: &&TimelineEntry<'_>| entry.iteration.saturating_sub(self.first + 1) <= part;
            while let Some(entry) = said.next_if(belongs) {
                total += size(to_json(entry));
            }
            total
        })
    }

    fn keep(&mut self, count: usize) {
        self.followed.iterations.truncate(count);
        let shown = self.first + self.followed.iterations.len();
        let first = self.first;
        self.followed
            .timeline
            .retain(|entry| entry.iteration <= shown && (first == 0 || entry.iteration > first));
        let question: Vec<&str> = self.question.iter().map(String::as_str).collect();
        self.next_cursor =
            (shown < self.followed.total_iterations).then(|| offset_cursor(shown, &question));
    }
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let trace_id = &arguments.trace_id.0;
    let (from, to) = (arguments.from.as_ref(), arguments.to.as_ref());
    let mut opened = open(context, NAME, trace_id, from, to).await?;
    let start = arguments.span_id.as_ref().map(|id| id.0.as_str());
    if let Some(id) = start
        && opened.loaded.tree.find(id).is_none()
    {
        return Err(agent_not_found(trace_id, id, &opened.structure()));
    }
    let budget = Budget::asked(
        arguments.max_tokens.map(|count| count.0),
        Budget::MAX_TOKENS,
    );
    let length = arguments
        .max_content_length
        .map_or(DEFAULT_CONTENT_LENGTH, |count| {
            count.0.max(MIN_CONTENT_LENGTH)
        });
    let question = [
        trace_id.clone(),
        start.unwrap_or_default().to_owned(),
        length.to_string(),
    ];
    let first = {
        let parts: Vec<&str> = question.iter().map(String::as_str).collect();
        let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
        read_offset(NAME, cursor, &parts, || json!({"trace_id": trace_id}))?
    };

    let tree = opened.whole(context).await?;
    let OpenTrace {
        window, mut notes, ..
    } = opened;
    let mut followed = agent_loop(&tree, start.and_then(|id| tree.find(id)));
    followed.agent_name = cut_middle(&followed.agent_name, 200);
    notes.extend(std::mem::take(&mut followed.notes));
    followed
        .iterations
        .drain(..first.min(followed.iterations.len()));
    let mut answer = Answer {
        followed,
        next_cursor: None,
        window,
        notes,
        question,
        first,
    };
    // No iteration is shorter than this; what cannot fit need not be cut to size.
    answer.keep(budget.chars() / 150 + 1);
    truncate_texts(&mut answer.followed, length);
    Ok(fit(answer, budget)?)
}

/// The refusal of a span to start from, with the agents that the trace has.
fn agent_not_found(trace_id: &str, span_id: &str, tree: &TraceTree) -> ToolError {
    let mut error = super::span_not_found(NAME, trace_id, &[span_id.to_owned()], tree);
    let agents: Vec<&str> = tree
        .preorder()
        .iter()
        .copied()
        .filter(|node| *tree.kind(*node) == SpanKind::Agent)
        .map(|node| tree.span(node).span_id.as_str())
        .collect();
    if !agents.is_empty() {
        error.hint = "the trace exists and has no such span; `candidates` holds its agents, and \
                      without span_id the outermost ones are followed"
            .to_owned();
        error = error.candidates(agents);
    }
    error.example(NAME, json!({"trace_id": trace_id}))
}
