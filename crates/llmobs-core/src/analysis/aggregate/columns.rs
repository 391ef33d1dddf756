//! Aggregates single spans row by row, from the columns of an index.
//!
//! A [`SpanAggregator`](super::SpanAggregator) reads complete spans and answers every request. Most
//! requests need less: they count spans rather than traces, and no tokens, which depend on how
//! calls nest. Then a span is a start, a duration, an error flag, the numbers of its values and its
//! evaluation outcomes. An index has those in columns, and nothing of the span is stored. The
//! result is the same.

use std::collections::{BTreeSet, HashMap};

use super::compiled::{
    ABSENT, CompiledRequest, GroupKey, Groups, Interner, LIMIT_NOTE, MAX_GROUPS,
    MAX_GROUPS_PER_UNIT, combinations,
};
use super::group_stats::GroupStats;
use super::measure::EvaluationSource;
use super::rows::{IndexRow, RequiredColumns, RowAggregator, ScannedSpan, SpanRow};
use super::{AggregateRequest, Aggregation, Unit};
use crate::query::{Field, ParseError};

/// An aggregation over single spans without their model calls.
#[derive(Debug)]
pub struct ColumnAggregator {
    compiled: CompiledRequest,
    values: Interner,
    groups: Vec<(GroupKey, GroupStats)>,
    /// Index in `groups` by key.
    group_by_key: HashMap<GroupKey, usize>,
    /// Index in `groups` by value number plus one, for requests with one dimension and no
    /// interval. The absent value is at 0.
    group_by_value: Vec<Option<usize>>,
    /// The stats of all spans, if they are not the sum of the groups.
    total: Option<GroupStats>,
    /// How often a span is counted more than once among groups with the same prefix.
    prefix_overcounts: HashMap<GroupKey, u64>,
    count: u64,
    spans_in_several_groups: u64,
    has_values: Vec<bool>,
    limit_exceeded: bool,
    /// Whether a group was left out because of [`MAX_GROUPS`].
    groups_omitted: bool,
    /// Partial aggregations for other threads.
    partitions: Vec<ColumnAggregator>,
    /// Whether [`RowAggregator::partitions`] may add some.
    multi_threaded: bool,
}

impl ColumnAggregator {
    /// Starts an aggregation; `None` if the request needs complete spans.
    ///
    /// # Errors
    ///
    /// If the name of a facet is invalid.
    pub fn new(request: &AggregateRequest) -> Result<Option<Self>, ParseError> {
        let compiled = CompiledRequest::new(request)?;
        if compiled.request.unit != Unit::Span || compiled.needs_calls {
            return Ok(None);
        }
        Ok(Some(Self::from_compiled(compiled)))
    }

    fn from_compiled(compiled: CompiledRequest) -> Self {
        Self {
            has_values: vec![false; compiled.fields.len()],
            // Without groups there is nothing to sum up.
            total: (!compiled.has_groups()).then(GroupStats::default),
            compiled,
            values: Interner::default(),
            groups: Vec::new(),
            group_by_key: HashMap::new(),
            group_by_value: Vec::new(),
            prefix_overcounts: HashMap::new(),
            count: 0,
            spans_in_several_groups: 0,
            limit_exceeded: false,
            groups_omitted: false,
            partitions: Vec::new(),
            multi_threaded: true,
        }
    }

    /// An empty aggregation for the same request that never adds partitions.
    pub fn single_threaded(&self) -> Self {
        Self {
            multi_threaded: false,
            ..Self::from_compiled(self.compiled.clone())
        }
    }

    /// Whether groups were omitted such that the partitions no longer add up. The caller must then
    /// repeat the aggregation with [`Self::single_threaded`].
    pub fn overflowed_in_partitions(&self) -> bool {
        let all = || std::iter::once(self).chain(&self.partitions);
        let groups: usize = all().map(|partition| partition.groups.len()).sum();
        self.partitions
            .iter()
            .any(|partition| partition.groups_omitted)
            || groups > MAX_GROUPS && all().any(|part| !part.prefix_overcounts.is_empty())
    }

