//! An evaluator: a judge model's whole configuration, and which spans it judges.
//!
//! The fields carry the names of Datadog's documented configuration, so that a person who knows
//! the one knows the other. A write replaces the whole configuration; what this version has no
//! field for is kept in `extra`, or a read and a write would lose it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// A judge's configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluator {
    /// The name; also the label of the evaluations it makes.
    pub eval_name: String,
    /// What it is for, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What is judged.
    pub target: EvaluatorTarget,
    /// The model that judges.
    pub llm_provider: JudgeModel,
    /// How it is asked and how its answer is read.
    pub llm_judge_config: JudgeConfig,
    /// When it was made, RFC 3339; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it was last written, RFC 3339; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Who made it; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<Value>,
    /// Who wrote it last; set by the site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_by: Option<Value>,
    /// Keys that this type has no field for, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What an evaluator judges.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluatorTarget {
    /// The application, elsewhere called `ml_app`.
    pub application_name: String,
    /// Whether it runs; a draft does not.
    pub enabled: bool,
    /// What one judgement is about.
    pub eval_scope: EvalScope,
    /// Which spans, in the span query language; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only spans without a parent.
    pub root_spans_only: bool,
    /// How many of the matching spans are judged, above 0 and at most 100; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_percentage: Option<Number>,
    /// Experiment projects whose runs are judged too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experiment_project_ids: Vec<String>,
    /// Other keys, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What one judgement is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EvalScope {
    /// A span by itself.
    #[default]
    Span,
    /// A whole trace, once it is complete.
    Trace,
    /// All traces of a conversation.
    Session,
}

impl EvalScope {
    /// The scope as the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            EvalScope::Span => "span",
            EvalScope::Trace => "trace",
            EvalScope::Session => "session",
        }
    }
}

/// The model that judges, and the account it is called with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeModel {
    /// Who serves the model: `openai`, `anthropic`, …
    pub integration_provider: String,
    /// The account of that provider, as the site knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration_account_id: Option<String>,
    /// The model.
    pub model_name: String,
    /// Options of Amazon Bedrock: `region`, `inference_profile`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub bedrock: Map<String, Value>,
    /// Options of Vertex AI: `location`, `project`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub vertex_ai: Map<String, Value>,
    /// Other keys, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How the judge is asked and how its answer is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeConfig {
    /// `structured_output`, `json` or `keyword_search`.
    pub parsing_type: String,
    /// Messages `{role, content}` or `{role, contents}`; placeholders stand in user messages.
    pub prompt_template: Vec<Value>,
    /// `{name, strict, schema}`: what the judge must answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// When an answer passes.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub assessment_criteria: Map<String, Value>,
    /// `temperature`, `max_tokens`, `top_p`, `top_k`, `frequency_penalty`, `presence_penalty`.
    /// Written even when empty: the documented form requires it.
    pub inference_params: Map<String, Value>,
    /// Keys of older configurations and of the prompt library, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The sections of the documented attributes.
const SECTIONS: [&str; 3] = ["target", "llm_provider", "llm_judge_config"];

impl Evaluator {
    /// Reads the documented attributes. A null counts as absent.
    ///
    /// # Errors
    /// What serde says of a value of the wrong type.
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
            // All keys are text, so there is nothing that could not be written.
            _ => Map::new(),
        }
    }

    /// The type of its evaluations, by the name of its schema; `None` if that says nothing.
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
    fn attributes_read_back_as_they_were_and_null_is_absent() {
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
        let written = Value::Object(evaluator.to_attributes());
        assert_eq!(written["llm_judge_config"]["inference_params"], json!({}));
        let again = Evaluator::from_attributes(Value::Object(evaluator.to_attributes())).unwrap();
        assert_eq!(again, evaluator);
    }
}
