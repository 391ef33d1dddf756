//! The evaluator tools: what judges there are, what they found, what one would read, and writing
//! and deleting them.

mod delete;
mod get;
mod list;
mod preview;
mod stats;
mod walk;
mod write;

#[cfg(test)]
mod properties;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Tool, ToolContext, ToolError, args};
use crate::render;
use llmobs_core::analysis::candidates::closest;
use llmobs_core::analysis::evaluators::{
    self as rules, EvaluatorDraft, FieldProblem, name_problem,
};

/// The tools in the order in which they are worth calling.
pub(super) const TOOLS: &[Tool] = &[
    list::ALL,
    list::BY_APP,
    get::TOOL,
    stats::TOOL,
    preview::TOOL,
    write::TOOL,
    delete::TOOL,
];

/// An example longer than this, in characters, helps nobody.
const MAX_EXAMPLE: usize = 6_000;

/// Reads arguments; a refusal shows the way to the names that exist.
fn parse<A: DeserializeOwned + JsonSchema>(
    tool: &str,
    arguments: Map<String, Value>,
) -> Result<A, ToolError> {
    args::parse(tool, arguments).map_err(|error| ToolError {
        hint: "mend that argument; list_llmobs_evals shows the evaluators there are".to_owned(),
        ..error.example("list_llmobs_evals", json!({}))
    })
}

/// Refuses arguments that a writing tool does not know: what is passed over here would change
/// something else than was meant.
fn only(
    tool: &str,
    arguments: &Map<String, Value>,
    known: &[&str],
    example: Value,
) -> Result<(), ToolError> {
    let unknown = arguments.iter().find(|(key, value)| {
        !value.is_null()
            && !["telemetry", "intent"].contains(&key.as_str())
            && !known.contains(&key.as_str())
    });
    let Some((key, _)) = unknown else {
        return Ok(());
    };
    let hint = match closest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it takes {}", known.join(", ")),
    };
    let key = render::candidate(key);
    Err(
        ToolError::arguments(format!("{tool} takes no argument `{key}`"), hint)
            .example(tool, example),
    )
}

/// Refuses a name that cannot be one, before it becomes a part of a path.
fn check_name(name: &str) -> Result<(), ToolError> {
    match name_problem(name) {
        None => Ok(()),
        Some(why) => Err(ToolError::arguments(
            format!("`eval_name` {why}"),
            "send the name exactly as list_llmobs_evals shows it",
        )
        .example("list_llmobs_evals", json!({}))),
    }
}

/// Explains that there is no custom evaluator of a name, with those that there are.
async fn not_found(context: &ToolContext, name: &str) -> ToolError {
    // Only a hint hangs on the list: whatever goes wrong here, the 404 stands.
    let rows = context.client.evaluators(None).await.unwrap_or_default();
    let mut names: Vec<String> = rows.rows.into_iter().map(|row| row.eval_name).collect();
    if let Some(near) = closest(name, names.iter().map(String::as_str)).map(str::to_owned) {
        names.retain(|known| *known != near);
        names.insert(0, near);
    }
    ToolError::new(
        Some(404),
        format!("evaluator not found: {}", render::candidate(name)),
        "there is no custom evaluator of this name, so it is free to be created; out-of-the-box \
         evaluators and evaluations made by code have no configuration; `candidates` holds names \
         that exist",
    )
    .example("list_llmobs_evals", json!({}))
    .candidates(names)
}

/// The refusal of an evaluator with every problem of it, and the caller's own call mended.
fn refused(
    tool: &str,
    wrap: fn(Map<String, Value>) -> Value,
    draft: &EvaluatorDraft,
    problems: &[FieldProblem],
) -> ToolError {
    let words: Vec<String> = problems
        .iter()
        .take(12)
        .map(|problem| format!("`{}` {}", render::candidate(&problem.field), problem.reason))
        .collect();
    let mut example = wrap(rules::corrected_fields(&draft.fields, problems));
    if example.to_string().chars().count() > MAX_EXAMPLE {
        let name = draft.fields.get("eval_name").cloned();
        let only_name: Map<String, Value> = name
            .map(|name| ("eval_name".to_owned(), name))
            .into_iter()
            .collect();
        let open = rules::find_problems(&rules::read_draft(&only_name));
        example = wrap(rules::corrected_fields(&only_name, &open));
    }
    ToolError::arguments(
        format!("nothing was sent: {}", words.join("; ")),
        "`example` is this call with each of these fields mended; check that its values are what \
         you mean",
    )
    .example(tool, example)
}
