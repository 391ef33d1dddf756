//! Slow clients: they hold few resources for a limited time, and do not block others.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Local, START, span};
use crate::{ConnectionLimits, IntakeLimits, serve};

/// Serves the backend on a port until the test ends.
struct Served {
    address: std::net::SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Served {
    async fn new(local: &Local) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend = local.backend.clone();
        let serving = tokio::spawn(async move {
            serve(backend, listener, std::future::pending())
                .await
                .unwrap();
        });
        Self { address, serving }
    }

    async fn connect(&self, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream
    }

    /// Sends a span and returns the status.
    async fn send(&self, id: u64) -> u16 {
        let client = datadog_llmobs::http_client().no_proxy().build().unwrap();
        let body = json!([{"spans": [span(id, START, json!({"tags": ["ml_app:shop"]}))]}]);
        let url = format!("http://{}/api/v2/llmobs", self.address);
        let answer = client.post(url).json(&body).send().await.unwrap();
        answer.status().as_u16()
    }
}

/// The head of a request.
fn head(length: usize) -> String {
    format!(
        "POST /api/v2/llmobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Reads until the server closes the connection.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    let read = tokio::time::timeout(Duration::from_secs(60), read).await;
    // A reset also ends the connection.
    let _ = read.expect("the connection is closed");
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_do_not_block_others() {
    let local = Local::with(|options| {
        options.intake_limits = IntakeLimits {
            max_processing: 2,
            max_requests: 64,
            ..IntakeLimits::default()
        };
    });
    let served = Served::new(&local).await;
    let body = |id: u64| {
        let sent = json!([{"spans": [span(id, START, json!({"tags": ["ml_app:shop"]}))]}]);
        sent.to_string().into_bytes()
    };
    let mut slow = Vec::new();
    for id in 100..140 {
        let body = body(id);
        let mut stream = served.connect(&head(body.len())).await;
        stream.write_all(&body[..1]).await.unwrap();
        slow.push((stream, body));
    }
    // Forty bodies are arriving and two may be processed; other requests are served immediately.
    for id in 1..=10 {
        assert_eq!(served.send(id).await, 202);
    }
    assert_eq!(local.backend.stats().unwrap().spans, 10);
    for (stream, body) in &mut slow {
        for part in body[1..].chunks(40) {
            stream.write_all(part).await.unwrap();
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 202");
    }
    assert_eq!(local.backend.stats().unwrap().spans, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_more_arriving_bodies_than_limit() {
    let local = Local::with(|options| {
        options.intake_limits = IntakeLimits {
            max_requests: 5,
            ..IntakeLimits::default()
        };
    });
    let served = Served::new(&local).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        slow.push(served.connect(&format!("{}[", head(1_000))).await);
    }
    wait_for_requests(&local, 5).await;
    let refused = local.post("/api/v2/llmobs", &json!([])).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers["retry-after"], "1");
    drop(slow);
    // Closed connections release their slots.
    wait_for_requests(&local, 0).await;
    assert_eq!(served.send(1).await, 202);
}

/// Waits until the intake holds `expected` requests.
async fn wait_for_requests(local: &Local, expected: usize) {
    let all = async {
        while local.backend.inner.admission.request_count() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(50), all).await;
    let held = local.backend.inner.admission.request_count();
    in_time.unwrap_or_else(|_| panic!("the intake holds {held} requests, not {expected}"));
}

#[tokio::test(start_paused = true)]
async fn unfinished_body_times_out() {
    let local = Local::new();
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/v2/llmobs")
        .body(axum::body::Body::from_stream(never))
        .unwrap();
    let answer = local.send(request).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert!(answer.detail().contains("send it again"));
}

fn with_short_timeouts(max_connections: usize) -> Local {
    Local::with(|options| {
        options.connection_limits = ConnectionLimits {
            max_connections,
            head_timeout: Duration::from_millis(300),
            idle_timeout: Duration::from_millis(600),
        };
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_slow_heads_and_idle_connections() {
    let local = with_short_timeouts(8);
    let served = Served::new(&local).await;
    let mut idle = served.connect("").await;
    let mut slow = served.connect("POST /api/v2/llmobs HTTP/1.1\r\n").await;
    let writes = async {
        // Writes fail some time after the server closed the connection.
        while slow.write_all(b"x-more: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), writes).await;
    in_time.expect("closed while it still sends");
    assert_eq!(read_to_end(&mut idle).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_limit_wait() {
    let local = with_short_timeouts(4);
    let served = Served::new(&local).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(served.connect("").await);
    }
    // Idle connections occupy all slots. The request is served after they time out.
    let sent = tokio::time::timeout(Duration::from_secs(60), served.send(1)).await;
    assert_eq!(sent.expect("served"), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_request_keeps_its_connection() {
    let local = with_short_timeouts(8);
    let served = Served::new(&local).await;
    let admission = &local.backend.inner.admission;
    let slots: Vec<_> = (0..IntakeLimits::default().max_processing)
        .map(|_| admission.occupy_slot())
        .collect();
    let (status, ()) = tokio::join!(served.send(1), async {
        // Longer than all timeouts of the connection.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        drop(slots);
    });
    assert_eq!(status, 202);
}
