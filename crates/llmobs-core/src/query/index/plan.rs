//! Plans: queries over index documents.

use super::layout::{
    EVALUATION_PREFIX, EXACT_ATTRIBUTES, FEEDBACK_PREFIX, Lookup, MAX_VALUE_BYTES, Marker,
    PRESENCE_ATTRIBUTES, RESERVED_PREFIXES, is_grouped, long_key, number_column, number_key,
    present_key, stores_number_text, text_key, text_number_column,
};
use crate::model::ROOT_PARENT;
use crate::query::combine::SpanFilters;
use crate::query::facets::is_known_attribute;
use crate::query::text::TokenPattern;
use crate::query::{Comparison, Expr, Field, Number, Pattern, Term, TimeUnit, Wildcard};

/// Longest token that an index stores, in bytes.
const MAX_TOKEN_BYTES: usize = 60_000;

/// Integers below 2^53 are exact as floats.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// A query over index documents.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexPlan {
    /// Matches every span that the query matches.
    pub condition: IndexCondition,
    /// Whether the condition matches no other span. If false, evaluate the query on each span
    /// found.
    pub exact: bool,
}

/// A condition on the document and the tokens of a span.
#[derive(Debug, Clone, PartialEq)]
pub enum IndexCondition {
    /// Every span.
    MatchAll,
    /// No span.
    MatchNone,
    /// All conditions match.
    And(Vec<IndexCondition>),
    /// At least one condition matches.
    Or(Vec<IndexCondition>),
    /// The condition does not match.
    Not(Box<IndexCondition>),
    /// The document has this key.
    Key(String),
    /// The document has a key that is the prefix followed by a match of the pattern.
    KeyMatches {
        /// The literal start of the key.
        prefix: String,
        /// The pattern for the rest of the key.
        pattern: Wildcard,
    },
    /// The document has a number in this column that passes the test.
    Number {
        /// The column.
        column: String,
        /// The test.
        test: NumberTest,
    },
    /// One text of the span contains these tokens consecutively.
    Phrase(Vec<TokenPattern>),
}

/// A test of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NumberTest {
    /// A comparison with a number.
    Compare(Comparison, f64),
    /// Between two numbers, inclusive; `None` is an open end.
    Range(Option<f64>, Option<f64>),
}

impl NumberTest {
    /// Whether a number passes the test.
    pub fn passes(self, value: f64) -> bool {
        match self {
            NumberTest::Compare(comparison, bound) => comparison.holds(value, bound),
            NumberTest::Range(from, to) => {
                from.is_none_or(|from| from <= value) && to.is_none_or(|to| value <= to)
            }
        }
    }
}

impl IndexPlan {
    /// A plan that matches every span.
    pub fn match_all() -> Self {
        Self::exact(IndexCondition::MatchAll)
    }

    fn exact(condition: IndexCondition) -> Self {
        Self {
            condition,
            exact: true,
        }
    }

    fn inexact(condition: IndexCondition) -> Self {
        Self {
            condition,
            exact: false,
        }
    }

    /// Also matches the spans that have the key, if it occurs in the index. The plan is then
    /// inexact.
    fn or_key_if_occurs(self, key: String, occurs: KeyOccurs<'_>) -> Self {
        if occurs(&key) {
            IndexPlan::inexact(IndexCondition::any(vec![
                self.condition,
                IndexCondition::Key(key),
            ]))
        } else {
            self
        }
    }

    /// The conjunction of two plans.
    #[must_use]
    pub fn and(self, other: IndexPlan) -> Self {
        IndexPlan {
            exact: self.exact && other.exact,
            condition: IndexCondition::all(vec![self.condition, other.condition]),
        }
    }

    fn any(plans: Vec<IndexPlan>) -> Self {
        IndexPlan {
            exact: plans.iter().all(|plan| plan.exact),
            condition: IndexCondition::any(plans.into_iter().map(|plan| plan.condition).collect()),
        }
    }
}

