//! Pages: rows within a budget, and the page token that continues after the last row shown.
//!
//! Invariant: a page shows at least one row if there is one, so a caller that follows
//! `next_cursor` always reaches the end.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::answer::Notes;
use super::error::ToolError;
use super::object::JsonObject;
use crate::render::{Budget, fit, json_chars, to_json};
use llmobs_core::page_token::{self, PageTokenError};

/// The most rows that a page of the upstream can have.
const MAX_UPSTREAM_PAGE: usize = 5_000;

/// What decides the rows of a list. A page token of one list is refused for another.
#[derive(Debug, Clone)]
pub(super) struct ListRequest {
    tool: &'static str,
    arguments: Vec<String>,
    example: Value,
}

impl ListRequest {
    /// The list that `tool` returns for `arguments`. `example` are arguments that work.
    pub(super) fn new<A: Into<String>>(
        tool: &'static str,
        arguments: impl IntoIterator<Item = A>,
        example: Value,
    ) -> Self {
        Self {
            tool,
            arguments: arguments.into_iter().map(Into::into).collect(),
            example,
        }
    }

    /// The position that a page token names; `None` without a token.
    pub(super) fn position<P: DeserializeOwned>(
        &self,
        cursor: Option<&str>,
    ) -> Result<Option<P>, ToolError> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        page_token::decode(cursor, &self.parts())
            .map(Some)
            .map_err(|error| {
                let (error, hint) = match error {
                    PageTokenError::OtherRequest => (
                        "`cursor` belongs to a call with other arguments".to_owned(),
                        "send `cursor` with the arguments of the call that returned it, or call \
                         again without `cursor` to start from the first page",
                    ),
                    other => (
                        format!("`cursor` is not valid for {}: {other}", self.tool),
                        "send `next_cursor` of the previous answer unchanged, or call again \
                         without `cursor` to start from the first page",
                    ),
                };
                ToolError::arguments(error, hint).example(self.tool, self.example.clone())
            })
    }

    /// The number of rows before the page; 0 without a token.
    pub(super) fn offset(&self, cursor: Option<&str>) -> Result<usize, ToolError> {
        Ok(self.position(cursor)?.unwrap_or_default())
    }

    /// The token of a position; `None` if it is too long for a token.
    pub(super) fn token<P: serde::Serialize>(&self, position: &P) -> Option<String> {
        page_token::encode(position, &self.parts()).ok()
    }

    fn parts(&self) -> Vec<&str> {
        std::iter::once(self.tool)
            .chain(self.arguments.iter().map(String::as_str))
            .collect()
    }
}

/// Writes the keys that show the rows.
type WriteRows<'a, T> = Box<dyn Fn(&[T], &mut Notes) -> Map<String, Value> + 'a>;

/// An answer with rows. It shows as many of them as fit into the budget.
pub(super) struct Page<'a, T> {
    head: JsonObject,
    rows: Vec<T>,
    write_rows: WriteRows<'a, T>,
    /// Characters of JSON of one row.
    row_chars: fn(&T) -> usize,
    /// Whether the answer has `returned`, and `truncated` if rows are left out.
    counted: bool,
    /// The token after the first rows, by their number.
    next_cursor: Option<Box<dyn Fn(usize) -> Option<String> + 'a>>,
    tail: JsonObject,
    notes: Notes,
    end: JsonObject,
}

impl<'a> Page<'a, JsonObject> {
    /// The keys of `head`, the rows as a list under `key`, `returned`, and `truncated` if the budget
    /// leaves rows out.
    pub(super) fn list(head: JsonObject, key: &'static str, rows: Vec<JsonObject>) -> Self {
        let write_rows = move |rows: &[JsonObject], _: &mut Notes| {
            let rows: Vec<Value> = rows.iter().cloned().map(Value::from).collect();
            Map::from_iter([(key.to_owned(), rows.into())])
        };
        Self {
            counted: true,
            ..Self::custom(head, rows, json_chars, write_rows)
        }
    }
}

impl<'a, T> Page<'a, T> {
    /// The keys of `head`, then those that `write_rows` returns for the rows shown.
    pub(super) fn custom(
        head: JsonObject,
        rows: Vec<T>,
        row_chars: fn(&T) -> usize,
        write_rows: impl Fn(&[T], &mut Notes) -> Map<String, Value> + 'a,
    ) -> Self {
        Self {
            head,
            rows,
            write_rows: Box::new(write_rows),
            row_chars,
            counted: false,
            next_cursor: None,
            tail: JsonObject::default(),
            notes: Notes::default(),
            end: JsonObject::default(),
        }
    }

