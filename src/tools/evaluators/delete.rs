//! `delete_llmobs_evaluator`: says what it deleted, whole, so that it can be put back.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{check_name, not_found, only, parse};
use crate::render::to_json;
use crate::tools::args::{self, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::evaluators::nested_form;

const NAME: &str = "delete_llmobs_evaluator";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Delete an evaluator",
    description: "Delete a custom LLM evaluator. Evaluations it made stay. The answer holds the \
        whole deleted configuration; create_or_update_llmobs_evaluator puts it back.",
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
    eval_name: Text,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    if let Err(error) = only(NAME, &arguments, &["eval_name"], json!({})) {
        // An example that deletes is none.
        return Err(error.example("list_llmobs_evals", json!({})));
    }
    let Arguments { eval_name } = parse(NAME, arguments)?;
    let name = eval_name.0;
    check_name(&name)?;
    // Read first: what cannot be shown could not be put back.
    let Some(evaluator) = context.client.evaluator(&name).await? else {
        return Err(not_found(context, &name).await);
    };
    let mut answer = Map::from_iter([
        ("status".to_owned(), json!("ok")),
        ("eval_name".to_owned(), json!(name)),
    ]);
    if !context.client.delete_evaluator(&name).await? {
        let note = "it was gone already when it was to be deleted: somebody else deleted it";
        answer.insert("notes".to_owned(), json!([note]));
    }
    answer.insert("deleted".to_owned(), Value::Object(nested_form(&evaluator)));
    answer.insert(
        "to_put_back".to_owned(),
        json!("call create_or_update_llmobs_evaluator with the object in `deleted`"),
    );
    Ok(to_json(&answer)?)
}
