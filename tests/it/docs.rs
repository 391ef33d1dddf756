//! `docs/tools.md` is generated from the tools, and the answers in `docs/experiments.md` are real.
//!
//! `LLMOBS_MCP_UPDATE_DOCS=1 cargo test --test it docs` rewrites the tool list.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use llmobs_mcp::tools;
use serde_json::Value;

use crate::support::App;

const START: &str =
    "<!-- tools: written by `LLMOBS_MCP_UPDATE_DOCS=1 cargo test --test it docs` -->";
const END: &str = "<!-- end of tools -->";

fn tool_section() -> String {
    let mut text = format!("{START}\n\n");
    for tool in tools::all() {
        let schema = tool.input_schema();
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let arguments: Vec<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "telemetry")
            .map(|key| {
                if required.contains(&key.as_str()) {
                    format!("**{key}**")
                } else {
                    key.clone()
                }
            })
            .collect();
        writeln!(text, "- **`{}`** — {}", tool.name, tool.description).unwrap();
        writeln!(text, "  Arguments: {}.", arguments.join(", ")).unwrap();
    }
    text.push_str("\nArguments in bold are required.\n\n");
    text.push_str(END);
    text
}

fn repository_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn tool_reference_matches_the_tools() {
    let path = repository_file("docs/tools.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(START).expect("the start marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let expected = format!("{before}{}{after}", tool_section());
    if std::env::var_os("LLMOBS_MCP_UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == expected,
        "docs/tools.md is outdated: run LLMOBS_MCP_UPDATE_DOCS=1 cargo test --test it docs"
    );
}

#[test]
fn readme_has_at_most_150_lines() {
    let readme = fs::read_to_string(repository_file("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(
        lines <= 150,
        "README.md has {lines} lines; move details to docs/"
    );
}

#[test]
fn links_between_documents_lead_to_files() {
    let mut documents = vec![repository_file("README.md")];
    for name in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ] {
        documents.push(repository_file(name));
    }
    for directory in ["docs", "docs/internals", "examples"] {
        for entry in fs::read_dir(repository_file(directory))
            .into_iter()
            .flatten()
        {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    let mut missing = Vec::new();
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let target = target.split('#').next().unwrap();
            let external = target.starts_with("http") || target.is_empty();
            if !external && !document.parent().unwrap().join(target).exists() {
                missing.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "links to missing files:\n{}",
        missing.join("\n")
    );
}

/// The calls in a document, each with the answer shown below it.
fn calls_in(document: &str) -> Vec<(String, Value, Value)> {
    let mut calls = Vec::new();
    let mut blocks = document.split("```").skip(1).step_by(2);
    while let (Some(call), Some(answer)) = (blocks.next(), blocks.next()) {
        let line = call.strip_prefix("sh\n").expect("a call").trim();
        let mut words = line
            .strip_prefix("call ")
            .expect("a call")
            .split_whitespace();
        let tool = words.next().unwrap().to_owned();
        let arguments = words.map(|word| {
            let (key, value) = word.split_once('=').expect("key=value");
            (key.to_owned(), Value::from(value))
        });
        let shown = answer.strip_prefix("json\n").expect("an answer");
        let shown = serde_json::from_str(shown).unwrap_or_else(|e| panic!("{shown}: {e}"));
        calls.push((tool, arguments.collect(), shown));
    }
    calls
}

/// Checks that an answer contains what a document shows: members of objects by key, members of
/// lists in order. A member `"…"` marks an omission.
fn assert_shown(shown: &Value, answer: &Value, path: &str) {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => {
            for (key, value) in shown.iter().filter(|(key, _)| *key != "…") {
                let value_in_answer = answer.get(key).unwrap_or(&Value::Null);
                assert_shown(value, value_in_answer, &format!("{path}.{key}"));
            }
        }
        (Value::Array(shown), Value::Array(answer)) => {
            let items: Vec<&Value> = shown.iter().filter(|one| *one != "…").collect();
            assert!(
                items.len() == answer.len() || items.len() < shown.len(),
                "{path}"
            );
            for (at, value) in items.into_iter().enumerate() {
                let value_in_answer = answer.get(at).unwrap_or(&Value::Null);
                assert_shown(value, value_in_answer, &format!("{path}[{at}]"));
            }
        }
        _ => assert_eq!(shown, answer, "{path}"),
    }
}

#[tokio::test]
async fn experiment_example_shows_answers_of_the_demo() {
    let text = fs::read_to_string(repository_file("docs/experiments.md")).unwrap();
    let calls = calls_in(&text);
    assert!(calls.len() >= 3, "the example shows at least three calls");
    let app = App::new().demo();
    for (tool, arguments, shown) in calls {
        let answer = app.call(&tool, arguments).await;
        assert_shown(&shown, &answer, &tool);
    }
}
