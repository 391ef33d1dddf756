//! What every answer shares: the window, the notes, and cursors that carry their whole question.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolError;
use datadog_llmobs::Gap;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::time;

/// The range that was really searched, in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Window {
    from: String,
    to: String,
}

impl From<TimeWindow> for Window {
    fn from(window: TimeWindow) -> Self {
        Self {
            from: time::format_rfc3339(window.from_ms),
            to: time::format_rfc3339(window.to_ms),
        }
    }
}

/// Short sentences of ours about an answer; each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub(super) fn gaps(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            self.add(format!("not known: {} ({})", gap.what, gap.why));
        }
    }
}

impl Extend<String> for Notes {
    fn extend<I: IntoIterator<Item = String>>(&mut self, notes: I) {
        notes.into_iter().for_each(|note| self.add(note));
    }
}

/// A place in a list that was cut by the budget: how many parts came before it, and a mark of the
/// question, so that a cursor of another question is refused instead of giving wrong rows.
#[derive(Debug, Serialize, Deserialize)]
struct Offset {
    o: usize,
    q: u64,
}

/// Writes a cursor that stands after `offset` parts of the answer to `question`.
pub(super) fn offset_cursor(offset: usize, question: &[&str]) -> String {
    encode(&Offset {
        o: offset,
        q: mark(question),
    })
}

/// Reads a cursor of [`offset_cursor`]; no cursor is the start.
pub(super) fn read_offset(
    tool: &str,
    cursor: Option<&str>,
    question: &[&str],
    example: impl FnOnce() -> Value,
) -> Result<usize, ToolError> {
    let Some(cursor) = cursor else { return Ok(0) };
    match decode::<Offset>(cursor) {
        Some(offset) if offset.q == mark(question) => Ok(offset.o),
        Some(_) => Err(foreign_cursor(tool, example())),
        None => Err(unreadable_cursor(tool, example())),
    }
}

/// The refusal of a cursor that was not made here.
pub(super) fn unreadable_cursor(tool: &str, example: Value) -> ToolError {
    ToolError::arguments(
        format!("the cursor is not one that {tool} gave"),
        "send `next_cursor` of the previous answer as it is, or leave `cursor` out to start over",
    )
    .example(tool, example)
}

/// The refusal of a cursor that belongs to other arguments.
pub(super) fn foreign_cursor(tool: &str, example: Value) -> ToolError {
    ToolError::arguments(
        "the cursor belongs to a call with other arguments",
        "repeat the call that gave it with the same arguments, or leave `cursor` out to start over",
    )
    .example(tool, example)
}

/// Any serialisable place as opaque text.
pub(super) fn encode<T: Serialize>(place: &T) -> String {
    BASE64.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// Reads what [`encode`] wrote.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(cursor: &str) -> Option<T> {
    serde_json::from_slice(&BASE64.decode(cursor.trim()).ok()?).ok()
}

/// A stable mark of a question (FNV-1a, which does not change between releases as std's may).
pub(super) fn mark(question: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in question {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    // 53 bits, so that the number survives JSON readers that know floats only.
    hash >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_and_only_in_its_own_question() {
        let cursor = offset_cursor(40, &["t1", "llm"]);
        let read =
            |cursor, question: &[&str]| read_offset("tool", cursor, question, || Value::Null);
        assert_eq!(read(Some(&cursor), &["t1", "llm"]).unwrap(), 40);
        assert_eq!(read(None, &["t1"]).unwrap(), 0);
        assert!(
            read(Some(&cursor), &["t1", "tool"])
                .unwrap_err()
                .error
                .contains("other arguments")
        );
        assert!(
            read(Some("page2"), &["t1"])
                .unwrap_err()
                .error
                .contains("not one that tool gave")
        );
    }
}
