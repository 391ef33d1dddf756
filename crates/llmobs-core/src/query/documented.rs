//! Every documented facet and syntax form, and those in common use, evaluated on one span.

use std::collections::BTreeMap;

use rstest::rstest;
use serde_json::{Map, Value, json};

use super::{SpanContext, parse};
use crate::model::{
    AgentAttribution, Assessment, EvalStatus, Evaluation, EventKind, Io, Message, MetricType, Span,
    SpanError, SpanId, SpanKind, Status, TraceId, TraceRollup,
};

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn evaluation(label: &str, metric_type: MetricType, value: Option<Value>) -> (String, Evaluation) {
    let evaluation = Evaluation {
        label: label.to_owned(),
        metric_type,
        value,
        ..Evaluation::default()
    };
    (label.to_owned(), evaluation)
}

fn evaluations() -> BTreeMap<String, Evaluation> {
    let mut evaluations = BTreeMap::from([
        evaluation("faithfulness", MetricType::Score, Some(json!(0.4))),
        evaluation("user_mood", MetricType::Categorical, Some(json!("happy"))),
        evaluation("grounded", MetricType::Boolean, Some(json!(false))),
        evaluation(
            "judge",
            MetricType::Json,
            Some(json!({"score": {"depth": 3}})),
        ),
        evaluation("broken", MetricType::Score, None),
        evaluation("custom", MetricType::Score, Some(json!(9))),
    ]);
    let assessed = evaluations.get_mut("faithfulness").unwrap();
    assessed.assessment = Some(Assessment::Fail);
    assessed.reasoning = Some("not in the source".into());
    evaluations.get_mut("broken").unwrap().status = EvalStatus::Error;
    evaluations
}

fn feedback() -> BTreeMap<String, Evaluation> {
    let (label, mut thumbs) = evaluation("thumbs", MetricType::Categorical, Some(json!("up")));
    thumbs.event_kind = EventKind::Feedback;
    thumbs.assessment = Some(Assessment::Pass);
    BTreeMap::from([(label, thumbs)])
}

fn root() -> Span {
    Span {
        trace_id: TraceId::from("0af7651916cd43dd8448eb211c80319c"),
        span_id: SpanId::from("18446744073709551615"),
        apm_trace_id: Some("77".into()),
        name: "answer".into(),
        kind: SpanKind::Llm,
        ml_app: "my app".into(),
        service: Some("api".into()),
        session_id: Some("s-1".into()),
        status: Status::Error,
        start_ns: 1_784_000_000_000_000_000,
        duration_ns: 5_500_000_000,
        tags: [
            "ml_app:my app",
            "env:prod",
            "version:",
            "source:integration",
            "language:python",
            "hostname:web-1",
            "replay_run_id:r7",
            "experiment_id:e1",
            "dataset_record_id:d1",
            "url:http://a:1",
            "a:b:c",
            "retries:3",
            "first name:x",
            "canary",
        ]
        .map(str::to_owned)
        .to_vec(),
        metrics: BTreeMap::from([
            ("input_tokens".to_owned(), 1200.0),
            ("time_to_first_token".to_owned(), 0.35),
        ]),
        model_name: Some("gpt-4.1".into()),
        error: Some(SpanError {
            error_type: "Max turns exceeded".into(),
            message: "after 10".into(),
            stack: String::new(),
        }),
        input: Io {
            messages: vec![Message(
                json!({"role": "user", "content": "What's the Weather like?"}),
            )],
            prompt: Some(json!({"id": "greet", "version": 2})),
            ..Io::default()
        },
        output: Io {
            value: Some(json!("REFUND issued")),
            documents: vec![json!({"text": "policy of returns", "score": 0.9})],
            ..Io::default()
        },
        expected_output: Some(json!({"label": "yes"})),
        metadata: object(&json!({
            "plan.name": "pro", "user": {"tier": "gold", "id": 9_007_199_254_740_993_u64},
            "flags": ["a", "b"], "empty": null, "temperature": 0.5, "model_provider": "openai",
        })),
        tool_definitions: vec![json!({"name": "get_order"})],
        agent: Some(AgentAttribution {
            name: "planner".into(),
            span_id: Some(SpanId::from("5")),
        }),
        collection_errors: vec!["dropped_io".into(), "otel_warning_x".into()],
        extra: object(&json!({"feedback_join_key": "k1"})),
        meta_extra: object(&json!({"tool": {"version": "3"}})),
        evaluations: evaluations(),
        feedback: feedback(),
        ..Span::default()
    }
}

fn child() -> Span {
    Span {
        span_id: SpanId::from("2"),
        parent_id: Some(SpanId::from("18446744073709551615")),
        name: "retrieval".into(),
        kind: SpanKind::Retrieval,
        evaluations: BTreeMap::from([evaluation(
            "hallucination",
            MetricType::Categorical,
            Some(json!("hallucination found")),
        )]),
        ..Span::default()
    }
}

