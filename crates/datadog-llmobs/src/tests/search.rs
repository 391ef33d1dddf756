//! The span search: filters, page tokens and APM trace ids.

use serde_json::{Value, json};

use super::super::*;
use super::search_request;
use super::upstream::{TestUpstream, span};
use llmobs_core::query::combine::SpanFilters;

#[tokio::test(start_paused = true)]
async fn query_includes_structured_filters() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
    let client = upstream.client();
    let filters = SpanFilters {
        ml_app: Some("shop".into()),
        ..SpanFilters::default()
    };
    let mut search = SpanSearch {
        filters,
        ..search_request()
    };
    let page = client.search_spans(&search).await.unwrap();
    assert_eq!(page.spans.len(), 1);
    search.query = Some("@status:error".into());
    client.search_spans(&search).await.unwrap();
    let filters = upstream.filters();
    assert_eq!(filters[0]["ml_app"], "shop");
    assert_eq!(filters[0].get("query"), None);
    assert_eq!(filters[1].get("ml_app"), None);
    let query = filters[1]["query"].as_str().unwrap();
    assert!(
        query.contains("@status:error") && query.contains("shop"),
        "{query}"
    );
}

#[tokio::test(start_paused = true)]
async fn unbalanced_query_is_not_sent() {
    let upstream = TestUpstream::default();
    let search = SpanSearch {
        query: Some("@name:\"open".into()),
        ..search_request()
    };
    let error = upstream.client().search_spans(&search).await.unwrap_err();
    assert!(matches!(error, ClientError::BadQuery(_)), "{error}");
    assert!(upstream.state().searches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn follows_cursor_and_clamps_limit() {
    let upstream = TestUpstream::with_spans((0..5).map(|id| span(id, 60, 10)).collect());
    let client = upstream.client();
    let mut search = SpanSearch {
        limit: 3,
        ..search_request()
    };
    let first = client.search_spans(&search).await.unwrap();
    assert_eq!((first.spans.len(), first.partial), (3, false));
    search.cursor = first.next_cursor;
    let second = client.search_spans(&search).await.unwrap();
    assert_eq!((second.spans.len(), second.next_cursor), (2, None));
    search.limit = 0;
    client.search_spans(&search).await.unwrap();
    search.limit = 9_999;
    client.search_spans(&search).await.unwrap();
    let limit =
        |n: usize| upstream.state().searches[n]["data"]["attributes"]["page"]["limit"].clone();
    assert_eq!((limit(2), limit(3)), (json!(1), json!(500)));
}

#[tokio::test(start_paused = true)]
async fn drops_repeated_cursor() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
    upstream.state().stuck_cursor = Some("same");
    let search = SpanSearch {
        cursor: Some("same".into()),
        ..search_request()
    };
    let page = upstream.client().search_spans(&search).await.unwrap();
    assert_eq!(page.next_cursor, None);
}

#[tokio::test(start_paused = true)]
async fn timed_out_page_is_partial() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
    upstream.state().meta_status = Some("timeout");
    let page = upstream
        .client()
        .search_spans(&search_request())
        .await
        .unwrap();
    assert!(page.partial);
    assert!(page.notes[0].contains("partial"), "{:?}", page.notes);
}

#[tokio::test(start_paused = true)]
async fn resolves_apm_trace_id_once() {
    let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
    upstream.state().private.insert(
        "search-spans",
        (
            200,
            json!({"spans": [{"trace_id": "t2"}, {"trace_id": "t1"}, {"trace_id": "t2"}]}),
        ),
    );
    let client = upstream.client();
    let search = SpanSearch {
        apm_trace_id: Some("apm".into()),
        query: Some("x".into()),
        ..search_request()
    };
    client.search_spans(&search).await.unwrap();
    client.search_spans(&search).await.unwrap();
    let query = upstream.filters()[0]["query"].clone();
    assert!(
        query.as_str().unwrap().contains("@trace_id:(t1 OR t2)"),
        "{query}"
    );
    let state = upstream.state();
    assert_eq!(state.private_calls.len(), 1);
    assert_eq!(state.private_calls[0].1["apm_trace_id"], "apm");
}

#[tokio::test(start_paused = true)]
async fn unresolved_apm_trace_id_returns_no_spans() {
    let with = |status: u16, answer: Value| {
        let upstream = TestUpstream::with_spans(vec![span(1, 60, 10)]);
        upstream
            .state()
            .private
            .insert("search-spans", (status, answer));
        upstream
    };
    let search = SpanSearch {
        apm_trace_id: Some("apm".into()),
        ..search_request()
    };
    let refused = with(404, json!({"errors": ["Not Found"]}));
    let page = refused.client().search_spans(&search).await.unwrap();
    assert!(page.spans.is_empty() && page.partial);
    assert!(page.notes[0].contains("returned 404"), "{:?}", page.notes);
    let unknown = with(200, json!({"spans": []}));
    let page = unknown.client().search_spans(&search).await.unwrap();
    assert!(page.spans.is_empty() && !page.partial);
    assert_eq!(page.notes.len(), 1);
    assert!(refused.state().searches.is_empty() && unknown.state().searches.is_empty());
}
