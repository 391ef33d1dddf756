//! What each trace tool costs on a trace of 2,000 and of 10,000 spans, split into loading the
//! trace, analysing it and rendering the answer; and the most memory that a call takes.
//!
//! `cargo bench --bench trace_tools` prints criterion's figures, then a table of medians with the
//! ratio between the two sizes: analysis and rendering must grow no faster than six times for five
//! times the spans. Quote the ratios; absolute times are those of the machine.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use llmobs_mcp::analysis::agent_loop::agent_loop;
use llmobs_mcp::analysis::content::content_info;
use llmobs_mcp::analysis::errors::{error_spans, soft_errors};
use llmobs_mcp::analysis::tree::TraceTree;
use llmobs_mcp::datadog::{Credential, Hub, HubSettings, RouterTransport, Upstream, Which};
use llmobs_mcp::local::{DataDir, LocalBackend, LocalOptions};
use llmobs_mcp::model::{Span, TraceId};
use llmobs_mcp::tools::{self, ToolContext};
use peak_alloc::PeakAlloc;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const NOW_MS: i64 = 1_795_262_400_000;
const SIZES: [usize; 2] = [2_000, 10_000];
const ROUNDS: usize = 15;

/// A coding agent's trace: agents below a workflow, each with model and tool calls in turn, a tool
/// that fails now and then, and about two kilobytes of content per span.
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

    /// What a tool must load: the structure, and the content it reads.
    fn load(&self, context: &ToolContext, tool: &str, id: &TraceId) -> Vec<Arc<Span>> {
        self.runtime.block_on(async {
            let trace = context.client.trace(id, NOW_MS).await.unwrap();
            match tool {
                "get_llmobs_trace" | "expand_llmobs_spans" => trace.spans.clone(),
                "get_llmobs_span_details" | "get_llmobs_span_content" => {
                    let ids: Vec<_> = trace
                        .spans
                        .iter()
                        .take(20)
                        .map(|s| s.span_id.clone())
                        .collect();
                    context
                        .client
                        .contents(&trace, Which::Spans(&ids))
                        .await
                        .unwrap();
                    trace.spans.clone()
                }
                _ => {
                    let whole = context.client.contents(&trace, Which::All).await.unwrap();
                    trace
                        .spans
                        .iter()
                        .map(|s| whole.spans[&s.span_id].clone())
                        .collect()
                }
            }
        })
    }
}

/// The analysis behind a tool, without loading and rendering.
fn analyse(tool: &str, spans: &[Arc<Span>]) {
    let tree = TraceTree::build(spans);
    match tool {
        "find_llmobs_error_spans" => {
            black_box((error_spans(&tree), soft_errors(&tree)));
        }
        "get_llmobs_agent_loop" => {
            black_box(agent_loop(&tree, None));
        }
        "get_llmobs_span_details" => {
            for span in spans.iter().take(20) {
                black_box(content_info(span));
            }
        }
        _ => {
            black_box((tree.kinds(), tree.depth()));
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

fn median(mut of: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| of()).collect();
    times.sort();
    times[ROUNDS / 2]
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

fn table(bench: &Bench) {
    println!(
        "\n{:<26}{:>8}{:>12}{:>12}{:>12}{:>12}",
        "tool", "spans", "load ms", "analysis ms", "render ms", "peak MB"
    );
    for tool in TOOLS {
        let mut rows = Vec::new();
        for size in SIZES {
            let id = TraceId::from(format!("{size:032x}"));
            let arguments = arguments(tool, &id);
            let load = median(|| {
                let cold = bench.cold();
                timed(|| {
                    black_box(bench.load(&cold, tool, &id));
                })
            });
            let warm = bench.cold();
            let spans = bench.load(&warm, tool, &id);
            let analysis = median(|| timed(|| analyse(tool, &spans)));
            let whole = median(|| timed(|| drop(black_box(bench.call(&warm, tool, &arguments)))));
            drop((spans, warm));
            let cold = bench.cold();
            MEMORY.reset_peak_usage();
            let before = MEMORY.current_usage_as_mb();
            bench.call(&cold, tool, &arguments);
            let peak = MEMORY.peak_usage_as_mb() - before;
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            let render = ms(whole.saturating_sub(analysis));
            println!(
                "{tool:<26}{size:>8}{:>12.2}{:>12.2}{render:>12.2}{peak:>12.1}",
                ms(load),
                ms(analysis)
            );
            rows.push((ms(load), ms(analysis), render));
        }
        let ratio = |a: f64, b: f64| if a > 0.0 { b / a } else { f64::NAN };
        println!(
            "{:<34}{:>11.1}x{:>11.1}x{:>11.1}x",
            "  5 times the spans",
            ratio(rows[0].0, rows[1].0),
            ratio(rows[0].1, rows[1].1),
            ratio(rows[0].2, rows[1].2)
        );
    }
}

fn main() {
    let bench = Bench::new();
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&bench, &mut criterion);
    criterion.final_summary();
    // `cargo test --benches` and `cargo bench -- --list` pass flags of their own.
    if std::env::args().any(|argument| argument == "--bench") {
        table(&bench);
    }
}
