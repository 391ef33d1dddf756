//! Tests over Streamable HTTP.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use rmcp::model::{CallToolRequestParams, ProtocolVersion, ReadResourceRequestParams};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use rstest::rstest;
use serde_json::{Value, json};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::{Recorder, RunningServer, datadog, local, serve, unchosen};
use crate::server::{McpServer, TOOLSETS_URI, ToolFilter, Upstreams, WHOAMI_URI, serve_http};
use crate::tools::{self, Access};
use llmobs_authz::{MCP_PATHS, OpenGate};

fn rpc(method: &str, params: impl serde::Serialize) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": json!(params)})
}

fn post(served: &RunningServer, path: &str, body: &Value) -> reqwest::RequestBuilder {
    datadog_llmobs::http_client()
        .build()
        .unwrap()
        .post(format!("{}{path}", served.base))
        .header("accept", "application/json, text/event-stream")
        .json(body)
}

async fn answer(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.expect("JSON")
}

async fn tool_names(served: &RunningServer, query: &str, header: Option<&str>) -> Vec<String> {
    let path = format!("/mcp{query}");
    let mut request = post(served, &path, &rpc("tools/list", json!({})));
    if let Some(value) = header {
        request = request.header("X-Datadog-MCP-Toolsets", value);
    }
    let body = answer(request).await;
    body["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .map(|tool| tool["name"].as_str().expect("name").to_owned())
        .collect()
}

fn search() -> Value {
    rpc(
        "tools/call",
        json!({"name": "search_llmobs_spans", "arguments": {}}),
    )
}

/// The text of a tool result and whether it is an error.
fn text(body: &Value) -> (Value, bool) {
    let result = &body["result"];
    let blocks = result["content"].as_array().expect("content");
    assert_eq!(blocks.len(), 1, "one text block");
    assert!(result.get("structuredContent").is_none());
    let text = blocks[0]["text"].as_str().expect("text");
    (
        serde_json::from_str(text).expect("a JSON object"),
        result["isError"].as_bool().unwrap_or_default(),
    )
}

fn all_names() -> Vec<String> {
    tools::all()
        .iter()
        .map(|tool| tool.name.to_owned())
        .collect()
}

#[tokio::test]
async fn accepts_client_without_version_header() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let initialized = answer(post(
        &served,
        "/mcp",
        &rpc(
            "initialize",
            json!({"protocolVersion": "2025-06-18", "capabilities": {"roots": {}},
                   "clientInfo": {"name": "gemini-cli-mcp-client", "version": "0.61.0"}}),
        ),
    ))
    .await;
    let result = &initialized["result"];
    assert_eq!(result["protocolVersion"], "2025-06-18");
    assert_eq!(result["serverInfo"]["name"], "llmobs-mcp");
    assert_eq!(
        result["capabilities"],
        json!({"tools": {}, "resources": {}})
    );
    let length = result["instructions"].as_str().expect("instructions").len();
    assert!((200..=1600).contains(&length), "{length}");
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let accepted = post(&served, "/mcp", &ready).send().await.expect("answer");
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    assert_eq!(tool_names(&served, "", None).await, all_names());
    let (found, is_error) = text(&answer(post(&served, "/mcp", &search())).await);
    assert_eq!((found["spans"].clone(), is_error), (json!([]), false));
}

/// A request of the stateless revision.
fn modern(
    served: &RunningServer,
    method: &str,
    name: Option<&str>,
    mut params: Value,
) -> reqwest::RequestBuilder {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "claude-code", "version": "2.1.329"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let request = post(served, "/mcp", &rpc(method, params))
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", method);
    match name {
        Some(name) => request.header("Mcp-Name", name),
        None => request,
    }
}

#[tokio::test]
async fn stateless_revision_needs_no_handshake_and_caches_privately() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let found = answer(modern(&served, "server/discover", None, json!({}))).await;
    let result = &found["result"];
    assert!(
        result["supportedVersions"]
            .as_array()
            .expect("versions")
            .contains(&json!("2026-07-28"))
    );
    assert_eq!(result["cacheScope"], "private");
    let list = answer(modern(&served, "tools/list", None, json!({}))).await;
    assert_eq!(list["result"]["cacheScope"], "private");
    assert_eq!(list["result"]["ttlMs"], 60_000);
    assert!(list["result"].get("nextCursor").is_none(), "one page");
    let params = json!({"name": "search_llmobs_spans", "arguments": {}});
    let call = modern(&served, "tools/call", Some("search_llmobs_spans"), params);
    let (found, is_error) = text(&answer(call).await);
    assert_eq!((found["spans"].clone(), is_error), (json!([]), false));
}

