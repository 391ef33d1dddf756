//! Logs: to standard error, never a secret, never a caller's or a trace's text.
//!
//! Only this program's own lines follow the wished level. Libraries stay at warnings however loud
//! the level is: below that, they print whole requests and answers.

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
    // A second start, as in tests, changes nothing.
    let _ = tracing_subscriber::registry()
        .with(filter(level))
        .with(lines)
        .try_init();
    std::panic::set_hook(Box::new(|panic| {
        // The message of a panic may quote data; the place says enough.
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!("a bug in this program, at {place}: please report it");
    }));
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // At warnings the protocol library quotes requests that it refused.
        .with_target("rmcp", level.min(LevelFilter::ERROR))
        // The index merges segments of which some are gone by then; it says so, and goes on.
        .with_target("tantivy", level.min(LevelFilter::ERROR))
        .with_target("llmobs_mcp", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_stay_quiet_however_loud_we_are() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("llmobs_mcp::server", &Level::TRACE));
        assert!(!filter.would_enable("rmcp::service", &Level::WARN));
        assert!(!filter.would_enable("tantivy::indexer::segment_manager", &Level::WARN));
        assert!(filter.would_enable("tantivy::indexer::segment_manager", &Level::ERROR));
        assert!(!filter.would_enable("hyper_util::client", &Level::INFO));
        assert!(filter.would_enable("hyper_util::client", &Level::WARN));
    }

    /// Set in the process that panics, since its hook is the whole process's.
    const PANICS: &str = "LLMOBS_MCP_TEST_PANICS";
    const SECRET: &str = "an-obviously-made-up-secret";

    #[test]
    fn a_panic_is_told_by_its_place_and_never_by_its_words() {
        if std::env::var_os(PANICS).is_some() {
            start(LevelFilter::TRACE);
            let caught = std::panic::catch_unwind(|| panic!("refused: {SECRET}"));
            assert!(caught.is_err());
            return;
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let ran = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(PANICS, "1")
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(ran.status.success(), "{said}");
        assert!(said.contains("a bug in this program, at src"), "{said}");
        assert!(said.contains("logging.rs:"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }

    #[test]
    fn off_is_off() {
        let filter = filter(LevelFilter::OFF);
        assert!(!filter.would_enable("llmobs_mcp", &Level::ERROR));
        assert!(!filter.would_enable("hyper", &Level::ERROR));
    }
}
