//! Comparison of one metric: values, statistical tests, flips and segments.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pairs::{Pairing, record_name};
use super::segments::RecordSegment;
use super::types::{
    BetterDirection, CompareOptions, DirectionSource, FlipDirection, MetricComparison,
    MetricMeasure, MetricVerdict, RecordChange, RecordFlip, SegmentComparison,
};
use crate::analysis::experiment::inference::{
    BootstrapResult, holm_correction, mcnemar_exact, paired_bootstrap,
};
use crate::analysis::experiment::numbers::{finite, mean, truncate_to_usize};
use crate::analysis::experiment::stats::LabelInfo;
use crate::model::{Assessment, ExperimentEvent, ExperimentMetric, MetricType};

/// Name of the test of flips.
const MCNEMAR: &str = "mcnemar_exact";
/// A difference is significant if its corrected p-value is below this.
const SIGNIFICANCE_LEVEL: f64 = 0.05;
/// Minimum number of records for a bootstrap. With fewer, its interval has no meaning.
const MIN_RECORDS_FOR_BOOTSTRAP: usize = 10;
/// Minimum number of records for McNemar's test. With fewer, every p-value is above 0.05.
const MIN_RECORDS_FOR_MCNEMAR: usize = 6;
/// Minimum number of records in a segment, unless the caller selects the dimension.
const MIN_SEGMENT_RECORDS: usize = 3;
/// Maximum number of segments, unless the caller selects the dimension.
const MAX_SEGMENTS: usize = 5;
/// Maximum number of records in `largest_drops`.
const MAX_DROPS: usize = 5;

/// A record with a value in both experiments.
struct RecordValues {
    /// Index of the record in the pairing.
    index: usize,
    baseline: f64,
    candidate: f64,
    /// Whether most runs passed, in the baseline and in the candidate; `None` where the runs are
    /// split evenly or have no outcome.
    passed: Option<(bool, bool)>,
    tied: bool,
    /// Whether the experiments have the same number of runs with an outcome.
    evenly_run: bool,
}

/// Compares one metric. Returns the comparison and the records that flipped.
pub(super) fn compare_metric(
    pairing: &Pairing<'_>,
    info: &LabelInfo,
    segments: &[RecordSegment],
    options: CompareOptions<'_>,
) -> (MetricComparison, Vec<RecordFlip>) {
    let reader = MetricReader::new(pairing, info, options);
    let records: Vec<RecordValues> = (0..pairing.paired.len())
        .filter_map(|index| reader.record_values(index))
        .collect();
    let mean_of =
        |pick: fn(&RecordValues) -> f64| mean(&records.iter().map(pick).collect::<Vec<_>>());
    let baseline = mean_of(|record| record.baseline);
    let candidate = mean_of(|record| record.candidate);
    let flips = find_flips(pairing, info, &records);
    let is_loss = |flip: &&RecordFlip| flip.outcome == FlipDirection::PassToFail;
    let pass_to_fail = flips.iter().filter(is_loss).count();
    let fail_to_pass = flips.len() - pass_to_fail;
    let test = test_difference(reader.measure, &records, pass_to_fail, fail_to_pass);
    let comparison = MetricComparison {
        label: info.label.clone(),
        metric_type: info.metric_type,
        measure: reader.measure,
        direction: reader.direction,
        direction_source: reader.source,
        records: records.len(),
        records_without_value: pairing.paired.len() - records.len(),
        baseline,
        candidate,
        difference: baseline
            .zip(candidate)
            .and_then(|(baseline, candidate)| finite(candidate - baseline)),
        interval: test.interval,
        p_value: test.p_value,
        adjusted_p_value: None,
        test: test.name.filter(|_| test.p_value.is_some()),
        verdict: None,
        pass_to_fail,
        fail_to_pass,
        tied: records.iter().filter(|record| record.tied).count(),
        segments: compare_segments(
            &records,
            segments,
            reader.direction,
            options.segment_by.is_some(),
        ),
        largest_drops: largest_drops(pairing, &records, &reader),
        words: reader.category_counts(),
    };
    (comparison, flips)
}

/// The result of a statistical test.
#[derive(Default)]
struct TestResult {
    name: Option<&'static str>,
    p_value: Option<f64>,
    interval: Option<(f64, f64)>,
}

