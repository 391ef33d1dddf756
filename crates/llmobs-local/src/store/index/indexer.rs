//! The thread that builds the index and keeps it up to date with the outbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{IndexReader, IndexWriter, ReloadPolicy, Term};

use super::changes::{RowOrigin, changes_since};
use super::document::document;
use super::error::IndexError;
use super::files::{self, CommitPayload};
use super::schema::IndexFields;
use super::state::{IndexProgress, IndexState};
use super::view::IndexView;
use crate::store::join::EvaluationJoiner;
use crate::store::outbox::last_change;
use crate::store::rows::{ReadError, load_span};
use crate::store::{Cause, StoreError};

/// Threads that write segments. With a single one, the other processors would be idle.
const WRITER_THREADS: usize = 2;

/// Memory for the documents of each writer thread, in bytes.
const WRITER_MEMORY_BYTES: usize = 40 * 1024 * 1024;

/// Shortest interval between commits: each costs some flushes of the disk, regardless of its size.
const MIN_COMMIT_INTERVAL: Duration = Duration::from_millis(150);

/// This many changes within [`MIN_COMMIT_INTERVAL`] are a burst. During a burst a commit waits for
/// [`BATCH_TARGET`] changes, up to [`MAX_COMMIT_INTERVAL`]: large commits cost less, and leave less
/// to merge.
const BURST_MIN: i64 = 400;
const BATCH_TARGET: i64 = 4_000;
const MAX_COMMIT_INTERVAL: Duration = Duration::from_millis(800);

/// A burst ends when no change arrives for this long.
const BURST_IDLE: Duration = Duration::from_millis(100);

/// The `nice` value of the indexing threads. Each step yields about a tenth of the processor to
/// threads of normal priority.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// Time after which a failed build is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Rows that a build reads in one transaction.
const ROWS_PER_READ: usize = 1_000;

/// Rows between two commits of a build. An interrupted build continues after its last commit.
const ROWS_PER_COMMIT: usize = 50_000;

/// Segments of similar size that are merged into one. A higher number rewrites documents less often,
/// but a merge needs more memory, and a search reads more segments.
const MERGED_SEGMENTS: usize = 16;

