//! The files of the index, and what the last commit says of itself.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tantivy::directory::MmapDirectory;
use tantivy::{Index, IndexSettings};

use super::indexer::IndexError;
use super::schema::{Fields, VERSION, schema, tokenizers};

/// What a commit holds, written with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// [`VERSION`] of what wrote it.
    pub(super) version: u32,
    /// The store whose spans these are.
    pub(super) store: String,
    /// All changes up to this one are in it.
    pub(super) seq: i64,
    /// Changes up to this one may be in it: rows they made are replaced, not added.
    pub(super) careful: i64,
    /// While it is being built: the last row that is in it.
    pub(super) building: Option<i64>,
}

impl Mark {
    /// Of an index with nothing in it yet, made when `seq` was the last change.
    pub(super) fn fresh(store: &str, seq: i64) -> Self {
        Self {
            version: VERSION,
            store: store.to_owned(),
            seq,
            careful: seq,
            building: Some(i64::MIN),
        }
    }

    pub(super) fn text(&self) -> Result<String, IndexError> {
        serde_json::to_string(self).map_err(|e| IndexError::Files(e.to_string()))
    }
}

/// Opens what is there. `None`: nothing, or nothing that can be used.
pub(super) fn open(folder: &Path, store: &str) -> Option<(Index, Fields, Mark)> {
    let (schema, fields) = schema();
    let directory = MmapDirectory::open(folder).ok()?;
    let mut index = match Index::open(directory) {
        Ok(index) => index,
        Err(error) => {
            tracing::info!(%error, "there is no usable index of the local store");
            return None;
        }
    };
    index.set_tokenizers(tokenizers());
    index.set_fast_field_tokenizers(tokenizers());
    let payload = index.load_metas().ok()?.payload?;
    let mark: Mark = serde_json::from_str(&payload).ok()?;
    let ours = mark.version == VERSION && mark.store == store && index.schema() == schema;
    ours.then_some((index, fields, mark))
}

/// Makes an empty index, whatever is there.
pub(super) fn create(folder: &Path) -> Result<(Index, Fields), IndexError> {
    let failed = |e: std::io::Error| IndexError::Files(e.to_string());
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let (schema, fields) = schema();
    let directory = MmapDirectory::open(folder).map_err(|e| IndexError::Files(e.to_string()))?;
    let settings = IndexSettings {
        // No document is kept there: a thread for each segment would have nothing to pack.
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    };
    let mut index = Index::create(directory, schema, settings)?;
    index.set_tokenizers(tokenizers());
    index.set_fast_field_tokenizers(tokenizers());
    Ok((index, fields))
}
