//! What experiments are made of besides spans: projects, datasets and their records, experiments,
//! metrics, prompts.
//!
//! The seam is [`ControlStore`], which knows rows and nothing of their meaning: what a version, a
//! duplicate or a unique name is, the API above it says, one writer at a time
//! ([`Control::change`]). Its implementation is [`SqliteControl`], in a file of its own beside the
//! spans, so that the two schemas change apart. [`Membered`] notes which spans belong to which
//! experiment as they arrive.
//!
//! The rules every implementation keeps:
//! - what [`ControlStore::apply`] acknowledged survives the death of the process, all of it or nothing;
//! - an object is identified by kind and id, and the same again replaces it in its place in the order;
//! - a record is identified by dataset, id and the version it came with;
//! - metrics are only ever added, and come back in the order they came.

mod members;
mod sqlite;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod oracle;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

pub(super) use members::Membered;
pub(super) use sqlite::SqliteControl;

use super::store::StoreError;

/// How many members are listed at once.
pub(super) const MEMBERS_AT_ONCE: usize = 1_000;

/// Rows of the control plane. Methods block.
pub(super) trait ControlStore: Send + Sync {
    /// Objects, newest first.
    fn find(&self, find: &Find) -> Result<Vec<Object>, StoreError>;

    /// Records of one dataset in the order they were first inserted.
    fn records(&self, asked: &RecordsAsked) -> Result<Vec<Record>, StoreError>;

    /// The metrics of an experiment, in the order they came.
    fn metrics(&self, experiment: &str, of: MetricsOf) -> Result<Vec<Metric>, StoreError>;

    /// The record runs of an experiment by start: its root spans, with the tokens and the cost of
    /// all spans of their traces.
    fn runs(&self, asked: &RunsAsked<'_>) -> Result<Vec<Member>, StoreError>;

    /// Sums over all spans of an experiment.
    fn totals(&self, experiment: &str) -> Result<Totals, StoreError>;

    /// Trace and span id of members in their order, behind one of them; at most
    /// [`MEMBERS_AT_ONCE`].
    fn members(&self, after: Option<(&str, &str)>) -> Result<Vec<(String, String)>, StoreError>;

    /// What the engine finds wrong with its file.
    fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Bytes of the file.
    fn bytes(&self) -> Result<u64, StoreError>;

    /// Makes the changes, all or none. Durable when it returns.
    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Project,
    Dataset,
    Experiment,
    Prompt,
    PromptVersion,
}

impl Kind {
    fn code(self) -> i64 {
        match self {
            Kind::Project => 0,
            Kind::Dataset => 1,
            Kind::Experiment => 2,
            Kind::Prompt => 3,
            Kind::PromptVersion => 4,
        }
    }
}

/// A project, dataset, experiment, prompt or version of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// What it belongs to: the project, or for a prompt's version the prompt. Empty for none.
    pub(super) parent: String,
    /// The name by which it is looked up.
    pub(super) name: String,
    /// Softly deleted: no longer listed unless asked for.
    pub(super) deleted: bool,
    /// Its place in the order of its kind; given by the store to an object that is new.
    pub(super) seq: i64,
    pub(super) body: Map<String, Value>,
}

impl Object {
    pub(super) fn new(kind: Kind, id: String, parent: &str, name: &str) -> Self {
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

    pub(super) fn text(&self, key: &str) -> &str {
        self.body
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> i64 {
        self.body.get(key).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.body.insert(key.to_owned(), value.into());
    }
}

/// Which objects are asked for. Everything given must hold.
#[derive(Debug, Clone)]
pub(super) struct Find {
    pub(super) kind: Kind,
    pub(super) ids: Vec<String>,
    pub(super) parent: Option<String>,
    pub(super) name: Option<String>,
    /// Deleted ones instead of those that are there; `None` for both.
    pub(super) deleted: Option<bool>,
    /// Only those older than this place.
    pub(super) before: Option<i64>,
    pub(super) limit: usize,
}

impl Find {
    pub(super) fn all(kind: Kind) -> Self {
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

/// One version of a record: it is in the dataset's versions from `since` to before `until`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) dataset: String,
    pub(super) id: String,
    pub(super) since: i64,
    pub(super) until: Option<i64>,
    /// Place in the dataset; a record keeps it over its versions.
    pub(super) place: i64,
    /// Digest of the content, by which duplicates are known.
    pub(super) digest: String,
    pub(super) tags: Vec<String>,
    pub(super) body: Map<String, Value>,
}

/// Which records are asked for.
#[derive(Debug, Clone)]
pub(super) struct RecordsAsked {
    pub(super) dataset: String,
    pub(super) version: i64,
    /// All of these.
    pub(super) tags: Vec<String>,
    pub(super) ids: Vec<String>,
    /// Only those behind this place.
    pub(super) after: Option<i64>,
    pub(super) limit: usize,
}

/// A measurement of an experiment, kept as it will be answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    /// The span measured; empty for the experiment as a whole.
    pub(super) span: String,
    pub(super) label: String,
    /// JSON text.
    pub(super) body: String,
}

/// Which metrics are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetricsOf {
    /// Those about the experiment as a whole.
    Whole,
    /// Those of the runs between two starts, in nanoseconds, inclusive.
    Runs { first_ns: i64, last_ns: i64 },
}

/// A span's membership in an experiment, with what its sums need.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Member {
    pub(super) experiment: String,
    pub(super) trace: String,
    pub(super) span: String,
    /// Whether it is the root of a record's run.
    pub(super) run: bool,
    pub(super) start_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) failed: bool,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
    pub(super) total_tokens: f64,
    pub(super) cost_usd: f64,
}

/// Which runs are asked for, by start and then span id.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunsAsked<'a> {
    pub(super) experiment: &'a str,
    /// Only those behind this place.
    pub(super) after: Option<(i64, &'a str)>,
    pub(super) limit: usize,
}

/// Sums over an experiment. Spans and errors are of runs; the rest of all spans.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) runs: i64,
    pub(super) failed_runs: i64,
    pub(super) duration_ns: i64,
    pub(super) input_tokens: f64,
    pub(super) output_tokens: f64,
    pub(super) total_tokens: f64,
    pub(super) cost_usd: f64,
}

/// One change of the control plane.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Keeps an object; one that is there is replaced.
    Object(Object),
    /// Keeps a version of a record; the same (dataset, id, since) is replaced.
    Record(Record),
    /// Removes a version of a record.
    RemoveRecord {
        dataset: String,
        id: String,
        since: i64,
    },
    /// Adds a metric.
    Metric { experiment: String, metric: Metric },
    /// Removes all metrics of an experiment.
    ForgetMetrics { experiment: String },
    /// Notes a span's membership; the same (trace, span) is replaced.
    Member(Member),
    /// Forgets a span that is no longer kept, and its metrics if it was a run.
    ForgetMember { trace: String, span: String },
    /// Forgets in the same way all spans that began before this.
    ForgetMembersBefore { start_ns: i64 },
}

/// The control plane of a backend: its store, and the one lock that its changes are made under.
pub(super) struct Control {
    pub(super) store: Arc<dyn ControlStore>,
    changing: Mutex<()>,
}

impl Control {
    pub(super) fn new(store: Arc<dyn ControlStore>) -> Self {
        Self {
            store,
            changing: Mutex::new(()),
        }
    }

    /// Reads, decides and writes with no other change in between.
    pub(super) fn change<T>(&self, work: impl FnOnce(&dyn ControlStore) -> T) -> T {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        work(self.store.as_ref())
    }
}
