//! `get_llmobs_experiment_dimension_values`: the values of a dimension, the most frequent first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paged::{Paged, counted};
use super::{Keys, find_dimension, load, notes_of};
use crate::render::{candidate, cut_middle};
use crate::tools::answer::read_offset;
use crate::tools::args::{self, Count, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use llmobs_core::analysis::experiment::dimension_values;

const NAME: &str = "get_llmobs_experiment_dimension_values";

pub(super) const TOOL: Tool = Tool {
    name: NAME,
    title: "Experiment dimension values",
    description: "The values of one dimension of an LLM experiment and how many events have each, \
        the most frequent first. dimension_key: error_type for a breakdown of task errors, or any \
        of available_dimensions in get_llmobs_experiment_summary.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Arguments>,
    run: |context, arguments| Box::pin(run(context, arguments)),
};

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Experiment UUID.
    experiment_id: Text,
    /// Dimension.
    dimension_key: Text,
    /// Size of the answer in tokens.
    max_tokens: Option<Count>,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

async fn run(context: &ToolContext, arguments: Map<String, Value>) -> Result<String, ToolError> {
    let arguments: Arguments = args::parse(NAME, arguments)?;
    let (id, key) = (&arguments.experiment_id.0, &arguments.dimension_key.0);
    let question = [id.as_str(), key];
    let example = json!({"experiment_id": candidate(id), "dimension_key": "error_type"});
    let cursor = arguments.cursor.as_ref().map(|cursor| cursor.0.as_str());
    let first = read_offset(NAME, cursor, &question, || example)?;
    let loaded = load(context, NAME, id).await?;
    let events = &loaded.data.events;
    let mut notes = notes_of(&loaded);
    // No error is an answer, not a mistake.
    if key == "error_type" && !events.is_empty() && !events.iter().any(|event| event.is_error()) {
        notes.add("no task failed, so no event has an error_type");
    } else {
        let example = Map::from_iter([("experiment_id".to_owned(), json!(candidate(id)))]);
        find_dimension(NAME, "dimension_key", example, events, key)?;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut without = 0;
    for event in events {
        let values = dimension_values(event, key);
        without += usize::from(values.is_empty());
        for value in values {
            *counts.entry(value).or_default() += 1;
        }
    }
    let mut sorted: Vec<(&str, usize)> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| Reverse(*count));
    let mut head = Keys::default();
    head.put("dimension", key.as_str());
    head.put("unique_count", sorted.len());
    head.put("events_without_value", without);
    let rows = sorted
        .into_iter()
        .map(|(value, count)| {
            let row = json!({"value": cut_middle(value, 500), "count": count});
            (String::new(), row)
        })
        .collect();
    Paged::list(head, "values", counted(rows, first, &question), notes).fit(arguments.max_tokens)
}
