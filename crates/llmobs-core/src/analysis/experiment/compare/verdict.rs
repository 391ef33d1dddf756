//! One metric on both sides: values, tests, flips, groups.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pairs::Pairing;
use super::{
    BetterDirection, CompareOptions, DirectionSource, FlipDirection, Group, MetricComparison,
    MetricMeasure, MetricVerdict, RecordChange, RecordFlip, SegmentComparison, record_name,
};
use crate::analysis::experiment::inference::{
    BootstrapResult, holm_correction, mcnemar_exact, paired_bootstrap,
};
use crate::analysis::experiment::numbers::{finite, mean, whole};
use crate::analysis::experiment::stats::LabelInfo;
use crate::model::{Assessment, ExperimentEvent, ExperimentMetric, MetricType};

/// The test of records that changed sides.
const EXACT: &str = "mcnemar_exact";
/// Beyond chance: the corrected p-value is below this.
const SIGNIFICANT: f64 = 0.05;
/// Below so many records a bootstrap's interval means nothing.
const FEW_NUMBERS: usize = 10;
/// Below so many records no split of flips has a p-value under 0.05.
const FEW_FLIPS: usize = 6;
/// Groups below this are anecdotes.
const SMALLEST_GROUP: usize = 3;
/// Groups shown when none was named.
const WORST_GROUPS: usize = 5;
/// Records shown that lost most.
const LARGEST_DROPS: usize = 5;

/// A record with a value on both sides.
struct Row {
    /// Its place in the pairing.
    at: usize,
    baseline: f64,
    candidate: f64,
    /// What most of its runs say of pass and fail; `None` where they are split or say nothing.
    verdicts: Option<(bool, bool)>,
    tied: bool,
    /// Whether as many runs say pass or fail on both sides.
    evenly_run: bool,
}

/// Compares one metric.
pub(super) fn metric(
    pairing: &Pairing<'_>,
    info: &LabelInfo,
    segments: &[Group],
    options: CompareOptions<'_>,
) -> (MetricComparison, Vec<RecordFlip>) {
    let reader = Reader::new(pairing, info, options);
    let rows: Vec<Row> = (0..pairing.paired.len())
        .filter_map(|at| reader.row(at))
        .collect();
    let side = |pick: fn(&Row) -> f64| mean(&rows.iter().map(pick).collect::<Vec<_>>());
    let (baseline, candidate) = (side(|row| row.baseline), side(|row| row.candidate));
    let differences: Vec<f64> = rows
        .iter()
        .map(|row| row.candidate - row.baseline)
        .collect();
    let flips = flips(pairing, info, &rows);
    let lost = count(&flips, FlipDirection::PassToFail);
    let won = flips.len() - lost;

    // Most of two runs are seldom for pass, one run is often: where a side was run more often, a
    // record flips more easily one way, and only the shares themselves can be compared.
    let evenly_run = rows.iter().all(|row| row.evenly_run);
    let (test, p_value, interval) = match reader.measure {
        MetricMeasure::Unordered => (None, None, None),
        MetricMeasure::TrueRate | MetricMeasure::PassRate if evenly_run => {
            let p = (!rows.is_empty()).then(|| mcnemar_exact(lost, won));
            (Some(EXACT), p, self::interval(&differences))
        }
        MetricMeasure::Mean | MetricMeasure::TrueRate | MetricMeasure::PassRate => {
            let found = bootstrap(&differences);
            let interval = found.map(|found| (found.low, found.high));
            (
                Some("paired_bootstrap"),
                found.map(|found| found.p_value),
                interval,
            )
        }
    };
    let comparison = MetricComparison {
        label: info.label.clone(),
        metric_type: info.metric_type,
        measure: reader.measure,
        direction: reader.direction,
        direction_source: reader.source,
        records: rows.len(),
        records_without_value: pairing.paired.len() - rows.len(),
        baseline,
        candidate,
        difference: baseline
            .zip(candidate)
            .and_then(|(base, cand)| finite(cand - base)),
        interval,
        p_value,
        adjusted_p_value: None,
        test: test.filter(|_| p_value.is_some()),
        verdict: None,
        pass_to_fail: lost,
        fail_to_pass: won,
        tied: rows.iter().filter(|row| row.tied).count(),
        segments: groups(
            &rows,
            segments,
            reader.direction,
            options.segment_by.is_some(),
        ),
        largest_drops: drops(pairing, &rows, &reader),
        words: reader.words(),
    };
    (comparison, flips)
}

