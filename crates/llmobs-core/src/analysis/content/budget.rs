//! The work budget of a JSONPath.
//!
//! A path of a few hundred characters can take exponential time: unions and descents multiply, and
//! filters run once per value and may contain queries and regular expressions. An upper bound of
//! each step is computed before the step. A path that exceeds the budget is rejected.

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector,
    SingularQuery, Test, TestFunction,
};
use serde_json::Value;

/// Units of work for one path; about a second.
const MAX_UNITS: usize = 10_000_000;
/// Bytes of text that cost as much as one value.
const BYTES_PER_UNIT: usize = 64;
/// Maximum depth of a value that a filter applies to: `jsonpath_rust` recurses into it.
const MAX_FILTER_DEPTH: usize = 300;
/// Units to compile a regular expression, per byte.
const REGEX_UNITS_PER_BYTE: usize = 30;
/// Units per character class such as `\w`, which expands to many ranges.
const REGEX_UNITS_PER_CLASS: usize = 2_000;
/// Assumed number of values for which a nested filter reads the root.
const NESTED_FILTER_VALUES: usize = 10_000;
/// Units to compile a regular expression that comes from the data.
const UNKNOWN_REGEX_UNITS: usize = 100_000;

/// The limit that a path exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    /// The work budget.
    #[error("this path takes too much work on this content; use a more specific path")]
    Work,
    /// The depth of values that filters apply to.
    #[error(
        "this content is nested too deeply for a filter; select by names and indexes, or with `..`"
    )]
    Depth,
}

/// The remaining units of work.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: MAX_UNITS }
    }

    /// Subtracts units of work.
    pub(super) fn spend(&mut self, units: usize) -> Result<(), Exceeded> {
        self.left = self.left.checked_sub(units).ok_or(Exceeded::Work)?;
        Ok(())
    }
}

/// The size of a value in units: its descendants and their text.
pub(super) fn size(value: &Value) -> usize {
    measure(value).0
}

/// Size and depth of a value.
fn measure(value: &Value) -> (usize, usize) {
    let mut size = 0;
    let mut max_depth = 0;
    let mut stack = vec![(value, 1)];
    while let Some((value, depth)) = stack.pop() {
        size += 1;
        max_depth = max_depth.max(depth);
        match value {
            Value::String(text) => size += text.len() / BYTES_PER_UNIT,
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                for (key, item) in map {
                    size += key.len() / BYTES_PER_UNIT;
                    stack.push((item, depth + 1));
                }
            }
            _ => {}
        }
    }
    (size, max_depth)
}

/// The selectors of a segment.
pub(super) fn selectors(segment: &Segment) -> &[Selector] {
    match segment {
        Segment::Selector(selector) => std::slice::from_ref(selector),
        Segment::Selectors(selectors) => selectors.as_slice(),
        Segment::Descendant(inner) => selectors(inner),
    }
}

/// The filters of a query, without nested filters.
fn filters(segments: &[Segment]) -> impl Iterator<Item = &Filter> {
    segments
        .iter()
        .flat_map(selectors)
        .filter_map(|selector| match selector {
            Selector::Filter(filter) => Some(filter),
            _ => None,
        })
}

/// Whether a filter of the query reads the root, with `$`.
pub(super) fn reads_root(query: &JpQuery) -> bool {
    filters(&query.segments).any(|filter| FilterCost::of(filter).per_root_value > 0)
}

/// Maximum cost of a selector that does not read the root, on one value. The children that it
/// selects are added once they are known.
pub(super) fn selector_cost(selector: &Selector, value: &Value) -> Result<usize, Exceeded> {
    let Selector::Filter(filter) = selector else {
        return Ok(1);
    };
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => return Ok(1),
    };
    let cost = FilterCost::of(filter);
    let (size, depth) = measure(value);
    if depth > MAX_FILTER_DEPTH {
        return Err(Exceeded::Depth);
    }
    let queries = size.saturating_mul(cost.per_value);
    Ok(queries.saturating_add(children.saturating_mul(cost.per_child)))
}

