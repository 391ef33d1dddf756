//! Guessing in numbers, and flooding.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rstest::rstest;
use serde_json::json;

use super::stage::{
    ALICE, Browser, CALLBACK, Client, Form as _, Page, Stage, json_of, location, parameter,
};

/// Acts until one is refused for their number; how many were let in.
async fn until_too_many(mut act: impl AsyncFnMut() -> reqwest::Response) -> (usize, u64) {
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
async fn bad_bearers_are_limited_and_a_good_one_still_passes() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let guess = async || {
        let call = stage.call("/mcp", "list_llmobs_projects");
        call.bearer_auth("llmobs_at_guess").send().await.unwrap()
    };
    let (let_in, wait) = until_too_many(guess).await;
    assert_eq!(let_in, 60);
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
    stage.clock.pass(Duration::from_secs(wait));
    assert_eq!(stage.status("/mcp", "llmobs_at_guess").await, 401);
}

#[tokio::test]
async fn a_page_takes_five_tries_of_a_credential() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    for n in 0..5 {
        let guess = format!("guess-{n}");
        let fields = [
            ("api_key", "key-of-alice"),
            ("application_key", guess.as_str()),
        ];
        let answer = browser.allow(&stage, &page, &fields).await;
        assert_eq!(answer.status(), 422);
        page = Page {
            html: answer.text().await.unwrap(),
            ..page
        };
    }
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403, "the sixth, were it right");
    assert_eq!(stage.datadog.asked(), 5);
}

#[tokio::test]
async fn one_form_sent_many_times_at_once_tries_its_credential_once() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let fields = ALICE.fields();
    let silence = stage.datadog.answering.write().await;
    let mut sent: FuturesUnordered<_> = (0..10)
        .map(|_| browser.allow(&stage, &page, &fields))
        .collect();
    // Nine are told that the page is answered, while the one is still being tried.
    for _ in 0..9 {
        let patience = Duration::from_secs(10);
        let told = tokio::time::timeout(patience, sent.next()).await;
        assert_eq!(told.expect("a refusal").unwrap().status(), 403);
    }
    drop(silence);
    assert_eq!(sent.next().await.unwrap().status(), 303);
    assert_eq!(stage.datadog.asked(), 1);
}

#[tokio::test]
async fn many_pages_give_no_more_tries_than_the_limit() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let guess = async || {
        let mut browser = Browser::default();
        let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
        browser.allow(&stage, &page, &[("token", "guess")]).await
    };
    let (let_in, wait) = until_too_many(guess).await;
    assert_eq!(let_in, 20);
    assert_eq!(stage.datadog.asked(), 20);
    stage.clock.pass(Duration::from_secs(wait));
    let code = stage.code(&client, ALICE).await;
    assert!(!code.is_empty());
}

#[rstest]
#[case::register("/oauth/register", 20)]
#[case::token("/oauth/token", 120)]
#[case::revoke("/oauth/revoke", 120)]
#[tokio::test]
async fn endpoints_are_limited(#[case] path: &str, #[case] most: usize) {
    let stage = Stage::new().await;
    let ask = async || {
        let request = stage.http.post(stage.at(path));
        request.json(&json!({})).send().await.unwrap()
    };
    let (let_in, wait) = until_too_many(ask).await;
    assert_eq!(let_in, most);
    stage.clock.pass(Duration::from_secs(wait));
    assert_eq!(ask().await.status(), 400);
}

#[tokio::test]
async fn an_address_written_in_a_header_does_not_escape_the_limit() {
    let stage = Stage::new().await;
    let mut n = 0;
    let ask = async || {
        n += 1;
        let request = stage.http.post(stage.at("/oauth/register"));
        let request = request.header("x-forwarded-for", format!("192.0.2.{n}"));
        let request = request.header("forwarded", format!("for=192.0.2.{n}"));
        request.json(&json!({})).send().await.unwrap()
    };
    assert_eq!(until_too_many(ask).await.0, 20);
}

#[tokio::test]
async fn consent_pages_and_metadata_documents_are_limited() {
    let stage = Stage::new().await;
    let mut n = 0;
    let ask = async || {
        n += 1;
        let client = Client {
            id: format!("https://client.example/{n}.json"),
            redirect: CALLBACK.to_owned(),
        };
        let url = client.authorize(&stage, &[]);
        stage.http.get(url).send().await.unwrap()
    };
    assert_eq!(until_too_many(ask).await.0, 20);
    assert_eq!(stage.library.asked(), 20);
    // Those fetches were refused; pages of registered clients still open, up to their own limit.
    let client = stage.client("A client", CALLBACK).await;
    let open = async || {
        let url = client.authorize(&stage, &[]);
        stage.http.get(url).send().await.unwrap()
    };
    assert_eq!(until_too_many(open).await.0, 120 - 21);
}

#[tokio::test]
async fn answers_to_pages_that_are_none_are_limited() {
    let stage = Stage::new().await;
    let guess = async || {
        let request = stage.http.post(stage.at("/oauth/consent"));
        let form = [("page", "guess"), ("csrf", "guess"), ("decision", "deny")];
        request.form(&form).send().await.unwrap()
    };
    assert_eq!(until_too_many(guess).await.0, 120);
}

#[tokio::test]
async fn a_code_is_guessed_once() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let mut form = client.exchange(&code);
    form.retain(|(name, _)| *name != "code_verifier");
    let wrong = "another-verifier-of-more-than-43-characters-0123456789";
    form.push(("code_verifier", wrong));
    let (status, _) = json_of(stage.http.post(stage.at("/oauth/token")).form(&form)).await;
    assert_eq!(status, 400);
    let (status, _) = stage.exchange(&client, &code).await;
    assert_eq!(status, 400);
}
