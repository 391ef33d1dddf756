//! Bodies that a stranger wrote, through the whole client.

use serde_json::Value;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::*;
use super::{a_search, fast, http_client};

async fn search_answered(answer: ResponseTemplate) -> Result<SpanPage, ClientError> {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(answer)
        .mount(&server)
        .await;
    http_client(&server.uri(), fast())
        .search_spans(&a_search())
        .await
}

const BODY: &str = r#"{"data":[{"attributes":{"span_id":18446744073709551615,"trace_id":"t","start_ns":1790000000123,
    "metadata":{"deep":DEEP}}}],"meta":{"page":null}}"#;

#[tokio::test]
async fn ids_of_sixty_four_bits_keep_every_digit() {
    let answer = ResponseTemplate::new(200).set_body_string(BODY.replace("DEEP", "1"));
    let page = search_answered(answer).await.unwrap();
    assert_eq!(page.spans[0].span_id.as_str(), "18446744073709551615");
    assert_eq!(page.spans[0].start_ns, 1_790_000_000_123_000_000);
}

#[tokio::test]
async fn ten_thousand_levels_of_nesting_are_read() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let answer = ResponseTemplate::new(200).set_body_string(BODY.replace("DEEP", &deep));
    let page = search_answered(answer).await.unwrap();
    let deep = &page.spans[0].metadata["deep"];
    assert!(deep.is_array());
    assert!(serde_json::to_string(deep).unwrap().len() > 20_000);
}

#[tokio::test]
async fn gzip_and_zstd_are_decompressed() {
    let body = BODY.replace("DEEP", "1");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(body.as_bytes(), 1).unwrap();
    for (encoding, bytes) in [("gzip", gzip), ("zstd", zstd)] {
        let answer = ResponseTemplate::new(200)
            .insert_header("content-encoding", encoding)
            .set_body_bytes(bytes);
        assert_eq!(
            search_answered(answer).await.unwrap().spans.len(),
            1,
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn the_size_limit_counts_decompressed_bytes() {
    let body = format!(r#"{{"data":[],"x":"{}"}}"#, "y".repeat(1_000_000));
    let zstd = zstd::encode_all(body.as_bytes(), 1).unwrap();
    assert!(zstd.len() < 1_000);
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200)
        .insert_header("content-encoding", "zstd")
        .set_body_bytes(zstd);
    Mock::given(method("POST"))
        .respond_with(answer)
        .mount(&server)
        .await;
    let settings = HubSettings {
        max_body_bytes: 100_000,
        ..fast()
    };
    let error = http_client(&server.uri(), settings)
        .search_spans(&SpanSearch {
            limit: 1,
            ..a_search()
        })
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Transport {
                error: TransportError::BodyTooLarge { limit: 100_000 },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_body_that_is_not_what_its_encoding_says_is_an_error() {
    let answer = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_string("plain");
    let error = search_answered(answer).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Transport {
                error: TransportError::BadEncoding,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_request_is_as_the_api_wants_it() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_string(r#"{"data":[]}"#))
        .mount(&server)
        .await;
    http_client(&server.uri(), fast())
        .search_spans(&a_search())
        .await
        .unwrap();
    let request = &server.received_requests().await.unwrap()[0];
    let header = |name: &str| request.headers.get(name).unwrap().to_str().unwrap();
    assert_eq!(request.url.path(), "/api/v2/llm-obs/v1/spans/events/search");
    assert_eq!(header("content-type"), "application/vnd.api+json");
    assert_eq!(
        header("accept"),
        "application/json, application/vnd.api+json"
    );
    assert_eq!(header("dd-api-key"), "alpha-secret-key");
    assert_eq!(header("dd-application-key"), "beta-secret-key");
    assert!(header("user-agent").starts_with("llmobs-mcp/"));
    assert!(header("accept-encoding").contains("zstd"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["data"]["type"], "spans");
}
