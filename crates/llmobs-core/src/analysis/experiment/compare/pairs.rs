//! Which records of two experiments are the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::ExperimentEvent;

/// The runs of each record, by the key that pairs it.
pub(super) type Records<'a> = BTreeMap<String, Vec<&'a ExperimentEvent>>;

/// One record of both: its key, its runs in the baseline, its runs in the candidate.
pub(super) type Pair<'a> = (String, Vec<&'a ExperimentEvent>, Vec<&'a ExperimentEvent>);

/// Records, and those of them that both have.
pub(super) struct Pairing<'a> {
    pub(super) baseline: Records<'a>,
    pub(super) candidate: Records<'a>,
    pub(super) paired: Vec<Pair<'a>>,
    pub(super) across_versions: usize,
    pub(super) without_record: (usize, usize),
}

/// Pairs records. Re-runs of evaluators carry record ids alone, so what one side knows of
/// canonical ids serves the other too.
pub(super) fn pair<'a>(
    baseline: &'a [ExperimentEvent],
    candidate: &'a [ExperimentEvent],
) -> Pairing<'a> {
    let canonical: HashMap<&str, &str> = baseline
        .iter()
        .chain(candidate)
        .filter_map(|event| Some((event.record_id()?, event.canonical_id()?)))
        .collect();
    let (baseline, without_one) = records(baseline, &canonical);
    let (candidate, without_other) = records(candidate, &canonical);
    let mut paired: Vec<Pair<'a>> = Vec::new();
    for (key, base) in &baseline {
        if let Some(cand) = candidate.get(key) {
            paired.push((key.clone(), base.clone(), cand.clone()));
        }
    }
    let across_versions = paired
        .iter()
        .filter(|(_, base, cand)| {
            let ids = |events: &[&'a ExperimentEvent]| -> HashSet<&'a str> {
                events
                    .iter()
                    .filter_map(|event| event.record_id())
                    .collect()
            };
            let (one, other) = (ids(base), ids(cand));
            !one.is_empty() && !other.is_empty() && one.is_disjoint(&other)
        })
        .count();
    Pairing {
        baseline,
        candidate,
        paired,
        across_versions,
        without_record: (without_one, without_other),
    }
}

fn records<'a>(
    events: &'a [ExperimentEvent],
    canonical: &HashMap<&str, &str>,
) -> (Records<'a>, usize) {
    let mut found = Records::new();
    let mut without = 0;
    for event in events {
        let record = event.record_id();
        let known = record.and_then(|id| canonical.get(id).copied());
        match event.canonical_id().or(known).or(record) {
            Some(key) => found.entry(key.to_owned()).or_default().push(event),
            None => without += 1,
        }
    }
    (found, without)
}