#[rstest]
#[case::legacy(ClientLifecycleMode::Initialize)]
#[case::modern(ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] })]
#[tokio::test]
async fn sdk_client_works_in_both_eras_on_every_path(#[case] era: ClientLifecycleMode) {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    for path in MCP_PATHS {
        let url = format!("{}{path}", served.base);
        let client =
            ().serve_with_lifecycle(StreamableHttpClientTransport::from_uri(url), era.clone())
                .await
                .expect("connects");
        let tools = client.list_all_tools().await.expect("tools");
        assert_eq!(tools.len(), tools::all().len());
        let result = client
            .call_tool(CallToolRequestParams::new("search_llmobs_spans"))
            .await
            .expect("result");
        assert_ne!(result.is_error, Some(true));
        let resources = client.list_all_resources().await.expect("resources");
        assert_eq!(resources.len(), 2);
        client
            .read_resource(ReadResourceRequestParams::new(TOOLSETS_URI))
            .await
            .expect("toolsets");
        client.cancel().await.expect("closes");
    }
}

#[tokio::test]
async fn every_tool_has_annotations_and_title() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let list = answer(post(&served, "/mcp", &rpc("tools/list", json!({})))).await;
    for tool in list["result"]["tools"].as_array().expect("tools") {
        let known = tools::find(tool["name"].as_str().expect("name")).expect("known");
        let hints = &tool["annotations"];
        let reads = matches!(known.access, Access::Read);
        assert_eq!(hints["readOnlyHint"], json!(reads));
        for hint in ["destructiveHint", "idempotentHint", "openWorldHint"] {
            assert!(hints[hint].is_boolean(), "{hint} of {}", known.name);
        }
        assert_eq!(tool["title"], known.title);
        assert!(tool["description"].as_str().expect("description").len() < 4000);
        assert_eq!(tool["inputSchema"]["type"], "object");
        assert!(tool.get("outputSchema").is_none());
    }
}

#[rstest]
#[case::mcp("POST", "/mcp")]
#[case::health("GET", "/healthz")]
#[case::unknown("GET", "/nothing")]
#[case::well_known("GET", "/.well-known/oauth-protected-resource")]
#[tokio::test]
async fn refuses_foreign_host_and_origin_on_every_route(#[case] method: &str, #[case] path: &str) {
    let recorder = Arc::<Recorder>::default();
    let served = serve(local(&recorder), ToolFilter::default()).await;
    for (header, value) in [
        ("host", "evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let response = datadog_llmobs::http_client()
            .build()
            .unwrap()
            .request(
                method.parse().expect("method"),
                format!("{}{path}", served.base),
            )
            .header("accept", "application/json, text/event-stream")
            .header(header, value)
            .json(&search())
            .send()
            .await
            .expect("an answer");
        assert_eq!(
            response.status(),
            StatusCode::FORBIDDEN,
            "{header}: {value}"
        );
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["status"], 403);
    }
    assert_eq!(recorder.count(), 0, "nothing reached the upstream");
}

#[tokio::test]
async fn accepts_loopback_origin() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let request = post(&served, "/mcp", &search())
        .header("origin", "http://localhost:6274")
        .header("host", "localhost:1");
    answer(request).await;
}

