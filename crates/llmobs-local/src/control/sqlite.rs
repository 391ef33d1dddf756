//! The control plane in SQLite: `control.db` beside the spans.
//!
//! ```text
//! objects  projects, datasets, experiments, prompts: what is looked up by stands in columns
//! records  one row per version of a record; its content is zstd of JSON
//! metrics  one row per measurement, added only
//! members  one row per span of an experiment
//! ```
//!
//! One connection writes, under a lock and with one flushed commit per request; readers are a few
//! connections that each see one moment.

mod forget;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, Row, params, params_from_iter};
use serde_json::{Map, Value};

use super::{
    Change, ControlStore, Find, Kind, MEMBERS_AT_ONCE, Member, Metric, MetricsOf, Object, Record,
    RecordsAsked, RunsAsked, Totals,
};
use crate::store::{Durability, StoreError, meaning_of};

/// The file in the data folder.
const FILE_NAME: &str = "control.db";

/// Version of the tables, in `PRAGMA user_version`.
const VERSION: i64 = 1;

/// Marks a file as ours in `PRAGMA application_id`: "LLMc".
const APPLICATION_ID: i64 = 0x4c4c_4d63;

/// Idle readers that are kept.
const READERS: usize = 4;

const TABLES: &str = "
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

/// The control plane in one SQLite file.
pub(crate) struct SqliteControl {
    file: PathBuf,
    writer: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
}

impl SqliteControl {
    /// Opens the file in a folder that exists, and makes it if there is none.
    pub(crate) fn open(folder: &Path, durability: Durability) -> Result<Self, StoreError> {
        let file = folder.join(FILE_NAME);
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Process => "OFF",
        };
        Ok(Self {
            writer: Mutex::new(open_writer(&file, synchronous)?),
            file,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Runs `work` on a reader.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let lock = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.file).map_err(|error| from_sqlite(&error))?,
        };
        let result = work(&connection)?;
        let mut idle = lock();
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(result)
    }
}

/// Why rows could not be read.
enum Fault {
    Sqlite(rusqlite::Error),
    Content(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sqlite(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sqlite(error) => from_sqlite(&error),
            Fault::Content(reason) => damaged(reason),
        }
    }
}

fn open_writer(file: &Path, synchronous: &str) -> Result<Connection, StoreError> {
    let connection = Connection::open(file).map_err(|error| from_sqlite(&error))?;
    let prepare = || -> rusqlite::Result<Result<(), StoreError>> {
        connection.busy_timeout(Duration::from_secs(5))?;
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let found = number("PRAGMA user_version")?;
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        if tables > 0 && number("PRAGMA application_id")? != APPLICATION_ID {
            let reason = "it is a database of another program".to_owned();
            return Ok(Err(damaged(reason)));
        }
        if found > VERSION {
            return Ok(Err(StoreError::Newer {
                found,
                known: VERSION,
            }));
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "journal_size_limit", 67_108_864)?;
        if tables == 0 {
            connection.execute_batch(&format!(
                "BEGIN IMMEDIATE; {TABLES}
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
            ))?;
        }
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Ok(()))
    };
    prepare().map_err(|error| from_sqlite(&error))??;
    Ok(connection)
}

fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn damaged(reason: String) -> StoreError {
    StoreError::Damaged {
        file: FILE_NAME.to_owned(),
        reason,
    }
}

fn from_sqlite(error: &rusqlite::Error) -> StoreError {
    meaning_of(error, FILE_NAME)
}

/// A SELECT that grows by its conditions.
struct Select {
    sql: String,
    parameters: Vec<Sql>,
}

impl Select {
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

