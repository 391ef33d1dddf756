//! The local store with many spans: ingest, searches, groups and look-ups over HTTP.
//!
//! ```text
//! cargo bench --bench store                                  20,000 spans, a minute
//! cargo bench --bench store -- --spans 1000000 --write       also writes docs/benchmarks.md
//! cargo bench --bench store -- --export FILE --spans 50000   only writes the spans, one JSON document a line
//! ```
//!
//! The backend runs in a separate process on an empty data directory with full durability; the
//! client uses a socket. Bodies are generated before the measurement, and every response is
//! checked against counts taken while the spans are generated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs
)]

mod bodies;
mod generator;
mod ingest;
mod measure;
mod questions;
mod report;
mod server;
mod words;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Runtime;

use bodies::Data;
use generator::{Facts, Generator};
use ingest::{Ingest, run_direct, send};
use measure::{OtherLoad, Times, ask, ask_often};
use questions::Question;
use report::{Figure, Report, Timed, grouped};
use server::Server;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Upper bound of spans that are written to the store directly: they are decoded in memory.
const DIRECT: usize = 200_000;
/// How often the store is opened.
const OPENINGS: usize = 11;

/// Measures the local store.
#[derive(Debug, Parser)]
struct Arguments {
    /// Spans in the store.
    #[arg(long, default_value_t = 20_000)]
    spans: usize,
    /// How often each search is repeated.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Time limit for the repetitions of a search, in seconds.
    #[arg(long, default_value_t = 20)]
    cap: u64,
    /// Write the section of docs/benchmarks.md.
    #[arg(long)]
    write: bool,
    /// Write the spans to a file, one JSON document a line, and the expected counts beside it.
    #[arg(long)]
    export: Option<PathBuf>,
    /// Where the data is stored; it is removed at the end.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    directory: PathBuf,
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
    #[arg(long, hide = true, num_args = 2)]
    direct: Option<Vec<PathBuf>>,
    /// Set by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() {
    let arguments = Arguments::parse();
    let unwanted = |filter: &String| !"store".contains(filter.as_str());
    if let Some(directory) = &arguments.serve {
        server::serve_directory(directory);
    } else if let Some([from, to]) = arguments.direct.as_deref() {
        ingest::direct(from, to, arguments.spans);
    } else if let Some(file) = &arguments.export {
        export(file, arguments.spans);
    } else if arguments.bench && !arguments.filter.as_ref().is_some_and(unwanted) {
        let report = Run::new(&arguments).report();
        report.print();
        if arguments.write {
            report.write();
        }
    }
}

fn export(file: &Path, spans: usize) {
    let mut generator = Generator::new(spans);
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    for span in generator.spans(spans) {
        writeln!(out, "{span}").unwrap();
    }
    out.flush().unwrap();
    let facts = serde_json::to_vec_pretty(&generator.facts).unwrap();
    std::fs::write(format!("{}.facts.json", file.display()), facts).unwrap();
}

