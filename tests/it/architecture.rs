//! The walls of ARCHITECTURE.md that a test can hold.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the ground up, as `src/lib.rs` lists them.
const ROOMS: [&str; 11] = [
    "model", "query", "analysis", "html", "datadog", "local", "render", "authz", "tools", "server",
    "cli",
];

fn files_of(room: &str) -> Vec<PathBuf> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![src.join(format!("{room}.rs"))];
    visit(&src.join(room), &mut found);
    found.retain(|file| !is_test_file(file));
    found
}

/// Files that only tests are made of: modules that their parent declares below `#[cfg(test)]`.
fn is_test_file(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let folder = file.parent().unwrap();
    let in_tests = file.components().any(|part| part.as_os_str() == "tests");
    in_tests
        || name == "tests"
        || fs::read_to_string(folder.with_extension("rs"))
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
fn a_room_imports_only_from_rooms_below_it() {
    let mut broken = Vec::new();
    for (height, room) in ROOMS.iter().enumerate() {
        for file in files_of(room) {
            for line in product_lines(&file) {
                for above in &ROOMS[height + 1..] {
                    if line.contains(&format!("crate::{above}::"))
                        || line.contains(&format!("crate::{above};"))
                    {
                        broken.push(format!("{}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "a room imports from one above it:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_mcp_side_never_reaches_into_the_store() {
    for room in ["authz", "tools", "server"] {
        for file in files_of(room) {
            for line in product_lines(&file) {
                assert!(!line.contains("local::store"), "{}: {line}", file.display());
            }
        }
    }
}

#[test]
fn pure_rooms_do_no_io_and_read_no_clock() {
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
    for room in ["model", "query", "analysis", "render"] {
        for file in files_of(room) {
            for line in product_lines(&file) {
                for word in forbidden {
                    assert!(!line.contains(word), "{}: {}", file.display(), line.trim());
                }
            }
        }
    }
}

#[test]
fn every_file_says_why_it_exists() {
    for room in ROOMS {
        for file in files_of(room) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//!"),
                "{} opens without a `//!`",
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
                "{} has {lines} lines: two rooms would be clearer",
                file.display()
            );
        }
    }
}
