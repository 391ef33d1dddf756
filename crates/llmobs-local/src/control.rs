//! The control store: projects, datasets and their records, experiments, metrics, evaluators and
//! prompts.
//!
//! [`ControlStore`] is the boundary to an engine. It stores rows without their meaning: the API
//! defines what a version, a duplicate or a unique name is, and changes rows one writer at a time
//! (`Control::change`). [`SqliteControl`] stores them in a file beside the spans, so that the two
//! schemas change independently. `ExperimentMembers` records which spans belong to which
//! experiment as they arrive.
//!
//! Every implementation guarantees:
//! - The changes of [`ControlStore::apply`] are atomic, and survive the death of the process once
//!   acknowledged.
//! - Kind and id identify an object. The same pair again replaces the object at its position.
//! - Dataset, id and the version in which it was inserted identify a version of a record.
//! - Metrics are only added, and are returned in the order of arrival.

mod evaluators;
mod members;
mod sqlite;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

pub(crate) use members::{ExperimentMembers, NewMembers};
pub use sqlite::SqliteControl;

use super::store::StoreError;

/// Maximum number of members that [`ControlStore::members`] returns.
pub const MAX_MEMBERS_PER_PAGE: usize = 1_000;

/// Stores the rows of the control plane. Methods block.
pub trait ControlStore: Send + Sync {
    /// Objects, newest first.
    fn find(&self, filter: &ObjectFilter) -> Result<Vec<Object>, StoreError>;

    /// Records of one dataset in the order of their first insertion.
    fn records(&self, filter: &RecordFilter) -> Result<Vec<Record>, StoreError>;

    /// The metrics of an experiment in the order of arrival.
    fn metrics(&self, experiment: &str, scope: MetricScope) -> Result<Vec<Metric>, StoreError>;

    /// The record runs of an experiment in the order of their starts: its root spans, with the
    /// tokens and the cost of all spans of their traces.
    fn runs(&self, filter: &RunFilter<'_>) -> Result<Vec<Member>, StoreError>;

    /// Sums over all spans of an experiment.
    fn totals(&self, experiment: &str) -> Result<Totals, StoreError>;

    /// Trace and span ids of members in order, after one of them; at most
    /// [`MAX_MEMBERS_PER_PAGE`].
    fn members(&self, after: Option<(&str, &str)>) -> Result<Vec<(String, String)>, StoreError>;

    /// The engine's check of its storage: the faults, each with the name of the storage.
    fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Bytes of the storage.
    fn bytes(&self) -> Result<u64, StoreError>;

    /// Applies all changes or none. They are durable when it returns.
    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A project.
    Project,
    /// A dataset.
    Dataset,
    /// An experiment.
    Experiment,
    /// A prompt.
    Prompt,
    /// A version of a prompt.
    PromptVersion,
    /// An evaluator.
    Evaluator,
}

impl ObjectKind {
    /// The number that an engine stores for the kind. Never changes.
    pub fn code(self) -> i64 {
        match self {
            ObjectKind::Project => 0,
            ObjectKind::Dataset => 1,
            ObjectKind::Experiment => 2,
            ObjectKind::Prompt => 3,
            ObjectKind::PromptVersion => 4,
            ObjectKind::Evaluator => 5,
        }
    }
}

/// A project, dataset, experiment, prompt, version of a prompt, or evaluator.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// The kind.
    pub kind: ObjectKind,
    /// The id, unique within the kind.
    pub id: String,
    /// The object that contains this one: the project, of a version the prompt, of an evaluator the
    /// application. Empty for none.
    pub parent: String,
    /// The name for look-ups.
    pub name: String,
    /// Deleted, but can be restored. Not listed by default.
    pub deleted: bool,
    /// The position in the order of its kind. The store assigns it to a new object.
    pub seq: i64,
    /// The other attributes.
    pub body: Map<String, Value>,
}

impl Object {
    /// A new object with an empty body.
    pub fn new(kind: ObjectKind, id: String, parent: &str, name: &str) -> Self {
        Self {
            kind,
            id,
            parent: parent.to_owned(),
            name: name.to_owned(),
            deleted: false,
            seq: 0,
            body: Map::new(),
        }
    }

    /// A text attribute; empty if missing.
    pub fn text(&self, key: &str) -> &str {
        self.body
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// An integer attribute; 0 if missing.
    pub fn number(&self, key: &str) -> i64 {
        self.body.get(key).and_then(Value::as_i64).unwrap_or(0)
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.body.insert(key.to_owned(), value.into());
    }
}

/// Selects objects. All conditions must hold.
#[derive(Debug, Clone)]
pub struct ObjectFilter {
    /// The kind.
    pub kind: ObjectKind,
    /// One of these ids; empty for any.
    pub ids: Vec<String>,
    /// The parent.
    pub parent: Option<String>,
    /// The name.
    pub name: Option<String>,
    /// Deleted objects only, or others only; `None` for both.
    pub deleted: Option<bool>,
    /// Objects before this position only.
    pub before: Option<i64>,
    /// Maximum number of objects.
    pub limit: usize,
}

impl ObjectFilter {
    /// All objects of a kind that are not deleted.
    pub fn all(kind: ObjectKind) -> Self {
        Self {
            kind,
            ids: Vec::new(),
            parent: None,
            name: None,
            deleted: Some(false),
            before: None,
            limit: usize::MAX,
        }
    }
}

/// A version of a record. The versions of the dataset from `since` to before `until` contain it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Id of the dataset.
    pub dataset: String,
    /// Id of the record.
    pub id: String,
    /// First version of the dataset that contains it.
    pub since: i64,
    /// First later version that does not contain it.
    pub until: Option<i64>,
    /// Position in the dataset. All versions of a record have the same.
    pub position: i64,
    /// Digest of the content, for finding duplicates.
    pub digest: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The other attributes.
    pub body: Map<String, Value>,
}

