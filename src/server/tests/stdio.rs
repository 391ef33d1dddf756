//! Standard input and output, as a pair of in-memory streams.

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
use crate::server::{McpServer, StdioError, Upstreams, Wish, serve_streams};
use crate::tools;

fn start(upstreams: Upstreams) -> (DuplexStream, JoinHandle<Result<(), StdioError>>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(theirs);
    let server = McpServer::new(upstreams, Wish::default());
    let serving = tokio::spawn(serve_streams(
        server,
        input,
        output,
        CancellationToken::new(),
    ));
    (ours, serving)
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
    serving.await.expect("ends").expect("well");
}

#[tokio::test]
async fn closing_the_input_ends_the_process_even_before_a_word() {
    let (stream, serving) = start(local(&Arc::default()));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .expect("in time")
        .expect("ends")
        .expect("well");
}

async fn say(stream: &mut (impl AsyncWriteExt + Unpin), message: &Value) {
    stream
        .write_all(format!("{message}\n").as_bytes())
        .await
        .expect("written");
}

#[tokio::test]
async fn a_cancelled_call_is_dropped_at_the_upstream() {
    let recorder = Arc::new(Recorder::silent());
    let (stream, _serving) = start(local(&recorder));
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"}}});
    say(&mut write, &hello).await;
    lines.next_line().await.expect("read").expect("an answer");
    say(
        &mut write,
        &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    )
    .await;
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "search_llmobs_spans", "arguments": {}}});
    say(&mut write, &call).await;
    while recorder.count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 7, "reason": "changed my mind"}});
    say(&mut write, &cancel).await;
    for _ in 0..100 {
        if *recorder.dropped.lock().unwrap() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the upstream request is still waiting");
}

#[tokio::test]
async fn the_processs_own_credential_is_used() {
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
async fn with_nothing_configured_the_instructions_say_so_and_how_to_connect() {
    let (stream, _serving) = start(unchosen(&Arc::default()));
    let client =
        ().serve_with_lifecycle(tokio::io::split(stream), ClientLifecycleMode::Initialize)
            .await
            .expect("connects");
    let info = client.peer_info().expect("info");
    let told = info.instructions.clone().expect("instructions");
    for word in [
        "local",
        "DD_SITE",
        "DD_API_KEY",
        "DD_APPLICATION_KEY",
        "search_llmobs_spans",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!((200..=1600).contains(&told.chars().count()));
}