    /// One of these values; any when there are none.
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

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn object_of(kind: Kind, row: &Row<'_>) -> Result<Object, Fault> {
    let body: String = row.get(5)?;
    Ok(Object {
        kind,
        seq: row.get(0)?,
        id: row.get(1)?,
        parent: row.get(2)?,
        name: row.get(3)?,
        deleted: row.get(4)?,
        body: serde_json::from_str(&body).map_err(|error| Fault::Content(error.to_string()))?,
    })
}

fn record_of(dataset: &str, row: &Row<'_>, tags: Vec<String>) -> Result<Record, Fault> {
    let unreadable = |error: &dyn std::fmt::Display| Fault::Content(error.to_string());
    let json = zstd::decode_all(row.get_ref(6)?.as_blob().map_err(|e| unreadable(&e))?)
        .map_err(|error| unreadable(&error))?;
    let body: Map<String, Value> =
        serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
    Ok(Record {
        dataset: dataset.to_owned(),
        id: row.get(0)?,
        since: row.get(1)?,
        until: row.get(2)?,
        place: row.get(3)?,
        digest: row.get(4)?,
        tags,
        body,
    })
}

fn member_of(experiment: &str, row: &Row<'_>) -> rusqlite::Result<Member> {
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
    fn find(&self, find: &Find) -> Result<Vec<Object>, StoreError> {
        let mut select =
            Select::new("SELECT seq, id, parent, name, deleted, body FROM objects WHERE kind = ?");
        select.parameters.push(Sql::Integer(find.kind.code()));
        select.and_in("id", &find.ids);
        if let Some(parent) = &find.parent {
            select.and("parent = ?", [text(parent)]);
        }
        if let Some(name) = &find.name {
            select.and("name = ?", [text(name)]);
        }
        if let Some(deleted) = find.deleted {
            select.and("deleted = ?", [Sql::Integer(i64::from(deleted))]);
        }
        if let Some(before) = find.before {
            select.and("seq < ?", [Sql::Integer(before)]);
        }
        select.sql.push_str(" ORDER BY seq DESC LIMIT ?");
        select.parameters.push(Sql::Integer(limit_of(find.limit)));
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(object_of(find.kind, row)?);
            }
            Ok(found)
        })
    }

    fn records(&self, asked: &RecordsAsked) -> Result<Vec<Record>, StoreError> {
        let mut select = Select::new(
            "SELECT id, since, until, place, digest, tags, z FROM records WHERE dataset = ?",
        );
        select.parameters.push(text(&asked.dataset));
        select.and(
            "since <= ? AND (until IS NULL OR until > ?)",
            [Sql::Integer(asked.version), Sql::Integer(asked.version)],
        );
        select.and_in("id", &asked.ids);
        if let Some(after) = asked.after {
            select.and("place > ?", [Sql::Integer(after)]);
        }
        select.sql.push_str(" ORDER BY place, id");
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&select.sql)?;
            let mut rows = statement.query(params_from_iter(select.parameters))?;
            let mut found = Vec::new();
            while found.len() < asked.limit
                && let Some(row) = rows.next()?
            {
                let tags: String = row.get(5)?;
                let tags: Vec<String> = serde_json::from_str(&tags)
                    .map_err(|error| Fault::Content(error.to_string()))?;
                if asked.tags.iter().all(|wanted| tags.contains(wanted)) {
                    found.push(record_of(&asked.dataset, row, tags)?);
                }
            }
            Ok(found)
        })
    }

    fn metrics(&self, experiment: &str, of: MetricsOf) -> Result<Vec<Metric>, StoreError> {
        let mut select = Select::new("SELECT span, label, body FROM metrics WHERE experiment = ?");
        select.parameters.push(text(experiment));
        match of {
            MetricsOf::Whole => select.and("span = ''", []),
            MetricsOf::Runs { first_ns, last_ns } => select.and(
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

    fn runs(&self, asked: &RunsAsked<'_>) -> Result<Vec<Member>, StoreError> {
        let mut select = Select::new(
            "SELECT trace, span, run, start, dur, err,
               (SELECT SUM(tokens_in) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(tokens_out) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(tokens) FROM members AS one WHERE one.trace = root.trace),
               (SELECT SUM(cost) FROM members AS one WHERE one.trace = root.trace)
             FROM members AS root WHERE experiment = ? AND run = 1",
        );
        select.parameters.push(text(asked.experiment));
        if let Some((start, span)) = asked.after {
            select.and("(start, span) > (?, ?)", [Sql::Integer(start), text(span)]);
        }
        select.sql.push_str(" ORDER BY start, span LIMIT ?");
        select.parameters.push(Sql::Integer(limit_of(asked.limit)));
        self.read(|connection| {
            let members = connection
                .prepare_cached(&select.sql)?
                .query_map(params_from_iter(select.parameters), |row| {
                    member_of(asked.experiment, row)
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
            let told: Vec<String> = connection
                .prepare("PRAGMA integrity_check(100)")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(told.into_iter().filter(|line| line != "ok").collect())
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
                .query_map(params![trace, span, MEMBERS_AT_ONCE as i64], |row| {
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
            // Rolls itself back when dropped without a commit.
            let transaction = connection.transaction()?;
            for change in &changes {
                make(&transaction, change)?;
            }
            transaction.commit()
        };
        attempt().map_err(|error| from_sqlite(&error))
    }
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(foreign)
}

fn foreign(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

fn make(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Object(object) => connection
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
        Change::Record(record) => {
            let body = serde_json::to_vec(&record.body).map_err(foreign)?;
            let z = zstd::encode_all(body.as_slice(), 3).map_err(foreign)?;
            connection
                .prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
                .execute(params![
                    record.dataset,
                    record.id,
                    record.since,
                    record.until,
                    record.place,
                    record.digest,
                    json(&record.tags)?,
                    z
                ])?
        }
        Change::RemoveRecord { dataset, id, since } => connection
            .prepare_cached("DELETE FROM records WHERE dataset = ?1 AND id = ?2 AND since = ?3")?
            .execute(params![dataset, id, since])?,
        Change::Metric { experiment, metric } => connection
            .prepare_cached(
                "INSERT INTO metrics (experiment, span, label, body) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![experiment, metric.span, metric.label, metric.body])?,
        Change::ForgetMetrics { experiment } => connection
            .prepare_cached("DELETE FROM metrics WHERE experiment = ?1")?
            .execute([experiment])?,
        Change::Member(member) => connection
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
        Change::ForgetMember { trace, span } => forget::member(connection, trace, span)?,
        Change::ForgetMembersBefore { start_ns } => forget::before(connection, *start_ns)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_and_a_foreign_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = || SqliteControl::open(folder.path(), Durability::Process);
        drop(open().unwrap());
        let file = Connection::open(folder.path().join(FILE_NAME)).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(open(), Err(StoreError::Newer { found: 99, .. })));
        file.pragma_update(None, "application_id", 1).unwrap();
        assert!(matches!(open(), Err(StoreError::Damaged { .. })));
    }
}
