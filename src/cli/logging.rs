//! Logs go to standard error. They never hold secrets or text from callers or traces.
//!
//! The level applies to this program's crates only. Libraries log warnings at most: below that level
//! they print complete requests and responses.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging at this level, once per process.
pub(crate) fn start(level: LevelFilter) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(level >= LevelFilter::DEBUG);
    // A second start, as in tests, has no effect.
    let _ = tracing_subscriber::registry()
        .with(filter(level))
        .with(lines)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        // The message of a panic may quote data, so the log holds the location only.
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!("a bug in this program, at {location}: please report it");
    }));
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // The warnings of the protocol library quote requests that it refused.
        .with_target("rmcp", level.min(LevelFilter::ERROR))
        // Merging segments that are already deleted is harmless, but logs a warning.
        .with_target("tantivy", level.min(LevelFilter::ERROR))
        .with_targets(OUR_CRATES.map(|name| (name, level)))
}

/// The crates of this program.
const OUR_CRATES: [&str; 6] = [
    "llmobs_mcp",
    "llmobs_core",
    "datadog_llmobs",
    "llmobs_authz",
    "llmobs_local",
    "llmobs_sqlite",
];

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn level_applies_to_our_crates_only() {
        let filter = filter(LevelFilter::TRACE);
        for name in OUR_CRATES {
            assert!(filter.would_enable(&format!("{name}::module"), &Level::TRACE));
        }
        assert!(!filter.would_enable("rmcp::service", &Level::WARN));
        assert!(!filter.would_enable("tantivy::indexer::segment_manager", &Level::WARN));
        assert!(filter.would_enable("tantivy::indexer::segment_manager", &Level::ERROR));
        assert!(!filter.would_enable("hyper_util::client", &Level::INFO));
        assert!(filter.would_enable("hyper_util::client", &Level::WARN));
    }

    /// Set in the child process that panics: a panic hook is global to its process.
    const PANICS: &str = "LLMOBS_MCP_TEST_PANICS";
    const SECRET: &str = "an-obviously-made-up-secret";

    #[test]
    fn panic_log_names_location_and_hides_message() {
        if std::env::var_os(PANICS).is_some() {
            start(LevelFilter::TRACE);
            let caught = std::panic::catch_unwind(|| panic!("refused: {SECRET}"));
            assert!(caught.is_err());
            return;
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .unwrap();
        let output = [done.stdout, done.stderr].concat();
        let output = String::from_utf8_lossy(&output);
        assert!(done.status.success(), "{output}");
        assert!(output.contains("a bug in this program, at src"), "{output}");
        assert!(output.contains("logging.rs:"), "{output}");
        assert!(!output.contains(SECRET), "{output}");
    }

    #[test]
    fn off_disables_every_target() {
        let filter = filter(LevelFilter::OFF);
        assert!(!filter.would_enable("llmobs_mcp", &Level::ERROR));
        assert!(!filter.would_enable("hyper", &Level::ERROR));
    }
}
