//! Export of the store as pages of NDJSON, and import of NDJSON.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::read_request;
use crate::http::{ApiError, json_plain, run_blocking};
use crate::intake::{self, line};
use crate::store::{Search, SpanPosition};
use crate::{Backend, LocalOptions};
use llmobs_core::model::TimeWindow;

/// A page ends after this many bytes.
const PAGE_BYTES: usize = 4 << 20;

/// Most spans or evaluations of a page.
const MAX_PAGE_LINES: usize = 5_000;

/// The response header with the position of the next page.
const NEXT_HEADER: &str = "x-llmobs-mcp-next";

/// The response header with the number of lines of a page.
const LINES_HEADER: &str = "x-llmobs-mcp-lines";

/// The request header with the id of the store of an import.
const STORE_HEADER: &str = "x-llmobs-mcp-store";

/// SpanPosition of an export: spans in order of start, then evaluations in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExportPosition {
    Spans { start_ns: i64, id: i64 },
    Evaluations { after: Option<i64> },
}

#[derive(Deserialize)]
pub(super) struct ExportRequest {
    after: Option<ExportPosition>,
}

struct ExportPage {
    body: Vec<u8>,
    lines: usize,
    next: Option<ExportPosition>,
}

pub(super) async fn export(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let page = async {
        let request: ExportRequest = read_request(&backend, request).await?;
        run_blocking(move || page(&backend, request.after)).await
    };
    match page.await {
        Ok(page) => page_response(page),
        Err(error) => error.into_response(),
    }
}

fn page(backend: &Backend, after: Option<ExportPosition>) -> Result<ExportPage, ApiError> {
    match after {
        None => spans(backend, None),
        Some(ExportPosition::Spans { start_ns, id }) => {
            spans(backend, Some(SpanPosition { start_ns, id }))
        }
        Some(ExportPosition::Evaluations { after }) => evaluations(backend, after),
    }
}

fn spans(backend: &Backend, after: Option<SpanPosition>) -> Result<ExportPage, ApiError> {
    let search = Search {
        newest_first: false,
        after,
        limit: MAX_PAGE_LINES,
        budget: Duration::from_secs(5),
        ..Search::within(TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        })
    };
    let mut page = ExportPage {
        body: Vec::new(),
        lines: 0,
        next: None,
    };
    let outcome = backend.store.search(&search, &mut |span| {
        if page.body.len() >= PAGE_BYTES {
            return ControlFlow::Break(());
        }
        push(&mut page, &line::span_line(&span));
        ControlFlow::Continue(())
    })?;
    page.next = Some(match outcome.next {
        Some(SpanPosition { start_ns, id }) => ExportPosition::Spans { start_ns, id },
        None => ExportPosition::Evaluations { after: None },
    });
    Ok(page)
}

fn evaluations(backend: &Backend, after: Option<i64>) -> Result<ExportPage, ApiError> {
    let mut page = ExportPage {
        body: Vec::new(),
        lines: 0,
        next: None,
    };
    let found = backend.store.evaluations(after, MAX_PAGE_LINES)?;
    let has_more = found.len() >= MAX_PAGE_LINES;
    let mut last = None;
    for arrived in found {
        if page.body.len() >= PAGE_BYTES {
            page.next = Some(ExportPosition::Evaluations { after: last });
            return Ok(page);
        }
        push(&mut page, &line::evaluation_line(&arrived.evaluation));
        last = Some(arrived.arrival);
    }
    page.next = last
        .filter(|_| has_more)
        .map(|last| ExportPosition::Evaluations { after: Some(last) });
    Ok(page)
}

fn push(page: &mut ExportPage, line: &str) {
    page.body.extend_from_slice(line.as_bytes());
    page.body.push(b'\n');
    page.lines += 1;
}

fn page_response(page: ExportPage) -> Response {
    let content_type = HeaderValue::from_static("application/x-ndjson");
    let mut response = (
        StatusCode::OK,
        [(header::CONTENT_TYPE, content_type)],
        page.body,
    )
        .into_response();
    let headers = response.headers_mut();
    headers.insert(LINES_HEADER, HeaderValue::from(page.lines));
    let next = page.next.map(|next| json!(next).to_string());
    if let Some(Ok(next)) = next.as_deref().map(HeaderValue::from_str) {
        headers.insert(NEXT_HEADER, next);
    }
    response
}

pub(super) async fn import(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let store_id = request.headers().get(STORE_HEADER);
    let store_id = store_id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    if let Err(error) = backend.require_store(store_id) {
        return error.into_response();
    }
    let worker = backend.clone();
    let imported = intake::run_admitted(&backend, request, move |_, body| {
        import_lines(&worker, &body)
    });
    match imported.await {
        Ok(summary) => json_plain(StatusCode::OK, &summary),
        Err(error) => error.into_response(),
    }
}

/// Stores the items of valid lines, and reports invalid lines by number.
fn import_lines(backend: &Backend, body: &[u8]) -> Result<Value, ApiError> {
    let store = &backend.store;
    let mut all = intake::Batch::default();
    let mut refused = Vec::new();
    for (number, text) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let reasons = match line::read(text) {
            Ok(batch) => all.append(batch, store)?,
            Err(reason) => vec![reason],
        };
        refused.extend(
            reasons
                .into_iter()
                .map(|reason| json!({"line": number, "reason": reason})),
        );
    }
    // Limits for SDKs do not apply to exported data.
    let options = LocalOptions {
        max_span_age: None,
        max_span_bytes: None,
        ..backend.options.clone()
    };
    let summary = intake::store_batch(store, &options, all, 0)?;
    Ok(json!({
        "spans": summary.spans,
        "evaluations": summary.evaluations,
        "refused": refused,
    }))
}
