//! Aggregates complete spans.
//!
//! A week of a busy application is a million spans. The aggregator keeps only what the request
//! reads of each span, and stores repeated trace ids and values once.

use std::collections::{BTreeSet, HashMap};

use super::compiled::{
    CompiledRequest, GroupKey, Groups, Interner, LIMIT_NOTE, MAX_GROUPS, MAX_GROUPS_PER_UNIT,
    combinations,
};
use super::group_stats::{ExactSum, GroupStats, UnitStats, UsageSum};
use super::measure::EvaluationSource;
use super::rows::{
    EvaluationOutcome, IndexRow, ModelCallRow, RequiredColumns, RowAggregator, ScannedSpan, SpanRow,
};
use super::usage::{Contribution, ModelCall, contributions};
use super::{AggregateRequest, Aggregation, Unit};
use crate::query::{Field, ParseError};

/// An aggregation over complete spans, for every kind of request.
pub struct SpanAggregator {
    compiled: CompiledRequest,
    values: Interner,
    traces: Interner,
    /// Distinct sets of values in each dimension, with their index.
    value_sets: HashMap<Vec<Vec<u32>>, usize>,
    spans: Vec<SpanRecord>,
    calls: Vec<ModelCall>,
    limit_exceeded: bool,
}

/// What the aggregator keeps of a span.
#[derive(Debug)]
struct SpanRecord {
    trace: u32,
    /// Index of its set of values.
    value_set: usize,
    start_ns: i64,
    end_ns: i64,
    is_error: bool,
    is_root: bool,
    selected: bool,
    outcomes: Box<[EvaluationOutcome]>,
}

impl SpanAggregator {
    /// Starts an aggregation.
    ///
    /// # Errors
    ///
    /// If the name of a facet is invalid.
    pub fn new(request: &AggregateRequest) -> Result<Self, ParseError> {
        Ok(Self {
            compiled: CompiledRequest::new(request)?,
            values: Interner::default(),
            traces: Interner::default(),
            value_sets: HashMap::new(),
            spans: Vec::new(),
            calls: Vec::new(),
            limit_exceeded: false,
        })
    }

    /// Adds a span. With unit `span`, spans that are not selected are ignored.
    pub fn add(&mut self, scanned: ScannedSpan<'_>) {
        let span = scanned.span;
        if self.compiled.request.unit == Unit::Span && !scanned.selected {
            return;
        }
        let found = self
            .compiled
            .span_values(span, scanned.buckets, &mut self.values);
        self.limit_exceeded |= found.truncated;
        let outcomes = self.compiled.outcomes(span);
        let trace = self.traces.intern(span.trace_id.as_str());
        self.add_row(IndexRow {
            trace,
            is_root: span.is_root(),
            selected: scanned.selected,
            call: ModelCallRow::from_span(span),
            span: SpanRow {
                start_ns: span.start_ns,
                duration_ns: span.duration_ns,
                is_error: span.is_error(),
                values: &found.values,
                outcomes: &outcomes,
            },
        });
    }

    /// Computes the result, with the requested page of groups.
    pub fn finish(self, rows_read: u64, sampled: bool) -> Aggregation {
        let matched = self.spans.iter().filter(|span| span.selected).count() as u64;
        let mut groups = Groups::new();
        let mut prefix_counts: HashMap<GroupKey, u64> = HashMap::new();
        let mut total = GroupStats::default();
        let mut answer = Aggregation {
            rows_read,
            rows_matched: (!sampled).then_some(matched),
            sampled,
            has_values: vec![false; self.compiled.fields.len()],
            ..Aggregation::default()
        };
        let mut limit_exceeded = self.limit_exceeded;
        let with_durations = self.compiled.needs_durations;
        self.for_each_unit(|unit| {
            total.add(&unit.stats, with_durations);
            for (has, values) in answer.has_values.iter_mut().zip(&unit.values) {
                *has |= !values.is_empty();
            }
            if !self.compiled.has_groups() {
                return;
            }
            let time_ms = self.compiled.time_bucket(unit.start_ns);
            let combinations = combinations(&unit.values);
            answer.units_in_several_groups += u64::from(combinations.len() > 1);
            limit_exceeded |= combinations.len() >= MAX_GROUPS_PER_UNIT;
            let mut prefixes: BTreeSet<GroupKey> = BTreeSet::new();
            for values in combinations {
                let key = GroupKey { time_ms, values };
                if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
                    limit_exceeded = true;
                    continue;
                }
                let group = groups.entry(key.clone()).or_default();
                group.add(&unit.stats, with_durations);
                prefixes.insert(key.prefix());
            }
            for prefix in prefixes {
                *prefix_counts.entry(prefix).or_default() += 1;
            }
        });
        if limit_exceeded {
            answer.notes.push(LIMIT_NOTE.to_owned());
        }
        let request = &self.compiled.request;
        answer.total = total.measure(&request.measures, &self.compiled.labels);
        answer.total_groups = groups.len();
        answer.groups = self.compiled.page(&self.values, groups, &prefix_counts);
        answer
    }

    /// Calls `visit` for every unit that counts.
    fn for_each_unit(&self, mut visit: impl FnMut(CountedUnit)) {
        let mut usage: Vec<Vec<[Contribution; 4]>> = Vec::new();
        usage.resize_with(self.spans.len(), Vec::new);
        for (call, contribution) in self.calls.iter().zip(contributions(&self.calls)) {
            if let Some(of_span) = usage.get_mut(call.span_index) {
                of_span.push(contribution);
            }
        }
        let sets: HashMap<usize, &[Vec<u32>]> = self
            .value_sets
            .iter()
            .map(|(set, index)| (*index, set.as_slice()))
            .collect();
        let spans: Vec<UnitSpan<'_>> = self
            .spans
            .iter()
            .zip(&usage)
            .map(|(record, usage)| UnitSpan {
                record,
                usage,
                values: sets.get(&record.value_set).copied().unwrap_or_default(),
            })
            .collect();
        if self.compiled.request.unit == Unit::Span {
            spans
                .iter()
                .filter_map(|span| CountedUnit::from_spans(&[span]))
                .for_each(visit);
            return;
        }
        let mut traces: HashMap<u32, Vec<&UnitSpan<'_>>> = HashMap::new();
        for span in &spans {
            traces.entry(span.record.trace).or_default().push(span);
        }
        for spans in traces.values() {
            if let Some(unit) = CountedUnit::from_spans(spans) {
                visit(unit);
            }
        }
    }
}

