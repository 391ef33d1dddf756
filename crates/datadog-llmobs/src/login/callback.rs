//! The loopback listener that the browser comes back to.
//!
//! It is bound before the browser opens, on 127.0.0.1 only, takes one answer and goes. A request
//! with a wrong `state` is told so and does not end the wait: anybody's page can send one. The page
//! says nothing that came with the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};

use super::error::LoginError;
use super::sign_in::PendingSignIn;

/// The ports that Datadog's own programs come back on; the first free one is taken.
pub const CALLBACK_PORTS: [u16; 4] = [8000, 8080, 8888, 9000];

const PATH: &str = "/oauth/callback";

/// How long the last page may take to leave.
const GOODBYE: Duration = Duration::from_secs(2);

/// A port that waits for the browser.
pub struct CallbackListener {
    listener: TcpListener,
    port: u16,
}

struct Shared {
    attempt: Arc<PendingSignIn>,
    authority: String,
    wrong_states: AtomicU32,
    answer: Mutex<Option<oneshot::Sender<String>>>,
}

impl CallbackListener {
    /// Binds the port that was named (0: any free one), or the first free one of [`CALLBACK_PORTS`].
    ///
    /// # Errors
    /// The port, or all of them, are taken.
    pub async fn bind(named: Option<u16>) -> Result<Self, LoginError> {
        let Some(port) = named else {
            return Self::first_free(&CALLBACK_PORTS).await;
        };
        Self::at(port).await.map_err(|error| LoginError::PortTaken {
            port,
            reason: error.to_string(),
        })
    }

    /// Binds the first of these ports that is free.
    pub(super) async fn first_free(ports: &[u16]) -> Result<Self, LoginError> {
        for port in ports {
            if let Ok(listener) = Self::at(*port).await {
                return Ok(listener);
            }
        }
        Err(LoginError::PortsTaken)
    }

    async fn at(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the browser is sent back to.
    pub fn redirect(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the one answer that belongs to `attempt` and gives its query.
    ///
    /// # Errors
    /// [`LoginError::TimedOut`].
    pub async fn wait(
        self,
        attempt: Arc<PendingSignIn>,
        longest: Duration,
    ) -> Result<String, LoginError> {
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::new(Shared {
            attempt,
            authority: format!("127.0.0.1:{}", self.port),
            wrong_states: AtomicU32::new(0),
            answer: Mutex::new(Some(sender)),
        });
        let router = Router::new().fallback(take).with_state(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            axum::serve(self.listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        let answer = tokio::time::timeout(longest, receiver).await;
        let _ = stop.send(());
        // A browser may keep its connection open; the page itself is out by then.
        if tokio::time::timeout(GOODBYE, &mut serving).await.is_err() {
            serving.abort();
        }
        match answer {
            Ok(Ok(query)) => Ok(query),
            _ => Err(LoginError::TimedOut {
                waited: longest,
                wrong_states: shared.wrong_states.load(Ordering::Relaxed),
            }),
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    // A name that leads here may have been made to: only the address itself is ours.
    let host = request.headers().get(header::HOST);
    if host.is_none_or(|host| host.as_bytes() != shared.authority.as_bytes()) {
        return page(
            StatusCode::FORBIDDEN,
            "Not here",
            "This address is not mine.",
        );
    }
    if request.uri().path() != PATH {
        return page(
            StatusCode::NOT_FOUND,
            "Nothing here",
            "Only the sign-in comes back here.",
        );
    }
    if request.method() != Method::GET {
        return page(
            StatusCode::METHOD_NOT_ALLOWED,
            "Not like this",
            "Only a browser that comes back from the sign-in is answered here.",
        );
    }
    let query = request.uri().query().unwrap_or_default();
    if !shared.attempt.recognises(query) {
        shared.wrong_states.fetch_add(1, Ordering::Relaxed);
        return page(
            StatusCode::BAD_REQUEST,
            "Not this sign-in",
            "This answer belongs to another sign-in. Go back to the window that llmobs-mcp opened.",
        );
    }
    let Some(answer) = shared.answer.lock().await.take() else {
        return page(
            StatusCode::GONE,
            "Already done",
            "This sign-in has its answer.",
        );
    };
    let _ = answer.send(query.to_owned());
    page(
        StatusCode::OK,
        "Back in the terminal",
        "llmobs-mcp has your answer and tells in the terminal how it went. You can close this window.",
    )
}

/// A small page. Its texts are ours: nothing in it came from a request.
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
