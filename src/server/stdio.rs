//! MCP over standard input and output: one client, which started us.
//!
//! Standard output belongs to the protocol. The process ends when the client closes our input.

use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::McpServer;

/// What can go wrong in serving a pair of streams.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The first message was not one that opens a conversation.
    #[error("the client did not open the conversation: {0}")]
    Handshake(String),
    /// The serving task failed.
    #[error("serving failed: {0}")]
    Failed(String),
}

/// Serves standard input and output until the client closes them or `stop` is cancelled.
pub async fn serve_stdio(server: McpServer, stop: CancellationToken) -> Result<(), StdioError> {
    let (input, output) = rmcp::transport::io::stdio_pipes();
    serve_streams(server, input, output, stop).await
}

/// Serves any pair of streams; the pair that tests use is in memory.
pub async fn serve_streams(
    server: McpServer,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> Result<(), StdioError> {
    match rmcp::service::serve_server_with_ct(server, (input, output), stop).await {
        Ok(running) => match running.waiting().await {
            Ok(_reason) => Ok(()),
            Err(error) => Err(StdioError::Failed(error.to_string())),
        },
        // Closing the input before saying anything is how a client looks whether we start at all.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            Ok(())
        }
        // The message itself may hold a caller's text: name the kind only.
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => Err(StdioError::Handshake(
            "its first message was neither initialize nor a request of revision 2026-07-28".into(),
        )),
        Err(error) => Err(StdioError::Failed(error.to_string())),
    }
}
