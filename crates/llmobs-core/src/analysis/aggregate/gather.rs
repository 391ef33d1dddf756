//! Gathers single spans into groups as they come, row by row of an index.
//!
//! A [`super::SpanAggregator`] takes whole spans and can answer everything. Most questions need less: spans
//! are counted, not traces, and no tokens, which would have to be told apart by call. Then a span
//! is a start, a length, whether it failed, the numbers of its values and its outcomes; an index
//! has those in columns, and nothing has to be kept of the span. The answer is the same.

use std::collections::{BTreeSet, HashMap};

pub use super::group::EvaluationOutcome;
use super::group::GroupStats;
use super::measure::EvaluationSource;
use super::tally::ScannedSpan;
use super::tally::{
    CLIPPED, CompiledRequest, Groups, Interner, MAX_GROUPS, MAX_GROUPS_OF_UNIT, NONE, combinations,
};
use super::usage::ModelCallRow;
use super::{AggregateRequest, Aggregation, Unit};
use crate::query::{Field, ParseError};

/// A span as a row of an index.
#[derive(Debug, Clone, Copy)]
pub struct SpanRow<'a> {
    /// Start in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Length in nanoseconds.
    pub duration_ns: i64,
    /// Whether its status is error.
    pub is_error: bool,
    /// Its values in each dimension, by [`RowAggregator::number`]; for buckets their place in the
    /// question. Each once.
    pub values: &'a [Vec<u32>],
    /// What it was judged, in the order of [`RowAggregator::labels`].
    pub outcomes: &'a [EvaluationOutcome],
}

/// A span as a row of an index, with what tells it apart from others of its trace.
#[derive(Debug, Clone, Copy)]
pub struct IndexRow<'a> {
    /// Its trace, by [`RowAggregator::trace_number`].
    pub trace: u32,
    /// Whether no other span encloses it.
    pub is_root: bool,
    /// Whether it answers the question's query and tags.
    pub selected: bool,
    /// The model call that it is, if it is one and calls are asked for.
    pub call: Option<ModelCallRow<'a>>,
    /// The rest.
    pub span: SpanRow<'a>,
}

/// What an aggregation reads of each row, beside the values of its fields and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequiredColumns {
    /// Whether spans must carry their evaluations and feedback.
    pub evaluations: bool,
    /// Whether start times count. If not, [`SpanRow::start_ns`] may hold any start in the window.
    pub starts: bool,
    /// Whether trace, root flag and model call of an [`IndexRow`] are read.
    pub relations: bool,
    /// Whether spans that do not match the request's query are read, too.
    pub unselected: bool,
}

/// An aggregation that reads the rows of an index.
pub trait RowAggregator {
    /// The fields to group by; `None` marks the request's buckets.
    fn fields(&self) -> &[Option<Field>];

    /// The labels whose outcomes are read.
    fn labels(&self) -> &[(EvaluationSource, String)];

    /// What is read of each row.
    fn required_columns(&self) -> RequiredColumns;

    /// The number of a facet value; equal texts have equal numbers.
    fn value_number(&mut self, text: &str) -> u32;

    /// The number of a trace id; equal ids have equal numbers.
    fn trace_number(&mut self, id: &str) -> u32;

    /// Splits off `count` partial aggregations, to be fed on other threads. Their rows count as
    /// rows of this aggregation. Empty if this aggregation must read all rows itself.
    fn partitions(&mut self, _count: usize) -> Vec<&mut (dyn RowAggregator + Send)> {
        Vec::new()
    }

