//! Segments: groups of paired records with the same value of a dimension.

use std::collections::BTreeMap;

use super::pairs::Pairing;
use crate::analysis::experiment::dimension::dimension_values;

/// Maximum number of values of a dimension that is not selected by the caller. A dimension with
/// more values does not group records.
const MAX_VALUES: usize = 20;

/// A group of paired records.
#[derive(Debug)]
pub(super) struct RecordSegment {
    pub(super) dimension: String,
    pub(super) value: String,
    /// Indexes of its records in the pairing, ascending.
    pub(super) records: Vec<usize>,
}

/// The segments of the selected dimension, or of every dimension that groups the records.
pub(super) fn find_segments(pairing: &Pairing<'_>, selected: Option<&str>) -> Vec<RecordSegment> {
    let mut dimensions: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
    let events = pairing
        .paired
        .iter()
        .enumerate()
        .flat_map(|(index, (_, baseline, candidate))| {
            baseline
                .iter()
                .chain(candidate)
                .map(move |event| (index, *event))
        });
    if let Some(key) = selected {
        let values = dimensions.entry(key).or_default();
        for (index, event) in events {
            for value in dimension_values(event, key) {
                push_distinct(values.entry(value).or_default(), index);
            }
        }
    } else {
        for (index, event) in events {
            let tags = event.span.tags.iter().filter_map(|tag| tag.split_once(':'));
            for (key, value) in tags.filter(|(_, value)| !value.is_empty()) {
                let values = dimensions.entry(key).or_default();
                // One value above the maximum is enough to exclude the dimension.
                if values.len() <= MAX_VALUES {
                    push_distinct(values.entry(value).or_default(), index);
                }
            }
        }
    }
    dimensions
        .into_iter()
        .filter(|(_, values)| {
            // A segment must divide the records. A value that all records share does not; a value
            // that differs between runs or experiments is not a property of the record.
            let members: usize = values.values().map(Vec::len).sum();
            let overlapping = members > pairing.paired.len();
            selected.is_some() || (2..=MAX_VALUES).contains(&values.len()) && !overlapping
        })
        .flat_map(|(key, values)| {
            values
                .into_iter()
                .map(move |(value, records)| RecordSegment {
                    dimension: key.to_owned(),
                    value: value.to_owned(),
                    records,
                })
        })
        .collect()
}

/// Appends an index unless it is the last one. Indexes arrive in ascending order.
fn push_distinct(records: &mut Vec<usize>, index: usize) {
    if records.last() != Some(&index) {
        records.push(index);
    }
}
