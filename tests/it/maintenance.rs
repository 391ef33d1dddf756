//! The subcommands of `local`: stats, purge, verify, export, import, reindex.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Running, local, program};
use crate::support::sender::{answered, batch, client, found, post, scores};

/// The directories of one test, and the commands on them.
struct Fixture {
    home: TempDir,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            home: TempDir::new().unwrap(),
            directory: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `local` with these arguments and this data directory.
    fn command(&self, data: &str, arguments: &[&str]) -> Command {
        let mut command = program(&self.home);
        command
            .arg("local")
            .args(arguments)
            .arg("--data-dir")
            .arg(self.path(data));
        command
    }

    fn run(&self, data: &str, arguments: &[&str]) -> Output {
        self.command(data, arguments).output().unwrap()
    }

    /// Runs a command that must succeed and print JSON.
    fn json(&self, data: &str, arguments: &[&str]) -> Value {
        let done = self.run(data, arguments);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {stderr}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// Fills a data directory with the demo data.
    fn load_demo(&self, data: &str) {
        drop(self.serve_demo(data));
    }

    fn serve_demo(&self, data: &str) -> Running {
        let mut command = program(&self.home);
        command
            .args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(self.path(data));
        let mut running = Running::start(command, "local backend");
        // The printed address is that of MCP; the data directory holds that of the backend.
        let owner = std::fs::read(self.path(data).join("owner.json")).unwrap();
        let owner: Value = serde_json::from_slice(&owner).unwrap();
        owner["url"].as_str().unwrap().clone_into(&mut running.url);
        running
    }

    fn serve(&self, data: &str, more: &[&str]) -> Running {
        let arguments = [&["--listen", "127.0.0.1:0", "--log", "off"], more].concat();
        Running::start(self.command(data, &arguments), "Local backend")
    }

    fn export(&self, data: &str, file: &str) -> String {
        let path = self.path(file);
        self.json(data, &["export", path.to_str().unwrap(), "--json"]);
        read_lines(&path)
    }
}

/// The text of a plain or gzip file.
fn read_lines(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_none_or(|end| end != "gz") {
        return String::from_utf8(bytes).unwrap();
    }
    let mut text = String::new();
    MultiGzDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[test]
fn import_restores_exact_export() {
    let fixture = Fixture::new();
    fixture.load_demo("one");
    let all = fixture.export("one", "one.ndjson.gz");
    let stats = fixture.json("one", &["stats", "--json"]);
    assert_eq!(stats["spans"], 2_288);
    let lines = stats["spans"].as_u64().unwrap() + stats["evaluations"].as_u64().unwrap();
    assert_eq!(all.lines().count() as u64, lines);

    let file = fixture.path("one.ndjson.gz");
    let file = file.to_str().unwrap();
    let imported = fixture.json("two", &["import", file, "--json"]);
    assert_eq!(imported["spans"], stats["spans"]);
    assert_eq!(imported["evaluations"], stats["evaluations"]);
    assert_eq!(imported["refused_lines"], 0);
    assert!(fixture.export("two", "two.ndjson") == all, "the same bytes");
    // Importing again from standard input changes nothing.
    let mut again = fixture.command("two", &["import", "-", "--json"]);
    again.stdin(std::fs::File::open(file).unwrap());
    assert!(again.output().unwrap().status.success());
    assert!(fixture.export("two", "three.ndjson") == all);
    let stdout = fixture.run("two", &["export", "-"]);
    assert!(stdout.stdout == all.as_bytes());
    for data in ["one", "two"] {
        let verified = fixture.json(data, &["verify", "--json"]);
        assert_eq!(verified["clean"], true, "{verified}");
        assert_eq!(verified["spans"], stats["spans"]);
        assert_eq!(verified["evaluations"], stats["evaluations"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn intake_accepts_every_exported_line() {
    let fixture = Fixture::new();
    let source = fixture.serve("one", &[]);
    let client = client();
    post(
        &client,
        &source.url,
        "/api/v2/llmobs",
        &batch("shop", "t", ""),
    )
    .await;
    let path = "/api/intake/llm-obs/v2/eval-metric";
    post(&client, &source.url, path, &scores("t")).await;
    let exported = fixture.run("one", &["export", "-"]).stdout;
    let target = fixture.serve("two", &[]);
    for line in String::from_utf8(exported).unwrap().lines() {
        let body: Value = serde_json::from_str(line).unwrap();
        let path = match body["data"]["type"].as_str() {
            Some("span") => "/api/intake/llm-obs/v1/trace/spans",
            _ => "/api/intake/llm-obs/v2/eval-metric",
        };
        assert_eq!(post(&client, &target.url, path, &body).await, Some(202));
    }
    let query = "@ml_app:shop @evaluation.place.value:>=0";
    let spans = found(&client, &source.url, query).await;
    assert_eq!(spans.len(), 5);
    assert_eq!(found(&client, &target.url, query).await, spans);
}

#[test]
fn import_reports_malformed_lines_and_imports_the_others() {
    let fixture = Fixture::new();
    fixture.load_demo("one");
    let all = fixture.export("one", "one.ndjson");
    let mut lines: Vec<&str> = all.lines().take(20).collect();
    lines.insert(3, "{\"data\":{\"type\":\"span\"");
    lines.insert(7, "");
    lines.insert(
        12,
        "{\"data\":{\"type\":\"span\",\"attributes\":{\"ml_app\":\"a\",\"spans\":[{\"name\":7}]}}}",
    );
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend_from_slice(b"\n\xff\xfe\n{\"cut");
    let file = fixture.path("broken.ndjson");
    std::fs::write(&file, bytes).unwrap();
    let done = fixture.run("two", &["import", file.to_str().unwrap()]);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    for line in [4, 13, 24, 25] {
        assert!(
            stderr.contains(&format!("line {line}:")),
            "{line}: {stderr}"
        );
    }
    assert!(stderr.contains("4 lines are malformed"), "{stderr}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("Imported 20 spans"), "{text}");
    assert_eq!(fixture.json("two", &["stats", "--json"])["spans"], 20);

    // A truncated gzip file.
    let packed = fixture.path("one.ndjson.gz");
    fixture.json("one", &["export", packed.to_str().unwrap(), "--json"]);
    let mut bytes = std::fs::read(&packed).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&packed, bytes).unwrap();
    let done = fixture.run("three", &["import", packed.to_str().unwrap()]);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        stderr.contains("cannot read the rest of the file"),
        "{stderr}"
    );
    let stats = fixture.json("three", &["stats", "--json"]);
    assert!(stats["spans"].as_u64().unwrap() > 100, "{stats}");
    assert_eq!(fixture.json("three", &["verify", "--json"])["clean"], true);
}

#[test]
fn resumes_killed_import() {
    let fixture = Fixture::new();
    fixture.load_demo("one");
    let all = fixture.export("one", "one.ndjson");
    let file = fixture.path("one.ndjson");
    let arguments = ["import", file.to_str().unwrap(), "--json"];
    // Kill it once it records its progress, unless it finishes first.
    let mut first = fixture.command("two", &arguments);
    let mut child = first
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let progress = fixture.path("two").join("imports");
    let started = Instant::now();
    let has_progress =
        || std::fs::read_dir(&progress).is_ok_and(|mut files| files.next().is_some());
    while !has_progress() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let interrupted = has_progress();
    let done = fixture.run("two", &arguments);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stderr}");
    assert_eq!(
        stderr.contains("resuming after line"),
        interrupted,
        "{stderr}"
    );
    let text: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        text["lines"].as_u64().unwrap() as usize,
        all.lines().count()
    );
    assert!(fixture.export("two", "two.ndjson") == all);
    assert!(!has_progress(), "a complete import leaves no progress file");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_through_the_owner() {
    let fixture = Fixture::new();
    let owner = fixture.serve_demo("one");
    let stats = fixture.json("one", &["stats", "--json"]);
    assert_eq!(stats["held_by"], owner.url.as_str());
    assert_eq!(stats["spans"], 2_288);
    let all = fixture.export("one", "one.ndjson");
    let file = fixture.path("one.ndjson");
    let imported = fixture.json("one", &["import", file.to_str().unwrap(), "--json"]);
    assert_eq!(imported["spans"], 2_288);
    assert_eq!(fixture.json("one", &["verify", "--json"])["clean"], true);
    let built = fixture.json("one", &["reindex", "--json"]);
    assert_eq!(built["indexed_spans"], 2_288);
    let index = &fixture.json("one", &["stats", "--json"])["index"];
    assert_eq!(*index, json!({"state": "ready", "changes_behind": 0}));
    assert!(fixture.export("one", "two.ndjson") == all);
    let removed = fixture.json("one", &["purge", "--down-to", "1MB", "--json"]);
    assert!(removed["spans"].as_u64().unwrap() > 100, "{removed}");
    let left = fixture.json("one", &["stats", "--json"]);
    assert!(
        left["bytes"]["used"].as_u64().unwrap() <= 1_000_000,
        "{left}"
    );
    let client = client();
    let spans = found(&client, &owner.url, "@duration:>=0").await;
    assert!(spans.len() as u64 <= left["spans"].as_u64().unwrap());
    // The text names the owner.
    let stderr = String::from_utf8(fixture.run("one", &["stats"]).stdout).unwrap();
    assert!(stderr.contains(&owner.url), "{stderr}");
    assert!(stderr.contains("\nIndex        "), "{stderr}");
    drop(owner);
    assert_eq!(fixture.json("one", &["verify", "--json"])["clean"], true);
}

#[test]
fn purge_removes_runs_from_experiment() {
    let fixture = Fixture::new();
    let totals = |url: &str| -> (usize, Value) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = client();
            let path = format!("{url}/api/v2/llm-obs/v1/experiments");
            let listed: Value = client.get(path).send().await.unwrap().json().await.unwrap();
            let id = listed["data"][0]["id"].as_str().unwrap();
            let path = format!("{url}/api/v2/llm-obs/v3/experiments/{id}/events");
            let events: Value = client.get(path).send().await.unwrap().json().await.unwrap();
            let events = &events["data"]["attributes"];
            let runs = events["spans"].as_array().unwrap().len();
            (runs, events["summary_metrics"].clone())
        })
    };
    let server = fixture.serve_demo("one");
    let (runs, summary) = totals(&server.url);
    assert!(runs > 0);
    drop(server);
    let removed = fixture.json("one", &["purge", "--down-to", "1", "--json"]);
    assert_eq!(removed["spans"], 2_288);
    // `verify` also checks for runs of removed experiments.
    assert_eq!(fixture.json("one", &["verify", "--json"])["clean"], true);
    let server = fixture.serve("one", &[]);
    assert_eq!(totals(&server.url), (0, summary), "the summary stays");
}

#[test]
fn verify_reports_damage() {
    let fixture = Fixture::new();
    fixture.load_demo("one");
    // `verify` waits for the index to be complete.
    assert_eq!(fixture.json("one", &["verify", "--json"])["clean"], true);
    let file = fixture.path("one").join("llmobs.db");
    let change = |sql: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    let a_span = "(SELECT id FROM spans ORDER BY id LIMIT 1 OFFSET 50)";
    let an_evaluation = "(SELECT id FROM evals ORDER BY id LIMIT 1)";
    for (damage, repair, expected) in [
        (
            format!(
                "CREATE TABLE saved AS SELECT * FROM content WHERE id = {a_span};
                     DELETE FROM content WHERE id = {a_span}"
            ),
            "INSERT INTO content SELECT * FROM saved; DROP TABLE saved".to_owned(),
            "its content is missing",
        ),
        (
            format!(
                "CREATE TABLE saved AS SELECT * FROM content WHERE id = {a_span};
                     UPDATE content SET z = x'00112233' WHERE id = {a_span}"
            ),
            "INSERT OR REPLACE INTO content SELECT * FROM saved; DROP TABLE saved".to_owned(),
            "its content cannot be read",
        ),
        (
            format!("UPDATE spans SET dur = dur + 1 WHERE id = {a_span}"),
            format!("UPDATE spans SET dur = dur - 1 WHERE id = {a_span}"),
            "its columns differ from its content",
        ),
        (
            "INSERT INTO content VALUES (5, x'00')".to_owned(),
            "DELETE FROM content WHERE id = 5".to_owned(),
            "there is content without a span",
        ),
        (
            format!("UPDATE evals SET ts = ts + 1 WHERE id = {an_evaluation}"),
            format!("UPDATE evals SET ts = ts - 1 WHERE id = {an_evaluation}"),
            "its columns differ from its body",
        ),
        (
            "CREATE TABLE saved AS SELECT * FROM outbox WHERE seq = 7;
             DELETE FROM outbox WHERE seq = 7"
                .to_owned(),
            "INSERT INTO outbox SELECT * FROM saved; DROP TABLE saved".to_owned(),
            "the list of changes has gaps",
        ),
    ] {
        change(&damage);
        let verified = fixture.run("one", &["verify", "--json"]);
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(verified.status.code(), Some(1), "{expected}");
        let faults = report["faults"].as_array().unwrap();
        let fault = faults[0].as_str().unwrap();
        assert!(fault.contains(expected), "{fault}");
        // The index holds the duration of a span too.
        let index_faults = usize::from(damage.contains("dur + 1"));
        assert_eq!(faults.len(), 1 + index_faults, "{report}");
        let stderr = String::from_utf8(verified.stderr).unwrap();
        assert!(stderr.contains("local export"), "{stderr}");
        change(&repair);
        assert_eq!(
            fixture.json("one", &["verify", "--json"])["clean"],
            true,
            "{repair}"
        );
    }
    let mut bytes = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    std::io::Seek::seek(&mut bytes, std::io::SeekFrom::End(-20_000)).unwrap();
    bytes.write_all(&[0x55; 9_000]).unwrap();
    drop(bytes);
    let verified = fixture.run("one", &["verify"]);
    assert_eq!(verified.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_applies_retention() {
    let fixture = Fixture::new();
    let server = fixture.serve("one", &[]);
    let client = client();
    let mut old = batch("shop", "old", "");
    for span in old[0]["spans"].as_array_mut().unwrap() {
        span["start_ns"] = json!(span["start_ns"].as_i64().unwrap() - 3 * 86_400_000_000_000);
    }
    for body in [&old, &batch("shop", "new", "")] {
        assert_eq!(
            post(&client, &server.url, "/api/v2/llmobs", body).await,
            Some(202)
        );
    }
    drop(server);
    assert_eq!(fixture.json("one", &["stats", "--json"])["spans"], 10);
    let _server = fixture.serve("one", &["--retain-days", "2"]);
    let started = Instant::now();
    loop {
        let left = fixture.json("one", &["stats", "--json"])["spans"].clone();
        if left == 5 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{left} spans");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn errors_of_local_commands_have_hints() {
    let fixture = Fixture::new();
    for (arguments, code, expected) in [
        (&["stats"][..], 1, "has no local data"),
        (&["verify"], 1, "--data-dir"),
        (&["export", "x.ndjson"], 1, "has no local data"),
        (&["purge"], 2, "--older-than"),
        (&["purge", "--older-than", "0"], 2, "for example 30"),
        (&["purge", "--down-to", "lots"], 2, "for example 500MB"),
        (&["import"], 2, "FILES"),
        (&["import", "/no/such/file"], 1, "cannot read /no/such/file"),
        (&["--retain-bytes", "lots"], 2, "for example 500MB"),
    ] {
        let done = fixture.run("none", arguments);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

/// A flag, the environment or the config file turns Datadog's limits on.
#[rstest::rstest]
#[case::default(&[], None, false, true)]
#[case::flag(&["--datadog-limits"], None, false, false)]
#[case::environment(&[], Some("true"), false, false)]
#[case::off_in_environment(&[], Some("0"), false, true)]
#[case::file(&[], None, true, false)]
#[tokio::test(flavor = "multi_thread")]
async fn datadog_limits_refuse_old_spans(
    #[case] flags: &[&str],
    #[case] variable: Option<&str>,
    #[case] in_file: bool,
    #[case] accepts_old: bool,
) {
    let (home, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut command = local(&home, data.path());
    command.args(flags);
    if let Some(value) = variable {
        command.env("LLMOBS_MCP_DATADOG_LIMITS", value);
    }
    if in_file {
        let config = home.path().join("limits.toml");
        std::fs::write(&config, "datadog_limits = true").unwrap();
        command.arg("--config").arg(config);
    }
    let server = Running::start(command, "Local backend");
    let client = client();
    let mut body = batch("limits", "old", "");
    let day = 86_400_000_000_000_i64;
    for span in body[0]["spans"].as_array_mut().unwrap() {
        span["start_ns"] = json!(span["start_ns"].as_i64().unwrap() - 2 * day);
    }
    let answer = answered(&client, &server.url, "/api/v2/llmobs", &body).await;
    let text = answer.unwrap().text().await.unwrap();
    assert_eq!(text.contains("24 hours"), !accepts_old, "{text}");
    post(
        &client,
        &server.url,
        "/api/v2/llmobs",
        &batch("limits", "new", ""),
    )
    .await;
    let stats = program(&home)
        .args(["local", "stats", "--json", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(stats["spans"], if accepts_old { 10 } else { 5 }, "{stats}");
}
