//! Projects and datasets, over which experiments run.

use serde_json::{Map, Value};

/// A project: a group of datasets and experiments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    /// Its id, a UUID.
    pub id: String,
    /// Its name, unique in the organisation.
    pub name: String,
    /// A description.
    pub description: Option<String>,
    /// When it was created, in the upstream's format.
    pub created_at: Option<String>,
    /// When it was last changed, in the upstream's format.
    pub updated_at: Option<String>,
}

/// A dataset, without its records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// Its id, a UUID.
    pub id: String,
    /// Its name, unique in the project.
    pub name: String,
    /// A description.
    pub description: Option<String>,
    /// The version that a read without a version returns; initially 0.
    pub current_version: Option<i64>,
    /// When it was created, in the upstream's format.
    pub created_at: Option<String>,
    /// When it was last changed, in the upstream's format.
    pub updated_at: Option<String>,
}

/// A record of a dataset. Input and expected output are arbitrary JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatasetRecord {
    /// Its id within the dataset.
    pub id: String,
    /// The id that is stable across all versions of the dataset.
    pub canonical_id: Option<String>,
    /// The version of the dataset from which it was read.
    pub version: Option<i64>,
    /// The input of the task.
    pub input: Option<Value>,
    /// The expected output of the task.
    pub expected_output: Option<Value>,
    /// Free-form metadata.
    pub metadata: Map<String, Value>,
    /// Tags, `key:value`.
    pub tags: Vec<String>,
}
