//! The documented span search: filters, pages, limits and attachments.

use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Answer, Local, SECOND, START, span};

const GET: &str = "/api/v2/llm-obs/v1/spans/events";

/// A backend with four spans of two applications, two traces and one session.
async fn with_four_spans() -> Local {
    let local = Local::new();
    local
        .ingest(json!([
            span(1, START, json!({"session_id": "s1", "tags": ["env:prod", "url:http://a:1"],
                "meta": {"kind": "agent", "input": {"value": "refund order A-17"}}})),
            span(2, START + SECOND, json!({"parent_id": "1", "session_id": "s1", "status": "error",
                "meta": {"kind": "tool", "error": {"type": "E", "message": "gone"}}})),
            span(3, START + 2 * SECOND, json!({"trace_id": "t2", "tags": ["env:dev"],
                "apm_trace_id": "apm-2",
                "meta": {"kind": "llm", "output": {"messages": [{"role": "assistant", "content": "hello"}]}}})),
            span(4, START + 3 * SECOND, json!({"trace_id": "t3", "ml_app": "bank", "name": "span 4"})),
        ]))
        .await;
    local
}

#[rstest]
#[case(json!({}), "span-1 span-2 span-3 span 4")]
#[case(json!({"ml_app": "shop"}), "span-1 span-2 span-3")]
#[case(json!({"ml_app": "sho"}), "")]
#[case(json!({"span_kind": "tool"}), "span-2")]
#[case(json!({"span_name": "span 4"}), "span 4")]
#[case(json!({"trace_id": "t1"}), "span-1 span-2")]
#[case(json!({"span_id": "3"}), "span-3")]
#[case(json!({"tags": {"env": "prod"}}), "span-1")]
#[case(json!({"tags": {"url": "http://a:1"}}), "span-1")]
#[case(json!({"tags": {"session_id": "s1"}}), "span-1 span-2")]
#[case(json!({"tags": {"env": "prod"}, "ml_app": "shop", "span_kind": "agent"}), "span-1")]
#[case(json!({"tags": {"env": "prod"}, "ml_app": "bank"}), "")]
#[case(json!({"query": "@ml_app:shop -@status:error"}), "span-1 span-3")]
#[case(json!({"query": "refund"}), "span-1")]
#[case(json!({"query": "hello OR @meta.error.type:E"}), "span-2 span-3")]
#[case(json!({"query": "@session_id:s1 @parent_id:undefined"}), "span-1")]
#[case(json!({"query": "@trace.number_of_errors:>0"}), "span-1")]
#[case(json!({"query": "@child.@meta.span.kind:tool"}), "span-1")]
#[case(json!({"query": "", "ml_app": "bank"}), "span 4")]
#[case(json!({"query": "@unknown:*"}), "")]
#[case(json!({"query": "@unknown:>0 OR unknown:x OR @trace.unknown:>0"}), "")]
#[case(json!({"query": "@child.@unknown:* OR @meta.unknown.deeper:*"}), "")]
#[case(json!({"query": "@ml_app:bank OR @unknown:x"}), "span 4")]
#[case(json!({"from": "2023-11-14T22:13:21Z", "to": "2023-11-14T22:13:22Z"}), "span-2 span-3")]
#[tokio::test]
async fn all_filters_must_match(#[case] filter: Value, #[case] expected: &str) {
    let found = with_four_spans().await.all(filter).await;
    assert_eq!(found.names().join(" "), expected);
}

#[tokio::test]
async fn query_overrides_structured_filters() {
    let local = with_four_spans().await;
    let filter = json!({"query": "@ml_app:shop", "ml_app": "bank", "span_kind": "llm",
        "trace_id": "t9", "tags": {"env": "nowhere"}});
    assert_eq!(local.all(filter).await.names().len(), 3);
    let path =
        format!("{GET}?filter[from]=2000-01-01&filter[query]=*&filter[ml_app]=bank&page[limit]=50");
    assert_eq!(local.get(&path).await.names().len(), 4);
}

