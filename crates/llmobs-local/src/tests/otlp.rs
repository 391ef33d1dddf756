//! OpenTelemetry traces of real exporters in both encodings, and OTLP errors.

use http::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use serde_json::{Value, json};

use super::{Answer, Local, capture_records, gzip};
use crate::BodyLimits;

const PATH: &str = "/v1/traces";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_str()
        .map_or(0, |digits| digits.parse().unwrap())
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    let digits = text(value, key);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}

fn any(value: &Value) -> AnyValue {
    let (key, inner) = value.as_object().unwrap().iter().next().unwrap();
    let value = match key.as_str() {
        "stringValue" => Any::StringValue(inner.as_str().unwrap().to_owned()),
        "intValue" => Any::IntValue(inner.as_str().unwrap().parse().unwrap()),
        "doubleValue" => Any::DoubleValue(inner.as_f64().unwrap()),
        "boolValue" => Any::BoolValue(inner.as_bool().unwrap()),
        "arrayValue" => Any::ArrayValue(ArrayValue {
            values: list(inner, "values").map(any).collect(),
        }),
        other => panic!("{other}"),
    };
    AnyValue { value: Some(value) }
}

fn attributes(value: &Value) -> Vec<KeyValue> {
    list(value, "attributes")
        .map(|pair| KeyValue {
            key: text(pair, "key"),
            value: Some(any(&pair["value"])),
            ..KeyValue::default()
        })
        .collect()
}

fn span_of(span: &Value) -> Span {
    let event = |event: &Value| Event {
        time_unix_nano: number(event, "timeUnixNano"),
        name: text(event, "name"),
        attributes: attributes(event),
        ..Event::default()
    };
    let link = |link: &Value| Link {
        trace_id: bytes(link, "traceId"),
        span_id: bytes(link, "spanId"),
        attributes: attributes(link),
        ..Link::default()
    };
    Span {
        trace_id: bytes(span, "traceId"),
        span_id: bytes(span, "spanId"),
        parent_span_id: bytes(span, "parentSpanId"),
        name: text(span, "name"),
        start_time_unix_nano: number(span, "startTimeUnixNano"),
        end_time_unix_nano: number(span, "endTimeUnixNano"),
        attributes: attributes(span),
        events: list(span, "events").map(event).collect(),
        links: list(span, "links").map(link).collect(),
        status: Some(Status {
            message: text(&span["status"], "message"),
            code: match span["status"]["code"].as_str() {
                Some("STATUS_CODE_ERROR") => 2,
                Some("STATUS_CODE_OK") => 1,
                _ => 0,
            },
        }),
        ..Span::default()
    }
}

/// A captured export as protobuf.
fn protobuf_of(body: &Value) -> Vec<u8> {
    let scope = |scope: &Value| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: text(&scope["scope"], "name"),
            ..InstrumentationScope::default()
        }),
        spans: list(scope, "spans").map(span_of).collect(),
        ..ScopeSpans::default()
    };
    let resource = |part: &Value| ResourceSpans {
        resource: Some(Resource {
            attributes: attributes(&part["resource"]),
            ..Resource::default()
        }),
        scope_spans: list(part, "scopeSpans").map(scope).collect(),
        ..ResourceSpans::default()
    };
    let resource_spans = list(body, "resourceSpans").map(resource).collect();
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Headers, body, and the expected status and gRPC code.
type Case<'a> = (&'a [(&'a str, &'a str)], Vec<u8>, u16, i32);

/// A span with plain attributes.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write `json!` in place"
)]
fn span(id: u8, parent: u8, attributes: Value) -> Value {
    let hex = |id: u8| {
        if id == 0 {
            String::new()
        } else {
            format!("{id:016x}")
        }
    };
    let pairs: Vec<Value> = attributes
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(_) => json!({"stringValue": value}),
                Value::Number(number) if number.is_f64() => json!({"doubleValue": value}),
                Value::Array(items) => {
                    let items: Vec<Value> = items
                        .iter()
                        .map(|item| json!({"stringValue": item}))
                        .collect();
                    json!({"arrayValue": {"values": items}})
                }
                other => json!({"intValue": other.to_string()}),
            };
            json!({"key": key, "value": value})
        })
        .collect();
    json!({"traceId": TRACE, "spanId": hex(id), "parentSpanId": hex(parent),
        "name": format!("span-{id}"), "startTimeUnixNano": (1_700_000_000_000_000_000_u64 + u64::from(id)).to_string(),
        "endTimeUnixNano": "1700000000000005000", "attributes": pairs})
}

