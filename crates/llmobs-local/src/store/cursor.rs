//! The opaque cursor of a search: the place reached, and of which question.
//!
//! It pins the window that was searched, because `now` moves between two pages, and carries a
//! digest of the question, because a cursor given with other filters would silently skip spans.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Position;
use llmobs_core::model::TimeWindow;

/// Where a search goes on, and of which question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The last place that was looked at.
    pub after: Position,
    /// The window of the first page.
    pub window: TimeWindow,
    /// Digest of the question.
    pub question: u64,
}

/// Why a cursor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not one of ours.
    #[error(
        "the cursor cannot be read; pass the value of meta.page.after of the page before, unchanged"
    )]
    Unreadable,
    /// Given with other filters, sort or window than it was made for.
    #[error(
        "the cursor belongs to another question; repeat the filters, the sort and the time range of the first page, or leave the cursor out to start again"
    )]
    OtherQuestion,
}

#[derive(Serialize, Deserialize)]
struct Wire(u8, i64, i64, i64, i64, u64);

const VERSION: u8 = 1;

impl Cursor {
    /// The text that stands for this cursor.
    pub fn encode(&self) -> String {
        let wire = Wire(
            VERSION,
            self.after.start_ns,
            self.after.id,
            self.window.from_ms,
            self.window.to_ms,
            self.question,
        );
        // Six numbers always serialise.
        let bytes = rmp_serde::to_vec(&wire).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor and checks that it was made for this question.
    pub fn decode(text: &str, question: u64) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim())
            .map_err(|_| CursorError::Unreadable)?;
        let Wire(version, start_ns, id, from_ms, to_ms, asked) =
            rmp_serde::from_slice(&bytes).map_err(|_| CursorError::Unreadable)?;
        if version != VERSION {
            return Err(CursorError::Unreadable);
        }
        if asked != question {
            return Err(CursorError::OtherQuestion);
        }
        Ok(Self {
            after: Position { start_ns, id },
            window: TimeWindow { from_ms, to_ms },
            question,
        })
    }

    /// The digest of a question, given as its parts in a fixed order.
    pub fn question<'a>(parts: impl Iterator<Item = &'a str>) -> u64 {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_and_any_text_is_safe(
            start_ns: i64, id: i64, from_ms: i64, to_ms: i64, question: u64, junk: String
        ) {
            let cursor = Cursor {
                after: Position { start_ns, id },
                window: TimeWindow { from_ms, to_ms },
                question,
            };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), question), Ok(cursor.clone()));
            prop_assert_eq!(
                Cursor::decode(&cursor.encode(), !question),
                Err(CursorError::OtherQuestion)
            );
            let _ = Cursor::decode(&junk, question);
        }
    }

    #[test]
    fn parts_of_a_question_do_not_run_into_each_other() {
        let digest = |parts: &[&str]| Cursor::question(parts.iter().copied());
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