fn test_difference(
    measure: MetricMeasure,
    records: &[RecordValues],
    pass_to_fail: usize,
    fail_to_pass: usize,
) -> TestResult {
    let differences: Vec<f64> = records
        .iter()
        .map(|record| record.candidate - record.baseline)
        .collect();
    // A majority of two runs is harder to reach than of one run. With different numbers of runs,
    // records flip more easily in one direction, so only the rates can be compared.
    let evenly_run = records.iter().all(|record| record.evenly_run);
    match measure {
        MetricMeasure::Unordered => TestResult::default(),
        MetricMeasure::TrueRate | MetricMeasure::PassRate if evenly_run => TestResult {
            name: Some(MCNEMAR),
            p_value: (!records.is_empty()).then(|| mcnemar_exact(pass_to_fail, fail_to_pass)),
            interval: bootstrap_interval(&differences),
        },
        MetricMeasure::Mean | MetricMeasure::TrueRate | MetricMeasure::PassRate => {
            let result = bootstrap(&differences);
            TestResult {
                name: Some("paired_bootstrap"),
                p_value: result.map(|result| result.p_value),
                interval: result.map(|result| (result.low, result.high)),
            }
        }
    }
}

/// Corrects the p-values of all metrics and sets the verdicts.
pub(super) fn correct_p_values(metrics: &mut [MetricComparison]) {
    let p_values: Vec<f64> = metrics.iter().filter_map(|metric| metric.p_value).collect();
    let mut corrected = holm_correction(&p_values).into_iter();
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
    let (min_records, improved) = if metric.test == Some(MCNEMAR) {
        let improved = metric.fail_to_pass > metric.pass_to_fail;
        (MIN_RECORDS_FOR_MCNEMAR, improved)
    } else {
        let difference = metric.difference.unwrap_or_default();
        let improved = match metric.direction {
            BetterDirection::Higher => difference > 0.0,
            BetterDirection::Lower => difference < 0.0,
        };
        (MIN_RECORDS_FOR_BOOTSTRAP, improved)
    };
    Some(match metric.adjusted_p_value {
        _ if metric.records < min_records => MetricVerdict::TooFewRecords,
        Some(p) if p < SIGNIFICANCE_LEVEL && improved => MetricVerdict::Improved,
        Some(p) if p < SIGNIFICANCE_LEVEL => MetricVerdict::Regressed,
        _ => MetricVerdict::NoClearChange,
    })
}

/// The 95 % bootstrap interval of the mean difference.
pub(super) fn bootstrap_interval(differences: &[f64]) -> Option<(f64, f64)> {
    bootstrap(differences).map(|result| (result.low, result.high))
}

/// The bootstrap, if there are enough records.
fn bootstrap(differences: &[f64]) -> Option<BootstrapResult> {
    let enough = differences.len() >= MIN_RECORDS_FOR_BOOTSTRAP;
    enough.then(|| paired_bootstrap(differences, resamples(differences.len())))?
}

/// Number of resamples: 10,000, or fewer for many records, where intervals vary less.
fn resamples(records: usize) -> usize {
    truncate_to_usize(1e7 / records.max(1) as f64).clamp(2_000, 10_000)
}

/// The values of a metric on the paired records.
struct MetricReader<'a> {
    info: &'a LabelInfo,
    measure: MetricMeasure,
    direction: BetterDirection,
    source: DirectionSource,
    /// The metric of each run that counts, by record: baseline, candidate.
    metrics: Vec<[Vec<&'a ExperimentMetric>; 2]>,
}

