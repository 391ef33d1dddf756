//! Tests of the gates: which credentials reach the upstream, and which tools are served.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::response::Response;
use axum::routing::get;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::support::{Recorder, RunningServer, datadog, local, serve_behind, unchosen};
use crate::server::{ToolFilter, Upstreams, WHOAMI_URI};
use datadog_llmobs::Credential;
use llmobs_authz::{
    CallerCredential, DatadogHeadersGate, Gate, MCP_PATHS, PublicUrl, SignedInUser,
    StaticBearerGate, refusal,
};

const SECRET: &str = "an-obviously-made-up-secret-of-the-tests";
const PAIR: &[(&str, &str)] = &[
    ("DD_API_KEY", "sent-api"),
    ("DD_APPLICATION_KEY", "sent-app"),
];
const HALF: &[(&str, &str)] = &[("DD_API_KEY", "sent-api")];

/// Admits requests with a header as a user without write access.
struct ReadOnlyGate;

impl Gate for ReadOnlyGate {
    fn admit<'a>(
        &'a self,
        path: &'a str,
        peer: Option<SocketAddr>,
        headers: &'a mut HeaderMap,
    ) -> BoxFuture<'a, Result<CallerCredential, Box<Response>>> {
        let has_word = headers.remove("x-word").is_some() && MCP_PATHS.contains(&path);
        let admitted = if has_word && peer.is_some() {
            let credential = Credential::from_parts(Some("user-api"), Some("user-app"), None);
            Ok(CallerCredential::User(SignedInUser {
                credential: credential.expect("a pair"),
                renewal: None,
                subject: "a-user".to_owned(),
                may_write: false,
            }))
        } else {
            Err(Box::new(refusal(
                StatusCode::UNAUTHORIZED,
                "no x-word header",
                "send x-word",
            )))
        };
        std::future::ready(admitted).boxed()
    }

    fn routes(&self) -> axum::Router {
        axum::Router::new().route("/gate-route", get(|| async { "ok" }))
    }
}

async fn call_method(
    served: &RunningServer,
    method: &str,
    params: Value,
    headers: &[(&str, &str)],
) -> (StatusCode, Value) {
    let mut request = datadog_llmobs::http_client()
        .build()
        .unwrap()
        .post(format!("{}/mcp", served.base))
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    (response.status(), response.json().await.expect("JSON"))
}

/// The text of a search answer, and whether it is an error.
async fn search(served: &RunningServer, headers: &[(&str, &str)]) -> (String, bool) {
    let params = json!({"name": "search_llmobs_spans", "arguments": {}});
    let (_, body) = call_method(served, "tools/call", params, headers).await;
    let result = &body["result"];
    (
        result["content"][0]["text"]
            .as_str()
            .expect("text")
            .to_owned(),
        result["isError"].as_bool().unwrap_or_default(),
    )
}

async fn whoami(served: &RunningServer, headers: &[(&str, &str)]) -> Value {
    let (_, body) = call_method(
        served,
        "resources/read",
        json!({"uri": WHOAMI_URI}),
        headers,
    )
    .await;
    let text = body["result"]["contents"][0]["text"]
        .as_str()
        .expect("text");
    let text: Value = serde_json::from_str(text).expect("JSON");
    text["credential"].clone()
}

async fn serve_with_headers(
    make: fn(&Arc<Recorder>) -> Upstreams,
) -> (Arc<Recorder>, RunningServer) {
    let recorder = Arc::<Recorder>::default();
    let gate = Arc::new(DatadogHeadersGate::default());
    let served = serve_behind(gate, make(&recorder), ToolFilter::default()).await;
    (recorder, served)
}

#[tokio::test]
async fn header_mode_never_uses_server_credentials_at_a_site() {
    let (recorder, served) = serve_with_headers(datadog).await;
    let (_, is_error) = search(&served, PAIR).await;
    assert!(!is_error);
    assert_eq!(recorder.first("dd-api-key").1.as_deref(), Some("sent-api"));
    for (headers, missing) in [
        (&[][..], "DD_API_KEY"),
        (HALF, "DD_APPLICATION_KEY"),
        (
            &[("DD_API_KEY", ""), ("DD_APPLICATION_KEY", "")][..],
            "DD_API_KEY",
        ),
    ] {
        let (answer_text, is_error) = search(&served, headers).await;
        assert!(is_error && answer_text.contains(missing), "{answer_text}");
    }
    assert_eq!(recorder.count(), 0, "nothing was sent without credentials");
    let none = whoami(&served, &[]).await;
    assert_eq!(none["kind"], "no credential");
    assert_eq!(
        none["origin"],
        "none: the request has no credential headers"
    );
    assert_eq!(whoami(&served, PAIR).await["origin"], "the request headers");
}

#[tokio::test]
async fn header_mode_needs_no_credentials_for_local_data() {
    for make in [local, unchosen] {
        let (recorder, served) = serve_with_headers(make).await;
        let (_, is_error) = search(&served, &[]).await;
        assert!(!is_error);
        assert_eq!(recorder.first("dd-api-key").1, None);
    }
}