impl IndexCondition {
    fn key(parts: &[&str]) -> Self {
        IndexCondition::Key(parts.concat())
    }

    fn all(conditions: Vec<IndexCondition>) -> IndexCondition {
        let mut flat = Vec::new();
        for condition in conditions {
            match condition {
                IndexCondition::MatchAll => {}
                IndexCondition::MatchNone => return IndexCondition::MatchNone,
                IndexCondition::And(inner) => flat.extend(inner),
                condition => flat.push(condition),
            }
        }
        match flat.pop() {
            None => IndexCondition::MatchAll,
            Some(only) if flat.is_empty() => only,
            Some(last) => {
                flat.push(last);
                IndexCondition::And(flat)
            }
        }
    }

    fn any(conditions: Vec<IndexCondition>) -> IndexCondition {
        let mut flat = Vec::new();
        for condition in conditions {
            match condition {
                IndexCondition::MatchNone => {}
                IndexCondition::MatchAll => return IndexCondition::MatchAll,
                IndexCondition::Or(inner) => flat.extend(inner),
                condition if flat.contains(&condition) => {}
                condition => flat.push(condition),
            }
        }
        match flat.pop() {
            None => IndexCondition::MatchNone,
            Some(only) if flat.is_empty() => only,
            Some(last) => {
                flat.push(last);
                IndexCondition::Or(flat)
            }
        }
    }
}

/// Whether any document of the index has a key.
pub(super) type KeyOccurs<'a> = &'a dyn Fn(&str) -> bool;

/// The plan of a query's expression.
pub fn plan_query(expr: &Expr, occurs: KeyOccurs<'_>) -> IndexPlan {
    match expr {
        Expr::All => IndexPlan::exact(IndexCondition::MatchAll),
        Expr::And(parts) => {
            let parts = parts.iter().map(|part| plan_query(part, occurs));
            parts.fold(IndexPlan::exact(IndexCondition::MatchAll), IndexPlan::and)
        }
        Expr::Or(parts) => {
            IndexPlan::any(parts.iter().map(|part| plan_query(part, occurs)).collect())
        }
        Expr::Not(inner) => negate(plan_query(inner, occurs)),
        Expr::Term(term) => plan_term(term, occurs),
    }
}

/// The plan of structured filters. It is inexact: the caller applies the filters to each span
/// found.
pub fn plan_filters(
    filters: &SpanFilters,
    apm_trace_id: Option<&str>,
    occurs: KeyOccurs<'_>,
) -> IndexPlan {
    let attributes = [
        ("ml_app", filters.ml_app.as_deref()),
        ("meta.span.kind", filters.span_kind.as_deref()),
        ("name", filters.span_name.as_deref()),
        ("trace_id", filters.trace_id.as_deref()),
        ("span_id", filters.span_id.as_deref()),
        ("session_id", filters.session_id.as_deref()),
        ("apm_trace_id", apm_trace_id),
        ("parent_id", filters.root_spans_only.then_some(ROOT_PARENT)),
    ];
    let mut plan = IndexPlan::match_all();
    for (name, value) in attributes {
        if let Some(value) = value {
            let pattern = Pattern::Literal(value.to_owned());
            plan = plan.and(plan_field(
                &Field::Attribute(name.to_owned()),
                &pattern,
                occurs,
            ));
        }
    }
    for (key, value) in &filters.tags {
        let pattern = Pattern::Literal(value.clone());
        plan = plan.and(plan_field(&Field::Tag(key.clone()), &pattern, occurs));
    }
    IndexPlan::inexact(plan.condition)
}

/// The columns with the group values of a facet; `None` if the index does not store them.
pub fn group_columns(field: &Field, occurs: KeyOccurs<'_>) -> Option<[String; 2]> {
    let (name, lookup) = match field {
        Field::Attribute(name) => (name, Lookup::Attribute),
        Field::Tag(name) => (name, Lookup::Tag),
        Field::Child(_) => return None,
    };
    let stored = is_grouped(name)
        && !PRESENCE_ATTRIBUTES.contains(&name.as_str())
        && is_storable_name(name)
        && (EXACT_ATTRIBUTES.contains(&name.as_str()) || !occurs(Marker::Free.key()));
    stored.then(|| [Lookup::Both, lookup].map(|lookup| lookup.stored_name(name).into_owned()))
}

