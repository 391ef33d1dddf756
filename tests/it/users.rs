//! Two concurrent users over HTTP: the same calls with the same ids return the data of each user's own
//! organisation, whatever is cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use datadog_llmobs::{Credential, HttpTransport, HttpTransportOptions, Hub, HubSettings, Upstream};
use llmobs_authz::{DatadogHeadersGate, Gate};
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use llmobs_mcp::server::{
    FixedCredential, McpServer, ToolFilter, UpstreamInfo, Upstreams, serve_http,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A user: their keys, and a word that only their data contains.
#[derive(Clone, Copy)]
struct User {
    keys: [(&'static str, &'static str); 2],
    word: &'static str,
}

const ALICE: User = User {
    keys: [
        ("DD_API_KEY", "key-of-alice"),
        ("DD_APPLICATION_KEY", "app-key-of-alice"),
    ],
    word: "apricot",
};
const BOB: User = User {
    keys: [
        ("DD-API-KEY", "key-of-bob"),
        ("DD-APPLICATION-KEY", "app-key-of-bob"),
    ],
    word: "blueberry",
};

/// The same ids for both users: a cache that ignores the user would mix them up.
const TRACE: &str = "6b0000000000000000000000000000aa";
const ROOT: &str = "1001";
const TOOL: &str = "1002";

/// An organisation with one trace. All its texts contain the user's word.
async fn organisation(user: User) -> LocalBackend {
    let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
    let now = i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos(),
    )
    .unwrap();
    let word = user.word;
    let span = |id: &str, parent: &str, kind: &str, status: &str| {
        json!({"span_id": id, "trace_id": TRACE, "parent_id": parent, "name": format!("{kind}-{word}"),
            "status": status, "start_ns": now - 60_000_000_000_i64, "duration": 5_000_000,
            "tags": [format!("ml_app:{word}")], "metrics": {"total_tokens": 7},
            "meta": {"span": {"kind": kind}, "input": {"value": word}, "output": {"value": word},
                "error.message": format!("no {word} left"), "error.type": format!("{word}Error")}})
    };
    let spans = json!([{"_dd.stage": "raw", "event_type": "span", "spans": [
        span(ROOT, "undefined", "agent", "error"), span(TOOL, ROOT, "tool", "error")]}]);
    let project = json!({"data": {"type": "projects", "attributes": {"name": word}}});
    for (path, body) in [
        ("/api/v2/llmobs", spans),
        ("/api/v2/llm-obs/v1/projects", project),
    ] {
        let request = Request::post(path)
            .header("host", "127.0.0.1:8126")
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()))
            .unwrap();
        let answer = backend.router().oneshot(request).await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }
    backend
}

/// A test double of Datadog with two organisations: the keys select the organisation.
pub(crate) struct TwoOrganisations {
    pub(crate) api: Router,
    bob_is_known: Arc<AtomicBool>,
}

pub(crate) async fn two_organisations() -> TwoOrganisations {
    let alice_api = organisation(ALICE).await.router();
    let bob_api = organisation(BOB).await.router();
    let bob_is_known = Arc::new(AtomicBool::new(true));
    let known = bob_is_known.clone();
    let api = Router::new().fallback(move |request: Request| {
        let has_keys_of = |user: User| {
            user.keys.iter().all(|(name, key)| {
                let name = name.to_ascii_lowercase().replace('_', "-");
                request
                    .headers()
                    .get(name)
                    .is_some_and(|value| value == key)
            })
        };
        let organisation = if has_keys_of(ALICE) {
            Some(alice_api.clone())
        } else if has_keys_of(BOB) && known.load(Ordering::SeqCst) {
            Some(bob_api.clone())
        } else {
            None
        };
        async move {
            match organisation {
                Some(organisation) => organisation.oneshot(request).await.into_response(),
                None => refused(),
            }
        }
    });
    TwoOrganisations { api, bob_is_known }
}

/// Serves an API, and returns its URL.
async fn serve_api(api: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, api).into_future());
    url
}

fn refused() -> Response {
    (
        StatusCode::FORBIDDEN,
        axum::Json(json!({"errors": ["Forbidden"]})),
    )
        .into_response()
}