#[tokio::test]
async fn unknown_paths_are_404_and_health_is_ok() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    for path in [
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/openid-configuration",
        "/mcp/anything",
        "/",
    ] {
        let response = datadog_llmobs::http_client()
            .build()
            .unwrap()
            .get(format!("{}{path}", served.base))
            .send()
            .await
            .expect("answer");
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["error"], "not found");
    }
    let health: Value = datadog_llmobs::http_client()
        .build()
        .unwrap()
        .get(format!("{}/healthz", served.base))
        .send()
        .await
        .expect("answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(health["status"], "ok");
    let get = datadog_llmobs::http_client()
        .build()
        .unwrap()
        .get(format!("{}/mcp", served.base))
        .send()
        .await
        .expect("answer");
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn refuses_body_over_limit() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let big = "x".repeat(9 * 1024 * 1024);
    let body = rpc(
        "tools/call",
        json!({"name": "search_llmobs_spans", "arguments": {"query": big}}),
    );
    let response = post(&served, "/mcp", &body).send().await.expect("answer");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[rstest]
#[case::default("", None, true)]
#[case::named("?toolsets=llmobs", None, true)]
#[case::all("?toolsets=all", None, true)]
#[case::one_known("?toolsets=llmobs,core", None, true)]
#[case::none_known("?toolsets=core", None, false)]
#[case::header_form("", Some("core,rum"), false)]
#[case::empty_header("", Some(""), true)]
#[tokio::test]
async fn toolsets_select_listed_tools(
    #[case] query: &str,
    #[case] header: Option<&str>,
    #[case] everything: bool,
) {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let expected = if everything { all_names() } else { Vec::new() };
    assert_eq!(tool_names(&served, query, header).await, expected);
}

#[tokio::test]
async fn omits_tool_by_old_name_from_list_and_calls() {
    let recorder = Arc::<Recorder>::default();
    let served = serve(local(&recorder), ToolFilter::default()).await;
    let query = "?omit_tools=search_datadog_llmobs_spans,nope";
    let names = tool_names(&served, query, None).await;
    assert_eq!(names.len(), all_names().len() - 1);
    let path = format!("/mcp{query}");
    let (answer_text, is_error) = text(&answer(post(&served, &path, &search())).await);
    assert!(is_error);
    assert_eq!(answer_text["status"], 403);
    assert_eq!(recorder.count(), 0);
}

#[tokio::test]
async fn read_only_serves_reading_tools_only() {
    for (process, query) in [
        (true, ""),
        (false, "?read_only=true"),
        (true, "?read_only=false"),
    ] {
        let filter = ToolFilter {
            read_only: process,
            ..ToolFilter::default()
        };
        let served = serve(local(&Arc::default()), filter).await;
        let reading: Vec<String> = tools::all()
            .iter()
            .filter(|tool| matches!(tool.access, Access::Read))
            .map(|tool| tool.name.to_owned())
            .collect();
        assert_eq!(tool_names(&served, query, None).await, reading);
    }
}

#[tokio::test]
async fn unknown_tool_is_protocol_error_with_candidate() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let body = answer(post(
        &served,
        "/mcp",
        &rpc(
            "tools/call",
            json!({"name": "serch_llmobs_spans", "arguments": {}}),
        ),
    ))
    .await;
    assert_eq!(body["error"]["code"], -32602);
    assert_eq!(
        body["error"]["message"],
        "unknown tool 'serch_llmobs_spans'; did you mean 'search_llmobs_spans'?"
    );
}

#[tokio::test]
async fn old_tool_name_and_intent_do_not_change_answer() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let at = json!({"from": "2026-07-01T00:00:00Z", "to": "2026-07-02T00:00:00Z"});
    let plain = rpc(
        "tools/call",
        json!({"name": "search_llmobs_spans", "arguments": at}),
    );
    let mut with_intent = at.clone();
    with_intent["telemetry"] = json!({"intent": "skill:x:start[0a1b2c3d] — look"});
    with_intent["intent"] = json!("look");
    let intent = rpc(
        "tools/call",
        json!({"name": "search_datadog_llmobs_spans", "arguments": with_intent}),
    );
    let one = answer(post(&served, "/mcp", &plain)).await;
    let other = answer(post(&served, "/mcp", &intent)).await;
    assert_eq!(one["result"], other["result"]);
}

#[tokio::test]
async fn tool_error_is_a_result() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let call = rpc(
        "tools/call",
        json!({"name": "get_llmobs_trace", "arguments": {}}),
    );
    let (answer_text, is_error) = text(&answer(post(&served, "/mcp", &call)).await);
    assert!(is_error);
    assert!(answer_text["error"].is_string());
}

