//! The control store in SQLite: `control.db` beside the spans.
//!
//! ```text
//! objects  projects, datasets, experiments, prompts, evaluators, with columns for look-ups
//! records  one row per version of a record; the body is zstd-compressed JSON
//! metrics  one row per metric, added only
//! members  one row per span of an experiment
//! ```
//!
//! One connection writes, under a lock and with one flushed commit per request. A few readers each
//! see one state of the data.

mod removal;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use llmobs_sqlite::{ReaderPool, Schema};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde_json::{Map, Value};

use super::{
    Change, ControlStore, MAX_MEMBERS_PER_PAGE, Member, Metric, MetricScope, Object, ObjectFilter,
    ObjectKind, Record, RecordFilter, RunFilter, Totals,
};
use crate::store::{Durability, StoreError, open_error, sqlite_error};

/// The file in the data directory.
const FILE_NAME: &str = "control.db";

/// Maximum number of open readers; further reads wait.
const MAX_READERS: usize = 8;

const VERSION_1: &str = "
CREATE TABLE objects (
  seq INTEGER PRIMARY KEY,
  kind INTEGER NOT NULL,
  id TEXT NOT NULL,
  parent TEXT NOT NULL,
  name TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (kind, id)
);
CREATE INDEX objects_parent ON objects (kind, parent, seq);
CREATE INDEX objects_name ON objects (kind, name);
CREATE TABLE records (
  dataset TEXT NOT NULL,
  id TEXT NOT NULL,
  since INTEGER NOT NULL,
  until INTEGER,
  place INTEGER NOT NULL,
  digest TEXT NOT NULL,
  tags TEXT NOT NULL,
  z BLOB NOT NULL,
  PRIMARY KEY (dataset, id, since)
);
CREATE INDEX records_place ON records (dataset, place, since);
CREATE TABLE metrics (
  seq INTEGER PRIMARY KEY,
  experiment TEXT NOT NULL,
  span TEXT NOT NULL,
  label TEXT NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX metrics_span ON metrics (experiment, span);
CREATE TABLE members (
  experiment TEXT NOT NULL,
  trace TEXT NOT NULL,
  span TEXT NOT NULL,
  run INTEGER NOT NULL,
  start INTEGER NOT NULL,
  dur INTEGER NOT NULL,
  err INTEGER NOT NULL,
  tokens_in REAL NOT NULL,
  tokens_out REAL NOT NULL,
  tokens REAL NOT NULL,
  cost REAL NOT NULL,
  PRIMARY KEY (trace, span)
) WITHOUT ROWID;
CREATE INDEX members_run ON members
  (experiment, run, start, span, dur, err, tokens_in, tokens_out, tokens, cost);
";

/// The file of the control store. Its application id reads "LLMc".
static SCHEMA: Schema = Schema {
    application_id: 0x4c4c_4d63,
    migrations: &[VERSION_1],
    incremental_vacuum: false,
    writer_pragmas: "PRAGMA journal_size_limit = 67108864;",
    reader_pragmas: "",
    statement_cache_capacity: 32,
};

/// The control store in one SQLite file.
pub struct SqliteControl {
    writer: Mutex<Connection>,
    readers: ReaderPool,
}

impl SqliteControl {
    /// Opens the file in an existing directory, and creates it if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the file cannot be used.
    pub fn open(directory: &Path, durability: Durability) -> Result<Self, StoreError> {
        let file = directory.join(FILE_NAME);
        let writer = SCHEMA
            .open_writer(&file, durability)
            .map_err(|error| open_error(error, FILE_NAME))?;
        Ok(Self {
            writer: Mutex::new(writer),
            readers: ReaderPool::new(file, &SCHEMA, MAX_READERS),
        })
    }

    /// Runs `work` in one read transaction.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        self.readers.read(work).map_err(StoreError::from)
    }
}

