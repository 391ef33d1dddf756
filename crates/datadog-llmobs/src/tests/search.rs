//! Searching: filters, cursors, and the APM trace id.

use serde_json::{Value, json};

use super::super::*;
use super::a_search;
use super::fake::{Fake, span};
use llmobs_core::query::combine::SpanFilters;

#[tokio::test(start_paused = true)]
async fn structured_fields_go_alone_and_a_query_takes_them_in() {
    let fake = Fake::with(vec![span(1, 60, 10)]);
    let client = fake.client();
    let filters = SpanFilters {
        ml_app: Some("shop".into()),
        ..SpanFilters::default()
    };
    let mut search = SpanSearch {
        filters,
        ..a_search()
    };
    let page = client.search_spans(&search).await.unwrap();
    assert_eq!(page.spans.len(), 1);
    search.query = Some("@status:error".into());
    client.search_spans(&search).await.unwrap();
    let filters = fake.filters();
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
async fn a_query_with_an_open_quote_is_refused_before_anything_is_sent() {
    let fake = Fake::default();
    let search = SpanSearch {
        query: Some("@name:\"open".into()),
        ..a_search()
    };
    let error = fake.client().search_spans(&search).await.unwrap_err();
    assert!(matches!(error, ClientError::BadQuery(_)), "{error}");
    assert!(fake.world().searches.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_follow_the_cursor_and_the_limit_is_kept_in_bounds() {
    let fake = Fake::with((0..5).map(|id| span(id, 60, 10)).collect());
    let client = fake.client();
    let mut search = SpanSearch {
        limit: 3,
        ..a_search()
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
    let limit = |n: usize| fake.world().searches[n]["data"]["attributes"]["page"]["limit"].clone();
    assert_eq!((limit(2), limit(3)), (json!(1), json!(500)));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_does_not_move_is_not_passed_on() {
    let fake = Fake::with(vec![span(1, 60, 10)]);
    fake.world().stuck_cursor = Some("same");
    let search = SpanSearch {
        cursor: Some("same".into()),
        ..a_search()
    };
    let page = fake.client().search_spans(&search).await.unwrap();
    assert_eq!(page.next_cursor, None);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_timed_out_is_partial_and_says_so() {
    let fake = Fake::with(vec![span(1, 60, 10)]);
    fake.world().meta_status = Some("timeout");
    let page = fake.client().search_spans(&a_search()).await.unwrap();
    assert!(page.partial);
    assert!(page.notes[0].contains("partial"), "{:?}", page.notes);
}

#[tokio::test(start_paused = true)]
async fn an_apm_trace_id_is_resolved_first_and_once() {
    let fake = Fake::with(vec![span(1, 60, 10)]);
    fake.world().private.insert(
        "search-spans",
        (
            200,
            json!({"spans": [{"trace_id": "t2"}, {"trace_id": "t1"}, {"trace_id": "t2"}]}),
        ),
    );
    let client = fake.client();
    let search = SpanSearch {
        apm_trace_id: Some("apm".into()),
        query: Some("x".into()),
        ..a_search()
    };
    client.search_spans(&search).await.unwrap();
    client.search_spans(&search).await.unwrap();
    let query = fake.filters()[0]["query"].clone();
    assert!(
        query.as_str().unwrap().contains("@trace_id:(t1 OR t2)"),
        "{query}"
    );
    let world = fake.world();
    assert_eq!(world.private_calls.len(), 1);
    assert_eq!(world.private_calls[0].1["apm_trace_id"], "apm");
}

#[tokio::test(start_paused = true)]
async fn an_apm_trace_id_that_cannot_be_resolved_finds_nothing_and_says_why() {
    let with = |status: u16, answer: Value| {
        let fake = Fake::with(vec![span(1, 60, 10)]);
        fake.world()
            .private
            .insert("search-spans", (status, answer));
        fake
    };
    let search = SpanSearch {
        apm_trace_id: Some("apm".into()),
        ..a_search()
    };
    let refused = with(404, json!({"errors": ["Not Found"]}));
    let page = refused.client().search_spans(&search).await.unwrap();
    assert!(page.spans.is_empty() && page.partial);
    assert!(page.notes[0].contains("answered 404"), "{:?}", page.notes);
    let unknown = with(200, json!({"spans": []}));
    let page = unknown.client().search_spans(&search).await.unwrap();
    assert!(page.spans.is_empty() && !page.partial);
    assert_eq!(page.notes.len(), 1);
    assert!(refused.world().searches.is_empty() && unknown.world().searches.is_empty());
}
