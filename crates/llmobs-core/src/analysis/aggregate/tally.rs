//! Takes spans one by one and turns them into groups.
//!
//! A week of a busy application is a million spans: of each only the parts that the question
//! needs are kept, and what repeats (trace ids, values) is kept once.

use std::collections::{BTreeSet, HashMap};

use super::gather::{IndexRow, RequiredColumns, RowAggregator, SpanRow};
use super::group::{EvaluationOutcome, GroupStats, Sum, UnitFacts, UsageSum, ratio};
use super::measure::{EvaluationSource, Measure};
use super::usage::{Adds, Call, ModelCallRow, resolve};
use super::{AggregateRequest, Aggregation, Dimension, Group, Unit};
use crate::model::{Assessment, Evaluation, Span};
use crate::query::{Field, ParseError, SpanContext, facet_values};

/// Values of one facet kept of one span or trace.
const MAX_VALUES: usize = 100;
/// Groups that one unit is put in.
pub(super) const MAX_GROUPS_OF_UNIT: usize = 1_000;
/// Groups kept at all; a question that makes more groups by something unique.
pub(super) const MAX_GROUPS: usize = 100_000;

/// A value that is not there.
pub(super) const NONE: u32 = u32::MAX;

/// A span that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct ScannedSpan<'a> {
    /// The span.
    pub span: &'a Span,
    /// Whether it answers the question's query and tags.
    pub selected: bool,
    /// The buckets it is in, a bit for each by its place in the question.
    pub buckets: u32,
}

/// A question with its names read.
#[derive(Debug, Clone)]
pub(super) struct CompiledRequest {
    pub(super) question: AggregateRequest,
    /// The fields to group by; `None` stands for the buckets.
    pub(super) fields: Vec<Option<Field>>,
    /// What was judged, each once.
    pub(super) labels: Vec<(EvaluationSource, String)>,
    pub(super) needs_calls: bool,
    pub(super) needs_durations: bool,
}

/// Groups on the way, by time bucket and the numbers of their values.
pub(super) type Groups = HashMap<(i64, Vec<u32>), GroupStats>;

/// An aggregation on the way.
pub struct SpanAggregator {
    asked: CompiledRequest,
    values: Interner,
    traces: Interner,
    keys: HashMap<Vec<Vec<u32>>, u32>,
    facts: Vec<Fact>,
    calls: Vec<Call>,
    clipped: bool,
}

/// Equal texts as equal numbers.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<String, u32>,
}

impl Interner {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(NONE);
        self.numbers.insert(text.to_owned(), number);
        number
    }

    pub(super) fn texts(&self) -> HashMap<u32, &str> {
        let entries = self.numbers.iter();
        entries
            .map(|(text, number)| (*number, text.as_str()))
            .collect()
    }
}

/// What is kept of a span.
#[derive(Debug)]
struct Fact {
    trace: u32,
    /// Which set of values, by its number.
    keys: u32,
    start_ns: i64,
    end_ns: i64,
    is_error: bool,
    is_root: bool,
    selected: bool,
    outcomes: Box<[EvaluationOutcome]>,
}

impl CompiledRequest {
    pub(super) fn new(question: &AggregateRequest) -> Result<Self, ParseError> {
        let fields = question.group_by.iter().map(|dimension| match dimension {
            Dimension::Facet(name) => Field::parse(name).map(Some),
            Dimension::Buckets(_) => Ok(None),
        });
        let mut labels: Vec<(EvaluationSource, String)> = Vec::new();
        for measure in &question.measures {
            if let Measure::Evaluation(source, label, _) = measure
                && !labels
                    .iter()
                    .any(|(by, name)| by == source && name == label)
            {
                labels.push((*source, label.clone()));
            }
        }
        let needs = |test: fn(&Measure) -> bool| question.measures.iter().any(test);
        Ok(Self {
            fields: fields.collect::<Result<_, _>>()?,
            labels,
            needs_calls: needs(|m| matches!(m, Measure::Usage(..) | Measure::CostPerSuccess)),
            needs_durations: needs(|m| matches!(m, Measure::Duration(_))),
            question: question.clone(),
        })
    }

