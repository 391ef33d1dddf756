//! Names, messages and documents are in plain technical English: none of them contains a word or
//! phrase of the list below. CONTRIBUTING.md has the glossary of the words to use instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use llmobs_mcp::tools;
use serde_json::json;

/// Archaic, poetic and private words and phrases. Identifiers are split at `_` and at capitals, so
/// `take_in` and `TakeIn` count as `take in`.
const BANNED: &[&str] = &[
    "mend", "mends", "mended", "mending", "anew", "whoever", "whomever", "nobody", "somebody",
    "is over", "goes on", "go on behind", "going on behind", "takes in", "taken in", "take in",
    "taking in", "stands in", "stand in", "stands for", "standing in", "told apart", "tell apart",
    "so many", "lends", "lent", "bears", "at hand", "for want of", "whichever way", "thereby",
    "hereby", "herein", "stranger", "strangers", "folder", "folders", "of old", "for ever",
    "wherever", "tend", "tends", "heeds", "minds only", "is gone", "are gone", "gives back",
    "give back", "comes of it", "came of it",
];

/// Where a banned phrase is a quotation or the wire form of another program: path suffix, phrase.
const EXCEPTIONS: &[(&str, &str)] = &[
    // This list.
    ("tests/it/language.rs", ""),
    // Wire names.
    ("src/retention.rs", "give back"),
    ("src/api/maintenance.rs", "folder"),
    ("src/cli/local/stats.rs", "folder"),
    // Texts of recorded traces.
    ("fixtures/apps/code_agent.py", "folder"),
    ("fixtures/apps/docs_assistant.py", "folder"),
    ("fixtures/apps/docs_assistant.py", "stands in"),
];

/// Directories that hold no text of this project.
const SKIPPED: &[&str] = &[
    "target", ".git", "node_modules", ".venv", ".venv-lapdog", "snapshots", "captures", "demo",
    "__pycache__", ".pytest_cache",
];

const EXTENSIONS: &[&str] = &["rs", "md", "py", "mjs", "js", "sh", "toml", "yml", "css"];

/// Lower-case words of a text, separated by single spaces, with identifiers split into words.
fn normalise(text: &str) -> String {
    let mut words = String::from(" ");
    let mut previous_is_lower = false;
    for c in text.chars() {
        let starts_word = c.is_uppercase() && previous_is_lower;
        if (starts_word || !c.is_alphanumeric()) && !words.ends_with(' ') {
            words.push(' ');
        }
        if c.is_alphanumeric() {
            words.extend(c.to_lowercase());
        }
        previous_is_lower = c.is_lowercase() || c.is_numeric();
    }
    words.push(' ');
    words
}

fn phrases_in(text: &str) -> Vec<&'static str> {
    let words = normalise(text);
    BANNED
        .iter()
        .copied()
        .filter(|phrase| words.contains(&format!(" {phrase} ")))
        .collect()
}

fn files_below(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                files_below(&path, files);
            }
        } else if EXTENSIONS
            .iter()
            .any(|extension| name.ends_with(&format!(".{extension}")))
            || name == "run"
        {
            files.push(path);
        }
    }
}

#[test]
fn sources_and_documents_contain_no_banned_phrase() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    files_below(root, &mut files);
    assert!(files.len() > 300, "only {} files found", files.len());
    let mut violations = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for phrase in phrases_in(line) {
                let is_exception = EXCEPTIONS.iter().any(|(suffix, allowed)| {
                    name.ends_with(suffix) && (allowed.is_empty() || *allowed == phrase)
                });
                if !is_exception {
                    violations.push(format!("{name}:{}: {phrase}", number + 1));
                }
            }
        }
    }
    assert!(
        violations.is_empty(),
        "{} banned phrases:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn tool_list_contains_no_banned_phrase() {
    for tool in tools::all() {
        let text = json!([tool.title, tool.description, tool.input_schema()]).to_string();
        assert_eq!(phrases_in(&text), Vec::<&str>::new(), "{}", tool.name);
    }
}

#[test]
fn help_contains_no_banned_phrase() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_llmobs-mcp"))
            .args(arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let commands_of = |text: &str| -> Vec<String> {
        let (_, list) = text.split_once("\nCommands:\n").unwrap_or_default();
        list.lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let top = help(&[]);
    let mut pending: Vec<Vec<String>> = commands_of(&top).into_iter().map(|name| vec![name]).collect();
    assert!(pending.len() > 8, "{pending:?}");
    assert_eq!(phrases_in(&top), Vec::<&str>::new());
    while let Some(path) = pending.pop() {
        let arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        let text = help(&arguments);
        assert_eq!(phrases_in(&text), Vec::<&str>::new(), "{path:?}");
        for name in commands_of(&text) {
            pending.push([path.clone(), vec![name]].concat());
        }
    }
}

#[test]
fn identifiers_are_split_into_words() {
    assert_eq!(normalise("fn take_in(TakeIn, x2)"), " fn take in take in x2 ");
    assert_eq!(phrases_in("let_takes_in, TakenIn"), ["takes in", "taken in"]);
    assert_eq!(phrases_in("recommend intake standstill"), Vec::<&str>::new());
}
