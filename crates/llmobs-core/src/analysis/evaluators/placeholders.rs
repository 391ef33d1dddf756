//! Parsing and filling of the `{{placeholders}}` in a judge's prompt, as Datadog documents them.
//!
//! ```text
//! placeholder := "{{" ( "*" | path ) "}}"
//! path        := segment ( "." segment )*
//! segment     := name selector*
//! selector    := "[" ( "*" | index | first "," last | path ":" value ) "]"
//! ```
//!
//! A name on a list applies to each item. A missing value or an index out of range gives empty
//! text. Text is inserted unchanged, a list of texts is joined by newlines, and any other value is
//! written as compact JSON.

use serde_json::Value;
use thiserror::Error;

/// Maximum size of one placeholder's value in bytes. A longer value is truncated.
const MAX_VALUE_BYTES: usize = 250 * 1024;

/// A parsed text with placeholders.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PromptTemplate {
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq)]
enum TemplatePart {
    Text(String),
    Placeholder {
        source: String,
        path: PlaceholderPath,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum PlaceholderPath {
    /// `*`: the complete context.
    FullContext,
    Segments(Vec<PathSegment>),
}

#[derive(Debug, Clone, PartialEq)]
struct PathSegment {
    name: String,
    selectors: Vec<Selector>,
}

#[derive(Debug, Clone, PartialEq)]
enum Selector {
    All,
    Index(usize),
    /// First and last index, inclusive.
    Range(usize, usize),
    Equals {
        path: Vec<String>,
        value: String,
    },
}

/// A syntax error in a placeholder. The message quotes nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("placeholder {number} {reason}")]
pub(super) struct PlaceholderError {
    /// The number of the placeholder, counted from 1.
    number: usize,
    /// The reason, as text that follows "placeholder 1".
    reason: &'static str,
}

/// A text with filled placeholders.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FilledText {
    pub(super) text: String,
    /// Placeholders without a value, as written.
    pub(super) empty: Vec<String>,
    /// Placeholders with a truncated value, as written.
    pub(super) cut: Vec<String>,
}

impl PromptTemplate {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// The first syntax error in a placeholder.
    pub(super) fn parse(text: &str) -> Result<Self, PlaceholderError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut number = 0;
        while let Some((before, after)) = rest.split_once("{{") {
            number += 1;
            let error = |reason| PlaceholderError { number, reason };
            let (inside, tail) = after
                .split_once("}}")
                .ok_or(error("starts with {{ but is never closed with }}"))?;
            parts.push(TemplatePart::Text(before.to_owned()));
            let source = inside.trim();
            let path = if source == "*" {
                PlaceholderPath::FullContext
            } else {
                PlaceholderPath::Segments(PathParser::new(source).parse().map_err(error)?)
            };
            parts.push(TemplatePart::Placeholder {
                source: source.to_owned(),
                path,
            });
            rest = tail;
        }
        parts.push(TemplatePart::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// The first name of every placeholder; `*` for the full context.
    pub(super) fn first_names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Text(_) => None,
            TemplatePart::Placeholder {
                path: PlaceholderPath::FullContext,
                ..
            } => Some("*"),
            TemplatePart::Placeholder {
                path: PlaceholderPath::Segments(segments),
                ..
            } => segments.first().map(|segment| segment.name.as_str()),
        })
    }

    /// Fills the placeholders. `full_context` is the value of `{{*}}`.
    pub(super) fn fill(&self, context: &Value, full_context: &Value) -> FilledText {
        let mut filled = FilledText::default();
        for part in &self.parts {
            let (source, path) = match part {
                TemplatePart::Text(text) => {
                    filled.text.push_str(text);
                    continue;
                }
                TemplatePart::Placeholder { source, path } => (source, path),
            };
            let text = match path {
                PlaceholderPath::FullContext => value_text(full_context),
                PlaceholderPath::Segments(segments) => resolve(context, segments)
                    .map(|value| value_text(&value))
                    .unwrap_or_default(),
            };
            if text.is_empty() && !filled.empty.contains(source) {
                filled.empty.push(source.clone());
            }
            let truncated = truncate(&text);
            if truncated.len() < text.len() && !filled.cut.contains(source) {
                filled.cut.push(source.clone());
            }
            filled.text.push_str(truncated);
        }
        filled
    }
}