#[rstest]
#[case("filter[ml_app]=bank", "span 4")]
#[case("filter[tag][env]=prod", "span-1")]
#[case("filter%5Bspan_kind%5D=llm", "span-3")]
#[case("filter[span_name]=span%204", "span 4")]
#[case("filter[trace_id]=t1&sort=timestamp", "span-1 span-2")]
#[case("filter[trace_id]=t1&sort=-timestamp", "span-2 span-1")]
#[case("filter[trace_id]=t1", "span-2 span-1")]
#[case("filter[span_id]=2&filter[trace_id]=t2", "")]
#[tokio::test]
async fn query_string_equals_body(#[case] question: &str, #[case] expected: &str) {
    let local = with_four_spans().await;
    let path = format!("{GET}?filter[from]=2000-01-01&{question}");
    assert_eq!(local.get(&path).await.names().join(" "), expected);
}

#[tokio::test]
async fn defaults_to_ten_newest_spans_of_fifteen_minutes() {
    let local = Local::new();
    let now = super::super::now_ms() * 1_000_000;
    let minute = 60 * SECOND;
    let spans: Vec<Value> = (0..20)
        .map(|n| {
            span(
                n,
                now - i64::try_from(n).unwrap() * minute - SECOND,
                json!({}),
            )
        })
        .collect();
    local.ingest(json!(spans)).await;
    let expected: Vec<String> = (0..10).map(|n| format!("span-{n}")).collect();
    let answer = local.get(GET).await;
    assert_eq!(answer.names(), expected);
    let next = answer.json()["links"]["next"].as_str().unwrap().to_owned();
    assert_eq!(local.get(&next).await.names().len(), 5);
}

#[tokio::test]
async fn search_response_format() {
    let local = with_four_spans().await;
    let mut answer = local.all(json!({"trace_id": "t1"})).await.json();
    answer["meta"]["elapsed"] = json!("[ms]");
    answer["meta"]["request_id"] = json!("[id]");
    insta::assert_json_snapshot!("search_answer", answer);
}

fn next(answer: &Answer) -> Option<String> {
    let after = answer.json()["meta"]["page"]["after"].clone();
    after.as_str().map(str::to_owned)
}