fn body(spans: &[Value]) -> Value {
    let service = json!({"key": "service.name", "value": {"stringValue": "shop"}});
    json!({"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": spans}]}]})
}

impl Local {
    async fn export(&self, spans: &[Value]) -> Answer {
        let body = body(spans).to_string().into_bytes();
        self.raw(Method::POST, PATH, &[JSON], body).await
    }

    /// The name and parent id of each span.
    async fn parents(&self) -> Vec<(String, String)> {
        let spans = self.all(json!({})).await.spans();
        spans
            .iter()
            .map(|span| (text(span, "name"), text(span, "parent_id")))
            .collect()
    }
}

#[tokio::test]
async fn both_encodings_store_same_spans() {
    for capture in ["30-otlp-custom", "30-otlp-openai_v2"] {
        let (as_json, as_protobuf) = (Local::new(), Local::new());
        for record in capture_records(capture) {
            let sent = &record["body"];
            let ml_app = record["headers"]["dd-ml-app"].as_str().unwrap();
            let app = ("dd-ml-app", ml_app);
            let json = sent.to_string().into_bytes();
            let answer = as_json.raw(Method::POST, PATH, &[JSON, app], json).await;
            assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({})));
            let packed = gzip(&protobuf_of(sent));
            let headers = [PROTOBUF, app, ("content-encoding", "gzip")];
            let answer = as_protobuf.raw(Method::POST, PATH, &headers, packed).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert!(
                answer.body.is_empty(),
                "all spans are stored: {:?}",
                answer.body
            );
        }
        let spans = as_json.all(json!({})).await.spans();
        assert_eq!(as_protobuf.all(json!({})).await.spans(), spans);
        insta::assert_json_snapshot!(capture, spans);
    }
}

