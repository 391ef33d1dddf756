//! Span search and export: `GET /api/v2/llm-obs/v1/spans/events` and `POST …/search`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::span_json::SpanItem;
use super::span_request::SpanRequest;
use crate::cursor::SearchCursor;
use crate::http::{ApiError, json_api_bytes, read_small_json, run_blocking};
use crate::store::{Search, SearchOutcome};
use crate::{Backend, now_ms};
use llmobs_core::query;

pub(super) const PATH: &str = "/api/v2/llm-obs/v1/spans/events";
pub(super) const SEARCH_PATH: &str = "/api/v2/llm-obs/v1/spans/events/search";

/// `GET`, with the search in the query string.
pub(super) async fn list(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let span_request = SpanRequest::from_query_string(request.uri().query().unwrap_or_default());
    let base_url = base_url(request.headers());
    match span_request {
        Ok(span_request) => respond(backend, span_request, base_url).await,
        Err(error) => error.into_response(),
    }
}

/// `POST`, with the search in the body.
pub(super) async fn search(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let base_url = base_url(request.headers());
    let body = read_small_json(request.into_body()).await;
    match body.and_then(|body| SpanRequest::from_body(&body)) {
        Ok(span_request) => respond(backend, span_request, base_url).await,
        Err(error) => error.into_response(),
    }
}

/// The start of a link, with the host of the request. The guard has checked that it is this machine.
fn base_url(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map_or_else(String::new, |host| format!("http://{host}"))
}

async fn respond(backend: Arc<Backend>, request: SpanRequest, base_url: String) -> Response {
    match run_blocking(move || page(&backend, &request, &base_url)).await {
        Ok(body) => json_api_bytes(StatusCode::OK, body),
        Err(error) => error.into_response(),
    }
}

/// One page, as the bytes of the response.
fn page(backend: &Backend, request: &SpanRequest, base_url: &str) -> Result<Vec<u8>, ApiError> {
    let started = Instant::now();
    let requested_window = request.window(now_ms())?;
    let cursor = request.cursor(requested_window)?;
    let window = cursor
        .as_ref()
        .map_or(requested_window, |cursor| cursor.window);
    let query = match &request.query {
        Some(text) => Some(parse_query(text)?),
        None => None,
    };
    let search = Search {
        filters: request.filters(),
        query,
        newest_first: request.newest_first,
        after: cursor.map(|cursor| cursor.after),
        limit: request.limit,
        budget: backend.options.search_budget,
        ..Search::within(window)
    };
    let mut body = Vec::from(b"{\"data\":[");
    let outcome = write_spans(backend, request, &search, &mut body)?;
    let next = match outcome.next {
        Some(after) => Some(SearchCursor { after, window }.encode(&request.cursor_request())?),
        None => None,
    };
    // Absent on the last page: the models of clients expect text here, not null.
    let mut page = Map::new();
    let mut links = Map::new();
    if let Some(next) = next {
        let link = format!("{base_url}{PATH}?{}", request.query_string(&next));
        links.insert("next".to_owned(), json!(link));
        page.insert("after".to_owned(), json!(next));
    }
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let meta = json!({
        "elapsed": elapsed,
        "request_id": uuid::Uuid::new_v4().to_string(),
        "status": if outcome.partial { "timeout" } else { "done" },
        "page": page,
    });
    let links = Value::Object(links);
    body.extend_from_slice(format!("],\"links\":{links},\"meta\":{meta}}}").as_bytes());
    Ok(body)
}

/// Writes the matching spans as JSON, separated by commas.
fn write_spans(
    backend: &Backend,
    request: &SpanRequest,
    search: &Search,
    body: &mut Vec<u8>,
) -> Result<SearchOutcome, ApiError> {
    let with_attachments = request.attachments;
    let max_bytes = backend.options.page_bytes;
    let mut count = 0;
    let mut too_large = false;
    let mut write_error = None;
    let outcome = backend.store.search(search, &mut |span| {
        if count > 0 {
            body.push(b',');
        }
        let item = SpanItem {
            span: &span,
            with_attachments,
        };
        if let Err(error) = serde_json::to_writer(&mut *body, &item) {
            write_error = Some(error);
            return ControlFlow::Break(());
        }
        // A page has at least one span, of any size.
        if count > 0 && body.len() > max_bytes {
            too_large = true;
            return ControlFlow::Break(());
        }
        count += 1;
        ControlFlow::Continue(())
    })?;
    if let Some(error) = write_error {
        return Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("a span cannot be written as JSON ({error}); please report it"),
        ));
    }
    if too_large {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the page is larger than {max_bytes} bytes; set a smaller `page[limit]`, or `include_attachments` to false"
            ),
        ));
    }
    Ok(outcome)
}

/// Parses a query. The error names the position. The hosted API returns an empty page instead, which
/// looks like missing data.
pub(super) fn parse_query(text: &str) -> Result<query::Query, ApiError> {
    query::parse(text).map_err(|error| ApiError::bad_request(format!("invalid query: {error}")))
}