#[tokio::test]
async fn pages_show_each_span_once_during_ingest() {
    let local = Local::new();
    let old: Vec<Value> = (0..30)
        .map(|n| span(n, START + (n / 4) as i64, json!({})))
        .collect();
    local.ingest(json!(old)).await;
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for round in 0..100u64 {
        let answer = local
            .search(json!({}), json!({"limit": 4, "cursor": cursor}))
            .await;
        seen.extend(answer.names());
        cursor = next(&answer);
        if cursor.is_none() {
            break;
        }
        if round < 5 {
            let late = span(
                100 + round,
                START + i64::try_from(round).unwrap(),
                json!({}),
            );
            local.ingest(json!([late])).await;
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len());
    assert!(
        old.iter()
            .all(|span| seen.iter().any(|name| span["name"] == **name))
    );
}

#[tokio::test]
async fn refuses_cursor_of_another_search() {
    let local = with_four_spans().await;
    let first = local
        .search(json!({"ml_app": "shop"}), json!({"limit": 1}))
        .await;
    let cursor = next(&first).unwrap();
    let page = json!({"limit": 2, "cursor": cursor});
    let second = local.search(json!({"ml_app": "shop"}), page.clone()).await;
    assert_eq!(second.names(), ["span-2", "span-3"]);
    for other in [
        json!({"ml_app": "bank"}),
        json!({"ml_app": "shop", "span_kind": "llm"}),
        json!({"query": "@ml_app:shop"}),
        json!({"ml_app": "shop", "from": "now-7d"}),
        json!({"ml_app": "shop", "from": "2001-01-01T00:00:00Z"}),
    ] {
        let refused = local.search(other.clone(), page.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{other}");
        assert!(refused.detail().contains("another request"));
    }
    let junk = local.search(json!({}), json!({"cursor": "AAAA"})).await;
    assert_eq!(junk.status, StatusCode::BAD_REQUEST);
}

#[rstest]
#[case("page[limit]=5001", "1 to 5000")]
#[case("page[limit]=0", "1 to 5000")]
#[case("page[limit]=-3", "1 to 5000")]
#[case("page[limit]=ten", "1 to 5000")]
#[case("sort=name", "-timestamp")]
#[case("filter[session_id]=x", "unknown filter")]
#[case("filter[from]=yesterdayish", "yesterdayish")]
#[case("filter[query]=%22open", "invalid query")]
#[case("include_attachments=maybe", "true or false")]
#[tokio::test]
async fn invalid_searches_are_bad_requests(#[case] question: &str, #[case] expected: &str) {
    let answer = Local::new().get(&format!("{GET}?{question}")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let detail = answer.detail();
    assert!(detail.contains(expected), "{detail}");
}

#[rstest]
#[case("@status:error AND (@name:a OR @name:b", 18)]
#[case("@status:error)", 13)]
#[case("@duration:>fast", 11)]
#[case("@status:", 8)]
#[case("a OR", 4)]
#[case("\"timed out", 0)]
#[tokio::test]
async fn query_error_names_position(#[case] query: &str, #[case] position: usize) {
    let local = with_four_spans().await;
    let search = local.all(json!({"query": query})).await;
    let question = json!({"query": query, "window": {"from_ms": 0, "to_ms": 1}, "limit": 1});
    let path = "/api/unstable/llm-obs-mcp/v1/trace/aggregate";
    for answer in [search, local.post(path, &question).await] {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let detail = answer.detail();
        assert!(
            detail.contains(&format!("(at byte {position} of the query)")),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn refuses_undocumented_bodies() {
    let local = Local::new();
    for body in [
        json!([]),
        json!({"data": {"type": "span", "attributes": {}}}),
        json!({"data": {"attributes": {}}}),
        json!({"data": {"type": "spans", "attributes": {"filter": []}}}),
        json!({"data": {"type": "spans", "attributes": {"filter": {"mlapp": "x"}}}}),
        json!({"data": {"type": "spans", "attributes": {"page": {"limit": "5"}}}}),
        json!({"data": {"type": "spans", "attributes": {"filter": {"ml_app": ["x"]}}}}),
    ] {
        let answer = local.post(&format!("{GET}/search"), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        answer.detail();
    }
    let fine = local
        .post(
            &format!("{GET}/search"),
            &json!({"data": {"type": "spans"}}),
        )
        .await;
    assert_eq!(fine.status, StatusCode::OK);
}

#[tokio::test]
async fn omits_attachments_on_request() {
    let local = Local::new();
    let big = "x".repeat(26 * 1024);
    local
        .ingest(json!([span(
            1,
            START,
            json!({"meta": {"kind": "task",
            "input": {"value": big}, "output": {"value": "small"}}})
        )]))
        .await;
    let path = format!("{GET}?filter[from]=2000-01-01");
    let whole = local.get(&path).await.spans();
    assert_eq!(
        whole[0]["input"]["value"].as_str().unwrap().len(),
        big.len()
    );
    let cut = local
        .get(&format!("{path}&include_attachments=false"))
        .await
        .spans();
    assert_eq!(cut[0]["input"], json!({"attachment_key": "t1/1/input"}));
    assert_eq!(cut[0]["output"], json!({"value": "small"}));
}

#[tokio::test]
async fn refuses_page_above_byte_limit() {
    let local = Local::with(|options| options.page_bytes = 5_000);
    let text = "x".repeat(3_000);
    let content = json!({"meta": {"kind": "task", "input": {"value": text}}});
    local
        .ingest(json!([
            span(1, START, content.clone()),
            span(2, START, content)
        ]))
        .await;
    let refused = local.search(json!({}), json!({"limit": 2})).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(refused.detail().contains("page[limit]"));
    let one = local.search(json!({}), json!({"limit": 1})).await;
    assert_eq!(one.names(), ["span-1"]);
}

#[tokio::test]
async fn search_out_of_time_returns_cursor() {
    let local = Local::with(|options| options.search_budget = std::time::Duration::ZERO);
    local
        .ingest(json!([
            span(1, START, json!({})),
            span(2, START + 1, json!({}))
        ]))
        .await;
    let first = local.search(json!({}), json!({"limit": 10})).await;
    assert_eq!(first.json()["meta"]["status"], "timeout");
    let cursor = next(&first).unwrap();
    let second = local
        .search(json!({}), json!({"limit": 10, "cursor": cursor}))
        .await;
    assert_eq!(second.json()["meta"]["status"], "done");
    assert_eq!(
        [first.names(), second.names()].concat(),
        ["span-1", "span-2"]
    );
}

#[tokio::test]
async fn private_endpoints_return_error_details_and_documents() {
    let local = Local::new();
    local.replay("01-py-sdk-manual-agentless").await;
    let spans = local.all(json!({})).await.spans();
    let failed = spans.iter().find(|span| span["status"] == "error").unwrap();
    let found = local
        .post(
            "/api/unstable/llm-obs-mcp/v1/trace/find-error-spans",
            &json!({"trace_id": failed["trace_id"]}),
        )
        .await
        .json();
    let entry = &found["error_spans"][0];
    assert!(!entry["error"]["message"].as_str().unwrap().is_empty());
    assert!(!entry["error"]["stack"].as_str().unwrap().is_empty());
    let retrieval = spans
        .iter()
        .find(|span| span["span_kind"] == "retrieval")
        .unwrap();
    let content = local
        .post(
            "/api/unstable/llm-obs-mcp/v1/trace/span-content",
            &json!({"trace_id": retrieval["trace_id"], "span_id": retrieval["span_id"], "field": "documents"}),
        )
        .await
        .json();
    assert!(content["content"][0]["text"].is_string(), "{content}");
}

#[tokio::test]
async fn private_endpoints_find_spans_and_report_missing_ones() {
    let local = with_four_spans().await;
    let base = "/api/unstable/llm-obs-mcp/v1/trace";
    let ask = async |path: &str, body: Value| local.post(&format!("{base}/{path}"), &body).await;
    let found = ask("search-spans", json!({"apm_trace_id": "apm-2", "limit": 1}))
        .await
        .json();
    assert_eq!(found["spans"][0]["trace_id"], "t2");
    assert_eq!(found["next_cursor"], Value::Null);
    let first = ask("search-spans", json!({"trace_id": "t1", "limit": 1}))
        .await
        .json();
    assert_eq!(first["spans"][0]["span_id"], "2");
    let rest = json!({"trace_id": "t1", "limit": 1, "cursor": first["next_cursor"]});
    assert_eq!(
        ask("search-spans", rest).await.json()["spans"][0]["span_id"],
        "1"
    );
    let both = json!({"query": "@ml_app:shop", "ml_app": "bank", "from": "2000-01-01"});
    assert_eq!(ask("search-spans", both).await.json()["spans"], json!([]));
    let missing = ask("find-error-spans", json!({"trace_id": "t9"})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(
        missing.json(),
        json!({"detail": "no spans found for trace t9"})
    );
    let missing = ask(
        "span-content",
        json!({"trace_id": "t1", "span_id": "9", "field": "input"}),
    )
    .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json(), json!({"detail": "span not found: 9"}));
    let text = ask(
        "span-content",
        json!({"trace_id": "t2", "span_id": 3, "field": "output"}),
    )
    .await;
    assert_eq!(text.json()["content"], "hello");
    for bad in [
        json!({"trace_id": "t1", "span_id": "1"}),
        json!({"trace_id": "t1", "span_id": "1", "field": "x"}),
    ] {
        assert_eq!(
            ask("span-content", bad).await.status,
            StatusCode::BAD_REQUEST
        );
    }
}
