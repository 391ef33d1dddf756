//! What an evaluation is about, and the keys by which it finds its spans.
//!
//! An evaluation and its span arrive in any order, so neither is written into the other: the
//! evaluation is kept under the key of its target, and a span that is read asks for all keys that
//! could mean it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use llmobs_core::model::{Evaluation, EventKind, Span, SpanId, TraceId};

/// An evaluation or feedback with what it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetedEvaluation {
    /// What it is about.
    pub target: EvaluationTarget,
    /// The application that sent it; empty when it did not say. Narrows the targets that are not ids.
    pub ml_app: String,
    /// The judgement.
    pub evaluation: Evaluation,
}

/// What an evaluation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvaluationTarget {
    /// One span.
    Span {
        /// Its trace; `None` when only the span was named.
        trace_id: Option<TraceId>,
        /// The span.
        span_id: SpanId,
    },
    /// A whole trace: shown on its root spans.
    Trace(TraceId),
    /// A whole session: shown on the root spans of its traces.
    Session(String),
    /// The spans that carry a tag.
    Tag {
        /// Key of the tag.
        key: String,
        /// Value of the tag.
        value: String,
    },
    /// The spans that were sent with this `feedback_join_key`.
    JoinKey(String),
}

/// Stands between the parts of a key; escaped inside them.
const SEPARATOR: char = '\u{1f}';

/// Comes right behind it.
const BEHIND_SEPARATOR: char = '\u{20}';

/// What keys begin with: the kinds of targets.
pub(super) const SCOPES: [&str; 6] = ["span", "span-id", "trace", "session", "tag", "join-key"];

/// All keys of a scope come at or behind the first and before the second, in the order of bytes.
pub(super) fn bounds_of(scope: &str) -> [String; 2] {
    [SEPARATOR, BEHIND_SEPARATOR].map(|end| format!("{scope}{end}"))
}

/// Likewise the keys of single spans of a trace.
pub(super) fn bounds_within(trace: &str) -> [String; 2] {
    bounds_of(&key_of("span", &[trace]))
}

/// The scope of a key.
pub(super) fn scope_of(key: &str) -> &str {
    key.split(SEPARATOR).next().unwrap_or(key)
}

fn key_of(scope: &str, parts: &[&str]) -> String {
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
            // What follows is meant literally.
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
    /// What a key means, with the application in it, if it has one. `None` for a key of no kind
    /// that is known.
    pub(super) fn of_key(key: &str) -> Option<(Self, String)> {
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
    /// The key under which this evaluation is kept.
    pub(super) fn key(&self) -> String {
        let app = self.ml_app.as_str();
        match &self.target {
            EvaluationTarget::Span {
                trace_id: Some(trace),
                span_id,
            } => key_of("span", &[trace.as_str(), span_id.as_str()]),
            EvaluationTarget::Span {
                trace_id: None,
                span_id,
            } => key_of("span-id", &[span_id.as_str()]),
            EvaluationTarget::Trace(trace) => key_of("trace", &[trace.as_str()]),
            EvaluationTarget::Session(session) => key_of("session", &[session, app]),
            EvaluationTarget::Tag { key, value } => key_of("tag", &[key, value, app]),
            EvaluationTarget::JoinKey(join) => key_of("join-key", &[join, app]),
        }
    }

    /// The tag key that spans must be asked for, when this is a tag join.
    pub(super) fn tag_key(&self) -> Option<&str> {
        match &self.target {
            EvaluationTarget::Tag { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// All keys under which an evaluation of this span may be kept. `tag_keys` are those in use.
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
        key_of("span", &[span.trace_id.as_str(), span.span_id.as_str()]),
        key_of("span-id", &[span.span_id.as_str()]),
    ];
    if span.is_root() {
        keys.push(key_of("trace", &[span.trace_id.as_str()]));
        if let Some(session) = &span.session_id {
            keys.extend(apps.iter().map(|app| key_of("session", &[session, app])));
        }
    }
    for tag_key in tag_keys {
        for value in span.tag_values(tag_key) {
            keys.extend(apps.iter().map(|app| key_of("tag", &[tag_key, value, app])));
        }
    }
    if let Some(join) = span.extra.get("feedback_join_key").and_then(|v| v.as_str()) {
        keys.extend(apps.iter().map(|app| key_of("join-key", &[join, app])));
    }
    keys
}

/// Puts an evaluation on a span, unless a newer one of the same label is there.
///
/// Of equal timestamps the one put last stays: put them in order of arrival.
pub(super) fn put(span: &mut Span, evaluation: Evaluation) {
    let map: &mut BTreeMap<String, Evaluation> = match evaluation.event_kind {
        EventKind::Evaluation => &mut span.evaluations,
        EventKind::Feedback => &mut span.feedback,
    };
    let newer = map
        .get(&evaluation.label)
        .is_some_and(|kept| kept.timestamp_ms > evaluation.timestamp_ms);
    if !newer {
        map.insert(evaluation.label.clone(), evaluation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_key_is_read_back(
            scope in proptest::sample::select(SCOPES.as_slice()),
            parts in proptest::collection::vec("[ab\\\\\u{1f}]{0,4}", 1..4),
        ) {
            let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let key = key_of(scope, &texts);
            proptest::prop_assert_eq!(parse_key(&key), (scope, parts.clone()));
            proptest::prop_assert_eq!(scope_of(&key), scope);
            let [first, end] = bounds_within(&parts[0]);
            proptest::prop_assert_eq!(first <= key && key < end, scope == "span" && parts.len() > 1);
            for other in SCOPES {
                let [first, end] = bounds_of(other);
                proptest::prop_assert_eq!(first <= key && key < end, scope == other);
            }
        }
    }

    #[test]
    fn parts_of_a_key_cannot_run_into_each_other() {
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
    fn a_key_gives_its_target_back() {
        let odd = "a\u{1f}b\\c".to_owned();
        let trace_id = Some(TraceId::from(odd.as_str()));
        let span_id = SpanId::from("\\");
        for (target, keeps_app) in [
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
            let app = if keeps_app {
                odd.clone()
            } else {
                String::new()
            };
            assert!(SCOPES.contains(&scope_of(&targeted.key())));
            let found = EvaluationTarget::of_key(&targeted.key());
            assert_eq!(found, Some((target, app)));
        }
        for strange in [
            "",
            "span",
            "span\u{1f}t",
            "trace\u{1f}t\u{1f}more",
            "mail\u{1f}x",
        ] {
            assert_eq!(EvaluationTarget::of_key(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn the_newest_of_a_label_stays_and_the_later_wins_a_tie() {
        let judged = |ms, value: i64| Evaluation {
            label: "tone".into(),
            timestamp_ms: ms,
            value: Some(value.into()),
            ..Evaluation::default()
        };
        let mut span = Span::default();
        put(&mut span, judged(5, 1));
        put(&mut span, judged(4, 2));
        assert_eq!(span.evaluations["tone"].value, Some(1.into()));
        put(&mut span, judged(5, 3));
        assert_eq!(span.evaluations["tone"].value, Some(3.into()));
    }
}