#[tokio::test]
async fn panic_becomes_tool_error_without_its_message() {
    let recorder = Arc::new(Recorder::panicking());
    let served = serve(datadog(&recorder), ToolFilter::default()).await;
    let body = answer(post(&served, "/mcp", &search())).await;
    let (error, is_error) = text(&body);
    assert!(is_error);
    assert!(
        error.to_string().contains("failed inside this server"),
        "{error}"
    );
    assert_eq!(recorder.count(), 1, "the request that panicked");
    for secret in ["own-api", "own-app", "cannot send"] {
        assert!(!body.to_string().contains(secret), "{body}");
    }
    let body = answer(post(&served, "/mcp", &rpc("ping", json!({})))).await;
    assert_eq!(body["result"], json!({}), "the server still answers");
}

/// The host and API key of the upstream request, or the error of the call.
async fn upstream_request(
    make: fn(&Arc<Recorder>) -> Upstreams,
    headers: &[(&str, &str)],
) -> Result<(String, Option<String>), String> {
    let recorder = Arc::<Recorder>::default();
    let served = serve(make(&recorder), ToolFilter::default()).await;
    let mut request = post(&served, "/mcp", &search());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (answer_text, is_error) = text(&answer(request).await);
    if is_error {
        assert_eq!(recorder.count(), 0, "a refused call sends nothing");
        return Err(answer_text.to_string());
    }
    Ok(recorder.first("dd-api-key"))
}

#[tokio::test]
async fn user_agent_names_client_in_both_eras() {
    let recorder = Arc::<Recorder>::default();
    let served = serve(local(&recorder), ToolFilter::default()).await;
    answer(post(&served, "/mcp", &search()).header("user-agent", "codex/0.169.0 (linux)")).await;
    let (_, agent) = recorder.first("user-agent");
    assert!(agent.is_some_and(|agent| agent.contains("mcp http; client codex/0.169.0")));
    let params = json!({"name": "search_llmobs_spans", "arguments": {}});
    answer(modern(
        &served,
        "tools/call",
        Some("search_llmobs_spans"),
        params,
    ))
    .await;
    let (_, agent) = recorder.first("user-agent");
    assert!(agent.is_some_and(|agent| agent.contains("client claude-code/2.1.329")));
}

const PAIR: &[(&str, &str)] = &[
    ("DD_API_KEY", "sent-api"),
    ("DD_APPLICATION_KEY", "sent-app"),
];
const HALF: &[(&str, &str)] = &[("DD-API-KEY", "sent-api"), ("DD-APPLICATION-KEY", "")];
const EMPTY: &[(&str, &str)] = &[("DD_API_KEY", ""), ("DD_APPLICATION_KEY", "")];

#[tokio::test]
async fn header_credentials_replace_server_credentials() {
    let eu = "api.datadoghq.eu".to_owned();
    let as_key = |key: &str| Ok((eu.clone(), Some(key.to_owned())));
    assert_eq!(upstream_request(datadog, PAIR).await, as_key("sent-api"));
    assert_eq!(upstream_request(datadog, &[]).await, as_key("own-api"));
    assert_eq!(upstream_request(datadog, EMPTY).await, as_key("own-api"));
    let text = upstream_request(datadog, HALF)
        .await
        .expect_err("half a pair");
    assert!(text.contains("DD_APPLICATION_KEY"), "{text}");
    assert!(!text.contains("sent-api"), "{text}");
}

#[tokio::test]
async fn complete_header_credentials_select_datadog() {
    let request = upstream_request(unchosen, PAIR).await.expect("an answer");
    assert_eq!(
        request,
        ("api.datadoghq.com".to_owned(), Some("sent-api".to_owned()))
    );
    let (host, key) = upstream_request(unchosen, &[]).await.expect("an answer");
    assert_ne!(host, "api.datadoghq.com");
    assert_eq!(key, None);
    assert!(upstream_request(unchosen, HALF).await.is_err());
}

#[tokio::test]
async fn local_upstream_ignores_header_credentials() {
    for headers in [PAIR, HALF, EMPTY] {
        let (host, key) = upstream_request(local, headers).await.expect("an answer");
        assert_ne!(host, "api.datadoghq.com");
        assert_eq!(key, None);
    }
}

