//! The targets of evaluations, and the keys that join evaluations with spans.
//!
//! An evaluation and its span arrive in any order, so neither is written into the other. An
//! evaluation is stored under the key of its target. When a span is read, the store looks up all
//! keys that can refer to the span.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use llmobs_core::model::{Evaluation, EventKind, Span, SpanId, TraceId};

/// An evaluation or feedback with its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetedEvaluation {
    /// The target.
    pub target: EvaluationTarget,
    /// The application that sent it; empty if unknown. Restricts targets that are not ids.
    pub ml_app: String,
    /// The evaluation.
    pub evaluation: Evaluation,
}

/// The target of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvaluationTarget {
    /// One span.
    Span {
        /// Its trace; `None` when the evaluation names only the span.
        trace_id: Option<TraceId>,
        /// The id of the span.
        span_id: SpanId,
    },
    /// A trace: shown on its root spans.
    Trace(TraceId),
    /// A session: shown on the root spans of its traces.
    Session(String),
    /// The spans that have a tag.
    Tag {
        /// Key of the tag.
        key: String,
        /// Value of the tag.
        value: String,
    },
    /// The spans that were sent with this `feedback_join_key`.
    JoinKey(String),
}

/// Separates the parts of a key. Escaped inside them.
const SEPARATOR: char = '\u{1f}';

/// The character after [`SEPARATOR`].
const AFTER_SEPARATOR: char = '\u{20}';

/// The first part of each key: the kind of the target.
pub(super) const SCOPES: [&str; 6] = ["span", "span-id", "trace", "session", "tag", "join-key"];

/// The bounds of all keys of a scope, in byte order: the first is inclusive, the second exclusive.
pub(super) fn scope_bounds(scope: &str) -> [String; 2] {
    [SEPARATOR, AFTER_SEPARATOR].map(|end| format!("{scope}{end}"))
}

/// The bounds of the keys of single spans of a trace.
pub(super) fn trace_bounds(trace: &str) -> [String; 2] {
    scope_bounds(&build_key("span", &[trace]))
}

/// The scope of a key.
pub(super) fn key_scope(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

/// Builds a key.
fn build_key(scope: &str, parts: &[&str]) -> String {
    let mut key = scope.to_owned();
    for part in parts {
        key.push(SEPARATOR);
        for c in part.chars() {
            if c == SEPARATOR || c == '\\' {
                key.push('\\');
            }
            key.push(c);
        }
    }
    key
}

/// The scope and the parts of a key.
pub(super) fn parse_key(key: &str) -> (&str, Vec<String>) {
    let (scope, rest) = key.split_once(SEPARATOR).unwrap_or((key, ""));
    let mut parts = vec![String::new()];
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match c {
            SEPARATOR => parts.push(String::new()),
            // The next character is literal.
            '\\' => push_last(&mut parts, characters.next()),
            c => push_last(&mut parts, Some(c)),
        }
    }
    (scope, parts)
}

fn push_last(parts: &mut [String], c: Option<char>) {
    if let Some(last) = parts.last_mut() {
        last.extend(c);
    }
}

impl EvaluationTarget {
    /// The target of a key, and the application in the key, or an empty text. `None` for a key of
    /// an unknown kind.
    pub(super) fn from_key(key: &str) -> Option<(Self, String)> {
        let (scope, parts) = parse_key(key);
        let mut parts = parts.into_iter();
        let mut part = || parts.next();
        let (target, app) = match scope {
            "span" => {
                let trace_id = Some(TraceId::from(part()?));
                let span_id = SpanId::from(part()?);
                (Self::Span { trace_id, span_id }, String::new())
            }
            "span-id" => {
                let span_id = SpanId::from(part()?);
                let target = Self::Span {
                    trace_id: None,
                    span_id,
                };
                (target, String::new())
            }
            "trace" => (Self::Trace(TraceId::from(part()?)), String::new()),
            "session" => (Self::Session(part()?), part()?),
            "tag" => {
                let (key, value) = (part()?, part()?);
                (Self::Tag { key, value }, part()?)
            }
            "join-key" => (Self::JoinKey(part()?), part()?),
            _ => return None,
        };
        parts.next().is_none().then_some((target, app))
    }
}

