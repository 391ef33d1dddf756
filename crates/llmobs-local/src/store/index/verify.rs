//! Compares the index with the rows.

use rusqlite::Connection;

use super::changes::changes_since;
use super::schema::{DURATION, FAILED, ID, START};
use super::view::IndexView;
use crate::store::rows::ReadError;

/// The differences between the index and the rows. Spans that changed since the last commit of the
/// index are not compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexCheck {
    /// Spans that are equal in both.
    pub equal: u64,
    /// Spans that are missing from the index.
    pub missing: u64,
    /// Spans that only the index contains, and duplicates.
    pub surplus: u64,
    /// Spans whose start, duration or status differ.
    pub differing: u64,
}

impl IndexCheck {
    /// Whether the index equals the rows.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.differing == 0
    }
}

/// Key, start, duration and error flag of a span.
type ComparedColumns = (i64, i64, i64, bool);

/// Compares all documents with all rows. `None` when the outbox no longer holds all changes since
/// the view.
pub(in crate::store) fn verify(
    connection: &Connection,
    view: &IndexView,
) -> Result<Option<IndexCheck>, ReadError> {
    let Some(changes) = changes_since(connection, view)? else {
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
        let stored: ComparedColumns = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        if changes.spans.contains_key(&stored.0) {
            continue;
        }
        while indexed.next_if(|known| known.0 < stored.0).is_some() {
            check.surplus += 1;
        }
        match indexed.next_if(|known| known.0 == stored.0) {
            None => check.missing += 1,
            Some(indexed) if indexed == stored => check.equal += 1,
            Some(_) => check.differing += 1,
        }
    }
    check.surplus += indexed.count() as u64;
    Ok(Some(check))
}

fn documents(view: &IndexView) -> Result<Vec<ComparedColumns>, ReadError> {
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
