//! Updates of stored spans.
//!
//! A complete span replaces the stored one. A partial span, and any span sent to the update path,
//! contains only what changed: fields that it does not contain keep their values.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};

use super::json_value::id_to_text;
use super::span::{SpanDefaults, span_of};
use crate::span_store::SpanStore;
use crate::store::StoreError;
use llmobs_core::model::{Io, Span, SpanId, TraceId};

/// An update, before its span is looked up.
#[derive(Debug)]
pub(super) struct SpanUpdate {
    pub(super) sent: Map<String, Value>,
    pub(super) defaults: SpanDefaults,
    /// Names the update in error messages, for example `envelope 0, span 1`.
    pub(super) label: String,
}

/// Whether a span has ids but lacks other fields that a new span requires.
pub(super) fn is_partial(span: &Map<String, Value>) -> bool {
    let has = |key: &str| span.get(key).is_some_and(|value| !value.is_null());
    has("span_id") && has("trace_id") && !(has("name") && has("start_ns"))
}

/// Serializes updates: an update must read what the previous one wrote. One process owns a store, so
/// a lock within the process is enough.
pub(super) fn lock() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Merges updates with the stored spans. Adds the results to `spans`, and reasons for updates that
/// fail to `refused`.
pub(super) fn apply(
    updates: Vec<SpanUpdate>,
    store: &SpanStore,
    spans: &mut Vec<Span>,
    refused: &mut Vec<String>,
) -> Result<(), StoreError> {
    for update in updates {
        let id = |key: &str| {
            update
                .sent
                .get(key)
                .and_then(id_to_text)
                .unwrap_or_default()
        };
        let (trace, span) = (TraceId::from(id("trace_id")), SpanId::from(id("span_id")));
        // One request may contain a new span and its update.
        let in_request = spans
            .iter()
            .position(|sent| sent.trace_id == trace && sent.span_id == span);
        let current = match in_request {
            Some(at) => Some(spans.swap_remove(at)),
            None => store.span(&trace, &span)?,
        };
        let is_complete = !is_partial(&update.sent);
        let merged = match current {
            Some(current) => {
                merge(current.clone(), &update).map_err(|reason| (reason, Some(current)))
            }
            None if is_complete => span_of(Value::Object(update.sent), &update.defaults)
                .map_err(|reason| (reason, None)),
            None => Err((
                "`name` and `start_ns` are missing, and no stored span has these ids; send the complete span first".to_owned(),
                None,
            )),
        };
        match merged {
            Ok(span) => spans.push(span),
            Err((reason, current)) => {
                refused.push(format!("{}: {reason}", update.label));
                if in_request.is_some() {
                    spans.extend(current);
                }
            }
        }
    }
    Ok(())
}

fn merge(current: Span, update: &SpanUpdate) -> Result<Span, String> {
    let has = |key: &str| update.sent.get(key).is_some_and(|value| !value.is_null());
    let mut sent = update.sent.clone();
    sent.entry("name")
        .or_insert_with(|| current.name.clone().into());
    sent.entry("start_ns")
        .or_insert_with(|| current.start_ns.into());
    let new = span_of(Value::Object(sent), &update.defaults)?;
    let has_kind = !new
        .collection_errors
        .iter()
        .any(|note| note == "missing_span_kind");
    let has_status = has("status") || new.error.is_some();
    let mut span = Span {
        parent_id: if has("parent_id") {
            new.parent_id
        } else {
            current.parent_id
        },
        apm_trace_id: new.apm_trace_id.or(current.apm_trace_id),
        kind: if has_kind { new.kind } else { current.kind },
        ml_app: if new.ml_app.is_empty() {
            current.ml_app
        } else {
            new.ml_app
        },
        service: new.service.or(current.service),
        session_id: new.session_id.or(current.session_id),
        status: if has_status {
            new.status
        } else {
            current.status
        },
        duration_ns: if has("duration") {
            new.duration_ns
        } else {
            current.duration_ns
        },
        model_name: new.model_name.or(current.model_name),
        model_provider: new.model_provider.or(current.model_provider),
        model_version: new.model_version.or(current.model_version),
        error: new.error.or(current.error),
        input: merge_io(current.input, new.input),
        output: merge_io(current.output, new.output),
        expected_output: new.expected_output.or(current.expected_output),
        intent: new.intent.or(current.intent),
        agent: new.agent.or(current.agent),
        scope: new.scope.or(current.scope),
        trace_id: new.trace_id,
        span_id: new.span_id,
        name: new.name,
        start_ns: new.start_ns,
        tags: merge_tags(current.tags, new.tags),
        metrics: current.metrics,
        metadata: merge_maps(current.metadata, new.metadata),
        tool_definitions: non_empty_or(current.tool_definitions, new.tool_definitions),
        links: non_empty_or(current.links, new.links),
        collection_errors: current.collection_errors,
        extra: merge_maps(current.extra, new.extra),
        meta_extra: merge_maps(current.meta_extra, new.meta_extra),
        ..Span::default()
    };
    span.metrics.extend(new.metrics);
    for note in new.collection_errors {
        let obsolete = match note.as_str() {
            "missing_span_kind" => true,
            "missing_ml_app" => !span.ml_app.is_empty(),
            _ => span.collection_errors.contains(&note),
        };
        if !obsolete {
            span.collection_errors.push(note);
        }
    }
    Ok(span)
}

fn non_empty_or<T>(current: Vec<T>, new: Vec<T>) -> Vec<T> {
    if new.is_empty() { current } else { new }
}

/// A new input or output replaces the current one, except for its prompt template.
fn merge_io(current: Io, new: Io) -> Io {
    if new.is_empty() {
        return current;
    }
    Io {
        prompt: new.prompt.or(current.prompt),
        ..new
    }
}

/// Objects are merged at every level, other values are replaced.
fn merge_maps(mut current: Map<String, Value>, new: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in new {
        let value = match (current.shift_remove(&key), value) {
            (Some(Value::Object(current)), Value::Object(new)) => {
                Value::Object(merge_maps(current, new))
            }
            (_, value) => value,
        };
        current.insert(key, value);
    }
    current
}

/// New tags replace current tags of the same key.
fn merge_tags(mut current: Vec<String>, new: Vec<String>) -> Vec<String> {
    let key = |tag: &str| tag.split(':').next().unwrap_or_default().to_owned();
    let new_keys: Vec<String> = new.iter().map(|tag| key(tag)).collect();
    current.retain(|tag| !new_keys.contains(&key(tag)));
    current.extend(new);
    current
}