#[rstest]
#[case::correct(Some(SECRET), &[], 200)]
#[case::nothing(None, &[], 401)]
#[case::wrong(Some("another-obviously-made-up-secret-of-ours"), &[], 401)]
#[case::keys_instead(None, PAIR, 401)]
#[case::keys_and_bearer(Some(SECRET), PAIR, 400)]
#[tokio::test]
async fn bearer_secret_grants_server_credentials(
    #[case] bearer: Option<&str>,
    #[case] headers: &[(&str, &str)],
    #[case] status: u16,
) {
    let recorder = Arc::<Recorder>::default();
    let gate = Arc::new(StaticBearerGate::new(&SECRET.into(), None).expect("a valid secret"));
    let served = serve_behind(gate, datadog(&recorder), ToolFilter::default()).await;
    let value = bearer.map(|bearer| format!("Bearer {bearer}"));
    let mut sent = headers.to_vec();
    sent.extend(value.as_deref().map(|value| ("authorization", value)));
    let params = json!({"name": "search_llmobs_spans", "arguments": {}});
    let (response_status, _) = call_method(&served, "tools/call", params, &sent).await;
    assert_eq!(response_status.as_u16(), status);
    if status == 200 {
        assert_eq!(recorder.first("dd-api-key").1.as_deref(), Some("own-api"));
        search(&served, &sent).await;
        assert_eq!(
            recorder.first("authorization").1,
            None,
            "the bearer secret is not forwarded"
        );
    } else {
        assert_eq!(recorder.count(), 0);
    }
}

#[rstest]
#[case::get("GET")]
#[case::delete("DELETE")]
#[case::post("POST")]
#[tokio::test]
async fn gate_protects_every_method_of_mcp_paths_only(#[case] method: &str) {
    let gate = Arc::new(StaticBearerGate::new(&SECRET.into(), None).expect("a valid secret"));
    let served = serve_behind(gate, local(&Arc::default()), ToolFilter::default()).await;
    let client = datadog_llmobs::http_client().build().unwrap();
    for path in MCP_PATHS {
        let url = format!("{}{path}?toolsets=llmobs", served.base);
        let method = method.parse().expect("a method");
        let answer = client.request(method, url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(answer.headers().contains_key("www-authenticate"));
    }
    for (path, status) in [("/healthz", StatusCode::OK), ("/x", StatusCode::NOT_FOUND)] {
        let answer = client.get(format!("{}{path}", served.base)).send();
        assert_eq!(answer.await.expect("an answer").status(), status);
    }
}

#[tokio::test]
async fn signed_in_user_uses_own_credentials_and_stays_read_only() {
    let recorder = Arc::<Recorder>::default();
    let served = serve_behind(
        Arc::new(ReadOnlyGate),
        datadog(&recorder),
        ToolFilter::default(),
    )
    .await;
    let word = &[("x-word", "please")];
    let (_, is_error) = search(&served, word).await;
    assert!(!is_error);
    assert_eq!(recorder.first("dd-api-key").1.as_deref(), Some("user-api"));
    let text = whoami(&served, word).await;
    assert_eq!(
        (&text["origin"], &text["subject"]),
        (&json!("the sign-in at this server"), &json!("a-user"))
    );
    let delete = json!({"name": "delete_llmobs_evaluator", "arguments": {"eval_name": "x"}});
    let (_, body) = call_method(&served, "tools/call", delete, word).await;
    let answer_text = body["result"]["content"][0]["text"].as_str().expect("text");
    assert!(answer_text.contains("read-only"), "{answer_text}");
    assert_eq!(recorder.count(), 0);
    let (status, _) = call_method(&served, "tools/list", json!({}), &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let route = datadog_llmobs::http_client()
        .build()
        .unwrap()
        .get(format!("{}/gate-route", served.base))
        .send()
        .await;
    assert_eq!(route.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn signed_in_user_reads_site_if_nothing_is_chosen() {
    let recorder = Arc::<Recorder>::default();
    let served = serve_behind(
        Arc::new(ReadOnlyGate),
        unchosen(&recorder),
        ToolFilter::default(),
    )
    .await;
    search(&served, &[("x-word", "please")]).await;
    let (host, key) = recorder.first("dd-api-key");
    assert_eq!(
        (host.as_str(), key.as_deref()),
        ("api.datadoghq.com", Some("user-api"))
    );
}

#[rstest]
#[case("mcp.example.com", None, 200)]
#[case("mcp.example.com", Some("https://mcp.example.com"), 200)]
#[case("evil.example", None, 403)]
#[case("mcp.example.com", Some("https://evil.example"), 403)]
#[tokio::test]
async fn accepts_host_and_origin_of_public_url(
    #[case] host: &str,
    #[case] origin: Option<&str>,
    #[case] status: u16,
) {
    let public = PublicUrl::parse("https://mcp.example.com").expect("a URL");
    let gate = StaticBearerGate::new(&SECRET.into(), Some(public)).expect("a valid secret");
    let served = serve_behind(
        Arc::new(gate),
        local(&Arc::default()),
        ToolFilter::default(),
    )
    .await;
    let bearer = format!("Bearer {SECRET}");
    let mut sent = vec![("authorization", bearer.as_str()), ("host", host)];
    sent.extend(origin.map(|origin| ("origin", origin)));
    // The server ignores X-Forwarded-Host.
    sent.push(("x-forwarded-host", "mcp.example.com"));
    let (response_status, _) = call_method(&served, "tools/list", json!({}), &sent).await;
    assert_eq!(response_status.as_u16(), status);
}

/// Some clients send head and body separately, and then the request with credentials on the same
/// connection.
#[rstest]
#[case::no_bearer("127.0.0.1", 401)]
#[case::foreign_host("evil.example", 403)]
#[tokio::test]
async fn refusal_keeps_connection_open(#[case] host: &str, #[case] status: u16) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let gate = Arc::new(StaticBearerGate::new(&SECRET.into(), None).expect("a valid secret"));
    let served = serve_behind(gate, local(&Arc::default()), ToolFilter::default()).await;
    let address = served.base.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connects");
    for _request in 0..2 {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        stream.write_all(b"{}").await.expect("sent");
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut buffer = [0; 2_048];
            let read = stream.read(&mut buffer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            answer.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
        }
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}
