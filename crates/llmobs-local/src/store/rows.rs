//! Spans as rows: what is prepared outside the writer, so that the writer only writes.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use llmobs_core::model::{Span, Status};

/// The columns of a span.
#[derive(PartialEq)]
pub(super) struct Row {
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

/// Level of compression: on spans, higher ones save a hundredth and take a third longer.
const ZSTD_LEVEL: i32 = 1;

impl Row {
    pub(super) fn of(span: &Span) -> Self {
        // A query for the attribute finds the tag where the attribute is missing.
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

/// The content of a span: all of it, packed; and how many bytes it has unpacked.
pub(super) fn content_of(span: &Span) -> std::io::Result<(Vec<u8>, usize)> {
    let json = serde_json::to_vec(span)?;
    Ok((compress(&json)?, json.len()))
}

/// The span back from its content.
pub(super) fn span_of(content: &[u8]) -> Result<Span, String> {
    let json = decompress(content).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

/// Most bytes that a content may claim to unfold to: more than any request body may.
const MAX_CONTENT: u64 = 1 << 30;

thread_local! {
    // Making a context costs more than compressing a span with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(json: &[u8]) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let mut compressor = match kept.take() {
            Some(compressor) => compressor,
            None => Compressor::new(ZSTD_LEVEL)?,
        };
        let content = compressor.compress(json);
        *kept = Some(compressor);
        content
    })
}

fn decompress(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let size = zstd::zstd_safe::get_frame_content_size(content);
    let size = size.ok().flatten().filter(|size| *size <= MAX_CONTENT);
    let size = size.and_then(|size| usize::try_from(size).ok());
    // What compressed it wrote the size down.
    let size = size.ok_or(std::io::ErrorKind::InvalidData)?;
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut decompressor = match kept.take() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let json = decompressor.decompress(content, size);
        *kept = Some(decompressor);
        json
    })
}

/// 2020-01-01T00:00:00Z in milliseconds since the Unix epoch: keys count from here.
const KEY_EPOCH_MS: i64 = 1_577_836_800_000;

/// Bits of a key that tell spans of one millisecond apart.
const KEY_BITS: u32 = 10;

/// The first and the last key of the millisecond in which a span starts.
///
/// Keys grow with the start, so that spans of one time lie side by side on disk.
pub(super) fn key_range(start_ms: i64) -> (i64, i64) {
    let first = (start_ms - KEY_EPOCH_MS) << KEY_BITS;
    (first, first | ((1 << KEY_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_grow_with_time_before_2020_too() {
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
