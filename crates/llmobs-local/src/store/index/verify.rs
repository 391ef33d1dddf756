//! Holds the index against the rows.

use rusqlite::Connection;

use super::View;
use super::changes::since;
use super::schema::{DURATION, FAILED, ID, START};
use crate::store::sqlite::ReadError;

/// How the index differs from the rows. Spans that changed since its last commit are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexCheck {
    /// Spans that both have.
    pub agreeing: u64,
    /// Spans that the index lacks.
    pub missing: u64,
    /// Spans that only the index has, or has twice.
    pub surplus: u64,
    /// Spans whose start, length or status differ.
    pub differing: u64,
}

impl IndexCheck {
    /// Whether the index is what the rows say.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.differing == 0
    }
}

/// A span as both know it: key, start, length, whether it failed.
type Known = (i64, i64, i64, bool);

/// Compares all documents with all rows; `None` when the outbox does not tell what changed since.
pub(in crate::store) fn verify(
    connection: &Connection,
    view: &View,
) -> Result<Option<IndexCheck>, ReadError> {
    let Some(changes) = since(connection, view)? else {
        return Ok(None);
    };
    let mut indexed = documents(view)?;
    indexed.retain(|known| !changes.spans.contains_key(&known.0));
    indexed.sort_unstable();
    let mut indexed = indexed.into_iter().peekable();
    let mut check = IndexCheck::default();
    let mut statement =
        connection.prepare_cached("SELECT id, start, dur, err FROM spans ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let kept: Known = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if changes.spans.contains_key(&kept.0) {
            continue;
        }
        while indexed.next_if(|known| known.0 < kept.0).is_some() {
            check.surplus += 1;
        }
        match indexed.next_if(|known| known.0 == kept.0) {
            None => check.missing += 1,
            Some(known) if known == kept => check.agreeing += 1,
            Some(_) => check.differing += 1,
        }
    }
    check.surplus += indexed.count() as u64;
    Ok(Some(check))
}

fn documents(view: &View) -> Result<Vec<Known>, ReadError> {
    let mut all = Vec::new();
    for reader in view.searcher.segment_readers() {
        let fast = reader.fast_fields();
        let id = fast.column_first_or_default::<i64>(ID)?;
        let start = fast.column_first_or_default::<i64>(START)?;
        let duration = fast.column_first_or_default::<i64>(DURATION)?;
        let failed = fast.column_first_or_default::<bool>(FAILED)?;
        all.extend(reader.doc_ids_alive().map(|doc| {
            (
                id.get_val(doc),
                start.get_val(doc),
                duration.get_val(doc),
                failed.get_val(doc),
            )
        }));
    }
    Ok(all)
}
