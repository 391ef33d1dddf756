//! MCP over standard input and output, for the one client that started the process.
//!
//! Only protocol messages go to standard output. The process ends when the client closes standard
//! input.

use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::McpServer;

/// An error of the server over a pair of streams.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The first message does not start an MCP session.
    #[error("the client did not start with an MCP request: {0}")]
    Handshake(String),
    /// The serving task failed.
    #[error("the MCP server failed: {0}")]
    Failed(String),
}

/// Serves standard input and output until the client closes them or `stop` is cancelled.
pub async fn serve_stdio(server: McpServer, stop: CancellationToken) -> Result<(), StdioError> {
    let (input, output) = rmcp::transport::io::stdio_pipes();
    serve_streams(server, input, output, stop).await
}

/// Serves a pair of streams. Tests use an in-memory pair.
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
        // A client that only checks that the program starts closes the input at once.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            Ok(())
        }
        // The message itself may hold a caller's text, so the error names its kind only.
        Err(ServerInitializeError::ExpectedInitializeRequest(_)) => Err(StdioError::Handshake(
            "its first message was neither initialize nor a request of revision 2026-07-28".into(),
        )),
        Err(error) => Err(StdioError::Failed(error.to_string())),
    }
}