    fn add(&mut self, row: SpanRow<'_>) {
        self.count += 1;
        let needs_durations = self.compiled.needs_durations;
        let duration = needs_durations.then(|| row.duration_ns.max(0));
        let add_to = |stats: &mut GroupStats| stats.add_span(row.is_error, duration, row.outcomes);
        for (has, values) in self.has_values.iter_mut().zip(row.values) {
            *has |= !values.is_empty();
        }
        if !self.compiled.has_groups() {
            self.total.iter_mut().for_each(add_to);
            return;
        }
        let time_ms = self.compiled.time_bucket(row.start_ns);
        if row.values.iter().all(|values| values.len() <= 1) {
            let index = self.single_group(time_ms, row.values);
            match self.stats_mut(index) {
                Some(stats) => add_to(stats),
                None => self.separate_total(),
            }
            self.total.iter_mut().for_each(add_to);
            return;
        }
        self.separate_total();
        self.total.iter_mut().for_each(add_to);
        let combinations = combinations(row.values);
        self.spans_in_several_groups += u64::from(combinations.len() > 1);
        self.limit_exceeded |= combinations.len() >= MAX_GROUPS_PER_UNIT;
        let mut prefixes = BTreeSet::new();
        for values in combinations {
            let key = GroupKey { time_ms, values };
            let index = self.group(key.clone());
            if let Some(stats) = self.stats_mut(index) {
                add_to(stats);
                let prefix = key.prefix();
                if !prefixes.insert(prefix.clone()) {
                    *self.prefix_overcounts.entry(prefix).or_default() += 1;
                }
            }
        }
    }

    /// Counts the total apart from here on, because the groups no longer sum up to it.
    fn separate_total(&mut self) {
        if self.total.is_none() {
            self.total = Some(self.sum_of_groups());
        }
    }

    fn sum_of_groups(&self) -> GroupStats {
        let mut sum = GroupStats::default();
        for (_, stats) in &self.groups {
            sum.merge(stats);
        }
        sum
    }

    fn stats_mut(&mut self, index: Option<usize>) -> Option<&mut GroupStats> {
        let (_, stats) = self.groups.get_mut(index?)?;
        Some(stats)
    }

    /// The group of a span with at most one value in each dimension.
    fn single_group(&mut self, time_ms: i64, values: &[Vec<u32>]) -> Option<usize> {
        let number = |values: &Vec<u32>| values.first().copied().unwrap_or(ABSENT);
        let ([only], None) = (values, self.compiled.request.interval_ms) else {
            return self.group(GroupKey {
                time_ms,
                values: values.iter().map(number).collect(),
            });
        };
        let value = number(only);
        let slot = usize::try_from(value.wrapping_add(1)).ok()?;
        if let Some(Some(index)) = self.group_by_value.get(slot) {
            return Some(*index);
        }
        let index = self.group(GroupKey {
            time_ms,
            values: vec![value],
        })?;
        if self.group_by_value.len() <= slot {
            self.group_by_value.resize(slot + 1, None);
        }
        if let Some(entry) = self.group_by_value.get_mut(slot) {
            *entry = Some(index);
        }
        Some(index)
    }

    /// The group of a key, added if it is new; `None` if there are too many groups.
    fn group(&mut self, key: GroupKey) -> Option<usize> {
        if let Some(index) = self.group_by_key.get(&key) {
            return Some(*index);
        }
        if self.groups.len() >= MAX_GROUPS {
            self.limit_exceeded = true;
            self.groups_omitted = true;
            return None;
        }
        let index = self.groups.len();
        self.group_by_key.insert(key.clone(), index);
        self.groups.push((key, GroupStats::default()));
        Some(index)
    }

