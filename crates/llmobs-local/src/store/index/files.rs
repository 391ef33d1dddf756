//! The files of the index, and the payload of its last commit.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tantivy::directory::MmapDirectory;
use tantivy::{Index, IndexSettings};

use super::error::IndexError;
use super::schema::{IndexFields, VERSION, schema, tokenizers};

/// Describes the content of a commit. Stored with the commit, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitPayload {
    /// [`VERSION`] of the program that wrote the index.
    pub(super) version: u32,
    /// Id of the store.
    pub(super) store: String,
    /// The index contains all changes up to this one.
    pub(super) seq: i64,
    /// The index may contain changes up to this one: their rows are replaced instead of added.
    #[serde(rename = "careful")]
    pub(super) replace_until: i64,
    /// While the index is being built, the key of the last row in it.
    pub(super) building: Option<i64>,
}

impl CommitPayload {
    /// The payload of an empty index, created when `seq` was the last change.
    pub(super) fn empty(store: &str, seq: i64) -> Self {
        Self {
            version: VERSION,
            store: store.to_owned(),
            seq,
            replace_until: seq,
            building: Some(i64::MIN),
        }
    }

    pub(super) fn to_json(&self) -> Result<String, IndexError> {
        serde_json::to_string(self).map_err(|error| IndexError::Files(error.into()))
    }
}

/// Opens an existing index. `None` when there is none that can be used.
pub(super) fn open(directory: &Path, store: &str) -> Option<(Index, IndexFields, CommitPayload)> {
    let (schema, fields) = schema();
    let files = MmapDirectory::open(directory).ok()?;
    let mut index = match Index::open(files) {
        Ok(index) => index,
        Err(error) => {
            tracing::info!(%error, "the local store has no usable search index");
            return None;
        }
    };
    index.set_tokenizers(tokenizers());
    index.set_fast_field_tokenizers(tokenizers());
    let payload = index.load_metas().ok()?.payload?;
    let payload: CommitPayload = serde_json::from_str(&payload).ok()?;
    let is_current =
        payload.version == VERSION && payload.store == store && index.schema() == schema;
    is_current.then_some((index, fields, payload))
}

/// Creates an empty index, and deletes an existing one.
pub(super) fn create(directory: &Path) -> Result<(Index, IndexFields), IndexError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::create_dir_all(directory)?;
    let (schema, fields) = schema();
    let files = MmapDirectory::open(directory).map_err(|error| IndexError::Engine(error.into()))?;
    let settings = IndexSettings {
        // The index stores no documents, so a compression thread would have nothing to do.
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    };
    let mut index = Index::create(files, schema, settings)?;
    index.set_tokenizers(tokenizers());
    index.set_fast_field_tokenizers(tokenizers());
    Ok((index, fields))
}
