//! The log of tool calls.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Map, json};
use tracing_subscriber::fmt::MakeWriter;

use super::support::{Recorder, local};
use crate::server::{McpServer, Outcome, ToolFilter};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The value of a field in a line such as `tool_call{tool="x" call_id=1}`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{name}=")).expect("a field");
    rest.split([' ', '}', ':']).next().unwrap_or_default()
}

#[tokio::test]
async fn span_ties_log_lines_of_a_call_together() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = McpServer::new(local(&Arc::<Recorder>::default()), ToolFilter::default());
    let scope = server.default_scope();
    for _ in 0..2 {
        let mut arguments = Map::new();
        arguments.insert("limit".to_owned(), json!(1));
        let outcome = server
            .call("search_llmobs_spans", arguments, &scope, "test-caller")
            .await;
        assert!(matches!(outcome, Outcome::Answer(_)), "{outcome:?}");
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).expect("text");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("outcome="))
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in &lines {
        assert!(line.contains("tool_call{"), "{line}");
        assert_eq!(field(line, "tool"), "\"search_llmobs_spans\"");
        assert_eq!(field(line, "caller"), "\"test-caller\"");
    }
    assert_ne!(field(lines[0], "call_id"), field(lines[1], "call_id"));
}
