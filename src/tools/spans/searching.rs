//! What the tools that search spans share: the request, the check of a query, the error of the
//! upstream.

use serde_json::Value;

use crate::tools::answer::Notes;
use crate::tools::error::ToolError;
use datadog_llmobs::{ClientError, SpanSearch};
use llmobs_core::model::TimeWindow;
use llmobs_core::query::{self, combine::SpanFilters};

const DAY_MS: i64 = 86_400_000;
/// The time window in which a span or trace is found by its id. Data are not kept longer.
pub(super) const ID_WINDOW: &str = "now-90d";

/// The time window of [`ID_WINDOW`].
pub(super) fn id_window(now_ms: i64) -> TimeWindow {
    TimeWindow {
        from_ms: now_ms - 90 * DAY_MS,
        to_ms: now_ms,
    }
}

/// A search for the newest span, without content. Callers change the fields that differ.
pub(in crate::tools) fn span_search(filters: SpanFilters, window: TimeWindow) -> SpanSearch {
    SpanSearch {
        query: None,
        filters,
        apm_trace_id: None,
        window,
        limit: 1,
        cursor: None,
        newest_first: true,
        content: false,
    }
}

/// Refuses a query whose quotes or brackets are not balanced, because filters are added around it.
/// Notes the other problems of the query.
pub(super) fn check_query(argument: &str, text: &str, notes: &mut Notes) -> Result<(), ToolError> {
    query::check_balance(text).map_err(|error| {
        ToolError::arguments(
            format!("{argument} is not valid: {error}"),
            "close every quote and bracket; quote values that contain blanks or colons",
        )
    })?;
    match query::parse(text) {
        Ok(parsed) => notes.extend(parsed.warnings()),
        Err(error) => notes.add(format!(
            "{argument} was sent unchanged, although this server cannot parse it: {error}"
        )),
    }
    Ok(())
}

/// Adds an example to an error about the request itself.
pub(super) fn search_error(error: ClientError, tool: &str, example: Value) -> ToolError {
    let error = ToolError::from(error);
    match error.status {
        None | Some(400) => error.example(tool, example),
        _ => error,
    }
}
