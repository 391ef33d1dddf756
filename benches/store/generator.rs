//! Spans of nine applications over a week, in the form in which the Python SDK sends them.
//!
//! Everything is drawn from one seed, so equal numbers of spans give equal spans. Traces
//! are ordered by their end, as an SDK sends them; one in fifty is some hours late.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::words::{RARE, Words};

/// End of the week of the spans, in milliseconds since the Unix epoch.
pub const NOW_MS: i64 = 1_795_262_400_000;
/// The week.
pub const WEEK_MS: i64 = 7 * 86_400_000;

const SEED: u64 = 20_261_125;
const MEAN_TRACE: f64 = 17.0;
/// Spans of the largest trace, and its number: one of the first, so that a small run has it too.
const LARGEST: usize = 2_000;
const LARGEST_AT: usize = 20;

/// Mean and longest text of a span's input and output together, in bytes.
const MEAN_TEXT: f64 = 1_960.0;
const LONGEST_TEXT: usize = 33_000;

/// Applications, the largest first; the last has 1 span in 60.
const APPS: [(&str, u32); 9] = [
    ("support-bot", 18),
    ("code-agent", 12),
    ("search-assistant", 9),
    ("report-writer", 6),
    ("sales-copilot", 5),
    ("doc-qa", 4),
    ("triage", 3),
    ("translator", 2),
    ("onboarding", 1),
];
/// The largest and the smallest application.
pub const BIG_APP: &str = APPS[0].0;
pub const SMALL_APP: &str = APPS[8].0;

const MODELS: [(&str, &str); 11] = [
    ("gpt-5.2", "openai"),
    ("gpt-5.2-mini", "openai"),
    ("gpt-4.1", "openai"),
    ("o5", "openai"),
    ("claude-opus-5", "anthropic"),
    ("claude-sonnet-5", "anthropic"),
    ("claude-haiku-5", "anthropic"),
    ("gemini-3-pro", "google"),
    ("gemini-3-flash", "google"),
    ("mistral-large-3", "mistral"),
    ("llama-5-70b", "meta"),
];

/// Span kinds with their weight among non-root spans, and their names: 49 in total.
const KINDS: [(&str, u32, &[&str]); 7] = [
    (
        "llm",
        40,
        &[
            "chat",
            "plan",
            "plan_next",
            "draft_answer",
            "summarize",
            "classify",
            "extract",
            "rewrite_query",
            "critique",
            "route",
            "translate",
            "judge_draft",
        ],
    ),
    (
        "tool",
        30,
        &[
            "search_orders",
            "refund_order",
            "get_weather",
            "read_file",
            "write_file",
            "run_tests",
            "grep",
            "list_dir",
            "send_email",
            "query_db",
            "create_ticket",
            "fetch_url",
            "calculator",
            "lookup_user",
            "update_crm",
            "git_diff",
        ],
    ),
    (
        "retrieval",
        8,
        &[
            "kb_search",
            "vector_search",
            "rerank",
            "fetch_docs",
            "hybrid_search",
        ],
    ),
    (
        "task",
        10,
        &["parse", "validate", "format_answer", "guardrail"],
    ),
    ("embedding", 4, &["embed_query", "embed_docs"]),
    (
        "agent",
        5,
        &[
            "planner",
            "researcher",
            "executor",
            "reviewer",
            "supervisor",
        ],
    ),
    (
        "workflow",
        3,
        &[
            "handle_ticket",
            "answer_question",
            "weekly_report",
            "ingest",
            "review_pr",
        ],
    ),
];
const LLM: usize = 0;
const TOOL: usize = 1;
const RETRIEVAL: usize = 2;
const EMBEDDING: usize = 4;
const AGENT: usize = 5;
const WORKFLOW: usize = 6;

const PROMPTS: [&str; 12] = [
    "answer",
    "greet",
    "plan",
    "refund",
    "summary",
    "classify",
    "extract",
    "critic",
    "router",
    "translate",
    "rewrite",
    "report",
];

/// Evaluations: label, type.
const LABELS: [(&str, &str); 6] = [
    ("quality", "score"),
    ("faithfulness", "score"),
    ("relevance", "score"),
    ("toxic", "boolean"),
    ("refused", "boolean"),
    ("sentiment", "categorical"),
];

