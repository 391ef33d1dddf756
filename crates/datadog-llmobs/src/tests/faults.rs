//! Failures of HTTP, over real connections.

use std::error::Error;
use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::*;
use super::{fast, http_client, search_request};

const GOOD: &str = r#"{"data":[{"attributes":{"span_id":"1"}}],"meta":{"status":"done"}}"#;

/// A server that returns `first` the given number of times, then success responses.
async fn server(first: ResponseTemplate, times: u64) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(first)
        .up_to_n_times(times)
        .mount(&server)
        .await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_string(GOOD))
        .mount(&server)
        .await;
    server
}

async fn requests(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

async fn failed_search(server: &MockServer) -> ClientError {
    http_client(&server.uri(), fast())
        .search_spans(&search_request())
        .await
        .unwrap_err()
}

#[rstest]
#[case(
    400,
    r#"{"errors":[{"title":"Bad","detail":"unknown facet"}]}"#,
    "Bad: unknown facet"
)]
#[case(401, r#"{"errors":["Unauthorized"]}"#, "401 (unauthorized)")]
#[case(
    403,
    r#"{"errors":["missing llm_observability_read"]}"#,
    "llm_observability_read"
)]
#[case(404, r#"{"reason":"not enabled"}"#, "404 (not found)")]
#[case(
    422,
    r#"{"detail":"limit must be positive"}"#,
    "limit must be positive"
)]
#[tokio::test]
async fn client_error_is_not_retried(#[case] status: u16, #[case] body: &str, #[case] words: &str) {
    let server = server(ResponseTemplate::new(status).set_body_string(body), 9).await;
    let error = failed_search(&server).await;
    assert_eq!(error.status(), Some(status));
    assert!(error.to_string().contains(words), "{error}");
    assert!(!error.hint().is_empty());
    assert_eq!(requests(&server).await, 1);
}

#[tokio::test]
async fn halves_too_large_search_page() {
    let server = server(ResponseTemplate::new(413), 2).await;
    let page = http_client(&server.uri(), fast())
        .search_spans(&search_request())
        .await
        .unwrap();
    assert_eq!(page.spans.len(), 1);
    assert_eq!(requests(&server).await, 3);
}

#[rstest]
#[case(500, "{}")]
#[case(502, "<html><head><title>502 Bad Gateway</title></head></html>")]
#[case(503, "")]
#[case(408, "")]
#[tokio::test]
async fn server_error_is_tried_three_times(#[case] status: u16, #[case] body: &str) {
    let answer = ResponseTemplate::new(status).set_body_string(body);
    let recovering = server(answer.clone(), 2).await;
    let client = http_client(&recovering.uri(), fast());
    assert_eq!(
        client
            .search_spans(&search_request())
            .await
            .unwrap()
            .spans
            .len(),
        1
    );
    let broken = server(answer, 9).await;
    let error = failed_search(&broken).await;
    assert_eq!(error.status(), Some(status));
    assert_eq!(requests(&broken).await, 3);
    assert!(
        error.to_string().contains("after 3 attempts in "),
        "{error}"
    );
    if status == 502 {
        assert!(
            error.to_string().contains("titled \"502 Bad Gateway\""),
            "{error}"
        );
    }
}