    /// Start of the time bucket that a moment is in, in milliseconds; 0 without an interval.
    pub(super) fn time_bucket(&self, start_ns: i64) -> i64 {
        let Some(interval) = self.question.interval_ms.filter(|ms| *ms > 0) else {
            return 0;
        };
        let from = self.question.window.from_ms;
        let since = start_ns.div_euclid(1_000_000).saturating_sub(from);
        from + since.div_euclid(interval) * interval
    }

    /// Whether spans must carry their evaluations and feedback.
    pub(super) fn needs_evaluations(&self) -> bool {
        let mut fields = self.fields.iter().flatten();
        !self.labels.is_empty() || fields.any(Field::reads_evaluations)
    }

    /// Whether the request divides units into groups.
    pub(super) fn has_groups(&self) -> bool {
        !self.fields.is_empty() || self.question.interval_ms.is_some()
    }

    /// What a span was judged, label by label.
    pub(super) fn outcomes(&self, span: &Span) -> Box<[EvaluationOutcome]> {
        let outcomes = self.labels.iter().map(|(source, label)| {
            let judgements = match source {
                EvaluationSource::Evaluation => &span.evaluations,
                EvaluationSource::Feedback => &span.feedback,
            };
            judgements.get(label).map(outcome).unwrap_or_default()
        });
        outcomes.collect()
    }

    /// The numbers of a span's values, dimension by dimension, and whether there were too many.
    pub(super) fn values(
        &self,
        span: &Span,
        buckets: u32,
        numbers: &mut Interner,
    ) -> (Vec<Vec<u32>>, bool) {
        let context = SpanContext::without_trace(span);
        let mut clipped = false;
        let mut set = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let mut values: Vec<u32> = match field {
                None => (0..u32::BITS)
                    .filter(|bit| buckets & (1 << bit) != 0)
                    .collect(),
                Some(field) => {
                    let found = facet_values(field, &context);
                    found.iter().map(|text| numbers.number(text)).collect()
                }
            };
            clipped |= values.len() > MAX_VALUES;
            values.truncate(MAX_VALUES);
            set.push(values);
        }
        (set, clipped)
    }

    /// The asked page of the groups: by time, the largest first, then by key. `wholes` are the
    /// units of all groups whose keys differ in the last value only.
    pub(super) fn page(
        &self,
        values: &Interner,
        groups: Groups,
        wholes: &HashMap<(i64, Vec<u32>), u64>,
    ) -> Vec<Group> {
        let texts = values.texts();
        let text_of = |field: &Option<Field>, number: u32| -> Option<String> {
            if number == NONE {
                return None;
            }
            match field {
                Some(_) => texts.get(&number).map(|text| (*text).to_owned()),
                None => {
                    let bucket = self.question.buckets().get(usize::try_from(number).ok()?);
                    bucket.map(|bucket| bucket.name.clone())
                }
            }
        };
        let mut rows: Vec<_> = groups
            .into_iter()
            .map(|((time, numbers), gathered)| {
                let key = self.fields.iter().zip(&numbers);
                let key: Vec<_> = key.map(|(field, number)| text_of(field, *number)).collect();
                // None after every value.
                let order: Vec<_> = key.iter().map(|k| (k.is_none(), k.clone())).collect();
                (
                    time,
                    std::cmp::Reverse(gathered.count),
                    order,
                    key,
                    numbers,
                    gathered,
                )
            })
            .collect();
        rows.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        let page = rows
            .into_iter()
            .skip(self.question.offset)
            .take(self.question.limit);
        page.map(|(time, _, _, key, mut numbers, gathered)| {
            numbers.pop();
            let whole = wholes.get(&(time, numbers)).copied().unwrap_or_default();
            let share = ratio(gathered.count as f64, whole);
            Group {
                time_ms: self.question.interval_ms.map(|_| time),
                share: (!key.is_empty()).then(|| share.as_f64()).flatten(),
                key,
                figures: gathered.figures(&self.question.measures, &self.labels),
            }
        })
        .collect()
    }
}

/// What is said when not all groups were kept.
pub(super) const CLIPPED: &str = "some units have so many values, or there are so many groups, that not all were kept; group by something with fewer values";

impl SpanAggregator {
    /// Starts an aggregation.
    ///
    /// # Errors
    ///
    /// A facet whose name cannot be read.
    pub fn new(question: &AggregateRequest) -> Result<Self, ParseError> {
        Ok(Self {
            asked: CompiledRequest::new(question)?,
            values: Interner::default(),
            traces: Interner::default(),
            keys: HashMap::new(),
            facts: Vec::new(),
            calls: Vec::new(),
            clipped: false,
        })
    }

