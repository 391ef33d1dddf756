//! The loopback listener that receives the authorization response.
//!
//! It is bound before the browser opens, on 127.0.0.1 only, and stops after one response. A request
//! with a wrong `state` gets an error page and does not stop it, because any web page can send one.
//! The pages repeat nothing of the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};

use super::super::cause::ErrorCause;
use super::error::LoginError;
use super::sign_in::PendingSignIn;

/// The default ports, tried in order. Datadog's own programs use the same ones.
pub const CALLBACK_PORTS: [u16; 4] = [8000, 8080, 8888, 9000];

const CALLBACK_PATH: &str = "/oauth/callback";

/// How long to wait until the last page is delivered.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// A bound port that waits for the browser.
pub struct CallbackListener {
    listener: TcpListener,
    port: u16,
}

struct CallbackState {
    sign_in: Arc<PendingSignIn>,
    authority: String,
    wrong_states: AtomicU32,
    response: Mutex<Option<oneshot::Sender<String>>>,
}

impl CallbackListener {
    /// Binds `port` (0: any free one) or, without a port, the first free one of
    /// [`CALLBACK_PORTS`].
    ///
    /// # Errors
    /// [`LoginError::PortInUse`] or [`LoginError::AllPortsInUse`].
    pub async fn bind(port: Option<u16>) -> Result<Self, LoginError> {
        let Some(port) = port else {
            return Self::bind_first_free(&CALLBACK_PORTS).await;
        };
        Self::bind_port(port)
            .await
            .map_err(|error| LoginError::PortInUse {
                port,
                source: ErrorCause::new(error),
            })
    }

    /// Binds the first of these ports that is free.
    pub(super) async fn bind_first_free(ports: &[u16]) -> Result<Self, LoginError> {
        for port in ports {
            if let Ok(listener) = Self::bind_port(*port).await {
                return Ok(listener);
            }
        }
        Err(LoginError::AllPortsInUse)
    }

    async fn bind_port(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// The redirect URI that leads here.
    pub fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{CALLBACK_PATH}", self.port)
    }

    /// Waits for the response that belongs to `sign_in` and returns its query.
    ///
    /// # Errors
    /// [`LoginError::TimedOut`].
    pub async fn wait(
        self,
        sign_in: Arc<PendingSignIn>,
        timeout: Duration,
    ) -> Result<String, LoginError> {
        let (sender, receiver) = oneshot::channel();
        let state = Arc::new(CallbackState {
            sign_in,
            authority: format!("127.0.0.1:{}", self.port),
            wrong_states: AtomicU32::new(0),
            response: Mutex::new(Some(sender)),
        });
        let router = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&state));
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            axum::serve(self.listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        let response = tokio::time::timeout(timeout, receiver).await;
        let _ = stop.send(());
        // A browser may keep its connection open after the page was delivered.
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut server)
            .await
            .is_err()
        {
            server.abort();
        }
        match response {
            Ok(Ok(query)) => Ok(query),
            _ => Err(LoginError::TimedOut {
                waited: timeout,
                wrong_states: state.wrong_states.load(Ordering::Relaxed),
            }),
        }
    }
}

async fn receive(State(state): State<Arc<CallbackState>>, request: Request) -> Response {
    // Defends against DNS rebinding: only the address itself is accepted as host.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.as_bytes() != state.authority.as_bytes()) {
        return page(
            StatusCode::FORBIDDEN,
            "Wrong address",
            "This server accepts requests to 127.0.0.1 only.",
        );
    }
    if request.uri().path() != CALLBACK_PATH {
        return page(
            StatusCode::NOT_FOUND,
            "Not found",
            "This server only receives the result of a sign-in.",
        );
    }
    if request.method() != Method::GET {
        return page(
            StatusCode::METHOD_NOT_ALLOWED,
            "Method not allowed",
            "This server only receives the result of a sign-in from a browser.",
        );
    }
    let query = request.uri().query().unwrap_or_default();
    if !state.sign_in.matches_state(query) {
        state.wrong_states.fetch_add(1, Ordering::Relaxed);
        return page(
            StatusCode::BAD_REQUEST,
            "Another sign-in",
            "This response belongs to another sign-in. Return to the window that llmobs-mcp opened.",
        );
    }
    let Some(sender) = state.response.lock().await.take() else {
        return page(
            StatusCode::GONE,
            "Already received",
            "This sign-in has already received its response.",
        );
    };
    let _ = sender.send(query.to_owned());
    page(
        StatusCode::OK,
        "Return to the terminal",
        "llmobs-mcp received the response and shows the result in the terminal. You can close this window.",
    )
}

/// A small page of constant text.
fn page(status: StatusCode, title: &'static str, text: &'static str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>llmobs-mcp: {title}</title>\
         <body style=\"font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem\">\
         <h1>{title}</h1><p>{text}</p>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::CONNECTION, "close"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    (status, headers, html).into_response()
}
