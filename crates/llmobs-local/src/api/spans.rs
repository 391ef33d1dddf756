//! Span search and export: `GET /api/v2/llm-obs/v1/spans/events` and `POST …/search`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::wire::{Item, Shape};
use crate::http::{ApiError, blocking, json_bytes, read_question};
use crate::store::{Cursor, Search};
use crate::{Backend, now_ms};
use llmobs_core::query;

pub(super) const PATH: &str = "/api/v2/llm-obs/v1/spans/events";
pub(super) const SEARCH_PATH: &str = "/api/v2/llm-obs/v1/spans/events/search";

/// `GET`: the question in the query string.
pub(super) async fn list(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let ask = Ask::from_query_string(request.uri().query().unwrap_or_default());
    let base = base_of(request.headers());
    match ask {
        Ok(ask) => answer(backend, ask, base).await,
        Err(error) => error.into_response(),
    }
}

/// `POST`: the question in the body.
pub(super) async fn search(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let base = base_of(request.headers());
    let question = read_question(request.into_body()).await;
    match question.and_then(|question| Ask::from_body(&question)) {
        Ok(ask) => answer(backend, ask, base).await,
        Err(error) => error.into_response(),
    }
}

/// What stands before the path in a link: the host as the client named it, which the guard knows
/// to be this machine.
fn base_of(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map_or_else(String::new, |host| format!("http://{host}"))
}

async fn answer(backend: Arc<Backend>, ask: Ask, base: String) -> Response {
    match blocking(move || page(&backend, &ask, &base)).await {
        Ok(body) => json_bytes(StatusCode::OK, body),
        Err(error) => error.into_response(),
    }
}

/// One page, as the bytes of the answer.
fn page(backend: &Backend, ask: &Ask, base: &str) -> Result<Vec<u8>, ApiError> {
    let started = Instant::now();
    let asked = ask.window(now_ms())?;
    let cursor = ask.cursor(asked)?;
    let window = cursor.as_ref().map_or(asked, |cursor| cursor.window);
    let parsed = match &ask.query {
        Some(text) => Some(parse_query(text)?),
        None => None,
    };
    let search = Search {
        filters: ask.filters(),
        query: parsed,
        newest_first: ask.newest_first,
        after: cursor.map(|cursor| cursor.after),
        limit: ask.limit,
        budget: backend.options.search_budget,
        ..Search::within(window)
    };
    let shape = Shape {
        documented_only: backend.options.documented_only,
        attachments: ask.attachments,
    };
    let most = backend.options.page_bytes;
    let mut body = Vec::from(b"{\"data\":[");
    let mut count = 0;
    let mut too_large = false;
    let mut broken = None;
    let outcome = backend.store.search(&search, &mut |span| {
        if count > 0 {
            body.push(b',');
        }
        let item = Item { span: &span, shape };
        if let Err(error) = serde_json::to_writer(&mut body, &item) {
            broken = Some(error);
            return ControlFlow::Break(());
        }
        // A single span is answered whatever its size: there is no smaller page.
        if count > 0 && body.len() > most {
            too_large = true;
            return ControlFlow::Break(());
        }
        count += 1;
        if ask.attachments {
            backend.counters.content(&span);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = broken {
        return Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("a span cannot be written as JSON ({error}); please report it"),
        ));
    }
    if too_large {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the page would be larger than {most} bytes; ask for fewer spans with `page[limit]`, or for `include_attachments` false"
            ),
        ));
    }
    let next = outcome.next.map(|after| {
        let cursor = Cursor {
            after,
            window,
            question: ask.question(),
        };
        cursor.encode()
    });
    // Absent on the last page: clients' models have text here, not null.
    let mut page = Map::new();
    let mut links = Map::new();
    if let Some(next) = next {
        let link = format!("{base}{PATH}?{}", ask.query_string(&next));
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

/// A query that cannot be read is refused with the place. The hosted API finds nothing instead,
/// which looks like an absence of data.
pub(super) fn parse_query(text: &str) -> Result<query::Query, ApiError> {
    query::parse(text)
        .map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))
}