    /// Adds `next_cursor`: the token after the first rows shown, by their number.
    pub(super) fn next_cursor(self, token: impl Fn(usize) -> Option<String> + 'a) -> Self {
        Self {
            next_cursor: Some(Box::new(token)),
            ..self
        }
    }

    /// Adds `next_cursor` for a list of `total` rows whose page starts after `first` rows.
    pub(super) fn next_offset(self, list: &'a ListRequest, first: usize, total: usize) -> Self {
        self.next_cursor(move |shown| offset_token(list, first + shown, total))
    }

    /// Adds keys after `next_cursor`.
    pub(super) fn tail(self, tail: JsonObject) -> Self {
        Self { tail, ..self }
    }

    /// Adds `notes`, if there are any.
    pub(super) fn notes(self, notes: Notes) -> Self {
        Self { notes, ..self }
    }

    /// Adds keys after `notes`.
    pub(super) fn end(self, end: JsonObject) -> Self {
        Self { end, ..self }
    }

    /// The text of the answer, within the budget.
    pub(super) fn write(self, budget: Budget) -> Result<String, ToolError> {
        let sizes = self.rows.iter().map(self.row_chars);
        let text = fit(sizes, budget, |count| {
            to_json(&FirstRows { page: &self, count })
        });
        Ok(text?)
    }
}

/// The token after `shown` of `total` rows, if any follow.
pub(super) fn offset_token(list: &ListRequest, shown: usize, total: usize) -> Option<String> {
    if shown < total {
        list.token(&shown)
    } else {
        None
    }
}

/// The answer about one object: when it exceeds the budget, its long texts lose their middle.
pub(super) fn write_object(
    mut object: JsonObject,
    notes: &Notes,
    budget: Budget,
) -> Result<String, ToolError> {
    if !notes.is_empty() {
        object.set("notes", serde_json::to_value(notes)?);
    }
    Ok(fit(std::iter::empty(), budget, |_| to_json(&object))?)
}

/// A page with its first `count` rows.
struct FirstRows<'p, 'a, T> {
    page: &'p Page<'a, T>,
    count: usize,
}

impl<T> Serialize for FirstRows<'_, '_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let page = self.page;
        let rows = page.rows.get(..self.count).unwrap_or(&page.rows);
        let mut notes = page.notes.clone();
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &page.head.0 {
            map.serialize_entry(key, value)?;
        }
        for (key, value) in (page.write_rows)(rows, &mut notes) {
            map.serialize_entry(&key, &value)?;
        }
        if page.counted {
            map.serialize_entry("returned", &rows.len())?;
            if rows.len() < page.rows.len() {
                map.serialize_entry("truncated", &true)?;
            }
        }
        if let Some(next_cursor) = &page.next_cursor {
            map.serialize_entry("next_cursor", &next_cursor(rows.len()))?;
        }
        for (key, value) in &page.tail.0 {
            map.serialize_entry(key, value)?;
        }
        if !notes.is_empty() {
            map.serialize_entry("notes", &notes)?;
        }
        for (key, value) in &page.end.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A position in a list that the upstream pages: one of its pages, and the rows of that page that
/// earlier answers showed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, Deserialize)]
pub(super) struct UpstreamPosition {
    /// The upstream's token of the page; `None` for the first page.
    #[serde(rename = "u")]
    pub(super) upstream_token: Option<String>,
    /// Rows of the page that earlier answers showed.
    #[serde(rename = "s")]
    pub(super) shown: usize,
    /// Rows per page.
    #[serde(rename = "l")]
    pub(super) page_size: usize,
}

impl UpstreamPosition {
    /// The position that a page token names; the start of the list without a token.
    pub(super) fn read(
        list: &ListRequest,
        cursor: Option<&str>,
        page_size: usize,
    ) -> Result<Self, ToolError> {
        let start = Self::page(None, page_size);
        let position = list.position::<Self>(cursor)?.unwrap_or(start);
        Ok(Self {
            page_size: position.page_size.clamp(1, MAX_UPSTREAM_PAGE),
            ..position
        })
    }

    /// The start of a page.
    pub(super) fn page(upstream_token: Option<String>, page_size: usize) -> Self {
        Self {
            upstream_token,
            shown: 0,
            page_size,
        }
    }

    /// The position after `shown` of the `total` rows of this page. `next` is the start of the next
    /// page, if there is one.
    pub(super) fn after(&self, shown: usize, total: usize, next: Option<&Self>) -> Option<Self> {
        if shown < total {
            Some(Self {
                shown,
                ..self.clone()
            })
        } else {
            next.cloned()
        }
    }

