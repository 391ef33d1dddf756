//! Calls a router in this process as if it were a remote host, without a port.

use ::http::{HeaderValue, Request, Response, header};
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::cause::ErrorCause;

use super::{BodyCollector, ResponseLimits, Transport, TransportError};

/// Calls an axum router directly.
#[derive(Debug, Clone)]
pub struct RouterTransport(pub Router);

impl RouterTransport {
    async fn exchange(
        &self,
        mut request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> Result<Response<Bytes>, TransportError> {
        // An HTTP client sends it, and the host check of the server needs it.
        if !request.headers().contains_key(header::HOST)
            && let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let response = match self.0.clone().oneshot(request.map(Body::from)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, mut body) = response.into_parts();
        let mut collector = BodyCollector::new(parts.status.is_success(), limits);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Some(chunk) = frame.data_ref()
                        && !collector.push(chunk)?
                    {
                        break;
                    }
                }
                Err(error) => {
                    collector.interrupted(TransportError::Interrupted(ErrorCause::new(error)))?;
                    break;
                }
            }
        }
        Ok(Response::from_parts(parts, collector.finish()))
    }
}

impl Transport for RouterTransport {
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        async move {
            tokio::time::timeout(limits.timeout, self.exchange(request, limits))
                .await
                .unwrap_or(Err(TransportError::Timeout(limits.timeout)))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use std::time::Duration;

    fn limits() -> ResponseLimits {
        ResponseLimits {
            timeout: Duration::from_secs(30),
            max_body_bytes: 10,
        }
    }

    fn request(path: &str) -> Request<Bytes> {
        Request::get(format!("http://127.0.0.1:8126{path}"))
            .body(Bytes::new())
            .unwrap()
    }

    fn transport() -> RouterTransport {
        RouterTransport(
            Router::new()
                .route(
                    "/host",
                    get(|headers: HeaderMap| async move { format!("{:?}", headers.get("host")) }),
                )
                .route("/ten", get(|| async { "0123456789" }))
                .route("/eleven", get(|| async { "0123456789+" }))
                .route("/never", get(std::future::pending::<&'static str>)),
        )
    }

    #[tokio::test]
    async fn body_limit_is_exact() {
        let response = transport().send(request("/ten"), limits()).await.unwrap();
        assert_eq!(response.body().as_ref(), b"0123456789");
        let error = transport().send(request("/eleven"), limits()).await.err();
        assert_eq!(error, Some(TransportError::BodyTooLarge { limit: 10 }));
    }

    #[tokio::test(start_paused = true)]
    async fn pending_handler_times_out() {
        let error = transport().send(request("/never"), limits()).await;
        assert_eq!(
            error.err(),
            Some(TransportError::Timeout(Duration::from_secs(30)))
        );
    }

    #[tokio::test]
    async fn unknown_route_returns_404() {
        let response = transport().send(request("/nope"), limits()).await.unwrap();
        assert_eq!(response.status(), 404);
    }

    #[tokio::test]
    async fn sends_host_header() {
        let larger_body = ResponseLimits {
            max_body_bytes: 100,
            ..limits()
        };
        let response = transport()
            .send(request("/host"), larger_body)
            .await
            .unwrap();
        assert_eq!(response.body().as_ref(), b"Some(\"127.0.0.1:8126\")");
    }
}
