//! `list_llmobs_evals` and `list_llmobs_evals_by_ml_app`: what evaluators there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::parse;
use crate::render::{Budget, Shrink, candidate, fit, to_json};
use crate::tools::answer::{Notes, offset_cursor, read_offset};
use crate::tools::args::{self, Text};
use crate::tools::{Access, Tool, ToolContext, ToolError};
use datadog_llmobs::EvaluatorSummary;

const NAME: &str = "list_llmobs_evals";
const BY_APP_NAME: &str = "list_llmobs_evals_by_ml_app";

pub(super) const ALL: Tool = Tool {
    name: NAME,
    title: "List evaluators",
    description: "List all LLM evaluators (evals, LLM judges) of the organisation with application, \
        enabled or draft, custom or ootb (out of the box), and type.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<Everything>,
    run: |context, arguments| {
        Box::pin(async move {
            let Everything { cursor } = parse(NAME, arguments)?;
            list(context, NAME, None, cursor).await
        })
    },
};

pub(super) const BY_APP: Tool = Tool {
    name: BY_APP_NAME,
    title: "List an application's evaluators",
    description: "List the LLM evaluators (evals, LLM judges) of one application. An application \
        without evaluators gives an empty list.",
    toolset: "llmobs",
    access: Access::Read,
    schema: args::schema::<OfApp>,
    run: |context, arguments| {
        Box::pin(async move {
            let OfApp { ml_app, cursor } = parse(BY_APP_NAME, arguments)?;
            list(context, BY_APP_NAME, Some(ml_app.0), cursor).await
        })
    },
};

#[derive(Deserialize, JsonSchema)]
struct Everything {
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
struct OfApp {
    /// Application name.
    ml_app: Text,
    /// next_cursor of the previous answer.
    cursor: Option<Text>,
}

#[derive(Serialize)]
struct Row {
    eval_name: String,
    ml_app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    metric_type: Option<String>,
    created_at: Option<String>,
}

impl From<EvaluatorSummary> for Row {
    fn from(row: EvaluatorSummary) -> Self {
        Self {
            eval_name: row.eval_name,
            ml_app: row.ml_app,
            enabled: row.enabled,
            source: row.source,
            metric_type: row.metric_type,
            created_at: row.created_at,
        }
    }
}

#[derive(Serialize)]
struct Answer {
    evaluators: Vec<Row>,
    total_count: usize,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    apps_with_evaluators: Vec<String>,
    #[serde(skip_serializing_if = "Notes::is_empty")]
    notes: Notes,
    #[serde(skip)]
    first: usize,
    #[serde(skip)]
    question: String,
}

impl Shrink for Answer {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        let size = |row| to_json(row).map_or(0, |text| text.chars().count());
        self.evaluators.iter().map(size)
    }

    fn keep(&mut self, count: usize) {
        self.evaluators.truncate(count);
        let shown = self.first + self.evaluators.len();
        self.next_cursor =
            (shown < self.total_count).then(|| offset_cursor(shown, &[self.question.as_str()]));
    }
}

async fn list(
    context: &ToolContext,
    tool: &str,
    ml_app: Option<String>,
    cursor: Option<Text>,
) -> Result<String, ToolError> {
    let question = ml_app.clone().unwrap_or_default();
    let first = read_offset(
        tool,
        cursor.as_ref().map(|cursor| cursor.0.as_str()),
        &[question.as_str()],
        || match &ml_app {
            Some(app) => json!({"ml_app": app}),
            None => json!({}),
        },
    )?;
    let found = context.client.evaluators(ml_app.as_deref()).await?;
    let mut notes = Notes::default();
    notes.gaps(&found.gaps);
    let mut apps_with_evaluators = Vec::new();
    if found.rows.is_empty() && ml_app.is_some() {
        // Only a hint hangs on it: an empty list is an answer.
        let all = context.client.evaluators(None).await.unwrap_or_default();
        let mut apps: Vec<String> = all.rows.into_iter().filter_map(|row| row.ml_app).collect();
        apps.sort();
        apps.dedup();
        apps_with_evaluators = apps.iter().take(10).map(|app| candidate(app)).collect();
    }
    let answer = Answer {
        total_count: found.rows.len(),
        evaluators: found.rows.into_iter().skip(first).map(Row::from).collect(),
        next_cursor: None,
        apps_with_evaluators,
        notes,
        first,
        question,
    };
    Ok(fit(answer, Budget::asked(None, Budget::MAX_TOKENS))?)
}
