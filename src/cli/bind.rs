//! Binds listening ports.

use std::net::SocketAddr;
use std::ops::Range;

use tokio::net::TcpListener;

use super::error::CliError;

/// Binds `named`, or else the first free port of `ports` on loopback, or else any free port.
pub(crate) async fn bind(
    named: Option<SocketAddr>,
    ports: Range<u16>,
) -> Result<TcpListener, CliError> {
    if let Some(address) = named {
        return TcpListener::bind(address).await.map_err(|error| {
            CliError::failed(
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    format!("{address} is already in use")
                } else {
                    format!("cannot listen on {address}: {error}")
                },
                "stop the other program, or name another port; port 0 selects a free one",
            )
        });
    }
    for port in ports.chain([0]) {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return Ok(listener);
        }
    }
    Err(CliError::failed(
        "127.0.0.1 has no free port",
        "stop a program that listens on 127.0.0.1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn skips_port_in_use_unless_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let other = bind(None, address.port()..address.port() + 1)
            .await
            .expect("another");
        assert_ne!(other.local_addr().expect("address"), address);
        let error = bind(Some(address), 0..0).await.expect_err("in use");
        assert_eq!(error.code(), 1);
    }
}