/// The negation of a plan. Only an exact plan can be negate; otherwise every span may match.
fn negate(plan: IndexPlan) -> IndexPlan {
    if !plan.exact {
        return IndexPlan::inexact(IndexCondition::MatchAll);
    }
    IndexPlan::exact(match plan.condition {
        IndexCondition::MatchAll => IndexCondition::MatchNone,
        IndexCondition::MatchNone => IndexCondition::MatchAll,
        IndexCondition::Not(inner) => *inner,
        condition => IndexCondition::Not(Box::new(condition)),
    })
}

fn plan_term(term: &Term, occurs: KeyOccurs<'_>) -> IndexPlan {
    match term {
        Term::Field { field, pattern } => plan_field(field, pattern, occurs),
        Term::Exists(field) => plan_presence(field, occurs),
        Term::Missing(field) => negate(plan_presence(field, occurs)),
        Term::Text(free) => plan_phrase(free.tokens()),
    }
}

fn plan_phrase(tokens: Vec<TokenPattern>) -> IndexPlan {
    let too_long = |token: &TokenPattern| match token {
        TokenPattern::Exact(text) => text.len() > MAX_TOKEN_BYTES,
        TokenPattern::Wildcard(_) => false,
    };
    if tokens.is_empty() {
        return IndexPlan::exact(IndexCondition::MatchNone);
    }
    if tokens.iter().any(too_long) {
        return IndexPlan::inexact(IndexCondition::MatchAll);
    }
    let exact = tokens
        .iter()
        .all(|token| matches!(token, TokenPattern::Exact(_)));
    if exact {
        return IndexPlan::exact(IndexCondition::Phrase(tokens));
    }
    // A pattern could also match a token that is too long for the index.
    let single = tokens
        .into_iter()
        .map(|token| IndexCondition::Phrase(vec![token]));
    IndexPlan::inexact(IndexCondition::all(single.collect()))
}

/// How an index stores the values of a name.
enum ValueStorage {
    /// With their values, under these names. Spans with the marker may have further values.
    Values(Vec<String>, Lookup, Option<Marker>),
    /// Their presence only.
    Presence([String; 1], Lookup),
    /// Not stored. A span with the value has the enclosing attribute too.
    Enclosing(&'static str),
    /// A total of the trace, which only root spans have.
    Rollup,
    /// No span has a value.
    Never,
    /// Not stored.
    NotStored,
}

fn storage_of(field: &Field) -> ValueStorage {
    let (name, lookup) = match field {
        Field::Attribute(name) => (name.as_str(), Lookup::Attribute),
        Field::Tag(name) => (name.as_str(), Lookup::Tag),
        Field::Child(_) => return ValueStorage::NotStored,
    };
    let values = |name: &str, marker| ValueStorage::Values(vec![name.to_owned()], lookup, marker);
    if EXACT_ATTRIBUTES.contains(&name) {
        return values(name, None);
    }
    if PRESENCE_ATTRIBUTES.contains(&name) {
        return ValueStorage::Presence([name.to_owned()], lookup);
    }
    if !is_storable_name(name) {
        return ValueStorage::NotStored;
    }
    let Some((family, rest)) = name.split_once('.') else {
        return values(name, Some(Marker::Free));
    };
    match family {
        "metrics" => values(name, Some(Marker::Reserved)),
        "evaluations" | "evaluation" => {
            let mut names = vec![format!("{EVALUATION_PREFIX}{rest}")];
            if let Some(custom) = rest.strip_prefix("custom.") {
                names.push(format!("{EVALUATION_PREFIX}{custom}"));
            }
            ValueStorage::Values(names, Lookup::Both, Some(Marker::Evaluations))
        }
        "feedback" => {
            let names = vec![format!("{FEEDBACK_PREFIX}{rest}")];
            ValueStorage::Values(names, Lookup::Both, Some(Marker::Evaluations))
        }
        "trace" if is_known_attribute(name) => ValueStorage::Rollup,
        "trace" => ValueStorage::Never,
        "meta" => match rest.split_once('.') {
            Some(("metadata", _)) => values(name, Some(Marker::Metadata)),
            Some(("input", _)) => ValueStorage::Enclosing("meta.input"),
            Some(("output", _)) => ValueStorage::Enclosing("meta.output"),
            Some(("expected_output", _)) => ValueStorage::Enclosing("meta.expected_output"),
            Some(("tool_definitions", _)) => ValueStorage::Enclosing("meta.tool_definitions"),
            _ => ValueStorage::NotStored,
        },
        _ => values(name, Some(Marker::Free)),
    }
}

/// Whether a tag of this name is stored under its name.
fn is_storable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control)
}