    /// Adds everything that a partition counted.
    fn merge(&mut self, mut partition: Self) {
        self.count += partition.count;
        self.spans_in_several_groups += partition.spans_in_several_groups;
        self.limit_exceeded |= partition.limit_exceeded;
        for (has, other) in self.has_values.iter_mut().zip(&partition.has_values) {
            *has |= other;
        }
        let has_separate_total = partition.total.is_some();
        if let Some(other) = partition.total.take() {
            self.separate_total();
            if let Some(total) = &mut self.total {
                total.absorb(other);
            }
        }
        let texts = partition.values.texts();
        let renumber = |numbers: &mut Interner, fields: &[Option<Field>], key: &mut GroupKey| {
            for (number, field) in key.values.iter_mut().zip(fields) {
                // Buckets have the same numbers in all partitions.
                if let (Some(_), Some(text)) = (field, texts.get(number)) {
                    *number = numbers.intern(text);
                }
            }
        };
        for (mut key, stats) in partition.groups {
            renumber(&mut self.values, &self.compiled.fields, &mut key);
            let index = self.group(key);
            if index.is_none() {
                self.separate_total();
            }
            if let (Some(total), false) = (&mut self.total, has_separate_total) {
                total.merge(&stats);
            }
            if let Some(group) = self.stats_mut(index) {
                group.absorb(stats);
            }
        }
        for (mut prefix, overcount) in partition.prefix_overcounts {
            renumber(&mut self.values, &self.compiled.fields, &mut prefix);
            *self.prefix_overcounts.entry(prefix).or_default() += overcount;
        }
    }

    /// Computes the result, with the requested page of groups.
    pub fn finish(mut self) -> Aggregation {
        for partition in std::mem::take(&mut self.partitions) {
            self.merge(partition);
        }
        let (measures, labels) = (&self.compiled.request.measures, &self.compiled.labels);
        let total = match &self.total {
            Some(total) => total.measure(measures, labels),
            None => {
                let mut sums = GroupStats::default();
                let groups = self.groups.iter().map(|(_, stats)| stats);
                groups.clone().for_each(|stats| sums.merge_sums(stats));
                let durations: Vec<&[i64]> = groups.map(GroupStats::durations_ns).collect();
                sums.measure_with_durations(&durations, measures, labels)
            }
        };
        let mut prefix_counts: HashMap<GroupKey, u64> = HashMap::new();
        for (key, stats) in &self.groups {
            *prefix_counts.entry(key.clone().prefix()).or_default() += stats.count;
        }
        for (prefix, overcount) in &self.prefix_overcounts {
            if let Some(count) = prefix_counts.get_mut(prefix) {
                *count = count.saturating_sub(*overcount);
            }
        }
        let groups: Groups = self.groups.into_iter().collect();
        let note = self.limit_exceeded.then(|| LIMIT_NOTE.to_owned());
        Aggregation {
            total,
            total_groups: groups.len(),
            rows_read: self.count,
            rows_matched: Some(self.count),
            sampled: false,
            units_in_several_groups: self.spans_in_several_groups,
            has_values: self.has_values,
            notes: note.into_iter().collect(),
            groups: self.compiled.page(&self.values, groups, &prefix_counts),
        }
    }
}

impl RowAggregator for ColumnAggregator {
    fn fields(&self) -> &[Option<Field>] {
        &self.compiled.fields
    }

    fn labels(&self) -> &[(EvaluationSource, String)] {
        &self.compiled.labels
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns {
            evaluations: self.compiled.needs_evaluations(),
            starts: self.compiled.request.interval_ms.is_some(),
            relations: false,
            unselected: false,
        }
    }

    fn value_number(&mut self, text: &str) -> u32 {
        self.values.intern(text)
    }

    fn trace_number(&mut self, _: &str) -> u32 {
        ABSENT
    }

    fn partitions(&mut self, count: usize) -> Vec<&mut (dyn RowAggregator + Send)> {
        if !self.multi_threaded {
            return Vec::new();
        }
        let existing = self.partitions.len();
        let partition = || Self::from_compiled(self.compiled.clone());
        self.partitions
            .extend(std::iter::repeat_with(partition).take(count));
        let added = self.partitions.iter_mut().skip(existing);
        added
            .map(|partition| partition as &mut (dyn RowAggregator + Send))
            .collect()
    }

    fn add_row(&mut self, row: IndexRow<'_>) {
        if row.selected {
            self.add(row.span);
        }
    }

    fn add_span(&mut self, scanned: ScannedSpan<'_>) {
        if !scanned.selected {
            return;
        }
        let span = scanned.span;
        let found = self
            .compiled
            .span_values(span, scanned.buckets, &mut self.values);
        self.limit_exceeded |= found.truncated;
        let outcomes = self.compiled.outcomes(span);
        self.add(SpanRow {
            start_ns: span.start_ns,
            duration_ns: span.duration_ns,
            is_error: span.is_error(),
            values: &found.values,
            outcomes: &outcomes,
        });
    }
}