/// The longest prefix of at most [`MAX_VALUE_BYTES`] that ends on a character boundary.
fn truncate(text: &str) -> &str {
    if text.len() <= MAX_VALUE_BYTES {
        return text;
    }
    let end = (0..=MAX_VALUE_BYTES)
        .rev()
        .find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// A value as text for the judge.
fn value_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

/// The value at a path. A path through a list returns a list.
fn resolve(context: &Value, segments: &[PathSegment]) -> Option<Value> {
    let mut current = vec![context];
    let mut is_list = false;
    for segment in segments {
        let mut next = Vec::new();
        for value in current {
            match value {
                // A name on a list applies to each item.
                Value::Array(items) => {
                    is_list = true;
                    next.extend(items.iter().filter_map(|item| item.get(&segment.name)));
                }
                other => next.extend(other.get(&segment.name)),
            }
        }
        for selector in &segment.selectors {
            let mut selected = Vec::new();
            for value in next {
                let Value::Array(items) = value else {
                    continue;
                };
                match selector {
                    Selector::Index(index) => selected.extend(items.get(*index)),
                    Selector::All => selected.extend(items),
                    Selector::Range(first, last) => {
                        let count = last.saturating_sub(*first).saturating_add(1);
                        let count = if first > last { 0 } else { count };
                        selected.extend(items.iter().skip(*first).take(count));
                    }
                    Selector::Equals { path, value } => {
                        selected.extend(items.iter().filter(|item| equals(item, path, value)));
                    }
                }
            }
            is_list |= !matches!(selector, Selector::Index(_));
            next = selected;
        }
        current = next;
    }
    if is_list {
        Some(Value::Array(current.into_iter().cloned().collect()))
    } else {
        current.first().map(|value| (*value).clone())
    }
}

/// Whether the value at a path of an item has the expected text.
fn equals(item: &Value, path: &[String], expected: &str) -> bool {
    let mut value = item;
    for name in path {
        match value.get(name) {
            Some(inner) => value = inner,
            None => return false,
        }
    }
    match value {
        Value::String(text) => text == expected,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
        other => {
            let text = other.to_string();
            text == expected
        }
    }
}

/// Parses one path. Errors are reasons for a [`PlaceholderError`].
struct PathParser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
}

