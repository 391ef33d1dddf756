//! Dimensions: what events can be told apart by.
//!
//! They are the `key:value` tags of the root span (the SDK copies the record's tags there), plus
//! `error_type` and `dataset_record_id`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ExperimentEvent;

/// The type of a task failure that says nothing of itself.
const UNKNOWN_ERROR: &str = "unknown";

/// One dimension of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentDimension {
    /// Its key.
    pub key: String,
    /// How many different values there are.
    pub unique: usize,
    /// How many events have a value.
    pub events: usize,
}

/// The values of a dimension on an event: none, one, or several when a tag is repeated.
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
                let known = event.span.error.as_ref();
                let known = known.map(|error| error.error_type.as_str());
                values.push(known.filter(|t| !t.is_empty()).unwrap_or(UNKNOWN_ERROR));
            }
            "dataset_record_id" => values.extend(event.span.dataset_record_id.as_deref()),
            _ => {}
        }
    }
    values
}

/// All dimensions of these events, those first that divide them into groups: then those that
/// differ on each event, then those that say the same on all.
pub fn dimensions(events: &[ExperimentEvent]) -> Vec<ExperimentDimension> {
    let mut seen: BTreeMap<&str, (BTreeSet<&str>, usize)> = BTreeMap::new();
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
                let (unique, count) = seen.entry(key).or_default();
                unique.extend(values);
                *count += 1;
            }
        }
    }
    let mut found: Vec<ExperimentDimension> = seen
        .into_iter()
        .map(|(key, (unique, count))| ExperimentDimension {
            key: key.to_owned(),
            unique: unique.len(),
            events: count,
        })
        .collect();
    let rank = |one: &ExperimentDimension| {
        let constant = one.unique == 1 && one.events == events.len();
        // The SDK's flag `error:0` says less than `error_type`.
        let identifying = one.key == "error"
            || one.key.ends_with("_id")
            || one.unique > one.events / 2 && one.unique > 8;
        (constant, identifying)
    };
    found.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key)));
    found
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
    fn the_dimensions_that_divide_come_first() {
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
    fn a_failed_task_always_has_an_error_type() {
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
