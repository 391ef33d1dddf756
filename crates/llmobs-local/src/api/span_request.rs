//! Reads and validates a span search, from a query string or a body.
//!
//! Unknown filters are refused: an ignored filter would return spans that it excludes.

use serde_json::{Map, Value};

use crate::cursor::{self, SearchCursor};
use crate::response::ApiError;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::time;

/// Default number of spans on a page.
const DEFAULT_LIMIT: usize = 10;

/// Most spans on a page.
const MAX_LIMIT: usize = 5_000;

/// Default start of the time window.
const DEFAULT_FROM: &str = "now-15m";

/// Largest difference of an absolute time window between two pages. Clients compute the window from
/// their clock for each page.
const MAX_WINDOW_DRIFT_MS: i64 = 86_400_000;

/// A span search as the client sent it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpanRequest {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) query: Option<String>,
    pub(super) filters: SpanFilters,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
    pub(super) attachments: bool,
    /// Shifts the time window, in seconds.
    pub(super) time_offset: i64,
}

impl Default for SpanRequest {
    fn default() -> Self {
        Self {
            from: None,
            to: None,
            query: None,
            filters: SpanFilters::default(),
            newest_first: true,
            limit: DEFAULT_LIMIT,
            cursor: None,
            attachments: true,
            time_offset: 0,
        }
    }
}