impl<'a> PathParser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            chars: text.chars().peekable(),
        }
    }

    fn parse(mut self) -> Result<Vec<PathSegment>, &'static str> {
        let mut segments = Vec::new();
        loop {
            let name = self.name();
            if name.is_empty() {
                return Err("needs a name such as span_input or meta.output.value");
            }
            let mut selectors = Vec::new();
            while self.chars.next_if_eq(&'[').is_some() {
                selectors.push(self.selector()?);
            }
            segments.push(PathSegment { name, selectors });
            match self.chars.next() {
                None => return Ok(segments),
                Some('.') => {}
                Some(_) => {
                    return Err(
                        "may contain only names, dots and [selectors], such as spans[0].name",
                    );
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$' | '@'))
        {
            name.push(c);
        }
        name
    }

    fn selector(&mut self) -> Result<Selector, &'static str> {
        let mut inside = String::new();
        loop {
            match self.chars.next() {
                None => return Err("has a [ that is never closed"),
                Some(']') => break,
                Some(c) => inside.push(c),
            }
        }
        let inside = inside.trim();
        if inside == "*" {
            return Ok(Selector::All);
        }
        if let Some((path, value)) = inside.split_once(':') {
            let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                return Err("needs a path before the colon, such as spans[meta.span.kind:llm]");
            }
            let value = value.trim();
            let quoted = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            return Ok(Selector::Equals {
                path,
                value: quoted.unwrap_or(value).to_owned(),
            });
        }
        let index = |text: &str| {
            let text = text.trim();
            if text.starts_with('-') {
                return Err("has a negative index; indexes start at [0]");
            }
            text.parse::<usize>()
                .map_err(|_| "needs a selector such as [0], [0,4], [*] or [path:value]")
        };
        match inside.split_once(',') {
            Some((first, last)) => Ok(Selector::Range(index(first)?, index(last)?)),
            None => Ok(Selector::Index(index(inside)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn context() -> Value {
        json!({
            "span_input": "hello", "n": 3, "none": null, "list": [], "o": {"a": [1, "b"]},
            "spans": [
                {"name": "root", "meta": {"span": {"kind": "agent"}, "tags": ["x", "y"]}},
                {"name": "call", "meta": {"span": {"kind": "llm"}, "m": [{"content": "one"}, {"content": "two"}]}},
                {"name": "call 2", "meta": {"span": {"kind": "llm"}, "m": [{"content": "three"}, {}]}},
            ],
        })
    }

    #[rstest]
    #[case("{{span_input}}!", "hello!")]
    #[case("{{ span_input }}", "hello")]
    #[case("{{n}}{{none}}{{list}}{{missing.deep}}", "3")]
    #[case("{{o}}", r#"{"a":[1,"b"]}"#)]
    #[case("{{o.a}}", r#"[1,"b"]"#)]
    #[case("{{spans.name}}", "root\ncall\ncall 2")]
    #[case("{{spans[*].name}}", "root\ncall\ncall 2")]
    #[case("{{spans[1].name}}", "call")]
    #[case("{{spans[9].name}}", "")]
    #[case("{{spans[1,9].name}}", "call\ncall 2")]
    #[case("{{spans[2,1].name}}", "")]
    #[case("{{spans[meta.span.kind:llm].name}}", "call\ncall 2")]
    #[case("{{spans[name:\"call 2\"].meta.m.content}}", "three")]
    #[case("{{spans[*].meta.m[0].content}}", "one\nthree")]
    #[case("{{spans[meta.span.kind:llm].meta.m[*].content}}", "one\ntwo\nthree")]
    #[case("{{spans[0].meta.tags[1]}}", "y")]
    #[case("a {b} }} c", "a {b} }} c")]
    fn fills_placeholders_as_documented(#[case] text: &str, #[case] filled: &str) {
        let template = PromptTemplate::parse(text).unwrap();
        assert_eq!(template.fill(&context(), &json!("all")).text, filled);
    }

    #[test]
    fn fills_full_context_and_lists_empty_placeholders_once() {
        let template = PromptTemplate::parse("{{*}}{{nope}}{{nope}}{{list}}").unwrap();
        let filled = template.fill(&context(), &json!({"k": 1}));
        assert_eq!(filled.text, r#"{"k":1}"#);
        assert_eq!(filled.empty, ["nope", "list"]);
    }

    #[test]
    fn truncates_large_value_at_char_boundary() {
        let template = PromptTemplate::parse("{{big}}").unwrap();
        let filled = template.fill(&json!({"big": "é".repeat(200_000)}), &Value::Null);
        assert_eq!(filled.text.len(), MAX_VALUE_BYTES);
        assert_eq!(filled.cut, ["big"]);
    }

    #[rstest]
    #[case("{{spans[-1]}}", "negative index")]
    #[case("x {{ok}} {{", "placeholder 2 starts with {{")]
    #[case("{{}}", "needs a name")]
    #[case("{{a..b}}", "needs a name")]
    #[case("{{a b}}", "may contain only names")]
    #[case("{{a[}}", "never closed")]
    #[case("{{a[x]}}", "needs a selector")]
    #[case("{{a[:x]}}", "before the colon")]
    fn refuses_invalid_placeholder(#[case] text: &str, #[case] words: &str) {
        let error = PromptTemplate::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    proptest! {
        #[test]
        fn text_without_placeholders_is_unchanged(text in "[a-z{}\\[\\]*.:,0-9 -]{0,40}") {
            if let Ok(template) = PromptTemplate::parse(&text) {
                let filled = template.fill(&context(), &Value::Null).text;
                if !text.contains("{{") {
                    prop_assert_eq!(filled, text);
                }
            }
        }
    }
}
