//! The thread that builds the index from the outbox and keeps it up to date.

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

use super::View;
use super::changes::{Made, last_change, since};
use super::document::document;
use super::files::{self, Mark};
use super::schema::Fields;
use super::shared::{IndexProgress, Shared};
use crate::store::StoreError;
use crate::store::join::Joiner;
use crate::store::sqlite::{ReadError, load_span};

/// Threads that make segments. With one, the processors are idle while it is waited for.
const WORKERS: usize = 2;

/// Memory that the documents of each of them take before they are written, in bytes.
const ARENA: usize = 40 * 1024 * 1024;

/// Commits come no closer than this: each costs some flushes of the disk, whatever its size.
const PAUSE: Duration = Duration::from_millis(150);

/// So many changes within a pause are a flood: then a commit waits for a whole load of them, as
/// long as more keep coming. Large commits cost less, and leave less to merge.
const FLOOD: i64 = 400;
const LOAD: i64 = 4_000;
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// A flood is over when nothing came for so long.
const LULL: Duration = Duration::from_millis(100);

/// How much the threads of the index step back, as `nice` counts it: each step is a tenth of the
/// processor less beside a thread that does not.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

/// How long a broken index is left alone before it is built anew.
const RETRY: Duration = Duration::from_secs(10);

/// Rows read in one transaction while building.
const ROWS_PER_READ: usize = 1_000;

/// Rows after which a build that is interrupted goes on.
const ROWS_PER_MARK: usize = 50_000;

/// Segments of about the same size that are merged into one: with more, a document is written
/// fewer times again, but a merge takes more memory, and a search looks into more segments.
const MERGED_SEGMENTS: usize = 16;

/// Why the index cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    #[error("the engine failed: {0}")]
    Engine(#[from] tantivy::TantivyError),
    #[error("its files cannot be used: {0}")]
    Files(String),
    #[error("the store cannot be read: {0}")]
    Store(StoreError),
    #[error("its files are damaged")]
    Panicked,
}

impl From<ReadError> for IndexError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Index(error) => IndexError::Engine(error),
            error => IndexError::Store(error.into()),
        }
    }
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::from(error).into()
    }
}

/// The hand to the thread; dropping it ends the thread.
pub(super) struct Indexer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Indexer {
    pub(super) fn start(
        folder: PathBuf,
        store_id: String,
        connection: Connection,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let (wake, woken) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            folder,
            store_id,
            connection,
            shared,
            woken,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("llmobs-indexer".to_owned())
            .spawn(move || work.run())
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
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
            // One that panicked has left the searches to the rows.
            let _ = thread.join();
        }
    }
}

struct Work {
    folder: PathBuf,
    store_id: String,
    connection: Connection,
    shared: Arc<Shared>,
    woken: Receiver<()>,
    stop: Arc<AtomicBool>,
}

/// An index that is open for writing.
struct Open {
    writer: IndexWriter,
    reader: IndexReader,
    fields: Fields,
    mark: Mark,
}

/// Why the work on an open index ended.
enum End {
    Stopped,
    BuildAnew,
}

