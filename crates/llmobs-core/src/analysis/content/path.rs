//! JSONPath (RFC 9535) over the content of a span.
//!
//! Callers write paths from memory, so two liberties are taken: `$.[` means `$[`, and the messages
//! and documents of a span may be addressed from an object (`$.messages[0]`) or from the bare
//! array (`$[0]`). Paths come from strangers too, so one that would take unbounded work is refused
//! before it does it.

use std::borrow::Cow;

use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::{Value, json};

use super::ContentField;
use super::budget::{self, Budget};

/// Longest path accepted, in characters.
pub const MAX_PATH_CHARS: usize = 1_000;
/// Brackets and parentheses inside each other that are accepted.
const MAX_NESTING: usize = 32;
/// Function calls inside each other that are accepted: the parser's work doubles and more with
/// each.
const MAX_FUNCTION_NESTING: usize = 2;

/// What a path selected.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The value of a singular path, null when nothing is there; else an array of all matches.
    pub value: Value,
    /// Number of matches.
    pub matched: usize,
    /// Whether the path can match at most one value: it consists of names and indexes alone.
    pub singular: bool,
    /// Whether the field is text that is no JSON, where only `$` finds anything.
    pub plain_text: bool,
}

/// A path that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath, byte {position}: {message}. A path that works on this field: {example}")]
pub struct PathError {
    /// Where the trouble is, in bytes from the start of the path.
    pub position: usize,
    /// What the trouble is.
    pub message: String,
    /// A path that works on the field.
    pub example: &'static str,
}

/// Selects parts of a field's content, as [`super::field_value`] gives it.
///
/// A text that is JSON is looked into. Messages and documents have two roots: a path that begins
/// with the field's name sees an object of that one key; any other sees the bare array, and the
/// object only if the array has nothing to match.
pub fn select(value: &Value, path: &str, field: ContentField) -> Result<Selection, PathError> {
    let (query, fail) = parse(path, field)?;
    let mut budget = Budget::new();
    let too_much = |error: budget::Exceeded| fail(0, error.to_string());
    if matches!(field, ContentField::Messages | ContentField::Documents) {
        let object = || json!({field.as_str(): value});
        let named = matches!(query.segments.first(),
            Some(Segment::Selector(Selector::Name(name))) if name == field.as_str());
        if named {
            return run(&query, &object(), &mut budget).map_err(too_much);
        }
        let bare = run(&query, value, &mut budget).map_err(too_much)?;
        if bare.matched > 0 {
            return Ok(bare);
        }
        return run(&query, &object(), &mut budget).map_err(too_much);
    }
    let root = match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner) if inner.is_object() || inner.is_array() => Cow::Owned(inner),
            _ => Cow::Borrowed(value),
        },
        other => Cow::Borrowed(other),
    };
    let mut selection = run(&query, &root, &mut budget).map_err(too_much)?;
    selection.plain_text = root.is_string();
    Ok(selection)
}

/// Reads a path; also gives the function that makes errors about it.
fn parse(
    path: &str,
    field: ContentField,
) -> Result<(JpQuery, impl Fn(usize, String) -> PathError), PathError> {
    let fail = move |position: usize, message: String| PathError {
        position,
        message,
        example: field.example_path(),
    };
    if let Some((position, message)) = refused(path) {
        return Err(fail(position, message));
    }
    let (text, dropped) = without_dots_before_brackets(path);
    match parse_json_path(&text) {
        Ok(query) => Ok((query, fail)),
        Err(error) => {
            if let Some(message) = unclosed(path) {
                return Err(fail(path.len(), message));
            }
            let at = position_of(&error).unwrap_or_default();
            // Dots that were dropped before this place move it to the right.
            let position = dropped
                .iter()
                .fold(at, |position, dot| position + usize::from(*dot <= position));
            let position = position.min(path.len());
            Err(fail(position, what_is_wrong(path, position)))
        }
    }
}

/// What is refused before the parser sees it: lengths and nestings that would cost it too much.
fn refused(path: &str) -> Option<(usize, String)> {
    if path.trim().is_empty() {
        return Some((0, "the path is empty".to_owned()));
    }
    if !path.starts_with('$') {
        return Some((0, "a path starts with `$`".to_owned()));
    }
    if let Some((position, _)) = path.char_indices().nth(MAX_PATH_CHARS) {
        let message = format!("the path is longer than {MAX_PATH_CHARS} characters");
        return Some((position, message));
    }
    let mut open = Vec::new();
    let mut functions = 0;
    let mut before = ' ';
    for (position, c) in outside_strings(path) {
        match c {
            '(' | '[' => {
                let is_function = c == '(' && (before.is_ascii_alphanumeric() || before == '_');
                open.push(is_function);
                functions += usize::from(is_function);
                if open.len() > MAX_NESTING {
                    let message = format!("more than {MAX_NESTING} brackets inside each other");
                    return Some((position, message));
                }
                if functions > MAX_FUNCTION_NESTING {
                    let message =
                        format!("more than {MAX_FUNCTION_NESTING} functions inside each other");
                    return Some((position, message));
                }
            }
            ')' | ']' => functions -= usize::from(open.pop().unwrap_or_default()),
            c if c.is_control() && !c.is_ascii_whitespace() => {
                return Some((position, "a control character".to_owned()));
            }
            _ => {}
        }
        if !c.is_whitespace() {
            before = c;
        }
    }
    None
}

