//! Durable ingest: over HTTP from four connections, and into the store from four threads.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use llmobs_core::model::{Span, TimeWindow};
use llmobs_local::store::{
    Durability, Maintenance as _, Search, SpanReader as _, SpanWriter as _, SqliteStore,
};
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::bodies::{BATCH, Bodies};

/// Connections, and threads.
pub const SENDERS: usize = 4;

/// For each batch the time from the start to its acknowledgement, and how long it took.
#[derive(Debug, Default)]
pub struct Ingest {
    acks: Vec<(Duration, Duration)>,
    items: usize,
}

impl Ingest {
    /// Items per second over the complete run.
    pub fn rate(&self) -> f64 {
        let end = self.acks.iter().map(|ack| ack.0).max().unwrap_or_default();
        self.items as f64 / end.as_secs_f64()
    }

    /// Items per second until `count` were acknowledged.
    pub fn rate_of_first(&self, items: usize) -> f64 {
        let mut ends: Vec<Duration> = self.acks.iter().map(|ack| ack.0).collect();
        ends.sort();
        let batches = (items / BATCH).clamp(1, ends.len());
        (batches * BATCH) as f64 / ends[batches - 1].as_secs_f64()
    }

    /// How long each acknowledgement took, in milliseconds.
    pub fn ack_ms(&self) -> Vec<f64> {
        let took = self.acks.iter().map(|ack| ack.1);
        took.map(|took| took.as_secs_f64() * 1_000.0).collect()
    }
}

/// Sends all bodies as fast as they are acknowledged.
pub async fn send(url: &str, bodies: &Bodies) -> Ingest {
    let left = Arc::new(Mutex::new(bodies.read()));
    let url = format!("{url}{}", bodies.path);
    let start = Instant::now();
    let senders = (0..SENDERS).map(|_| {
        let (left, url) = (left.clone(), url.clone());
        tokio::spawn(async move {
            // One client per connection.
            let client = datadog_llmobs::http_client().build().unwrap();
            let mut acks = Vec::new();
            loop {
                let Some(body) = left.lock().unwrap().next() else {
                    return acks;
                };
                let sent = Instant::now();
                let request = client.post(&url).header(CONTENT_TYPE, "application/json");
                let answer = request.body(body).send().await.unwrap();
                let status = answer.status();
                let text = answer.text().await.unwrap();
                acks.push((start.elapsed(), sent.elapsed()));
                assert!(
                    status == 202 && !text.contains("\"errors\""),
                    "{status} {text}"
                );
            }
        })
    });
    let mut ingest = Ingest {
        items: bodies.items,
        ..Ingest::default()
    };
    for sender in senders.collect::<Vec<_>>() {
        ingest.acks.extend(sender.await.unwrap());
    }
    ingest
}

/// The store without HTTP.
#[derive(Debug, Serialize, Deserialize)]
pub struct Direct {
    /// Durable ingest, in spans a second.
    pub rate: f64,
    /// From the last acknowledgement until all spans are in the index.
    pub caught_up_ms: f64,
    /// Rebuilding the index, in spans a second.
    pub rebuild_rate: f64,
}

/// The index must contain everything after this time.
const PATIENCE: Duration = Duration::from_secs(600);

/// Writes the first spans of one store into a new one through the trait, and prints [`Direct`].
///
/// Runs in a separate process, because decoded spans take much memory.
pub fn direct(from: &Path, to: &Path, spans: usize) {
    let spans = decoded(from, spans);
    let count = spans.len();
    let store = SqliteStore::open(to, Durability::Full).unwrap();
    let batches: Vec<Vec<Span>> = spans.chunks(BATCH).map(<[Span]>::to_vec).collect();
    let left = Mutex::new(batches.into_iter());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let Some(batch) = left.lock().unwrap().next() else {
                        return;
                    };
                    store.append(batch).unwrap();
                }
            });
        }
    });
    let took = start.elapsed();
    assert!(
        store.wait_for_index(PATIENCE),
        "the index does not catch up"
    );
    let caught_up = start.elapsed() - took;
    let start = Instant::now();
    store.reindex();
    assert!(
        store.wait_for_index(PATIENCE),
        "the index is not built again"
    );
    let direct = Direct {
        rate: count as f64 / took.as_secs_f64(),
        caught_up_ms: caught_up.as_secs_f64() * 1_000.0,
        rebuild_rate: count as f64 / start.elapsed().as_secs_f64(),
    };
    println!("{}", json!(direct));
}

fn decoded(directory: &Path, count: usize) -> Vec<Span> {
    let store = SqliteStore::open(directory, Durability::Full).unwrap();
    let search = Search {
        newest_first: false,
        limit: count,
        budget: Duration::from_secs(3_600),
        ..Search::within(TimeWindow {
            from_ms: 0,
            to_ms: i64::MAX / 2_000_000,
        })
    };
    let mut spans = Vec::with_capacity(count);
    store
        .search(&search, &mut |span| {
            spans.push(span);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    for span in &mut spans {
        span.evaluations.clear();
    }
    spans
}

/// Runs [`direct`] in a separate process.
pub fn run_direct(from: &Path, to: &Path, spans: usize) -> Direct {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("--direct")
        .args([from, to])
        .args(["--spans", &spans.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}