impl Work {
    fn run(&mut self) {
        step_back();
        let mut anew = false;
        while !self.stopped() {
            // The engine trusts its files: damaged ones may also make it panic.
            let ended = catch_unwind(AssertUnwindSafe(|| self.work(anew)));
            let ended = ended.unwrap_or(Err(IndexError::Panicked));
            self.shared.hide();
            match ended {
                Ok(End::Stopped) => return,
                Ok(End::BuildAnew) => anew = true,
                Err(error) if !anew => {
                    tracing::warn!(%error, "the index of the local store cannot be used and is built anew; searches are slower until then");
                    anew = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the index of the local store cannot be built; searches are slower until it is");
                    self.shared.fail(error.to_string());
                    let until = Instant::now() + RETRY;
                    while Instant::now() < until && !self.stopped() {
                        self.wait(until.saturating_duration_since(Instant::now()));
                    }
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for a change, or for the end.
    fn wait(&self, longest: Duration) {
        match self.woken.recv_timeout(longest) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.stop.store(true, Ordering::Release),
        }
    }

    fn work(&mut self, anew: bool) -> Result<End, IndexError> {
        let anew = self.shared.begin() || anew;
        let mut open = self.open(anew)?;
        let ended = self.follow(&mut open);
        if !matches!(ended, Ok(End::Stopped)) {
            // A merge that is still writing would put files into the folder of the next index.
            if let Err(error) = open.writer.wait_merging_threads() {
                tracing::debug!(%error, "a merge of the index did not end cleanly");
            }
        }
        ended
    }

    /// Builds an index if that is not done, and follows the changes.
    fn follow(&mut self, open: &mut Open) -> Result<End, IndexError> {
        if open.mark.building.is_some() && !self.build(open)? {
            return Ok(End::Stopped);
        }
        // Searches judge every change that is not in it: none of them sees it before it is near.
        if !self.catch_up(open)? {
            return Ok(End::BuildAnew);
        }
        if !self.is_whole(open)? {
            tracing::warn!(
                "the index of the local store has not as many spans as the store; it is built anew"
            );
            return Ok(End::BuildAnew);
        }
        self.publish(open);
        loop {
            let begun = Instant::now();
            if self.shared.rebuild_is_asked_for() || !self.catch_up(open)? {
                return Ok(End::BuildAnew);
            }
            self.wait(Duration::from_secs(1));
            self.let_a_load_gather(begun, open.mark.seq);
            if self.stopped() {
                return Ok(End::Stopped);
            }
        }
    }

    /// Waits until the next commit is due; the last one had all up to `seq`, and began then.
    fn let_a_load_gather(&self, begun: Instant, seq: i64) {
        let (mut waiting, mut grew) = (0, Instant::now());
        while !self.stopped() {
            let now = self.shared.last_written() - seq;
            if now != waiting {
                (waiting, grew) = (now, Instant::now());
            }
            let is_flood = (FLOOD..LOAD).contains(&waiting) && grew.elapsed() < LULL;
            let pause = if is_flood { LONGEST_PAUSE } else { PAUSE };
            if begun.elapsed() >= pause {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn open(&mut self, anew: bool) -> Result<Open, IndexError> {
        let there = if anew {
            None
        } else {
            files::open(&self.folder, &self.store_id)
        };
        let (index, fields, mark) = match there {
            Some(there) => there,
            None => {
                let (index, fields) = files::create(&self.folder)?;
                let seq = last_change(&self.connection)?;
                (index, fields, Mark::fresh(&self.store_id, seq))
            }
        };
        let options = IndexWriterOptions::builder()
            .num_worker_threads(WORKERS)
            .memory_budget_per_thread(ARENA)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options)?;
        let mut merges = LogMergePolicy::default();
        merges.set_min_num_segments(MERGED_SEGMENTS);
        writer.set_merge_policy(Box::new(merges));
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        Ok(Open {
            writer,
            reader,
            fields,
            mark,
        })
    }

    /// What is committed of an index.
    fn view(&self, open: &Open) -> View {
        View {
            searcher: open.reader.searcher(),
            fields: open.fields,
            seq: open.mark.seq,
            recent: self.shared.recent.clone(),
        }
    }

    fn publish(&self, open: &Open) {
        self.shared.publish(self.view(open));
    }

    /// Whether it has as many documents as there are rows; also true while rows are being added.
    fn is_whole(&self, open: &Open) -> Result<bool, IndexError> {
        let snapshot = Snapshot::begin(&self.connection)?;
        let rows: i64 = snapshot
            .0
            .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))?;
        let documents = open.reader.searcher().num_docs();
        Ok(last_change(&self.connection)? != open.mark.seq || documents == rows.unsigned_abs())
    }

    /// Puts every row into the index, in order of keys. Rows that change meanwhile are in the
    /// outbox behind the mark. Whether it came to the end.
    fn build(&mut self, open: &mut Open) -> Result<bool, IndexError> {
        let total: i64 = self
            .connection
            .query_row("SELECT count(*) FROM spans", [], |row| row.get(0))?;
        let total = total.unsigned_abs();
        let mut done = open.reader.searcher().num_docs();
        let mut unmarked = 0;
        if total > ROWS_PER_MARK as u64 {
            tracing::info!("building the index of the local store: {done} of {total} spans");
        }
        while let Some(after) = open.mark.building {
            if self.stopped() {
                return Ok(false);
            }
            self.shared.tell(IndexProgress::Building { done, total });
            let last = self.build_some(open, after)?;
            if let Some((last, count)) = last {
                done += count as u64;
                unmarked += count;
                open.mark.building = Some(last);
            } else {
                open.mark.building = None;
                open.mark.careful = last_change(&self.connection)?;
            }
            if unmarked >= ROWS_PER_MARK || open.mark.building.is_none() {
                unmarked = 0;
                commit(open)?;
                if total > ROWS_PER_MARK as u64 {
                    tracing::info!(
                        "building the index of the local store: {done} of {total} spans"
                    );
                }
            }
        }
        Ok(true)
    }

    /// The next rows behind `after`: the last of them and how many.
    fn build_some(
        &mut self,
        open: &mut Open,
        after: i64,
    ) -> Result<Option<(i64, usize)>, IndexError> {
        let snapshot = Snapshot::begin(&self.connection)?;
        let ids: Vec<i64> = snapshot
            .0
            .prepare_cached("SELECT id FROM spans WHERE id > ?1 ORDER BY id LIMIT ?2")?
            .query_map([after, ROWS_PER_READ as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let joiner = Joiner::new(snapshot.0)?;
        for id in &ids {
            let span = load_span(snapshot.0, &joiner, *id)?;
            open.writer
                .add_document(document(&open.fields, *id, &span))?;
        }
        Ok(ids.last().map(|last| (*last, ids.len())))
    }

    /// Brings the index up to the last change. `false`: it must be built anew.
    fn catch_up(&mut self, open: &mut Open) -> Result<bool, IndexError> {
        if last_change(&self.connection)? == open.mark.seq {
            drop(self.shared.recent.forget(open.mark.seq));
            return Ok(true);
        }
        {
            let snapshot = Snapshot::begin(&self.connection)?;
            let Some(changes) = since(snapshot.0, &self.view(open))? else {
                return Ok(false);
            };
            let careful = open.mark.seq < open.mark.careful;
            let joiner = Joiner::new(snapshot.0)?;
            for (id, change) in changes.spans {
                if careful || change.made == Made::Before {
                    open.writer
                        .delete_term(Term::from_field_i64(open.fields.id, id));
                }
                let span = match change.fresh {
                    Some(fresh) => Some(joiner.joined(snapshot.0, fresh.span.clone())?),
                    None => load_if_there(snapshot.0, &joiner, id)?.map(Arc::new),
                };
                if let Some(span) = span {
                    open.writer
                        .add_document(document(&open.fields, id, &span))?;
                }
            }
            open.mark.seq = changes.upto;
        }
        commit(open)?;
        self.publish(open);
        Ok(true)
    }
}

/// Lets the threads that somebody waits for go first: this one and those of the engine, which it
/// starts and which take over its priority. Writers wait for an index that is far behind, so it is
/// not left behind for long.
fn step_back() {
    // Elsewhere this is said of whole processes.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "the indexer keeps the usual priority");
    }
}

fn load_if_there(
    connection: &Connection,
    joiner: &Joiner,
    id: i64,
) -> Result<Option<llmobs_core::model::Span>, IndexError> {
    match load_span(connection, joiner, id) {
        Ok(span) => Ok(Some(span)),
        Err(ReadError::Sqlite(rusqlite::Error::QueryReturnedNoRows)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn commit(open: &mut Open) -> Result<(), IndexError> {
    let mark = open.mark.text()?;
    let mut prepared = open.writer.prepare_commit()?;
    prepared.set_payload(&mark);
    prepared.commit()?;
    open.reader.reload()?;
    Ok(())
}

/// One moment of the store; over when dropped.
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
            tracing::debug!(%error, "a read of the indexer did not end cleanly");
        }
    }
}