    /// Takes a span. With unit `span` only those that are selected count.
    pub fn add(&mut self, seen: ScannedSpan<'_>) {
        let span = seen.span;
        if self.asked.question.unit == Unit::Span && !seen.selected {
            return;
        }
        let (values, clipped) = self.asked.values(span, seen.buckets, &mut self.values);
        self.clipped |= clipped;
        let outcomes = self.asked.outcomes(span);
        let trace = self.traces.number(span.trace_id.as_str());
        self.add_row(IndexRow {
            trace,
            is_root: span.is_root(),
            selected: seen.selected,
            call: ModelCallRow::of(span),
            span: SpanRow {
                start_ns: span.start_ns,
                duration_ns: span.duration_ns,
                is_error: span.is_error(),
                values: &values,
                outcomes: &outcomes,
            },
        });
    }

    /// The answer to the question, its page cut out.
    pub fn finish(self, rows_read: u64, sampled: bool) -> Aggregation {
        let matched = self.facts.iter().filter(|fact| fact.selected).count() as u64;
        let mut groups = Groups::new();
        let mut wholes: HashMap<(i64, Vec<u32>), u64> = HashMap::new();
        let mut total = GroupStats::default();
        let mut answer = Aggregation {
            rows_read,
            rows_matched: (!sampled).then_some(matched),
            sampled,
            has_values: vec![false; self.asked.fields.len()],
            ..Aggregation::default()
        };
        let mut clipped = self.clipped;
        self.each_unit(|start_ns, keys, facts| {
            total.add(&facts, self.asked.needs_durations);
            for (has, values) in answer.has_values.iter_mut().zip(&keys) {
                *has |= !values.is_empty();
            }
            if !self.asked.has_groups() {
                return;
            }
            let time = self.asked.time_bucket(start_ns);
            let combined = combinations(&keys);
            answer.in_several += u64::from(combined.len() > 1);
            clipped |= combined.len() >= MAX_GROUPS_OF_UNIT;
            let mut parts: BTreeSet<Vec<u32>> = BTreeSet::new();
            for mut key in combined {
                if groups.len() >= MAX_GROUPS && !groups.contains_key(&(time, key.clone())) {
                    clipped = true;
                    continue;
                }
                let gathered = groups.entry((time, key.clone())).or_default();
                gathered.add(&facts, self.asked.needs_durations);
                key.pop();
                parts.insert(key);
            }
            for part in parts {
                *wholes.entry((time, part)).or_default() += 1;
            }
        });
        if clipped {
            answer.notes.push(CLIPPED.to_owned());
        }
        answer.total = total.figures(&self.asked.question.measures, &self.asked.labels);
        answer.total_groups = groups.len();
        answer.groups = self.asked.page(&self.values, groups, &wholes);
        answer
    }

    /// Hands out the units that count: when each began, its values by dimension, and its facts.
    fn each_unit(&self, mut each: impl FnMut(i64, Vec<Vec<u32>>, UnitFacts)) {
        let mut adds: Vec<Vec<[Adds; 4]>> = Vec::new();
        adds.resize_with(self.facts.len(), Vec::new);
        for (call, row) in self.calls.iter().zip(resolve(&self.calls)) {
            if let Some(rows) = adds.get_mut(call.fact) {
                rows.push(row);
            }
        }
        let sets: HashMap<u32, &Vec<Vec<u32>>> = self
            .keys
            .iter()
            .map(|(set, number)| (*number, set))
            .collect();
        let parts: Vec<Part<'_>> = self
            .facts
            .iter()
            .zip(&adds)
            .map(|(fact, adds)| Part {
                fact,
                adds,
                keys: sets.get(&fact.keys).copied(),
            })
            .collect();
        let mut take = |parts: &[&Part<'_>]| {
            if let Some((start_ns, keys, facts)) = unit_of(parts) {
                each(start_ns, keys, facts);
            }
        };
        if self.asked.question.unit == Unit::Span {
            parts.iter().for_each(|part| take(&[part]));
            return;
        }
        let mut traces: HashMap<u32, Vec<&Part<'_>>> = HashMap::new();
        for part in &parts {
            traces.entry(part.fact.trace).or_default().push(part);
        }
        traces.values().for_each(|parts| take(parts));
    }
}