/// Counts over all generated spans, to check answers against.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    pub spans: usize,
    pub traces: usize,
    pub evaluations: usize,
    /// Spans with the rare word, with the phrase, of the largest application, and errors.
    pub rare: usize,
    pub phrase: usize,
    pub big_app: usize,
    pub errors: usize,
    /// Evaluations of `quality`, and how many of them are below 0.5.
    pub quality: usize,
    pub quality_low: usize,
    /// A word in nine of ten spans, the rare word, and the phrase.
    pub common_word: String,
    pub rare_word: String,
    pub phrase_words: String,
    /// A trace of 15 spans, with one of its spans, and the largest trace.
    pub small_trace: String,
    pub small_span: String,
    pub large_trace: String,
    pub large_size: usize,
    /// Bytes of all span events.
    pub bytes: u64,
}

struct Target {
    trace: String,
    span: String,
    end_ms: i64,
    app: &'static str,
}

/// Generates spans and then their evaluations.
pub struct Generator {
    rng: StdRng,
    words: Words,
    /// Milliseconds from one trace to the next.
    pace_ms: f64,
    sessions: u32,
    targets: Vec<Target>,
    /// The number of requested spans; the last trace is cut to it.
    wanted: usize,
    /// Spans of the current trace that were not returned yet, last first.
    pending: Vec<String>,
    pub facts: Facts,
}

/// Values that all spans of a trace share.
struct Trace {
    id: String,
    apm_id: String,
    app: usize,
    session: String,
    prompt_version: u32,
    tags: String,
}

