//! Updates of spans that are kept already.
//!
//! A whole span sent again replaces the one before it. One that is not whole, or that comes to the
//! path for updates, names only what changed: what it does not name stays as it was.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::fields::id_text;
use super::span::{Defaults, span_of};
use crate::store::{SpanStore, StoreError};
use llmobs_core::model::{Io, Span, SpanId, TraceId};

/// What a request says about a span, before the span that it is about was looked up.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) sent: Map<String, Value>,
    pub(super) defaults: Defaults,
    /// Where it stood in the request, for a refusal.
    pub(super) place: String,
}

/// Whether a span of the SDKs' form lacks what a new one must have but names the span it is about.
pub(super) fn is_partial(span: &Map<String, Value>) -> bool {
    let has = |key: &str| span.get(key).is_some_and(|value| !value.is_null());
    has("span_id") && has("trace_id") && !(has("name") && has("start_ns"))
}

/// What was acknowledged of one update is read by the next: they are completed and kept one request
/// at a time. One process owns a store, so a lock of the process is enough.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes the updates from what is kept. The good ones join `spans`, the others `refused`.
pub(super) fn apply(
    updates: Vec<Update>,
    store: &dyn SpanStore,
    spans: &mut Vec<Span>,
    refused: &mut Vec<String>,
) -> Result<(), StoreError> {
    for update in updates {
        let id = |key: &str| update.sent.get(key).and_then(id_text).unwrap_or_default();
        let (trace, span) = (TraceId::from(id("trace_id")), SpanId::from(id("span_id")));
        // The same span may stand in one request as new and as changed.
        let here = spans
            .iter()
            .position(|kept| kept.trace_id == trace && kept.span_id == span);
        let kept = match here {
            Some(at) => Some(spans.swap_remove(at)),
            None => store.span(&trace, &span)?,
        };
        let whole = !is_partial(&update.sent);
        let merged = match kept {
            Some(kept) => merge(kept.clone(), &update).map_err(|reason| (reason, Some(kept))),
            None if whole => span_of(Value::Object(update.sent), &update.defaults)
                .map_err(|reason| (reason, None)),
            None => Err((
                "`name` and `start_ns` are missing, and no span with these ids is kept that it could be an update of".to_owned(),
                None,
            )),
        };
        match merged {
            Ok(span) => spans.push(span),
            Err((reason, kept)) => {
                refused.push(format!("{}: {reason}", update.place));
                if here.is_some() {
                    spans.extend(kept);
                }
            }
        }
    }
    Ok(())
}

fn merge(kept: Span, update: &Update) -> Result<Span, String> {
    let names = |key: &str| update.sent.get(key).is_some_and(|value| !value.is_null());
    let mut sent = update.sent.clone();
    sent.entry("name")
        .or_insert_with(|| kept.name.clone().into());
    sent.entry("start_ns")
        .or_insert_with(|| kept.start_ns.into());
    let new = span_of(Value::Object(sent), &update.defaults)?;
    let kind_named = !new
        .collection_errors
        .iter()
        .any(|note| note == "missing_span_kind");
    let status_named = names("status") || new.error.is_some();
    let mut span = Span {
        parent_id: if names("parent_id") {
            new.parent_id
        } else {
            kept.parent_id
        },
        apm_trace_id: new.apm_trace_id.or(kept.apm_trace_id),
        kind: if kind_named { new.kind } else { kept.kind },
        ml_app: if new.ml_app.is_empty() {
            kept.ml_app
        } else {
            new.ml_app
        },
        service: new.service.or(kept.service),
        session_id: new.session_id.or(kept.session_id),
        status: if status_named {
            new.status
        } else {
            kept.status
        },
        duration_ns: if names("duration") {
            new.duration_ns
        } else {
            kept.duration_ns
        },
        model_name: new.model_name.or(kept.model_name),
        model_provider: new.model_provider.or(kept.model_provider),
        model_version: new.model_version.or(kept.model_version),
        error: new.error.or(kept.error),
        input: merge_io(kept.input, new.input),
        output: merge_io(kept.output, new.output),
        expected_output: new.expected_output.or(kept.expected_output),
        intent: new.intent.or(kept.intent),
        agent: new.agent.or(kept.agent),
        scope: new.scope.or(kept.scope),
        trace_id: new.trace_id,
        span_id: new.span_id,
        name: new.name,
        start_ns: new.start_ns,
        tags: merge_tags(kept.tags, new.tags),
        metrics: kept.metrics,
        metadata: merge_maps(kept.metadata, new.metadata),
        tool_definitions: or_kept(kept.tool_definitions, new.tool_definitions),
        links: or_kept(kept.links, new.links),
        collection_errors: kept.collection_errors,
        extra: merge_maps(kept.extra, new.extra),
        meta_extra: merge_maps(kept.meta_extra, new.meta_extra),
        ..Span::default()
    };
    span.metrics.extend(new.metrics);
    for note in new.collection_errors {
        let settled = match note.as_str() {
            "missing_span_kind" => true,
            "missing_ml_app" => !span.ml_app.is_empty(),
            _ => span.collection_errors.contains(&note),
        };
        if !settled {
            span.collection_errors.push(note);
        }
    }
    Ok(span)
}

fn or_kept<T>(kept: Vec<T>, new: Vec<T>) -> Vec<T> {
    if new.is_empty() { kept } else { new }
}

/// A side that the update names at all is the side now, but for the prompt template.
fn merge_io(kept: Io, new: Io) -> Io {
    if new.is_empty() {
        return kept;
    }
    Io {
        prompt: new.prompt.or(kept.prompt),
        ..new
    }
}

/// Objects are merged at every level, other values are replaced.
fn merge_maps(mut kept: Map<String, Value>, new: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in new {
        let value = match (kept.shift_remove(&key), value) {
            (Some(Value::Object(kept)), Value::Object(new)) => Value::Object(merge_maps(kept, new)),
            (_, value) => value,
        };
        kept.insert(key, value);
    }
    kept
}

/// A tag replaces those kept under its key.
fn merge_tags(mut kept: Vec<String>, new: Vec<String>) -> Vec<String> {
    let key = |tag: &str| tag.split(':').next().unwrap_or_default().to_owned();
    let named: Vec<String> = new.iter().map(|tag| key(tag)).collect();
    kept.retain(|tag| !named.contains(&key(tag)));
    kept.extend(new);
    kept
}
