//! A query in terms of what an index keeps.

use super::{
    EVALUATION, EXACT, FEEDBACK, MAX_VALUE, Marker, PRESENT, RESERVED, Side, is_grouped,
    keeps_number_text, long_key, number_column, number_key, present_key, text_key,
    text_number_column,
};
use crate::model::ROOT_PARENT;
use crate::query::combine::SpanFilters;
use crate::query::facets::is_known_attribute;
use crate::query::text::TokenPattern;
use crate::query::{Comparison, Expr, Field, Number, Pattern, Term, TimeUnit, Wildcard};

/// Longest word that an index keeps, in bytes.
const MAX_WORD: usize = 60_000;

/// Whole numbers up to here are exact as floats.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// A query for an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexPlan {
    /// Holds for every span that the query matches.
    pub condition: IndexCondition,
    /// Holds for no other span. If not, the spans found must be looked at.
    pub exact: bool,
}

/// A condition on facts and words.
#[derive(Debug, Clone, PartialEq)]
pub enum IndexCondition {
    /// Every span.
    MatchAll,
    /// No span.
    MatchNone,
    /// All of them hold.
    And(Vec<IndexCondition>),
    /// One of them holds.
    Or(Vec<IndexCondition>),
    /// It does not hold.
    Not(Box<IndexCondition>),
    /// The span has this key.
    Key(String),
    /// The span has a key of this beginning whose rest is like the pattern.
    KeyMatches {
        /// The beginning.
        prefix: String,
        /// What the rest must be.
        pattern: Wildcard,
    },
    /// A number of this column passes the test.
    Number {
        /// The column.
        column: String,
        /// The test.
        test: NumberTest,
    },
    /// The words stand one right after the other in one text of the span.
    Phrase(Vec<TokenPattern>),
}

/// A test of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NumberTest {
    /// Above or below.
    Compare(Comparison, f64),
    /// Between, both included; `None` is an open end.
    Range(Option<f64>, Option<f64>),
}

impl NumberTest {
    /// Whether a number passes.
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
    /// Finds every span.
    pub fn match_all() -> Self {
        Self::exactly(IndexCondition::MatchAll)
    }

    fn exactly(condition: IndexCondition) -> Self {
        Self {
            condition,
            exact: true,
        }
    }

    fn roughly(condition: IndexCondition) -> Self {
        Self {
            condition,
            exact: false,
        }
    }

    /// Also spans that have a key, if any has; those are then not known exactly.
    fn or_key_if(self, key: String, occurs: KeyOccurs<'_>) -> Self {
        if occurs(&key) {
            IndexPlan::roughly(IndexCondition::any(vec![
                self.condition,
                IndexCondition::Key(key),
            ]))
        } else {
            self
        }
    }

    /// Both hold.
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

