//! Pairing of the records of two experiments.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::ExperimentEvent;

/// The runs of each record, by pairing key.
pub(super) type Records<'a> = BTreeMap<String, Vec<&'a ExperimentEvent>>;

/// A record of both experiments: its pairing key, its runs in the baseline, its runs in the
/// candidate.
pub(super) type RecordPair<'a> = (String, Vec<&'a ExperimentEvent>, Vec<&'a ExperimentEvent>);

/// The records of two experiments, and those that both have.
pub(super) struct Pairing<'a> {
    pub(super) baseline: Records<'a>,
    pub(super) candidate: Records<'a>,
    pub(super) paired: Vec<RecordPair<'a>>,
    /// Number of pairs with different record ids, which are versions of one record.
    pub(super) across_versions: usize,
    /// Number of events without a record, in the baseline and in the candidate.
    pub(super) without_record: (usize, usize),
}

/// Pairs records. Re-evaluations carry record ids only, so the canonical ids of one experiment are
/// used for the other too.
pub(super) fn pair_records<'a>(
    baseline: &'a [ExperimentEvent],
    candidate: &'a [ExperimentEvent],
) -> Pairing<'a> {
    let canonical: HashMap<&str, &str> = baseline
        .iter()
        .chain(candidate)
        .filter_map(|event| Some((event.record_id()?, event.canonical_id()?)))
        .collect();
    let (baseline, baseline_without_record) = group_by_record(baseline, &canonical);
    let (candidate, candidate_without_record) = group_by_record(candidate, &canonical);
    let mut paired: Vec<RecordPair<'a>> = Vec::new();
    for (key, runs) in &baseline {
        if let Some(candidate_runs) = candidate.get(key) {
            paired.push((key.clone(), runs.clone(), candidate_runs.clone()));
        }
    }
    let across_versions = paired
        .iter()
        .filter(|(_, baseline, candidate)| {
            let record_ids = |events: &[&'a ExperimentEvent]| -> HashSet<&'a str> {
                events
                    .iter()
                    .filter_map(|event| event.record_id())
                    .collect()
            };
            let (baseline, candidate) = (record_ids(baseline), record_ids(candidate));
            !baseline.is_empty() && !candidate.is_empty() && baseline.is_disjoint(&candidate)
        })
        .count();
    Pairing {
        baseline,
        candidate,
        paired,
        across_versions,
        without_record: (baseline_without_record, candidate_without_record),
    }
}

/// The events by pairing key, and the number of events without a record.
fn group_by_record<'a>(
    events: &'a [ExperimentEvent],
    canonical: &HashMap<&str, &str>,
) -> (Records<'a>, usize) {
    let mut records = Records::new();
    let mut without_record = 0;
    for event in events {
        let record = event.record_id();
        let shared = record.and_then(|id| canonical.get(id).copied());
        match event.canonical_id().or(shared).or(record) {
            Some(key) => records.entry(key.to_owned()).or_default().push(event),
            None => without_record += 1,
        }
    }
    (records, without_record)
}

/// The record id to show, which can differ from the pairing key.
pub(super) fn record_name(key: &str, events: &[&ExperimentEvent]) -> String {
    events
        .iter()
        .find_map(|event| event.record_id())
        .unwrap_or(key)
        .to_owned()
}