/// Why rows cannot be read.
enum ReadError {
    Sqlite(rusqlite::Error),
    /// The content of a row is malformed.
    Content(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sqlite(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => sqlite_error(error, FILE_NAME),
            ReadError::Content(reason) => StoreError::Damaged {
                location: FILE_NAME.to_owned(),
                cause: reason.into(),
            },
        }
    }
}

/// A SELECT to which conditions are added.
struct SelectBuilder {
    sql: String,
    parameters: Vec<Sql>,
}

impl SelectBuilder {
    fn new(sql: &str) -> Self {
        Self {
            sql: sql.to_owned(),
            parameters: Vec::new(),
        }
    }

    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.parameters.extend(values);
    }

    /// Adds that the column has one of the values, or any if there are none.
    fn and_in(&mut self, column: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let list = serde_json::json!(values).to_string();
        let condition = format!("{column} IN (SELECT value FROM json_each(?))");
        self.and(&condition, [Sql::Text(list)]);
    }
}

fn text(value: &str) -> Sql {
    Sql::Text(value.to_owned())
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn decode_object(kind: ObjectKind, row: &Row<'_>) -> Result<Object, ReadError> {
    let body: String = row.get(5)?;
    Ok(Object {
        kind,
        seq: row.get(0)?,
        id: row.get(1)?,
        parent: row.get(2)?,
        name: row.get(3)?,
        deleted: row.get(4)?,
        body: serde_json::from_str(&body).map_err(|error| ReadError::Content(error.to_string()))?,
    })
}

fn decode_record(dataset: &str, row: &Row<'_>, tags: Vec<String>) -> Result<Record, ReadError> {
    let malformed = |error: &dyn std::fmt::Display| ReadError::Content(error.to_string());
    let json = zstd::decode_all(row.get_ref(6)?.as_blob().map_err(|e| malformed(&e))?)
        .map_err(|error| malformed(&error))?;
    let body: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|error| malformed(&error))?;
    Ok(Record {
        dataset: dataset.to_owned(),
        id: row.get(0)?,
        since: row.get(1)?,
        until: row.get(2)?,
        position: row.get(3)?,
        digest: row.get(4)?,
        tags,
        body,
    })
}

fn decode_member(experiment: &str, row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        experiment: experiment.to_owned(),
        trace: row.get(0)?,
        span: row.get(1)?,
        run: row.get(2)?,
        start_ns: row.get(3)?,
        duration_ns: row.get(4)?,
        failed: row.get(5)?,
        input_tokens: row.get(6)?,
        output_tokens: row.get(7)?,
        total_tokens: row.get(8)?,
        cost_usd: row.get(9)?,
    })
}

