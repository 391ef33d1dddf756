//! The fields of an evaluator that a caller can write.

/// The section of the documented attributes that contains a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Top,
    Target,
    Provider,
    Judge,
    Inference,
}

/// The type of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// Text, with surrounding whitespace removed.
    Text,
    /// Text, unchanged.
    VerbatimText,
    Scope,
    Flag,
    Number,
    Integer,
    Object,
    List,
    TextList,
}

/// A field that a caller can write.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) section: Section,
    pub(super) kind: FieldKind,
}

const fn field(name: &'static str, section: Section, kind: FieldKind) -> Field {
    Field {
        name,
        section,
        kind,
    }
}

/// Every field, in the order of answers.
pub(super) const FIELDS: [Field; 29] = [
    field("eval_name", Section::Top, FieldKind::Text),
    field("category", Section::Top, FieldKind::Text),
    field("application_name", Section::Target, FieldKind::Text),
    field("enabled", Section::Target, FieldKind::Flag),
    field("eval_scope", Section::Target, FieldKind::Scope),
    field("filter", Section::Target, FieldKind::VerbatimText),
    field("root_spans_only", Section::Target, FieldKind::Flag),
    field("sampling_percentage", Section::Target, FieldKind::Number),
    field(
        "experiment_project_ids",
        Section::Target,
        FieldKind::TextList,
    ),
    field("integration_provider", Section::Provider, FieldKind::Text),
    field("integration_account_id", Section::Provider, FieldKind::Text),
    field("model_name", Section::Provider, FieldKind::Text),
    field("bedrock", Section::Provider, FieldKind::Object),
    field("vertex_ai", Section::Provider, FieldKind::Object),
    field("temperature", Section::Inference, FieldKind::Number),
    field("max_tokens", Section::Inference, FieldKind::Integer),
    field("top_p", Section::Inference, FieldKind::Number),
    field("top_k", Section::Inference, FieldKind::Integer),
    field("frequency_penalty", Section::Inference, FieldKind::Number),
    field("presence_penalty", Section::Inference, FieldKind::Number),
    field("prompt_template", Section::Judge, FieldKind::List),
    field("parsing_type", Section::Judge, FieldKind::Text),
    field("output_schema", Section::Judge, FieldKind::Object),
    field("assessment_criteria", Section::Judge, FieldKind::Object),
    field("context_query", Section::Judge, FieldKind::VerbatimText),
    field("target_query", Section::Judge, FieldKind::VerbatimText),
    field(
        "user_specified_json_post_processing_function",
        Section::Judge,
        FieldKind::VerbatimText,
    ),
    field(
        "last_used_library_prompt_template_name",
        Section::Judge,
        FieldKind::VerbatimText,
    ),
    field(
        "modified_library_prompt_template",
        Section::Judge,
        FieldKind::Flag,
    ),
];

/// Keys that reads return and writes ignore.
pub(super) const READ_ONLY: [&str; 11] = [
    "id",
    "created_at",
    "updated_at",
    "created_by",
    "last_updated_by",
    "type",
    "source",
    "notes",
    "other",
    "discard_draft_id",
    "status",
];

/// Fields without a default.
pub(super) const REQUIRED: [&str; 8] = [
    "eval_name",
    "application_name",
    "enabled",
    "integration_provider",
    "model_name",
    "prompt_template",
    "parsing_type",
    "output_schema",
];

/// Common mistakes in a field's name, each with the correct name.
pub(super) const SYNONYMS: [(&str, &str); 11] = [
    ("ml_app", "application_name"),
    ("name", "eval_name"),
    ("evaluator_name", "eval_name"),
    ("model", "model_name"),
    ("provider", "integration_provider"),
    ("prompt", "prompt_template"),
    ("schema", "output_schema"),
    ("criteria", "assessment_criteria"),
    ("query", "filter"),
    ("sampling", "sampling_percentage"),
    ("sampling_rate", "sampling_percentage"),
];
