//! Tests over a pair of in-memory streams, as over standard input and output.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support::{Recorder, datadog, local, unchosen};
use crate::server::{McpServer, StdioError, ToolFilter, Upstreams, serve_streams};
use crate::tools;

fn start(upstreams: Upstreams) -> (DuplexStream, JoinHandle<Result<(), StdioError>>) {
    let (client, server_side) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(server_side);
    let server = McpServer::new(upstreams, ToolFilter::default());
    let serving = tokio::spawn(serve_streams(
        server,
        input,
        output,
        CancellationToken::new(),
    ));
    (client, serving)
}

#[rstest]
#[case::legacy(ClientLifecycleMode::Initialize)]
#[case::modern(ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] })]
#[tokio::test]
async fn both_eras_list_and_call(#[case] era: ClientLifecycleMode) {
    let (stream, serving) = start(local(&Arc::default()));
    let client = ().serve_with_lifecycle(tokio::io::split(stream), era).await.expect("connects");
    let names: Vec<String> = client
        .list_all_tools()
        .await
        .expect("tools")
        .into_iter()
        .map(|tool| tool.name.into_owned())
        .collect();
    let expected: Vec<&str> = tools::all().iter().map(|tool| tool.name).collect();
    assert_eq!(names, expected, "one page in a fixed order");
    let result = client
        .call_tool(CallToolRequestParams::new("search_llmobs_spans"))
        .await
        .expect("result");
    assert_ne!(result.is_error, Some(true));
    client.cancel().await.expect("closes");
    serving.await.expect("ends").expect("no error");
}

#[tokio::test]
async fn closed_input_ends_server_without_error() {
    let (stream, serving) = start(local(&Arc::default()));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .expect("in time")
        .expect("ends")
        .expect("no error");
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), message: &Value) {
    stream
        .write_all(format!("{message}\n").as_bytes())
        .await
        .expect("written");
}

#[tokio::test]
async fn cancelled_call_cancels_upstream_request() {
    let recorder = Arc::new(Recorder::silent());
    let (stream, _serving) = start(local(&recorder));
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"}}});
    send(&mut write, &initialize).await;
    lines.next_line().await.expect("read").expect("an answer");
    send(
        &mut write,
        &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    )
    .await;
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "search_llmobs_spans", "arguments": {}}});
    send(&mut write, &call).await;
    while recorder.count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 7, "reason": "changed my mind"}});
    send(&mut write, &cancel).await;
    for _ in 0..100 {
        if *recorder.dropped.lock().unwrap() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the upstream request is still waiting");
}

#[tokio::test]
async fn uses_credential_of_process() {
    let recorder = Arc::<Recorder>::default();
    let (stream, _serving) = start(datadog(&recorder));
    let client =
        ().serve_with_lifecycle(tokio::io::split(stream), ClientLifecycleMode::Initialize)
            .await
            .expect("connects");
    client
        .call_tool(CallToolRequestParams::new("search_llmobs_spans"))
        .await
        .expect("result");
    assert_eq!(
        recorder.first("dd-api-key"),
        ("api.datadoghq.eu".to_owned(), Some("own-api".to_owned()))
    );
}

#[tokio::test]
async fn instructions_explain_missing_credentials() {
    let (stream, _serving) = start(unchosen(&Arc::default()));
    let client =
        ().serve_with_lifecycle(tokio::io::split(stream), ClientLifecycleMode::Initialize)
            .await
            .expect("connects");
    let info = client.peer_info().expect("info");
    let text = info.instructions.clone().expect("instructions");
    for word in [
        "local",
        "DD_SITE",
        "DD_API_KEY",
        "DD_APPLICATION_KEY",
        "search_llmobs_spans",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!((200..=1600).contains(&text.chars().count()));
}
