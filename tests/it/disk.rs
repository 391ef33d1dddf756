//! A full disk and a read-only data directory: the errors name the cause, and no acknowledged span is
//! lost.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Running, local, program};
use crate::support::sender::{
    Dice, Sent, answered, assert_all_there, batch, client, found, now_ms, post, scores,
};

const APP: &str = "full";
const PROJECTS: &str = "/api/v2/llm-obs/v1/projects";

/// The same command with a limit on the size of files, in blocks. With the default signal ignored, a
/// write beyond the limit fails like on a full disk.
fn with_file_limit(blocks: u32, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .arg("-c")
        .arg(format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""
        ))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

/// Text that does not compress.
fn noise(dice: &mut Dice) -> String {
    std::iter::repeat_with(|| char::from(b'0' + u8::try_from(dice.below(74)).unwrap()))
        .filter(|c| c.is_ascii_alphanumeric())
        .take(20_000)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_reported_and_acknowledged_data_stays() {
    let (home, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let client = client();
    let mut dice = Dice(7);
    let mut sent = Vec::new();
    let server = Running::start(
        with_file_limit(8_000, &local(&home, data.path())),
        "Local backend",
    );
    let mut refusals = 0;
    for number in 0..400 {
        let trace = format!("t{number}");
        let body = batch(APP, &trace, &noise(&mut dice));
        let answer = answered(&client, &server.url, "/api/v2/llmobs", &body).await;
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        if status == 202 {
            sent.push(Sent {
                trace,
                judged: false,
            });
            continue;
        }
        assert!([503, 507].contains(&status), "{status}");
        let body: Value = answer.json().await.unwrap();
        let detail = body["errors"][0]["detail"].as_str().unwrap();
        assert!(
            detail.contains("nothing of this request was stored"),
            "{detail}"
        );
        assert!(
            detail.contains("disk") || detail.contains("cannot be written"),
            "{detail}"
        );
        refusals += 1;
        if refusals == 3 {
            break;
        }
    }
    assert_eq!(refusals, 3, "the limit was reached");
    assert!(sent.len() > 5, "{} batches before", sent.len());
    // Other requests are refused with the same clarity, or stored.
    for sent in &mut sent {
        let path = "/api/intake/llm-obs/v2/eval-metric";
        let status = post(&client, &server.url, path, &scores(&sent.trace)).await;
        assert!(matches!(status, Some(202 | 503 | 507)), "{status:?}");
        sent.judged = status == Some(202);
    }
    let otel = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "00f067aa0ba902b7", "name": "chat",
        "startTimeUnixNano": (now_ms() * 1_000_000).to_string(),
        "attributes": [{"key": "gen_ai.prompt", "value": {"stringValue": noise(&mut dice)}}]}]}]}]});
    let status = post(&client, &server.url, "/v1/traces", &otel).await;
    assert!(matches!(status, Some(200 | 503)), "{status:?}");
    let otel_stored = status == Some(200);
    let mut projects = 0;
    for number in 0..20 {
        let project = serde_json::json!({"data": {"type": "projects", "attributes": {
            "name": format!("p{number}"), "description": noise(&mut dice)}}});
        let status = post(&client, &server.url, PROJECTS, &project).await;
        assert!(matches!(status, Some(200 | 503 | 507)), "{status:?}");
        projects += usize::from(status == Some(200));
    }
    // Stored data is still readable.
    let spans = found(&client, &server.url, "@ml_app:full").await;
    assert_all_there(&spans, &sent);
    drop(server);

    let server = Running::start(local(&home, data.path()), "Local backend");
    let spans = found(&client, &server.url, "@ml_app:full").await;
    assert_all_there(&spans, &sent);
    assert_eq!(spans.len(), sent.len() * 5, "no refused span is stored");
    let otel = found(&client, &server.url, "source:otel").await;
    assert_eq!(otel.len(), usize::from(otel_stored));
    let listed = client.get(format!("{}{PROJECTS}", server.url)).send().await;
    let listed: Value = listed.unwrap().json().await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), projects);
    let more = post(
        &client,
        &server.url,
        "/api/v2/llmobs",
        &batch(APP, "more", ""),
    )
    .await;
    assert_eq!(more, Some(202), "the disk has space again");
    let verified = program(&home)
        .args(["local", "verify", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    assert!(verified.status.success());
}

/// The program as an unprivileged user, because the superuser ignores file permissions.
fn unprivileged(home: &TempDir, directory: &TempDir) -> Command {
    let base = program(home);
    let superuser = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !superuser {
        return base;
    }
    let copy = directory.path().join("llmobs-mcp");
    std::fs::copy(cargo_bin("llmobs-mcp"), &copy).unwrap();
    let mut command = Command::new(copy);
    command.uid(65_534).gid(65_534).env_clear();
    for (name, value) in base.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_directory_is_named_and_unchanged() {
    let (home, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    allow(directory.path(), 0o755);
    let data = directory.path().join("data");
    let server = Running::start(local(&home, &data), "Local backend");
    let client = client();
    let status = post(&client, &server.url, "/api/v2/llmobs", &batch(APP, "t", "")).await;
    assert_eq!(status, Some(202));
    drop(server);
    let files = || {
        let entries = std::fs::read_dir(&data).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), entry.metadata().unwrap().len())
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    allow(&data, 0o555);
    for entry in std::fs::read_dir(&data).unwrap() {
        allow(&entry.unwrap().path(), 0o444);
    }
    let mut commands = vec![
        vec!["local", "--listen", "127.0.0.1:0"],
        vec!["call", "search_llmobs_spans", "--local"],
        vec!["local", "stats"],
        vec!["local", "purge", "--older-than", "1"],
    ];
    for arguments in &mut commands {
        let refused = unprivileged(&home, &directory)
            .args(&*arguments)
            .arg("--data-dir")
            .arg(&data)
            .output()
            .unwrap();
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(data.to_str().unwrap()), "{stderr}");
        assert!(stderr.contains("--data-dir"), "{stderr}");
    }
    allow(&data, 0o755);
    for entry in std::fs::read_dir(&data).unwrap() {
        allow(&entry.unwrap().path(), 0o644);
    }
    assert_eq!(files(), before);
    let server = Running::start(local(&home, &data), "Local backend");
    assert_eq!(found(&client, &server.url, "@ml_app:full").await.len(), 5);
}