impl RowAggregator for SpanAggregator {
    fn fields(&self) -> &[Option<Field>] {
        &self.compiled.fields
    }

    fn labels(&self) -> &[(EvaluationSource, String)] {
        &self.compiled.labels
    }

    fn required_columns(&self) -> RequiredColumns {
        let by_trace = self.compiled.request.unit == Unit::Trace;
        RequiredColumns {
            evaluations: self.compiled.needs_evaluations(),
            starts: true,
            relations: self.compiled.needs_calls || by_trace,
            unselected: by_trace,
        }
    }

    fn value_number(&mut self, text: &str) -> u32 {
        self.values.intern(text)
    }

    fn trace_number(&mut self, id: &str) -> u32 {
        self.traces.intern(id)
    }

    fn add_span(&mut self, scanned: ScannedSpan<'_>) {
        self.add(scanned);
    }

    fn add_row(&mut self, row: IndexRow<'_>) {
        if self.compiled.request.unit == Unit::Span && !row.selected {
            return;
        }
        if self.compiled.needs_calls
            && let Some(call) = row.call
        {
            self.calls
                .push(ModelCall::new(call, self.spans.len(), row.trace));
        }
        let next = self.value_sets.len();
        let value_set = match self.value_sets.get(row.span.values) {
            Some(index) => *index,
            None => *self
                .value_sets
                .entry(row.span.values.to_vec())
                .or_insert(next),
        };
        self.spans.push(SpanRecord {
            trace: row.trace,
            value_set,
            start_ns: row.span.start_ns,
            end_ns: row
                .span
                .start_ns
                .saturating_add(row.span.duration_ns.max(0)),
            is_error: row.span.is_error,
            is_root: row.is_root,
            selected: row.selected,
            outcomes: row.span.outcomes.into(),
        });
    }
}

/// A span of a unit.
struct UnitSpan<'a> {
    record: &'a SpanRecord,
    usage: &'a [[Contribution; 4]],
    values: &'a [Vec<u32>],
}

/// A span or a trace that counts.
struct CountedUnit {
    start_ns: i64,
    /// Its distinct values in each dimension.
    values: Vec<Vec<u32>>,
    stats: UnitStats,
}

impl CountedUnit {
    /// The unit of these spans, if one of them is selected.
    fn from_spans(spans: &[&UnitSpan<'_>]) -> Option<Self> {
        let records = || spans.iter().map(|span| span.record);
        if !records().any(|record| record.selected) {
            return None;
        }
        let start_ns = records().map(|record| record.start_ns).min()?;
        let end_ns = records().map(|record| record.end_ns).max()?;
        let has_error = records().any(|record| record.is_error);
        let has_root = records().any(|record| record.is_root);
        let root_failed = records().any(|record| record.is_root && record.is_error);
        let mut usage = [UsageSum::default(); 4];
        for contributions in spans.iter().flat_map(|span| span.usage) {
            for (sum, contribution) in usage.iter_mut().zip(contributions) {
                sum.add(*contribution);
            }
        }
        let labels = spans.first().map_or(0, |span| span.record.outcomes.len());
        let outcomes = (0..labels)
            .map(|label| merge_outcomes(records().filter_map(|record| record.outcomes.get(label))));
        let stats = UnitStats {
            has_error,
            failed: if has_root { root_failed } else { has_error },
            duration_ns: end_ns.saturating_sub(start_ns),
            usage,
            outcomes: outcomes.collect(),
        };
        Some(Self {
            start_ns,
            values: merge_values(spans),
            stats,
        })
    }
}

/// The distinct values of several spans in each dimension.
fn merge_values(spans: &[&UnitSpan<'_>]) -> Vec<Vec<u32>> {
    let dimensions = spans.first().map_or(0, |span| span.values.len());
    let merged = (0..dimensions).map(|dimension| {
        let sets = spans.iter().filter_map(|span| span.values.get(dimension));
        let mut values: Vec<u32> = sets.flatten().copied().collect();
        values.sort_unstable();
        values.dedup();
        values
    });
    merged.collect()
}

/// The outcome of several spans together: the mean score, and whether none of them failed.
fn merge_outcomes<'a>(
    outcomes: impl Iterator<Item = &'a EvaluationOutcome> + Clone,
) -> EvaluationOutcome {
    let mut sum = ExactSum::default();
    let mut count = 0_u32;
    for score in outcomes.clone().filter_map(|outcome| outcome.score) {
        sum.add(score);
        count += 1;
    }
    EvaluationOutcome {
        score: (count > 0).then(|| sum.value() / f64::from(count)),
        passed: outcomes
            .filter_map(|outcome| outcome.passed)
            .reduce(|a, b| a && b),
    }
}
