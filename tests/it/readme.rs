//! The README's tool section is written by the code.
//!
//! `LLMOBS_MCP_UPDATE_README=1 cargo test readme` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use llmobs_mcp::tools;
use serde_json::Value;

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
