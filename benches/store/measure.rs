//! Sends searches, measures time, and reads the load of the machine.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::questions::Question;

/// Times of one search, in milliseconds, sorted.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    /// A percentile by nearest rank.
    pub fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Sends a search once; returns the response and the time to its last byte.
pub async fn ask(client: &reqwest::Client, url: &str, question: &Question) -> (Value, f64) {
    let body = question.body.to_string();
    let started = Instant::now();
    let request = client.post(format!("{url}{}", question.path));
    let request = request.header(reqwest::header::CONTENT_TYPE, "application/json");
    let answer = request.body(body).send().await.unwrap();
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap();
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    assert!(
        status == 200,
        "{}: {status} {}",
        question.name,
        String::from_utf8_lossy(&bytes)
    );
    (serde_json::from_slice(&bytes).unwrap(), took)
}

/// Repeats a search after warming the caches, but not much longer than `cap`.
/// Also returns what was wrong with a response.
pub async fn ask_often(
    client: &reqwest::Client,
    url: &str,
    question: &Question,
    rounds: usize,
    cap: Duration,
) -> (Times, Result<(), String>) {
    let started = Instant::now();
    let (answer, first) = ask(client, url, question).await;
    let verdict = question.check(&answer);
    if started.elapsed() > cap {
        return (Times::new(vec![first]), verdict);
    }
    ask(client, url, question).await;
    let mut times = Vec::with_capacity(rounds);
    while times.is_empty() || (times.len() < rounds && started.elapsed() < cap) {
        times.push(ask(client, url, question).await.1);
    }
    (Times::new(times), verdict)
}

/// The load that other programs put on the processors.
pub struct OtherLoad {
    started: Instant,
    all: f64,
    own: f64,
}

/// Length of the kernel's unit of processor time.
const TICK: f64 = 0.01;

impl OtherLoad {
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            all: all_seconds(),
            own: own_seconds(),
        }
    }

    /// Cores used by other programs on average since the start; call it when all children have ended.
    pub fn cores(&self) -> f64 {
        let all = all_seconds() - self.all;
        let own = own_seconds() - self.own;
        ((all - own) / self.started.elapsed().as_secs_f64()).max(0.0)
    }
}

/// Processor time of all programs, without idle and disk wait.
fn all_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let total: f64 = numbers.iter().take(8).sum();
    let idle: f64 = numbers.iter().skip(3).take(2).sum();
    (total - idle) * TICK
}

/// Processor time of this process and of its children that have ended.
fn own_seconds() -> f64 {
    times_of("self", 4)
}

/// Processor time of a process; 0 where the system does not report it.
pub fn processor_seconds(process: u32) -> f64 {
    times_of(&process.to_string(), 2)
}

/// The sum of user and system time of a process and of its ended children.
fn times_of(process: &str, count: usize) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in brackets, may contain spaces.
    let fields = text.rsplit(") ").next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(count);
    times
        .filter_map(|number| number.parse::<f64>().ok())
        .sum::<f64>()
        * TICK
}
