//! The grammar of `local`, its subcommands and `demo`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::address::loopback;
use crate::cli::quantity::{bytes, days};

/// Flags of `local`, and its subcommands.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct LocalArgs {
    /// Without a subcommand it serves
    #[command(subcommand)]
    pub(crate) command: Option<LocalCommand>,
    /// Where to listen [default: 127.0.0.1:8126, the Agent's address, or a free port if it is in use]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
    /// Second address for OpenTelemetry traces, at /v1/traces; without a value, the default of
    /// exporters: 127.0.0.1:4318
    #[arg(long, value_name = "ADDR", value_parser = loopback, num_args = 0..=1,
        default_missing_value = "127.0.0.1:4318")]
    pub(crate) otlp_listen: Option<SocketAddr>,
    /// Enforce Datadog's limits on ingest: refuse spans and evaluations older than 24 hours, drop
    /// input and output of spans of 5 MB and more [default: any age, any size that fits a request].
    /// The limits on search always apply: 10 spans a page by default and 5,000 at most, 50 MB a page,
    /// the last 15 minutes by default
    #[arg(long)]
    pub(crate) datadog_limits: bool,
    /// Remove spans that started more than DAYS days ago [default: keep all]
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) retain_days: Option<Duration>,
    /// Remove the oldest spans while the store is larger than SIZE, such as 500MB or 20GB
    /// [default: keep all]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) retain_bytes: Option<u64>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where MCP listens [default: 127.0.0.1:8787, or the next free port]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) http: Option<SocketAddr>,
    /// Where the local backend listens [default: 127.0.0.1:8126, or a free port if it is in use]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
}

/// Subcommands on the data of the local backend. Each opens the data directory, or works through the
/// process that owns it.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Show the number of spans and the size on disk
    Stats(StatsArgs),
    /// Remove old spans permanently, with their content and evaluations
    Purge(PurgeArgs),
    /// Rebuild the search index from the data
    Reindex(ReindexArgs),
    /// Check that all data is complete and readable
    Verify(VerifyArgs),
    /// Write spans and evaluations to a file, one JSON object per line
    Export(ExportArgs),
    /// Read exported files into the store
    Import(ImportArgs),
}

/// Flags of `local stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `local purge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp local purge --older-than 30
  llmobs-mcp local purge --down-to 2GB

Both flags can be combined. Experiments lose the runs of removed spans; their summaries stay.
`local --retain-days 30` removes old spans continuously.")]
pub(crate) struct PurgeArgs {
    /// Remove spans that started more than DAYS days ago
    #[arg(long, value_name = "DAYS", value_parser = days, required_unless_present = "down_to")]
    pub(crate) older_than: Option<Duration>,
    /// Remove the oldest spans until the store is no larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) down_to: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `local reindex`.
#[derive(Debug, Args)]
pub(crate) struct ReindexArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `local verify`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 no faults, 1 faults were found.")]
pub(crate) struct VerifyArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `local export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp local export traces.ndjson.gz
  llmobs-mcp local export - | wc -l

Each line is a complete request body of Datadog's HTTP API: send those of type `span` to
/api/intake/llm-obs/v1/trace/spans, those of type `evaluation_metric` to
/api/intake/llm-obs/v2/eval-metric. Projects, datasets and experiments are not exported.

To resume an interrupted export to a file, run the same command again.")]
pub(crate) struct ExportArgs {
    /// A new file, compressed if its name ends in .gz; `-` for standard output
    pub(crate) file: PathBuf,
    /// Print JSON when done
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `local import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp local import traces.ndjson.gz
  zcat traces.ndjson.gz | llmobs-mcp local import -

Imported spans replace spans with the same ids, so repeating an import changes nothing.
Malformed lines are reported by line number, the others are imported, and the exit code is 1.
To resume an interrupted import of a file, run the same command again.")]
pub(crate) struct ImportArgs {
    /// Files written by `export`, plain or gzip; `-` for standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print JSON when done
    #[arg(long)]
    pub(crate) json: bool,
}
