//! Spans as rows of the SQLite store: columns, compressed content and keys, and reading them.

use std::cell::RefCell;

use rusqlite::Connection;
use zstd::bulk::{Compressor, Decompressor};

use super::join::EvaluationJoiner;
use super::schema::{FILE_NAME, from_sqlite};
use super::{Cause, StoreError};
use llmobs_core::model::{Span, Status, TraceId};

/// Why rows, or the index over them, cannot be read.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    /// The content of a row is malformed.
    Content(String),
    Index(tantivy::TantivyError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sqlite(error)
    }
}

impl From<tantivy::TantivyError> for ReadError {
    fn from(error: tantivy::TantivyError) -> Self {
        ReadError::Index(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sqlite(error) => from_sqlite(error),
            ReadError::Content(reason) => StoreError::Damaged {
                location: FILE_NAME.to_owned(),
                cause: reason.into(),
            },
            ReadError::Index(error) => StoreError::Unavailable(Cause::new(error)),
        }
    }
}

/// Reads one span without its evaluations.
pub(super) fn load_bare_span(connection: &Connection, id: i64) -> Result<Span, ReadError> {
    connection
        .prepare_cached("SELECT z FROM content WHERE id = ?1")?
        .query_row([id], |row| Ok(decode_content(row.get_ref(0)?.as_blob()?)))?
        .map_err(ReadError::Content)
}

/// Reads one span with its evaluations.
pub(super) fn load_span(
    connection: &Connection,
    joiner: &EvaluationJoiner,
    id: i64,
) -> Result<Span, ReadError> {
    let mut span = load_bare_span(connection, id)?;
    joiner.join(connection, &mut span)?;
    Ok(span)
}

/// Reads the spans of a trace with their evaluations, in the order of their starts.
pub(super) fn load_trace(
    connection: &Connection,
    joiner: &EvaluationJoiner,
    trace: &TraceId,
) -> Result<Vec<Span>, ReadError> {
    let ids: Vec<i64> = connection
        .prepare_cached("SELECT id FROM spans WHERE trace_id = ?1 ORDER BY start, id")?
        .query_map([trace.as_str()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ids.into_iter()
        .map(|id| load_span(connection, joiner, id))
        .collect()
}

/// The columns of a span.
#[derive(PartialEq)]
pub(super) struct SpanColumns {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    pub(super) parent_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) apm_trace_id: Option<String>,
    pub(super) app: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) err: bool,
    pub(super) start: i64,
    pub(super) dur: i64,
}

/// Compression level. On spans, higher levels save 1 % of the size and take a third longer.
const ZSTD_LEVEL: i32 = 1;

impl SpanColumns {
    pub(super) fn from_span(span: &Span) -> Self {
        // A query for the attribute matches the tag when the attribute is missing.
        let session_id = span
            .session_id
            .clone()
            .filter(|id| !id.is_empty())
            .or_else(|| span.tag("session_id").map(str::to_owned));
        let app = match span.ml_app.as_str() {
            "" => span.tag("ml_app").unwrap_or_default().to_owned(),
            app => app.to_owned(),
        };
        Self {
            trace_id: span.trace_id.as_str().to_owned(),
            span_id: span.span_id.as_str().to_owned(),
            parent_id: span.parent_id.as_ref().map(|id| id.as_str().to_owned()),
            session_id,
            apm_trace_id: span.apm_trace_id.clone(),
            app,
            name: span.name.clone(),
            kind: span.kind.as_str().to_owned(),
            err: span.status == Status::Error,
            start: span.start_ns,
            dur: span.duration_ns,
        }
    }
}

/// Encodes a complete span. Returns the compressed bytes and the size before compression.
pub(super) fn encode_content(span: &Span) -> std::io::Result<(Vec<u8>, usize)> {
    let json = serde_json::to_vec(span)?;
    Ok((compress(&json)?, json.len()))
}

/// Decodes what [`encode_content`] has encoded.
pub(super) fn decode_content(content: &[u8]) -> Result<Span, String> {
    let json = decompress(content).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

/// Largest decompressed size in bytes. Larger than any request body may be.
const MAX_CONTENT_BYTES: u64 = 1 << 30;

thread_local! {
    // Creating a context costs more than compressing a span with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(json: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|cached| {
        let mut compressor = match cached.take() {
            Some(compressor) => compressor,
            None => Compressor::new(ZSTD_LEVEL)?,
        };
        let content = compressor.compress(json);
        *cached = Some(compressor);
        content
    })
}

fn decompress(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let size = zstd::zstd_safe::get_frame_content_size(content);
    let size = size
        .ok()
        .flatten()
        .filter(|size| *size <= MAX_CONTENT_BYTES);
    let size = size.and_then(|size| usize::try_from(size).ok());
    // The compressor always writes the size into the frame.
    let size = size.ok_or(std::io::ErrorKind::InvalidData)?;
    DECOMPRESSOR.with_borrow_mut(|cached| {
        let mut decompressor = match cached.take() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let json = decompressor.decompress(content, size);
        *cached = Some(decompressor);
        json
    })
}

/// 2020-01-01T00:00:00Z in milliseconds since the Unix epoch. Keys count from here.
const KEY_EPOCH_MS: i64 = 1_577_836_800_000;

/// Bits of a key that distinguish spans of one millisecond.
const KEY_BITS: u32 = 10;

/// The first and the last key of the millisecond in which a span starts.
///
/// Keys grow with the start, so that spans of the same time are adjacent on disk.
pub(super) fn key_range(start_ms: i64) -> (i64, i64) {
    let first = (start_ms - KEY_EPOCH_MS) << KEY_BITS;
    (first, first | ((1 << KEY_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_grow_with_time_even_before_2020() {
        let mut last = i64::MIN;
        for ms in [
            i64::MIN / 1_000_000,
            -1,
            0,
            KEY_EPOCH_MS - 1,
            KEY_EPOCH_MS,
            KEY_EPOCH_MS + 1,
            i64::MAX / 1_000_000,
        ] {
            let (first, end) = key_range(ms);
            assert!(last < first && first < end, "{ms}");
            last = end;
        }
    }
}
