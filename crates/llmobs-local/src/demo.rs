//! Sample data: recorded requests of real SDKs, shifted in time so that the newest span is minutes
//! old.
//!
//! Fixtures are replayed through the intake and the control plane. Later requests name ids that
//! the backend generated, such as the id of an experiment, so fixtures record these ids too and a
//! replay assigns them again.

use serde_json::Value;

use super::LocalBackend;
use super::api::control::{self, Call, CallBody, RecordedIds};
use super::intake::{Dialect, ingest_json};

/// The recorded requests, in the order of their replay.
const FIXTURES: [&[u8]; 5] = [
    include_bytes!("../../../fixtures/demo/01-support-agent.json.zst"),
    include_bytes!("../../../fixtures/demo/02-docs-assistant.json.zst"),
    include_bytes!("../../../fixtures/demo/03-code-agent.json.zst"),
    include_bytes!("../../../fixtures/demo/04-code-agent-frameworks.json.zst"),
    include_bytes!("../../../fixtures/demo/05-experiments.json.zst"),
];

/// Age of the newest timestamp of the sample data, in milliseconds.
const NEWEST_AGE_MS: i64 = 3 * 60 * 1_000;

/// Counts of the loaded data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DemoSummary {
    /// Number of spans.
    pub spans: usize,
    /// Number of evaluations and feedback entries.
    pub evaluations: usize,
    /// Number of recorded requests that this version does not support.
    pub skipped_requests: usize,
}

/// Why the sample data could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the sample data could not be loaded: {0}")]
pub struct DemoError(String);

struct RecordedRequest {
    route: Route,
    body: Value,
}

enum Route {
    Intake(Dialect),
    /// The control plane, with the time of the request and the generated ids of its response.
    Control {
        method: String,
        path: String,
        at_ms: i64,
        recorded_ids: RecordedIds,
    },
}

/// Loads the sample data. Blocks. Loading it again moves the same spans to the new time.
pub fn load(backend: &LocalBackend, now_ms: i64) -> Result<DemoSummary, DemoError> {
    let mut recordings = FIXTURES
        .into_iter()
        .map(Recording::read)
        .collect::<Result<Vec<_>, _>>()?;
    let newest = recordings.iter_mut().filter_map(Recording::newest_ms).max();
    let offset = newest.map_or(0, |newest| now_ms - NEWEST_AGE_MS - newest);
    let mut summary = DemoSummary::default();
    for mut recording in recordings {
        recording.shift(offset);
        summary.add(recording.replay(backend, now_ms)?);
    }
    Ok(summary)
}

impl DemoSummary {
    fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.evaluations += other.evaluations;
        self.skipped_requests += other.skipped_requests;
    }
}

/// Recorded requests of an SDK. `fixtures/README.md` describes the format.
pub struct Recording {
    requests: Vec<RecordedRequest>,
    skipped_requests: usize,
}

impl Recording {
    /// Reads a fixture: zstd-compressed JSON.
    pub fn read(fixture: &[u8]) -> Result<Self, DemoError> {
        let mut recording = Self {
            requests: Vec::new(),
            skipped_requests: 0,
        };
        for request in read_requests(fixture)? {
            match request {
                Some(request) => recording.requests.push(request),
                None => recording.skipped_requests += 1,
            }
        }
        Ok(recording)
    }

    /// The newest timestamp, in milliseconds since the Unix epoch.
    pub fn newest_ms(&mut self) -> Option<i64> {
        let mut newest = None;
        for request in &mut self.requests {
            request.shift_timestamps(&mut |ms| {
                newest = newest.max(Some(ms));
                0
            });
        }
        newest
    }

    /// Shifts every timestamp.
    pub fn shift(&mut self, offset_ms: i64) {
        for request in &mut self.requests {
            request.shift_timestamps(&mut |_| offset_ms);
        }
    }

    /// Sends the requests to the backend. Blocks.
    pub fn replay(self, backend: &LocalBackend, now_ms: i64) -> Result<DemoSummary, DemoError> {
        let mut summary = DemoSummary {
            skipped_requests: self.skipped_requests,
            ..DemoSummary::default()
        };
        for RecordedRequest { route, body } in self.requests {
            let dialect = match route {
                Route::Intake(dialect) => dialect,
                Route::Control {
                    method,
                    path,
                    at_ms,
                    recorded_ids,
                } => {
                    let call =
                        Call::replayed(&method, &path, CallBody::Json(body), at_ms, recorded_ids);
                    control::perform(&backend.inner, call)
                        .map_err(|error| DemoError(error.detail))?;
                    continue;
                }
            };
            let store = &backend.inner.store;
            let ingested = ingest_json(store, &backend.inner.options, dialect, body, now_ms)
                .map_err(|error| DemoError(error.detail))?;
            if let Some(reason) = ingested.refused.into_iter().next() {
                return Err(DemoError(reason));
            }
            summary.spans += ingested.spans;
            summary.evaluations += ingested.evaluations;
        }
        Ok(summary)
    }
}

