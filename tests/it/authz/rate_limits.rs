//! Rate limits against guessing and flooding.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rstest::rstest;
use serde_json::json;

use super::test_server::{
    ALICE, Browser, CALLBACK, Client, Form as _, Page, TestServer, location, parameter,
    send_for_json,
};

/// Repeats an action until it is rate limited. Returns the number of accepted actions and the seconds to
/// wait.
async fn repeat_until_limited(mut act: impl AsyncFnMut() -> reqwest::Response) -> (usize, u64) {
    for n in 0..1_000 {
        let answer = act().await;
        if answer.status() == 429 {
            let wait = answer.headers()["retry-after"].to_str().unwrap();
            return (n, wait.parse().unwrap());
        }
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn limits_invalid_bearers_but_not_valid_ones() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let guess = async || {
        let call = server.call("/mcp", "list_llmobs_projects");
        call.bearer_auth("llmobs_at_guess").send().await.unwrap()
    };
    let (let_in, wait) = repeat_until_limited(guess).await;
    assert_eq!(let_in, 60);
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
    server.clock.advance(Duration::from_secs(wait));
    assert_eq!(server.status("/mcp", "llmobs_at_guess").await, 401);
}

#[tokio::test]
async fn page_accepts_five_attempts() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&server, &client.authorize(&server, &[])).await;
    for n in 0..5 {
        let guess = format!("guess-{n}");
        let fields = [
            ("api_key", "key-of-alice"),
            ("application_key", guess.as_str()),
        ];
        let answer = browser.allow(&server, &page, &fields).await;
        assert_eq!(answer.status(), 422);
        page = Page {
            html: answer.text().await.unwrap(),
            ..page
        };
    }
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(
        answer.status(),
        403,
        "the sixth attempt is refused even with a valid credential"
    );
    assert_eq!(server.datadog.request_count(), 5);
}

#[tokio::test]
async fn concurrent_submissions_verify_credential_once() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let fields = ALICE.fields();
    let silence = server.datadog.answering.write().await;
    let mut sent: FuturesUnordered<_> = (0..10)
        .map(|_| browser.allow(&server, &page, &fields))
        .collect();
    // Nine submissions are refused while the credential of the first is being verified.
    for _ in 0..9 {
        let patience = Duration::from_secs(10);
        let transcript = tokio::time::timeout(patience, sent.next()).await;
        assert_eq!(transcript.expect("a refusal").unwrap().status(), 403);
    }
    drop(silence);
    assert_eq!(sent.next().await.unwrap().status(), 303);
    assert_eq!(server.datadog.request_count(), 1);
}

#[tokio::test]
async fn limits_attempts_across_pages() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let guess = async || {
        let mut browser = Browser::default();
        let page = browser.open(&server, &client.authorize(&server, &[])).await;
        browser.allow(&server, &page, &[("token", "guess")]).await
    };
    let (let_in, wait) = repeat_until_limited(guess).await;
    assert_eq!(let_in, 20);
    assert_eq!(server.datadog.request_count(), 20);
    server.clock.advance(Duration::from_secs(wait));
    let code = server.code(&client, ALICE).await;
    assert!(!code.is_empty());
}

#[rstest]
#[case::register("/oauth/register", 20)]
#[case::token("/oauth/token", 120)]
#[case::revoke("/oauth/revoke", 120)]
#[tokio::test]
async fn limits_requests_per_endpoint(#[case] path: &str, #[case] limit: usize) {
    let server = TestServer::new().await;
    let ask = async || {
        let request = server.http.post(server.at(path));
        request.json(&json!({})).send().await.unwrap()
    };
    let (let_in, wait) = repeat_until_limited(ask).await;
    assert_eq!(let_in, limit);
    server.clock.advance(Duration::from_secs(wait));
    assert_eq!(ask().await.status(), 400);
}

#[tokio::test]
async fn forwarding_header_does_not_evade_limit() {
    let server = TestServer::new().await;
    let mut n = 0;
    let ask = async || {
        n += 1;
        let request = server.http.post(server.at("/oauth/register"));
        let request = request.header("x-forwarded-for", format!("192.0.2.{n}"));
        let request = request.header("forwarded", format!("for=192.0.2.{n}"));
        request.json(&json!({})).send().await.unwrap()
    };
    assert_eq!(repeat_until_limited(ask).await.0, 20);
}

#[tokio::test]
async fn limits_consent_pages_and_document_fetches() {
    let server = TestServer::new().await;
    let mut n = 0;
    let ask = async || {
        n += 1;
        let client = Client {
            id: format!("https://client.example/{n}.json"),
            redirect: CALLBACK.to_owned(),
        };
        let url = client.authorize(&server, &[]);
        server.http.get(url).send().await.unwrap()
    };
    assert_eq!(repeat_until_limited(ask).await.0, 20);
    assert_eq!(server.library.request_count(), 20);
    // Registered clients can still open pages, up to the limit of pages.
    let client = server.client("A client", CALLBACK).await;
    let open = async || {
        let url = client.authorize(&server, &[]);
        server.http.get(url).send().await.unwrap()
    };
    assert_eq!(repeat_until_limited(open).await.0, 120 - 21);
}

#[tokio::test]
async fn limits_submissions_of_unknown_pages() {
    let server = TestServer::new().await;
    let guess = async || {
        let request = server.http.post(server.at("/oauth/consent"));
        let form = [("page", "guess"), ("csrf", "guess"), ("decision", "deny")];
        request.form(&form).send().await.unwrap()
    };
    assert_eq!(repeat_until_limited(guess).await.0, 120);
}

#[tokio::test]
async fn wrong_verifier_consumes_code() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let mut form = client.exchange(&code);
    form.retain(|(name, _)| *name != "code_verifier");
    let wrong = "another-verifier-of-more-than-43-characters-0123456789";
    form.push(("code_verifier", wrong));
    let (status, _) = send_for_json(server.http.post(server.at("/oauth/token")).form(&form)).await;
    assert_eq!(status, 400);
    let (status, _) = server.exchange(&client, &code).await;
    assert_eq!(status, 400);
}
