//! An experiment of 5,000 records, 2 runs and 10 metrics: the cost of its load, the cost of answers
//! once it is loaded, and their ratio.
//!
//! `cargo bench --bench experiments` prints the figures and their bounds, then criterion's. An answer
//! may take as long as the load of one experiment, and the process 300 MB; a figure
//! beyond its bound is marked, and the bench exits with 1. The upstream is in this process, so the
//! load has no network in it: against a site it is longer.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use criterion::Criterion;
use datadog_llmobs::{Credential, Hub, HubSettings, RouterTransport, Upstream};
use llmobs_mcp::tools::{self, ToolContext};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const RECORDS: usize = 5_000;
/// The page size that the client requests.
const PAGE: usize = 5_000;
const ROUNDS: usize = 7;
/// Upper bound of the memory of the process, in MB.
const MOST_MB: u64 = 300;

type Pages = Arc<Vec<String>>;

/// The pages of one experiment as text, so that the upstream costs only the copy. Written
/// span by span, so that earlier memory of the process does not count as memory of the load.
fn pages() -> Pages {
    let count = (RECORDS * 2).div_ceil(PAGE);
    let page = |page: usize| {
        let mut text = String::from(
            r#"{"data":{"id":"e","type":"experiment_events","attributes":{"summary_metrics":[],"spans":["#,
        );
        for at in page * PAGE..((page + 1) * PAGE).min(RECORDS * 2) {
            text.push_str(&span(at / 2, at % 2 + 1).to_string());
            text.push(',');
        }
        text.pop();
        let after = if page + 1 < count {
            json!((page + 1).to_string())
        } else {
            Value::Null
        };
        text.push_str(&format!(r#"]}}}},"meta":{{"after":{after}}}}}"#));
        text
    };
    Arc::new((0..count).map(page).collect())
}

fn span(record: usize, run: usize) -> Value {
    let metrics: Vec<Value> = (0..10)
        .map(|metric| {
            let noise = (record * 31 + metric * 17 + run * 7) % 101;
            let mut one = json!({"id": format!("{record}-{run}-{metric}"), "label": format!("metric_{metric}"),
                "status": "OK", "assessment": if noise > 50 { "pass" } else { "fail" },
                "reasoning": "The answer names the capital and nothing else.", "metric_source": "custom",
                "tags": [], "timestamp_ms": 1_795_223_904_145_i64, "error": null});
            match metric % 3 {
                0 => {
                    one["metric_type"] = json!("score");
                    one["score_value"] = json!(noise as f64 / 100.0);
                }
                1 => {
                    one["metric_type"] = json!("boolean");
                    one["boolean_value"] = json!(noise > 50);
                }
                _ => {
                    one["metric_type"] = json!("categorical");
                    one["categorical_value"] = json!(["good", "fair", "poor"][noise % 3]);
                }
            }
            one
        })
        .collect();
    json!({"span_id": (record * 2 + run).to_string(), "trace_id": format!("{record:032x}"), "parent_id": "undefined",
        "name": "task", "status": "ok", "start_ns": 1_795_223_904_145_000_000_i64, "duration": 2_000_000 + record,
        "tags": [format!("dataset_record_id:r{record}"), format!("dataset_record_canonical_id:c{record}"),
            format!("run_iteration:{run}"), format!("region:{}", ["eu", "asia", "latam", "africa"][record % 4]),
            format!("difficulty:{}", ["easy", "medium", "hard"][record % 3]), "env:dev", "experiment_id:e"],
        "meta": {"span": {"kind": "experiment"}, "input": {"question": format!("Capital of country {record}?")},
            "output": "The capital is a city on a river. ".repeat(6), "expected_output": {"answer": "a city"}, "metadata": {}},
        "metrics": {"input_tokens": 20, "output_tokens": 3}, "eval_metrics": metrics})
}

async fn events(
    State(pages): State<Pages>,
    Path(_): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> impl IntoResponse {
    let cursor = query.iter().find(|(key, _)| key == "page[cursor]");
    let at: usize = cursor
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    (
        [(header::CONTENT_TYPE, "application/json")],
        pages[at].clone(),
    )
}

/// Tools with empty caches.
fn fresh(pages: &Pages) -> ToolContext {
    let router = Router::new()
        .route("/api/v2/llm-obs/v3/experiments/{id}/events", get(events))
        .route(
            "/api/v2/llm-obs/v1/experiments",
            get(|| async { r#"{"data":[]}"# }),
        )
        .with_state(Arc::clone(pages));
    let settings = HubSettings {
        experiment_life: Duration::from_secs(3_600),
        ..HubSettings::default()
    };
    let hub = Hub::new(Upstream::Local, Arc::new(RouterTransport(router)), settings);
    ToolContext {
        client: hub.client(Credential::None, "bench"),
        now_ms: 1_795_262_400_000,
    }
}

const QUESTIONS: [&str; 3] = ["summary", "metric values by segment", "compare"];

async fn ask(context: &ToolContext, question: &str) -> String {
    let (tool, arguments) = match question {
        "summary" => (
            "get_llmobs_experiment_summary",
            json!({"experiment_id": "a"}),
        ),
        "compare" => (
            "compare_llmobs_experiments",
            json!({"baseline_experiment_id": "a", "candidate_experiment_id": "b"}),
        ),
        _ => (
            "get_llmobs_experiment_metric_values",
            json!({"experiment_id": "a", "metric_label": "metric_0", "segment_by_dimension": "region"}),
        ),
    };
    let context = ToolContext {
        client: context.client.for_call(),
        ..context.clone()
    };
    let arguments = arguments.as_object().unwrap().clone();
    let answer = tools::find(tool).unwrap().call(&context, arguments).await;
    answer.unwrap_or_else(|error| panic!("{}", error.to_json()))
}

/// The peak memory of this process in MB, where the system reports it.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kb| kb / 1024)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Prints the figures; returns whether all are within their bounds.
fn table() -> bool {
    let runtime = runtime();
    let pages = pages();
    let megabytes = pages.iter().map(String::len).sum::<usize>() / (1 << 20);
    println!(
        "{RECORDS} records x 2 runs x 10 metrics: {megabytes} MB of JSON in {} pages",
        pages.len()
    );
    let before = peak_mb();

    let context = fresh(&pages);
    runtime.block_on(ask(&context, "summary"));
    println!(
        "with one experiment loaded: {:?} -> {:?} MB at most",
        before,
        peak_mb()
    );
    runtime.block_on(ask(&context, "compare"));
    let peak = peak_mb();
    println!("with the second one compared: {peak:?} MB at most");

    // Alternating rounds, and the fastest of each: other load on the machine only makes a round slower.
    let mut load = Duration::MAX;
    let mut times = [Duration::MAX; QUESTIONS.len()];
    for _ in 0..ROUNDS {
        let cold = fresh(&pages);
        load = load.min(timed(|| {
            drop(black_box(
                runtime.block_on(cold.client.experiment("a")).unwrap(),
            ));
        }));
        for (question, fastest) in QUESTIONS.iter().zip(&mut times) {
            *fastest = (*fastest).min(timed(|| {
                drop(black_box(runtime.block_on(ask(&context, question))));
            }));
        }
    }
    println!("load of one experiment: {load:.2?}");
    let mut holds = peak.is_none_or(|peak| peak < MOST_MB);
    println!("peak memory under {MOST_MB} MB: {}", verdict(holds));
    for (question, spent) in QUESTIONS.iter().zip(times) {
        let ratio = spent.as_secs_f64() / load.as_secs_f64();
        holds &= ratio <= 1.0;
        println!(
            "{question}: {spent:.2?}, {ratio:.2} of a load, at most 1: {}",
            verdict(ratio <= 1.0)
        );
    }
    holds
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn verdict(holds: bool) -> &'static str {
    if holds { "pass" } else { "FAIL" }
}

fn criterion_groups(criterion: &mut Criterion) {
    let runtime = runtime();
    let pages = pages();
    let context = fresh(&pages);
    runtime.block_on(ask(&context, "compare"));
    let mut group = criterion.benchmark_group("experiments");
    group.sample_size(10);
    group.bench_function("load", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            || fresh(&pages),
            |context| async move {
                black_box(
                    context
                        .client
                        .experiment("a")
                        .await
                        .unwrap()
                        .data
                        .events
                        .len(),
                )
            },
            criterion::BatchSize::PerIteration,
        );
    });
    for question in QUESTIONS {
        group.bench_function(question, |bencher| {
            bencher.to_async(&runtime).iter(|| ask(&context, question));
        });
    }
    group.finish();
}

fn main() -> ExitCode {
    // `cargo test --benches` and `cargo bench -- --list` pass other flags. The memory is that
    // of the process, so this is first.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let holds = !measured || table();
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&mut criterion);
    criterion.final_summary();
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