    /// Adds a row of the index.
    fn add_row(&mut self, row: IndexRow<'_>);

    /// Adds a span that the index does not hold.
    fn add_span(&mut self, scanned: ScannedSpan<'_>);
}

/// An aggregation of single spans on the way.
#[derive(Debug)]
pub struct ColumnAggregator {
    asked: CompiledRequest,
    values: Interner,
    groups: Vec<((i64, Vec<u32>), GroupStats)>,
    /// Where a group stands, by its key.
    places: HashMap<(i64, Vec<u32>), usize>,
    /// Where a group stands that is known by one value alone: the value, [`NONE`] being 0.
    by_value: Vec<usize>,
    /// All spans, while they are not the sum of the groups.
    total: Option<GroupStats>,
    /// How often spans were counted twice among groups that differ in the last value only.
    doubled: HashMap<(i64, Vec<u32>), u64>,
    count: u64,
    in_several: u64,
    has_values: Vec<bool>,
    clipped: bool,
    /// Whether a group was left out because there were too many.
    overflowed: bool,
    /// What is counted on other threads.
    shares: Vec<ColumnAggregator>,
    /// Whether there may be such.
    shared: bool,
}

/// No place yet.
const NOWHERE: usize = usize::MAX;

impl ColumnAggregator {
    /// Starts an aggregation; `None` if the question needs whole spans.
    ///
    /// # Errors
    ///
    /// A facet whose name cannot be read.
    pub fn new(question: &AggregateRequest) -> Result<Option<Self>, ParseError> {
        let asked = CompiledRequest::new(question)?;
        if asked.question.unit != Unit::Span || asked.needs_calls {
            return Ok(None);
        }
        Ok(Some(Self::of(asked)))
    }

    fn of(asked: CompiledRequest) -> Self {
        Self {
            has_values: vec![false; asked.fields.len()],
            // Without groups nothing else adds up to the whole.
            total: (!asked.has_groups()).then(GroupStats::default),
            asked,
            values: Interner::default(),
            groups: Vec::new(),
            places: HashMap::new(),
            by_value: Vec::new(),
            doubled: HashMap::new(),
            count: 0,
            in_several: 0,
            clipped: false,
            overflowed: false,
            shares: Vec::new(),
            shared: true,
        }
    }

    /// The same question, asked anew of one thread.
    pub fn single_threaded(&self) -> Self {
        Self {
            shared: false,
            ..Self::of(self.asked.clone())
        }
    }

    /// Whether there were more groups than are kept, in such a way that what the shares counted does
    /// not add up; then the question has to be asked of one thread, [`Self::alone`].
    pub fn overflowed_in_partitions(&self) -> bool {
        let parts = || std::iter::once(self).chain(&self.shares);
        let groups: usize = parts().map(|part| part.groups.len()).sum();
        self.shares.iter().any(|share| share.overflowed)
            || groups > MAX_GROUPS && parts().any(|part| !part.doubled.is_empty())
    }

    fn add(&mut self, row: SpanRow<'_>) {
        self.count += 1;
        let needs_durations = self.asked.needs_durations;
        let duration = needs_durations.then(|| row.duration_ns.max(0));
        let put =
            |gathered: &mut GroupStats| gathered.add_span(row.is_error, duration, row.outcomes);
        for (has, values) in self.has_values.iter_mut().zip(row.values) {
            *has |= !values.is_empty();
        }
        if !self.asked.has_groups() {
            self.total.iter_mut().for_each(put);
            return;
        }
        let time = self.asked.time_bucket(row.start_ns);
        if row.values.iter().all(|values| values.len() <= 1) {
            let place = self.place_of(time, row.values);
            match self.groups.get_mut(place) {
                Some((_, gathered)) => put(gathered),
                None => self.count_apart(),
            }
            self.total.iter_mut().for_each(put);
            return;
        }
        self.count_apart();
        self.total.iter_mut().for_each(put);
        let keys = combinations(row.values);
        self.in_several += u64::from(keys.len() > 1);
        self.clipped |= keys.len() >= MAX_GROUPS_OF_UNIT;
        let mut parts = BTreeSet::new();
        for mut key in keys {
            let place = self.place_by_key((time, key.clone()));
            if let Some((_, gathered)) = self.groups.get_mut(place) {
                put(gathered);
                key.pop();
                if !parts.insert(key.clone()) {
                    *self.doubled.entry((time, key)).or_default() += 1;
                }
            }
        }
    }

    /// From here on the whole is not the sum of the groups.
    fn count_apart(&mut self) {
        if self.total.is_none() {
            self.total = Some(self.sum());
        }
    }

    fn sum(&self) -> GroupStats {
        let mut sum = GroupStats::default();
        for (_, group) in &self.groups {
            sum.add_all(group);
        }
        sum
    }

    /// The place of the group of a span with at most one value in each dimension.
    fn place_of(&mut self, time: i64, values: &[Vec<u32>]) -> usize {
        let number = |values: &Vec<u32>| values.first().copied().unwrap_or(NONE);
        let ([only], None) = (values, self.asked.question.interval_ms) else {
            return self.place_by_key((time, values.iter().map(number).collect()));
        };
        let value = number(only);
        let slot = usize::try_from(value.wrapping_add(1)).unwrap_or(NOWHERE);
        match self.by_value.get(slot) {
            Some(place) if *place != NOWHERE => *place,
            _ => {
                let place = self.place_by_key((time, vec![value]));
                if place != NOWHERE {
                    if self.by_value.len() <= slot {
                        self.by_value.resize(slot + 1, NOWHERE);
                    }
                    if let Some(known) = self.by_value.get_mut(slot) {
                        *known = place;
                    }
                }
                place
            }
        }
    }

    /// The place of a group, made if it is new; [`NOWHERE`] when there are too many.
    fn place_by_key(&mut self, key: (i64, Vec<u32>)) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.groups.len() >= MAX_GROUPS {
            self.clipped = true;
            self.overflowed = true;
            return NOWHERE;
        }
        let place = self.groups.len();
        self.places.insert(key.clone(), place);
        self.groups.push((key, GroupStats::default()));
        place
    }

    /// Takes over all that another one counted.
    fn take_over(&mut self, mut share: Self) {
        self.count += share.count;
        self.in_several += share.in_several;
        self.clipped |= share.clipped;
        for (has, theirs) in self.has_values.iter_mut().zip(&share.has_values) {
            *has |= theirs;
        }
        let counted_apart = share.total.is_some();
        if let Some(theirs) = share.total.take() {
            self.count_apart();
            if let Some(total) = &mut self.total {
                total.take_over(theirs);
            }
        }
        let texts = share.values.texts();
        let renumber = |values: &mut Interner, fields: &[Option<Field>], key: &mut [u32]| {
            for (number, field) in key.iter_mut().zip(fields) {
                // Buckets have the same numbers everywhere.
                if let (Some(_), Some(text)) = (field, texts.get(number)) {
                    *number = values.number(text);
                }
            }
        };
        for ((time, mut key), gathered) in share.groups {
            renumber(&mut self.values, &self.asked.fields, &mut key);
            let place = self.place_by_key((time, key));
            if self.groups.get(place).is_none() {
                self.count_apart();
            }
            if let (Some(total), false) = (&mut self.total, counted_apart) {
                total.add_all(&gathered);
            }
            if let Some((_, group)) = self.groups.get_mut(place) {
                group.take_over(gathered);
            }
        }
        for ((time, mut key), twice) in share.doubled {
            renumber(&mut self.values, &self.asked.fields, &mut key);
            *self.doubled.entry((time, key)).or_default() += twice;
        }
    }

    /// The answer to the question, its page cut out.
    pub fn finish(mut self) -> Aggregation {
        for share in std::mem::take(&mut self.shares) {
            self.take_over(share);
        }
        let (measures, labels) = (&self.asked.question.measures, &self.asked.labels);
        let total = match &self.total {
            Some(total) => total.figures(measures, labels),
            None => {
                let mut sums = GroupStats::default();
                let groups = self.groups.iter().map(|(_, group)| group);
                groups.clone().for_each(|group| sums.add_sums(group));
                let durations: Vec<&[i64]> = groups.map(GroupStats::durations_ns).collect();
                sums.figures_with(&durations, measures, labels)
            }
        };
        let mut wholes: HashMap<(i64, Vec<u32>), u64> = HashMap::new();
        for ((time, key), group) in &self.groups {
            let mut part = key.clone();
            part.pop();
            *wholes.entry((*time, part)).or_default() += group.count;
        }
        for (part, twice) in &self.doubled {
            if let Some(whole) = wholes.get_mut(part) {
                *whole = whole.saturating_sub(*twice);
            }
        }
        let groups: Groups = self.groups.into_iter().collect();
        Aggregation {
            total,
            total_groups: groups.len(),
            rows_read: self.count,
            rows_matched: Some(self.count),
            sampled: false,
            in_several: self.in_several,
            has_values: self.has_values,
            notes: self
                .clipped
                .then(|| CLIPPED.to_owned())
                .into_iter()
                .collect(),
            groups: self.asked.page(&self.values, groups, &wholes),
        }
    }
}

impl RowAggregator for ColumnAggregator {
    fn fields(&self) -> &[Option<Field>] {
        &self.asked.fields
    }

