//! JSONPath (RFC 9535) on the content of a span.
//!
//! Two extensions accept common mistakes of callers: `$.[` means `$[`, and messages and documents
//! can be addressed in an object (`$.messages[0]`) or in the array itself (`$[0]`). Paths are
//! untrusted text, so a path that takes too much work is rejected before evaluation.

use std::borrow::Cow;

use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::{Value, json};

use super::ContentField;
use super::budget::{self, Budget};

/// Maximum length of a path, in characters.
pub const MAX_PATH_CHARS: usize = 1_000;
/// Maximum nesting of brackets and parentheses.
const MAX_NESTING: usize = 32;
/// Maximum nesting of function calls. Each level more than doubles the work of the parser.
const MAX_FUNCTION_NESTING: usize = 2;

/// The result of a path.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The value at a singular path, or null if there is none; for other paths, an array of all
    /// matches.
    pub value: Value,
    /// Number of matches.
    pub matched: usize,
    /// Whether the path is singular: it consists of names and indexes only, so it matches at most
    /// one value.
    pub singular: bool,
    /// Whether the field is text other than JSON, where only `$` matches.
    pub plain_text: bool,
}

/// The error for a path that is invalid or takes too much work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSONPath at byte {position}: {message}. Example for this field: {example}")]
pub struct PathError {
    /// Position of the error, in bytes from the start of the path.
    pub position: usize,
    /// What is wrong.
    pub message: String,
    /// A valid path for the field.
    pub example: &'static str,
}

/// Selects parts of the content of a field, as returned by [`super::field_value`].
///
/// A text that holds JSON is parsed. Messages and documents have two roots: a path that starts with
/// the name of the field applies to an object with that key. Any other path applies to the array,
/// and to the object only if nothing in the array matches.
///
/// # Errors
///
/// If the path is invalid or takes too much work on this content.
pub fn select(value: &Value, path: &str, field: ContentField) -> Result<Selection, PathError> {
    let query = parse(path, field)?;
    let mut budget = Budget::new();
    let exceeded = |error: budget::Exceeded| PathError::new(field, 0, error.to_string());
    if matches!(field, ContentField::Messages | ContentField::Documents) {
        let object = || json!({field.as_str(): value});
        let starts_with_name = matches!(query.segments.first(),
            Some(Segment::Selector(Selector::Name(name))) if name == field.as_str());
        if starts_with_name {
            return run(&query, &object(), &mut budget).map_err(exceeded);
        }
        let in_array = run(&query, value, &mut budget).map_err(exceeded)?;
        if in_array.matched > 0 {
            return Ok(in_array);
        }
        return run(&query, &object(), &mut budget).map_err(exceeded);
    }
    let root = match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner) if inner.is_object() || inner.is_array() => Cow::Owned(inner),
            _ => Cow::Borrowed(value),
        },
        other => Cow::Borrowed(other),
    };
    let mut selection = run(&query, &root, &mut budget).map_err(exceeded)?;
    selection.plain_text = root.is_string();
    Ok(selection)
}

impl PathError {
    fn new(field: ContentField, position: usize, message: String) -> Self {
        Self {
            position,
            message,
            example: field.example_path(),
        }
    }
}

fn parse(path: &str, field: ContentField) -> Result<JpQuery, PathError> {
    let fail = |position, message| PathError::new(field, position, message);
    if let Some((position, message)) = find_violation(path) {
        return Err(fail(position, message));
    }
    let (text, removed_dots) = remove_dots_before_brackets(path);
    parse_json_path(&text).map_err(|error| {
        if let Some(message) = unclosed_bracket(path) {
            return fail(path.len(), message);
        }
        let position = error_position(&error).unwrap_or_default();
        // Each dot removed before the position moved it to the left.
        let position = removed_dots.iter().fold(position, |position, dot| {
            position + usize::from(*dot <= position)
        });
        let position = position.min(path.len());
        fail(position, describe_error(path, position))
    })
}

/// The first violation of a limit that is checked before parsing, because parsing would take too
/// long.
fn find_violation(path: &str) -> Option<(usize, String)> {
    if path.trim().is_empty() {
        return Some((0, "the path is empty".to_owned()));
    }
    if !path.starts_with('$') {
        return Some((0, "the path must start with `$`".to_owned()));
    }
    if let Some((position, _)) = path.char_indices().nth(MAX_PATH_CHARS) {
        let message = format!("the path is longer than {MAX_PATH_CHARS} characters");
        return Some((position, message));
    }
    let mut open = Vec::new();
    let mut functions = 0;
    let mut previous = ' ';
    for (position, c) in outside_strings(path) {
        match c {
            '(' | '[' => {
                let is_function = c == '(' && (previous.is_ascii_alphanumeric() || previous == '_');
                open.push(is_function);
                functions += usize::from(is_function);
                if open.len() > MAX_NESTING {
                    let message = format!("more than {MAX_NESTING} nested brackets");
                    return Some((position, message));
                }
                if functions > MAX_FUNCTION_NESTING {
                    let message = format!("more than {MAX_FUNCTION_NESTING} nested functions");
                    return Some((position, message));
                }
            }
            ')' | ']' => functions -= usize::from(open.pop().unwrap_or_default()),
            c if c.is_control() && !c.is_ascii_whitespace() => {
                return Some((position, "control characters are not allowed".to_owned()));
            }
            _ => {}
        }
        if !c.is_whitespace() {
            previous = c;
        }
    }
    None
}

