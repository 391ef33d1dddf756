//! Untrusted bodies, through all layers of the client.

use serde_json::Value;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::*;
use super::{fast, http_client, search_request};

async fn search_with_response(response: ResponseTemplate) -> Result<SpanPage, ClientError> {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(response)
        .mount(&server)
        .await;
    http_client(&server.uri(), fast())
        .search_spans(&search_request())
        .await
}

const BODY: &str = r#"{"data":[{"attributes":{"span_id":18446744073709551615,"trace_id":"t","start_ns":1790000000123,
    "metadata":{"deep":DEEP}}}],"meta":{"page":null}}"#;

#[tokio::test]
async fn keeps_digits_of_64_bit_ids() {
    let response = ResponseTemplate::new(200).set_body_string(BODY.replace("DEEP", "1"));
    let page = search_with_response(response).await.unwrap();
    assert_eq!(page.spans[0].span_id.as_str(), "18446744073709551615");
    assert_eq!(page.spans[0].start_ns, 1_790_000_000_123_000_000);
}

#[tokio::test]
async fn reads_ten_thousand_levels() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let response = ResponseTemplate::new(200).set_body_string(BODY.replace("DEEP", &deep));
    let page = search_with_response(response).await.unwrap();
    let deep = &page.spans[0].metadata["deep"];
    assert!(deep.is_array());
    assert!(serde_json::to_string(deep).unwrap().len() > 20_000);
}

#[tokio::test]
async fn decompresses_gzip_and_zstd() {
    let body = BODY.replace("DEEP", "1");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(body.as_bytes(), 1).unwrap();
    for (encoding, bytes) in [("gzip", gzip), ("zstd", zstd)] {
        let response = ResponseTemplate::new(200)
            .insert_header("content-encoding", encoding)
            .set_body_bytes(bytes);
        assert_eq!(
            search_with_response(response).await.unwrap().spans.len(),
            1,
            "{encoding}"
        );
    }
}

#[tokio::test]
async fn body_limit_counts_decompressed_bytes() {
    let body = format!(r#"{{"data":[],"x":"{}"}}"#, "y".repeat(1_000_000));
    let zstd = zstd::encode_all(body.as_bytes(), 1).unwrap();
    assert!(zstd.len() < 1_000);
    let server = MockServer::start().await;
    let response = ResponseTemplate::new(200)
        .insert_header("content-encoding", "zstd")
        .set_body_bytes(zstd);
    Mock::given(method("POST"))
        .respond_with(response)
        .mount(&server)
        .await;
    let settings = HubSettings {
        max_body_bytes: 100_000,
        ..fast()
    };
    let error = http_client(&server.uri(), settings)
        .search_spans(&SpanSearch {
            limit: 1,
            ..search_request()
        })
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Transport {
                source: TransportError::BodyTooLarge { limit: 100_000 },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn wrong_content_encoding_is_an_error() {
    let response = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_string("plain");
    let error = search_with_response(response).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Transport {
                source: TransportError::BadEncoding,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn sends_headers_and_body_of_api() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_string(r#"{"data":[]}"#))
        .mount(&server)
        .await;
    http_client(&server.uri(), fast())
        .search_spans(&search_request())
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