async fn resource(
    served: &RunningServer,
    uri: &str,
    headers: &[(&str, &str)],
    query: &str,
) -> Value {
    let path = format!("/mcp{query}");
    let mut request = post(served, &path, &rpc("resources/read", json!({"uri": uri})));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = answer(request).await;
    let content = &body["result"]["contents"][0];
    assert_eq!(content["mimeType"], "application/json");
    serde_json::from_str(content["text"].as_str().expect("text")).expect("JSON")
}

#[tokio::test]
async fn whoami_shows_kind_of_credential_without_value() {
    let served = serve(datadog(&Arc::default()), ToolFilter::default()).await;
    let own = resource(&served, WHOAMI_URI, &[], "").await;
    assert_eq!(own["upstream"]["site"], "datadoghq.eu");
    assert_eq!(own["credential"]["kind"], "API key and application key");
    assert_eq!(
        own["credential"]["origin"],
        "environment: DD_API_KEY and DD_APPLICATION_KEY"
    );
    let sent = resource(
        &served,
        WHOAMI_URI,
        &[("Authorization", "Bearer sent-token")],
        "",
    )
    .await;
    assert_eq!(sent["credential"]["origin"], "the request headers");
    for body in [own, sent] {
        let text = body.to_string();
        for secret in ["own-api", "own-app", "sent-token"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn toolsets_resource_lists_enabled_toolsets_and_unknown_names() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    let plain = resource(&served, TOOLSETS_URI, &[], "").await;
    let llmobs = &plain["toolsets"][0];
    assert_eq!(llmobs["name"], "llmobs");
    assert_eq!(
        (&llmobs["enabled"], &llmobs["default"]),
        (&json!(true), &json!(true))
    );
    assert!(
        llmobs["tools"]
            .as_array()
            .expect("tools")
            .contains(&json!("search_llmobs_spans"))
    );
    assert_eq!(plain["aliases"][0]["name"], "all");
    assert!(plain.get("notes").is_none());
    let odd = resource(&served, TOOLSETS_URI, &[], "?toolsets=core").await;
    assert_eq!(odd["toolsets"][0]["enabled"], false);
    assert_eq!(
        odd["notes"],
        json!(["toolsets: unknown toolset 'core' is ignored"])
    );
}

#[tokio::test]
async fn undeclared_methods_are_not_found() {
    let served = serve(local(&Arc::default()), ToolFilter::default()).await;
    for (method, code) in [
        ("prompts/list", -32601),
        ("completion/complete", -32601),
        ("logging/setLevel", -32601),
    ] {
        let params = match method {
            "completion/complete" => json!({
                "ref": {"type": "ref/prompt", "name": "x"},
                "argument": {"name": "a", "value": "b"}
            }),
            "logging/setLevel" => json!({"level": "info"}),
            _ => json!({}),
        };
        let body = answer(post(&served, "/mcp", &rpc(method, params))).await;
        assert_eq!(body["error"]["code"], code, "{method}: {body}");
    }
    let missing = answer(post(
        &served,
        "/mcp",
        &rpc("resources/read", json!({"uri": "datadog://mcp/toolset"})),
    ))
    .await;
    assert_eq!(missing["error"]["code"], -32002);
}

#[tokio::test]
async fn disconnect_cancels_call() {
    let recorder = Arc::new(Recorder::silent());
    let served = serve(local(&recorder), ToolFilter::default()).await;
    let call = post(&served, "/mcp", &search())
        .timeout(Duration::from_millis(300))
        .send();
    assert!(call.await.is_err(), "the client timed out");
    for _ in 0..100 {
        if *recorder.dropped.lock().unwrap() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the upstream request is still waiting");
}

#[tokio::test]
async fn stop_closes_listener() {
    let mut served = serve(local(&Arc::default()), ToolFilter::default()).await;
    tool_names(&served, "", None).await;
    served.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), &mut served.done)
        .await
        .expect("stops in time")
        .expect("stops well");
    assert!(
        datadog_llmobs::http_client()
            .build()
            .unwrap()
            .get(format!("{}/healthz", served.base))
            .send()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn refuses_exposed_address_without_public_url() {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let server = McpServer::new(local(&Arc::default()), ToolFilter::default());
    let error = serve_http(
        server,
        Arc::new(OpenGate),
        listener,
        CancellationToken::new(),
    )
    .await
    .expect_err("refused");
    assert!(error.to_string().contains("127.0.0.1:8787"), "{error}");
}