/// Maximum cost of a query with a filter that reads the root.
pub(super) fn query_cost(query: &JpQuery, root: &Value) -> Result<usize, Exceeded> {
    let (size, depth) = measure(root);
    if depth > MAX_FILTER_DEPTH {
        return Err(Exceeded::Depth);
    }
    let repeats = query.segments.iter().fold(1_usize, |repeats, segment| {
        let levels = match segment {
            Segment::Descendant(_) => depth,
            _ => 1,
        };
        repeats
            .saturating_mul(levels)
            .saturating_mul(selectors(segment).len().max(1))
    });
    let per_value = filters(&query.segments).fold(1_usize, |units, filter| {
        let cost = FilterCost::of(filter);
        units
            .saturating_add(cost.per_child)
            .saturating_add(cost.per_value)
            .saturating_add(cost.per_root_value.saturating_mul(size))
    });
    Ok(size.saturating_mul(per_value).saturating_mul(repeats))
}

/// The cost of a filter.
#[derive(Debug, Clone, Copy, Default)]
struct FilterCost {
    /// Units per child that it applies to.
    per_child: usize,
    /// Units per descendant of the children, for queries from `@`.
    per_value: usize,
    /// Units per value of the entire content and child, for queries from `$`.
    per_root_value: usize,
}

impl FilterCost {
    fn of(filter: &Filter) -> Self {
        match filter {
            Filter::Or(filters) | Filter::And(filters) => Self::sum(filters.iter().map(Self::of)),
            Filter::Atom(FilterAtom::Filter { expr, .. }) => Self::of(expr),
            Filter::Atom(FilterAtom::Test { expr, .. }) => Self::of_test(expr),
            Filter::Atom(FilterAtom::Comparison(comparison)) => Self::of_comparison(comparison),
        }
    }

    fn sum(costs: impl Iterator<Item = Self>) -> Self {
        costs.fold(Self::default(), |sum, cost| Self {
            per_child: sum.per_child.saturating_add(cost.per_child),
            per_value: sum.per_value.saturating_add(cost.per_value),
            per_root_value: sum.per_root_value.saturating_add(cost.per_root_value),
        })
    }

    fn of_test(test: &Test) -> Self {
        match test {
            Test::RelQuery(segments) => {
                let (per_value, per_root_value) = query_units(segments);
                Self {
                    per_child: 1,
                    per_value,
                    per_root_value,
                }
            }
            Test::AbsQuery(JpQuery { segments }) => {
                let (own, nested) = query_units(segments);
                Self {
                    per_child: 1,
                    per_value: 0,
                    per_root_value: own.saturating_add(nested),
                }
            }
            Test::Function(function) => Self::of_function(function),
        }
    }

    fn of_comparison(comparison: &Comparison) -> Self {
        let (left, right) = comparison.vals();
        Self::sum([left, right].into_iter().map(|side| match side {
            Comparable::Literal(_) => Self {
                per_child: 1,
                ..Self::default()
            },
            Comparable::Function(function) => Self::of_function(function),
            // The value is copied to compare it.
            Comparable::SingularQuery(SingularQuery::Current(_)) => Self {
                per_child: 1,
                per_value: 2,
                per_root_value: 0,
            },
            Comparable::SingularQuery(SingularQuery::Root(_)) => Self {
                per_child: 1,
                per_value: 1,
                per_root_value: 2,
            },
        }))
    }

    fn of_function(function: &TestFunction) -> Self {
        match function {
            TestFunction::Length(argument) => Self::of_argument(argument),
            TestFunction::Value(argument) | TestFunction::Count(argument) => {
                Self::of_argument(argument)
            }
            TestFunction::Search(text, pattern) | TestFunction::Match(text, pattern) => {
                let build = Self {
                    per_child: regex_units(pattern),
                    ..Self::default()
                };
                Self::sum([Self::of_argument(text), Self::of_argument(pattern), build].into_iter())
            }
            TestFunction::Custom(_, arguments) => {
                // Custom functions compare all arguments with each other.
                let each = Self::sum(arguments.iter().map(Self::of_argument));
                Self {
                    per_child: each.per_child.saturating_mul(16),
                    per_value: each.per_value.saturating_mul(64),
                    per_root_value: each.per_root_value.saturating_mul(64),
                }
            }
        }
    }

    fn of_argument(argument: &FnArg) -> Self {
        match argument {
            FnArg::Literal(_) => Self {
                per_child: 1,
                ..Self::default()
            },
            FnArg::Test(test) => Self::of_test(test),
            FnArg::Filter(filter) => Self::of(filter),
        }
    }
}

