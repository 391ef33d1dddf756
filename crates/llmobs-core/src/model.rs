//! Domain types: what LLM observability speaks of, free of wire forms, transports and clocks.
//!
//! Every time is in nanoseconds or milliseconds since the Unix epoch and says so in its name;
//! every cost is in USD unless it bears the name of a metric ([`cost`]); every token count is what the model's provider billed.

mod content;
pub mod cost;
mod dataset;
mod evaluation;
mod evaluator;
mod experiment;
mod ids;
mod rollup;
mod span;
mod window;

pub use content::{Io, Message, ToolCall, ToolResult};
pub use dataset::{Dataset, DatasetRecord, Project};
pub use evaluation::{Assessment, EvalStatus, Evaluation, EventKind, MetricType};
pub use evaluator::{EvalScope, Evaluator, EvaluatorTarget, JudgeConfig, JudgeModel};
pub use experiment::find_label;
pub use experiment::{Experiment, ExperimentEvent, ExperimentMetric, ExperimentSpan, Usage};
pub use ids::{ROOT_PARENT, SpanId, TraceId};
pub use rollup::TraceRollup;
pub use span::{AgentAttribution, Span, SpanError, SpanKind, SpanLink, Status};
pub use window::TimeWindow;
