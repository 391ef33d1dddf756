//! A disk that takes no more, and a folder that cannot be written: told clearly, and nothing that
//! was acknowledged is lost.

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

/// The same in a shell that lets no file grow beyond so many blocks. Without the signal that the
/// system sends by default, a write beyond that fails as it does on a full disk.
fn within(blocks: u32, command: &Command) -> Command {
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
async fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
    let (home, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let client = client();
    let mut dice = Dice(7);
    let mut sent = Vec::new();
    let server = Running::start(within(8_000, &local(&home, data.path())), "Local backend");
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
        let told: Value = answer.json().await.unwrap();
        let detail = told["errors"][0]["detail"].as_str().unwrap();
        assert!(
            detail.contains("nothing of this request was kept"),
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
    // What else is sent is refused as clearly, or kept.
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
    let otel_kept = status == Some(200);
    let mut projects = 0;
    for number in 0..20 {
        let project = serde_json::json!({"data": {"type": "projects", "attributes": {
            "name": format!("p{number}"), "description": noise(&mut dice)}}});
        let status = post(&client, &server.url, PROJECTS, &project).await;
        assert!(matches!(status, Some(200 | 503 | 507)), "{status:?}");
        projects += usize::from(status == Some(200));
    }
    // What is there can still be read.
    let spans = found(&client, &server.url, "@ml_app:full").await;
    assert_all_there(&spans, &sent);
    drop(server);

    let server = Running::start(local(&home, data.path()), "Local backend");
    let spans = found(&client, &server.url, "@ml_app:full").await;
    assert_all_there(&spans, &sent);
    assert_eq!(spans.len(), sent.len() * 5, "nothing refused was kept");
    let otel = found(&client, &server.url, "source:otel").await;
    assert_eq!(otel.len(), usize::from(otel_kept));
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
    assert_eq!(more, Some(202), "there is room again");
    let verified = program(&home)
        .args(["local", "verify", "--data-dir"])
        .arg(data.path())
        .output()
        .unwrap();
    assert!(verified.status.success());
}

/// A program run by somebody who may not write: for the superuser no folder is read-only.
fn powerless(home: &TempDir, folder: &TempDir) -> Command {
    let plain = program(home);
    let superuser = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !superuser {
        return plain;
    }
    let copy = folder.path().join("llmobs-mcp");
    std::fs::copy(cargo_bin("llmobs-mcp"), &copy).unwrap();
    let mut command = Command::new(copy);
    command.uid(65_534).gid(65_534).env_clear();
    for (name, value) in plain.get_envs() {
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
async fn a_folder_that_cannot_be_written_is_named_and_left_as_it_is() {
    let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    allow(folder.path(), 0o755);
    let data = folder.path().join("data");
    let server = Running::start(local(&home, &data), "Local backend");
    let client = client();
    let kept = post(&client, &server.url, "/api/v2/llmobs", &batch(APP, "t", "")).await;
    assert_eq!(kept, Some(202));
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
        let refused = powerless(&home, &folder)
            .args(&*arguments)
            .arg("--data-dir")
            .arg(&data)
            .output()
            .unwrap();
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains(data.to_str().unwrap()), "{told}");
        assert!(told.contains("--data-dir"), "{told}");
    }
    allow(&data, 0o755);
    for entry in std::fs::read_dir(&data).unwrap() {
        allow(&entry.unwrap().path(), 0o644);
    }
    assert_eq!(files(), before);
    let server = Running::start(local(&home, &data), "Local backend");
    assert_eq!(found(&client, &server.url, "@ml_app:full").await.len(), 5);
}