/// The handle of the thread. Dropping it ends the thread.
pub(super) struct Indexer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Indexer {
    pub(super) fn start(
        directory: PathBuf,
        store_id: String,
        connection: Connection,
        state: Arc<IndexState>,
    ) -> Result<Self, StoreError> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = IndexWorker {
            directory,
            store_id,
            connection,
            state,
            woken,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("llmobs-indexer".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| StoreError::Unavailable(Cause::new(error)))?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
            stop,
        })
    }

    pub(super) fn wake(&self) {
        if let Some(Err(TrySendError::Disconnected(()))) =
            self.wake.as_ref().map(|wake| wake.try_send(()))
        {
            tracing::debug!("the indexer has ended");
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, searches read rows.
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct IndexWorker {
    directory: PathBuf,
    store_id: String,
    connection: Connection,
    state: Arc<IndexState>,
    woken: Receiver<()>,
    stop: Arc<AtomicBool>,
}

/// An index that is open for writing.
struct OpenIndex {
    writer: IndexWriter,
    reader: IndexReader,
    fields: IndexFields,
    payload: CommitPayload,
}

/// Why the work on an open index ended.
enum WorkOutcome {
    Stopped,
    RebuildNeeded,
}

impl IndexWorker {
    fn run(&mut self) {
        lower_priority();
        let mut rebuild = false;
        while !self.is_stopped() {
            // tantivy trusts its files, so damaged files can make it panic.
            let ended = catch_unwind(AssertUnwindSafe(|| self.work(rebuild)));
            let ended = ended.unwrap_or(Err(IndexError::DamagedFiles));
            self.state.hide();
            match ended {
                Ok(WorkOutcome::Stopped) => return,
                Ok(WorkOutcome::RebuildNeeded) => rebuild = true,
                Err(error) if !rebuild => {
                    tracing::warn!(%error, "the search index of the local store cannot be used; rebuilding it (searches are slower until it is complete)");
                    rebuild = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the search index of the local store cannot be built; retrying (searches are slower until then)");
                    self.state.fail(error.to_string());
                    let deadline = Instant::now() + RETRY_INTERVAL;
                    while Instant::now() < deadline && !self.is_stopped() {
                        self.wait(deadline.saturating_duration_since(Instant::now()));
                    }
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for a change, or for the end of the store.
    fn wait(&self, timeout: Duration) {
        match self.woken.recv_timeout(timeout) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.stop.store(true, Ordering::Release),
        }
    }

    /// Opens the index and keeps it up to date until something else must be done.
    fn work(&mut self, rebuild: bool) -> Result<WorkOutcome, IndexError> {
        let rebuild = self.state.start_work() || rebuild;
        let mut open = self.open(rebuild)?;
        let ended = self.follow(&mut open);
        if !matches!(ended, Ok(WorkOutcome::Stopped)) {
            // A running merge would write files into the directory of the next index.
            if let Err(error) = open.writer.wait_merging_threads() {
                tracing::debug!(%error, "a merge of the search index failed");
            }
        }
        ended
    }

    /// Finishes the build of an index if necessary, and follows the changes.
    fn follow(&mut self, open: &mut OpenIndex) -> Result<WorkOutcome, IndexError> {
        if open.payload.building.is_some() && !self.build(open)? {
            return Ok(WorkOutcome::Stopped);
        }
        // Searches look at every change that is not in the view, so the first view must be recent.
        if !self.catch_up(open)? {
            return Ok(WorkOutcome::RebuildNeeded);
        }
        if !self.is_complete(open)? {
            tracing::warn!(
                "the search index of the local store has another number of spans than the store; rebuilding it"
            );
            return Ok(WorkOutcome::RebuildNeeded);
        }
        self.publish(open);
        loop {
            let started = Instant::now();
            if self.state.is_rebuild_requested() || !self.catch_up(open)? {
                return Ok(WorkOutcome::RebuildNeeded);
            }
            self.wait(Duration::from_secs(1));
            self.wait_for_batch(started, open.payload.seq);
            if self.is_stopped() {
                return Ok(WorkOutcome::Stopped);
            }
        }
    }

    /// Waits until the next commit is due. The last commit started at `started` and contains all
    /// changes up to `seq`.
    fn wait_for_batch(&self, started: Instant, seq: i64) {
        let (mut pending, mut last_arrival) = (0, Instant::now());
        while !self.is_stopped() {
            let written = self.state.written_seq() - seq;
            if written != pending {
                (pending, last_arrival) = (written, Instant::now());
            }
            let is_burst =
                (BURST_MIN..BATCH_TARGET).contains(&pending) && last_arrival.elapsed() < BURST_IDLE;
            let interval = if is_burst {
                MAX_COMMIT_INTERVAL
            } else {
                MIN_COMMIT_INTERVAL
            };
            if started.elapsed() >= interval {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn open(&mut self, rebuild: bool) -> Result<OpenIndex, IndexError> {
        let existing = if rebuild {
            None
        } else {
            files::open(&self.directory, &self.store_id)
        };
        let (index, fields, payload) = match existing {
            Some(existing) => existing,
            None => {
                let (index, fields) = files::create(&self.directory)?;
                let seq = last_change(&self.connection)?;
                (index, fields, CommitPayload::empty(&self.store_id, seq))
            }
        };
        let options = IndexWriterOptions::builder()
            .num_worker_threads(WRITER_THREADS)
            .memory_budget_per_thread(WRITER_MEMORY_BYTES)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options)?;
        let mut merge_policy = LogMergePolicy::default();
        merge_policy.set_min_num_segments(MERGED_SEGMENTS);
        writer.set_merge_policy(Box::new(merge_policy));
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        Ok(OpenIndex {
            writer,
            reader,
            fields,
            payload,
        })
    }

    /// A view of the last commit.
    fn view(&self, open: &OpenIndex) -> IndexView {
        IndexView {
            searcher: open.reader.searcher(),
            fields: open.fields,
            seq: open.payload.seq,
            outbox: self.state.outbox().clone(),
        }
    }

    /// Makes the last commit available to searches.
    fn publish(&self, open: &OpenIndex) {
        self.state.publish(self.view(open));
    }

    /// Whether the index has as many documents as the store has rows, or the store has new changes.
    fn is_complete(&self, open: &OpenIndex) -> Result<bool, IndexError> {
        let snapshot = Snapshot::begin(&self.connection)?;
        let rows: i64 = snapshot
            .0
            .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))?;
        let documents = open.reader.searcher().num_docs();
        Ok(last_change(&self.connection)? != open.payload.seq || documents == rows.unsigned_abs())
    }

    /// Adds every row to the index in key order. Rows that change meanwhile are in the outbox.
    /// `false` when the thread was stopped.
    fn build(&mut self, open: &mut OpenIndex) -> Result<bool, IndexError> {
        let total: i64 = self
            .connection
            .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))?;
        let total = total.unsigned_abs();
        let mut done = open.reader.searcher().num_docs();
        let mut uncommitted = 0;
        if total > ROWS_PER_COMMIT as u64 {
            tracing::info!("building the search index of the local store: {done} of {total} spans");
        }
        while let Some(after) = open.payload.building {
            if self.is_stopped() {
                return Ok(false);
            }
            self.state
                .set_progress(IndexProgress::Building { done, total });
            let last = self.build_batch(open, after)?;
            if let Some((last, count)) = last {
                done += count as u64;
                uncommitted += count;
                open.payload.building = Some(last);
            } else {
                open.payload.building = None;
                open.payload.replace_until = last_change(&self.connection)?;
            }
            if uncommitted >= ROWS_PER_COMMIT || open.payload.building.is_none() {
                uncommitted = 0;
                commit(open)?;
                if total > ROWS_PER_COMMIT as u64 {
                    tracing::info!(
                        "building the search index of the local store: {done} of {total} spans"
                    );
                }
            }
        }
        Ok(true)
    }

    /// Adds the next rows after a key. Returns the last key and the number of rows.
    fn build_batch(
        &mut self,
        open: &mut OpenIndex,
        after: i64,
    ) -> Result<Option<(i64, usize)>, IndexError> {
        let snapshot = Snapshot::begin(&self.connection)?;
        let ids: Vec<i64> = snapshot
            .0
            .prepare_cached("SELECT id FROM spans WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map([after, ROWS_PER_READ as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let joiner = EvaluationJoiner::new(snapshot.0)?;
        for id in &ids {
            let span = load_span(snapshot.0, &joiner, *id)?;
            open.writer
                .add_document(document(&open.fields, *id, &span))?;
        }
        Ok(ids.last().map(|last| (*last, ids.len())))
    }

    /// Adds all changes up to the last one. `false` when the index must be rebuilt.
    fn catch_up(&mut self, open: &mut OpenIndex) -> Result<bool, IndexError> {
        if last_change(&self.connection)? == open.payload.seq {
            drop(self.state.outbox().recent.remove_up_to(open.payload.seq));
            return Ok(true);
        }
        {
            let snapshot = Snapshot::begin(&self.connection)?;
            let Some(changes) = changes_since(snapshot.0, &self.view(open))? else {
                return Ok(false);
            };
            let replace = open.payload.seq < open.payload.replace_until;
            let joiner = EvaluationJoiner::new(snapshot.0)?;
            for (id, change) in changes.spans {
                if replace || change.origin == RowOrigin::Existing {
                    open.writer
                        .delete_term(Term::from_field_i64(open.fields.id, id));
                }
                let span = match change.write {
                    Some(write) => Some(joiner.joined(snapshot.0, write.span.clone())?),
                    None => load_if_exists(snapshot.0, &joiner, id)?.map(Arc::new),
                };
                if let Some(span) = span {
                    open.writer
                        .add_document(document(&open.fields, id, &span))?;
                }
            }
            open.payload.seq = changes.last;
        }
        commit(open)?;
        self.publish(open);
        Ok(true)
    }
}

/// Lowers the priority of this thread and of the tantivy threads that it starts, which inherit it,
/// below that of threads that serve requests. Writers wait for an index that is far behind, so the
/// index still catches up.
fn lower_priority() {
    // On other systems the priority applies to processes.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the priority of the indexer cannot be lowered");
    }
}

fn load_if_exists(
    connection: &Connection,
    joiner: &EvaluationJoiner,
    id: i64,
) -> Result<Option<llmobs_core::model::Span>, IndexError> {
    match load_span(connection, joiner, id) {
        Ok(span) => Ok(Some(span)),
        Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn commit(open: &mut OpenIndex) -> Result<(), IndexError> {
    let payload = open.payload.to_json()?;
    let mut prepared = open.writer.prepare_commit()?;
    prepared.set_payload(&payload);
    prepared.commit()?;
    open.reader.reload()?;
    Ok(())
}

/// A read transaction. Ends when dropped.
struct Snapshot<'a>(&'a Connection);

impl<'a> Snapshot<'a> {
    fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        connection.execute_batch("BEGIN")?;
        Ok(Self(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "a read transaction of the indexer could not be ended");
        }
    }
}