/// The requests of a fixture; `None` for requests that cannot be replayed.
fn read_requests(fixture: &[u8]) -> Result<Vec<Option<RecordedRequest>>, DemoError> {
    let unreadable = |reason: &dyn std::fmt::Display| DemoError(reason.to_string());
    let json = zstd::decode_all(fixture).map_err(|error| unreadable(&error))?;
    let records: Vec<Value> = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
    Ok(records.into_iter().map(request_of).collect())
}

fn request_of(mut record: Value) -> Option<RecordedRequest> {
    let method = record.get("method")?.as_str()?.to_owned();
    let path = record.get("path")?.as_str()?.to_owned();
    let writes = matches!(method.as_str(), "POST" | "PUT" | "PATCH");
    let route = match Dialect::from_path(&path) {
        Some(dialect) => Route::Intake(dialect),
        // A replay needs the time of the request and the generated ids.
        None if control::has_operation(&method, &path) => Route::Control {
            at_ms: record.get("at_ms")?.as_i64()?,
            recorded_ids: RecordedIds::from_response(record.get("answer")?),
            method,
            path,
        },
        None => return None,
    };
    let body = record.get_mut("body")?.take();
    writes.then_some(RecordedRequest { route, body })
}

impl RecordedRequest {
    fn shift_timestamps(&mut self, shift: &mut impl FnMut(i64) -> i64) {
        if let Route::Control { at_ms, .. } = &mut self.route {
            *at_ms += shift(*at_ms);
        }
        shift_timestamps(&mut self.body, shift);
    }
}

const NS_PER_MS: i64 = 1_000_000;

/// Calls `shift` with every timestamp of a body in milliseconds, and adds the result to it.
///
/// Timestamps are `start_ns` and `timestamp_ms`, and `start` beside a `meta_struct`. Inputs,
/// outputs, metadata and values come from the application and stay unchanged.
fn shift_timestamps(value: &mut Value, shift: &mut impl FnMut(i64) -> i64) {
    match value {
        Value::Array(items) => {
            for item in items {
                shift_timestamps(item, shift);
            }
        }
        Value::Object(map) => {
            let apm = map.contains_key("meta_struct");
            let length_ns = map.get("duration").and_then(Value::as_i64).unwrap_or(0);
            for (key, value) in map {
                let ns = key == "start_ns" || (apm && key == "start");
                match (key.as_str(), value.as_i64()) {
                    (_, Some(start)) if ns => {
                        let end = start.saturating_add(length_ns.max(0));
                        let moved = start + shift(end / NS_PER_MS) * NS_PER_MS;
                        *value = Value::from(moved);
                    }
                    ("timestamp_ms", Some(ms)) => *value = Value::from(ms + shift(ms)),
                    ("meta" | "meta_struct" | "metadata" | "json_value" | "config", _) => {}
                    _ => shift_timestamps(value, shift),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataDir, LocalOptions};

    const NOW: i64 = 1_900_000_000_000;

    #[test]
    fn shifts_timestamps_outside_of_content() {
        let mut body = serde_json::json!([{"spans": [
            {"start_ns": 5_000_000_000i64, "duration": 1_000_000_000, "meta": {"start_ns": 1}},
            {"start_ns": 2_000_000_000i64, "duration": 1}]}, {"timestamp_ms": 4_000}]);
        shift_timestamps(&mut body, &mut |_| 10);
        assert_eq!(
            body,
            serde_json::json!([{"spans": [
                {"start_ns": 5_010_000_000i64, "duration": 1_000_000_000, "meta": {"start_ns": 1}},
                {"start_ns": 2_010_000_000i64, "duration": 1}]}, {"timestamp_ms": 4_010}])
        );
    }

    #[test]
    fn loading_twice_replaces_the_first_load() {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let first = load(&backend, NOW).unwrap();
        let stats = backend.stats().unwrap();
        assert_eq!((first.spans, stats.spans), (2_288, 2_288));
        assert_eq!(stats.traces, 346);
        assert_eq!(first.skipped_requests, 0);
        let newest = stats.newest_start_ns.unwrap() / NS_PER_MS;
        assert!(newest <= NOW - NEWEST_AGE_MS);
        let again = load(&backend, NOW + 60_000).unwrap();
        assert_eq!(first, again);
        let moved = backend.stats().unwrap();
        assert_eq!(moved.spans, stats.spans);
        assert_eq!(moved.newest_start_ns.unwrap() / NS_PER_MS, newest + 60_000);
    }
}