impl SpanRequest {
    /// Reads `GET …/spans/events?filter[ml_app]=…&page[limit]=…`.
    pub(super) fn from_query_string(text: &str) -> Result<Self, ApiError> {
        let mut request = Self::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let value = value.into_owned();
            match key.as_ref() {
                "sort" => request.set_sort(&value)?,
                "page[limit]" => request.set_limit(value.parse().ok())?,
                "page[cursor]" => request.cursor = Some(value).filter(|text| !text.is_empty()),
                "include_attachments" => {
                    request.attachments = value.parse().map_err(|_| {
                        ApiError::bad_request("`include_attachments` must be true or false")
                    })?;
                }
                key => {
                    if let Some(name) = bracketed(key, "filter[tag]") {
                        request.filters.tags.push((name.to_owned(), value));
                    } else if let Some(name) = bracketed(key, "filter") {
                        request.set_filter(name, value)?;
                    }
                }
            }
        }
        Ok(request)
    }

    /// Reads the body of `POST …/spans/events/search`.
    pub(super) fn from_body(body: &Value) -> Result<Self, ApiError> {
        let example = "the body must be {\"data\":{\"type\":\"spans\",\"attributes\":{\"filter\":{\"ml_app\":\"my-app\"},\"page\":{\"limit\":10}}}}";
        let refused = || ApiError::bad_request(example);
        let data = body.get("data").and_then(Value::as_object);
        let data = data.ok_or_else(refused)?;
        if data.get("type").and_then(Value::as_str) != Some("spans") {
            return Err(refused());
        }
        let empty = Map::new();
        let attributes = object(data.get("attributes"), &empty).ok_or_else(refused)?;
        let section = |key: &str| {
            object(attributes.get(key), &empty).ok_or_else(|| {
                ApiError::bad_request(format!("`{key}` must be an object; {example}"))
            })
        };
        let (filter, page, options) = (section("filter")?, section("page")?, section("options")?);
        let mut request = Self::default();
        for (key, value) in filter {
            if key == "tags" {
                request.set_tags(value)?;
            } else if !value.is_null() {
                request.set_filter(key, text(&format!("filter.{key}"), value)?)?;
            }
        }
        if let Some(limit) = non_null(page, "limit") {
            request.set_limit(limit.as_i64())?;
        }
        if let Some(cursor) = non_null(page, "cursor") {
            request.cursor = Some(text("page.cursor", cursor)?).filter(|text| !text.is_empty());
        }
        if let Some(sort) = non_null(attributes, "sort") {
            request.set_sort(&text("sort", sort)?)?;
        }
        if let Some(flag) = non_null(options, "include_attachments") {
            request.attachments = flag.as_bool().ok_or_else(|| {
                ApiError::bad_request("`options.include_attachments` must be true or false")
            })?;
        }
        if let Some(offset) = non_null(options, "time_offset") {
            request.time_offset = offset.as_i64().ok_or_else(|| {
                ApiError::bad_request("`options.time_offset` must be a whole number of seconds")
            })?;
        }
        Ok(request)
    }

    fn set_filter(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        let field = match name {
            "from" => &mut self.from,
            "to" => &mut self.to,
            "query" => &mut self.query,
            "span_id" => &mut self.filters.span_id,
            "trace_id" => &mut self.filters.trace_id,
            "span_kind" => &mut self.filters.span_kind,
            "span_name" => &mut self.filters.span_name,
            "ml_app" => &mut self.filters.ml_app,
            _ => {
                return Err(ApiError::bad_request(
                    "unknown filter; use from, to, query, span_id, trace_id, span_kind, span_name, ml_app or tag (`filter[tag][env]=prod`, in a body `\"tags\":{\"env\":\"prod\"}`)",
                ));
            }
        };
        *field = Some(value).filter(|text| !text.trim().is_empty());
        Ok(())
    }

    fn set_tags(&mut self, tags: &Value) -> Result<(), ApiError> {
        let refused =
            || ApiError::bad_request("`filter.tags` must be an object like {\"env\":\"prod\"}");
        if tags.is_null() {
            return Ok(());
        }
        for (key, value) in tags.as_object().ok_or_else(refused)? {
            let value = text("filter.tags", value)?;
            self.filters.tags.push((key.clone(), value));
        }
        Ok(())
    }

    fn set_sort(&mut self, sort: &str) -> Result<(), ApiError> {
        self.newest_first = match sort {
            "timestamp" => false,
            "-timestamp" => true,
            _ => {
                return Err(ApiError::bad_request(
                    "`sort` must be timestamp (oldest first) or -timestamp (newest first)",
                ));
            }
        };
        Ok(())
    }

    fn set_limit(&mut self, limit: Option<i64>) -> Result<(), ApiError> {
        self.limit = limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| {
                ApiError::bad_request(format!(
                    "`page[limit]` must be a whole number from 1 to {MAX_LIMIT}"
                ))
            })?;
        Ok(())
    }

    /// The effective filters. As documented, a query overrides the structured filters.
    pub(super) fn filters(&self) -> SpanFilters {
        match self.query {
            None => self.filters.clone(),
            Some(_) => SpanFilters::default(),
        }
    }

    /// The requested time window, without regard to a cursor.
    pub(super) fn window(&self, now_ms: i64) -> Result<TimeWindow, ApiError> {
        let window = time::parse_window(
            self.from.as_deref(),
            self.to.as_deref(),
            DEFAULT_FROM,
            now_ms,
        )
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let offset = self.time_offset.saturating_mul(1_000);
        Ok(TimeWindow {
            from_ms: window.from_ms.saturating_add(offset),
            to_ms: window.to_ms.saturating_add(offset),
        })
    }

    /// The cursor, if it belongs to this search.
    pub(super) fn cursor(&self, requested: TimeWindow) -> Result<Option<SearchCursor>, ApiError> {
        let Some(text) = &self.cursor else {
            return Ok(None);
        };
        let cursor = SearchCursor::decode(text, &self.cursor_request())?;
        let drifted = |text: Option<&str>, requested: i64, first: i64| {
            !is_relative(text) && requested.abs_diff(first) > MAX_WINDOW_DRIFT_MS.unsigned_abs()
        };
        if drifted(
            self.from.as_deref(),
            requested.from_ms,
            cursor.window.from_ms,
        ) || drifted(self.to.as_deref(), requested.to_ms, cursor.window.to_ms)
        {
            return Err(cursor::other_request());
        }
        Ok(Some(cursor))
    }

    /// The fields that determine the spans and their order.
    pub(super) fn cursor_request(&self) -> Vec<String> {
        let time = |text: &Option<String>| match text {
            Some(text) if !is_relative(Some(text)) => "absolute".to_owned(),
            Some(text) => text.clone(),
            None => String::new(),
        };
        let filters = self.filters();
        let mut tags = filters.tags.clone();
        tags.sort();
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut parts = vec![
            time(&self.from),
            time(&self.to),
            self.time_offset.to_string(),
            self.newest_first.to_string(),
            or_empty(&self.query),
            or_empty(&filters.span_id),
            or_empty(&filters.trace_id),
            or_empty(&filters.span_kind),
            or_empty(&filters.span_name),
            or_empty(&filters.ml_app),
        ];
        parts.extend(tags.into_iter().flat_map(|(key, value)| [key, value]));
        parts
    }

    /// The query string that requests the page at a cursor.
    pub(super) fn query_string(&self, cursor: &str) -> String {
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        let filters = [
            ("filter[from]", &self.from),
            ("filter[to]", &self.to),
            ("filter[query]", &self.query),
            ("filter[span_id]", &self.filters.span_id),
            ("filter[trace_id]", &self.filters.trace_id),
            ("filter[span_kind]", &self.filters.span_kind),
            ("filter[span_name]", &self.filters.span_name),
            ("filter[ml_app]", &self.filters.ml_app),
        ];
        for (key, value) in filters {
            if let Some(value) = value {
                text.append_pair(key, value);
            }
        }
        for (key, value) in &self.filters.tags {
            text.append_pair(&format!("filter[tag][{key}]"), value);
        }
        let sort = if self.newest_first {
            "-timestamp"
        } else {
            "timestamp"
        };
        text.append_pair("sort", sort)
            .append_pair("page[limit]", &self.limit.to_string())
            .append_pair("page[cursor]", cursor)
            .append_pair("include_attachments", &self.attachments.to_string());
        text.finish()
    }
}

/// Whether a time depends on the clock. So does the default, which applies to a missing time.
fn is_relative(text: Option<&str>) -> bool {
    text.is_none_or(|text| {
        let text = text.trim();
        let absolute = text.len() >= 10 && text.starts_with(|c: char| c.is_ascii_digit());
        !absolute
    })
}

/// `name` of `prefix[name]`.
fn bracketed<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?
        .strip_prefix('[')?
        .strip_suffix(']')
}

/// A section of the body. A missing section is empty; `None` means a value of another type.
fn object<'a>(
    value: Option<&'a Value>,
    empty: &'a Map<String, Value>,
) -> Option<&'a Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(empty),
        Some(value) => value.as_object(),
    }
}

fn non_null<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

/// Text; a number becomes its digits.
fn text(name: &str, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(ApiError::bad_request(format!("`{name}` must be text"))),
    }
}
