//! What each trace tool costs on a trace of 2,000 and of 10,000 spans, split into loading the
//! trace, linking it to a tree (once per load), analysing it and rendering the answer; and the peak
//! memory of a call.
//!
//! `cargo bench --bench trace_tools` prints criterion's figures, then a table with the ratio
//! between the two sizes: tree, analysis, the whole call and rendering must grow no faster than six
//! times for five times the spans. The sizes alternate and the fastest of many rounds counts, because other load
//! on the machine can only make a round slower. Quote the ratios; absolute times depend on the
//! machine. A ratio beyond its bound is marked, and the bench exits with 1.
//!
//! Times also depend on caches: 2,000 spans fit into the processor's, 10,000 do not. To count the
//! instructions, run the stages once under Valgrind (`--no-run` prints the path of the binary):
//!
//!     valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*counted_stage*' \
//!         --dump-after='*counted_stage*' target/release/deps/trace_tools-… --stages
//!
//! Each stage leaves a file in the order in which the stages are printed; `totals:` in it is the
//! number of instructions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, SpanSelection, Upstream};
use llmobs_core::analysis::agent_loop::agent_loop;
use llmobs_core::analysis::content::content_info;
use llmobs_core::analysis::errors::{error_spans, soft_errors};
use llmobs_core::analysis::tree::TraceTree;
use llmobs_core::model::TraceId;
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use llmobs_mcp::tools::{self, ToolContext};
use peak_alloc::PeakAlloc;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const NOW_MS: i64 = 1_795_262_400_000;
const SIZES: [usize; 2] = [2_000, 10_000];
const ROUNDS: usize = 40;
/// Rounds of slow stages.
const LOADS: usize = 5;
/// Upper bound of the growth of time for five times the spans.
const LIMIT: f64 = 6.0;
/// Times below this many milliseconds are noise of the clock and the scheduler.
const NOTHING_MS: f64 = 0.05;

/// A coding agent's trace: agents below a workflow, each with alternating model and tool calls, a tool
/// that sometimes fails, and about two kilobytes of content per span.
fn spans(count: usize) -> Vec<Value> {
    let trace = format!("{count:032x}");
    let text = "The test run failed in module parser because the fixture was older. ".repeat(14);
    (0..count)
        .map(|at| {
            let agent = 1 + (at / 40) * 40;
            let (parent, kind) = match at {
                0 => ("undefined".to_owned(), "workflow"),
                at if at % 40 == 1 => ("1".to_owned(), "agent"),
                at => ((agent + 1).to_string(), if at % 2 == 0 { "llm" } else { "tool" }),
            };
            let call = json!([{"name": "run_tests", "arguments": {"n": at}, "tool_id": format!("c{at}")}]);
            let meta = match kind {
                "llm" => json!({"span": {"kind": kind}, "model_name": "m",
                    "input": {"messages": [{"role": "user", "content": text}]},
                    "output": {"messages": [{"role": "assistant", "content": text, "tool_calls": call}]}}),
                _ => json!({"span": {"kind": kind}, "input": {"value": text}, "output": {"value":
                    format!("{{\"isError\": {}, \"text\": \"{text}\"}}", at % 50 == 7)}}),
            };
            json!({"span_id": (at + 1).to_string(), "trace_id": trace, "parent_id": parent,
                "name": format!("step {kind}"), "status": if at % 97 == 9 { "error" } else { "ok" },
                "start_ns": (NOW_MS - 3_600_000 + i64::try_from(at).unwrap()) * 1_000_000,
                "duration": 900_000, "tags": ["ml_app:bench", "env:prod"], "meta": meta,
                "metrics": {"input_tokens": 500, "output_tokens": 60}})
        })
        .collect()
}

