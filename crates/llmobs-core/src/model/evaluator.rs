//! An evaluator: the configuration of a judge, and the spans that it evaluates.
//!
//! The fields have the names of Datadog's documented configuration. A write replaces the complete
//! configuration, so `extra` keeps the keys without a field; otherwise a read followed by a write
//! would lose them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// The configuration of an evaluator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluator {
    /// The name, which is also the label of its evaluations.
    pub eval_name: String,
    /// A category, such as `quality`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The spans to evaluate.
    pub target: EvaluatorTarget,
    /// The judge's model.
    pub llm_provider: JudgeModel,
    /// The judge's prompt and output format.
    pub llm_judge_config: JudgeConfig,
    /// When it was created, RFC 3339; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it was last changed, RFC 3339; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The user who created it; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Value>,
    /// The user who last changed it; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_by: Option<Value>,
    /// Keys without a field, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The spans that an evaluator evaluates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluatorTarget {
    /// The application, called `ml_app` on spans.
    pub application_name: String,
    /// Whether the evaluator runs. A draft does not.
    pub enabled: bool,
    /// The unit of one evaluation.
    pub eval_scope: EvalScope,
    /// A span query that selects spans; all spans when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Whether to evaluate root spans only.
    pub root_spans_only: bool,
    /// The percentage of matching spans to evaluate, above 0 and at most 100; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_percentage: Option<Number>,
    /// Projects whose experiment runs are evaluated too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experiment_project_ids: Vec<String>,
    /// Other keys, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The unit of one evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalScope {
    /// A single span.
    #[default]
    Span,
    /// A trace, once it is complete.
    Trace,
    /// All traces of a session.
    Session,
}

impl EvalScope {
    /// The wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            EvalScope::Span => "span",
            EvalScope::Trace => "trace",
            EvalScope::Session => "session",
        }
    }
}

/// The judge's model and the account that calls it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeModel {
    /// The model's provider: `openai`, `anthropic`, …
    pub integration_provider: String,
    /// The site's id of the account at the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_account_id: Option<String>,
    /// The name of the model.
    pub model_name: String,
    /// Options of Amazon Bedrock: `region`, `inference_profile`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub bedrock: Map<String, Value>,
    /// Options of Vertex AI: `location`, `project`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub vertex_ai: Map<String, Value>,
    /// Other keys, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The judge's prompt and output format.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeConfig {
    /// `structured_output`, `json` or `keyword_search`.
    pub parsing_type: String,
    /// Messages `{role, content}` or `{role, contents}`. User messages may contain placeholders.
    pub prompt_template: Vec<Value>,
    /// The schema of the judge's output: `{name, strict, schema}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// The criteria that an output must meet to pass.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub assessment_criteria: Map<String, Value>,
    /// `temperature`, `max_tokens`, `top_p`, `top_k`, `frequency_penalty`, `presence_penalty`.
    /// Serialized even when empty, because the documented form requires it.
    pub inference_params: Map<String, Value>,
    /// Keys of older configurations and of the prompt library, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The sections of the documented attributes.
const SECTIONS: [&str; 3] = ["target", "llm_provider", "llm_judge_config"];

impl Evaluator {
    /// Reads the documented attributes. A null counts as absent.
    ///
    /// # Errors
    ///
    /// A value of the wrong type.
    pub fn from_attributes(attributes: Value) -> Result<Self, serde_json::Error> {
        let Value::Object(mut map) = attributes else {
            return serde_json::from_value(attributes);
        };
        map.retain(|_, value| !value.is_null());
        for section in SECTIONS {
            if let Some(Value::Object(inner)) = map.get_mut(section) {
                inner.retain(|_, value| !value.is_null());
            }
        }
        for pointer in ["assessment_criteria", "inference_params"] {
            let judge = map.get_mut("llm_judge_config");
            if let Some(Value::Object(inner)) = judge.and_then(|judge| judge.get_mut(pointer)) {
                inner.retain(|_, value| !value.is_null());
            }
        }
        serde_json::from_value(Value::Object(map))
    }

    /// The documented attributes.
    pub fn to_attributes(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // All keys are strings, so serialization cannot fail.
            _ => Map::new(),
        }
    }

    /// The type of its evaluations, from the name of its output schema; `None` without a name.
    pub fn metric_type(&self) -> Option<super::MetricType> {
        use super::MetricType;
        let judge = &self.llm_judge_config;
        if judge.parsing_type == "keyword_search" {
            return Some(MetricType::Boolean);
        }
        let name = judge.output_schema.as_ref()?.get("name")?.as_str()?;
        match name {
            "boolean_eval" => Some(MetricType::Boolean),
            "score_eval" => Some(MetricType::Score),
            "categorical_eval" => Some(MetricType::Categorical),
            _ => Some(MetricType::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attributes_round_trip_and_null_is_absent() {
        let attributes = json!({
            "eval_name": "tone", "category": null,
            "target": {"application_name": "shop", "enabled": true, "eval_scope": "trace",
                "filter": null, "root_spans_only": null, "sampling_percentage": 12.5, "new_key": 1},
            "llm_provider": {"integration_provider": "amazon-bedrock", "model_name": "m",
                "bedrock": {"region": "eu"}},
            "llm_judge_config": {"parsing_type": "json", "prompt_template": [{"role": "user", "content": "x"}],
                "assessment_criteria": {"pass_when": null}, "context_query": "q"},
        });
        let evaluator = Evaluator::from_attributes(attributes).unwrap();
        assert_eq!(evaluator.target.eval_scope, EvalScope::Trace);
        assert!(evaluator.llm_judge_config.assessment_criteria.is_empty());
        assert_eq!(evaluator.target.extra["new_key"], 1);
        let attributes = Value::Object(evaluator.to_attributes());
        assert_eq!(
            attributes["llm_judge_config"]["inference_params"],
            json!({})
        );
        assert_eq!(Evaluator::from_attributes(attributes).unwrap(), evaluator);
    }
}
