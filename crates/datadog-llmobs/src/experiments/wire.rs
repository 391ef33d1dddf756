//! Lenient parsing of experiments and their events.
//!
//! The documented response, the spans of the SDK, and the copies that a re-run posts differ in where
//! they put kind, error and record id; all positions are read. Inputs and outputs are any JSON and are
//! kept unchanged, but only on spans that can be an event: the content of a task's own spans is read
//! through their trace.

use serde_json::{Map, Value};

use crate::fields::{
    metrics, remove_integer, remove_map, remove_nonempty_text, scalar_text, start_nanoseconds,
    tags, text_list,
};
use llmobs_core::model::{
    Assessment, EvalStatus, Experiment, ExperimentMetric, ExperimentSpan, MetricType, SpanError,
    SpanId, SpanKind, Status, TraceId,
};

/// Reads a span; `None` if the row is not one.
pub(super) fn span(row: Value) -> Option<ExperimentSpan> {
    let Value::Object(mut top) = row else {
        return None;
    };
    let mut meta = remove_map(&mut top, "meta");
    let span_id = remove_nonempty_text(&mut top, "span_id")
        .or_else(|| remove_nonempty_text(&mut top, "id"))?;
    let kind = kind(&mut top, &mut meta);
    let error = error(&mut meta).or_else(|| error(&mut top));
    let status = match remove_nonempty_text(&mut top, "status") {
        Some(text) if text.eq_ignore_ascii_case("error") => Status::Error,
        Some(_) => Status::Ok,
        None if error.is_some() => Status::Error,
        None => Status::Ok,
    };
    let parent = remove_nonempty_text(&mut top, "parent_id");
    let may_be_event = kind.is_none() || kind == Some(SpanKind::Experiment);
    let mut content = |key: &str| {
        let found = meta.remove(key).or_else(|| top.remove(key));
        found
            .filter(|value| may_be_event && !value.is_null())
            .map(unwrap_text)
    };
    let (input, output) = (content("input"), content("output"));
    let expected_output = content("expected_output");
    let eval_metrics = match top.remove("eval_metrics") {
        Some(Value::Array(rows)) => rows.into_iter().filter_map(metric).collect(),
        _ => Vec::new(),
    };
    Some(ExperimentSpan {
        trace_id: TraceId::from(remove_nonempty_text(&mut top, "trace_id").unwrap_or_default()),
        span_id: SpanId::from(span_id),
        parent_id: SpanId::parse_parent(parent.as_deref()),
        name: remove_nonempty_text(&mut top, "name").unwrap_or_default(),
        start_ns: start_nanoseconds(remove_integer(&mut top, "start_ns").unwrap_or_default()),
        duration_ns: remove_integer(&mut top, "duration").unwrap_or_default(),
        // The tags of a task's own spans only repeat those of their root span.
        tags: if may_be_event {
            tags(top.remove("tags"))
        } else {
            Vec::new()
        },
        dataset_record_id: remove_nonempty_text(&mut top, "dataset_record_id"),
        metadata: if may_be_event {
            remove_map(&mut meta, "metadata")
        } else {
            Map::new()
        },
        usage: metrics(remove_map(&mut top, "metrics")),
        kind,
        status,
        input,
        output,
        expected_output,
        error,
        metrics: eval_metrics,
    })
}

/// Unwraps text from `{"value": "…"}`.
fn unwrap_text(value: Value) -> Value {
    match value {
        Value::Object(mut map)
            if map.len() == 1 && map.get("value").is_some_and(Value::is_string) =>
        {
            map.remove("value").unwrap_or_default()
        }
        other => other,
    }
}

fn kind(top: &mut Map<String, Value>, meta: &mut Map<String, Value>) -> Option<SpanKind> {
    let nested = remove_map(meta, "span");
    let text = nested
        .get("kind")
        .and_then(scalar_text)
        .or_else(|| remove_nonempty_text(meta, "span.kind"))
        .or_else(|| remove_nonempty_text(meta, "kind"))
        .or_else(|| remove_nonempty_text(top, "span_kind"))
        .or_else(|| remove_nonempty_text(top, "kind"))?;
    Some(SpanKind::from(text.to_lowercase()))
}