/// Corrects the p-values of all metrics and gives the verdicts.
pub(super) fn correct(metrics: &mut [MetricComparison]) {
    let asked: Vec<f64> = metrics.iter().filter_map(|metric| metric.p_value).collect();
    let mut corrected = holm_correction(&asked).into_iter();
    for metric in metrics {
        if metric.p_value.is_some() {
            metric.adjusted_p_value = corrected.next();
        }
        metric.verdict = verdict(metric);
    }
}

fn verdict(metric: &MetricComparison) -> Option<MetricVerdict> {
    if metric.measure == MetricMeasure::Unordered {
        return None;
    }
    let (few, towards_better) = if metric.test == Some(EXACT) {
        (FEW_FLIPS, metric.fail_to_pass > metric.pass_to_fail)
    } else {
        let difference = metric.difference.unwrap_or_default();
        let better = match metric.direction {
            BetterDirection::Higher => difference > 0.0,
            BetterDirection::Lower => difference < 0.0,
        };
        (FEW_NUMBERS, better)
    };
    Some(match metric.adjusted_p_value {
        _ if metric.records < few => MetricVerdict::TooFewRecords,
        Some(p) if p < SIGNIFICANT && towards_better => MetricVerdict::Improved,
        Some(p) if p < SIGNIFICANT => MetricVerdict::Regressed,
        _ => MetricVerdict::NoClearChange,
    })
}

/// The 95 % bootstrap interval of the mean of differences.
pub(super) fn interval(differences: &[f64]) -> Option<(f64, f64)> {
    bootstrap(differences).map(|found| (found.low, found.high))
}

/// The bootstrap, where there are enough records for it to mean something.
fn bootstrap(differences: &[f64]) -> Option<BootstrapResult> {
    let enough = differences.len() >= FEW_NUMBERS;
    enough.then(|| paired_bootstrap(differences, resamples(differences.len())))?
}

/// How often to resample: 10,000 times, or less for many records, where an interval is steadier.
fn resamples(records: usize) -> usize {
    whole(1e7 / records.max(1) as f64).clamp(2_000, 10_000)
}

/// A metric of the paired records, and how it is read.
struct Reader<'a> {
    info: &'a LabelInfo,
    measure: MetricMeasure,
    direction: BetterDirection,
    source: DirectionSource,
    /// The metric on those runs that count, record by record: of the baseline, of the candidate.
    metrics: Vec<[Vec<&'a ExperimentMetric>; 2]>,
}