impl RowAggregator for SpanAggregator {
    fn fields(&self) -> &[Option<Field>] {
        &self.asked.fields
    }

    fn labels(&self) -> &[(EvaluationSource, String)] {
        &self.asked.labels
    }

    fn required_columns(&self) -> RequiredColumns {
        let by_trace = self.asked.question.unit == Unit::Trace;
        RequiredColumns {
            evaluations: self.asked.needs_evaluations(),
            starts: true,
            relations: self.asked.needs_calls || by_trace,
            unselected: by_trace,
        }
    }

    fn value_number(&mut self, text: &str) -> u32 {
        self.values.number(text)
    }

    fn trace_number(&mut self, id: &str) -> u32 {
        self.traces.number(id)
    }

    fn add_span(&mut self, seen: ScannedSpan<'_>) {
        self.add(seen);
    }

    fn add_row(&mut self, row: IndexRow<'_>) {
        if self.asked.question.unit == Unit::Span && !row.selected {
            return;
        }
        if self.asked.needs_calls
            && let Some(call) = row.call
        {
            self.calls
                .push(Call::new(call, self.facts.len(), row.trace));
        }
        let next = u32::try_from(self.keys.len()).unwrap_or(NONE);
        let keys = match self.keys.get(row.span.values) {
            Some(keys) => *keys,
            None => *self.keys.entry(row.span.values.to_vec()).or_insert(next),
        };
        self.facts.push(Fact {
            trace: row.trace,
            keys,
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
struct Part<'a> {
    fact: &'a Fact,
    adds: &'a [[Adds; 4]],
    keys: Option<&'a Vec<Vec<u32>>>,
}

/// The unit of these spans, if one of them is selected.
fn unit_of(parts: &[&Part<'_>]) -> Option<(i64, Vec<Vec<u32>>, UnitFacts)> {
    let facts = || parts.iter().map(|part| part.fact);
    if !facts().any(|fact| fact.selected) {
        return None;
    }
    let start_ns = facts().map(|fact| fact.start_ns).min()?;
    let end_ns = facts().map(|fact| fact.end_ns).max()?;
    let has_error = facts().any(|fact| fact.is_error);
    let has_root = facts().any(|fact| fact.is_root);
    let root_failed = facts().any(|fact| fact.is_root && fact.is_error);
    let mut usage = [UsageSum::default(); 4];
    for adds in parts.iter().flat_map(|part| part.adds) {
        for (sum, add) in usage.iter_mut().zip(adds) {
            sum.add(*add);
        }
    }
    let dimensions = parts.first().and_then(|part| part.keys).map_or(0, Vec::len);
    let keys = (0..dimensions).map(|dimension| {
        let sets = parts.iter().filter_map(|part| part.keys);
        let mut values: Vec<u32> = sets
            .filter_map(|set| set.get(dimension))
            .flatten()
            .copied()
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    });
    let labels = parts.first().map_or(0, |part| part.fact.outcomes.len());
    let outcomes = (0..labels).map(|label| {
        combined(
            parts
                .iter()
                .filter_map(|part| part.fact.outcomes.get(label)),
        )
    });
    let facts = UnitFacts {
        has_error,
        failed: if has_root { root_failed } else { has_error },
        duration_ns: end_ns.saturating_sub(start_ns),
        usage,
        outcomes: outcomes.collect(),
    };
    Some((start_ns, keys.collect(), facts))
}

/// The judgement of several spans together.
fn combined<'a>(
    outcomes: impl Iterator<Item = &'a EvaluationOutcome> + Clone,
) -> EvaluationOutcome {
    let mut sum = Sum::default();
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

fn outcome(evaluation: &Evaluation) -> EvaluationOutcome {
    EvaluationOutcome {
        score: evaluation.score(),
        passed: evaluation
            .assessment
            .map(|assessment| assessment == Assessment::Pass),
    }
}

/// Every choice of one value per dimension; a dimension without values is one choice.
pub(super) fn combinations(keys: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = vec![Vec::new()];
    for values in keys {
        let values: &[u32] = if values.is_empty() { &[NONE] } else { values };
        let longer = all.iter().flat_map(|key| {
            values.iter().map(move |value| {
                let mut key = key.clone();
                key.push(*value);
                key
            })
        });
        all = longer.take(MAX_GROUPS_OF_UNIT).collect();
    }
    all
}
