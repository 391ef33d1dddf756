//! `local stats | purge | verify | export | import | reindex`, as people run them.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Running, local, program};
use crate::support::sender::{answered, batch, client, found, post, scores};

/// Folders of one test, and the commands on them.
struct Desk {
    home: TempDir,
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            home: TempDir::new().unwrap(),
            folder: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `local` with these words over the data folder of a name.
    fn command(&self, data: &str, words: &[&str]) -> Command {
        let mut command = program(&self.home);
        command
            .arg("local")
            .args(words)
            .arg("--data-dir")
            .arg(self.path(data));
        command
    }

    fn run(&self, data: &str, words: &[&str]) -> Output {
        self.command(data, words).output().unwrap()
    }

    /// The same, which must go well and print JSON.
    fn json(&self, data: &str, words: &[&str]) -> Value {
        let done = self.run(data, words);
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {told}");
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// A folder of a name that holds the demo's data.
    fn demo(&self, data: &str) {
        drop(self.serve_demo(data));
    }

    fn serve_demo(&self, data: &str) -> Running {
        let mut command = program(&self.home);
        command
            .args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(self.path(data));
        let mut running = Running::start(command, "local backend");
        // The line with `/mcp` is another's: what commands need stands in the folder.
        let name = std::fs::read(self.path(data).join("owner.json")).unwrap();
        let name: Value = serde_json::from_slice(&name).unwrap();
        name["url"].as_str().unwrap().clone_into(&mut running.url);
        running
    }

    fn serve(&self, data: &str, more: &[&str]) -> Running {
        let words = [&["--listen", "127.0.0.1:0", "--log", "off"], more].concat();
        Running::start(self.command(data, &words), "Local backend")
    }

    fn export(&self, data: &str, file: &str) -> String {
        let path = self.path(file);
        self.json(data, &["export", path.to_str().unwrap(), "--json"]);
        text_of(&path)
    }
}

/// A file of lines, plain or gzip.
fn text_of(path: &Path) -> String {
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
fn an_export_read_into_an_empty_folder_gives_the_same_export() {
    let desk = Desk::new();
    desk.demo("one");
    let all = desk.export("one", "one.ndjson.gz");
    let stats = desk.json("one", &["stats", "--json"]);
    assert_eq!(stats["spans"], 2_288);
    let lines = stats["spans"].as_u64().unwrap() + stats["evaluations"].as_u64().unwrap();
    assert_eq!(all.lines().count() as u64, lines);

    let file = desk.path("one.ndjson.gz");
    let file = file.to_str().unwrap();
    let imported = desk.json("two", &["import", file, "--json"]);
    assert_eq!(imported["spans"], stats["spans"]);
    assert_eq!(imported["evaluations"], stats["evaluations"]);
    assert_eq!(imported["refused_lines"], 0);
    assert!(desk.export("two", "two.ndjson") == all, "to the digit");
    // Again, and from standard input: nothing changes.
    let mut again = desk.command("two", &["import", "-", "--json"]);
    again.stdin(std::fs::File::open(file).unwrap());
    assert!(again.output().unwrap().status.success());
    assert!(desk.export("two", "three.ndjson") == all);
    let stdout = desk.run("two", &["export", "-"]);
    assert!(stdout.stdout == all.as_bytes());
    for data in ["one", "two"] {
        let verified = desk.json(data, &["verify", "--json"]);
        assert_eq!(verified["clean"], true, "{verified}");
        assert_eq!(verified["spans"], stats["spans"]);
        assert_eq!(verified["evaluations"], stats["evaluations"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_can_be_posted_to_the_documented_intake() {
    let desk = Desk::new();
    let source = desk.serve("one", &[]);
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
    let exported = desk.run("one", &["export", "-"]).stdout;
    let target = desk.serve("two", &[]);
    for line in String::from_utf8(exported).unwrap().lines() {
        let body: Value = serde_json::from_str(line).unwrap();
        let path = match body["data"]["type"].as_str() {
            Some("span") => "/api/intake/llm-obs/v1/trace/spans",
            _ => "/api/intake/llm-obs/v2/eval-metric",
        };
        assert_eq!(post(&client, &target.url, path, &body).await, Some(202));
    }
    let query = "@ml_app:shop @evaluation.place.value:>=0";
    let there = found(&client, &source.url, query).await;
    assert_eq!(there.len(), 5);
    assert_eq!(found(&client, &target.url, query).await, there);
}

#[test]
fn damaged_lines_are_told_and_the_good_ones_are_kept() {
    let desk = Desk::new();
    desk.demo("one");
    let all = desk.export("one", "one.ndjson");
    let mut lines: Vec<&str> = all.lines().take(20).collect();
    lines.insert(3, "{\"data\":{\"type\":\"span\"");
    lines.insert(7, "");
    lines.insert(
        12,
        "{\"data\":{\"type\":\"span\",\"attributes\":{\"ml_app\":\"a\",\"spans\":[{\"name\":7}]}}}",
    );
    let mut bytes = lines.join("\n").into_bytes();
    bytes.extend_from_slice(b"\n\xff\xfe\n{\"cut");
    let file = desk.path("broken.ndjson");
    std::fs::write(&file, bytes).unwrap();
    let done = desk.run("two", &["import", file.to_str().unwrap()]);
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    for line in [4, 13, 24, 25] {
        assert!(told.contains(&format!("line {line}:")), "{line}: {told}");
    }
    assert!(told.contains("4 lines could not be taken in"), "{told}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("Imported 20 spans"), "{said}");
    assert_eq!(desk.json("two", &["stats", "--json"])["spans"], 20);

    // A compressed file whose end is missing.
    let packed = desk.path("one.ndjson.gz");
    desk.json("one", &["export", packed.to_str().unwrap(), "--json"]);
    let mut bytes = std::fs::read(&packed).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&packed, bytes).unwrap();
    let done = desk.run("three", &["import", packed.to_str().unwrap()]);
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(told.contains("cannot be read on from here"), "{told}");
    let kept = desk.json("three", &["stats", "--json"]);
    assert!(kept["spans"].as_u64().unwrap() > 100, "{kept}");
    assert_eq!(desk.json("three", &["verify", "--json"])["clean"], true);
}

#[test]
fn an_import_that_was_killed_goes_on_where_it_was() {
    let desk = Desk::new();
    desk.demo("one");
    let all = desk.export("one", "one.ndjson");
    let file = desk.path("one.ndjson");
    let words = ["import", file.to_str().unwrap(), "--json"];
    // It is killed as soon as it has noted how far it is, unless it was done before that was seen.
    let mut first = desk.command("two", &words);
    let mut child = first
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let notes = desk.path("two").join("imports");
    let started = Instant::now();
    let noted = || std::fs::read_dir(&notes).is_ok_and(|mut notes| notes.next().is_some());
    while !noted() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let went_on = noted();
    let done = desk.run("two", &words);
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{told}");
    assert_eq!(told.contains("going on behind line"), went_on, "{told}");
    let said: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        said["lines"].as_u64().unwrap() as usize,
        all.lines().count()
    );
    assert!(desk.export("two", "two.ndjson") == all);
    assert!(!noted(), "nothing is left of a whole import");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_process_holds_the_data_the_commands_work_through_it() {
    let desk = Desk::new();
    let holder = desk.serve_demo("one");
    let stats = desk.json("one", &["stats", "--json"]);
    assert_eq!(stats["held_by"], holder.url.as_str());
    assert_eq!(stats["spans"], 2_288);
    let all = desk.export("one", "one.ndjson");
    let file = desk.path("one.ndjson");
    let imported = desk.json("one", &["import", file.to_str().unwrap(), "--json"]);
    assert_eq!(imported["spans"], 2_288);
    assert_eq!(desk.json("one", &["verify", "--json"])["clean"], true);
    let built = desk.json("one", &["reindex", "--json"]);
    assert_eq!(built["indexed_spans"], 2_288);
    let index = &desk.json("one", &["stats", "--json"])["index"];
    assert_eq!(*index, json!({"state": "ready", "changes_behind": 0}));
    assert!(desk.export("one", "two.ndjson") == all);
    let removed = desk.json("one", &["purge", "--down-to", "1MB", "--json"]);
    assert!(removed["spans"].as_u64().unwrap() > 100, "{removed}");
    let left = desk.json("one", &["stats", "--json"]);
    assert!(
        left["bytes"]["used"].as_u64().unwrap() <= 1_000_000,
        "{left}"
    );
    let client = client();
    let there = found(&client, &holder.url, "@duration:>=0").await;
    assert!(there.len() as u64 <= left["spans"].as_u64().unwrap());
    // People are told who holds it.
    let told = String::from_utf8(desk.run("one", &["stats"]).stdout).unwrap();
    assert!(told.contains(&holder.url), "{told}");
    assert!(told.contains("\nIndex        "), "{told}");
    drop(holder);
    assert_eq!(desk.json("one", &["verify", "--json"])["clean"], true);
}

#[test]
fn purged_runs_are_gone_from_their_experiment() {
    let desk = Desk::new();
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
    let server = desk.serve_demo("one");
    let (runs, summary) = totals(&server.url);
    assert!(runs > 0);
    drop(server);
    let removed = desk.json("one", &["purge", "--down-to", "1", "--json"]);
    assert_eq!(removed["spans"], 2_288);
    // `verify` also looks for members of experiments that are no longer there.
    assert_eq!(desk.json("one", &["verify", "--json"])["clean"], true);
    let server = desk.serve("one", &[]);
    assert_eq!(totals(&server.url), (0, summary), "the summary stays");
}

#[test]
fn verify_finds_what_was_damaged_and_says_so() {
    let desk = Desk::new();
    desk.demo("one");
    // Now the index has all of it.
    assert_eq!(desk.json("one", &["verify", "--json"])["clean"], true);
    let file = desk.path("one").join("llmobs.db");
    let change = |sql: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
    };
    let a_span = "(SELECT id FROM spans ORDER BY id LIMIT 1 OFFSET 50)";
    let an_evaluation = "(SELECT id FROM evals ORDER BY id LIMIT 1)";
    for (damage, mend, expected) in [
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
            "its row and its content disagree",
        ),
        (
            "INSERT INTO content VALUES (5, x'00')".to_owned(),
            "DELETE FROM content WHERE id = 5".to_owned(),
            "content that belongs to no span",
        ),
        (
            format!("UPDATE evals SET ts = ts + 1 WHERE id = {an_evaluation}"),
            format!("UPDATE evals SET ts = ts - 1 WHERE id = {an_evaluation}"),
            "its row and its body disagree",
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
        let verified = desk.run("one", &["verify", "--json"]);
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!(verified.status.code(), Some(1), "{expected}");
        let faults = report["faults"].as_array().unwrap();
        let fault = faults[0].as_str().unwrap();
        assert!(fault.contains(expected), "{fault}");
        // The index knows how long a span was.
        let known = usize::from(damage.contains("dur + 1"));
        assert_eq!(faults.len(), 1 + known, "{report}");
        let told = String::from_utf8(verified.stderr).unwrap();
        assert!(told.contains("local export"), "{told}");
        change(&mend);
        assert_eq!(
            desk.json("one", &["verify", "--json"])["clean"],
            true,
            "{mend}"
        );
    }
    let mut bytes = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    std::io::Seek::seek(&mut bytes, std::io::SeekFrom::End(-20_000)).unwrap();
    bytes.write_all(&[0x55; 9_000]).unwrap();
    drop(bytes);
    let verified = desk.run("one", &["verify"]);
    assert_eq!(verified.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_removes_what_its_retention_does_not_keep() {
    let desk = Desk::new();
    let server = desk.serve("one", &[]);
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
    assert_eq!(desk.json("one", &["stats", "--json"])["spans"], 10);
    let _server = desk.serve("one", &["--retain-days", "2"]);
    let started = Instant::now();
    loop {
        let left = desk.json("one", &["stats", "--json"])["spans"].clone();
        if left == 5 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{left} spans");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn what_cannot_be_done_is_told_with_the_mend() {
    let desk = Desk::new();
    for (words, code, expected) in [
        (&["stats"][..], 1, "there are no data in"),
        (&["verify"], 1, "--data-dir"),
        (&["export", "x.ndjson"], 1, "there are no data in"),
        (&["purge"], 2, "--older-than"),
        (&["purge", "--older-than", "0"], 2, "for example 30"),
        (&["purge", "--down-to", "lots"], 2, "for example 500MB"),
        (&["import"], 2, "FILES"),
        (&["import", "/no/such/file"], 1, "cannot be read"),
        (&["--retain-bytes", "lots"], 2, "for example 500MB"),
    ] {
        let done = desk.run("none", words);
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{words:?}: {told}");
        assert!(told.contains(expected), "{words:?}: {told}");
    }
}

/// The limits are Datadog's own; a flag, the environment or the file wishes for them.
#[rstest::rstest]
#[case::nobody(&[], None, false, true)]
#[case::flag(&["--datadog-limits"], None, false, false)]
#[case::environment(&[], Some("true"), false, false)]
#[case::environment_off(&[], Some("0"), false, true)]
#[case::file(&[], None, true, false)]
#[tokio::test(flavor = "multi_thread")]
async fn old_spans_are_refused_where_datadogs_limits_are_wished_for(
    #[case] flags: &[&str],
    #[case] variable: Option<&str>,
    #[case] in_file: bool,
    #[case] kept: bool,
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
    let said = answer.unwrap().text().await.unwrap();
    assert_eq!(said.contains("24 hours"), !kept, "{said}");
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
    assert_eq!(stats["spans"], if kept { 10 } else { 5 }, "{stats}");
}
