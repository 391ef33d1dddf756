//! OpenInference: `openinference.*`, `llm.*`, `tool.*`, `retrieval.*`, `reranker.*`, `embedding.*`.
//!
//! Lists are flattened into indexed keys, `llm.input_messages.0.message.role`.

use llmobs_core::model::SpanKind;

use super::super::convention::{
    Convention, FinishReasons, KindAttribute, MetricFamily, PerSide, Side, ToolDefinitions,
};

pub(super) static CONVENTION: Convention = Convention {
    marks: &["llm.", "openinference."],
    kind_rank: -1,
    kinds: &[KindAttribute {
        key: "openinference.span.kind",
        values: &[
            ("llm", SpanKind::Llm),
            ("embedding", SpanKind::Embedding),
            ("tool", SpanKind::Tool),
            ("agent", SpanKind::Agent),
            ("retriever", SpanKind::Retrieval),
            ("chain", SpanKind::Workflow),
        ],
    }],
    metadata: &[
        ("tool_call.id", "tool_call_id"),
        ("tool.id", "tool_call_id"),
        ("tool.name", "tool_name"),
        ("tool.description", "tool_description"),
        ("tool.parameters", "tool_parameters"),
    ],
    metadata_objects: &[
        "llm.invocation_parameters",
        "embedding.invocation_parameters",
        "metadata",
    ],
    tag_lists: &["tag.tags"],
    finish_reasons: Some(FinishReasons::Single("llm.finish_reason")),
    providers: &["llm.provider", "llm.system"],
    models: &["llm.model_name", "embedding.model_name"],
    sessions: &["session.id"],
    metrics: &[
        MetricFamily {
            prefix: "llm.token_count.",
            suffix: "_tokens",
            renames: &[
                ("prompt_details.cache_read", "cache_read_input_tokens"),
                ("prompt_details.cache_write", "cache_write_input_tokens"),
                ("completion_details.reasoning", "reasoning_output_tokens"),
            ],
        },
        MetricFamily {
            prefix: "llm.cost.",
            suffix: "_cost",
            renames: &[("prompt", "input_cost"), ("completion", "output_cost")],
        },
    ],
    tool_definitions: Some(ToolDefinitions::Indexed("llm.tools.")),
    indexed_messages: &[
        PerSide::new("llm.input_messages.", "llm.output_messages."),
        PerSide::new("llm.prompts.", "llm.choices."),
    ],
    values: &[PerSide::new("input.value", "output.value")],
    documents: &[
        ("retrieval.documents.", Side::Output),
        ("reranker.input_documents.", Side::Input),
        ("reranker.output_documents.", Side::Output),
    ],
    embeddings: Some("embedding.embeddings."),
    retrieval_query: Some("reranker.query"),
    prompt: &[
        ("llm.prompt_template.template", "template"),
        ("llm.prompt_template.variables", "variables"),
        ("llm.prompt_template.version", "version"),
    ],
    ..Convention::EMPTY
};
