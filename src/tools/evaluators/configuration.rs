//! Errors about the configuration of an evaluator.

use serde_json::{Map, Value, json};

use crate::render::candidate;
use crate::tools::error::ToolError;
use crate::tools::tool::ToolContext;
use llmobs_core::analysis::candidates::closest;
use llmobs_core::analysis::evaluators::{
    self as rules, EvaluatorDraft, FieldProblem, name_problem,
};
use llmobs_core::model::Evaluator;

/// A longer example, in characters of JSON, is replaced by one with the name only.
const MAX_EXAMPLE_CHARS: usize = 6_000;
/// Problems that one error names.
const MAX_PROBLEMS: usize = 12;

/// Refuses an invalid name before it becomes part of a URL path.
pub(super) fn check_name(name: &str) -> Result<(), ToolError> {
    match name_problem(name) {
        None => Ok(()),
        Some(problem) => Err(ToolError::arguments(
            format!("`eval_name` {problem}"),
            "send the name exactly as list_llmobs_evals shows it",
        )
        .example("list_llmobs_evals", json!({}))),
    }
}

/// Reads the configuration of a custom evaluator.
///
/// # Errors
///
/// For an unknown name, with existing names.
pub(super) async fn read_evaluator(
    context: &ToolContext,
    name: &str,
) -> Result<Evaluator, ToolError> {
    check_name(name)?;
    if let Some(evaluator) = context.client.evaluator(name).await? {
        return Ok(evaluator);
    }
    // The list only improves the hint: if it fails, the error is the same without it.
    let rows = match context.client.evaluators(None).await {
        Ok(evaluators) => evaluators.rows,
        Err(_) => Vec::new(),
    };
    let mut names: Vec<String> = rows.into_iter().map(|row| row.eval_name).collect();
    if let Some(near) = closest(name, names.iter().map(String::as_str)).map(str::to_owned) {
        names.retain(|other| *other != near);
        names.insert(0, near);
    }
    Err(ToolError::new(
        Some(404),
        format!("evaluator not found: {}", candidate(name)),
        "no custom evaluator has this name, so one can be created with it; out-of-the-box \
         evaluators and evaluations sent by code have no configuration; `candidates` lists existing \
         names",
    )
    .example("list_llmobs_evals", json!({}))
    .candidates(names))
}

/// The error for a draft with problems. Its example is the call with each problem corrected;
/// `arguments` turns the corrected fields into the arguments of the tool.
pub(super) fn draft_error(
    tool: &str,
    arguments: fn(Map<String, Value>) -> Value,
    draft: &EvaluatorDraft,
    problems: &[FieldProblem],
) -> ToolError {
    let sentences: Vec<String> = problems
        .iter()
        .take(MAX_PROBLEMS)
        .map(|problem| format!("`{}` {}", candidate(&problem.field), problem.reason))
        .collect();
    let mut example = arguments(rules::corrected_fields(&draft.fields, problems));
    if crate::render::json_chars(&example) > MAX_EXAMPLE_CHARS {
        let name = draft.fields.get("eval_name").cloned();
        let name = name.map(|name| ("eval_name".to_owned(), name));
        let only_name: Map<String, Value> = name.into_iter().collect();
        let problems = rules::find_problems(&rules::read_draft(&only_name));
        example = arguments(rules::corrected_fields(&only_name, &problems));
    }
    ToolError::arguments(
        format!("nothing was sent: {}", sentences.join("; ")),
        "`example` is this call with each of these fields corrected; check that its values are what \
         you intend",
    )
    .example(tool, example)
}
