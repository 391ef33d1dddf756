//! Whether an answer says that it failed, and where in it.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::sketch::sketch;
use crate::analysis::truncate_chars;

/// Characters of a text kept as evidence.
pub(super) const SHORT_CHARS: usize = 200;
/// Envelopes around envelopes that are opened.
const MAX_DEPTH: usize = 4;

pub(super) fn json_in(text: &str) -> Option<Value> {
    let trimmed = text.trim();
    if !trimmed.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(trimmed).ok()
}

/// Which texts count as failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// Whatever starts as an error message does.
    AnyError,
    /// Only a stack trace.
    StackTrace,
}

/// Keys whose value is another envelope around an answer.
pub(super) const ENVELOPES: [&str; 10] = [
    "result",
    "response",
    "output",
    "body",
    "content",
    "structuredContent",
    "return_value",
    "kwargs",
    "http",
    "error_details",
];
/// Envelopes that hold business data: a record found there may rightly have the status `failed`.
pub(super) const DATA_ENVELOPES: [&str; 2] = ["data", "payload"];

/// The other keys that are looked at, of an object or of a content part.
pub(super) const TELLING_KEYS: &[&str] = &[
    "isError",
    "is_error",
    "success",
    "ok",
    "status_code",
    "statusCode",
    "http.status",
    "http.status_code",
    "http_status",
    "http_status_code",
    "httpStatus",
    "httpStatusCode",
    "response_code",
    "responseCode",
    "status",
    "error",
    "errorMessage",
    "error_message",
    "errors",
    "code",
    "message",
    "msg",
    "detail",
    "details",
    "reason",
    "title",
    "text",
];

/// What is left to judge: a value, its path, and how strict to be.
struct Candidate<'a> {
    value: Cow<'a, Value>,
    path: String,
    depth: usize,
    /// Whether the value was parsed out of a text, which the path cannot enter.
    inside_text: bool,
    /// Whether this is business data.
    data: bool,
}

pub(super) fn judge(value: &Value, path: String, texts: Texts) -> Option<(String, Value)> {
    let mut queue = VecDeque::from([Candidate {
        value: Cow::Borrowed(value),
        path,
        depth: 0,
        inside_text: false,
        data: false,
    }]);
    while let Some(candidate) = queue.pop_front() {
        match candidate.value.as_ref() {
            Value::String(text) if failed_text(text, texts) => {
                return Some((candidate.path, short(&candidate.value)));
            }
            Value::Array(parts) => {
                // MCP answers: a list of content parts; the first one speaks.
                if let Some(text) = parts.first().and_then(|part| part.get("text"))
                    && let Some(text) = text.as_str()
                    && failed_text(text, texts)
                {
                    let inner = child_path(&format!("{}[0]", candidate.path), "text");
                    let path = if candidate.inside_text {
                        candidate.path
                    } else {
                        inner
                    };
                    return Some((path, short(&Value::String(text.to_owned()))));
                }
            }
            Value::Object(map) => {
                if let Some((key, value)) = failed_object(map, candidate.data) {
                    return Some(if candidate.inside_text {
                        (candidate.path, json!({key: short(value)}))
                    } else {
                        (child_path(&candidate.path, key), short(value))
                    });
                }
                if candidate.depth < MAX_DEPTH {
                    queue.extend(envelopes(map, &candidate));
                }
            }
            _ => {}
        }
    }
    None
}

