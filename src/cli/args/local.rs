//! The grammar of what `local` does besides serving.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::settings::{bytes, days};

/// What can be done with the data of the local backend. Each works on the data itself, or through
/// the process that holds them.
#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Say how much is kept and how much room it takes
    Stats(StatsArgs),
    /// Remove old spans for good, with their content and evaluations
    Purge(PurgeArgs),
    /// Build the search index anew from the data
    Reindex(ReindexArgs),
    /// Check that everything kept is there and can be read
    Verify(VerifyArgs),
    /// Write spans and evaluations to a file, a line of JSON each
    Export(ExportArgs),
    /// Read such files into the store
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

Both may be given. Experiments lose the runs whose spans go; their summaries stay.
`local --retain-days 30` does it all the time.")]
pub(crate) struct PurgeArgs {
    /// Spans that began more than so many days ago
    #[arg(long, value_name = "DAYS", value_parser = days, required_unless_present = "down_to")]
    pub(crate) older_than: Option<Duration>,
    /// The oldest spans, until the store holds no more than this
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
#[command(after_help = "Exit codes: 0 nothing is wrong, 1 something is.")]
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

Each line is a whole body of Datadog's HTTP API: those of type `span` can be sent to
/api/intake/llm-obs/v1/trace/spans, those of type `evaluation_metric` to
/api/intake/llm-obs/v2/eval-metric. Projects, datasets and experiments are not in it.

An export to a file that was broken off goes on where it was when it is run again.")]
pub(crate) struct ExportArgs {
    /// Where to: a new file, compressed if it ends in .gz; `-` for standard output
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

What is there already is replaced by what comes, so that the same import again changes nothing.
A line that cannot be read is told with its number, the others are kept, and the exit code is 1.
An import of a file that was broken off goes on where it was when it is run again.")]
pub(crate) struct ImportArgs {
    /// Files as `export` writes them, plain or gzip; `-` for standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print JSON when done
    #[arg(long)]
    pub(crate) json: bool,
}