/// Units of a query in a filter: per descendant of its start, and per value of the entire content
/// if a nested filter reads the root.
fn query_units(segments: &[Segment]) -> (usize, usize) {
    let mut per_root_value = 0_usize;
    let mut repeats = 1_usize;
    let mut units = 1_usize;
    let mut descents = 0;
    for segment in segments {
        let mut inner = segment;
        while let Segment::Descendant(descendant) = inner {
            // The first descent visits each value once, each further one once per level above it.
            if descents > 0 {
                repeats = repeats.saturating_mul(MAX_FILTER_DEPTH);
            }
            descents += 1;
            inner = descendant;
        }
        let selectors = selectors(inner);
        repeats = repeats.saturating_mul(selectors.len().max(1));
        let mut step = 1_usize;
        for selector in selectors {
            if let Selector::Filter(filter) = selector {
                let cost = FilterCost::of(filter);
                // A filter applies to each descendant; after a descent, once per level above it.
                let levels = if descents > 0 { MAX_FILTER_DEPTH } else { 1 };
                step = step
                    .saturating_add(cost.per_child)
                    .saturating_add(cost.per_value.saturating_mul(levels));
                // Evaluated again for each value, so always expensive.
                per_root_value = per_root_value
                    .saturating_add(cost.per_root_value.saturating_mul(NESTED_FILTER_VALUES));
            }
        }
        units = units.saturating_add(repeats.saturating_mul(step));
    }
    (units, per_root_value)
}

/// Units to compile the regular expression, which happens again for each value.
fn regex_units(pattern: &FnArg) -> usize {
    let FnArg::Literal(Literal::String(pattern)) = pattern else {
        return UNKNOWN_REGEX_UNITS;
    };
    let classes = pattern.matches('\\').count() + pattern.matches("(?").count();
    // Counted repetitions are expanded, and multiply if nested.
    let repetitions = pattern
        .split('{')
        .skip(1)
        .map(|rest| {
            let digits: String = rest
                .chars()
                .map(|c| if c == ',' { ' ' } else { c })
                .take_while(|c| *c != '}')
                .collect();
            let largest = digits
                .split(' ')
                .filter_map(|n| n.parse::<usize>().ok())
                .max();
            largest.unwrap_or(1).max(1)
        })
        .fold(1_usize, usize::saturating_mul);
    pattern
        .len()
        .saturating_mul(REGEX_UNITS_PER_BYTE)
        .saturating_add(classes.saturating_mul(REGEX_UNITS_PER_CLASS))
        .saturating_mul(repetitions)
}

#[cfg(test)]
mod tests {
    use jsonpath_rust::parser::parse_json_path;
    use serde_json::json;

    use super::*;

    fn cost_of(path: &str, value: &Value) -> Result<usize, Exceeded> {
        let query = parse_json_path(path).unwrap();
        if reads_root(&query) {
            return query_cost(&query, value);
        }
        selector_cost(&selectors(&query.segments[0])[0], value)
    }

    #[test]
    fn ordinary_filters_on_long_conversations_are_cheap() {
        let long: Vec<Value> = (0..2_000)
            .map(|n| json!({"role": "user", "content": "word ".repeat(100), "n": n}))
            .collect();
        let long = Value::Array(long);
        for path in [
            "$[?@.role=='user']",
            "$[?@.tool_calls]",
            "$[?search(@.content, 'refund|return')]",
            "$[?@.n > 10 && @.n < 20]",
            "$[?length(@.content) > 100]",
            "$[?@..tool_id]",
        ] {
            let units = cost_of(path, &long).unwrap();
            assert!(units < MAX_UNITS / 2, "{path}: {units}");
        }
    }

    #[test]
    fn multiplying_filters_exceed_the_budget() {
        let wide = Value::Array((0..5_000).map(Value::from).collect());
        for path in [
            "$[?$..a]",
            "$[?@ == $]",
            "$[?search(@.a, '(\\\\w{50}){50}')]",
            "$[?search(@.a, @.b)]",
            "$[?@..[?@..[?@..a]]]",
            "$[?@[0,0,0,0][0,0,0,0][0,0,0,0][0,0,0,0][0,0,0,0][0,0,0,0][0,0,0,0]]",
        ] {
            let units = cost_of(path, &wide).unwrap();
            assert!(units > MAX_UNITS, "{path}: {units}");
        }
    }

    #[test]
    fn rejects_work_beyond_the_budget() {
        let mut budget = Budget::new();
        assert_eq!(budget.spend(MAX_UNITS), Ok(()));
        assert_eq!(budget.spend(1), Err(Exceeded::Work));
    }
}