impl<'a> MetricReader<'a> {
    fn new(pairing: &Pairing<'a>, info: &'a LabelInfo, options: CompareOptions<'_>) -> Self {
        let mut guess = 0;
        let mut counting = |events: &[&'a ExperimentEvent]| -> Vec<&'a ExperimentMetric> {
            events
                .iter()
                .filter(|event| options.include_failed || !event.is_error())
                .filter_map(|event| event.metric_near(&info.label, &mut guess))
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
                .map(|(_, baseline, candidate)| [counting(baseline), counting(candidate)])
                .collect(),
        };
        // Sum and count of passed values, and of failed values.
        let (mut passed, mut failed) = ((0.0, 0_usize), (0.0, 0_usize));
        for metric in reader.metrics.iter().flatten().flatten() {
            let total = match metric.assessment {
                Some(Assessment::Pass) => &mut passed,
                Some(Assessment::Fail) => &mut failed,
                None => continue,
            };
            total.0 += metric.value.as_ref().and_then(number).unwrap_or_default();
            total.1 += 1;
        }
        let has_assessments = passed.1 + failed.1 > 0;
        reader.measure = match info.metric_type {
            MetricType::Score => MetricMeasure::Mean,
            MetricType::Boolean => MetricMeasure::TrueRate,
            _ if has_assessments => MetricMeasure::PassRate,
            _ => MetricMeasure::Unordered,
        };
        if options.lower_is_better.contains(&info.label) {
            reader.source = DirectionSource::Argument;
            reader.direction = BetterDirection::Lower;
        } else if reader.measure == MetricMeasure::PassRate {
            reader.source = DirectionSource::Assessments;
        } else if passed.1 > 0 && failed.1 > 0 {
            let passed_mean = passed.0 / passed.1 as f64;
            let failed_mean = failed.0 / failed.1 as f64;
            if passed_mean < failed_mean {
                reader.direction = BetterDirection::Lower;
            }
            // Equal means do not show a direction.
            if passed_mean != failed_mean {
                reader.source = DirectionSource::Assessments;
            }
        }
        reader
    }

    fn record_values(&self, index: usize) -> Option<RecordValues> {
        let [baseline, candidate] = self.metrics.get(index)?;
        let (before, after) = (self.outcomes(baseline), self.outcomes(candidate));
        Some(RecordValues {
            index,
            baseline: self.value(baseline)?,
            candidate: self.value(candidate)?,
            passed: before.majority().zip(after.majority()),
            tied: before.is_tied() || after.is_tied(),
            evenly_run: before.total() == after.total(),
        })
    }

    /// The mean value of a record's runs.
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

    fn outcomes(&self, metrics: &[&ExperimentMetric]) -> RunOutcomes {
        let mut outcomes = RunOutcomes::default();
        for passed in metrics.iter().filter_map(|metric| self.passed(metric)) {
            outcomes.passed += usize::from(passed);
            outcomes.failed += usize::from(!passed);
        }
        outcomes
    }

    /// Whether a run passed: by its value for booleans, otherwise by its assessment.
    fn passed(&self, metric: &ExperimentMetric) -> Option<bool> {
        match self.measure {
            MetricMeasure::TrueRate => {
                let better = self.direction == BetterDirection::Higher;
                metric
                    .value
                    .as_ref()?
                    .as_bool()
                    .map(|value| value == better)
            }
            _ => metric
                .assessment
                .map(|assessment| assessment == Assessment::Pass),
        }
    }

    /// Number of runs per category, the most frequent category first.
    fn category_counts(&self) -> Vec<(String, usize, usize)> {
        if !matches!(
            self.info.metric_type,
            MetricType::Categorical | MetricType::Text
        ) {
            return Vec::new();
        }
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for [baseline, candidate] in &self.metrics {
            for category in baseline.iter().filter_map(|metric| category(metric)) {
                counts.entry(category).or_default().0 += 1;
            }
            for category in candidate.iter().filter_map(|metric| category(metric)) {
                counts.entry(category).or_default().1 += 1;
            }
        }
        let mut categories: Vec<_> = counts
            .into_iter()
            .map(|(category, (baseline, candidate))| (category.to_owned(), baseline, candidate))
            .collect();
        categories.sort_by_key(|(_, baseline, candidate)| std::cmp::Reverse(baseline + candidate));
        categories
    }
}

fn category(metric: &ExperimentMetric) -> Option<&str> {
    metric.value.as_ref()?.as_str()
}

/// Number of passed and failed runs of a record in one experiment.
#[derive(Default)]
struct RunOutcomes {
    passed: usize,
    failed: usize,
}

impl RunOutcomes {
    /// Whether most runs passed; `None` without a majority.
    fn majority(&self) -> Option<bool> {
        (self.passed != self.failed).then_some(self.passed > self.failed)
    }

