//! What is kept as NDJSON, page by page, and NDJSON back into the store.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::asked;
use crate::http::{ApiError, blocking, json_plain};
use crate::intake::{self, line};
use crate::store::{Position, Search};
use crate::{Backend, LocalOptions};
use llmobs_core::model::TimeWindow;

/// Bytes of lines after which a page ends.
const PAGE_BYTES: usize = 4 << 20;

/// Spans or evaluations of a page at most.
const PAGE_LINES: usize = 5_000;

/// The header that says where the next page begins.
const NEXT: &str = "x-llmobs-mcp-next";

/// The header that says how many lines a page has.
const LINES: &str = "x-llmobs-mcp-lines";

/// The header that names the store that an import means.
const STORE: &str = "x-llmobs-mcp-store";

/// Where an export goes on: spans by start, then evaluations in the order they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Spans { start_ns: i64, id: i64 },
    Evaluations { after: Option<i64> },
}

#[derive(Deserialize)]
pub(super) struct ExportAsked {
    after: Option<Place>,
}

struct Page {
    body: Vec<u8>,
    lines: usize,
    next: Option<Place>,
}

pub(super) async fn export(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let page = async {
        let asked: ExportAsked = asked(&backend, request).await?;
        blocking(move || page(&backend, asked.after)).await
    };
    match page.await {
        Ok(page) => written(page),
        Err(error) => error.into_response(),
    }
}

fn page(backend: &Backend, after: Option<Place>) -> Result<Page, ApiError> {
    match after {
        None => spans(backend, None),
        Some(Place::Spans { start_ns, id }) => spans(backend, Some(Position { start_ns, id })),
        Some(Place::Evaluations { after }) => evaluations(backend, after),
    }
}

fn spans(backend: &Backend, after: Option<Position>) -> Result<Page, ApiError> {
    let search = Search {
        newest_first: false,
        after,
        limit: PAGE_LINES,
        budget: Duration::from_secs(5),
        ..Search::within(TimeWindow {
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        })
    };
    let mut page = Page {
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
        Some(Position { start_ns, id }) => Place::Spans { start_ns, id },
        None => Place::Evaluations { after: None },
    });
    Ok(page)
}

fn evaluations(backend: &Backend, after: Option<i64>) -> Result<Page, ApiError> {
    let mut page = Page {
        body: Vec::new(),
        lines: 0,
        next: None,
    };
    let found = backend.store.evaluations(after, PAGE_LINES)?;
    let whole = found.len() >= PAGE_LINES;
    let mut last = None;
    for arrived in found {
        if page.body.len() >= PAGE_BYTES {
            page.next = Some(Place::Evaluations { after: last });
            return Ok(page);
        }
        push(&mut page, &line::evaluation_line(&arrived.evaluation));
        last = Some(arrived.arrival);
    }
    page.next = last
        .filter(|_| whole)
        .map(|last| Place::Evaluations { after: Some(last) });
    Ok(page)
}

fn push(page: &mut Page, line: &str) {
    page.body.extend_from_slice(line.as_bytes());
    page.body.push(b'\n');
    page.lines += 1;
}

fn written(page: Page) -> Response {
    let kind = HeaderValue::from_static("application/x-ndjson");
    let mut answer = (StatusCode::OK, [(header::CONTENT_TYPE, kind)], page.body).into_response();
    let headers = answer.headers_mut();
    headers.insert(LINES, HeaderValue::from(page.lines));
    let next = page.next.map(|next| json!(next).to_string());
    if let Some(Ok(next)) = next.as_deref().map(HeaderValue::from_str) {
        headers.insert(NEXT, next);
    }
    answer
}

pub(super) async fn import(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let named = request.headers().get(STORE);
    let named = named.and_then(|id| id.to_str().ok()).unwrap_or_default();
    if let Err(error) = backend.is_meant(named) {
        return error.into_response();
    }
    let working = backend.clone();
    let taken = intake::admitted(&backend, request, move |_, body| take_in(&working, &body));
    match taken.await {
        Ok(told) => json_plain(StatusCode::OK, &told),
        Err(error) => error.into_response(),
    }
}

/// Keeps what the lines hold. Those that cannot be read are told with their number in the body, and
/// the others are kept.
fn take_in(backend: &Backend, body: &[u8]) -> Result<Value, ApiError> {
    let store = backend.store.as_ref();
    let mut all = intake::Batch::default();
    let mut refused = Vec::new();
    for (number, text) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let reasons = match line::read(text) {
            Ok(batch) => all.join(batch, store)?,
            Err(reason) => vec![reason],
        };
        refused.extend(
            reasons
                .into_iter()
                .map(|reason| json!({"line": number, "reason": reason})),
        );
    }
    // Limits on what SDKs may send are not for what was kept before.
    let options = LocalOptions {
        max_span_age: None,
        max_span_bytes: None,
        ..backend.options.clone()
    };
    let accepted = intake::keep(store, &options, all, 0)?;
    Ok(json!({
        "spans": accepted.spans,
        "evaluations": accepted.evaluations,
        "refused": refused,
    }))
}