#[tokio::test]
async fn maps_open_inference_spans() {
    let local = Local::new();
    let answer = local
        .export(&[
            span(1, 0, json!({"openinference.span.kind": "CHAIN", "input.value": "q", "output.value": "a",
                "session.id": "s1", "user.id": "u1", "tag.tags": ["tier:gold"], "metadata": "{\"k\":{\"n\":1}}"})),
            span(2, 1, json!({"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o", "llm.provider": "openai",
                "llm.invocation_parameters": "{\"temperature\":0.2}", "input.value": "{\"messages\":[]}",
                "llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "Be brief.",
                "llm.input_messages.1.message.role": "user",
                "llm.input_messages.1.message.contents.0.message_content.type": "text",
                "llm.input_messages.1.message.contents.0.message_content.text": "Weather?",
                "llm.output_messages.0.message.role": "assistant",
                "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c1",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "weather",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{\"city\":\"Paris\"}",
                "llm.tools.0.tool.json_schema": "{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"w\",\"parameters\":{\"type\":\"object\"}}}",
                "llm.token_count.prompt": 12, "llm.token_count.completion": 7, "llm.token_count.total": 19,
                "llm.token_count.prompt_details.cache_read": 3, "llm.token_count.completion_details.reasoning": 2,
                "llm.cost.total": 0.000_123_4})),
            span(3, 1, json!({"openinference.span.kind": "RETRIEVER", "input.value": "q",
                "retrieval.documents.0.document.content": "text", "retrieval.documents.0.document.id": "d1",
                "retrieval.documents.0.document.score": 0.5, "retrieval.documents.0.document.metadata": "{\"page\":3}"})),
            span(4, 1, json!({"openinference.span.kind": "EMBEDDING", "embedding.model_name": "e", "llm.system": "openai",
                "embedding.embeddings.0.embedding.text": "hello"})),
            span(5, 1, json!({"openinference.span.kind": "TOOL", "tool.name": "weather", "tool_call.id": "c1",
                "input.value": "{\"city\":\"Paris\"}", "output.value": "18C"})),
        ])
        .await;
    assert_eq!(answer.json(), json!({}));
    insta::assert_json_snapshot!(local.all(json!({})).await.spans());
}

#[tokio::test]
async fn maps_open_llmetry_spans_and_message_events() {
    let local = Local::new();
    let mut with_events = span(
        3,
        1,
        json!({"gen_ai.operation.name": "chat", "gen_ai.system": "openai", "gen_ai.request.model": "m"}),
    );
    let event = |name: &str, pairs: Value| {
        json!({"name": name, "timeUnixNano": "7",
        "attributes": span(9, 0, pairs)["attributes"]})
    };
    with_events["events"] = json!([
        event(
            "gen_ai.user.message",
            json!({"gen_ai.system": "openai", "content": "hi"})
        ),
        event("gen_ai.tool.message", json!({"id": "c1", "content": "18C"})),
        event(
            "gen_ai.choice",
            json!({"index": 0, "finish_reason": "stop", "message": "{\"content\":\"yes\"}"})
        ),
        event("something.else", json!({"a": 1})),
    ]);
    local
        .export(&[
            span(1, 0, json!({"traceloop.span.kind": "agent", "traceloop.entity.name": "a", "traceloop.entity.input": "{\"x\":1}"})),
            span(2, 1, json!({"llm.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.request.model": "gpt-4o",
                "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Weather?",
                "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.finish_reason": "tool_calls",
                "gen_ai.completion.0.tool_calls.0.id": "c1", "gen_ai.completion.0.tool_calls.0.name": "weather",
                "gen_ai.completion.0.tool_calls.0.arguments": "{\"city\":\"Paris\"}",
                "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": 7, "llm.usage.total_tokens": 19,
                "llm.request.functions.0.name": "weather", "llm.request.functions.0.parameters": "{\"type\":\"object\"}"})),
            with_events,
        ])
        .await;
    insta::assert_json_snapshot!(local.all(json!({})).await.spans());
}

#[tokio::test]
async fn stores_unlisted_kinds_and_message_parts() {
    let local = Local::new();
    let event = |name: &str, pairs: Value| json!({"name": name, "timeUnixNano": "7", "attributes": span(9, 0, pairs)["attributes"]});
    let mut old = span(
        5,
        0,
        json!({"llm.request.type": "chat", "gen_ai.request.model": "m"}),
    );
    old["events"] = json!([
        event(
            "gen_ai.content.prompt",
            json!({"gen_ai.prompt": "hi", "trimmed": 1})
        ),
        event(
            "gen_ai.choice",
            json!({"gen_ai.system": "openai", "message": "{\"content\":\"yes\"}"})
        ),
        event(
            "gen_ai.choice",
            json!({"gen_ai.system": "another", "message": "{\"content\":\"no\"}"})
        ),
    ]);
    local
        .export(&[
            span(
                1,
                0,
                json!({"openinference.span.kind": "GUARDRAIL", "tag.tags": "one, two"}),
            ),
            span(2, 0, json!({"gen_ai.operation.name": "plan"})),
            span(3, 0, json!({"traceloop.span.kind": "session"})),
            span(
                4,
                0,
                json!({"llm.request.type": "moderation",
                "retrieval.documents.0.document.content": "text", "retrieval.documents.0.rank": 3,
                "retrieval.documents.1.document": "no object"}),
            ),
            old,
        ])
        .await;
    let spans = local.all(json!({})).await.spans();
    let by_tag = |tag: &str| {
        let has = |span: &&Value| span["tags"].as_array().unwrap().contains(&json!(tag));
        spans
            .iter()
            .find(has)
            .unwrap_or_else(|| panic!("{tag} in {spans:?}"))
    };
    for tag in [
        "openinference.span.kind:GUARDRAIL",
        "operation.name:plan",
        "traceloop.span.kind:session",
        "llm.request.type:moderation",
    ] {
        assert_eq!(by_tag(tag)["span_kind"], "workflow");
    }
    let guard = by_tag("openinference.span.kind:GUARDRAIL");
    assert!(
        guard["tags"]
            .as_array()
            .unwrap()
            .contains(&json!("tag.tags:one, two"))
    );
    assert_eq!(
        guard["collection_errors"],
        json!(["otel_warning_unmapped_tag_tags"])
    );
    let documents = &by_tag("llm.request.type:moderation")["output"]["documents"];
    assert_eq!(
        documents,
        &json!([{"rank": 3, "text": "text"}, {"document": "no object"}])
    );
    let call = spans
        .iter()
        .find(|span| span["span_kind"] == "llm")
        .unwrap();
    assert_eq!(call["model_provider"], "openai", "from an event");
    assert_eq!(call["output"]["messages"][0]["content"], "yes");
    let other = &call["output"]["messages"][1];
    assert_eq!(
        (&other["content"], &other["gen_ai.system"]),
        (&json!("no"), &json!("another"))
    );
    let event = &call["extra"]["otel"]["events"][0];
    assert_eq!(
        (&event["name"], &event["attributes"]),
        (&json!("gen_ai.content.prompt"), &json!({"trimmed": 1}))
    );
}

#[tokio::test]
async fn unmapped_attributes_are_searchable() {
    let local = Local::new();
    let long = "x".repeat(300);
    let mut odd = span(
        1,
        0,
        json!({"gen_ai.operation.name": "chat", "gen_ai.input.messages": "not json",
        "gen_ai.agent.name": long, "gen_ai.unknown": ["a", "b"], "plain": 5}),
    );
    odd["status"] = json!({"code": 1});
    odd["endTimeUnixNano"] = json!("5");
    let answer = local.export(&[odd]).await;
    assert_eq!(answer.json(), json!({}));
    let spans = local
        .all(json!({"query": "@collection_errors:otel_warning_missing_model_name"}))
        .await
        .spans();
    let found = &spans[0];
    assert_eq!(found["status"], "ok");
    assert_eq!(found["duration"], 0);
    assert_eq!(
        found["collection_errors"],
        json!([
            "otel_warning_end_before_start",
            "otel_warning_missing_model_provider",
            "otel_warning_missing_model_name",
            "otel_warning_unreadable_input_messages"
        ])
    );
    assert_eq!(found["model_name"], "unknown");
    assert_eq!(found["input"]["messages"][0]["content"], "not json");
    assert_eq!(
        found["extra"]["otel"]["attributes"],
        json!({"gen_ai.agent.name": long, "gen_ai.unknown": ["a", "b"]})
    );
    let tags = found["tags"].as_array().unwrap();
    assert!(tags.contains(&json!("plain:5")));
    assert!(tags.contains(&json!(format!("agent.name:{}", "x".repeat(256)))));
}

#[tokio::test]
async fn skips_other_spans_and_links_across_them_in_any_order() {
    let web = |id, parent| span(id, parent, json!({"http.route": "/"}));
    let agent = span(2, 1, json!({"gen_ai.operation.name": "invoke_agent"}));
    let chat = span(4, 3, json!({"gen_ai.operation.name": "chat"}));
    let expected = [
        ("span-2".to_owned(), "undefined".to_owned()),
        ("span-4".to_owned(), "2".to_owned()),
    ];
    let orders: [Vec<Vec<Value>>; 4] = [
        vec![vec![web(1, 0), agent.clone(), web(3, 2), chat.clone()]],
        vec![
            vec![chat.clone()],
            vec![web(3, 2)],
            vec![agent.clone()],
            vec![web(1, 0)],
        ],
        vec![
            vec![web(1, 0)],
            vec![agent.clone()],
            vec![web(3, 2)],
            vec![chat.clone()],
        ],
        vec![vec![chat, web(1, 0)], vec![agent, web(3, 2)]],
    ];
    for order in orders {
        let local = Local::new();
        for spans in &order {
            let answer = local.export(spans).await;
            assert_eq!(answer.status, StatusCode::OK);
            let skipped = spans
                .iter()
                .filter(|span| span["attributes"][0]["key"] == "http.route")
                .count();
            if skipped > 0 {
                let success = &answer.json()["partialSuccess"];
                assert_eq!(success["rejectedSpans"], "0");
                let words = format!("{skipped} of {} spans have no gen_ai", spans.len());
                assert!(
                    success["errorMessage"]
                        .as_str()
                        .unwrap()
                        .starts_with(&words)
                );
            }
        }
        assert_eq!(local.parents().await, expected);
    }
}

#[tokio::test]
async fn stores_valid_spans_and_counts_rejected_ones() {
    let local = Local::new();
    let good = span(1, 0, json!({"gen_ai.operation.name": "chat"}));
    let bad = span(0, 0, json!({"gen_ai.operation.name": "chat"}));
    let sent = body(&[good, bad.clone()]);
    let answer = local
        .raw(Method::POST, PATH, &[PROTOBUF], protobuf_of(&sent))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let read = ExportTraceServiceResponse::decode(answer.body).unwrap();
    let success = read.partial_success.unwrap();
    assert_eq!(success.rejected_spans, 1);
    assert_eq!(
        success.error_message,
        "span 1: `spanId` must be 8 bytes that are not all zero"
    );
    assert_eq!(local.all(json!({})).await.names(), ["span-1"]);

    let answer = local.export(&[bad]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["code"], 3);
}

#[tokio::test]
async fn application_is_header_or_service_name() {
    let local = Local::new();
    let sent = |id| body(&[span(id, 0, json!({"gen_ai.operation.name": "chat"}))]);
    let app = ("dd-ml-app", "named");
    local
        .raw(
            Method::POST,
            PATH,
            &[JSON, app],
            sent(1).to_string().into_bytes(),
        )
        .await;
    local
        .raw(
            Method::POST,
            PATH,
            &[JSON],
            sent(2).to_string().into_bytes(),
        )
        .await;
    let mut nameless = sent(3);
    nameless["resourceSpans"][0]["resource"] = Value::Null;
    local
        .raw(
            Method::POST,
            PATH,
            &[JSON],
            nameless.to_string().into_bytes(),
        )
        .await;
    let spans = local.all(json!({})).await.spans();
    let apps: Vec<&Value> = spans.iter().map(|span| &span["ml_app"]).collect();
    assert_eq!(apps, ["named", "shop", "unknown_service"]);
    assert_eq!(spans[0]["service"], "shop");
}

#[tokio::test]
async fn errors_use_encoding_of_request() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let local = Local::with(|options| {
        options.body_limits = BodyLimits {
            max_encoded_bytes: 100_000,
            max_decoded_bytes: 1_000_000,
        };
    });
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let bomb = gzip(&vec![b' '; 1_000_001]);
    let cases: [Case<'_>; 8] = [
        (&[JSON], b"{".to_vec(), 400, 3),
        (&[JSON], b"{\"resourceSpans\":NaN}".to_vec(), 400, 3),
        (&[JSON], b"\"\xff\"".to_vec(), 400, 3),
        (&[JSON], deep.into_bytes(), 400, 3),
        (&[JSON], vec![b' '; 100_001], 413, 8),
        (&[PROTOBUF], b"\x0a\xff".to_vec(), 400, 3),
        (&[PROTOBUF, ("content-encoding", "gzip")], bomb, 413, 8),
        (&[("content-type", "text/plain")], b"{}".to_vec(), 415, 3),
    ];
    for (headers, sent, status, code) in cases {
        let answer = local.raw(Method::POST, PATH, headers, sent).await;
        assert_eq!(answer.status, status);
        let rpc_status = if headers[0] == PROTOBUF {
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            RpcStatus::decode(answer.body).unwrap()
        } else {
            assert_eq!(answer.headers["content-type"], "application/json");
            let rpc_status = answer.json();
            RpcStatus {
                code: i32::try_from(rpc_status["code"].as_i64().unwrap()).unwrap(),
                message: text(&rpc_status, "message"),
            }
        };
        assert_eq!(rpc_status.code, code, "{}", rpc_status.message);
        assert!(!rpc_status.message.is_empty());
    }
    assert_eq!(local.backend.stats().unwrap().spans, 0);
}