/// Selects records of one dataset.
#[derive(Debug, Clone)]
pub struct RecordFilter {
    /// Id of the dataset.
    pub dataset: String,
    /// Version of the dataset.
    pub version: i64,
    /// Records with all of these tags.
    pub tags: Vec<String>,
    /// One of these ids; empty for any.
    pub ids: Vec<String>,
    /// Records after this position only.
    pub after: Option<i64>,
    /// Maximum number of records.
    pub limit: usize,
}

/// A metric of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The measured span; empty for the experiment itself.
    pub span: String,
    /// The label.
    pub label: String,
    /// The JSON text that the API returns.
    pub body: String,
}

/// Selects metrics of an experiment.
#[derive(Debug, Clone, Copy)]
pub enum MetricScope {
    /// Metrics of the experiment itself.
    Experiment,
    /// Metrics of the runs that start in a range.
    Runs {
        /// First start, in nanoseconds since the Unix epoch, inclusive.
        first_ns: i64,
        /// Last start, inclusive.
        last_ns: i64,
    },
}

/// A span of an experiment, with the values that sums need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Member {
    /// Id of the experiment.
    pub experiment: String,
    /// The trace id.
    pub trace: String,
    /// The span id.
    pub span: String,
    /// Whether the span is the root of the run of a record.
    pub run: bool,
    /// Start in nanoseconds since the Unix epoch.
    pub start_ns: i64,
    /// Duration in nanoseconds.
    pub duration_ns: i64,
    /// Whether the status is error.
    pub failed: bool,
    /// Input tokens of a model call.
    pub input_tokens: f64,
    /// Output tokens of a model call.
    pub output_tokens: f64,
    /// All tokens of a model call.
    pub total_tokens: f64,
    /// Cost of a model call, in USD.
    pub cost_usd: f64,
}

/// Selects runs of an experiment, ordered by start and then span id.
#[derive(Debug, Clone, Copy)]
pub struct RunFilter<'a> {
    /// Id of the experiment.
    pub experiment: &'a str,
    /// Runs after this start and span id only.
    pub after: Option<(i64, &'a str)>,
    /// Maximum number of runs.
    pub limit: usize,
}

/// Sums over an experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Number of runs.
    pub runs: i64,
    /// Number of runs with status error.
    pub failed_runs: i64,
    /// Total duration of the runs, in nanoseconds.
    pub duration_ns: i64,
    /// Input tokens of all spans.
    pub input_tokens: f64,
    /// Output tokens of all spans.
    pub output_tokens: f64,
    /// All tokens of all spans.
    pub total_tokens: f64,
    /// Cost of all spans, in USD.
    pub cost_usd: f64,
}

/// A change of the control plane.
#[derive(Debug, Clone)]
pub enum Change {
    /// Stores an object. Replaces one with the same kind and id.
    PutObject(Object),
    /// Removes an object.
    RemoveObject {
        /// The kind.
        kind: ObjectKind,
        /// The id.
        id: String,
    },
    /// Stores a version of a record. Replaces one with the same dataset, id and `since`.
    PutRecord(Record),
    /// Removes a version of a record.
    RemoveRecord {
        /// Id of the dataset.
        dataset: String,
        /// Id of the record.
        id: String,
        /// First version of the dataset that contains it.
        since: i64,
    },
    /// Adds a metric.
    AddMetric {
        /// Id of the experiment.
        experiment: String,
        /// The metric.
        metric: Metric,
    },
    /// Removes all metrics of an experiment.
    RemoveMetrics {
        /// Id of the experiment.
        experiment: String,
    },
    /// Stores a member. Replaces one with the same trace and span id.
    PutMember(Member),
    /// Removes a member, and its metrics if it was a run.
    RemoveMember {
        /// The trace id.
        trace: String,
        /// The span id.
        span: String,
    },
    /// Removes all members that started before a moment, and the metrics of their runs.
    RemoveMembersBefore {
        /// The moment in nanoseconds since the Unix epoch.
        start_ns: i64,
    },
}

/// The control store of a backend, with the lock that serialises changes.
pub(crate) struct Control {
    pub(crate) store: Arc<dyn ControlStore>,
    write_lock: Mutex<()>,
}

impl Control {
    pub(crate) fn new(store: Arc<dyn ControlStore>) -> Self {
        Self {
            store,
            write_lock: Mutex::new(()),
        }
    }

    /// Reads, decides and writes without another change in between.
    pub(crate) fn change<T>(&self, work: impl FnOnce(&dyn ControlStore) -> T) -> T {
        let _guard = self
            .write_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(self.store.as_ref())
    }
}