/// Also matches spans that have a tag with a reserved prefix, if the field's name has one.
fn with_reserved_tags(plan: IndexPlan, field: &Field, occurs: KeyOccurs<'_>) -> IndexPlan {
    let name = field.name();
    let reserved = RESERVED_PREFIXES
        .iter()
        .any(|family| name.starts_with(family));
    if reserved && !EXACT_ATTRIBUTES.contains(&name) {
        plan.or_key_if_occurs(Marker::Reserved.key().to_owned(), occurs)
    } else {
        plan
    }
}

fn plan_presence(field: &Field, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plan = match storage_of(field) {
        ValueStorage::Values(names, lookup, marker) => {
            let plan = IndexPlan::exact(IndexCondition::any(
                stored_names(&names, lookup)
                    .map(|name| IndexCondition::key(&present_key(&name)))
                    .collect(),
            ));
            with_marker(plan, marker, occurs)
        }
        ValueStorage::Presence(name, lookup) => IndexPlan::exact(IndexCondition::any(
            stored_names(&name, lookup)
                .map(|name| IndexCondition::key(&present_key(&name)))
                .collect(),
        )),
        other => plan_without_values(&other),
    };
    with_reserved_tags(plan, field, occurs)
}

fn plan_field(field: &Field, pattern: &Pattern, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plan = match storage_of(field) {
        ValueStorage::Values(names, lookup, marker) => {
            let plans =
                stored_names(&names, lookup).map(|name| plan_pattern(&name, pattern, occurs));
            with_marker(IndexPlan::any(plans.collect()), marker, occurs)
        }
        ValueStorage::Presence(name, lookup) => {
            let any = stored_names(&name, lookup).flat_map(|name| any_value(&name));
            IndexPlan::inexact(IndexCondition::any(any.collect()))
        }
        other => plan_without_values(&other),
    };
    with_reserved_tags(plan, field, occurs)
}

/// The plan of a field whose values the index does not store.
fn plan_without_values(storage: &ValueStorage) -> IndexPlan {
    let lookups = [Lookup::Both, Lookup::Attribute, Lookup::Tag];
    match storage {
        ValueStorage::Enclosing(attribute) => {
            let present = lookups
                .map(|lookup| IndexCondition::key(&present_key(&lookup.stored_name(attribute))));
            IndexPlan::inexact(IndexCondition::any(present.into()))
        }
        ValueStorage::Rollup => {
            let root = lookups.map(|lookup| {
                let name = lookup.stored_name("parent_id");
                IndexCondition::key(&text_key(&name, ROOT_PARENT))
            });
            IndexPlan::inexact(IndexCondition::any(root.into()))
        }
        ValueStorage::Never => IndexPlan::exact(IndexCondition::MatchNone),
        _ => IndexPlan::inexact(IndexCondition::MatchAll),
    }
}

