//! A request with its names parsed, and what both aggregators share: limits, group keys, and the
//! page of groups.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::group_stats::{GroupStats, ratio};
use super::measure::{EvaluationSource, Measure};
use super::rows::EvaluationOutcome;
use super::{AggregateRequest, Dimension, Group};
use crate::model::Span;
use crate::query::{Field, ParseError, SpanContext, facet_values};

/// Values of one facet that are read from one span.
const MAX_VALUES: usize = 100;
/// Groups that one unit is counted in.
pub(super) const MAX_GROUPS_PER_UNIT: usize = 1_000;
/// Groups of one request. More groups mean that a facet has a value per unit.
pub(super) const MAX_GROUPS: usize = 100_000;

/// The number of the absent value.
pub(super) const ABSENT: u32 = u32::MAX;

/// The note for a request that exceeds one of the limits.
pub(super) const LIMIT_NOTE: &str = "the answer leaves out some groups because there are too many groups or values per unit; group by a field with fewer values";

/// A request with its names parsed.
#[derive(Debug, Clone)]
pub(super) struct CompiledRequest {
    pub(super) request: AggregateRequest,
    /// The fields to group by; `None` marks the buckets.
    pub(super) fields: Vec<Option<Field>>,
    /// The labels that measures read, without duplicates.
    pub(super) labels: Vec<(EvaluationSource, String)>,
    pub(super) needs_calls: bool,
    pub(super) needs_durations: bool,
}

/// The time bucket and the numbers of the values of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupKey {
    pub(super) time_ms: i64,
    pub(super) values: Vec<u32>,
}

impl GroupKey {
    /// The key without its last value. Shares are fractions of the units with the same prefix.
    pub(super) fn prefix(mut self) -> Self {
        self.values.pop();
        self
    }
}

/// Groups under construction.
pub(super) type Groups = HashMap<GroupKey, GroupStats>;

/// Maps equal texts to equal numbers.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<String, u32>,
}

impl Interner {
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(ABSENT);
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

/// The values of a span in each dimension.
pub(super) struct SpanValues {
    pub(super) values: Vec<Vec<u32>>,
    /// Whether a facet has more values than are read.
    pub(super) truncated: bool,
}

impl CompiledRequest {
    pub(super) fn new(request: &AggregateRequest) -> Result<Self, ParseError> {
        let fields = request.group_by.iter().map(|dimension| match dimension {
            Dimension::Facet(name) => Field::parse(name).map(Some),
            Dimension::Buckets(_) => Ok(None),
        });
        let mut labels: Vec<(EvaluationSource, String)> = Vec::new();
        for measure in &request.measures {
            if let Measure::Evaluation(source, label, _) = measure
                && !labels
                    .iter()
                    .any(|(known, name)| known == source && name == label)
            {
                labels.push((*source, label.clone()));
            }
        }
        let needs = |test: fn(&Measure) -> bool| request.measures.iter().any(test);
        Ok(Self {
            fields: fields.collect::<Result<_, _>>()?,
            labels,
            needs_calls: needs(|m| matches!(m, Measure::Usage(..) | Measure::CostPerSuccess)),
            needs_durations: needs(|m| matches!(m, Measure::Duration(_))),
            request: request.clone(),
        })
    }

    /// Start of the time bucket of a span, in milliseconds; 0 without an interval.
    pub(super) fn time_bucket(&self, start_ns: i64) -> i64 {
        let Some(interval) = self.request.interval_ms.filter(|ms| *ms > 0) else {
            return 0;
        };
        let from = self.request.window.from_ms;
        let since = start_ns.div_euclid(1_000_000).saturating_sub(from);
        from + since.div_euclid(interval) * interval
    }

    /// Whether the request divides units into groups.
    pub(super) fn has_groups(&self) -> bool {
        !self.fields.is_empty() || self.request.interval_ms.is_some()
    }

    /// Whether spans must carry their evaluations and feedback.
    pub(super) fn needs_evaluations(&self) -> bool {
        let mut fields = self.fields.iter().flatten();
        !self.labels.is_empty() || fields.any(Field::reads_evaluations)
    }

