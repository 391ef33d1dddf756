//! `delete_llmobs_evaluator`: the answer has the complete deleted configuration, so that it can be
//! restored.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::configuration::read_evaluator;
use crate::render::to_json;
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::evaluators::nested_form;

const NAME: &str = "delete_llmobs_evaluator";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Delete an evaluator",
    description: "Delete a custom LLM evaluator. Its evaluations are kept. The answer has the \
        complete deleted configuration; create_or_update_llmobs_evaluator restores it.",
    toolset: "llmobs",
    access: Access::Write {
        destructive: true,
        idempotent: true,
    },
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Name of the evaluator.
    eval_name: String,
}

async fn run(
    context: &ToolContext,
    mut arguments: Map<String, Value>,
) -> Result<String, ToolError> {
    arguments.retain(|_, value| !value.is_null());
    // The example must not delete anything.
    args::check_known(NAME, &arguments, &["eval_name"])
        .map_err(|error| error.example("list_llmobs_evals", json!({})))?;
    let Arguments { eval_name } = args::parse(NAME, arguments)?;
    // Read before the deletion: a configuration that cannot be shown cannot be restored.
    let evaluator = read_evaluator(context, &eval_name).await?;
    let deleted = context.client.delete_evaluator(&eval_name).await?;
    let mut answer = JsonObject::default();
    answer.set("status", "ok");
    answer.set("eval_name", eval_name);
    if !deleted {
        answer.set(
            "notes",
            json!(["another caller deleted the evaluator during this call"]),
        );
    }
    answer.set("deleted", nested_form(&evaluator));
    answer.set(
        "to_put_back",
        "call create_or_update_llmobs_evaluator with the object in `deleted`",
    );
    Ok(to_json(&answer)?)
}
