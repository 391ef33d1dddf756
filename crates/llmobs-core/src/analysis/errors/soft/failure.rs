//! Finds out whether an answer reports a failure, and where in the answer.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::keys::{DATA_ENVELOPE_KEYS, ENVELOPE_KEYS, HTTP_STATUS_KEYS};
use super::skim::skim;
use crate::analysis::truncate_chars;

/// Characters of a text that evidence shows.
pub(super) const EVIDENCE_CHARS: usize = 200;
/// Levels of nested envelopes that are opened.
const MAX_ENVELOPE_DEPTH: usize = 4;

/// The JSON object or array that a text holds.
pub(super) fn parse_json(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(trimmed).ok()
}

/// Which texts count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextRule {
    /// Texts that start like an error message, and stack traces.
    AnyError,
    /// Stack traces only.
    StackTrace,
}

/// A value that may be a failure.
struct Candidate<'a> {
    value: Cow<'a, Value>,
    path: String,
    depth: usize,
    /// Whether the value was parsed from a text. The path then ends at that text.
    inside_text: bool,
    /// Whether the value is business data.
    is_data: bool,
}

/// The path and value that show a failure, if there is one. `path` is the path of `value`.
pub(super) fn find_failure(value: &Value, path: String, rule: TextRule) -> Option<(String, Value)> {
    let mut queue = VecDeque::from([Candidate {
        value: Cow::Borrowed(value),
        path,
        depth: 0,
        inside_text: false,
        is_data: false,
    }]);
    while let Some(candidate) = queue.pop_front() {
        if let Some(failure) = candidate.failure(rule) {
            return Some(failure);
        }
        if let Value::Object(map) = candidate.value.as_ref()
            && candidate.depth < MAX_ENVELOPE_DEPTH
        {
            queue.extend(envelopes(map, &candidate));
        }
    }
    None
}

impl Candidate<'_> {
    /// The path and value that show that this value itself is a failure.
    fn failure(&self, rule: TextRule) -> Option<(String, Value)> {
        match self.value.as_ref() {
            Value::String(text) if is_error_text(text, rule) => {
                Some((self.path.clone(), shorten(&self.value)))
            }
            Value::Array(parts) => {
                // An MCP answer is a list of content parts; the first part decides.
                let text = parts.first()?.get("text")?.as_str()?;
                if !is_error_text(text, rule) {
                    return None;
                }
                let path = if self.inside_text {
                    self.path.clone()
                } else {
                    child_path(&format!("{}[0]", self.path), "text")
                };
                Some((path, shorten(&Value::String(text.to_owned()))))
            }
            Value::Object(map) => {
                let (key, value) = failure_in_object(map, self.is_data)?;
                Some(if self.inside_text {
                    (self.path.clone(), json!({key: shorten(value)}))
                } else {
                    (child_path(&self.path, key), shorten(value))
                })
            }
            _ => None,
        }
    }
}

/// The values of the envelopes in an object; texts that hold JSON are parsed.
fn envelopes(map: &Map<String, Value>, outer: &Candidate<'_>) -> Vec<Candidate<'static>> {
    let keys = ENVELOPE_KEYS
        .iter()
        .map(|key| (*key, outer.is_data))
        .chain(DATA_ENVELOPE_KEYS.iter().map(|key| (*key, true)));
    keys.filter_map(|(key, is_data)| {
        let inner = map.get(key)?;
        // A plain text is a message only under the keys of protocols.
        let (value, was_text) = match inner {
            Value::String(text) => match skim(text) {
                Some(value) => (value, true),
                None if is_data => return None,
                None => (inner.clone(), false),
            },
            Value::Object(_) => (inner.clone(), false),
            Value::Array(_) if key == "content" => (inner.clone(), false),
            _ => return None,
        };
        Some(Candidate {
            value: Cow::Owned(value),
            path: if outer.inside_text {
                outer.path.clone()
            } else {
                child_path(&outer.path, key)
            },
            depth: outer.depth + 1,
            inside_text: outer.inside_text || was_text,
            is_data,
        })
    })
    .collect()
}

/// The first entry of an object that reports a failure, most reliable keys first. In business data
/// only keys that belong to protocols count.
fn failure_in_object(map: &Map<String, Value>, is_data: bool) -> Option<(&'static str, &Value)> {
    let is_true = |key| map.get(key) == Some(&Value::Bool(true));
    let is_false = |key| map.get(key) == Some(&Value::Bool(false));
    let entry = |key: &'static str| map.get(key).map(|value| (key, value));
    for key in ["isError", "is_error"] {
        if is_true(key) {
            return entry(key);
        }
    }
    for key in ["success", "ok"] {
        if is_false(key) {
            return entry(key);
        }
    }
    if let Some(found) = http_failure(map, HTTP_STATUS_KEYS) {
        return Some(found);
    }
    let reports_success = ["success", "ok"].into_iter().any(is_true)
        || ["isError", "is_error"].into_iter().any(is_false);
    if !reports_success {
        for key in ["error", "errorMessage", "error_message"] {
            if map.get(key).is_some_and(is_error_value) {
                return entry(key);
            }
        }
        if map.get("errors").is_some_and(is_error_list) {
            return entry("errors");
        }
        if !is_data && map.get("status").is_some_and(is_failure_status) {
            return entry("status");
        }
    }
    if !is_data && is_error_code(map) {
        return entry("code");
    }
    None
}

/// An HTTP status of 400 or more at one of these keys: a number, or three digits as text unless the
/// key is the ambiguous `status`.
pub(super) fn http_failure<'a>(
    map: &'a Map<String, Value>,
    keys: &[&'static str],
) -> Option<(&'static str, &'a Value)> {
    keys.iter().find_map(|key| {
        let value = map.get(*key)?;
        let status = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) if *key != "status" && text.len() == 3 => text.parse().ok(),
            _ => None,
        };
        status
            .is_some_and(|status| (400..600).contains(&status))
            .then_some((*key, value))
    })
}

