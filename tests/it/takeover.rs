//! Two processes serve MCP over one data directory. The second works through the first, and takes over
//! when the first is killed during ingest.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{program, verified};
use crate::support::sender::{BATCH, Sent, assert_all_there, batch, client, found, post, scores};

/// A process that serves MCP on stdio over the local data.
struct Mcp {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Mcp {
    fn start(home: &TempDir, data: &Path) -> Self {
        let mut child = program(home)
            .args(["serve", "--stdio", "--local", "--data-dir"])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut mcp = Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            next: 0,
        };
        mcp.ask(
            "initialize",
            &json!({"protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"}}),
        );
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        writeln!(mcp.stdin, "{ready}").unwrap();
        mcp
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(self.stdin, "{request}").unwrap();
        loop {
            let line = self.lines.next().expect("an answer").unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id {
                return message["result"].clone();
            }
        }
    }

    /// The number of spans in a search, which must succeed.
    fn search(&mut self, limit: usize) -> usize {
        let arguments = json!({"ml_app": "shared", "from": "now-1d", "limit": limit,
            "summary": true});
        let result = self.ask(
            "tools/call",
            &json!({"name": "search_llmobs_spans", "arguments": arguments}),
        );
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_ne!(result["isError"], true, "{text}");
        let answer: Value = serde_json::from_str(text).unwrap();
        answer["spans"].as_array().unwrap().len()
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL of the owner of a data directory.
fn owner_url(data: &Path) -> Option<String> {
    let text = std::fs::read(data.join("owner.json")).ok()?;
    let owner: Value = serde_json::from_slice(&text).ok()?;
    Some(owner["url"].as_str()?.to_owned())
}

/// Sends to the owner of the data directory until `stop` is set.
async fn ingest(data: PathBuf, sent_log: Arc<Mutex<Vec<Sent>>>, stop: Arc<AtomicBool>) {
    let client = client();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let trace = format!("t{number}");
        let Some(url) = owner_url(&data) else {
            continue;
        };
        let spans = batch("shared", &trace, "");
        if post(&client, &url, "/api/v2/llmobs", &spans).await != Some(202) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let path = "/api/intake/llm-obs/v2/eval-metric";
        let judged = post(&client, &url, path, &scores(&trace)).await == Some(202);
        sent_log.lock().unwrap().push(Sent { trace, judged });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_takes_over_after_kill() {
    let (home, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut first = Mcp::start(&home, data.path());
    let url = owner_url(data.path()).expect("the first owns the directory");
    let mut second = Mcp::start(&home, data.path());
    assert_eq!(
        owner_url(data.path()).as_ref(),
        Some(&url),
        "the second attached"
    );

    let (sent_log, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let sending = tokio::spawn(ingest(
        data.path().to_owned(),
        Arc::clone(&sent_log),
        stop.clone(),
    ));
    let sent = || sent_log.lock().unwrap().len();
    while sent() < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(first.search(50) >= 10 * BATCH);
    assert!(second.search(50) >= 10 * BATCH, "through the first");

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let before = sent();
    assert!(second.search(50) >= 10 * BATCH, "the next call succeeds");
    // The new owner may listen on the same port.
    let next = owner_url(data.path()).unwrap();
    while sent() < before + 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    sending.await.unwrap();

    // A third process works through the second.
    verified(&home, data.path());
    assert_eq!(owner_url(data.path()), Some(next.clone()));
    let spans = found(&client(), &next, "@ml_app:shared").await;
    assert_all_there(&spans, &sent_log.lock().unwrap());
    let url = next.as_str();
    let serving = program(&home)
        .args(["local", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(serving.stderr).unwrap();
    assert_eq!(serving.status.code(), Some(1));
    assert!(stderr.contains(url), "names the owner: {stderr}");
}
