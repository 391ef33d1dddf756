//! Parsing of untrusted JSON.
//!
//! Span content can be nested to any depth, and a `serde_json::Value` is parsed, printed, compared and
//! dropped by recursion. A malicious span must neither crash the process nor hide its trace, so values
//! below [`MAX_DEPTH`] levels become strings of their JSON text. Nothing is lost, and recursion over a
//! value is bounded. The parser itself runs on a growing stack.

use std::borrow::Cow;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::DeserializeSeed;
use serde_json::Value;
use thiserror::Error;

/// The levels of arrays and objects that are parsed into a tree.
pub(crate) const MAX_DEPTH: usize = 512;

/// Larger bodies are parsed on a thread that may block.
const MAX_INLINE_BYTES: usize = 256 * 1024;

/// Why a body is not the expected JSON. Each message is a noun phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum JsonError {
    /// The body is empty.
    #[error("an empty body")]
    Empty,
    /// The body is a web page.
    #[error("an HTML page")]
    Html,
    /// The text ends early.
    #[error("truncated JSON")]
    Truncated,
    /// The text is not JSON.
    #[error("a body that is not JSON")]
    Invalid,
    /// Other JSON than expected.
    #[error("{0}")]
    Unexpected(&'static str),
}

/// Parses a body without blocking the executor.
pub(crate) async fn parse_body<T: Send + 'static>(
    body: Bytes,
    parse: fn(&[u8]) -> Result<T, JsonError>,
) -> Result<T, JsonError> {
    if body.len() <= MAX_INLINE_BYTES {
        return parse(&body);
    }
    match tokio::task::spawn_blocking(move || parse(&body)).await {
        Ok(parsed) => parsed,
        Err(_) => Err(JsonError::Invalid),
    }
}

/// Parses JSON of any depth; see the module's documentation.
pub(crate) fn parse(text: &[u8]) -> Result<Value, JsonError> {
    parse_into(text, PhantomData::<Value>)
}

/// Parses JSON of any depth with a seed, so that a long body need not become one tree.
pub(crate) fn parse_into<S, T>(text: &[u8], seed: S) -> Result<T, JsonError>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let start = text.trim_ascii_start();
    if start.is_empty() {
        return Err(JsonError::Empty);
    }
    if start.starts_with(b"<") {
        return Err(JsonError::Html);
    }
    let text = flatten_below(text, MAX_DEPTH)?;
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    deserializer.disable_recursion_limit();
    let value = seed.deserialize(serde_stacker::Deserializer::new(&mut deserializer));
    value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| {
            if error.is_eof() {
                JsonError::Truncated
            } else {
                JsonError::Invalid
            }
        })
}

/// Replaces every array and object below `max_depth` levels by a string of its text.
fn flatten_below(text: &[u8], max_depth: usize) -> Result<Cow<'_, [u8]>, JsonError> {
    let mut flat: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut depth = 0_usize;
    let mut deep_start = None;
    let mut in_string = false;
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth && deep_start.is_none() {
                    deep_start = Some(at);
                }
            }
            b'}' | b']' => {
                if depth == max_depth + 1
                    && let Some(start) = deep_start.take()
                {
                    let inner = text.get(start..=at).unwrap_or_default();
                    let quoted = serde_json::to_vec(&String::from_utf8_lossy(inner))
                        .map_err(|_| JsonError::Invalid)?;
                    let flat = flat.get_or_insert_with(Vec::new);
                    flat.extend_from_slice(text.get(copied..start).unwrap_or_default());
                    flat.extend_from_slice(&quoted);
                    copied = at + 1;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
    if deep_start.is_some() {
        return Err(JsonError::Truncated);
    }
    Ok(match flat {
        None => Cow::Borrowed(text),
        Some(mut flat) => {
            flat.extend_from_slice(text.get(copied..).unwrap_or_default());
            Cow::Owned(flat)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn nested(levels: usize) -> String {
        format!("{}1{}", r#"{"a":["#.repeat(levels), "]}".repeat(levels))
    }

    #[test]
    fn classifies_bodies_that_are_not_json() {
        assert_eq!(parse(b" \n"), Err(JsonError::Empty));
        assert_eq!(parse(b" <!doctype html><p>"), Err(JsonError::Html));
        assert_eq!(parse(br#"{"a":[1,"#), Err(JsonError::Truncated));
        assert_eq!(parse(br#"{"a":"unfinish"#), Err(JsonError::Truncated));
        assert_eq!(parse(b"OK"), Err(JsonError::Invalid));
        assert_eq!(parse(b"{} {}"), Err(JsonError::Invalid));
    }

    #[test]
    fn keeps_all_digits_of_large_integers() {
        let value = parse(br#"{"id":18446744073709551615}"#).unwrap();
        assert_eq!(value["id"].to_string(), "18446744073709551615");
    }

    #[test]
    fn handles_deep_json_on_small_stack() {
        let deep = |levels| {
            format!(
                r#"{{"data":[{{"name":"shallow"}},{{"in":{}}}]}}"#,
                nested(levels)
            )
        };
        let job = move || {
            for levels in [5_000, 100_000] {
                let text = deep(levels);
                let value = parse(text.as_bytes()).unwrap();
                assert_eq!(value["data"][0]["name"], "shallow");
                assert_eq!(value.clone(), value);
                assert!(value.to_string().len() >= text.len());
                drop(value);
            }
        };
        std::thread::Builder::new()
            .stack_size(2 * 1024 * 1024)
            .spawn(job)
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn deep_values_become_text() {
        let flat = flatten_below(br#"[[{"a":"]\"["}, 2],[3]]"#, 2).unwrap();
        let value: Value = serde_json::from_slice(&flat).unwrap();
        assert_eq!(value, json!([[r#"{"a":"]\"["}"#, 2], [3]]));
        assert_eq!(flatten_below(b"[[[", 2), Err(JsonError::Truncated));
    }

    proptest! {
        #[test]
        fn shallow_text_is_unchanged(text in "[\\[\\]{}\",:a1\\\\ ]{0,60}") {
            let same = flatten_below(text.as_bytes(), 60).unwrap();
            prop_assert_eq!(same.as_ref(), text.as_bytes());
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = flatten_below(&text, 1);
        }
    }
}
