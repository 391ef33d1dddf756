//! How much work a JSONPath may take.
//!
//! A path of a few hundred characters can ask for more steps than there are atoms: unions and
//! descents multiply, filters run once per value and may hold queries and regular expressions of
//! their own. Each step is estimated, from above, before it is done; a path that would pass the
//! limit is refused.

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector,
    SingularQuery, Test, TestFunction,
};
use serde_json::Value;

/// Units of work for one path: about a second.
const LIMIT: usize = 10_000_000;
/// Bytes of text that weigh as much as one value.
const BYTES_PER_UNIT: usize = 64;
/// Levels below which a filter may search with `..`: the crate recurses there.
const MAX_FILTER_DEPTH: usize = 300;
/// Units to build a regular expression, for each character of it.
const REGEX_UNITS: usize = 30;
/// Units for each class such as `\w`, which stands for many ranges.
const CLASS_UNITS: usize = 2_000;
/// Values for which a filter inside a filter is thought to look at the whole content.
const NESTED_ROOT: usize = 10_000;
/// Units for a regular expression that comes from the data.
const UNKNOWN_REGEX_UNITS: usize = 100_000;

/// Why a path was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    /// It would take too long on this content.
    #[error("this path takes too much work on this content; name what is wanted more closely")]
    Work,
    /// Its filter would recurse too deeply.
    #[error(
        "this content is nested too deeply for a filter; select by names and indexes, or with `..`"
    )]
    Depth,
}

/// What is left to spend.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: LIMIT }
    }

    /// Takes some units of work.
    pub(super) fn spend(&mut self, units: usize) -> Result<(), Exceeded> {
        self.left = self.left.checked_sub(units).ok_or(Exceeded::Work)?;
        Ok(())
    }
}

/// How much a value holds: values, and pieces of text.
pub(super) fn weight(value: &Value) -> usize {
    measure(value).0
}

/// Weight and depth of a value.
fn measure(value: &Value) -> (usize, usize) {
    let mut weight = 0;
    let mut deepest = 0;
    let mut stack = vec![(value, 1)];
    while let Some((value, depth)) = stack.pop() {
        weight += 1;
        deepest = deepest.max(depth);
        match value {
            Value::String(text) => weight += text.len() / BYTES_PER_UNIT,
            Value::Array(items) => stack.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                for (key, item) in map {
                    weight += key.len() / BYTES_PER_UNIT;
                    stack.push((item, depth + 1));
                }
            }
            _ => {}
        }
    }
    (weight, deepest)
}

/// The selectors of a segment.
pub(super) fn selectors_of(segment: &Segment) -> &[Selector] {
    match segment {
        Segment::Selector(selector) => std::slice::from_ref(selector),
        Segment::Selectors(selectors) => selectors.as_slice(),
        Segment::Descendant(inner) => selectors_of(inner),
    }
}

/// The filters of a query, those inside other filters left out.
fn filters_of(segments: &[Segment]) -> impl Iterator<Item = &Filter> {
    segments
        .iter()
        .flat_map(selectors_of)
        .filter_map(|selector| match selector {
            Selector::Filter(filter) => Some(filter),
            _ => None,
        })
}

/// Whether a filter of the query looks at the whole content, with `$`.
pub(super) fn looks_at_root(query: &JpQuery) -> bool {
    filters_of(&query.segments).any(|filter| Price::of(filter).per_root > 0)
}

/// What a selector, not looking at the root, costs on one value at most. The children that it
/// selects are paid for when they are known.
pub(super) fn cost(selector: &Selector, value: &Value) -> Result<usize, Exceeded> {
    let Selector::Filter(filter) = selector else {
        return Ok(1);
    };
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => return Ok(1),
    };
    let price = Price::of(filter);
    let (weight, depth) = measure(value);
    if depth > MAX_FILTER_DEPTH {
        return Err(Exceeded::Depth);
    }
    let queries = weight.saturating_mul(price.per_weight);
    Ok(queries.saturating_add(children.saturating_mul(price.per_child)))
}

/// What a query with a filter that looks at the root costs at most.
pub(super) fn whole_cost(query: &JpQuery, root: &Value) -> Result<usize, Exceeded> {
    let (weight, depth) = measure(root);
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
            .saturating_mul(selectors_of(segment).len().max(1))
    });
    let per_value = filters_of(&query.segments).fold(1_usize, |units, filter| {
        let price = Price::of(filter);
        units
            .saturating_add(price.per_child)
            .saturating_add(price.per_weight)
            .saturating_add(price.per_root.saturating_mul(weight))
    });
    Ok(weight.saturating_mul(per_value).saturating_mul(repeats))
}

/// What a filter costs.
#[derive(Debug, Clone, Copy, Default)]
struct Price {
    /// Units for each child that it judges.
    per_child: usize,
    /// Units for each value below the children: queries from `@`.
    per_weight: usize,
    /// Units for each value of the whole content and each child: queries from `$`.
    per_root: usize,
}