fn matches(query: &str, on_root: bool) -> bool {
    let (root, child) = (root(), child());
    let rollup = TraceRollup {
        total_tokens: 1000.0,
        input_tokens: 900.0,
        output_tokens: 100.0,
        estimated_total_cost: 0.25,
        num_evaluations_failed: 1,
        llm_calls: 4,
        tool_calls: 4,
        number_of_tools: 2,
        ..TraceRollup::default()
    };
    let context = SpanContext {
        span: if on_root { &root } else { &child },
        rollup: Some(&rollup),
        descendants: if on_root { &[&child] } else { &[] },
    };
    parse(query).unwrap().matches(&context)
}

#[rstest]
// Operators: parentheses, NOT, AND, OR, in order of precedence. Whitespace means AND. Operators
// are upper case.
#[case("@status:ok OR @name:answer")]
#[case("@status:error AND @name:answer")]
#[case("@status:error @name:answer")]
#[case("NOT @status:ok")]
#[case("NOT (@status:ok OR @name:other) -@meta.span.kind:tool")]
#[case("@name:answer OR @status:ok AND @status:none")]
#[case("NOT @status:ok OR @status:none")]
#[case("(@status:ok OR @status:error) AND (env:dev OR env:prod)")]
#[case("@ml_app:\"my app\" AND @status:error AND NOT @meta.span.kind:(tool OR agent)")]
// Well-known attributes, with and without the sigil.
#[case(r#"@ml_app:"my app""#)]
#[case(r"ml_app:my\ app")]
#[case("@status:error")]
#[case("status:error")]
#[case("@name:answer")]
#[case("@duration:>5s")]
#[case("@duration:5500ms")]
#[case("@duration:[5s TO 5.5s]")]
#[case("@duration:<=5500000000ns @duration:[5500000us TO *]")]
#[case("@duration:5500000μs @duration:>0.05m @duration:>0.001h")]
#[case("@duration:>=5500000000")]
#[case("duration:<1h")]
#[case("@trace_id:0af7651916cd43dd8448eb211c80319c")]
#[case("trace_id:0af7651916cd43dd8448eb211c80319c")]
#[case("@span_id:18446744073709551615")]
#[case("@apm_trace_id:77")]
#[case("@parent_id:undefined")]
#[case("@session_id:s-1")]
#[case("@session.id:(x OR s-1)")]
#[case("session_id:* session_id:s-1")]
#[case("@service:api service:api")]
#[case("@env:prod env:prod")]
#[case("source:integration language:python hostname:web-?")]
#[case("@event_type:span")]
#[case("timestamp:1784000000000")]
#[case("@timestamp:[1783999999999 TO *]")]
#[case("@collection_errors:dropped_io @collection_errors:otel_warning_*")]
#[case("@feedback_join_key:k1")]
// Meta.
#[case("@meta.span.kind:llm")]
#[case("@meta.kind:llm")]
#[case("@meta.span.kind IN [agent, llm]")]
#[case("@meta.span.name:answer")]
#[case(r#"@meta.error.type:"Max turns exceeded""#)]
#[case("@meta.error.message:after* @meta.error:*")]
#[case("@meta.model_name:gpt-4.1 @meta.model_name:gpt*")]
#[case("@meta.model_provider:openai")]
#[case("@meta.metadata.plan.name:pro")]
#[case("@meta.metadata.user.tier:gold")]
#[case("@meta.metadata.user.id:9007199254740993")]
#[case("@meta.metadata.flags:b")]
#[case("@meta.metadata.user:*")]
#[case("@meta.metadata.temperature:0.50")]
#[case("@meta.input.prompt.id:greet @meta.input.prompt.version:2")]
#[case("@meta.input.value:What*")]
#[case("@meta.input.messages.role:user")]
#[case("@meta.output.value:*issued")]
#[case("@meta.output.documents.score:>0.8")]
#[case("@meta.expected_output.label:yes")]
#[case("@meta.tool_definitions.name:get_order")]
#[case("@meta.tool.version:3")]
#[case("@meta.agent_attribution.pagent_name:planner")]
#[case("_exists_:@meta.input _missing_:@meta.intent")]
// Metrics.
#[case("@metrics.input_tokens:>1000")]
#[case("@metrics.input_tokens:1200.0")]
#[case("@metrics.time_to_first_token:>300ms")]
#[case("@metrics.time_to_first_token:<0.4")]
// Evaluations of all types, in both notations.
#[case("@evaluations.custom.faithfulness:*")]
#[case("@evaluations.custom.faithfulness:<0.5")]
#[case("@evaluations.faithfulness:0.4")]
#[case("@evaluation.faithfulness.value:<=0.4")]
#[case("@evaluation.faithfulness.assessment:fail")]
#[case("@evaluations.custom.faithfulness.assessment:fail")]
#[case("@evaluation.faithfulness.reasoning:*source*")]
#[case("@evaluations.custom.user_mood:happy")]
#[case("@evaluation.user_mood.value:happy")]
#[case("@evaluation.grounded.value:false")]
#[case("@evaluations.custom.judge:* @evaluation.judge.value:*")]
#[case("@evaluation.judge.value.score.depth:>2")]
#[case("@evaluations.custom.judge.score.depth:3")]
#[case("@evaluation.judge.eval_metric_type:json")]
#[case("@evaluations.custom.broken:* @evaluation.broken.status:ERROR -@evaluation.broken.value:*")]
#[case("@evaluation.custom.value:9 @evaluations.custom.custom:9")]
// Feedback.
#[case("@feedback.thumbs.value:up")]
#[case("@feedback.thumbs.assessment:pass")]
#[case("@event_kind:feedback @event_kind:evaluation")]
// Totals of the trace, and descendants.
#[case("@trace.total_tokens:>=1000")]
#[case("@trace.llm_calls:>3 @trace.tool_calls:>=4 @trace.number_of_tools:<5")]
#[case("@trace.number_of_errors:0 @trace.num_evaluations_failed:>0")]
#[case("@trace.input_tokens:>800 @trace.output_tokens:[100 TO 200]")]
#[case("@trace.estimated_total_cost:>0.2")]
#[case(r#"@child.@evaluations.hallucination:"hallucination found""#)]
#[case("@child.@meta.span.name:retrieval AND @meta.span.kind:llm")]
#[case("_missing_:@child.@session_id")]
// Tags.
#[case("replay_run_id:r7")]
#[case("@replay_run_id:r7")]
#[case("@experiment_id:e1 experiment_id:e1 dataset_record_id:*")]
#[case(r#"url:"http://a:1" url:http://a:1"#)]
#[case(r"a:b:c a\:b:c")]
#[case("retries:>2 retries:[3 TO 3]")]
#[case(r"first\ name:x")]
#[case("tags:canary tags:env:prod")]
#[case(r#"version:"" _missing_:version"#)]
// Free text.
#[case("\"what's the weather\"")]
#[case("refund AND WEATHER")]
#[case("answer canary prod")]
#[case("polic* -invoice")]
#[case("*")]
#[case("")]
fn root_matches(#[case] query: &str) {
    assert!(matches(query, true));
}

