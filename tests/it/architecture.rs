//! The invariants of ARCHITECTURE.md that a test can check.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the root crate from the bottom up, as `src/lib.rs` lists them.
const MODULES: [&str; 4] = ["render", "tools", "server", "cli"];

/// The source directories of all crates.
pub(crate) const SOURCES: [&str; 7] = [
    "src",
    "crates/llmobs-core/src",
    "crates/llmobs-sqlite/src",
    "crates/datadog-llmobs/src",
    "crates/llmobs-authz/src",
    "crates/llmobs-local/src",
    "crates/llmobs-datadog-double/src",
];

/// The product files in a directory, with all below it.
fn files_below(directory: &str) -> Vec<PathBuf> {
    fn visit(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    visit(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(directory),
        &mut files,
    );
    files.retain(|file| !is_test_file(file));
    assert!(!files.is_empty(), "no source files in {directory}");
    files
}

/// The product files of a module of the root crate.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = files_below(&format!("src/{module}"));
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{module}.rs")));
    files
}

/// Files that only tests are made of: modules that their parent declares below `#[cfg(test)]`.
fn is_test_file(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let directory = file.parent().unwrap();
    let in_tests = file.components().any(|part| part.as_os_str() == "tests");
    in_tests
        || name == "tests"
        || fs::read_to_string(directory.with_extension("rs"))
            .is_ok_and(|parent| parent.contains(&format!("#[cfg(test)]\nmod {name};")))
}

/// The lines of a file before its tests, without comments.
fn product_lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn modules_import_only_from_those_below_them() {
    let mut violations = Vec::new();
    for (height, module) in MODULES.iter().enumerate() {
        for file in files_of(module) {
            for line in product_lines(&file) {
                for above in &MODULES[height + 1..] {
                    if line.contains(&format!("crate::{above}::"))
                        || line.contains(&format!("crate::{above};"))
                    {
                        violations.push(format!("{}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(
        violations.is_empty(),
        "a module imports from one above it:\n{}",
        violations.join("\n")
    );
}

#[test]
fn tools_and_server_do_not_use_the_backend() {
    for module in ["tools", "server"] {
        for file in files_of(module) {
            for line in product_lines(&file) {
                assert!(!line.contains("llmobs_local"), "{}: {line}", file.display());
            }
        }
    }
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "tokio::",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "rand::",
        "reqwest",
        "println!",
        "eprintln!",
    ];
    let mut files = files_below("crates/llmobs-core/src");
    files.extend(files_of("render"));
    for file in files {
        for line in product_lines(&file) {
            for word in forbidden {
                assert!(!line.contains(word), "{}: {}", file.display(), line.trim());
            }
        }
    }
}

#[test]
fn files_have_a_header_and_at_most_600_lines() {
    for source in SOURCES {
        for file in files_below(source) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//!"),
                "{} has no `//!` header",
                file.display()
            );
            let lines = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap()
                .lines()
                .count();
            assert!(
                lines <= 600,
                "{} has {lines} lines without tests; split it",
                file.display()
            );
        }
    }
}
