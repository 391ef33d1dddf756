//! The backend in a separate process, so that its memory and processor time can be measured, and
//! so that it can be stopped and reopened.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use llmobs_local::{DataDir, LocalBackend, LocalOptions, serve};
use serde_json::{Value, json};

use super::measure::processor_seconds;

/// Serves a data directory until standard input ends. The first line on standard output is the URL and
/// how long opening took.
pub fn serve_directory(directory: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = Instant::now();
    let options = LocalOptions::new(DataDir::Path(directory.to_owned()));
    let backend = LocalBackend::open(options).unwrap();
    let open_ms = started.elapsed().as_secs_f64() * 1_000.0;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        println!("{}", json!({"address": address, "open_ms": open_ms}));
        std::io::stdout().flush().unwrap();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = stop.send(());
        });
        let stopped = async {
            let _ = stopped.await;
        };
        serve(backend, listener, stopped).await.unwrap();
    });
}

/// A running backend. Dropping it stops it.
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    sampler: Sampler,
    pub url: String,
    /// How long opening the store took, in milliseconds.
    pub open_ms: f64,
}

impl Server {
    pub fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--serve")
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        Self {
            stdin: child.stdin.take(),
            sampler: Sampler::start(child.id()),
            url: format!("http://{}", told["address"].as_str().unwrap()),
            open_ms: told["open_ms"].as_f64().unwrap(),
            child,
        }
    }

    /// Waits until the backend is idle; the index works for some time after the last span.
    pub fn settle(&self) {
        let given_up = Instant::now() + Duration::from_secs(120);
        let mut before = processor_seconds(self.child.id());
        while Instant::now() < given_up {
            std::thread::sleep(Duration::from_secs(1));
            let now = processor_seconds(self.child.id());
            if now - before < 0.05 {
                return;
            }
            before = now;
        }
    }

    /// Peak memory excluding mapped files, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.sampler.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.sampler.stop();
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Reads a process's memory twenty times a second.
struct Sampler {
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    fn start(process: u32) -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let (to, until) = (peak.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                to.fetch_max(anonymous_bytes(process), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self {
            peak,
            done,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Resident memory of a process, excluding mapped files; 0 where the system does not report it.
fn anonymous_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1_024
}