struct Bench {
    runtime: Runtime,
    backend: LocalBackend,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        for size in SIZES {
            for batch in spans(size).chunks(500) {
                let body = json!([{"event_type": "span", "spans": batch}]);
                let request = axum::http::Request::post("/api/v2/llmobs")
                    .header("host", "127.0.0.1")
                    .header("content-type", "application/json")
                    .body(axum::body::Body::from(body.to_string()))
                    .unwrap();
                let answer = runtime.block_on(backend.router().oneshot(request)).unwrap();
                assert_eq!(answer.status(), 202);
            }
        }
        Self { runtime, backend }
    }

    /// A client with empty caches.
    fn cold(&self) -> ToolContext {
        let settings = HubSettings {
            structure_life: Duration::from_secs(3_600),
            ..HubSettings::default()
        };
        let transport = Arc::new(RouterTransport(self.backend.router()));
        let hub = Hub::new(Upstream::Local, transport, settings);
        ToolContext {
            client: hub.client(Credential::None, "bench"),
            now_ms: NOW_MS,
        }
    }

    fn call(&self, context: &ToolContext, tool: &str, arguments: &Map<String, Value>) -> String {
        let context = ToolContext {
            client: context.client.for_call(),
            ..context.clone()
        };
        let tool = tools::find(tool).unwrap();
        self.runtime
            .block_on(tool.call(&context, arguments.clone()))
            .unwrap_or_else(|e| panic!("{e:?}"))
    }

    /// What a tool must load: the structure as a tree, and the content it reads.
    fn load(&self, context: &ToolContext, tool: &str, id: &TraceId) -> TraceTree {
        self.runtime.block_on(async {
            let trace = context.client.trace(id, NOW_MS).await.unwrap();
            let ids: Vec<_> = trace
                .tree
                .spans()
                .iter()
                .take(20)
                .map(|s| s.span_id.clone())
                .collect();
            let which = match tool {
                "get_llmobs_trace" | "expand_llmobs_spans" => return trace.tree.clone(),
                "get_llmobs_span_details" | "get_llmobs_span_content" => SpanSelection::Spans(&ids),
                _ => SpanSelection::All,
            };
            let contents = context.client.contents(&trace, which).await.unwrap();
            let structure = trace.tree.spans().iter();
            let spans = structure.map(|span| Arc::clone(contents.with_content(span)));
            trace.tree.with_spans(spans.collect())
        })
    }
}

/// The analysis behind a tool, without loading and rendering.
fn analyse(tool: &str, tree: &TraceTree) {
    match tool {
        "find_llmobs_error_spans" => {
            black_box((error_spans(tree), soft_errors(tree)));
        }
        "get_llmobs_agent_loop" => {
            black_box(agent_loop(tree, None));
        }
        "get_llmobs_span_details" => {
            for span in tree.spans().iter().take(20) {
                black_box(content_info(span));
            }
        }
        _ => {
            black_box((
                tree.kind_counts().clone(),
                tree.depth(),
                tree.errors().len(),
            ));
        }
    }
}