impl Price {
    fn of(filter: &Filter) -> Self {
        match filter {
            Filter::Or(filters) | Filter::And(filters) => Self::sum(filters.iter().map(Self::of)),
            Filter::Atom(FilterAtom::Filter { expr, .. }) => Self::of(expr),
            Filter::Atom(FilterAtom::Test { expr, .. }) => Self::of_test(expr),
            Filter::Atom(FilterAtom::Comparison(comparison)) => Self::of_comparison(comparison),
        }
    }

    fn sum(prices: impl Iterator<Item = Self>) -> Self {
        prices.fold(Self::default(), |sum, price| Self {
            per_child: sum.per_child.saturating_add(price.per_child),
            per_weight: sum.per_weight.saturating_add(price.per_weight),
            per_root: sum.per_root.saturating_add(price.per_root),
        })
    }

    fn of_test(test: &Test) -> Self {
        match test {
            Test::RelQuery(segments) => {
                let (per_weight, per_root) = query_units(segments);
                Self {
                    per_child: 1,
                    per_weight,
                    per_root,
                }
            }
            Test::AbsQuery(JpQuery { segments }) => {
                let (own, nested) = query_units(segments);
                Self {
                    per_child: 1,
                    per_weight: 0,
                    per_root: own.saturating_add(nested),
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
            // What is found is compared, and for that copied, whole.
            Comparable::SingularQuery(SingularQuery::Current(_)) => Self {
                per_child: 1,
                per_weight: 2,
                per_root: 0,
            },
            Comparable::SingularQuery(SingularQuery::Root(_)) => Self {
                per_child: 1,
                per_weight: 1,
                per_root: 2,
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
                // These compare every argument with every other one.
                let each = Self::sum(arguments.iter().map(Self::of_argument));
                Self {
                    per_child: each.per_child.saturating_mul(16),
                    per_weight: each.per_weight.saturating_mul(64),
                    per_root: each.per_root.saturating_mul(64),
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

/// Units that a query inside a filter costs for each value below its start, and units for each
/// value of the whole content, when a filter of its own looks there.
fn query_units(segments: &[Segment]) -> (usize, usize) {
    let mut per_root = 0_usize;
    let mut repeats = 1_usize;
    let mut units = 1_usize;
    let mut descents = 0;
    for segment in segments {
        let mut inner = segment;
        while let Segment::Descendant(below) = inner {
            // The first descent visits each value once; the next one, once per level above it.
            if descents > 0 {
                repeats = repeats.saturating_mul(MAX_FILTER_DEPTH);
            }
            descents += 1;
            inner = below;
        }
        let selectors = selectors_of(inner);
        repeats = repeats.saturating_mul(selectors.len().max(1));
        let mut step = 1_usize;
        for selector in selectors {
            if let Selector::Filter(filter) = selector {
                let price = Price::of(filter);
                // A filter judges each value below; after a descent, once per level above it.
                let levels = if descents > 0 { MAX_FILTER_DEPTH } else { 1 };
                step = step
                    .saturating_add(price.per_child)
                    .saturating_add(price.per_weight.saturating_mul(levels));
                // Judged for each of many values, each time anew: never worth its cost.
                per_root = per_root.saturating_add(price.per_root.saturating_mul(NESTED_ROOT));
            }
        }
        units = units.saturating_add(repeats.saturating_mul(step));
    }
    (units, per_root)
}

/// Units to build the regular expression, which happens for each value anew.
fn regex_units(pattern: &FnArg) -> usize {
    let FnArg::Literal(Literal::String(pattern)) = pattern else {
        return UNKNOWN_REGEX_UNITS;
    };
    let classes = pattern.matches('\\').count() + pattern.matches("(?").count();
    // Counted repetitions are written out, and multiply when nested.
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
        .saturating_mul(REGEX_UNITS)
        .saturating_add(classes.saturating_mul(CLASS_UNITS))
        .saturating_mul(repetitions)
}

#[cfg(test)]
mod tests {
    use jsonpath_rust::parser::parse_json_path;
    use serde_json::json;

    use super::*;

    fn cost_of(path: &str, value: &Value) -> Result<usize, Exceeded> {
        let query = parse_json_path(path).unwrap();
        if looks_at_root(&query) {
            return whole_cost(&query, value);
        }
        cost(&selectors_of(&query.segments[0])[0], value)
    }

    #[test]
    fn ordinary_filters_are_cheap_even_on_long_conversations() {
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
            assert!(units < LIMIT / 2, "{path}: {units}");
        }
    }

    #[test]
    fn filters_that_multiply_are_too_dear() {
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
            assert!(units > LIMIT, "{path}: {units}");
        }
    }

    #[test]
    fn the_limit_is_a_limit() {
        let mut budget = Budget::new();
        assert_eq!(budget.spend(LIMIT), Ok(()));
        assert_eq!(budget.spend(1), Err(Exceeded::Work));
    }
}
