//! Validation of an evaluator's output schema and assessment criteria.

use serde_json::{Map, Value, json};

use crate::analysis::evaluators::example::boolean_schema;
use crate::analysis::evaluators::problem::FieldProblem;
use crate::analysis::evaluators::schema::SCHEMA_KINDS;
use crate::model::{Evaluator, MetricType};

const PARSING_TYPES: [&str; 3] = ["structured_output", "json", "keyword_search"];

pub(super) fn check_schema(evaluator: &Evaluator, problems: &mut Vec<FieldProblem>) {
    let judge = &evaluator.llm_judge_config;
    problems.extend(FieldProblem::unless_one_of(
        "parsing_type",
        &judge.parsing_type,
        &PARSING_TYPES,
        "structured_output",
    ));
    if let Some(wrapper) = &judge.output_schema
        && let Err((reason, suggestion)) = check_wrapper(wrapper, &judge.parsing_type)
    {
        let suggestion = suggestion.unwrap_or_else(boolean_schema);
        problems.push(FieldProblem::new("output_schema", reason, Some(suggestion)));
    }
}

/// Checks a schema with its wrapper. The error is the reason and a corrected schema, if there is
/// one.
fn check_wrapper(wrapper: &Value, parsing_type: &str) -> Result<(), (String, Option<Value>)> {
    let refuse = |reason: &str| Err((reason.to_owned(), None));
    let name = wrapper.get("name").and_then(Value::as_str);
    if parsing_type == "keyword_search" {
        return match name {
            Some(name) if name != "boolean_eval" => {
                refuse("must be boolean_eval when parsing_type is keyword_search")
            }
            _ => Ok(()),
        };
    }
    let Some(schema) = wrapper.get("schema").and_then(Value::as_object) else {
        return refuse(
            "must be a JSON Schema with `properties`, bare or as {name, strict, schema}",
        );
    };
    if parsing_type == "json" {
        return Ok(());
    }
    let kind = SCHEMA_KINDS.iter().find(|(kind, _)| Some(*kind) == name);
    let Some((name, property)) = kind else {
        return refuse("must be named boolean_eval, score_eval, categorical_eval or json_eval");
    };
    check_structure(name, property, schema).map_err(|reason| {
        let strict = make_strict(name, property, schema);
        let valid = check_structure(name, property, &strict).is_ok();
        let corrected = json!({"name": name, "strict": true, "schema": strict});
        (reason, valid.then_some(corrected))
    })
}

/// The schema with its properties required and no others allowed.
fn make_strict(name: &str, property: &str, schema: &Map<String, Value>) -> Map<String, Value> {
    let mut strict = schema.clone();
    let mut required = vec![property];
    if let Some(Value::Object(properties)) = strict.get_mut("properties") {
        properties.retain(|key, _| name == "json_eval" || key == property || key == "reasoning");
        if properties.contains_key("reasoning") {
            required.push("reasoning");
        }
    }
    strict.insert("required".to_owned(), json!(required));
    strict.insert("additionalProperties".to_owned(), Value::Bool(false));
    strict
}

/// Checks the rules for structured output.
fn check_structure(name: &str, property: &str, schema: &Map<String, Value>) -> Result<(), String> {
    let empty = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let result = properties
        .get(property)
        .ok_or_else(|| format!("must have the property `{property}` when its name is {name}"))?;
    if name != "json_eval" {
        check_properties(property, properties, schema)?;
    }
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err("must have `additionalProperties`: false".to_owned());
    }
    check_result_property(name, result).map_err(str::to_owned)
}

/// Checks the names of the properties and `required`.
fn check_properties(
    property: &str,
    properties: &Map<String, Value>,
    schema: &Map<String, Value>,
) -> Result<(), String> {
    if let Some(other) = properties
        .keys()
        .find(|key| *key != property && *key != "reasoning")
    {
        return Err(format!(
            "may have only the properties `{property}` and `reasoning`, not `{}`",
            other
                .chars()
                .take(60)
                .filter(|c| !c.is_control())
                .collect::<String>()
        ));
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut expected = vec![property];
    if properties.contains_key("reasoning") {
        expected.push("reasoning");
    }
    if required == expected || required == [property] {
        Ok(())
    } else {
        Err(format!(
            "must have `required`: [\"{}\"]",
            expected.join("\", \"")
        ))
    }
}

/// Checks the type of the property with the result.
fn check_result_property(name: &str, result: &Value) -> Result<(), &'static str> {
    let kind = result.get("type").and_then(Value::as_str);
    let bound = |key: &str| result.get(key).and_then(Value::as_f64);
    match name {
        "boolean_eval" if kind != Some("boolean") => {
            Err("must declare `boolean_eval` with type boolean")
        }
        "score_eval" => match (kind, bound("minimum"), bound("maximum")) {
            (Some("number" | "integer"), Some(low), Some(high)) if low < high => Ok(()),
            _ => Err(
                "must declare `score_eval` with type number, a `minimum` and a larger `maximum`",
            ),
        },
        "categorical_eval" => {
            let categories = categories(result);
            if kind == Some("string") && categories.is_some_and(|list| !list.is_empty()) {
                Ok(())
            } else {
                Err(
                    "must declare `categorical_eval` with type string and anyOf: \
                     [{\"const\": \"happy\", \"description\": \"…\"}, …]",
                )
            }
        }
        _ => Ok(()),
    }
}