    fn is_tied(&self) -> bool {
        self.passed == self.failed && self.passed > 0
    }

    fn total(&self) -> usize {
        self.passed + self.failed
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64().filter(|number| number.is_finite()),
    }
}

fn find_flips(
    pairing: &Pairing<'_>,
    info: &LabelInfo,
    records: &[RecordValues],
) -> Vec<RecordFlip> {
    records
        .iter()
        .filter_map(|record| {
            let outcome = match record.passed? {
                (true, false) => FlipDirection::PassToFail,
                (false, true) => FlipDirection::FailToPass,
                _ => return None,
            };
            Some(RecordFlip {
                label: info.label.clone(),
                outcome,
                change: record_change(pairing, record)?,
            })
        })
        .collect()
}

fn record_change(pairing: &Pairing<'_>, record: &RecordValues) -> Option<RecordChange> {
    let (key, baseline, candidate) = pairing.paired.get(record.index)?;
    // Prefer an event whose task succeeded.
    let event = |events: &[&ExperimentEvent]| {
        let succeeded = events.iter().find(|event| !event.is_error());
        succeeded
            .or(events.first())
            .map(|event| event.span.span_id.clone())
    };
    Some(RecordChange {
        record_id: record_name(key, baseline),
        baseline: record.baseline,
        candidate: record.candidate,
        baseline_event: event(baseline)?,
        candidate_event: event(candidate)?,
    })
}

/// The improvement of a record or a segment; negative if worse.
fn gain(direction: BetterDirection, baseline: f64, candidate: f64) -> f64 {
    match direction {
        BetterDirection::Higher => candidate - baseline,
        BetterDirection::Lower => baseline - candidate,
    }
}

fn largest_drops(
    pairing: &Pairing<'_>,
    records: &[RecordValues],
    reader: &MetricReader<'_>,
) -> Vec<RecordChange> {
    if reader.measure != MetricMeasure::Mean {
        return Vec::new();
    }
    let mut drops: Vec<(f64, &RecordValues)> = records
        .iter()
        .map(|record| {
            let gain = gain(reader.direction, record.baseline, record.candidate);
            (gain, record)
        })
        .filter(|(gain, _)| *gain < 0.0)
        .collect();
    drops.sort_by(|a, b| a.0.total_cmp(&b.0));
    drops
        .into_iter()
        .take(MAX_DROPS)
        .filter_map(|(_, record)| record_change(pairing, record))
        .collect()
}

/// The records with the given indexes. Both lists are sorted by index.
fn select_records<'r>(records: &'r [RecordValues], indexes: &[usize]) -> Vec<&'r RecordValues> {
    let mut records = records.iter().peekable();
    let find = |index: &usize| {
        while records.next_if(|record| record.index < *index).is_some() {}
        records.next_if(|record| record.index == *index)
    };
    indexes.iter().filter_map(find).collect()
}

/// Compares segments, the worst first: all segments of a selected dimension, or the worst of all
/// dimensions.
fn compare_segments(
    records: &[RecordValues],
    segments: &[RecordSegment],
    direction: BetterDirection,
    selected: bool,
) -> Vec<SegmentComparison> {
    let mut compared: Vec<(f64, SegmentComparison)> = Vec::new();
    for segment in segments {
        let members = select_records(records, &segment.records);
        let mean_of =
            |pick: fn(&&RecordValues) -> f64| mean(&members.iter().map(pick).collect::<Vec<_>>());
        let (Some(baseline), Some(candidate)) = (
            mean_of(|record| record.baseline),
            mean_of(|record| record.candidate),
        ) else {
            continue;
        };
        let gain = gain(direction, baseline, candidate);
        if selected || gain < 0.0 && members.len() >= MIN_SEGMENT_RECORDS {
            compared.push((
                gain,
                SegmentComparison {
                    dimension: segment.dimension.clone(),
                    value: segment.value.clone(),
                    records: members.len(),
                    baseline,
                    candidate,
                },
            ));
        }
    }
    compared.sort_by(|a, b| a.0.total_cmp(&b.0));
    if !selected {
        compared.truncate(MAX_SEGMENTS);
    }
    compared.into_iter().map(|(_, segment)| segment).collect()
}