/// The message for a path with an unclosed bracket.
fn unclosed_bracket(path: &str) -> Option<String> {
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

/// The characters of a path outside quoted names and texts, with their byte positions.
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

/// Turns `$.[0]` into `$[0]`, and returns the positions of the removed dots. `..[` is valid and
/// stays.
fn remove_dots_before_brackets(path: &str) -> (Cow<'_, str>, Vec<usize>) {
    let mut removed = Vec::new();
    let (mut earlier, mut last) = (None, None);
    for (position, c) in outside_strings(path) {
        if let Some((dot, '.')) = last
            && c == '['
            && dot + 1 == position
            && earlier.is_none_or(|(_, c)| c != '.')
        {
            removed.push(dot);
        }
        (earlier, last) = (last, Some((position, c)));
    }
    if removed.is_empty() {
        return (Cow::Borrowed(path), removed);
    }
    let text = path
        .char_indices()
        .filter(|(position, _)| removed.binary_search(position).is_err())
        .map(|(_, c)| c)
        .collect();
    (Cow::Owned(text), removed)
}

/// Where the parser stopped. `jsonpath_rust` does not export the type of the location, so this
/// reads the number from its debug form: `Pos(7)` or `Span((7, 9))`.
fn error_position(error: &JsonPathError) -> Option<usize> {
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

fn describe_error(path: &str, position: usize) -> String {
    match path.get(position..).and_then(|rest| rest.chars().next()) {
        None => "the path ends too early".to_owned(),
        Some('-') if position > 0 => {
            "`-` is not valid here; quote names with special characters: ['a-b']".to_owned()
        }
        Some(c) if c.is_control() => "control characters are not allowed".to_owned(),
        Some(c) if position > 0 => format!("`{c}` is not valid here"),
        Some(_) => "this is not a JSONPath".to_owned(),
    }
}

fn run(query: &JpQuery, root: &Value, budget: &mut Budget) -> Result<Selection, budget::Exceeded> {
    let singular = query.segments.iter().all(|segment| {
        matches!(
            segment,
            Segment::Selector(Selector::Name(_) | Selector::Index(_))
        )
    });
    let matches = if budget::reads_root(query) {
        // Filters that use `$` must be evaluated with the complete query.
        budget.spend(budget::query_cost(query, root)?)?;
        evaluate(query, root)
    } else {
        let mut matches = vec![root];
        for segment in &query.segments {
            matches = apply_segment(segment, &matches, budget)?;
        }
        matches
    };
    let matched = matches.len();
    for value in &matches {
        budget.spend(budget::size(value))?;
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

/// Evaluates a query with `jsonpath_rust`, which does not fail for a parsed query.
fn evaluate<'v>(query: &JpQuery, root: &'v Value) -> Vec<&'v Value> {
    js_path_process(query, root)
        .unwrap_or_default()
        .into_iter()
        .map(|found| found.val)
        .collect()
}

/// Applies one segment to each value, within the budget. `jsonpath_rust` selects children; descents
/// are done here, because it recurses.
fn apply_segment<'v>(
    segment: &Segment,
    values: &[&'v Value],
    budget: &mut Budget,
) -> Result<Vec<&'v Value>, budget::Exceeded> {
    let mut values = Cow::Borrowed(values);
    let mut segment = segment;
    while let Segment::Descendant(inner) = segment {
        let mut all = Vec::new();
        for value in values.iter() {
            push_descendants(value, &mut all, budget)?;
        }
        values = Cow::Owned(all);
        segment = inner;
    }
    let queries: Vec<JpQuery> = budget::selectors(segment)
        .iter()
        .map(|selector| JpQuery::new(vec![Segment::Selector(selector.clone())]))
        .collect();
    let mut found = Vec::new();
    for value in values.iter() {
        for (selector, query) in budget::selectors(segment).iter().zip(&queries) {
            budget.spend(budget::selector_cost(selector, value)?)?;
            let children = evaluate(query, value);
            budget.spend(children.len())?;
            found.extend(children);
        }
    }
    Ok(found)
}

/// Appends a value and its descendants, parents before children.
fn push_descendants<'v>(
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
            // A scalar has no children to select.
            _ => continue,
        }
        into.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