/// Whether `code` is an HTTP error. Without a message beside it, `code` may be any number.
fn is_error_code(map: &Map<String, Value>) -> bool {
    let http = map
        .get("code")
        .and_then(Value::as_i64)
        .is_some_and(|code| (400..600).contains(&code));
    http && ["message", "msg", "detail", "details", "reason", "title"]
        .into_iter()
        .any(|key| map.get(key).is_some_and(Value::is_string))
}

/// Whether the value of a key `error` reports an error.
pub(super) fn is_error_value(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => *yes,
        Value::String(text) => {
            let text = text.trim();
            !["", "none", "null", "nil", "false", "no", "ok", "n/a", "0"]
                .into_iter()
                .any(|nothing| text.eq_ignore_ascii_case(nothing))
        }
        // Some services report success as `{"code": 0, "message": ""}`.
        Value::Object(map) => map.values().any(|value| match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => number.as_i64().is_none_or(|number| number != 0),
            Value::String(text) => is_error_value(&Value::String(text.clone())),
            Value::Array(items) => !items.is_empty(),
            Value::Object(inner) => !inner.is_empty(),
        }),
        // A number may be a measurement, such as a mean error.
        Value::Null | Value::Number(_) | Value::Array(_) => false,
    }
}

fn is_error_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| {
        items.iter().any(|item| match item {
            Value::String(_) | Value::Bool(_) => is_error_value(item),
            Value::Object(map) => !map.is_empty(),
            _ => false,
        })
    })
}

fn is_failure_status(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        ["error", "failed", "failure"]
            .into_iter()
            .any(|word| text.trim().eq_ignore_ascii_case(word))
    })
}

/// Whether a text starts like an error message: a stack trace, `Error:`, `Exception:`, or an error
/// class and a colon. `MeanSquaredError: 0.2` is a measurement.
fn is_error_text(text: &str, rule: TextRule) -> bool {
    let text = text.trim_start();
    if text.starts_with("Traceback (most recent call last)") {
        return true;
    }
    if rule == TextRule::StackTrace {
        return false;
    }
    if text.starts_with("Error executing tool") || text.starts_with("Error invoking tool") {
        return true;
    }
    let Some((class, rest)) = text.split_once(':') else {
        return false;
    };
    let is_class = class.len() <= 100
        && class
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
    let names_error = class.eq_ignore_ascii_case("error")
        || class.eq_ignore_ascii_case("exception")
        || class.ends_with("Error")
        || class.ends_with("Exception");
    is_class
        && names_error
        && !rest.trim().is_empty()
        && (is_generic(class) || !is_measurement(rest))
}

/// Whether a class is just `Error` or `Exception`, which no measurement is named: `Error: 404` is a
/// failure.
fn is_generic(class: &str) -> bool {
    class.len() <= "exception".len()
}

/// Whether a text starts with a decimal number, or is a single number.
fn is_measurement(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    let number = first.trim_end_matches([',', '%', ';']);
    number.parse::<f64>().is_ok() && (number.contains('.') || words.next().is_none())
}

/// A JSONPath extended by a key.
pub(super) fn child_path(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain {
        format!("{path}.{key}")
    } else {
        format!("{path}['{key}']")
    }
}

/// Shortens a value to [`EVIDENCE_CHARS`].
pub(super) fn shorten(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        scalar => return scalar.clone(),
    };
    match truncate_chars(&text, EVIDENCE_CHARS) {
        (start, true) => Value::String(format!("{start}…")),
        (_, false) => value.clone(),
    }
}
