//! Projects and datasets: what experiments run over.

use serde_json::{Map, Value};

/// A project: a group of datasets and experiments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// Its id, a UUID.
    pub id: String,
    /// Its name, unique in the organisation.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// When it was made, as the upstream writes it.
    pub created_at: Option<String>,
    /// When it was changed last, as the upstream writes it.
    pub updated_at: Option<String>,
}

/// A dataset, without its records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// Its id, a UUID.
    pub id: String,
    /// Its name, unique in the project.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// The version that a reader gets who names none; 0 at first.
    pub current_version: Option<i64>,
    /// When it was made, as the upstream writes it.
    pub created_at: Option<String>,
    /// When it was changed last, as the upstream writes it.
    pub updated_at: Option<String>,
}

/// One record of a dataset. Input and expected output are any JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatasetRecord {
    /// Its id within the dataset.
    pub id: String,
    /// The id that it keeps through all versions of the dataset.
    pub canonical_id: Option<String>,
    /// The version of the dataset that it was read in.
    pub version: Option<i64>,
    /// What goes into the task.
    pub input: Option<Value>,
    /// What should come out.
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// Tags, `key:value`.
    pub tags: Vec<String>,
}
