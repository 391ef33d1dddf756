//! An answer with one long part: rows of a list, or entries of a map. Each row knows the cursor
//! that goes on behind it, so that the answer can be cut after any.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::Keys;
use crate::render::{Budget, Shrink, fit, to_json};
use crate::tools::answer::{Notes, offset_cursor};
use crate::tools::args::Count;
use crate::tools::{ToolError, answer};

/// One row, and how to go on behind it.
pub(super) struct Row {
    /// The key of a map's entry; empty in a list.
    pub(super) key: String,
    pub(super) value: Value,
    /// `None` where nothing comes after it.
    pub(super) next_cursor: Option<String>,
}

/// The answer.
pub(super) struct Paged {
    /// The keys before the rows.
    pub(super) head: Map<String, Value>,
    /// The key of the rows.
    pub(super) name: &'static str,
    /// Whether the rows are entries of a map.
    pub(super) entries: bool,
    pub(super) rows: Vec<Row>,
    /// Whether rows were left out for want of room.
    cut: bool,
    /// Whether the reader goes on by counting rows: then there is no cursor.
    counts: bool,
    /// The keys after the rows.
    pub(super) tail: Map<String, Value>,
    pub(super) notes: Notes,
}

impl Paged {
    /// An answer with a list below `name`.
    pub(super) fn list(head: Keys, name: &'static str, rows: Vec<Row>, notes: Notes) -> Self {
        Self {
            head: head.0,
            name,
            entries: false,
            rows,
            cut: false,
            counts: false,
            tail: Map::new(),
            notes,
        }
    }

    /// An answer with a map below `name`.
    pub(super) fn map(head: Keys, name: &'static str, rows: Vec<Row>, notes: Notes) -> Self {
        Self {
            entries: true,
            ..Self::list(head, name, rows, notes)
        }
    }

    /// The same without a cursor: the reader counts what was returned.
    pub(super) fn by_offset(self) -> Self {
        Self {
            counts: true,
            ..self
        }
    }

    /// The answer's text within its budget.
    pub(super) fn fit(self, max_tokens: Option<Count>) -> Result<String, ToolError> {
        let budget = Budget::asked(max_tokens.map(|count| count.0), Budget::MAX_TOKENS);
        Ok(fit(self, budget)?)
    }
}

/// Rows that are all at hand: the cursor counts them. `first` rows were on earlier pages.
pub(super) fn counted(rows: Vec<(String, Value)>, first: usize, question: &[&str]) -> Vec<Row> {
    let total = rows.len();
    rows.into_iter()
        .enumerate()
        .skip(first)
        .map(|(at, (key, value))| Row {
            key,
            value,
            next_cursor: (at + 1 < total).then(|| offset_cursor(at + 1, question)),
        })
        .collect()
}

impl Serialize for Paged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.head {
            map.serialize_entry(key, value)?;
        }
        if self.entries {
            let entries: Map<String, Value> = self
                .rows
                .iter()
                .map(|row| (row.key.clone(), row.value.clone()))
                .collect();
            map.serialize_entry(self.name, &entries)?;
        } else {
            let rows: Vec<&Value> = self.rows.iter().map(|row| &row.value).collect();
            map.serialize_entry(self.name, &rows)?;
            map.serialize_entry("returned", &rows.len())?;
        }
        if self.cut {
            map.serialize_entry("truncated", &true)?;
        }
        let next = self.rows.last().and_then(|row| row.next_cursor.as_ref());
        if next.is_some() || !self.entries && !self.counts {
            map.serialize_entry("next_cursor", &next)?;
        }
        for (key, value) in &self.tail {
            map.serialize_entry(key, value)?;
        }
        if !self.notes.is_empty() {
            map.serialize_entry("notes", &self.notes)?;
        }
        map.end()
    }
}

impl Shrink for Paged {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|row| {
            let value = to_json(&row.value).map_or(0, |text| text.chars().count());
            // Key, quotes and colon.
            value
                + if self.entries {
                    row.key.chars().count() + 4
                } else {
                    0
                }
        })
    }

    fn keep(&mut self, count: usize) {
        if count < self.rows.len() {
            self.rows.truncate(count);
            self.cut = true;
        }
    }
}

/// A place in a list of the upstream's: the page, how many of its rows were given, its size, and a
/// mark of the question.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Place {
    /// The upstream's cursor of the page; none is the first.
    pub(super) u: Option<String>,
    /// Rows of that page that were given.
    pub(super) s: usize,
    /// Rows per page.
    pub(super) l: usize,
    /// The mark.
    pub(super) q: u64,
}

impl Place {
    /// The place that a cursor stands for; the start without one.
    pub(super) fn read(
        tool: &str,
        cursor: Option<&str>,
        question: &[&str],
        limit: usize,
        example: impl FnOnce() -> Value,
    ) -> Result<Self, ToolError> {
        let q = answer::mark(question);
        let Some(cursor) = cursor else {
            return Ok(Self {
                u: None,
                s: 0,
                l: limit,
                q,
            });
        };
        match answer::decode::<Self>(cursor) {
            Some(place) if place.q == q && (1..=5_000).contains(&place.l) => Ok(place),
            Some(_) => Err(answer::foreign_cursor(tool, example())),
            None => Err(answer::unreadable_cursor(tool, example())),
        }
    }

    /// The cursor behind the row at `at` of this page, which has `total` rows; `next` is the
    /// upstream's cursor of the page after it.
    pub(super) fn behind(&self, at: usize, total: usize, next: Option<&str>) -> Option<String> {
        let (u, s) = if at + 1 < total {
            (self.u.clone(), at + 1)
        } else {
            (Some(next?.to_owned()), 0)
        };
        Some(answer::encode(&Self {
            u,
            s,
            l: self.l,
            q: self.q,
        }))
    }

    /// The rows of one page that are still to be given.
    pub(super) fn rows(&self, values: Vec<Value>, next: Option<&str>) -> Vec<Row> {
        let total = values.len();
        values
            .into_iter()
            .enumerate()
            .skip(self.s)
            .map(|(at, value)| Row {
                key: String::new(),
                value,
                next_cursor: self.behind(at, total, next),
            })
            .collect()
    }
}

/// An answer about one thing: when it is too large, its long texts lose their middle.
#[derive(serde::Serialize)]
#[serde(transparent)]
pub(super) struct Single(Map<String, Value>);

impl Single {
    /// The answer's text within its budget.
    pub(super) fn fit(
        mut keys: Keys,
        notes: &Notes,
        max_tokens: Option<Count>,
    ) -> Result<String, ToolError> {
        if !notes.is_empty() {
            keys.put("notes", serde_json::to_value(notes)?);
        }
        let budget = Budget::asked(max_tokens.map(|count| count.0), Budget::MAX_TOKENS);
        Ok(fit(Self(keys.0), budget)?)
    }
}

impl Shrink for Single {
    fn part_sizes(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    fn keep(&mut self, _count: usize) {}
}