/// One run, from the empty directory to the report.
struct Run<'a> {
    arguments: &'a Arguments,
    runtime: Runtime,
    data: Data,
    store: PathBuf,
    directory: tempfile::TempDir,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments) -> Self {
        let directory = tempfile::tempdir_in(&arguments.directory).unwrap();
        tell("making the spans");
        let data = Data::make(directory.path(), arguments.spans);
        let facts = &data.facts;
        tell(&format!(
            "{} spans in {} traces, {} bytes each, {} evaluations",
            facts.spans,
            facts.traces,
            facts.bytes / facts.spans as u64,
            facts.evaluations
        ));
        Self {
            arguments,
            runtime: Runtime::new().unwrap(),
            data,
            store: directory.path().join("data"),
            directory,
        }
    }

    fn report(&self) -> Report {
        let load = OtherLoad::start();
        let mut figures = Vec::new();
        let server = Server::start(&self.store);
        let spans = self.ingest(&server, &mut figures);
        server.settle();
        let mut timed = self.quiet(&server);
        let mut peak = server.peak_memory();
        drop(server);
        let disk = size_of(&self.store);
        self.direct(&spans, &mut figures);
        self.openings(&mut figures);
        let server = Server::start(&self.store);
        self.busy(&server, &mut timed, &mut figures);
        peak = peak.max(server.peak_memory());
        drop(server);
        figures.push(figure(
            "disk",
            format!("{:.2} GB", disk as f64 / 1e9),
            "",
            None,
        ));
        figures.push(figure(
            "peak resident memory, without mapped files",
            format!("{} MB", peak / 1_000_000),
            "600 MB",
            Some(peak < 600_000_000),
        ));
        Report {
            spans: self.arguments.spans,
            figures,
            timed,
            other_load: load.cores(),
        }
    }

    fn ingest(&self, server: &Server, figures: &mut Vec<Figure>) -> Ingest {
        tell("sending the spans");
        let spans = self.runtime.block_on(send(&server.url, &self.data.spans));
        let rate = spans.rate();
        figures.push(figure(
            "durable ingest over HTTP, spans a second",
            grouped(rate as usize),
            "8,000",
            Some(rate >= 8_000.0),
        ));
        let acks = Times::new(spans.ack_ms());
        figures.push(figure(
            "acknowledgement of 500 spans, p50 / p99, ms",
            format!("{:.0} / {:.0}", acks.median(), acks.percentile(99)),
            "",
            None,
        ));
        tell("sending the evaluations");
        let evaluations = self
            .runtime
            .block_on(send(&server.url, &self.data.evaluations));
        figures.push(figure(
            "durable ingest of evaluations, a second",
            grouped(evaluations.rate() as usize),
            "",
            None,
        ));
        spans
    }

    fn direct(&self, spans: &Ingest, figures: &mut Vec<Figure>) {
        tell("putting spans into a store directly");
        let count = self.arguments.spans.min(DIRECT);
        let directory = self.directory.path().join("direct");
        std::fs::create_dir(&directory).unwrap();
        let direct = run_direct(&self.store, &directory, count);
        std::fs::remove_dir_all(directory).unwrap();
        let http = spans.rate_of_first(count);
        figures.push(figure(
            "the store called directly, spans a second",
            grouped(direct.rate as usize),
            "",
            None,
        ));
        let share = http / direct.rate;
        figures.push(figure(
            "over HTTP, of the store called directly",
            format!("{:.0} %", share * 100.0),
            "70 %",
            Some(share >= 0.7),
        ));
        figures.push(figure(
            "until the index has everything acknowledged, ms",
            format!("{:.0}", direct.caught_up_ms),
            "",
            None,
        ));
        figures.push(figure(
            "building the index again, spans a second",
            grouped(direct.rebuild_rate as usize),
            "",
            None,
        ));
    }

    fn openings(&self, figures: &mut Vec<Figure>) {
        tell("opening the store");
        let times = (0..OPENINGS).map(|_| Server::start(&self.store).open_ms);
        let median = Times::new(times.collect()).median();
        figures.push(figure(
            "opening the store, ms",
            format!("{median:.0}"),
            "1,000",
            Some(median < 1_000.0),
        ));
    }

    /// All searches one after the other, without other load.
    fn quiet(&self, server: &Server) -> Vec<Timed> {
        let cap = Duration::from_secs(self.arguments.cap);
        self.runtime.block_on(async {
            let client = datadog_llmobs::http_client().build().unwrap();
            check_counts(&client, &server.url, &self.data.facts).await;
            let mut timed = Vec::new();
            for question in questions(&client, &server.url, &self.data.facts).await {
                tell(question.name);
                let rounds = self.arguments.rounds;
                let (quiet, verdict) =
                    ask_often(&client, &server.url, &question, rounds, cap).await;
                timed.push(Timed {
                    name: question.name,
                    target_ms: question.target_ms,
                    quiet,
                    busy: Times::default(),
                    verdict,
                });
            }
            timed
        })
    }

    /// Runs all searches repeatedly while spans are sent at full speed.
    fn busy(&self, server: &Server, timed: &mut [Timed], figures: &mut Vec<Figure>) {
        tell("asking while spans are being sent");
        let ingest = self.runtime.block_on(async {
            let client = datadog_llmobs::http_client().build().unwrap();
            let questions = questions(&client, &server.url, &self.data.facts).await;
            let url = server.url.clone();
            let further = self.data.further.clone();
            let sending = tokio::spawn(async move { send(&url, &further).await });
            let mut times = vec![Vec::new(); questions.len()];
            'sending: loop {
                for (question, times) in questions.iter().zip(&mut times) {
                    if sending.is_finished() {
                        break 'sending;
                    }
                    times.push(ask(&client, &server.url, question).await.1);
                }
            }
            for (row, times) in timed.iter_mut().zip(times) {
                row.busy = Times::new(times);
            }
            sending.await.unwrap()
        });
        figures.push(figure(
            "ingest while questions are asked, spans a second",
            grouped(ingest.rate() as usize),
            "",
            None,
        ));
    }
}

/// The searches; the cursor of the second is taken from a response to the first.
async fn questions(client: &reqwest::Client, url: &str, facts: &Facts) -> Vec<Question> {
    let newest = questions::newest();
    let (answer, _) = ask(client, url, &newest).await;
    let mut all = vec![newest, questions::next_page(&answer)];
    all.extend(questions::others(facts));
    all
}

/// Panics if the store does not find the generated spans.
async fn check_counts(client: &reqwest::Client, url: &str, facts: &Facts) {
    for (question, right) in questions::counts(facts) {
        let (answer, _) = ask(client, url, &question).await;
        if answer["sampled"] == true {
            tell("a count ran out of time and was not checked");
            continue;
        }
        let query = &question.body["query"];
        assert_eq!(answer["total"]["count"], right, "{query}");
    }
}

fn figure(name: &'static str, value: String, target: &str, met: Option<bool>) -> Figure {
    Figure {
        name,
        value,
        target: target.to_owned(),
        met,
    }
}

/// The size of the files in a directory, in bytes.
fn size_of(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            found if found.is_dir() => size_of(&entry.path()),
            found => found.len(),
        })
        .sum()
}

fn tell(what: &str) {
    eprintln!("{what} …");
}