fn arguments(tool: &str, id: &TraceId) -> Map<String, Value> {
    let ids: Vec<String> = (1..=20).map(|id: usize| id.to_string()).collect();
    let value = match tool {
        "get_llmobs_span_details" => json!({"trace_id": id, "span_ids": ids}),
        "get_llmobs_span_content" => json!({"trace_id": id, "span_id": "3", "field": "input"}),
        "expand_llmobs_spans" => json!({"trace_id": id, "span_ids": ["2"], "max_depth": 2}),
        _ => json!({"trace_id": id}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

const TOOLS: [&str; 6] = [
    "get_llmobs_trace",
    "get_llmobs_span_details",
    "get_llmobs_span_content",
    "find_llmobs_error_spans",
    "expand_llmobs_spans",
    "get_llmobs_agent_loop",
];

fn criterion_groups(bench: &Bench, criterion: &mut Criterion) {
    for tool in TOOLS {
        let mut group = criterion.benchmark_group(tool);
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(2));
        for size in SIZES {
            let id = TraceId::from(format!("{size:032x}"));
            let warm = bench.cold();
            bench.load(&warm, tool, &id);
            let arguments = arguments(tool, &id);
            group.bench_function(BenchmarkId::new("loaded", size), |b| {
                b.iter(|| bench.call(&warm, tool, &arguments));
            });
        }
        group.finish();
    }
}

/// One tool on one trace, with and without a loaded trace.
struct Case {
    id: TraceId,
    arguments: Map<String, Value>,
    warm: ToolContext,
    tree: TraceTree,
}

impl Case {
    fn new(bench: &Bench, tool: &str, size: usize) -> Self {
        let id = TraceId::from(format!("{size:032x}"));
        let warm = bench.cold();
        Self {
            arguments: arguments(tool, &id),
            tree: bench.load(&warm, tool, &id),
            id,
            warm,
        }
    }
}

/// The fastest times of one tool on one trace.
#[derive(Clone, Copy)]
struct Times {
    load: Duration,
    tree: Duration,
    analysis: Duration,
    whole: Duration,
}

impl Times {
    const NONE: Self = Self {
        load: Duration::MAX,
        tree: Duration::MAX,
        analysis: Duration::MAX,
        whole: Duration::MAX,
    };

    /// Load, tree, analysis, the whole call on a loaded trace and its rendering in milliseconds.
    /// Rendering is the time of a call without its analysis.
    fn ms(&self) -> [f64; 5] {
        let render = self.whole.saturating_sub(self.analysis);
        [self.load, self.tree, self.analysis, self.whole, render]
            .map(|time| time.as_secs_f64() * 1_000.0)
    }
}

fn measure(bench: &Bench, tool: &str, cases: &[Case; 2]) -> [Times; 2] {
    let mut times = [Times::NONE; 2];
    for round in 0..ROUNDS {
        for (case, fastest) in cases.iter().zip(&mut times) {
            if round < LOADS {
                let cold = bench.cold();
                let load = timed(|| drop(black_box(bench.load(&cold, tool, &case.id))));
                fastest.load = fastest.load.min(load);
            }
            let tree = timed(|| drop(black_box(TraceTree::build(case.tree.spans()))));
            fastest.tree = fastest.tree.min(tree);
            let analysis = timed(|| analyse(tool, &case.tree));
            fastest.analysis = fastest.analysis.min(analysis);
            let whole = timed(|| drop(black_box(bench.call(&case.warm, tool, &case.arguments))));
            fastest.whole = fastest.whole.min(whole);
        }
    }
    times
}

fn peak_mb(bench: &Bench, tool: &str, case: &Case) -> f32 {
    let cold = bench.cold();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage_as_mb();
    bench.call(&cold, tool, &case.arguments);
    MEMORY.peak_usage_as_mb() - before
}

/// Prints the figures; returns whether every ratio is within its bound.
fn table(bench: &Bench) -> bool {
    let mut all_hold = true;
    println!(
        "\n{:<26}{:>8}{:>11}{:>11}{:>13}{:>11}{:>11}{:>10}",
        "tool", "spans", "load ms", "tree ms", "analysis ms", "call ms", "render ms", "peak MB"
    );
    for tool in TOOLS {
        let cases = SIZES.map(|size| Case::new(bench, tool, size));
        let times = measure(bench, tool, &cases).map(|times| times.ms());
        for ((size, case), [load, tree, analysis, call, render]) in
            SIZES.into_iter().zip(&cases).zip(&times)
        {
            let peak = peak_mb(bench, tool, case);
            println!(
                "{tool:<26}{size:>8}{load:>11.2}{tree:>11.3}{analysis:>13.3}{call:>11.3}{render:>11.3}{peak:>10.1}"
            );
        }
        let ratios: [f64; 5] = std::array::from_fn(|at| times[1][at] / times[0][at].max(1e-6));
        let [load, tree, analysis, call, render] = ratios;
        // Loading measures the store; times near zero have no growth. Rendering beside a long
        // analysis is a small difference of two large times, so there the call counts.
        let hidden = (0..2).any(|size| times[size][4] < 0.1 * times[size][2]);
        let last = if hidden { 4 } else { 5 };
        let holds = (1..last).all(|at| ratios[at] <= LIMIT || times[1][at] < NOTHING_MS);
        let render = if hidden {
            "-".to_owned()
        } else {
            format!("{render:.1}x")
        };
        all_hold &= holds;
        println!(
            "{:<34}{load:>10.1}x{tree:>10.1}x{analysis:>12.1}x{call:>10.1}x{render:>11}{:>10}",
            format!("  5 times the spans, at most {LIMIT}"),
            if holds { "pass" } else { "FAIL" }
        );
    }
    all_hold
}

/// A stage whose instructions are counted.
#[inline(never)]
fn counted_stage(name: &str, work: &mut dyn FnMut()) {
    work();
    black_box(name);
}

/// Runs each stage once, for Valgrind.
fn stages(bench: &Bench) {
    for tool in TOOLS {
        for size in SIZES {
            let case = Case::new(bench, tool, size);
            let stage = |name: &str, work: &mut dyn FnMut()| {
                println!("{tool} {size} {name}");
                counted_stage(name, work);
            };
            stage("tree", &mut || {
                drop(black_box(TraceTree::build(case.tree.spans())));
            });
            stage("analysis", &mut || analyse(tool, &case.tree));
            stage("call", &mut || {
                drop(black_box(bench.call(&case.warm, tool, &case.arguments)));
            });
        }
    }
}

fn main() -> ExitCode {
    let bench = Bench::new();
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    if asked("--stages") {
        stages(&bench);
        return ExitCode::SUCCESS;
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&bench, &mut criterion);
    criterion.final_summary();
    // `cargo test --benches` and `cargo bench -- --list` pass other flags.
    if asked("--bench") && !table(&bench) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