#[rstest]
#[case("(@name:answer OR @status:ok) AND @status:none")]
#[case("NOT @status:error OR @status:none")]
#[case("refund and weather")]
#[case("@ml_app:\"My app\"")]
#[case("@status:ok")]
#[case("@duration:>5.5s")]
#[case("@duration:<5500ms")]
#[case("@name:>5")]
#[case("@name:[* TO *]")]
#[case("@span_id:18446744073709551614")]
#[case("@meta.metadata.user.id:9007199254740992")]
#[case("@meta.metadata.empty:*")]
#[case("@meta.metadata.user:gold")]
#[case("@evaluations.custom.absent:*")]
#[case("@evaluations.custom.faithfulness:>0.5")]
#[case("@evaluations.custom.faith:*")]
#[case("@evaluations.custom.user_mood:>0")]
#[case("@feedback.faithfulness.value:*")]
#[case("@child.@name:answer")]
#[case("@child.@trace.llm_calls:>1")]
#[case("-@child.@meta.span.kind:retrieval")]
#[case("@unknown:* OR @trace.unknown:* OR @meta.unknown:* OR unknown:*")]
#[case("@unknown:>0 OR @metrics.unknown:>0 OR @unknown:[* TO *] OR @child.@unknown:*")]
#[case("canary:*")]
#[case("retries:3.0")]
#[case("\"weather what's\"")]
#[case("\"answer env\"")]
#[case("...")]
fn root_does_not_match(#[case] query: &str) {
    assert!(!matches(query, true));
}

#[test]
fn child_has_parent_and_no_totals() {
    assert!(matches(
        "@parent_id:18446744073709551615 -@parent_id:undefined",
        false
    ));
    assert!(!matches("@trace.total_tokens:*", false));
    assert!(!matches("@child.@name:*", false));
}

#[test]
fn every_documented_facet_is_known() {
    for facet in [
        "ml_app",
        "status",
        "name",
        "duration",
        "trace_id",
        "span_id",
        "parent_id",
        "session_id",
        "session.id",
        "service",
        "env",
        "event_type",
        "meta.span.kind",
        "meta.span.name",
        "meta.error.type",
        "meta.model_name",
        "meta.model_provider",
        "meta.metadata.a.b",
        "metrics.input_tokens",
        "evaluations.custom.x",
        "evaluation.x.value",
        "evaluation.x.assessment",
        "feedback.x.value",
        "event_kind",
        "trace.total_tokens",
        "trace.input_tokens",
        "trace.output_tokens",
        "trace.estimated_total_cost",
        "trace.llm_calls",
        "trace.tool_calls",
        "trace.number_of_tools",
        "trace.number_of_errors",
        "trace.num_evaluations_failed",
        "child.@status",
        "collection_errors",
        "experiment_id",
        "timestamp",
        "meta.input.prompt.id",
        "meta.input.prompt.version",
    ] {
        let query = parse(&format!("@{facet}:1")).unwrap();
        assert_eq!(query.warnings(), Vec::<String>::new(), "{facet}");
    }
}
