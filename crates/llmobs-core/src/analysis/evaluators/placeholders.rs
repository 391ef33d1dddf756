//! `{{placeholders}}` of a judge's prompt: reading them, and filling them from a span, a trace or a
//! session exactly as Datadog documents it.
//!
//! ```text
//! placeholder := "{{" ( "*" | path ) "}}"
//! path        := segment ( "." segment )*
//! segment     := name selector*
//! selector    := "[" ( "*" | index | first "," last | path ":" value ) "]"
//! ```
//!
//! A name on a list applies to each of its items. What is missing or out of range is empty; text
//! stands as it is; a list of texts is joined by newlines; all else is compact JSON.

use serde_json::Value;
use thiserror::Error;

/// What one placeholder brings is cut at this size, in bytes.
const MAX_BYTES: usize = 250 * 1024;

/// A text with placeholders, ready to be filled.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Placeholder { written: String, path: Path },
}

#[derive(Debug, Clone, PartialEq)]
enum Path {
    Whole,
    Segments(Vec<Segment>),
}

#[derive(Debug, Clone, PartialEq)]
struct Segment {
    name: String,
    selectors: Vec<Selector>,
}

#[derive(Debug, Clone, PartialEq)]
enum Selector {
    All,
    Index(usize),
    /// Both ends belong to it.
    Range(usize, usize),
    Equals {
        path: Vec<String>,
        value: String,
    },
}

/// Why a placeholder cannot be read. The words repeat nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("placeholder {number} {what}")]
pub struct PlaceholderError {
    /// Which placeholder, counted from 1.
    number: usize,
    what: &'static str,
}

/// A filled text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FilledText {
    pub(super) text: String,
    /// The placeholders that brought nothing, as written.
    pub(super) empty: Vec<String>,
    /// The placeholders whose text was cut.
    pub(super) cut: Vec<String>,
}

impl PromptTemplate {
    /// Reads a text.
    ///
    /// # Errors
    /// A [`PlaceholderError`] for the first placeholder that cannot be read.
    pub fn parse(text: &str) -> Result<Self, PlaceholderError> {
        let mut parts = Vec::new();
        let mut rest = text;
        let mut number = 0;
        while let Some((before, after)) = rest.split_once("{{") {
            number += 1;
            let wrong = |what| PlaceholderError { number, what };
            let (inside, tail) = after
                .split_once("}}")
                .ok_or(wrong("is opened with {{ and never closed with }}"))?;
            parts.push(Part::Text(before.to_owned()));
            let written = inside.trim();
            let path = if written == "*" {
                Path::Whole
            } else {
                Path::Segments(Reader::new(written).path().map_err(wrong)?)
            };
            parts.push(Part::Placeholder {
                written: written.to_owned(),
                path,
            });
            rest = tail;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts })
    }

    /// The first name of every placeholder; `*` for the whole.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Placeholder {
                path: Path::Whole, ..
            } => Some("*"),
            Part::Placeholder {
                path: Path::Segments(segments),
                ..
            } => segments.first().map(|segment| segment.name.as_str()),
        })
    }

    /// Fills the placeholders. `whole` is what `{{*}}` stands for.
    pub(super) fn fill(&self, context: &Value, whole: &Value) -> FilledText {
        let mut filled = FilledText::default();
        for part in &self.parts {
            let (written, path) = match part {
                Part::Text(text) => {
                    filled.text.push_str(text);
                    continue;
                }
                Part::Placeholder { written, path } => (written, path),
            };
            let text = match path {
                Path::Whole => shown(whole),
                Path::Segments(segments) => resolve(context, segments)
                    .map(|value| shown(&value))
                    .unwrap_or_default(),
            };
            if text.is_empty() && !filled.empty.contains(written) {
                filled.empty.push(written.clone());
            }
            let kept = cut(&text);
            if kept.len() < text.len() && !filled.cut.contains(written) {
                filled.cut.push(written.clone());
            }
            filled.text.push_str(kept);
        }
        filled
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= MAX_BYTES {
        return text;
    }
    let end = (0..=MAX_BYTES)
        .rev()
        .find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// A value as the judge reads it.
fn shown(value: &Value) -> String {
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

/// The value at a path. A path that went over a list gives a list.
fn resolve(context: &Value, segments: &[Segment]) -> Option<Value> {
    let mut current = vec![context];
    let mut many = false;
    for segment in segments {
        let mut next = Vec::new();
        for value in current {
            match value {
                // A name on a list applies to each of its items.
                Value::Array(items) => {
                    many = true;
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
            many |= !matches!(selector, Selector::Index(_));
            next = selected;
        }
        current = next;
    }
    if many {
        Some(Value::Array(current.into_iter().cloned().collect()))
    } else {
        current.first().map(|value| (*value).clone())
    }
}

fn equals(item: &Value, path: &[String], wanted: &str) -> bool {
    let mut value = item;
    for name in path {
        match value.get(name) {
            Some(inner) => value = inner,
            None => return false,
        }
    }
    match value {
        Value::String(text) => text == wanted,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
        other => {
            let text = other.to_string();
            text == wanted
        }
    }
}

/// Reads one path.
struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            chars: text.chars().peekable(),
        }
    }

    fn path(mut self) -> Result<Vec<Segment>, &'static str> {
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
            segments.push(Segment { name, selectors });
            match self.chars.next() {
                None => return Ok(segments),
                Some('.') => {}
                Some(_) => {
                    return Err("may hold names, dots and [selectors] only, such as spans[0].name");
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
                return Err("counts from the end, which is not possible; the first is [0]");
            }
            text.parse::<usize>()
                .map_err(|_| "needs [0], [0,4], [*] or [path:value] between its brackets")
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

    fn world() -> Value {
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
    fn placeholders_resolve_as_documented(#[case] text: &str, #[case] filled: &str) {
        let template = PromptTemplate::parse(text).unwrap();
        assert_eq!(template.fill(&world(), &json!("all")).text, filled);
    }

    #[test]
    fn the_star_is_the_whole_and_empty_ones_are_named_once() {
        let template = PromptTemplate::parse("{{*}}{{nope}}{{nope}}{{list}}").unwrap();
        let filled = template.fill(&world(), &json!({"k": 1}));
        assert_eq!(filled.text, r#"{"k":1}"#);
        assert_eq!(filled.empty, ["nope", "list"]);
    }

    #[test]
    fn a_large_field_is_cut_between_characters() {
        let template = PromptTemplate::parse("{{big}}").unwrap();
        let filled = template.fill(&json!({"big": "é".repeat(200_000)}), &Value::Null);
        assert_eq!(filled.text.len(), MAX_BYTES);
        assert_eq!(filled.cut, ["big"]);
    }

    #[rstest]
    #[case("{{spans[-1]}}", "from the end")]
    #[case("x {{ok}} {{", "placeholder 2 is opened")]
    #[case("{{}}", "needs a name")]
    #[case("{{a..b}}", "needs a name")]
    #[case("{{a b}}", "may hold names")]
    #[case("{{a[}}", "never closed")]
    #[case("{{a[x]}}", "needs [0]")]
    #[case("{{a[:x]}}", "before the colon")]
    fn what_cannot_be_read_says_why(#[case] text: &str, #[case] words: &str) {
        let error = PromptTemplate::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_text_without_braces_stays(text in "[a-z{}\\[\\]*.:,0-9 -]{0,40}") {
            if let Ok(template) = PromptTemplate::parse(&text) {
                let filled = template.fill(&world(), &Value::Null).text;
                if !text.contains("{{") {
                    prop_assert_eq!(filled, text);
                }
            }
        }
    }
}
