//! Experiments and their events on the wire, read with patience.
//!
//! The documented answer, the SDK's spans as they came, and the copies that a re-run posts differ
//! in where they put kind, error and record id; all are read. Inputs and outputs are any JSON and
//! stay as they are, but only on spans that can be an event: what the task's own spans hold is read
//! through their trace.

use serde_json::{Map, Value};

use crate::spans::wire::{
    integer, nanoseconds, read_metrics, read_tags, scalar_text, take_map, text_list,
};
use llmobs_core::model::{
    Assessment, EvalStatus, Experiment, ExperimentMetric, ExperimentSpan, MetricType, SpanError,
    SpanId, SpanKind, Status, TraceId,
};

/// Reads a span; `None` if it is something else.
pub(super) fn span(row: Value) -> Option<ExperimentSpan> {
    let Value::Object(mut top) = row else {
        return None;
    };
    let mut meta = take_map(&mut top, "meta");
    let span_id = take_text(&mut top, "span_id").or_else(|| take_text(&mut top, "id"))?;
    let kind = kind(&mut top, &mut meta);
    let error = error(&mut meta).or_else(|| error(&mut top));
    let status = match take_text(&mut top, "status") {
        Some(text) if text.eq_ignore_ascii_case("error") => Status::Error,
        Some(_) => Status::Ok,
        None if error.is_some() => Status::Error,
        None => Status::Ok,
    };
    let parent = take_text(&mut top, "parent_id");
    let may_be_event = kind.is_none() || kind == Some(SpanKind::Experiment);
    let mut content = |key: &str| {
        let found = meta.remove(key).or_else(|| top.remove(key));
        found
            .filter(|value| may_be_event && !value.is_null())
            .map(unwrapped)
    };
    let (input, output) = (content("input"), content("output"));
    let expected_output = content("expected_output");
    let metrics = match top.remove("eval_metrics") {
        Some(Value::Array(rows)) => rows.into_iter().filter_map(metric).collect(),
        _ => Vec::new(),
    };
    Some(ExperimentSpan {
        trace_id: TraceId::from(take_text(&mut top, "trace_id").unwrap_or_default()),
        span_id: SpanId::from(span_id),
        parent_id: SpanId::parse_parent(parent.as_deref()),
        name: take_text(&mut top, "name").unwrap_or_default(),
        start_ns: nanoseconds(whole(&mut top, "start_ns").unwrap_or_default()),
        duration_ns: whole(&mut top, "duration").unwrap_or_default(),
        // The tags of a task's own spans repeat those of their root.
        tags: if may_be_event {
            read_tags(top.remove("tags"))
        } else {
            Vec::new()
        },
        dataset_record_id: take_text(&mut top, "dataset_record_id"),
        metadata: if may_be_event {
            take_map(&mut meta, "metadata")
        } else {
            Map::new()
        },
        usage: read_metrics(take_map(&mut top, "metrics")),
        kind,
        status,
        input,
        output,
        expected_output,
        error,
        metrics,
    })
}

/// Text is sometimes wrapped: `{"value": "…"}`.
fn unwrapped(value: Value) -> Value {
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
    let nested = take_map(meta, "span");
    let text = nested
        .get("kind")
        .and_then(scalar_text)
        .or_else(|| take_text(meta, "span.kind"))
        .or_else(|| take_text(meta, "kind"))
        .or_else(|| take_text(top, "span_kind"))
        .or_else(|| take_text(top, "kind"))?;
    Some(SpanKind::from(text.to_lowercase()))
}

/// `error: {type, message, stack}`, which is empty when all is well, or flat keys.
fn error(fields: &mut Map<String, Value>) -> Option<SpanError> {
    let mut nested = take_map(fields, "error");
    let mut part = |name: &str| {
        take_text(&mut nested, name)
            .or_else(|| take_text(fields, &format!("error.{name}")))
            .unwrap_or_default()
    };
    let error = SpanError {
        error_type: part("type"),
        message: part("message"),
        stack: part("stack"),
    };
    (!error.is_empty()).then_some(error)
}

/// Reads a metric; `None` if it is something else.
pub(super) fn metric(row: Value) -> Option<ExperimentMetric> {
    let Value::Object(mut row) = row else {
        return None;
    };
    let label = take_text(&mut row, "label")?;
    let named = take_text(&mut row, "metric_type")
        .and_then(|text| MetricType::from_wire(&text.to_lowercase()));
    // Without a type, the key of the value says it.
    let metric_type = named.or_else(|| {
        MetricType::ALL.into_iter().find(|one| {
            let key = format!("{}_value", one.as_str());
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
    let value = value.and_then(|value| valid(metric_type, value));
    let status = take_text(&mut row, "status")
        .and_then(|text| EvalStatus::from_wire(&text.to_uppercase()))
        // Summary metrics carry no status.
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
        assessment: take_text(&mut row, "assessment")
            .and_then(|text| Assessment::from_wire(&text.to_lowercase())),
        reasoning: take_text(&mut row, "reasoning"),
        error,
        tags: text_list(row.remove("tags")),
        metadata: take_map(&mut row, "metadata"),
        timestamp_ms: whole(&mut row, "timestamp_ms").unwrap_or_default(),
    })
}

/// The value, if it is of its type. A number that is not finite is no value.
fn valid(metric_type: MetricType, value: Value) -> Option<Value> {
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
        name: take_text(&mut row, "name").unwrap_or_default(),
        experiment: take_text(&mut row, "experiment"),
        project_id: take_text(&mut row, "project_id"),
        dataset_id: take_text(&mut row, "dataset_id"),
        dataset_version: whole(&mut row, "dataset_version"),
        description: take_text(&mut row, "description"),
        config: take_map(&mut row, "config"),
        metadata: take_map(&mut row, "metadata"),
        run_count: whole(&mut row, "run_count"),
        status: take_text(&mut row, "status").map(|text| text.to_lowercase()),
        error: take_text(&mut row, "error"),
        parent_experiment_id: take_text(&mut row, "parent_experiment_id"),
        created_at: take_text(&mut row, "created_at"),
        updated_at: take_text(&mut row, "updated_at"),
    }
}

/// A text that is not empty.
pub(crate) fn take_text(map: &mut Map<String, Value>, key: &str) -> Option<String> {
    map.remove(key)
        .as_ref()
        .and_then(scalar_text)
        .filter(|text| !text.is_empty())
}

pub(crate) fn whole(map: &mut Map<String, Value>, key: &str) -> Option<i64> {
    map.remove(key).as_ref().and_then(integer)
}

#[cfg(test)]
mod tests {
    use super::super::pages::{self, EventsPage};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn page(spans: &Value, summary: &Value) -> EventsPage {
        let body = json!({"data": {"id": "e", "type": "experiment_events",
            "attributes": {"spans": spans, "summary_metrics": summary}}});
        pages::read(body.to_string().as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_three_dialects_of_a_span_read_the_same() {
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
    fn values_that_are_not_of_their_type_or_not_finite_are_none() {
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
        fn any_values_in_any_field_are_read_without_a_panic(
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
            let read = page(&json!([row]), &json!([row]));
            prop_assert_eq!(read.unreadable_rows, 0);
        }
    }
}
