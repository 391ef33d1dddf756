//! `get_llmobs_experiment_dimension_values`: the values of a dimension, most frequent first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::loading::{check_dimension, experiment_notes, load};
use crate::render::{Budget, candidate, cut_middle};
use crate::tools::args;
use crate::tools::error::ToolError;
use crate::tools::object::JsonObject;
use crate::tools::page::{ListRequest, Page};
use crate::tools::tool::{Access, Tool, ToolContext};
use llmobs_core::analysis::experiment::dimension_values;

const NAME: &str = "get_llmobs_experiment_dimension_values";
const MAX_VALUE_CHARS: usize = 500;

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment dimension values",
    description: "The values of one dimension of an LLM experiment and how many events have each, \
        most frequent first. dimension_key: error_type for a breakdown of task errors, or any of \
        available_dimensions in get_llmobs_experiment_summary.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: String,
    /// Dimension.
    dimension_key: String,
    /// Size of the answer in tokens.
    max_tokens: Option<usize>,
    /// next_cursor of the previous answer.
    cursor: Option<String>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, key) = (&arguments.experiment_id, &arguments.dimension_key);
    let example = json!({"experiment_id": candidate(id), "dimension_key": "error_type"});
    let list = ListRequest::new(NAME, [id, key], example);
    let first = list.offset(arguments.cursor.as_deref())?;
    let example = |id: &str| Some(json!({"experiment_id": id, "dimension_key": candidate(key)}));
    let loaded = load(context, NAME, id, example).await?;
    let events = &loaded.data.events;
    let mut notes = experiment_notes(&loaded);
    // An experiment without errors is not an error.
    if key == "error_type" && !events.is_empty() && !events.iter().any(|event| event.is_error()) {
        notes.add("no task failed, so no event has an error_type");
    } else {
        let example = Map::from_iter([("experiment_id".to_owned(), json!(candidate(id)))]);
        check_dimension(NAME, "dimension_key", example, events, key)?;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without_value = 0;
    for event in events {
        let values = dimension_values(event, key);
        without_value += usize::from(values.is_empty());
        for value in values {
            *counts.entry(value).or_default() += 1;
        }
    }
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| Reverse(*count));
    let total = sorted.len();
    let mut head = JsonObject::default();
    head.set("dimension", key.as_str());
    head.set("unique_count", total);
    head.set("events_without_value", without_value);
    let rows = sorted.into_iter().skip(first);
    let rows = rows.map(|(value, count)| {
        let mut row = JsonObject::default();
        row.set("value", cut_middle(value, MAX_VALUE_CHARS));
        row.set("count", count);
        row
    });
    Page::list(head, "values", rows.collect())
        .next_offset(&list, first, total)
        .notes(notes)
        .write(Budget::of_answer(arguments.max_tokens))
}