/// What a path that ends too early leaves open.
fn unclosed(path: &str) -> Option<String> {
    let mut open = Vec::new();
    for (position, c) in outside_strings(path) {
        match c {
            '(' | '[' => open.push((position, c)),
            ')' | ']' => {
                open.pop();
            }
            _ => {}
        }
    }
    let (position, c) = open.pop()?;
    Some(format!(
        "the path ends too early: `{c}` at byte {position} is not closed"
    ))
}

/// The characters of a path that are no part of a quoted name or text, with their byte positions.
fn outside_strings(path: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut escaped = false;
    path.char_indices().filter(move |(_, c)| match quote {
        Some(_) if escaped => {
            escaped = false;
            false
        }
        Some(open) => {
            escaped = *c == '\\';
            if *c == open {
                quote = None;
            }
            false
        }
        None => {
            if *c == '\'' || *c == '"' {
                quote = Some(*c);
            }
            true
        }
    })
}

/// `$.[0]` as `$[0]`, and where dots were dropped. `..[` has a meaning of its own.
fn without_dots_before_brackets(path: &str) -> (Cow<'_, str>, Vec<usize>) {
    let mut dropped = Vec::new();
    let (mut earlier, mut last) = (None, None);
    for (position, c) in outside_strings(path) {
        if let Some((dot, '.')) = last
            && c == '['
            && dot + 1 == position
            && earlier.is_none_or(|(_, c)| c != '.')
        {
            dropped.push(dot);
        }
        (earlier, last) = (last, Some((position, c)));
    }
    if dropped.is_empty() {
        return (Cow::Borrowed(path), dropped);
    }
    let text = path
        .char_indices()
        .filter(|(position, _)| dropped.binary_search(position).is_err())
        .map(|(_, c)| c)
        .collect();
    (Cow::Owned(text), dropped)
}

/// Where the parser stopped. Its error type comes from a crate that is not ours to name, so the
/// number is read from its debug form: `Pos(7)` or `Span((7, 9))`.
fn position_of(error: &JsonPathError) -> Option<usize> {
    let JsonPathError::PestError(error) = error else {
        return None;
    };
    let debug = format!("{:?}", error.location);
    let digits: String = debug
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

fn what_is_wrong(path: &str, position: usize) -> String {
    match path.get(position..).and_then(|rest| rest.chars().next()) {
        None => "the path ends too early".to_owned(),
        Some('-') if position > 0 => {
            "`-` does not fit here; a name with special characters is written ['a-b']".to_owned()
        }
        Some(c) if c.is_control() => "a control character".to_owned(),
        Some(c) if position > 0 => format!("`{c}` does not fit here"),
        Some(_) => "this is no JSONPath".to_owned(),
    }
}

fn run(query: &JpQuery, root: &Value, budget: &mut Budget) -> Result<Selection, budget::Exceeded> {
    let singular = query.segments.iter().all(|segment| {
        matches!(
            segment,
            Segment::Selector(Selector::Name(_) | Selector::Index(_))
        )
    });
    let matches = if budget::looks_at_root(query) {
        // Only the crate, run on the whole, knows what `$` is inside a filter.
        budget.spend(budget::whole_cost(query, root)?)?;
        evaluate(query, root)
    } else {
        let mut matches = vec![root];
        for segment in &query.segments {
            matches = step(segment, &matches, budget)?;
        }
        matches
    };
    let matched = matches.len();
    for value in &matches {
        budget.spend(budget::weight(value))?;
    }
    let value = if singular {
        matches
            .first()
            .map_or(Value::Null, |value| (*value).clone())
    } else {
        Value::Array(matches.into_iter().cloned().collect())
    };
    Ok(Selection {
        value,
        matched,
        singular,
        plain_text: false,
    })
}

/// The crate's evaluation. It fails only for queries that are no query, which no path parses to.
fn evaluate<'v>(query: &JpQuery, root: &'v Value) -> Vec<&'v Value> {
    js_path_process(query, root)
        .unwrap_or_default()
        .into_iter()
        .map(|found| found.val)
        .collect()
}

/// Applies one segment to each value found so far. The crate selects children; descents are walked
/// here, as it would recurse, and the budget is asked before each step.
fn step<'v>(
    segment: &Segment,
    from: &[&'v Value],
    budget: &mut Budget,
) -> Result<Vec<&'v Value>, budget::Exceeded> {
    let mut from = Cow::Borrowed(from);
    let mut segment = segment;
    while let Segment::Descendant(inner) = segment {
        let mut all = Vec::new();
        for value in from.iter() {
            descendants(value, &mut all, budget)?;
        }
        from = Cow::Owned(all);
        segment = inner;
    }
    let queries: Vec<JpQuery> = budget::selectors_of(segment)
        .iter()
        .map(|selector| JpQuery::new(vec![Segment::Selector(selector.clone())]))
        .collect();
    let mut found = Vec::new();
    for value in from.iter() {
        for (selector, query) in budget::selectors_of(segment).iter().zip(&queries) {
            budget.spend(budget::cost(selector, value)?)?;
            let children = evaluate(query, value);
            budget.spend(children.len())?;
            found.extend(children);
        }
    }
    Ok(found)
}

/// A value and all below it, parents before children.
fn descendants<'v>(
    value: &'v Value,
    into: &mut Vec<&'v Value>,
    budget: &mut Budget,
) -> Result<(), budget::Exceeded> {
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        budget.spend(1)?;
        match value {
            Value::Array(items) => stack.extend(items.iter().rev()),
            Value::Object(map) => stack.extend(map.values().rev()),
            // Nothing can be selected from a scalar.
            _ => continue,
        }
        into.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