impl<'a> Reader<'a> {
    fn new(pairing: &Pairing<'a>, info: &'a LabelInfo, options: CompareOptions<'_>) -> Self {
        let mut place = 0;
        let mut counting = |events: &[&'a ExperimentEvent]| -> Vec<&'a ExperimentMetric> {
            events
                .iter()
                .filter(|event| options.include_failed || !event.is_error())
                .filter_map(|event| event.metric_near(&info.label, &mut place))
                .filter(|metric| metric.metric_type == info.metric_type)
                .filter(|metric| metric.valid_value().is_some())
                .collect()
        };
        let metrics = pairing.paired.iter();
        let mut reader = Self {
            info,
            measure: MetricMeasure::Unordered,
            direction: BetterDirection::Higher,
            source: DirectionSource::Assumed,
            metrics: metrics
                .map(|(_, base, cand)| [counting(base), counting(cand)])
                .collect(),
        };
        // Sums and counts of what was judged as passed, and as failed.
        let (mut passed, mut failed) = ((0.0, 0_usize), (0.0, 0_usize));
        for metric in reader.metrics.iter().flatten().flatten() {
            let place = match metric.assessment {
                Some(Assessment::Pass) => &mut passed,
                Some(Assessment::Fail) => &mut failed,
                None => continue,
            };
            place.0 += metric.value.as_ref().and_then(number).unwrap_or_default();
            place.1 += 1;
        }
        let judged = passed.1 + failed.1 > 0;
        reader.measure = match info.metric_type {
            MetricType::Score => MetricMeasure::Mean,
            MetricType::Boolean => MetricMeasure::TrueRate,
            _ if judged => MetricMeasure::PassRate,
            _ => MetricMeasure::Unordered,
        };
        if options.lower_is_better.contains(&info.label) {
            reader.source = DirectionSource::Argument;
            reader.direction = BetterDirection::Lower;
        } else if reader.measure == MetricMeasure::PassRate {
            reader.source = DirectionSource::Assessments;
        } else if passed.1 > 0 && failed.1 > 0 {
            let (good, bad) = (passed.0 / passed.1 as f64, failed.0 / failed.1 as f64);
            // Equal means say nothing.
            if good < bad {
                reader.direction = BetterDirection::Lower;
            }
            if good != bad {
                reader.source = DirectionSource::Assessments;
            }
        }
        reader
    }

    fn row(&self, at: usize) -> Option<Row> {
        let [base, cand] = self.metrics.get(at)?;
        let (baseline, candidate) = (self.value(base)?, self.value(cand)?);
        let (before, after) = (self.passes(base), self.passes(cand));
        Some(Row {
            at,
            baseline,
            candidate,
            verdicts: before.majority().zip(after.majority()),
            tied: before.tied() || after.tied(),
            evenly_run: before.total() == after.total(),
        })
    }

    /// The runs of a record as one number.
    fn value(&self, metrics: &[&ExperimentMetric]) -> Option<f64> {
        let read = |metric: &&ExperimentMetric| match self.measure {
            MetricMeasure::Unordered => None,
            MetricMeasure::PassRate => {
                let assessment = metric.assessment?;
                Some(f64::from(u8::from(assessment == Assessment::Pass)))
            }
            MetricMeasure::Mean | MetricMeasure::TrueRate => number(metric.value.as_ref()?),
        };
        let values: Vec<f64> = metrics.iter().filter_map(read).collect();
        mean(&values)
    }

    fn passes(&self, metrics: &[&ExperimentMetric]) -> Votes {
        let mut votes = Votes::default();
        for good in metrics.iter().filter_map(|metric| self.is_good(metric)) {
            votes.0 += usize::from(good);
            votes.1 += usize::from(!good);
        }
        votes
    }

    /// Whether one value is good: by its truth for booleans, else by its assessment.
    fn is_good(&self, metric: &ExperimentMetric) -> Option<bool> {
        match self.measure {
            MetricMeasure::TrueRate => {
                let better = self.direction == BetterDirection::Higher;
                metric
                    .value
                    .as_ref()?
                    .as_bool()
                    .map(|value| value == better)
            }
            _ => metric.assessment.map(|found| found == Assessment::Pass),
        }
    }

    /// How often each word occurs among paired records, the most frequent first.
    fn words(&self) -> Vec<(String, usize, usize)> {
        if !matches!(
            self.info.metric_type,
            MetricType::Categorical | MetricType::Text
        ) {
            return Vec::new();
        }
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for [base, cand] in &self.metrics {
            for word in base.iter().filter_map(|metric| word(metric)) {
                counts.entry(word).or_default().0 += 1;
            }
            for word in cand.iter().filter_map(|metric| word(metric)) {
                counts.entry(word).or_default().1 += 1;
            }
        }
        let mut words: Vec<_> = counts
            .into_iter()
            .map(|(word, (base, cand))| (word.to_owned(), base, cand))
            .collect();
        words.sort_by_key(|(_, base, cand)| std::cmp::Reverse(base + cand));
        words
    }
}

fn word(metric: &ExperimentMetric) -> Option<&str> {
    metric.value.as_ref()?.as_str()
}

/// Runs for pass, runs for fail.
#[derive(Default)]
struct Votes(usize, usize);

impl Votes {
    fn majority(&self) -> Option<bool> {
        (self.0 != self.1).then_some(self.0 > self.1)
    }

