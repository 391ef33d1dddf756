//! A write is never repeated unless the first attempt surely did not execute.

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
    name: "creation of a thing",
    class: OperationClass::NonIdempotent,
    method: Method::POST,
    route: "/things",
    media: "application/json",
};

static REPLACE: Operation = Operation {
    class: OperationClass::Idempotent,
    method: Method::PUT,
    name: "replacement of a thing",
    ..CREATE
};

type Outcome = Result<(u16, &'static str), TransportError>;

/// Gives outcomes in turn, the last one for ever.
struct Script {
    outcomes: Mutex<Vec<Outcome>>,
    sent: AtomicUsize,
}

impl Transport for Script {
    fn send(
        &self,
        _: Request<Bytes>,
        _: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        self.sent.fetch_add(1, Ordering::SeqCst);
        let mut outcomes = self.outcomes.lock().unwrap();
        let outcome = if outcomes.len() > 1 {
            outcomes.remove(0)
        } else {
            outcomes[0].clone()
        };
        let answer = outcome.map(|(status, body)| {
            let mut response = Response::new(Bytes::from_static(body.as_bytes()));
            *response.status_mut() = status.try_into().unwrap();
            response
        });
        async move { answer }.boxed()
    }
}

async fn execute(
    operation: &'static Operation,
    outcomes: Vec<Outcome>,
) -> (Result<ApiResponse, ClientError>, usize) {
    let script = std::sync::Arc::new(Script {
        outcomes: Mutex::new(outcomes),
        sent: AtomicUsize::new(0),
    });
    let client = Hub::new(Upstream::Local, script.clone(), fast()).client(keys(), "test");
    let answer = client.execute(ApiCall::new(operation)).await;
    (answer, script.sent.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_happened_is_not_repeated() {
    let broken = || TransportError::Interrupted("reset".into());
    let outcomes: [Outcome; 6] = [
        Ok((500, "{}")),
        Ok((503, "")),
        Err(TransportError::Timeout(Duration::from_secs(30))),
        Err(broken()),
        Err(TransportError::BodyTooLarge { limit: 1 }),
        Ok((200, "<html>")),
    ];
    for outcome in outcomes {
        for (operation, safe) in [(&CREATE, false), (&REPLACE, true)] {
            let (answer, sent) = execute(operation, vec![outcome.clone()]).await;
            let error = answer.unwrap_err();
            assert!(error.outcome_unknown(), "{outcome:?}: {error}");
            assert_eq!(error.hint().contains("is safe"), safe);
            assert_eq!(sent, 1, "{outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_surely_did_not_happen_is_repeated() {
    let outcomes: [Outcome; 4] = [
        Err(TransportError::Connect("refused".into())),
        Err(TransportError::Dns),
        Err(TransportError::ConnectTimeout),
        Ok((429, "")),
    ];
    for outcome in outcomes {
        let (answer, sent) =
            execute(&CREATE, vec![outcome.clone(), outcome, Ok((201, "{}"))]).await;
        assert_eq!(answer.unwrap().status, 201);
        assert_eq!(sent, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_refused_failed_for_sure() {
    for status in [400, 401, 403, 404, 409, 422] {
        let (answer, sent) = execute(&CREATE, vec![Ok((status, "{}"))]).await;
        let error = answer.unwrap_err();
        assert!(!error.outcome_unknown());
        assert_eq!((error.status(), sent), (Some(status), 1));
    }
}