/// Serves MCP with a gate over an upstream. The server has credentials, which callers must not use.
async fn serve_mcp(gate: Arc<dyn Gate>, upstream: &str) -> String {
    let transport = HttpTransport::new(&HttpTransportOptions::default()).unwrap();
    let hub = Hub::new(
        Upstream::from_api_url(upstream).unwrap(),
        Arc::new(transport),
        HubSettings::default(),
    );
    let credential = Credential::from_parts(Some(ALICE.keys[0].1), Some(ALICE.keys[1].1), None);
    let credential = FixedCredential::new(credential.unwrap(), "this test");
    let described = UpstreamInfo {
        site: None,
        url: Some(upstream.to_owned()),
    };
    let server = McpServer::new(
        Upstreams::datadog(hub, Arc::new(credential), described),
        ToolFilter::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(serve_http(server, gate, listener, CancellationToken::new()));
    url
}

/// The calls. Every successful answer contains the word of the caller.
fn calls() -> Vec<(&'static str, Value)> {
    vec![
        ("search_llmobs_spans", json!({"trace_id": TRACE})),
        ("search_llmobs_spans", json!({})),
        ("get_llmobs_trace", json!({"trace_id": TRACE})),
        (
            "get_llmobs_span_details",
            json!({"trace_id": TRACE, "span_ids": [ROOT, TOOL]}),
        ),
        (
            "get_llmobs_span_content",
            json!({"trace_id": TRACE, "span_id": TOOL, "field": "input"}),
        ),
        ("find_llmobs_error_spans", json!({"trace_id": TRACE})),
        (
            "expand_llmobs_spans",
            json!({"trace_id": TRACE, "span_ids": [ROOT]}),
        ),
        ("get_llmobs_agent_loop", json!({"trace_id": TRACE})),
        (
            "aggregate_llmobs_spans",
            json!({"group_by": ["@ml_app"], "from": "now-1h"}),
        ),
        ("list_llmobs_projects", json!({})),
    ]
}

/// The text of the answer to a call, and whether it is an error.
async fn call(
    client: &reqwest::Client,
    url: &str,
    headers: &[(&str, &str)],
    (tool, arguments): &(&'static str, Value),
) -> (String, bool) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments}});
    let mut request = client
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let result = &answer["result"];
    let text = result["content"][0]["text"].as_str();
    (
        text.unwrap_or_else(|| panic!("{tool}: {answer}"))
            .to_owned(),
        result["isError"].as_bool().unwrap_or_default(),
    )
}

/// Sends all calls as both users concurrently, in several rounds.
pub(crate) async fn interleave(url: &str, alice: &[(&str, &str)], bob: &[(&str, &str)]) {
    let client = datadog_llmobs::http_client().no_proxy().build().unwrap();
    let calls = calls();
    for _round in 0..3 {
        let answers = calls.iter().flat_map(|tool_call| {
            [(ALICE, alice, BOB), (BOB, bob, ALICE)].map(|(user, headers, other)| {
                let client = &client;
                async move {
                    (
                        user,
                        other,
                        tool_call,
                        call(client, url, headers, tool_call).await,
                    )
                }
            })
        });
        for (user, other, tool_call, (text, is_error)) in
            futures_util::future::join_all(answers).await
        {
            assert!(!is_error, "{tool_call:?}: {text}");
            assert!(text.contains(user.word), "{tool_call:?}: {text}");
            assert!(!text.contains(other.word), "{tool_call:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn interleaved_header_users_see_their_own_data_only() {
    let datadog = two_organisations().await;
    let upstream = serve_api(datadog.api).await;
    let url = serve_mcp(Arc::new(DatadogHeadersGate::default()), &upstream).await;
    interleave(&url, &ALICE.keys, &BOB.keys).await;

    // Cached data of others, and of Bob while his keys were valid, is not returned to other callers.
    let client = datadog_llmobs::http_client().no_proxy().build().unwrap();
    let mixed = [ALICE.keys[0], BOB.keys[1]];
    let guessed = [ALICE.keys[0], ("DD_APPLICATION_KEY", "guessed")];
    for tool_call in calls() {
        for headers in [&[][..], &mixed, &guessed] {
            let (text, is_error) = call(&client, &url, headers, &tool_call).await;
            assert!(is_error, "{tool_call:?}: {text}");
            for user in [ALICE, BOB] {
                assert!(!text.contains(user.word), "{tool_call:?}: {text}");
            }
        }
    }
    datadog.bob_is_known.store(false, Ordering::SeqCst);
    let (text, is_error) = call(
        &client,
        &url,
        &BOB.keys,
        &("search_llmobs_spans", json!({})),
    )
    .await;
    assert!(is_error && !text.contains(ALICE.word), "{text}");
    let (text, is_error) = call(
        &client,
        &url,
        &ALICE.keys,
        &("search_llmobs_spans", json!({})),
    )
    .await;
    assert!(!is_error && text.contains(ALICE.word), "{text}");
}
