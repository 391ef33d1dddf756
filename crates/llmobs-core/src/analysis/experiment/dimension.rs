//! Dimensions by which events can be grouped.
//!
//! A dimension is a `key:value` tag of the root span, to which the SDK copies the record's tags,
//! or `error_type` or `dataset_record_id`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ExperimentEvent;

/// The error type of a failed task without an error type.
const UNKNOWN_ERROR: &str = "unknown";

/// A dimension of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentDimension {
    /// Its key.
    pub key: String,
    /// Number of distinct values.
    pub unique: usize,
    /// Number of events with a value.
    pub events: usize,
}

/// The values of a dimension on an event: none, one, or several for a repeated tag.
pub fn dimension_values<'a>(event: &'a ExperimentEvent, key: &str) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for tag in &event.span.tags {
        if let Some((name, value)) = tag.split_once(':')
            && name == key
            && !value.is_empty()
            && !values.contains(&value)
        {
            values.push(value);
        }
    }
    if values.is_empty() {
        match key {
            "error_type" if event.is_error() => {
                let error = event.span.error.as_ref();
                let error_type = error.map(|error| error.error_type.as_str());
                let error_type = error_type.filter(|error_type| !error_type.is_empty());
                values.push(error_type.unwrap_or(UNKNOWN_ERROR));
            }
            "dataset_record_id" => values.extend(event.span.dataset_record_id.as_deref()),
            _ => {}
        }
    }
    values
}

/// All dimensions of the events. Dimensions that group events come first, then those that
/// identify events, then those with the same value on every event.
pub fn dimensions(events: &[ExperimentEvent]) -> Vec<ExperimentDimension> {
    let mut by_key: BTreeMap<&str, (BTreeSet<&str>, usize)> = BTreeMap::new();
    for event in events {
        let mut keys: Vec<&str> = event
            .span
            .tags
            .iter()
            .filter_map(|tag| tag.split_once(':'))
            .map(|(key, _)| key)
            .chain(["error_type", "dataset_record_id"])
            .collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let values = dimension_values(event, key);
            if !values.is_empty() {
                let (unique, count) = by_key.entry(key).or_default();
                unique.extend(values);
                *count += 1;
            }
        }
    }
    let mut dimensions: Vec<ExperimentDimension> = by_key
        .into_iter()
        .map(|(key, (unique, count))| ExperimentDimension {
            key: key.to_owned(),
            unique: unique.len(),
            events: count,
        })
        .collect();
    let rank = |dimension: &ExperimentDimension| {
        let constant = dimension.unique == 1 && dimension.events == events.len();
        // The SDK's tag `error:0` is less useful than `error_type`.
        let identifying = dimension.key == "error"
            || dimension.key.ends_with("_id")
            || dimension.unique > dimension.events / 2 && dimension.unique > 8;
        (constant, identifying)
    };
    dimensions.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key)));
    dimensions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ExperimentSpan, SpanError, Status};

    fn event(tags: &[&str], status: Status) -> ExperimentEvent {
        ExperimentEvent {
            span: ExperimentSpan {
                tags: tags.iter().map(ToString::to_string).collect(),
                status,
                ..ExperimentSpan::default()
            },
            ..ExperimentEvent::default()
        }
    }

    #[test]
    fn grouping_dimensions_come_first() {
        let events = [
            event(
                &["env:dev", "run_id:a", "region:eu", "version:"],
                Status::Ok,
            ),
            event(
                &["env:dev", "run_id:b", "region:asia", "url:a:b"],
                Status::Error,
            ),
        ];
        let keys: Vec<_> = dimensions(&events).into_iter().map(|d| d.key).collect();
        assert_eq!(keys, ["error_type", "region", "url", "run_id", "env"]);
        assert_eq!(dimension_values(&events[1], "url"), ["a:b"]);
        assert_eq!(dimension_values(&events[0], "version"), [""; 0]);
    }

    #[test]
    fn failed_task_always_has_an_error_type() {
        let mut failed = event(&[], Status::Error);
        assert_eq!(dimension_values(&failed, "error_type"), ["unknown"]);
        failed.span.error = Some(SpanError {
            error_type: "ValueError".into(),
            ..SpanError::default()
        });
        assert_eq!(dimension_values(&failed, "error_type"), ["ValueError"]);
        let tagged = event(&["error_type:T", "error_type:T"], Status::Ok);
        assert_eq!(dimension_values(&tagged, "error_type"), ["T"]);
    }
}
