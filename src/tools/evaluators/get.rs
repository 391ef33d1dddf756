//! `get_llmobs_evaluator`: the whole configuration of a custom evaluator, in a form that
//! `create_or_update_llmobs_evaluator` takes back without loss.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{check_name, not_found, parse};
use crate::render::{Budget, Shrink, fit};
use crate::tools::args::{self, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::evaluators::nested_form;

const NAME: &str = "get_llmobs_evaluator";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Get an evaluator",
    description: "Get the whole configuration of a custom LLM evaluator: prompt, model, filter, \
        sampling, output schema, pass criteria. What it gives can be changed and sent to \
        create_or_update_llmobs_evaluator as it is. 404: the name is free to be created.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Name of the evaluator.
    eval_name: Text,
}

/// A configuration is useless in parts: it is given whole, or cut only beyond any real one.
#[derive(Serialize)]
#[serde(transparent)]
struct Answer(Map<String, Value>);

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    fn keep(&mut self, _count: usize) {}
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let Arguments { eval_name } = parse(NAME, arguments)?;
    check_name(&eval_name.0)?;
    let Some(evaluator) = context.client.evaluator(&eval_name.0).await? else {
        return Err(not_found(context, &eval_name.0).await);
    };
    let most = Budget::MAX_CONTENT_TOKENS;
    let answer = Answer(nested_form(&evaluator));
    Ok(fit(answer, Budget::asked(Some(most), most))?)
}
