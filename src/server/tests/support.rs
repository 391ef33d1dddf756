//! A server over an upstream that records requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::{FixedCredential, McpServer, ToolFilter, UpstreamInfo, Upstreams, serve_http};
use datadog_llmobs::{
    Credential, Hub, HubSettings, ResponseLimits, Site, Transport, TransportError, Upstream,
};
use llmobs_authz::{Gate, OpenGate};

/// An upstream without data that records every request.
#[derive(Default)]
pub(super) struct Recorder {
    requests: Mutex<Vec<(String, http::HeaderMap)>>,
    /// Whether it never answers.
    silent: bool,
    /// Whether it panics with the request in the message.
    panicking: bool,
    /// The number of requests whose future was dropped before an answer.
    pub(super) dropped: Arc<Mutex<usize>>,
}

struct CountDrop(Arc<Mutex<usize>>);
impl Drop for CountDrop {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

impl Recorder {
    /// An upstream that accepts requests and never answers.
    pub(super) fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// An upstream whose code panics, with the request in the message.
    pub(super) fn panicking() -> Self {
        Self {
            panicking: true,
            ..Self::default()
        }
    }

    pub(super) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Removes all requests and returns the host and one header of the first.
    pub(super) fn first(&self, header: &str) -> (String, Option<String>) {
        let mut requests = self.requests.lock().unwrap();
        let (host, headers) = requests.first().cloned().expect("a request was sent");
        requests.clear();
        let value = headers.get(header).map(|v| v.to_str().unwrap().to_owned());
        (host, value)
    }
}

impl Transport for Recorder {
    fn send(
        &self,
        req: http::Request<Bytes>,
        _limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        let host = req.uri().host().unwrap_or_default().to_owned();
        self.requests
            .lock()
            .unwrap()
            .push((host, req.headers().clone()));
        Box::pin(async move {
            assert!(!self.panicking, "cannot send {req:?}");
            if self.silent {
                let _count_drop = CountDrop(self.dropped.clone());
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
            let body = r#"{"data":[],"meta":{"status":"done","page":{}}}"#;
            Ok(http::Response::builder()
                .header("content-type", "application/json")
                .body(Bytes::from_static(body.as_bytes()))
                .expect("response"))
        })
    }
}

pub(super) fn hub(upstream: Upstream, recorder: &Arc<Recorder>) -> Hub {
    Hub::new(upstream, recorder.clone(), HubSettings::default())
}

fn info(url: &str) -> UpstreamInfo {
    UpstreamInfo {
        site: None,
        url: Some(url.to_owned()),
    }
}

pub(super) fn local(recorder: &Arc<Recorder>) -> Upstreams {
    Upstreams::local(
        hub(Upstream::Local, recorder),
        false,
        info("http://127.0.0.1:8126"),
    )
}

pub(super) fn unchosen(recorder: &Arc<Recorder>) -> Upstreams {
    let for_headers = recorder.clone();
    Upstreams::unchosen(
        hub(Upstream::Local, recorder),
        info("http://127.0.0.1:8126"),
        "datadoghq.com",
        Box::new(move || {
            let site = Site::parse("datadoghq.com").map_err(|e| e.to_string())?;
            Ok(hub(Upstream::Site(site), &for_headers))
        }),
    )
}

pub(super) fn datadog(recorder: &Arc<Recorder>) -> Upstreams {
    let own = Credential::from_parts(Some("own-api"), Some("own-app"), None).expect("a pair");
    Upstreams::datadog(
        hub(
            Upstream::Site(Site::parse("datadoghq.eu").expect("site")),
            recorder,
        ),
        Arc::new(FixedCredential::new(
            own,
            "environment: DD_API_KEY and DD_APPLICATION_KEY",
        )),
        UpstreamInfo {
            site: Some("datadoghq.eu".to_owned()),
            url: Some("https://api.datadoghq.eu".to_owned()),
        },
    )
}

/// A running HTTP server; it stops when dropped.
pub(super) struct RunningServer {
    pub(super) base: String,
    pub(super) stop: CancellationToken,
    pub(super) done: tokio::task::JoinHandle<()>,
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves without authentication on loopback.
pub(super) async fn serve(upstreams: Upstreams, process: ToolFilter) -> RunningServer {
    serve_behind(Arc::new(OpenGate), upstreams, process).await
}

/// Serves behind a gate.
pub(super) async fn serve_behind(
    gate: Arc<dyn Gate>,
    upstreams: Upstreams,
    process: ToolFilter,
) -> RunningServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let stop = CancellationToken::new();
    let server = McpServer::new(upstreams, process);
    let stopped = stop.clone();
    let done = tokio::spawn(async move {
        serve_http(server, gate, listener, stopped)
            .await
            .expect("serves");
    });
    RunningServer { base, stop, done }
}
