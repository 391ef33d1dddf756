//! Kills the process repeatedly at random moments of ingest, on one data directory. Every acknowledged
//! span exists afterwards exactly once, and searches find it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binary::{Running, local, verified};
use crate::support::sender::{
    BATCH, Dice, Sent, assert_all_there, batch, client, found, post, scores,
};

const ROUNDS: u64 = 50;
const WRITERS: u64 = 4;

/// The most acknowledgements that a round waits for, and the longest time.
const MAX_ACKNOWLEDGED: u64 = 24;
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends until the server stops. Every third batch is sent twice, as an SDK does after a lost response.
async fn write(url: String, app: String, writer: u64, acknowledged: Arc<AtomicU64>, log: SentLog) {
    let client = client();
    for number in 0.. {
        let trace = format!("{app}-{writer}-{number}");
        let spans = batch(&app, &trace, "");
        let times = if number % 3 == 0 { 2 } else { 1 };
        for _ in 0..times {
            if post(&client, &url, "/api/v2/llmobs", &spans).await != Some(202) {
                return;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        log.lock().unwrap().push(Sent {
            trace: trace.clone(),
            judged: false,
        });
        let path = "/api/intake/llm-obs/v2/eval-metric";
        if post(&client, &url, path, &scores(&trace)).await != Some(202) {
            return;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut log = log.lock().unwrap();
        if let Some(sent) = log.iter_mut().find(|sent| sent.trace == trace) {
            sent.judged = true;
        }
    }
}

type SentLog = Arc<Mutex<Vec<Sent>>>;

/// Sends until a kill, and returns the acknowledged traces.
async fn round(server: &mut Running, app: &str, dice: &mut Dice) -> Vec<Sent> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let log: SentLog = SentLog::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            tokio::spawn(write(
                server.url.clone(),
                app.to_owned(),
                writer,
                acknowledged.clone(),
                log.clone(),
            ))
        })
        .collect();
    let target = dice.below(MAX_ACKNOWLEDGED);
    let started = Instant::now();
    while acknowledged.load(Ordering::Relaxed) < target && started.elapsed() < ROUND_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A random moment within a write.
    tokio::time::sleep(Duration::from_micros(dice.below(8_000))).await;
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    std::mem::take(&mut *log.lock().unwrap())
}

/// Checks that every acknowledged trace is found by facet and by text, and that the store has no
/// faults.
async fn check(server: &Running, home: &TempDir, data: &TempDir, sent: &[Sent]) {
    let client = client();
    let spans = found(&client, &server.url, "@meta.span.kind:task").await;
    assert_all_there(&spans, sent);
    if let Some(last) = sent.last() {
        let words = format!("\"word-{}\"", last.trace);
        let by_word = found(&client, &server.url, &words).await;
        assert_eq!(by_word.len(), BATCH, "{}", last.trace);
    }
    let report = verified(home, data.path());
    assert_eq!(report["spans"].as_u64().unwrap() as usize, spans.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_no_acknowledged_span() {
    let (home, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut dice = Dice(20_261_125);
    let mut all: Vec<Sent> = Vec::new();
    for number in 0..ROUNDS {
        let mut server = Running::start(local(&home, data.path()), "Local backend");
        check(&server, &home, &data, &all).await;
        all.extend(round(&mut server, &format!("round{number}"), &mut dice).await);
    }
    let judged = all.iter().filter(|sent| sent.judged).count();
    assert!(
        all.len() > 100 && judged > 50,
        "{} traces, {judged} judged",
        all.len()
    );
    let server = Running::start(local(&home, data.path()), "Local backend");
    check(&server, &home, &data, &all).await;
}
