//! Parsing of the `evaluation` and `feedback` maps of a span.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fields::{remove_integer, remove_map, remove_nonempty_text, remove_text, text_list};
use llmobs_core::model::{Assessment, EvalStatus, Evaluation, EventKind, MetricType};

/// Reads a map from label to evaluation. If an entry is a list, its newest evaluation is used.
pub(super) fn read_map(map: Option<Value>, event_kind: EventKind) -> BTreeMap<String, Evaluation> {
    let Some(Value::Object(map)) = map else {
        return BTreeMap::new();
    };
    map.into_iter()
        .filter_map(|(label, entry)| {
            let evaluation = match entry {
                Value::Object(fields) => read(&label, event_kind, fields),
                Value::Array(entries) => entries
                    .into_iter()
                    .filter_map(|entry| match entry {
                        Value::Object(fields) => Some(read(&label, event_kind, fields)),
                        _ => None,
                    })
                    .max_by_key(|evaluation| evaluation.timestamp_ms)?,
                _ => return None,
            };
            Some((label, evaluation))
        })
        .collect()
}

fn read(label: &str, event_kind: EventKind, mut fields: Map<String, Value>) -> Evaluation {
    if let Some(Value::Object(extra)) = fields.remove("extra") {
        for (key, value) in extra {
            fields.entry(key).or_insert(value);
        }
    }
    let value = fields.remove("value").filter(|value| !value.is_null());
    let metric_type = remove_text(&mut fields, "eval_metric_type")
        .or_else(|| remove_text(&mut fields, "metric_type"))
        .and_then(|text| MetricType::from_wire(&text.to_lowercase()));
    Evaluation {
        label: label.to_owned(),
        event_kind,
        metric_type: metric_type.unwrap_or_else(|| infer_metric_type(value.as_ref())),
        value,
        assessment: remove_text(&mut fields, "assessment")
            .and_then(|text| Assessment::from_wire(&text.to_lowercase())),
        reasoning: remove_nonempty_text(&mut fields, "reasoning"),
        status: remove_text(&mut fields, "status")
            .and_then(|text| EvalStatus::from_wire(&text.to_uppercase()))
            .unwrap_or_default(),
        error: fields.remove("error").filter(|error| !error.is_null()),
        tags: text_list(fields.remove("tags")),
        metadata: remove_map(&mut fields, "eval_metric_metadata"),
        timestamp_ms: remove_integer(&mut fields, "timestamp_ms").unwrap_or_default(),
        extra: fields,
    }
}

fn infer_metric_type(value: Option<&Value>) -> MetricType {
    match value {
        Some(Value::Bool(_)) => MetricType::Boolean,
        Some(Value::String(_)) => MetricType::Categorical,
        Some(Value::Object(_) | Value::Array(_)) => MetricType::Json,
        Some(Value::Number(_) | Value::Null) | None => MetricType::Score,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_all_fields_and_keeps_unknown_ones() {
        let map = read_map(
            Some(json!({"faithful": {
                "eval_metric_type":"boolean","value":false,"assessment":"fail","reasoning":"no source",
                "status":"OK","tags":["a:b"],"error":null,"eval_metric_metadata":{"m":1},
                "timestamp_ms":1_790_000_000_000_i64,"llm_output":"x","extra":{"submitter":"s"}}})),
            EventKind::Evaluation,
        );
        let evaluation = &map["faithful"];
        assert_eq!(evaluation.label, "faithful");
        assert_eq!(evaluation.metric_type, MetricType::Boolean);
        assert_eq!(evaluation.value, Some(json!(false)));
        assert_eq!(evaluation.assessment, Some(Assessment::Fail));
        assert_eq!(evaluation.error, None);
        assert_eq!(evaluation.timestamp_ms, 1_790_000_000_000);
        assert_eq!(
            Value::Object(evaluation.extra.clone()),
            json!({"llm_output":"x","submitter":"s"})
        );
    }

    #[test]
    fn infers_metric_type_and_uses_newest_of_list() {
        let map = read_map(
            Some(json!({
                "a":{"value":"good"},"b":{"value":{"x":1}},"c":{"value":0.5},"d":7,
                "e":[{"value":1,"timestamp_ms":5},{"value":2,"timestamp_ms":"9"},{"value":3}],
                "f":{"status":"error","error":{"message":"judge failed"}}})),
            EventKind::Feedback,
        );
        assert_eq!(map["a"].metric_type, MetricType::Categorical);
        assert_eq!(map["a"].event_kind, EventKind::Feedback);
        assert_eq!(map["b"].metric_type, MetricType::Json);
        assert_eq!(map["c"].metric_type, MetricType::Score);
        assert!(!map.contains_key("d"));
        assert_eq!(map["e"].value, Some(json!(2)));
        assert_eq!(map["f"].status, EvalStatus::Error);
        assert_eq!(map["f"].value, None);
    }
}