/// The envelopes inside an object, texts that hold JSON opened.
fn envelopes(map: &Map<String, Value>, around: &Candidate<'_>) -> Vec<Candidate<'static>> {
    let keys = ENVELOPES
        .iter()
        .map(|key| (*key, around.data))
        .chain(DATA_ENVELOPES.iter().map(|key| (*key, true)));
    keys.filter_map(|(key, data)| {
        let inner = map.get(key)?;
        // A plain text is a message only where protocols put one.
        let (value, opened) = match inner {
            Value::String(text) => match sketch(text) {
                Some(value) => (value, true),
                None if data => return None,
                None => (inner.clone(), false),
            },
            Value::Object(_) => (inner.clone(), false),
            Value::Array(_) if key == "content" => (inner.clone(), false),
            _ => return None,
        };
        Some(Candidate {
            value: Cow::Owned(value),
            path: if around.inside_text {
                around.path.clone()
            } else {
                child_path(&around.path, key)
            },
            depth: around.depth + 1,
            inside_text: around.inside_text || opened,
            data,
        })
    })
    .collect()
}

const HTTP_KEYS: &[&str] = &[
    "status_code",
    "statusCode",
    "http.status",
    "http.status_code",
    "http_status",
    "http_status_code",
    "httpStatus",
    "httpStatusCode",
    "response_code",
    "responseCode",
    "status",
];
/// In metadata a bare `status` may mean anything.
pub(super) const HTTP_METADATA_KEYS: &[&str] = &[
    "http.status",
    "http.status_code",
    "http.response.status_code",
    "http_status",
    "http_status_code",
    "status_code",
    "statusCode",
];

/// The key of an object that says "failed", surest first. In business data only what a
/// protocol would say counts.
fn failed_object(map: &Map<String, Value>, data: bool) -> Option<(&'static str, &Value)> {
    let is_true = |key| map.get(key) == Some(&Value::Bool(true));
    let is_false = |key| map.get(key) == Some(&Value::Bool(false));
    let named = |key: &'static str| map.get(key).map(|value| (key, value));
    for key in ["isError", "is_error"] {
        if is_true(key) {
            return named(key);
        }
    }
    for key in ["success", "ok"] {
        if is_false(key) {
            return named(key);
        }
    }
    if let Some(found) = http_failure(map, HTTP_KEYS) {
        return Some(found);
    }
    let denied = ["success", "ok"].into_iter().any(is_true)
        || ["isError", "is_error"].into_iter().any(is_false);
    if !denied {
        for key in ["error", "errorMessage", "error_message"] {
            if map.get(key).is_some_and(tells_error) {
                return named(key);
            }
        }
        if map.get("errors").is_some_and(is_error_list) {
            return named("errors");
        }
        if !data && map.get("status").is_some_and(is_failed_word) {
            return named("status");
        }
    }
    if !data && is_error_code(map) {
        return named("code");
    }
    None
}

/// An HTTP status of 400 or more under one of these keys: a number, or three digits as text where
/// the key can mean nothing else.
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

/// `code` alone is any number; beside a message it is an HTTP status.
fn is_error_code(map: &Map<String, Value>) -> bool {
    let http = map
        .get("code")
        .and_then(Value::as_i64)
        .is_some_and(|code| (400..600).contains(&code));
    http && ["message", "msg", "detail", "details", "reason", "title"]
        .into_iter()
        .any(|key| map.get(key).is_some_and(Value::is_string))
}

/// Whether the value of a key `error` says that there is one.
pub(super) fn tells_error(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => *yes,
        Value::String(text) => {
            let text = text.trim();
            !["", "none", "null", "nil", "false", "no", "ok", "n/a", "0"]
                .into_iter()
                .any(|nothing| text.eq_ignore_ascii_case(nothing))
        }
        // `{"code": 0, "message": ""}` is how some services spell "no error".
        Value::Object(map) => map.values().any(|value| match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => number.as_i64().is_none_or(|number| number != 0),
            Value::String(text) => tells_error(&Value::String(text.clone())),
            Value::Array(items) => !items.is_empty(),
            Value::Object(inner) => !inner.is_empty(),
        }),
        // A number is a measure as often as a code.
        Value::Null | Value::Number(_) | Value::Array(_) => false,
    }
}

fn is_error_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| {
        items.iter().any(|item| match item {
            Value::String(_) | Value::Bool(_) => tells_error(item),
            Value::Object(map) => !map.is_empty(),
            _ => false,
        })
    })
}

fn is_failed_word(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        ["error", "failed", "failure"]
            .into_iter()
            .any(|word| text.trim().eq_ignore_ascii_case(word))
    })
}

/// Whether a text starts as only an error message does: a stack trace, `Error:`, `Exception:`, or
/// a class of error and a colon. `MeanSquaredError: 0.2` is a measure.
fn failed_text(text: &str, texts: Texts) -> bool {
    let text = text.trim_start();
    if text.starts_with("Traceback (most recent call last)") {
        return true;
    }
    if texts == Texts::StackTrace {
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
    let named = class.eq_ignore_ascii_case("error")
        || class.eq_ignore_ascii_case("exception")
        || class.ends_with("Error")
        || class.ends_with("Exception");
    is_class && named && !rest.trim().is_empty() && (is_bare(class) || !is_measure(rest))
}

/// `Error` and `Exception` alone name no measure: `Error: 404` is a failure.
fn is_bare(class: &str) -> bool {
    class.len() <= "exception".len()
}

/// Whether a text begins with a decimal number, or is one number alone.
fn is_measure(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next() else {
        return false;
    };
    let number = first.trim_end_matches([',', '%', ';']);
    number.parse::<f64>().is_ok() && (number.contains('.') || words.next().is_none())
}

/// A JSONPath one key further.
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

/// A value cut to what one line can show.
pub(super) fn short(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        scalar => return scalar.clone(),
    };
    match truncate_chars(&text, SHORT_CHARS) {
        (start, true) => Value::String(format!("{start}…")),
        (_, false) => value.clone(),
    }
}