impl Generator {
    /// Distributes `spans` over the week; later ones follow it at the same rate.
    pub fn new(spans: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED);
        let words = Words::new(&mut rng);
        let facts = Facts {
            common_word: words.common.clone(),
            rare_word: RARE.to_owned(),
            phrase_words: words.phrase.clone(),
            ..Facts::default()
        };
        Self {
            rng,
            words,
            pace_ms: WEEK_MS as f64 / (spans as f64 / MEAN_TRACE),
            sessions: u32::try_from(spans / 60).unwrap().max(20),
            targets: Vec::new(),
            wanted: 0,
            pending: Vec::new(),
            facts,
        }
    }

    /// The next span events, as JSON.
    pub fn spans(&mut self, count: usize) -> impl Iterator<Item = String> {
        self.wanted += count;
        std::iter::from_fn(move || {
            if self.pending.is_empty() && self.facts.spans < self.wanted {
                self.next_trace();
            }
            let span = self.pending.pop()?;
            self.facts.spans += 1;
            self.facts.bytes += span.len() as u64;
            Some(span)
        })
    }

    /// A value that is log-normally distributed around a median.
    fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v): (f64, f64) = (self.rng.random_range(1e-12..1.0), self.rng.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        median * (sigma * normal).exp()
    }

    /// An index drawn by weight.
    fn weighted(&mut self, weights: impl Iterator<Item = u32> + Clone) -> usize {
        let mut left = self.rng.random_range(0..weights.clone().sum());
        weights
            .take_while(|weight| {
                let beyond = left >= *weight;
                left = left.saturating_sub(*weight);
                beyond
            })
            .count()
    }

    fn size(&mut self) -> usize {
        if self.facts.traces == LARGEST_AT {
            return LARGEST;
        }
        // The mean of a log-normal is its median times e^(sigma²/2).
        let sigma: f64 = 1.1;
        let median = MEAN_TRACE / (sigma * sigma / 2.0).exp();
        (self.log_normal(median, sigma).round() as usize).clamp(1, LARGEST)
    }

    fn next_trace(&mut self) {
        let number = self.facts.traces;
        let size = self.size().min(self.wanted - self.facts.spans);
        let mut start_ms = NOW_MS - WEEK_MS + (number as f64 * self.pace_ms) as i64;
        start_ms -= self.rng.random_range(0..60_000);
        if self.rng.random_bool(0.02) {
            start_ms -= self.rng.random_range(0..6 * 3_600_000);
        }
        let trace = self.trace(start_ms);
        let first = self.rng.random_range(1..u64::MAX / 2);
        let id = |at: usize| (first + at as u64).to_string();
        let mut parents = vec![0];
        let mut start_ns = start_ms * 1_000_000 + self.rng.random_range(0..1_000_000);
        let mut spans = Vec::with_capacity(size);
        for at in 0..size {
            let kind = match at {
                0 if self.rng.random_bool(0.5) => WORKFLOW,
                0 => AGENT,
                _ => self.weighted(KINDS.iter().map(|kind| kind.1)),
            };
            let parent = match at {
                0 => "undefined".to_owned(),
                _ => id(parents[self
                    .rng
                    .random_range(parents.len().saturating_sub(4)..parents.len())]),
            };
            if kind >= AGENT {
                parents.push(at);
            }
            start_ns += self.rng.random_range(50_000..40_000_000);
            let json = self.one(&trace, kind, &id(at), &parent, start_ns);
            spans.push(json);
        }
        if size == 15 {
            self.facts.small_trace.clone_from(&trace.id);
            self.facts.small_span = id(7);
        }
        if number == LARGEST_AT {
            self.facts.large_trace = trace.id;
            self.facts.large_size = size;
        }
        self.facts.traces += 1;
        // An SDK sends a span when it ends: the root last.
        self.pending = spans;
    }

    fn trace(&mut self, start_ms: i64) -> Trace {
        let app = self.weighted(APPS.iter().map(|app| app.1));
        let seconds = start_ms / 1_000;
        let session = format!("s-{}", self.rng.random_range(0..self.sessions));
        let prompt_version = self.rng.random_range(1..=6);
        let env = ["prod", "staging", "dev"][self.weighted([7, 2, 1].into_iter())];
        let name = APPS[app].0;
        let tags = format!(
            r#""ddtrace.version:4.16.0","env:{env}","language:python","ml_app:{name}","service:{name}-api","session_id:{session}","source:integration","team:{}","prompt_version:v{prompt_version}","version:1.{}.0""#,
            ["search", "support", "growth", "platform", "data", "core"]
                [self.rng.random_range(0..6)],
            self.rng.random_range(0..12),
        );
        Trace {
            id: format!("{seconds:08x}00000000{:016x}", self.rng.random::<u64>()),
            apm_id: format!("{seconds:08x}00000000{:016x}", self.rng.random::<u64>()),
            app,
            session,
            prompt_version,
            tags,
        }
    }

    fn one(&mut self, trace: &Trace, kind: usize, id: &str, parent: &str, start_ns: i64) -> String {
        let failed = self.rng.random_bool(0.01);
        let app = APPS[trace.app].0;
        self.facts.errors += usize::from(failed);
        self.facts.big_app += usize::from(trace.app == 0);
        let (kind_name, _, names) = KINDS[kind];
        let name = names[self.rng.random_range(0..names.len())];
        let duration = self.log_normal(800.0, 1.6) * 1e6;
        if self.rng.random_bool(0.1) {
            self.targets.push(Target {
                trace: trace.id.clone(),
                span: id.to_owned(),
                end_ms: (start_ns + duration as i64) / 1_000_000,
                app,
            });
        }
        let meta = self.meta(trace, kind, failed);
        let metrics = if kind == LLM || kind == EMBEDDING {
            self.metrics()
        } else {
            String::new()
        };
        let status = if failed { "error" } else { "ok" };
        format!(
            r#"{{"_dd":{{"apm_trace_id":"{apm}","span_id":"{id}","trace_id":"{apm}"}},"duration":{duration},"meta":{{{meta},"span":{{"kind":"{kind_name}"}}}},"metrics":{{{metrics}}},"name":"{name}","parent_id":"{parent}","session_id":"{session}","span_id":"{id}","start_ns":{start_ns},"status":"{status}","tags":[{tags},"error:{error}"],"trace_id":"{trace_id}"}}"#,
            apm = trace.apm_id,
            duration = duration as i64,
            session = trace.session,
            tags = trace.tags,
            error = u8::from(failed),
            trace_id = trace.id,
        )
    }

    /// A text of the span, starting with the rare word or the phrase if this span should contain it.
    fn marked(&mut self, bytes: usize, rare: bool, phrase: bool) -> (String, bool) {
        let (piece, by_chance) = self.words.piece(&mut self.rng, bytes);
        let mut text = String::with_capacity(bytes + 64);
        if rare {
            text.push_str(RARE);
            text.push(' ');
        }
        if phrase {
            text.push_str(&self.words.phrase);
            text.push_str(". ");
        }
        text.push_str(piece);
        (text, by_chance || phrase)
    }

    fn meta(&mut self, trace: &Trace, kind: usize, failed: bool) -> String {
        // Log-normal again: p99 is about 9 KB.
        let sigma: f64 = 0.79;
        let median = MEAN_TEXT / (sigma * sigma / 2.0).exp();
        let bytes = (self.log_normal(median, sigma) as usize).clamp(40, LONGEST_TEXT);
        let rare = self.rng.random_ratio(1, 20_000);
        let phrase = self.rng.random_ratio(1, 1_000);
        let share = self.rng.random_range(0.2..0.9);
        let (input, in_input) = self.marked((bytes as f64 * share) as usize, rare, phrase);
        let (output, in_output) =
            self.marked((bytes as f64 * (1.0 - share)) as usize, false, false);
        self.facts.rare += usize::from(rare);
        self.facts.phrase += usize::from(in_input || in_output);
        let mut meta = match kind {
            LLM => self.llm(trace, &input, &output),
            TOOL => format!(
                r#""input":{{"value":"{{\"query\": \"{}\"}}"}},"output":{{"value":"{output}"}}"#,
                // JSON inside JSON.
                input.replace('\\', "\\\\").replace("\\\\\"", "\\\\\\\""),
            ),
            RETRIEVAL => format!(
                r#""input":{{"value":"{input}"}},"output":{{"documents":[{{"text":"{output}","name":"kb","id":"d{}","score":0.{}}}]}}"#,
                self.rng.random_range(0..5_000),
                self.rng.random_range(10..99),
            ),
            EMBEDDING => format!(
                r#""input":{{"documents":[{{"text":"{input}"}}]}},"output":{{"value":"{output}"}},"model_name":"text-embed-4","model_provider":"openai""#
            ),
            _ => format!(
                r#""input":{{"value":"{input}"}},"output":{{"value":"{output}"}},"metadata":{{"channel":"chat","attempt":{}}}"#,
                self.rng.random_range(0..3),
            ),
        };
        if failed {
            let error = ["TimeoutError", "RateLimitError", "ValueError", "KeyError"]
                [self.rng.random_range(0..4)];
            write!(
                meta,
                r#","error":{{"type":"{error}","message":"the call failed","stack":"Traceback (most recent call last):\n  File \"app.py\", line 7"}}"#
            )
            .unwrap();
        }
        meta
    }

    fn llm(&mut self, trace: &Trace, input: &str, output: &str) -> String {
        let (model, provider) = MODELS[self.weighted((1..=11).rev())];
        let prompt = PROMPTS[self.rng.random_range(0..PROMPTS.len())];
        format!(
            r#""input":{{"messages":[{{"role":"system","content":"You answer for {app}. Be brief, name your sources, and never invent an order number."}},{{"role":"user","content":"{input}"}}],"prompt":{{"id":"{prompt}","version":"{version}"}}}},"output":{{"messages":[{{"role":"assistant","content":"{output}"}}]}},"model_name":"{model}","model_provider":"{provider}","metadata":{{"temperature":0.{temperature},"max_tokens":4096}}"#,
            app = APPS[trace.app].0,
            version = trace.prompt_version,
            temperature = self.rng.random_range(0..10),
        )
    }

    fn metrics(&mut self) -> String {
        let input = self.log_normal(1_500.0, 1.2) as u64;
        let output = self.log_normal(200.0, 1.0) as u64;
        let cost = input as f64 * 2e-6 + output as f64 * 8e-6;
        let first = self.log_normal(0.4, 0.6);
        format!(
            r#""input_tokens":{input},"output_tokens":{output},"total_tokens":{},"total_cost":{cost:.6},"time_to_first_token":{first:.3}"#,
            input + output
        )
    }

    /// The evaluations of all generated spans, as JSON.
    pub fn evaluations(&mut self) -> Vec<String> {
        let targets = std::mem::take(&mut self.targets);
        let all: Vec<String> = targets
            .iter()
            .map(|target| self.evaluation(target))
            .collect();
        self.facts.evaluations += all.len();
        all
    }

    fn evaluation(&mut self, target: &Target) -> String {
        let at = self.rng.random_range(0..LABELS.len());
        let (label, metric_type) = LABELS[at];
        let hundredths = self
            .rng
            .random_range(0..101)
            .max(self.rng.random_range(0..101));
        let value = match metric_type {
            "score" => format!("{}", f64::from(hundredths) / 100.0),
            "boolean" => (hundredths < 10).to_string(),
            _ => format!(
                "\"{}\"",
                ["positive", "neutral", "negative"][self.rng.random_range(0..3)]
            ),
        };
        if at == 0 {
            self.facts.quality += 1;
            self.facts.quality_low += usize::from(hundredths < 50);
        }
        format!(
            r#"{{"join_on":{{"span":{{"span_id":"{}","trace_id":"{}"}}}},"label":"{label}","metric_type":"{metric_type}","{metric_type}_value":{value},"assessment":"{}","reasoning":"The answer was read against its sources.","ml_app":"{}","timestamp_ms":{},"tags":["judge:v3"]}}"#,
            target.span,
            target.trace,
            if hundredths < 50 { "fail" } else { "pass" },
            target.app,
            target.end_ms + 60_000,
        )
    }
}