#[rstest]
#[case("x-ratelimit-reset", "120")]
#[case("retry-after", "120")]
#[case("retry-after", "Tue, 19 Jan 2038 03:14:07 GMT")]
#[tokio::test]
async fn rate_limit_beyond_deadline_fails_at_once(#[case] name: &str, #[case] value: &str) {
    let answer = ResponseTemplate::new(429)
        .insert_header(name, value)
        .set_body_string(r#"{"errors":["Too many requests"]}"#);
    let server = server(answer, 9).await;
    let client = http_client(&server.uri(), fast());
    let error = client.search_spans(&search_request()).await.unwrap_err();
    assert!(error.to_string().contains("rate_limited"), "{error}");
    assert_eq!(error.status(), Some(429));
    assert!(error.retry_after_seconds().unwrap() >= 119);
    // The bucket is blocked for the next call too, which sends no request.
    let error = client
        .for_call()
        .search_spans(&search_request())
        .await
        .unwrap_err();
    assert!(error.retry_after_seconds().unwrap() >= 100);
    assert_eq!(requests(&server).await, 1);
}

#[rstest]
#[case(Some(("x-ratelimit-reset", "0")))]
#[case(Some(("retry-after", "0")))]
#[case(None)]
#[tokio::test]
async fn waits_for_short_rate_limit(#[case] header: Option<(&str, &str)>) {
    let mut answer = ResponseTemplate::new(429);
    if let Some((name, value)) = header {
        answer = answer.insert_header(name, value);
    }
    let server = server(answer, 2).await;
    let client = http_client(&server.uri(), fast());
    assert!(client.search_spans(&search_request()).await.is_ok());
    assert_eq!(requests(&server).await, 3);
}

#[tokio::test]
async fn exhausted_bucket_blocks_next_call() {
    let answer = ResponseTemplate::new(200)
        .insert_header("x-ratelimit-remaining", "0")
        .insert_header("x-ratelimit-reset", "100")
        .insert_header("x-ratelimit-name", "llm_obs_spans")
        .set_body_string(GOOD);
    let server = server(answer, 1).await;
    let client = http_client(&server.uri(), fast());
    assert!(client.search_spans(&search_request()).await.is_ok());
    let error = client.search_spans(&search_request()).await.unwrap_err();
    assert!(error.retry_after_seconds().unwrap() > 90, "{error}");
    assert_eq!(requests(&server).await, 1);
}

#[rstest]
#[case("", "an empty body")]
#[case("<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page")]
#[case(r#"{"data":[{"attributes":{"span_id":"1"#, "truncated JSON")]
#[case("pong", "a body that is not JSON")]
#[case(r#"{"ok":true}"#, "JSON without the list of spans")]
#[tokio::test]
async fn success_without_expected_json_is_an_error(#[case] body: &str, #[case] what: &str) {
    let server = server(ResponseTemplate::new(200).set_body_string(body), 9).await;
    let error = failed_search(&server).await;
    assert!(matches!(error, ClientError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
    assert_eq!(requests(&server).await, 1);
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let elsewhere = server(ResponseTemplate::new(200), 1).await;
    let redirect = ResponseTemplate::new(307).insert_header("location", elsewhere.uri().as_str());
    let server = server(redirect, 9).await;
    let error = failed_search(&server).await;
    assert_eq!(error.status(), Some(307));
    assert!(error.to_string().contains("not followed"), "{error}");
    assert_eq!(requests(&elsewhere).await, 0);
}

#[tokio::test]
async fn slow_body_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let dripping = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"data\":";
            stream.write_all(head).await.unwrap();
            open.push(stream);
        }
    });
    let settings = HubSettings {
        attempt_timeout: Duration::from_millis(50),
        attempts: 2,
        ..fast()
    };
    let error = http_client(&base, settings)
        .search_spans(&search_request())
        .await
        .unwrap_err();
    let limit = Duration::from_millis(50);
    assert!(
        matches!(&error, ClientError::Transport { source: TransportError::Timeout(t), .. } if *t == limit),
        "{error:?}"
    );
    let settings = HubSettings {
        call_deadline: Duration::from_millis(50),
        ..fast()
    };
    let error = http_client(&base, settings)
        .search_spans(&search_request())
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error:?}");
    dripping.abort();
}

/// Resets the first `times` connections after it has read something, then responds.
async fn resetting(times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            if n < times {
                // Closing with linger zero sends a reset.
                let _ = stream.set_zero_linger();
                continue;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{GOOD}",
                GOOD.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    base
}

#[tokio::test]
async fn retries_read_after_connection_reset() {
    let client = http_client(&resetting(2).await, fast());
    assert_eq!(
        client
            .search_spans(&search_request())
            .await
            .unwrap()
            .spans
            .len(),
        1
    );
    let error = http_client(&resetting(9).await, fast())
        .search_spans(&search_request())
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            ClientError::Transport {
                source: TransportError::Interrupted(_),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn refused_connection_keeps_its_source() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = http_client(&base, fast())
        .search_spans(&search_request())
        .await
        .unwrap_err();
    let ClientError::Transport { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(source, TransportError::Connect(_)), "{source:?}");
    assert!(source.surely_not_executed());
    assert!(source.source().is_some(), "the library error is kept");
}

#[tokio::test]
async fn plain_http_to_another_machine_is_not_sent() {
    let transport = HttpTransport::new(&HttpTransportOptions::default()).unwrap();
    let request = http::Request::get("http://192.0.2.1/x")
        .body(bytes::Bytes::new())
        .unwrap();
    let limits = ResponseLimits {
        timeout: Duration::from_secs(5),
        max_body_bytes: 10,
    };
    let error = transport.send(request, limits).await.unwrap_err();
    assert!(matches!(error, TransportError::NotSent(_)));
}

#[test]
fn ca_file_must_contain_certificates() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nothing").unwrap();
    for (path, words) in [
        (file.path().to_owned(), "holds no PEM certificate"),
        ("/nowhere/ca.pem".into(), "cannot read"),
    ] {
        let options = HttpTransportOptions {
            ca_file: Some(path),
            ..HttpTransportOptions::default()
        };
        let error = HttpTransport::new(&options).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