    fn all(nodes: Vec<IndexCondition>) -> IndexCondition {
        let mut flat = Vec::new();
        for node in nodes {
            match node {
                IndexCondition::MatchAll => {}
                IndexCondition::MatchNone => return IndexCondition::MatchNone,
                IndexCondition::And(inner) => flat.extend(inner),
                node => flat.push(node),
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

    fn any(nodes: Vec<IndexCondition>) -> IndexCondition {
        let mut flat = Vec::new();
        for node in nodes {
            match node {
                IndexCondition::MatchNone => {}
                IndexCondition::MatchAll => return IndexCondition::MatchAll,
                IndexCondition::Or(inner) => flat.extend(inner),
                node if flat.contains(&node) => {}
                node => flat.push(node),
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

/// Tells whether any span of the index has a key.
pub(super) type KeyOccurs<'a> = &'a dyn Fn(&str) -> bool;

/// The plan of a condition.
pub fn plan_query(expr: &Expr, occurs: KeyOccurs<'_>) -> IndexPlan {
    match expr {
        Expr::All => IndexPlan::exactly(IndexCondition::MatchAll),
        Expr::And(parts) => {
            let parts = parts.iter().map(|part| plan_query(part, occurs));
            parts.fold(IndexPlan::exactly(IndexCondition::MatchAll), IndexPlan::and)
        }
        Expr::Or(parts) => {
            IndexPlan::any(parts.iter().map(|part| plan_query(part, occurs)).collect())
        }
        Expr::Not(inner) => negated(plan_query(inner, occurs)),
        Expr::Term(term) => of_term(term, occurs),
    }
}

/// What a span must have to answer the structured filters; the filters themselves decide.
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
    let mut all = IndexPlan::exactly(IndexCondition::MatchAll);
    for (name, value) in attributes {
        if let Some(value) = value {
            let pattern = Pattern::Literal(value.to_owned());
            all = all.and(of_field(
                &Field::Attribute(name.to_owned()),
                &pattern,
                occurs,
            ));
        }
    }
    for (key, value) in &filters.tags {
        let pattern = Pattern::Literal(value.clone());
        all = all.and(of_field(&Field::Tag(key.clone()), &pattern, occurs));
    }
    IndexPlan::roughly(all.condition)
}

/// The columns that hold the values of a facet to group by; `None` if they are not kept.
pub fn group_columns(field: &Field, occurs: KeyOccurs<'_>) -> Option<[String; 2]> {
    let (name, side) = match field {
        Field::Attribute(name) => (name, Side::Attribute),
        Field::Tag(name) => (name, Side::Tag),
        Field::Child(_) => return None,
    };
    let kept = is_grouped(name)
        && !PRESENT.contains(&name.as_str())
        && is_nameable(name)
        && (EXACT.contains(&name.as_str()) || !occurs(Marker::Free.key()));
    kept.then(|| [Side::Both, side].map(|side| side.of(name).into_owned()))
}

/// The rest of a plan that does not hold is known only if the plan is exact.
fn negated(plan: IndexPlan) -> IndexPlan {
    if !plan.exact {
        return IndexPlan::roughly(IndexCondition::MatchAll);
    }
    IndexPlan::exactly(match plan.condition {
        IndexCondition::MatchAll => IndexCondition::MatchNone,
        IndexCondition::MatchNone => IndexCondition::MatchAll,
        IndexCondition::Not(inner) => *inner,
        node => IndexCondition::Not(Box::new(node)),
    })
}

fn of_term(term: &Term, occurs: KeyOccurs<'_>) -> IndexPlan {
    match term {
        Term::Field { field, pattern } => of_field(field, pattern, occurs),
        Term::Exists(field) => of_presence(field, occurs),
        Term::Missing(field) => negated(of_presence(field, occurs)),
        Term::Text(free) => of_words(free.tokens()),
    }
}

fn of_words(words: Vec<TokenPattern>) -> IndexPlan {
    let too_long = |word: &TokenPattern| match word {
        TokenPattern::Exact(text) => text.len() > MAX_WORD,
        TokenPattern::Wildcard(_) => false,
    };
    if words.is_empty() {
        return IndexPlan::exactly(IndexCondition::MatchNone);
    }
    if words.iter().any(too_long) {
        return IndexPlan::roughly(IndexCondition::MatchAll);
    }
    let exact = words
        .iter()
        .all(|word| matches!(word, TokenPattern::Exact(_)));
    if exact {
        return IndexPlan::exactly(IndexCondition::Phrase(words));
    }
    // A longer word that the index does not keep may be like the pattern, too.
    let each = words
        .into_iter()
        .map(|word| IndexCondition::Phrase(vec![word]));
    IndexPlan::roughly(IndexCondition::all(each.collect()))
}

/// How a name is known to an index.
enum Known {
    /// Under these names, whole.
    Exactly(Vec<String>, Side, Option<Marker>),
    /// Only whether it is there.
    Presence([String; 1], Side),
    /// Not at all; what has it has this too.
    Within(&'static str),
    /// A sum over the trace, which stands on roots.
    Rollup,
    /// No span has it.
    Never,
    /// Not at all.
    Unknown,
}

fn known(field: &Field) -> Known {
    let (name, side) = match field {
        Field::Attribute(name) => (name.as_str(), Side::Attribute),
        Field::Tag(name) => (name.as_str(), Side::Tag),
        Field::Child(_) => return Known::Unknown,
    };
    let exactly = |name: &str, marker| Known::Exactly(vec![name.to_owned()], side, marker);
    if EXACT.contains(&name) {
        return exactly(name, None);
    }
    if PRESENT.contains(&name) {
        return Known::Presence([name.to_owned()], side);
    }
    if !is_nameable(name) {
        return Known::Unknown;
    }
    let Some((family, rest)) = name.split_once('.') else {
        return exactly(name, Some(Marker::Free));
    };
    match family {
        "metrics" => exactly(name, Some(Marker::Reserved)),
        "evaluations" | "evaluation" => {
            let mut names = vec![format!("{EVALUATION}{rest}")];
            if let Some(custom) = rest.strip_prefix("custom.") {
                names.push(format!("{EVALUATION}{custom}"));
            }
            Known::Exactly(names, Side::Both, Some(Marker::Evaluations))
        }
        "feedback" => {
            let names = vec![format!("{FEEDBACK}{rest}")];
            Known::Exactly(names, Side::Both, Some(Marker::Evaluations))
        }
        "trace" if is_known_attribute(name) => Known::Rollup,
        "trace" => Known::Never,
        "meta" => match rest.split_once('.') {
            Some(("metadata", _)) => exactly(name, Some(Marker::Metadata)),
            Some(("input", _)) => Known::Within("meta.input"),
            Some(("output", _)) => Known::Within("meta.output"),
            Some(("expected_output", _)) => Known::Within("meta.expected_output"),
            Some(("tool_definitions", _)) => Known::Within("meta.tool_definitions"),
            _ => Known::Unknown,
        },
        _ => exactly(name, Some(Marker::Free)),
    }
}

/// Whether a tag of this name would be kept under it.
fn is_nameable(name: &str) -> bool {
    !name.is_empty() && !name.contains(':') && !name.chars().any(char::is_control)
}

/// Also what is reserved as a name and was sent as a tag.
fn with_reserved(plan: IndexPlan, field: &Field, occurs: KeyOccurs<'_>) -> IndexPlan {
    let name = field.name();
    let reserved = RESERVED.iter().any(|family| name.starts_with(family));
    if reserved && !EXACT.contains(&name) {
        plan.or_key_if(Marker::Reserved.key().to_owned(), occurs)
    } else {
        plan
    }
}

fn of_presence(field: &Field, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plan = match known(field) {
        Known::Exactly(names, side, marker) => {
            let plan = IndexPlan::exactly(IndexCondition::any(
                sided(&names, side)
                    .map(|name| IndexCondition::key(&present_key(&name)))
                    .collect(),
            ));
            with_marker(plan, marker, occurs)
        }
        Known::Presence(name, side) => IndexPlan::exactly(IndexCondition::any(
            sided(&name, side)
                .map(|name| IndexCondition::key(&present_key(&name)))
                .collect(),
        )),
        rough => of_rough(&rough),
    };
    with_reserved(plan, field, occurs)
}

fn of_field(field: &Field, pattern: &Pattern, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plan = match known(field) {
        Known::Exactly(names, side, marker) => {
            let plans = sided(&names, side).map(|sided| of_pattern(&sided, pattern, occurs));
            with_marker(IndexPlan::any(plans.collect()), marker, occurs)
        }
        Known::Presence(name, side) => {
            let any = sided(&name, side).flat_map(|name| any_value(&name));
            IndexPlan::roughly(IndexCondition::any(any.collect()))
        }
        rough => of_rough(&rough),
    };
    with_reserved(plan, field, occurs)
}

fn of_rough(known: &Known) -> IndexPlan {
    match known {
        Known::Within(part) => {
            let sides = [Side::Both, Side::Attribute, Side::Tag];
            let there = sides.map(|side| IndexCondition::key(&present_key(&side.of(part))));
            IndexPlan::roughly(IndexCondition::any(there.into()))
        }
        Known::Rollup => {
            let sides = [Side::Both, Side::Attribute, Side::Tag];
            let root = sides
                .map(|side| IndexCondition::key(&text_key(&side.of("parent_id"), ROOT_PARENT)));
            IndexPlan::roughly(IndexCondition::any(root.into()))
        }
        Known::Never => IndexPlan::exactly(IndexCondition::MatchNone),
        _ => IndexPlan::roughly(IndexCondition::MatchAll),
    }
}

fn with_marker(plan: IndexPlan, marker: Option<Marker>, occurs: KeyOccurs<'_>) -> IndexPlan {
    match marker {
        Some(marker) => plan.or_key_if(marker.key().to_owned(), occurs),
        None => plan,
    }
}

/// The names under which values of a side are kept.
fn sided(names: &[String], side: Side) -> impl Iterator<Item = String> + '_ {
    let sides = if side == Side::Both {
        vec![side]
    } else {
        vec![Side::Both, side]
    };
    names.iter().flat_map(move |name| {
        sides
            .clone()
            .into_iter()
            .map(move |side| side.of(name).into_owned())
    })
}

/// A value is there, be it empty.
fn any_value(name: &str) -> [IndexCondition; 2] {
    [
        IndexCondition::key(&present_key(name)),
        IndexCondition::key(&text_key(name, "")),
    ]
}

/// `name` carries its side.
fn of_pattern(name: &str, pattern: &Pattern, occurs: KeyOccurs<'_>) -> IndexPlan {
    let plain = name.trim_start_matches(['\u{1}', '\u{2}']);
    match pattern {
        Pattern::Literal(text) => {
            let mut plans = vec![if text.len() <= MAX_VALUE {
                IndexPlan::exactly(IndexCondition::key(&text_key(name, text)))
            } else {
                IndexPlan::roughly(IndexCondition::key(&long_key(name)))
            }];
            if let Some(number) = Number::parse(text) {
                let value = number.in_unit(unit(plain));
                plans.push(IndexPlan {
                    condition: IndexCondition::Number {
                        column: number_column(name),
                        test: NumberTest::Range(Some(value), Some(value)),
                    },
                    exact: value.abs() < EXACT_INTEGERS,
                });
            }
            IndexPlan::any(plans)
        }
        Pattern::Wildcard(rest) if rest.is_any_text() => {
            IndexPlan::exactly(IndexCondition::any(any_value(name).into()))
        }
        Pattern::Wildcard(rest) => {
            let like = |prefix| IndexCondition::KeyMatches {
                prefix,
                pattern: rest.clone(),
            };
            let texts = IndexPlan::exactly(like(text_key(name, "").concat()))
                .or_key_if(long_key(name).concat(), occurs);
            let numbers = if keeps_number_text(plain) {
                IndexPlan::exactly(like(number_key(name, "").concat()))
            } else {
                IndexPlan::roughly(IndexCondition::key(&present_key(name)))
            };
            IndexPlan::any(vec![texts, numbers])
        }
        Pattern::Compare(comparison, number) => of_number(name, plain, |unit| {
            NumberTest::Compare(*comparison, number.in_unit(unit))
        }),
        Pattern::Range { from, to } => of_number(name, plain, |unit| {
            NumberTest::Range(
                from.map(|from| from.in_unit(unit)),
                to.map(|to| to.in_unit(unit)),
            )
        }),
        Pattern::AnyOf(patterns) => IndexPlan::any(
            patterns
                .iter()
                .map(|pattern| of_pattern(name, pattern, occurs))
                .collect(),
        ),
    }
}

fn of_number(name: &str, plain: &str, test: impl Fn(TimeUnit) -> NumberTest) -> IndexPlan {
    let columns = [
        (number_column(name), unit(plain)),
        // Texts that are read as numbers have no unit.
        (text_number_column(name), TimeUnit::Nanoseconds),
    ];
    let nodes = columns.map(|(column, unit)| IndexCondition::Number {
        column,
        test: test(unit),
    });
    IndexPlan::exactly(IndexCondition::any(nodes.into()))
}

/// The unit that numbers of a name are kept in, as [`crate::query::facets`] has it.
fn unit(name: &str) -> TimeUnit {
    match name {
        "timestamp" => TimeUnit::Milliseconds,
        "metrics.time_to_first_token" | "metrics.time_per_output_token" => TimeUnit::Seconds,
        _ => TimeUnit::Nanoseconds,
    }
}
