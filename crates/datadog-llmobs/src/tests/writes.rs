//! A write is repeated only if the first attempt certainly was not executed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};

use super::super::*;
use super::{fast, keys};

static CREATE: Operation = Operation {
    name: "creation of an entry",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/entries",
    media: "application/json",
};

static REPLACE: Operation = Operation {
    class: OperationClass::Idempotent,
    method: Method::PUT,
    name: "replacement of an entry",
    ..CREATE
};

type ScriptedResult = Result<(u16, &'static str), TransportError>;

/// Returns the given results in turn, and the last one repeatedly.
struct ScriptedTransport {
    results: Mutex<Vec<ScriptedResult>>,
    sent: AtomicUsize,
}

impl Transport for ScriptedTransport {
    fn send(
        &self,
        _: Request<Bytes>,
        _: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        let mut results = self.results.lock().unwrap();
        let result = if results.len() > 1 {
            results.remove(0)
        } else {
            results[0].clone()
        };
        let answer = result.map(|(status, body)| {
            let mut response = Response::new(Bytes::from_static(body.as_bytes()));
            *response.status_mut() = status.try_into().unwrap();
            response
        });
        async move { answer }.boxed()
    }
}

async fn execute(
    operation: &'static Operation,
    results: Vec<ScriptedResult>,
) -> (Result<ApiResponse, ClientError>, usize) {
    let script = std::sync::Arc::new(ScriptedTransport {
        results: Mutex::new(results),
        sent: AtomicUsize::new(0),
    });
    let client = Hub::new(Upstream::Local, script.clone(), fast()).client(keys(), "test");
    let answer = client.execute(ApiCall::new(operation)).await;
    (answer, script.sent.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn possibly_executed_write_is_not_repeated() {
    let broken = || TransportError::Interrupted("reset".into());
    let results: [ScriptedResult; 6] = [
        Ok((500, "{}")),
        Ok((503, "")),
        Err(TransportError::Timeout(Duration::from_secs(30))),
        Err(broken()),
        Err(TransportError::BodyTooLarge { limit: 1 }),
        Ok((200, "<html>")),
    ];
    for result in results {
        for (operation, safe) in [(&CREATE, false), (&REPLACE, true)] {
            let (answer, sent) = execute(operation, vec![result.clone()]).await;
            let error = answer.unwrap_err();
            assert!(error.outcome_unknown(), "{result:?}: {error}");
            assert_eq!(error.hint().contains("is safe"), safe);
            assert_eq!(sent, 1, "{result:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn surely_not_executed_write_is_repeated() {
    let results: [ScriptedResult; 4] = [
        Err(TransportError::Connect("refused".into())),
        Err(TransportError::Dns),
        Err(TransportError::ConnectTimeout),
        Ok((429, "")),
    ];
    for result in results {
        let (answer, sent) = execute(&CREATE, vec![result.clone(), result, Ok((201, "{}"))]).await;
        assert_eq!(answer.unwrap().status, 201);
        assert_eq!(sent, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_write_has_known_outcome() {
    for status in [400, 401, 403, 404, 409, 422] {
        let (answer, sent) = execute(&CREATE, vec![Ok((status, "{}"))]).await;
        let error = answer.unwrap_err();
        assert!(!error.outcome_unknown());
        assert_eq!((error.status(), sent), (Some(status), 1));
    }
}