    fn labels(&self) -> &[(EvaluationSource, String)] {
        &self.asked.labels
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns {
            evaluations: self.asked.needs_evaluations(),
            starts: self.asked.question.interval_ms.is_some(),
            relations: false,
            unselected: false,
        }
    }

    fn value_number(&mut self, text: &str) -> u32 {
        self.values.number(text)
    }

    fn trace_number(&mut self, _: &str) -> u32 {
        NONE
    }

    fn partitions(&mut self, count: usize) -> Vec<&mut (dyn RowAggregator + Send)> {
        if !self.shared {
            return Vec::new();
        }
        let before = self.shares.len();
        let share = || Self::of(self.asked.clone());
        self.shares
            .extend(std::iter::repeat_with(share).take(count));
        let added = self.shares.iter_mut().skip(before);
        added
            .map(|share| share as &mut (dyn RowAggregator + Send))
            .collect()
    }

    fn add_row(&mut self, row: IndexRow<'_>) {
        if row.selected {
            self.add(row.span);
        }
    }

    fn add_span(&mut self, seen: ScannedSpan<'_>) {
        if !seen.selected {
            return;
        }
        let (values, clipped) = self.asked.values(seen.span, seen.buckets, &mut self.values);
        self.clipped |= clipped;
        let outcomes = self.asked.outcomes(seen.span);
        self.add(SpanRow {
            start_ns: seen.span.start_ns,
            duration_ns: seen.span.duration_ns,
            is_error: seen.span.is_error(),
            values: &values,
            outcomes: &outcomes,
        });
    }
}