/// The categories that a schema allows; `None` if one of them is not text.
fn categories(result: &Value) -> Option<Vec<&str>> {
    let options = result.get("anyOf")?.as_array()?;
    options
        .iter()
        .map(|option| option.get("const")?.as_str())
        .collect()
}

/// The values that a schema allows.
struct AllowedValues<'a> {
    categories: Vec<&'a str>,
    minimum: Option<f64>,
    maximum: Option<f64>,
}

impl<'a> AllowedValues<'a> {
    fn from_property(result: Option<&'a Value>) -> Self {
        let bound = |key: &str| {
            result
                .and_then(|result| result.get(key))
                .and_then(Value::as_f64)
        };
        Self {
            categories: result.and_then(categories).unwrap_or_default(),
            minimum: bound("minimum"),
            maximum: bound("maximum"),
        }
    }

    fn contains_number(&self, value: &Value) -> bool {
        value.as_f64().is_some_and(|number| {
            self.minimum.is_none_or(|minimum| number >= minimum)
                && self.maximum.is_none_or(|maximum| number <= maximum)
        })
    }

    fn contains_category(&self, value: &Value) -> bool {
        value
            .as_str()
            .is_some_and(|value| self.categories.is_empty() || self.categories.contains(&value))
    }
}

/// Checks that the criteria fit the type of the evaluations. The schema must be valid.
pub(super) fn check_criteria(evaluator: &Evaluator) -> Option<FieldProblem> {
    let judge = &evaluator.llm_judge_config;
    let criteria = &judge.assessment_criteria;
    if criteria.is_empty() {
        return None;
    }
    let metric_type = evaluator.metric_type()?;
    let result = judge.output_schema.as_ref().and_then(|schema| {
        schema.pointer(&format!("/schema/properties/{}_eval", metric_type.as_str()))
    });
    let allowed = AllowedValues::from_property(result);
    let valid = criteria
        .iter()
        .all(|(key, value)| match (metric_type, key.as_str()) {
            (MetricType::Boolean, "pass_when") => value.is_boolean(),
            (MetricType::Score, "min_threshold" | "max_threshold") => {
                allowed.contains_number(value)
            }
            (MetricType::Categorical, "pass_values") => value.as_array().is_some_and(|values| {
                !values.is_empty() && values.iter().all(|value| allowed.contains_category(value))
            }),
            _ => false,
        });
    (!valid).then(|| criteria_problem(metric_type, &allowed))
}

fn criteria_problem(metric_type: MetricType, allowed: &AllowedValues<'_>) -> FieldProblem {
    let (reason, suggestion) = match metric_type {
        MetricType::Boolean => (
            "must be {\"pass_when\": true} or {\"pass_when\": false} for a boolean evaluator",
            Some(json!({"pass_when": true})),
        ),
        MetricType::Score => {
            let threshold = allowed.minimum.map_or(json!(0.5), |low| {
                let high = allowed.maximum;
                prefer_integer(json!(high.map_or(low, |high| f64::midpoint(low, high))))
            });
            (
                "may contain only min_threshold and max_threshold for a score evaluator, as \
                 numbers within the schema's minimum and maximum",
                Some(json!({"min_threshold": threshold})),
            )
        }
        MetricType::Categorical => (
            "must be {\"pass_values\": […]} for a categorical evaluator, with values from the \
             schema's anyOf",
            allowed
                .categories
                .first()
                .map(|category| json!({"pass_values": [category]})),
        ),
        MetricType::Json | MetricType::Text => (
            "must be absent for a JSON evaluator: its post-processing function decides pass or \
             fail",
            None,
        ),
    };
    FieldProblem::new("assessment_criteria", reason, suggestion)
}

/// Writes `1.0` as `1`, because some fields accept integers only.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn prefer_integer(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(number as i64),
        _ => value,
    }
}
