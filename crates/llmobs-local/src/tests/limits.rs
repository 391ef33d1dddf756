//! Malformed and oversized bodies, and foreign callers.

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::json;

use super::{Local, START, span};
use crate::BodyLimits;

const INTAKES: [&str; 4] = [
    "/api/v2/llmobs",
    "/v0.4/traces",
    "/api/intake/llm-obs/v1/trace/spans",
    "/api/intake/llm-obs/v2/eval-metric",
];

#[tokio::test]
async fn malformed_bodies_are_bad_requests() {
    let local = Local::new();
    let bodies: [Vec<u8>; 6] = [
        Vec::new(),
        b"{".to_vec(),
        b"[{\"spans\":[{\"start_ns\":NaN}]}]".to_vec(),
        b"\"\xff\"".to_vec(),
        "[".repeat(10_000).into_bytes(),
        ("[".repeat(10_000) + &"]".repeat(10_000)).into_bytes(),
    ];
    for path in INTAKES {
        for body in &bodies {
            for headers in [&[][..], &[("content-type", "application/msgpack")]] {
                let answer = local.raw(Method::POST, path, headers, body.clone()).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
                answer.detail();
            }
        }
        let deep = vec![0x91; 10_000];
        let headers = [("content-type", "application/msgpack")];
        let answer = local.raw(Method::POST, path, &headers, deep).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
}

#[tokio::test]
async fn limits_encoded_and_decoded_body_size() {
    let local = Local::with(|options| {
        options.body_limits = BodyLimits {
            max_encoded_bytes: 1_000,
            max_decoded_bytes: 100_000,
        };
    });
    let long = vec![b' '; 1_001];
    let bomb = zstd::encode_all(vec![b' '; 100_001].as_slice(), 3).unwrap();
    assert!(bomb.len() < 1_000);
    let zstd = [("content-encoding", "zstd")];
    for path in INTAKES {
        let answer = local.raw(Method::POST, path, &[], long.clone()).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let answer = local.raw(Method::POST, path, &zstd, bomb.clone()).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
}

#[tokio::test]
async fn deepest_accepted_content_is_readable() {
    let local = Local::new();
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let body = |levels: usize| {
        format!(
            r#"[{{"spans":[{{"trace_id":"t","span_id":"1","name":"n","start_ns":{START},"tags":["ml_app:a"],"future":{},"meta":{{"kind":"llm"}}}}]}}]"#,
            nested(levels)
        )
    };
    let refused = local
        .raw(Method::POST, INTAKES[0], &[], body(97).into_bytes())
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let kept = local
        .raw(Method::POST, INTAKES[0], &[], body(96).into_bytes())
        .await;
    assert_eq!(kept.status, StatusCode::ACCEPTED, "{:?}", kept.body);
    let read = local.all(json!({})).await.spans();
    assert_eq!(read[0]["extra"]["future"].to_string(), nested(96));
}

#[rstest]
#[case("host", "evil.example")]
#[case("host", "127.0.0.1.evil.example:8126")]
#[case("origin", "https://evil.example")]
#[case("origin", "null")]
#[tokio::test]
async fn foreign_host_or_origin_is_forbidden_on_every_route(
    #[case] name: &str,
    #[case] value: &str,
) {
    let local = Local::new();
    let routes = [
        (Method::GET, "/info"),
        (Method::POST, "/api/v2/llmobs"),
        (Method::PUT, "/v0.4/traces"),
        (Method::POST, "/api/intake/llm-obs/v1/trace/spans"),
        (
            Method::POST,
            "/evp_proxy/v2/api/intake/llm-obs/v2/eval-metric",
        ),
        (Method::GET, "/api/v2/llm-obs/v1/spans/events"),
        (
            Method::POST,
            "/evp_proxy/v4/api/v2/llm-obs/v1/spans/events/search",
        ),
        (
            Method::POST,
            "/api/unstable/llm-obs-mcp/v1/trace/span-content",
        ),
        (Method::POST, "/telemetry/proxy/api/v2/apmtelemetry"),
        (Method::GET, "/no/such/path"),
        (Method::DELETE, "/info"),
    ];
    for (method, path) in routes {
        let body = json!([{"spans": [span(1, START, json!({}))]}]).to_string();
        let answer = local
            .raw(method.clone(), path, &[(name, value)], body.into_bytes())
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
        assert!(!answer.detail().contains("evil"));
    }
    assert_eq!(local.backend.stats().unwrap().spans, 0);
}

#[tokio::test]
async fn accepts_all_names_of_loopback() {
    let local = Local::new();
    for headers in [
        [("host", "localhost:9"), ("origin", "http://localhost:3000")],
        [("host", "[::1]:8126"), ("origin", "http://[::1]")],
        [
            ("host", "127.0.0.1:8126"),
            ("origin", "https://127.0.0.1:1"),
        ],
    ] {
        let answer = local.raw(Method::GET, "/info", &headers, Vec::new()).await;
        assert_eq!(answer.status, StatusCode::OK, "{headers:?}");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_use_error_format() {
    let local = Local::new();
    let answer = local.get("/api/v2/nothing").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    answer.detail();
    for (method, path, allow) in [
        (Method::GET, "/api/v2/llmobs", "POST"),
        (Method::DELETE, "/v0.4/traces", "PUT"),
        (Method::POST, "/api/v2/llm-obs/v1/spans/events", "GET"),
        (Method::POST, "/info", "GET"),
    ] {
        let answer = local.raw(method, path, &[], Vec::new()).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert!(
            answer.headers["allow"].to_str().unwrap().contains(allow),
            "{path}"
        );
        answer.detail();
    }
}