impl TargetedEvaluation {
    /// The key under which this evaluation is stored.
    pub(super) fn key(&self) -> String {
        let app = self.ml_app.as_str();
        match &self.target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => build_key("span", &[trace.as_str(), span_id.as_str()]),
            EvaluationTarget::Span {
                trace_id: None,
                span_id,
            } => build_key("span-id", &[span_id.as_str()]),
            EvaluationTarget::Trace(trace) => build_key("trace", &[trace.as_str()]),
            EvaluationTarget::Session(session) => build_key("session", &[session, app]),
            EvaluationTarget::Tag { key, value } => build_key("tag", &[key, value, app]),
            EvaluationTarget::JoinKey(join) => build_key("join-key", &[join, app]),
        }
    }

    /// The key of the tag, if this evaluation joins by a tag.
    pub(super) fn tag_key(&self) -> Option<&str> {
        match &self.target {
            EvaluationTarget::Tag { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// All keys under which an evaluation of this span may be stored. `tag_keys` are the tag keys that
/// evaluations join on.
pub(super) fn keys_of_span<'a>(
    span: &Span,
    tag_keys: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let apps = ["", span.ml_app.as_str()];
    let apps = if span.ml_app.is_empty() {
        apps.get(..1)
    } else {
        apps.get(..)
    }
    .unwrap_or_default();
    let mut keys = vec![
        build_key("span", &[span.trace_id.as_str(), span.span_id.as_str()]),
        build_key("span-id", &[span.span_id.as_str()]),
    ];
    if span.is_root() {
        keys.push(build_key("trace", &[span.trace_id.as_str()]));
        if let Some(session) = &span.session_id {
            keys.extend(apps.iter().map(|app| build_key("session", &[session, app])));
        }
    }
    for tag_key in tag_keys {
        for value in span.tag_values(tag_key) {
            keys.extend(
                apps.iter()
                    .map(|app| build_key("tag", &[tag_key, value, app])),
            );
        }
    }
    if let Some(join) = span.extra.get("feedback_join_key").and_then(|v| v.as_str()) {
        keys.extend(apps.iter().map(|app| build_key("join-key", &[join, app])));
    }
    keys
}

/// Adds an evaluation to a span, unless the span has a newer one with the same label.
///
/// Of equal timestamps the last one wins, so add evaluations in the order of arrival.
pub(super) fn add_to_span(span: &mut Span, evaluation: Evaluation) {
    let map: &mut BTreeMap<String, Evaluation> = match evaluation.event_kind {
        EventKind::Evaluation => &mut span.evaluations,
        EventKind::Feedback => &mut span.feedback,
    };
    let has_newer = map
        .get(&evaluation.label)
        .is_some_and(|present| present.timestamp_ms > evaluation.timestamp_ms);
    if !has_newer {
        map.insert(evaluation.label.clone(), evaluation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn keys_parse_to_their_parts(
            scope in proptest::sample::select(SCOPES.as_slice()),
            parts in proptest::collection::vec("[ab\\\\\u{1f}]{0,4}", 1..4),
        ) {
            let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let key = build_key(scope, &texts);
            proptest::prop_assert_eq!(parse_key(&key), (scope, parts.clone()));
            proptest::prop_assert_eq!(key_scope(&key), scope);
            let [first, end] = trace_bounds(&parts[0]);
            proptest::prop_assert_eq!(first <= key && key < end, scope == "span" && parts.len() > 1);
            for other in SCOPES {
                let [first, end] = scope_bounds(other);
                proptest::prop_assert_eq!(first <= key && key < end, scope == other);
            }
        }
    }

    #[test]
    fn separators_inside_parts_do_not_collide() {
        let tag = |key: &str, value: &str| {
            TargetedEvaluation {
                target: EvaluationTarget::Tag {
                    key: key.into(),
                    value: value.into(),
                },
                ml_app: "a".into(),
                evaluation: Evaluation::default(),
            }
            .key()
        };
        assert_ne!(tag("k\u{1f}v", "x"), tag("k", "v\u{1f}x"));
        assert_ne!(tag("k\\", "v"), tag("k", "\\v"));
    }

    #[test]
    fn keys_parse_to_their_targets() {
        let odd = "a\u{1f}b\\c".to_owned();
        let trace_id = Some(TraceId::from(odd.as_str()));
        let span_id = SpanId::from("\\");
        for (target, has_app) in [
            (
                EvaluationTarget::Span {
                    trace_id,
                    span_id: span_id.clone(),
                },
                false,
            ),
            (
                EvaluationTarget::Span {
                    trace_id: None,
                    span_id,
                },
                false,
            ),
            (EvaluationTarget::Trace(TraceId::from("")), false),
            (EvaluationTarget::Session(odd.clone()), true),
            (
                EvaluationTarget::Tag {
                    key: odd.clone(),
                    value: String::new(),
                },
                true,
            ),
            (EvaluationTarget::JoinKey(odd.clone()), true),
        ] {
            let targeted = TargetedEvaluation {
                target: target.clone(),
                ml_app: odd.clone(),
                evaluation: Evaluation::default(),
            };
            let app = if has_app { odd.clone() } else { String::new() };
            assert!(SCOPES.contains(&key_scope(&targeted.key())));
            let parsed = EvaluationTarget::from_key(&targeted.key());
            assert_eq!(parsed, Some((target, app)));
        }
        for unknown in [
            "",
            "span",
            "span\u{1f}t",
            "trace\u{1f}t\u{1f}more",
            "mail\u{1f}x",
        ] {
            assert_eq!(EvaluationTarget::from_key(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn newest_evaluation_wins_and_the_last_one_on_a_tie() {
        let evaluation = |ms, value: i64| Evaluation {
            label: "tone".into(),
            timestamp_ms: ms,
            value: Some(value.into()),
            ..Evaluation::default()
        };
        let mut span = Span::default();
        add_to_span(&mut span, evaluation(5, 1));
        add_to_span(&mut span, evaluation(4, 2));
        assert_eq!(span.evaluations["tone"].value, Some(1.into()));
        add_to_span(&mut span, evaluation(5, 3));
        assert_eq!(span.evaluations["tone"].value, Some(3.into()));
    }
}