fn with_marker(plan: IndexPlan, marker: Option<Marker>, occurs: KeyOccurs<'_>) -> IndexPlan {
    match marker {
        Some(marker) => plan.or_key_if_occurs(marker.key().to_owned(), occurs),
        None => plan,
    }
}

/// The names under which the values of a lookup are stored.
fn stored_names(names: &[String], lookup: Lookup) -> impl Iterator<Item = String> + '_ {
    let lookups = if lookup == Lookup::Both {
        vec![lookup]
    } else {
        vec![Lookup::Both, lookup]
    };
    names.iter().flat_map(move |name| {
        lookups
            .clone()
            .into_iter()
            .map(move |lookup| lookup.stored_name(name).into_owned())
    })
}

/// Conditions for the presence of any value, including empty text.
fn any_value(name: &str) -> [IndexCondition; 2] {
    [
        IndexCondition::key(&present_key(name)),
        IndexCondition::key(&text_key(name, "")),
    ]
}

/// The plan of a pattern for the values under a stored name.
fn plan_pattern(name: &str, pattern: &Pattern, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plain = name.trim_start_matches(['\u{1}', '\u{2}']);
    match pattern {
        Pattern::Literal(text) => {
            let mut plans = vec![if text.len() <= MAX_VALUE_BYTES {
                IndexPlan::exact(IndexCondition::key(&text_key(name, text)))
            } else {
                IndexPlan::inexact(IndexCondition::key(&long_key(name)))
            }];
            if let Some(number) = Number::parse(text) {
                let value = number.in_unit(unit(plain));
                plans.push(IndexPlan {
                    condition: IndexCondition::Number {
                        column: number_column(name),
                        test: NumberTest::Range(Some(value), Some(value)),
                    },
                    exact: value.abs() < MAX_EXACT_INTEGER,
                });
            }
            IndexPlan::any(plans)
        }
        Pattern::Wildcard(rest) if rest.is_any_text() => {
            IndexPlan::exact(IndexCondition::any(any_value(name).into()))
        }
        Pattern::Wildcard(rest) => {
            let like = |prefix| IndexCondition::KeyMatches {
                prefix,
                pattern: rest.clone(),
            };
            let texts = IndexPlan::exact(like(text_key(name, "").concat()))
                .or_key_if_occurs(long_key(name).concat(), occurs);
            let numbers = if stores_number_text(plain) {
                IndexPlan::exact(like(number_key(name, "").concat()))
            } else {
                IndexPlan::inexact(IndexCondition::key(&present_key(name)))
            };
            IndexPlan::any(vec![texts, numbers])
        }
        Pattern::Compare(comparison, number) => plan_number(name, plain, |unit| {
            NumberTest::Compare(*comparison, number.in_unit(unit))
        }),
        Pattern::Range { from, to } => plan_number(name, plain, |unit| {
            NumberTest::Range(
                from.map(|from| from.in_unit(unit)),
                to.map(|to| to.in_unit(unit)),
            )
        }),
        Pattern::AnyOf(patterns) => IndexPlan::any(
            patterns
                .iter()
                .map(|pattern| plan_pattern(name, pattern, occurs))
                .collect(),
        ),
    }
}

fn plan_number(name: &str, plain: &str, test: impl Fn(TimeUnit) -> NumberTest) -> IndexPlan {
    let columns = [
        (number_column(name), unit(plain)),
        // Numeric texts have no unit.
        (text_number_column(name), TimeUnit::Nanoseconds),
    ];
    let conditions = columns.map(|(column, unit)| IndexCondition::Number {
        column,
        test: test(unit),
    });
    IndexPlan::exact(IndexCondition::any(conditions.into()))
}

/// The unit of a name's numbers. It must agree with [`crate::query::facets`].
fn unit(name: &str) -> TimeUnit {
    match name {
        "timestamp" => TimeUnit::Milliseconds,
        "metrics.time_to_first_token" | "metrics.time_per_output_token" => TimeUnit::Seconds,
        _ => TimeUnit::Nanoseconds,
    }
}
