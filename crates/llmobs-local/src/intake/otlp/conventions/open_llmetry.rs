//! OpenLLMetry: `traceloop.*`, `llm.request.type`, and messages under indexed `gen_ai.prompt.*` and
//! `gen_ai.completion.*` keys.

use llmobs_core::model::SpanKind;

use super::super::convention::{Convention, KindAttribute, MetricFamily, PerSide, ToolDefinitions};
use super::gen_ai::USAGE_METRICS;

pub(super) static CONVENTION: Convention = Convention {
    marks: &["llm.", "traceloop."],
    message_rank: -1,
    kinds: &[
        KindAttribute {
            key: "traceloop.span.kind",
            values: &[
                ("agent", SpanKind::Agent),
                ("tool", SpanKind::Tool),
                ("task", SpanKind::Task),
                ("workflow", SpanKind::Workflow),
            ],
        },
        KindAttribute {
            key: "llm.request.type",
            values: &[
                ("chat", SpanKind::Llm),
                ("completion", SpanKind::Llm),
                ("embedding", SpanKind::Embedding),
                ("rerank", SpanKind::Retrieval),
            ],
        },
    ],
    sessions: &["traceloop.association.properties.session_id"],
    metrics: &[MetricFamily {
        prefix: "llm.usage.",
        suffix: "",
        renames: USAGE_METRICS,
    }],
    tool_definitions: Some(ToolDefinitions::Indexed("llm.request.functions.")),
    indexed_messages: &[PerSide::new("gen_ai.prompt.", "gen_ai.completion.")],
    values: &[
        PerSide::new("traceloop.entity.input", "traceloop.entity.output"),
        PerSide::new("gen_ai.prompt", "gen_ai.completion"),
    ],
    ..Convention::EMPTY
};
