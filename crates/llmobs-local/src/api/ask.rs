//! A question for spans, from the query string or from the body, with everything checked.
//!
//! Unknown filters are refused: one that is ignored answers with spans of others.

use serde_json::{Map, Value};

use crate::http::ApiError;
use crate::store::Cursor;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::combine::SpanFilters;
use llmobs_core::query::time;

/// Spans on a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 10;

/// Most spans on a page.
const MAX_LIMIT: usize = 5_000;

/// The window's start unless asked otherwise.
const DEFAULT_FROM: &str = "now-15m";

/// An absolute time range may differ by this much between two pages: clients compute it from
/// their clock each time.
const WINDOW_DRIFT_MS: i64 = 86_400_000;

/// What is asked, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) query: Option<String>,
    pub(super) filters: SpanFilters,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
    pub(super) attachments: bool,
    /// Moves the window, in seconds.
    pub(super) time_offset: i64,
}

impl Default for Ask {
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

impl Ask {
    /// Reads `GET …/spans/events?filter[ml_app]=…&page[limit]=…`.
    pub(super) fn from_query_string(text: &str) -> Result<Self, ApiError> {
        let mut ask = Self::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let value = value.into_owned();
            match key.as_ref() {
                "sort" => ask.set_sort(&value)?,
                "page[limit]" => ask.set_limit(value.parse().ok())?,
                "page[cursor]" => ask.cursor = Some(value).filter(|text| !text.is_empty()),
                "include_attachments" => {
                    ask.attachments = value.parse().map_err(|_| {
                        ApiError::bad_request("`include_attachments` must be true or false")
                    })?;
                }
                key => {
                    if let Some(name) = bracketed(key, "filter[tag]") {
                        ask.filters.tags.push((name.to_owned(), value));
                    } else if let Some(name) = bracketed(key, "filter") {
                        ask.set_filter(name, value)?;
                    }
                }
            }
        }
        Ok(ask)
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
        let part = |key: &str| {
            object(attributes.get(key), &empty).ok_or_else(|| {
                ApiError::bad_request(format!("`{key}` must be an object; {example}"))
            })
        };
        let (filter, page, options) = (part("filter")?, part("page")?, part("options")?);
        let mut ask = Self::default();
        for (key, value) in filter {
            if key == "tags" {
                ask.set_tags(value)?;
            } else if !value.is_null() {
                ask.set_filter(key, text(&format!("filter.{key}"), value)?)?;
            }
        }
        if let Some(limit) = given(page, "limit") {
            ask.set_limit(limit.as_i64())?;
        }
        if let Some(cursor) = given(page, "cursor") {
            ask.cursor = Some(text("page.cursor", cursor)?).filter(|text| !text.is_empty());
        }
        if let Some(sort) = given(attributes, "sort") {
            ask.set_sort(&text("sort", sort)?)?;
        }
        if let Some(flag) = given(options, "include_attachments") {
            ask.attachments = flag.as_bool().ok_or_else(|| {
                ApiError::bad_request("`options.include_attachments` must be true or false")
            })?;
        }
        if let Some(offset) = given(options, "time_offset") {
            ask.time_offset = offset.as_i64().ok_or_else(|| {
                ApiError::bad_request("`options.time_offset` must be a whole number of seconds")
            })?;
        }
        Ok(ask)
    }

    fn set_filter(&mut self, name: &str, value: String) -> Result<(), ApiError> {
        let slot = match name {
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
                    "a filter has an unknown name; known are from, to, query, span_id, trace_id, span_kind, span_name, ml_app and tag (`filter[tag][env]=prod`, in a body `\"tags\":{\"env\":\"prod\"}`)",
                ));
            }
        };
        *slot = Some(value).filter(|text| !text.trim().is_empty());
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

    /// The filters that apply: a query makes the structured ones ignored, as documented.
    pub(super) fn filters(&self) -> SpanFilters {
        match self.query {
            None => self.filters.clone(),
            Some(_) => SpanFilters::default(),
        }
    }

    /// The window asked for, whatever a cursor says.
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

    /// The cursor, checked against this question.
    pub(super) fn cursor(&self, asked: TimeWindow) -> Result<Option<Cursor>, ApiError> {
        let Some(text) = &self.cursor else {
            return Ok(None);
        };
        let cursor = Cursor::decode(text, self.question())?;
        let drifted = |text: Option<&str>, asked: i64, first: i64| {
            !is_relative(text) && asked.abs_diff(first) > WINDOW_DRIFT_MS.unsigned_abs()
        };
        if drifted(self.from.as_deref(), asked.from_ms, cursor.window.from_ms)
            || drifted(self.to.as_deref(), asked.to_ms, cursor.window.to_ms)
        {
            return Err(crate::store::CursorError::OtherQuestion.into());
        }
        Ok(Some(cursor))
    }

    /// The digest of everything that decides which spans come and in which order.
    pub(super) fn question(&self) -> u64 {
        let time = |text: &Option<String>| match text {
            Some(text) if !is_relative(Some(text)) => "absolute".to_owned(),
            Some(text) => text.clone(),
            None => String::new(),
        };
        let filters = self.filters();
        let mut tags = filters.tags.clone();
        tags.sort();
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut parts = vec![
            time(&self.from),
            time(&self.to),
            self.time_offset.to_string(),
            self.newest_first.to_string(),
            of(&self.query),
            of(&filters.span_id),
            of(&filters.trace_id),
            of(&filters.span_kind),
            of(&filters.span_name),
            of(&filters.ml_app),
        ];
        parts.extend(tags.into_iter().flat_map(|(key, value)| [key, value]));
        Cursor::question(parts.iter().map(String::as_str))
    }

    /// The query string that asks for the page at a cursor.
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

/// Whether a time moves with the clock; no time stands for the default, which does.
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

/// A part of the body; absent and null are empty, `None` is something else.
fn object<'a>(
    value: Option<&'a Value>,
    empty: &'a Map<String, Value>,
) -> Option<&'a Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Some(empty),
        Some(value) => value.as_object(),
    }
}

fn given<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

/// Text, or a number as its digits.
fn text(name: &str, value: &Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(ApiError::bad_request(format!("`{name}` must be text"))),
    }
}
