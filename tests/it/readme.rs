//! The README's tool section is written by the code, and the answers that it shows are real.
//!
//! `LLMOBS_MCP_UPDATE_README=1 cargo test readme` writes the tool section anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use llmobs_mcp::tools;
use serde_json::Value;

use crate::support::App;

const START: &str = "<!-- tools: written by `LLMOBS_MCP_UPDATE_README=1 cargo test readme` -->";
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

#[test]
fn readme_lists_the_tools_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme
        .split_once(START)
        .expect("the README has a tool section");
    let (_, after) = rest.split_once(END).expect("the tool section ends");
    let wanted = format!("{before}{}{after}", tool_section());
    if std::env::var_os("LLMOBS_MCP_UPDATE_README").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let readme = fs::read_to_string(&path).unwrap();
    assert!(
        readme == wanted,
        "the README's tool section is old: LLMOBS_MCP_UPDATE_README=1 cargo test readme"
    );
}

const EXPERIMENT: &str = "## Analyse an experiment";

/// The calls of a section, each with the answer that stands below it.
fn calls_of(section: &str) -> Vec<(String, Value, Value)> {
    let mut calls = Vec::new();
    let mut blocks = section.split("```").skip(1).step_by(2);
    while let (Some(asked), Some(answer)) = (blocks.next(), blocks.next()) {
        let line = asked.strip_prefix("sh\n").expect("a call").trim();
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

/// What is shown must stand in the answer: members of objects by key, those of lists in order. A
/// member `"…"` stands for what is left out.
fn assert_shown(shown: &Value, answer: &Value, place: &str) {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => {
            for (key, value) in shown.iter().filter(|(key, _)| *key != "…") {
                let found = answer.get(key).unwrap_or(&Value::Null);
                assert_shown(value, found, &format!("{place}.{key}"));
            }
        }
        (Value::Array(shown), Value::Array(answer)) => {
            let whole: Vec<&Value> = shown.iter().filter(|one| *one != "…").collect();
            assert!(
                whole.len() == answer.len() || whole.len() < shown.len(),
                "{place}"
            );
            for (at, value) in whole.into_iter().enumerate() {
                let found = answer.get(at).unwrap_or(&Value::Null);
                assert_shown(value, found, &format!("{place}[{at}]"));
            }
        }
        _ => assert_eq!(shown, answer, "{place}"),
    }
}

#[tokio::test]
async fn the_experiment_of_the_readme_is_that_of_the_demo() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (_, section) = readme.split_once(EXPERIMENT).expect("the section");
    let (section, _) = section.split_once("\n## ").expect("a section after it");
    let calls = calls_of(section);
    assert!(
        calls.len() >= 3,
        "the section shows how an experiment is analysed"
    );
    let app = App::new().demo();
    for (tool, arguments, shown) in calls {
        let answer = app.call(&tool, arguments).await;
        assert_shown(&shown, &answer, &tool);
    }
}