    fn tied(&self) -> bool {
        self.0 == self.1 && self.0 > 0
    }

    fn total(&self) -> usize {
        self.0 + self.1
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64().filter(|number| number.is_finite()),
    }
}

fn count(flips: &[RecordFlip], outcome: FlipDirection) -> usize {
    flips.iter().filter(|flip| flip.outcome == outcome).count()
}

fn flips(pairing: &Pairing<'_>, info: &LabelInfo, rows: &[Row]) -> Vec<RecordFlip> {
    rows.iter()
        .filter_map(|row| {
            let outcome = match row.verdicts? {
                (true, false) => FlipDirection::PassToFail,
                (false, true) => FlipDirection::FailToPass,
                _ => return None,
            };
            Some(RecordFlip {
                label: info.label.clone(),
                outcome,
                change: change(pairing, row)?,
            })
        })
        .collect()
}

fn change(pairing: &Pairing<'_>, row: &Row) -> Option<RecordChange> {
    let (key, base, cand) = pairing.paired.get(row.at)?;
    // The run that worked is the one to read.
    let event = |events: &[&ExperimentEvent]| {
        let good = events.iter().find(|event| !event.is_error());
        good.or(events.first())
            .map(|event| event.span.span_id.clone())
    };
    Some(RecordChange {
        record_id: record_name(key, base),
        baseline: row.baseline,
        candidate: row.candidate,
        baseline_event: event(base)?,
        candidate_event: event(cand)?,
    })
}

/// How much better a record or a group became; negative is worse.
fn gain(direction: BetterDirection, baseline: f64, candidate: f64) -> f64 {
    match direction {
        BetterDirection::Higher => candidate - baseline,
        BetterDirection::Lower => baseline - candidate,
    }
}

fn drops(pairing: &Pairing<'_>, rows: &[Row], reader: &Reader<'_>) -> Vec<RecordChange> {
    if reader.measure != MetricMeasure::Mean {
        return Vec::new();
    }
    let mut lost: Vec<(f64, &Row)> = rows
        .iter()
        .map(|row| (gain(reader.direction, row.baseline, row.candidate), row))
        .filter(|(gain, _)| *gain < 0.0)
        .collect();
    lost.sort_by(|a, b| a.0.total_cmp(&b.0));
    lost.into_iter()
        .take(LARGEST_DROPS)
        .filter_map(|(_, row)| change(pairing, row))
        .collect()
}

/// The rows of those records. Both are in the order of their places.
fn members<'r>(rows: &'r [Row], records: &[usize]) -> Vec<&'r Row> {
    let mut rows = rows.iter().peekable();
    let of = |at: &usize| {
        while rows.next_if(|row| row.at < *at).is_some() {}
        rows.next_if(|row| row.at == *at)
    };
    records.iter().filter_map(of).collect()
}

/// Groups of records, the worst first: all of a named dimension, else the few worst of any.
fn groups(
    rows: &[Row],
    groups: &[Group],
    direction: BetterDirection,
    named: bool,
) -> Vec<SegmentComparison> {
    let mut found: Vec<(f64, SegmentComparison)> = Vec::new();
    for group in groups {
        let members = members(rows, &group.records);
        let side = |pick: fn(&&Row) -> f64| mean(&members.iter().map(pick).collect::<Vec<_>>());
        let (Some(baseline), Some(candidate)) =
            (side(|row| row.baseline), side(|row| row.candidate))
        else {
            continue;
        };
        let gain = gain(direction, baseline, candidate);
        if named || gain < 0.0 && members.len() >= SMALLEST_GROUP {
            found.push((
                gain,
                SegmentComparison {
                    dimension: group.dimension.clone(),
                    value: group.value.clone(),
                    records: members.len(),
                    baseline,
                    candidate,
                },
            ));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    if !named {
        found.truncate(WORST_GROUPS);
    }
    found.into_iter().map(|(_, segment)| segment).collect()
}