impl ControlStore for SqliteControl {
    fn find(&self, filter: &ObjectFilter) -> Result<Vec<Object>, StoreError> {
        let mut select = SelectBuilder::new(
            "SELECT seq, id, parent, name, deleted, body FROM objects WHERE kind = ?",
        );
        select.parameters.push(Sql::Integer(filter.kind.code()));
        select.and_in("id", &filter.ids);
        if let Some(parent) = &filter.parent {
            select.and("parent = ?", [text(parent)]);
        }
        if let Some(name) = &filter.name {
            select.and("name = ?", [text(name)]);
        }
        if let Some(deleted) = filter.deleted {
            select.and("deleted = ?", [Sql::Integer(i64::from(deleted))]);
        }
        if let Some(before) = filter.before {
            select.and("seq < ?", [Sql::Integer(before)]);
        }
        select.sql.push_str(" ORDER BY seq DESC LIMIT ?");
        select
            .parameters
            .push(Sql::Integer(sql_limit(filter.limit)));
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters))?;
            let mut objects = Vec::new();
            while let Some(row) = rows.next()? {
                objects.push(decode_object(filter.kind, row)?);
            }
            Ok(objects)
        })
    }

    fn records(&self, filter: &RecordFilter) -> Result<Vec<Record>, StoreError> {
        let mut select = SelectBuilder::new(
            "SELECT id, since, until, place, digest, tags, z FROM records WHERE dataset = ?",
        );
        select.parameters.push(text(&filter.dataset));
        select.and(
            "since <= ? AND (until IS NULL OR until > ?)",
            [Sql::Integer(filter.version), Sql::Integer(filter.version)],
        );
        select.and_in("id", &filter.ids);
        if let Some(after) = filter.after {
            select.and("place > ?", [Sql::Integer(after)]);
        }
        select.sql.push_str(" ORDER BY place, id");
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters))?;
            let mut records = Vec::new();
            while records.len() < filter.limit
                && let Some(row) = rows.next()?
            {
                let tags: String = row.get(5)?;
                let tags: Vec<String> = serde_json::from_str(&tags)
                    .map_err(|error| ReadError::Content(error.to_string()))?;
                if filter.tags.iter().all(|wanted| tags.contains(wanted)) {
                    records.push(decode_record(&filter.dataset, row, tags)?);
                }
            }
            Ok(records)
        })
    }

    fn metrics(&self, experiment: &str, scope: MetricScope) -> Result<Vec<Metric>, StoreError> {
        let mut select =
            SelectBuilder::new("SELECT span, label, body FROM metrics WHERE experiment = ?");
        select.parameters.push(text(experiment));
        match scope {
            MetricScope::Experiment => select.and("span = ''", []),
            MetricScope::Runs { first_ns, last_ns } => select.and(
                "span IN (SELECT span FROM members WHERE experiment = ? AND run = 1
                          AND start BETWEEN ? AND ?)",
                [
                    text(experiment),
                    Sql::Integer(first_ns),
                    Sql::Integer(last_ns),
                ],
            ),
        }
        select.sql.push_str(" ORDER BY seq");
        self.read(|connection| {
            let metrics = connection
                .prepare_cached(&select.sql)?
                .query_map(params_from_iter(select.parameters), |row| {
                    Ok(Metric {
                        span: row.get(0)?,
                        label: row.get(1)?,
                        body: row.get(2)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(metrics)
        })
    }

    fn runs(&self, filter: &RunFilter<'_>) -> Result<Vec<Member>, StoreError> {
        let mut select = SelectBuilder::new(
            "SELECT trace, span, run, start, dur, err,
               (SELECT SUM(tokens_in) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(tokens_out) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(tokens) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(cost) FROM members AS one WHERE one.trace = root.trace)
             FROM members AS root WHERE experiment = ? AND run = 1",
        );
        select.parameters.push(text(filter.experiment));
        if let Some((start, span)) = filter.after {
            select.and("(start, span) > (?, ?)", [Sql::Integer(start), text(span)]);
        }
        select.sql.push_str(" ORDER BY start, span LIMIT ?");
        select
            .parameters
            .push(Sql::Integer(sql_limit(filter.limit)));
        self.read(|connection| {
            let members = connection
                .prepare_cached(&select.sql)?
                .query_map(params_from_iter(select.parameters), |row| {
                    decode_member(filter.experiment, row)
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(members)
        })
    }

    fn totals(&self, experiment: &str) -> Result<Totals, StoreError> {
        self.read(|connection| {
            let totals = connection
                .prepare_cached(
                    "SELECT coalesce(sum(run), 0), coalesce(sum(run AND err), 0),
                            coalesce(sum(dur * run), 0), total(tokens_in), total(tokens_out),
                            total(tokens), total(cost)
                     FROM members WHERE experiment = ?1",
                )?
                .query_row([experiment], |row| {
                    Ok(Totals {
                        runs: row.get(0)?,
                        failed_runs: row.get(1)?,
                        duration_ns: row.get(2)?,
                        input_tokens: row.get(3)?,
                        output_tokens: row.get(4)?,
                        total_tokens: row.get(5)?,
                        cost_usd: row.get(6)?,
                    })
                })?;
            Ok(totals)
        })
    }

    fn check(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let lines: Vec<String> = connection
                .prepare("PRAGMA integrity_check(100)")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let faults = lines.into_iter().filter(|line| line != "ok");
            Ok(faults
                .map(|fault| format!("{FILE_NAME}: {fault}"))
                .collect())
        })
    }

    fn members(&self, after: Option<(&str, &str)>) -> Result<Vec<(String, String)>, StoreError> {
        let (trace, span) = after.unwrap_or_default();
        self.read(|connection| {
            let members = connection
                .prepare_cached(
                    "SELECT trace, span FROM members WHERE (trace, span) > (?1, ?2)
                     ORDER BY trace, span LIMIT ?3",
                )?
                .query_map(params![trace, span, MAX_MEMBERS_PER_PAGE as i64], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(members)
        })
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        self.read(|connection| {
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            let bytes = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
            Ok(bytes.unsigned_abs())
        })
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempt = || -> rusqlite::Result<()> {
            // Rolls back when dropped without a commit.
            let transaction = connection.transaction()?;
            for change in &changes {
                apply_change(&transaction, change)?;
            }
            transaction.commit()
        };
        attempt().map_err(|error| sqlite_error(error, FILE_NAME))
    }
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(conversion_error)
}

fn conversion_error(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn apply_change(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::PutObject(object) => connection
            .prepare_cached(
                "INSERT INTO objects (kind, id, parent, name, deleted, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent,
                   name = excluded.name, deleted = excluded.deleted, body = excluded.body",
            )?
            .execute(params![
                object.kind.code(),
                object.id,
                object.parent,
                object.name,
                object.deleted,
                json(&object.body)?
            ])?,
        Change::RemoveObject { kind, id } => connection
            .prepare_cached("DELETE FROM objects WHERE kind = ?1 AND id = ?2")?
            .execute(params![kind.code(), id])?,
        Change::PutRecord(record) => {
            let body = serde_json::to_vec(&record.body).map_err(conversion_error)?;
            let z = zstd::encode_all(body.as_slice(), 3).map_err(conversion_error)?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![
                    record.dataset,
                    record.id,
                    record.since,
                    record.until,
                    record.position,
                    record.digest,
                    json(&record.tags)?,
                    z
                ])?
        }
        Change::RemoveRecord { dataset, id, since } => connection
            .prepare_cached("DELETE FROM records WHERE dataset = ?1 AND id = ?2 AND since = ?3")?
            .execute(params![dataset, id, since])?,
        Change::AddMetric { experiment, metric } => connection
            .prepare_cached(
                "INSERT INTO metrics (experiment, span, label, body) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![experiment, metric.span, metric.label, metric.body])?,
        Change::RemoveMetrics { experiment } => connection
            .prepare_cached("DELETE FROM metrics WHERE experiment = ?1")?
            .execute([experiment])?,
        Change::PutMember(member) => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                member.experiment,
                member.trace,
                member.span,
                member.run,
                member.start_ns,
                member.duration_ns,
                member.failed,
                member.input_tokens,
                member.output_tokens,
                member.total_tokens,
                member.cost_usd
            ])?,
        Change::RemoveMember { trace, span } => removal::remove_member(connection, trace, span)?,
        Change::RemoveMembersBefore { start_ns } => removal::remove_members_before(connection, *start_ns)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, TestControl};
    use super::*;

    fn open_empty() -> TestControl {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteControl::open(directory.path(), Durability::Process).unwrap();
        TestControl {
            store: Box::new(store),
            resources: Box::new(directory),
        }
    }

    #[test]
    fn passes_the_conformance_suite() {
        conformance::check_all(&open_empty);
    }

    #[test]
    fn refuses_newer_schema_and_files_of_other_programs() {
        let directory = tempfile::tempdir().unwrap();
        let open = || SqliteControl::open(directory.path(), Durability::Process);
        drop(open().unwrap());
        let file = Connection::open(directory.path().join(FILE_NAME)).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(open(), Err(StoreError::Newer { found: 99, .. })));
        file.pragma_update(None, "application_id", 1).unwrap();
        assert!(matches!(open(), Err(StoreError::Damaged { .. })));
    }
}