    /// The outcome of a span for each label.
    pub(super) fn outcomes(&self, span: &Span) -> Box<[EvaluationOutcome]> {
        let outcomes = self.labels.iter().map(|(source, label)| {
            let evaluations = match source {
                EvaluationSource::Evaluation => &span.evaluations,
                EvaluationSource::Feedback => &span.feedback,
            };
            evaluations
                .get(label)
                .map(EvaluationOutcome::from)
                .unwrap_or_default()
        });
        outcomes.collect()
    }

    /// The numbers of a span's values in each dimension.
    pub(super) fn span_values(
        &self,
        span: &Span,
        buckets: u32,
        numbers: &mut Interner,
    ) -> SpanValues {
        let context = SpanContext::without_trace(span);
        let mut found = SpanValues {
            values: Vec::with_capacity(self.fields.len()),
            truncated: false,
        };
        for field in &self.fields {
            let mut values: Vec<u32> = match field {
                None => (0..u32::BITS)
                    .filter(|bit| buckets & (1 << bit) != 0)
                    .collect(),
                Some(field) => {
                    let texts = facet_values(field, &context);
                    texts.iter().map(|text| numbers.intern(text)).collect()
                }
            };
            found.truncated |= values.len() > MAX_VALUES;
            values.truncate(MAX_VALUES);
            found.values.push(values);
        }
        found
    }

    /// The requested page of groups: by time bucket, then by descending count, then by key.
    /// `prefix_counts` holds the number of units of each [`GroupKey::prefix`].
    pub(super) fn page(
        &self,
        values: &Interner,
        groups: Groups,
        prefix_counts: &HashMap<GroupKey, u64>,
    ) -> Vec<Group> {
        let texts = values.texts();
        let mut candidates: Vec<_> = groups
            .into_iter()
            .map(|(key, stats)| {
                let names = self.fields.iter().zip(&key.values);
                let names: Vec<Option<String>> = names
                    .map(|(field, number)| self.value_text(field.as_ref(), *number, &texts))
                    .collect();
                (key, names, stats)
            })
            .collect();
        candidates.sort_by_cached_key(|(key, names, stats)| {
            // The absent value comes last.
            let names: Vec<_> = names.iter().map(|n| (n.is_none(), n.clone())).collect();
            (key.time_ms, Reverse(stats.count), names)
        });
        let page = candidates
            .into_iter()
            .skip(self.request.offset)
            .take(self.request.limit);
        page.map(|(key, names, stats)| {
            let time_ms = key.time_ms;
            let total = prefix_counts.get(&key.prefix()).copied();
            let share = ratio(stats.count as f64, total.unwrap_or_default());
            Group {
                time_ms: self.request.interval_ms.map(|_| time_ms),
                share: (!names.is_empty()).then(|| share.as_f64()).flatten(),
                key: names,
                measured: stats.measure(&self.request.measures, &self.labels),
            }
        })
        .collect()
    }

    fn value_text(
        &self,
        field: Option<&Field>,
        number: u32,
        texts: &HashMap<u32, &str>,
    ) -> Option<String> {
        if number == ABSENT {
            return None;
        }
        if field.is_some() {
            return texts.get(&number).map(|text| (*text).to_owned());
        }
        let bucket = self.request.buckets().get(usize::try_from(number).ok()?);
        bucket.map(|bucket| bucket.name.clone())
    }
}

/// Every choice of one value per dimension. A dimension without values contributes the absent
/// value.
pub(super) fn combinations(values: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = vec![Vec::new()];
    for choices in values {
        let choices: &[u32] = if choices.is_empty() {
            &[ABSENT]
        } else {
            choices
        };
        let longer = all.iter().flat_map(|prefix| {
            choices.iter().map(move |value| {
                let mut combination = prefix.clone();
                combination.push(*value);
                combination
            })
        });
        all = longer.take(MAX_GROUPS_PER_UNIT).collect();
    }
    all
}