    /// The start of the upstream's next page. A token of the upstream that does not fit into ours
    /// ends the list, and a note reports it.
    pub(super) fn next_page(
        &self,
        list: &ListRequest,
        upstream_token: Option<String>,
        notes: &mut Notes,
    ) -> Option<Self> {
        let next = Self::page(Some(upstream_token?), self.page_size);
        if list.token(&next).is_some() {
            return Some(next);
        }
        notes.add(
            "more rows exist, but the upstream's page token is too long to pass on; raise `limit` \
             or add filters to reach them",
        );
        None
    }
}

/// One page of an upstream's list as a page of ours.
pub(super) fn upstream_page<'a>(
    list: &'a ListRequest,
    position: &'a UpstreamPosition,
    key: &'static str,
    rows: Vec<JsonObject>,
    next_upstream_token: Option<String>,
    mut notes: Notes,
) -> Page<'a, JsonObject> {
    let total = rows.len();
    let rows = rows.into_iter().skip(position.shown).collect();
    let next = position.next_page(list, next_upstream_token, &mut notes);
    Page::list(JsonObject::default(), key, rows)
        .next_cursor(move |count| {
            let shown = position.shown + count;
            let next = position.after(shown, total, next.as_ref());
            next.filter(|_| count > 0)
                .and_then(|next| list.token(&next))
        })
        .notes(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(arguments: &[&str]) -> ListRequest {
        ListRequest::new("tool", arguments.iter().copied(), json!({"id": "t1"}))
    }

    fn row(id: impl Into<Value>) -> JsonObject {
        let mut row = JsonObject::default();
        row.set("id", id);
        row
    }

    #[test]
    fn token_names_its_position_for_the_same_request_only() {
        let request = list(&["t1", "llm"]);
        let token = request.token(&40).unwrap();
        assert_eq!(request.offset(Some(&token)).unwrap(), 40);
        assert_eq!(request.offset(None).unwrap(), 0);
        let error = list(&["t1", "tool"]).offset(Some(&token)).unwrap_err();
        assert!(error.error.contains("other arguments"), "{}", error.error);
    }

    #[test]
    fn malformed_and_former_tokens_ask_for_a_new_start() {
        // The second is a token of version 0.1.0.
        for cursor in ["page2", "eyJvIjo0MCwicSI6MX0"] {
            let error = list(&["t1"]).offset(Some(cursor)).unwrap_err();
            assert!(error.hint.contains("without `cursor`"), "{}", error.hint);
            let example = error.example.unwrap();
            assert_eq!(example, json!({"tool": "tool", "arguments": {"id": "t1"}}));
        }
    }

    #[test]
    fn list_beyond_its_budget_continues_after_the_last_row_shown() {
        let request = list(&[]);
        let rows: Vec<JsonObject> = (0..100)
            .map(|number| row(format!("{number:0>100}")))
            .collect();
        let budget = Budget::of_answer(Some(500));
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let first = request.offset(cursor.as_deref()).unwrap();
            let page = Page::list(JsonObject::default(), "rows", rows[first..].to_vec())
                .next_offset(&request, first, rows.len());
            let text = page.write(budget).unwrap();
            assert!(text.len() <= budget.chars());
            let page: Value = serde_json::from_str(&text).unwrap();
            seen.extend(page["rows"].as_array().unwrap().clone());
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
            assert_eq!(page["truncated"], true);
        }
        assert_eq!(json!(seen), json!(rows));
    }

    #[test]
    fn upstream_token_too_long_to_pass_on_ends_the_list_with_a_note() {
        let request = list(&[]);
        let start = UpstreamPosition::read(&request, None, 2).unwrap();
        let write = |token: String| {
            let rows = vec![row(1), row(2)];
            let page = upstream_page(
                &request,
                &start,
                "rows",
                rows,
                Some(token),
                Notes::default(),
            );
            let text = page.write(Budget::of_answer(None)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let short = write("x".repeat(200));
        let position = request
            .position::<UpstreamPosition>(short["next_cursor"].as_str())
            .unwrap();
        assert_eq!(position.unwrap().upstream_token, Some("x".repeat(200)));
        let long = write("x".repeat(600));
        assert_eq!(long["next_cursor"], Value::Null);
        let note = long["notes"][0].as_str().unwrap();
        assert!(note.contains("too long to pass on"), "{note}");
    }
}
