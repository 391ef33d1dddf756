//! `get_llmobs_evaluator`: the complete configuration of a custom evaluator, in a form that
//! `create_or_update_llmobs_evaluator` accepts without loss.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::configuration::read_evaluator;
use crate::render::Budget;
use crate::tools::answer::Notes;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::write_object;
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::evaluators::nested_form;

const NAME: &str = "get_llmobs_evaluator";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Get an evaluator",
    description: "Get the complete configuration of a custom LLM evaluator: prompt, model, filter, \
        sampling, output schema, pass criteria. The answer can be changed and sent to \
        create_or_update_llmobs_evaluator as it is. 404: the name can be used for a new evaluator.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Name of the evaluator.
    eval_name: String,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let Arguments { eval_name } = args::parse(NAME, arguments)?;
    let evaluator = read_evaluator(context, &eval_name).await?;
    // A part of a configuration is useless, so the budget is larger than any real one.
    let max = Budget::MAX_CONTENT_TOKENS;
    let answer = JsonObject(nested_form(&evaluator));
    write_object(answer, &Notes::default(), Budget::within(Some(max), max))
}
