//! The domain types of LLM observability, without wire forms, transports or clocks.
//!
//! Times are nanoseconds or milliseconds since the Unix epoch; the name says which. Costs are in
//! USD, except in metrics ([`cost`]). Token counts are those that the model's provider reports.

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
pub(crate) use experiment::find_label;
pub use experiment::{Experiment, ExperimentEvent, ExperimentMetric, ExperimentSpan, Usage};
pub use ids::{ROOT_PARENT, SpanId, TraceId};
pub use rollup::TraceRollup;
pub use span::{AgentAttribution, Span, SpanError, SpanKind, SpanLink, Status};
pub use window::TimeWindow;