/// `error: {type, message, stack}`, which is empty without an error, or flat keys.
fn error(fields: &mut Map<String, Value>) -> Option<SpanError> {
    let mut nested = remove_map(fields, "error");
    let mut member = |name: &str| {
        remove_nonempty_text(&mut nested, name)
            .or_else(|| remove_nonempty_text(fields, &format!("error.{name}")))
            .unwrap_or_default()
    };
    let error = SpanError {
        error_type: member("type"),
        message: member("message"),
        stack: member("stack"),
    };
    (!error.is_empty()).then_some(error)
}

/// Reads a metric; `None` if the row is not one.
pub(super) fn metric(row: Value) -> Option<ExperimentMetric> {
    let Value::Object(mut row) = row else {
        return None;
    };
    let label = remove_nonempty_text(&mut row, "label")?;
    let declared_type = remove_nonempty_text(&mut row, "metric_type")
        .and_then(|text| MetricType::from_wire(&text.to_lowercase()));
    // Without a type, it is inferred from the key of the value.
    let metric_type = declared_type.or_else(|| {
        MetricType::ALL.into_iter().find(|candidate| {
            let key = format!("{}_value", candidate.as_str());
            row.get(&key).is_some_and(|value| !value.is_null())
        })
    });
    let metric_type = metric_type.unwrap_or_default();
    let value = row
        .remove(&format!("{}_value", metric_type.as_str()))
        .or_else(|| row.remove("value"));
    let error = row.remove("error").filter(|error| match error {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
    let value = value.and_then(|value| value_of_type(metric_type, value));
    let status = remove_nonempty_text(&mut row, "status")
        .and_then(|text| EvalStatus::from_wire(&text.to_uppercase()))
        // Summary metrics have no status.
        .unwrap_or(if error.is_some() && value.is_none() {
            EvalStatus::Error
        } else {
            EvalStatus::Ok
        });
    Some(ExperimentMetric {
        label,
        metric_type,
        value,
        status,
        assessment: remove_nonempty_text(&mut row, "assessment")
            .and_then(|text| Assessment::from_wire(&text.to_lowercase())),
        reasoning: remove_nonempty_text(&mut row, "reasoning"),
        error,
        tags: text_list(row.remove("tags")),
        metadata: remove_map(&mut row, "metadata"),
        timestamp_ms: remove_integer(&mut row, "timestamp_ms").unwrap_or_default(),
    })
}

/// The value, if it has this type. Numbers that are not finite are dropped.
fn value_of_type(metric_type: MetricType, value: Value) -> Option<Value> {
    match (metric_type, value) {
        (_, Value::Null) => None,
        (MetricType::Score, Value::Number(number)) => number
            .as_f64()
            .filter(|n| n.is_finite())
            .map(|_| Value::Number(number)),
        (MetricType::Score, Value::String(text)) => {
            let number: f64 = text.trim().parse().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        }
        (MetricType::Score, _) => None,
        (MetricType::Boolean, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        (MetricType::Boolean, value) => Some(value).filter(Value::is_boolean),
        (MetricType::Categorical | MetricType::Text, value) => {
            scalar_text(&value).map(Value::String)
        }
        (MetricType::Json, value) => Some(value),
    }
}

/// Reads the attributes of an experiment.
pub(super) fn experiment(id: String, mut row: Map<String, Value>) -> Experiment {
    Experiment {
        id,
        name: remove_nonempty_text(&mut row, "name").unwrap_or_default(),
        experiment: remove_nonempty_text(&mut row, "experiment"),
        project_id: remove_nonempty_text(&mut row, "project_id"),
        dataset_id: remove_nonempty_text(&mut row, "dataset_id"),
        dataset_version: remove_integer(&mut row, "dataset_version"),
        description: remove_nonempty_text(&mut row, "description"),
        config: remove_map(&mut row, "config"),
        metadata: remove_map(&mut row, "metadata"),
        run_count: remove_integer(&mut row, "run_count"),
        status: remove_nonempty_text(&mut row, "status").map(|text| text.to_lowercase()),
        error: remove_nonempty_text(&mut row, "error"),
        parent_experiment_id: remove_nonempty_text(&mut row, "parent_experiment_id"),
        created_at: remove_nonempty_text(&mut row, "created_at"),
        updated_at: remove_nonempty_text(&mut row, "updated_at"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::{EventsPage, parse_page};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn page(spans: &Value, summary: &Value) -> EventsPage {
        let body = json!({"data": {"id": "e", "type": "experiment_events",
            "attributes": {"spans": spans, "summary_metrics": summary}}});
        parse_page(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn reads_all_dialects_of_span_alike() {
        let error = json!({"message": "m", "type": "T", "stack": "s"});
        let spans = page(
            &json!([
                {"id": "1", "span_id": "1", "trace_id": "t", "status": "error", "start_ns": 1_795_223_904_145_i64,
                 "duration": 5, "dataset_record_id": "r", "tags": [],
                 "meta": {"input": {"q": 1}, "output": "a", "error": error}},
                {"span_id": "1", "trace_id": "t", "parent_id": "undefined", "status": "error",
                 "start_ns": 1_795_223_904_145_000_000_i64, "duration": 5, "dataset_record_id": "r", "tags": [],
                 "meta": {"span": {"kind": "experiment"}, "input": {"q": 1}, "output": {"value": "a"}, "error": error}},
                {"span_id": 1, "trace_id": "t", "start_ns": 1_795_223_904_145_000_000_i64, "duration": 5,
                 "dataset_record_id": "r", "meta": {"span.kind": "experiment", "input": {"q": 1}, "output": "a",
                 "error.message": "m", "error.type": "T", "error.stack": "s"}},
            ]),
            &Value::Null,
        )
        .spans;
        assert_eq!(spans.len(), 3);
        for span in &spans {
            let same = ExperimentSpan {
                kind: None,
                ..span.clone()
            };
            assert_eq!(
                same,
                ExperimentSpan {
                    kind: None,
                    ..spans[0].clone()
                }
            );
            assert_eq!(span.status, Status::Error);
            assert_eq!(span.input, Some(json!({"q": 1})));
        }
    }

    #[test]
    fn drops_values_of_wrong_type_and_infinite_numbers() {
        let metrics = page(
            &Value::Null,
            &json!([
                {"label": "a", "metric_type": "score", "score_value": "NaN"},
                {"label": "b", "metric_type": "score", "score_value": "0.5"},
                {"label": "c", "metric_type": "boolean", "boolean_value": "True"},
                {"label": "d", "metric_type": "boolean", "boolean_value": 1},
                {"label": "e", "categorical_value": "x"},
                {"label": "f", "metric_type": "categorical", "categorical_value": null, "error": {"message": "m"}},
                {"label": "g", "metric_type": "score", "score_value": 1, "error": {}},
                {"no": "label"},
            ]),
        );
        assert_eq!(metrics.unreadable_rows, 1);
        let values: Vec<_> = metrics.summary.iter().map(|m| m.value.clone()).collect();
        assert_eq!(
            values,
            [
                None,
                Some(json!(0.5)),
                Some(json!(true)),
                None,
                Some(json!("x")),
                None,
                Some(json!(1))
            ]
        );
        assert_eq!(metrics.summary[5].status, EvalStatus::Error);
        assert_eq!(metrics.summary[6].error, None);
    }

    proptest! {
        #[test]
        fn never_panics_on_any_field_value(
            values in proptest::collection::vec(
                prop_oneof![
                    Just(Value::Null), Just(json!({})), Just(json!([])), Just(json!([1, "a", null])),
                    any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
                    any::<f64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from),
                    Just(json!({"kind": 1, "value": {}, "type": [], "label": "l"})),
                    Just(json!([{"label": "l", "score_value": []}, 7])),
                ],
                22,
            )
        ) {
            let keys = ["trace_id", "parent_id", "name", "span_kind", "status", "start_ns", "duration", "tags",
                "metrics", "meta", "eval_metrics", "dataset_record_id", "error", "kind", "input", "label",
                "metric_type", "score_value", "boolean_value", "timestamp_ms", "metadata", "assessment"];
            let mut row: Map<String, Value> = keys.into_iter().map(str::to_owned).zip(values).collect();
            row.insert("span_id".into(), json!("1"));
            row.insert("label".into(), json!("l"));
            let page = page(&json!([row]), &json!([row]));
            prop_assert_eq!(page.unreadable_rows, 0);
        }
    }
}
