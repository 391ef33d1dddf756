//! Secrets appear neither in logs nor in responses nor in the files of the store.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::site_double::{
    SiteDouble, complete_at_datadog, read_continue_page, redirect_to_datadog, wait_until,
};
use super::test_server::{
    ALICE, BOB, Browser, CALLBACK, Form as _, Page, TestServer, Tokens, location, parameter,
};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// The secrets of a sign-in, and everything that the server responded.
struct Transcript {
    secrets: Vec<String>,
    answers: String,
}

/// A sign-in with many errors on the way.
async fn failing_sign_in(server: &TestServer) -> Transcript {
    let mut transcript = Transcript {
        secrets: [ALICE, BOB]
            .iter()
            .flat_map(|user| [user.api_key.to_owned(), user.app_key.to_owned()])
            .collect(),
        answers: String::new(),
    };
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(server, &client.authorize(server, &[])).await;
    transcript.secrets.extend(browser.cookies.values().cloned());
    transcript.secrets.push(page.hidden("csrf"));
    // The keys of two users: the error of the upstream repeats them.
    let mixed = [("api_key", ALICE.api_key), ("application_key", BOB.app_key)];
    let answer = browser.allow(server, &page, &mixed).await;
    let html = answer.text().await.unwrap();
    let page = super::test_server::Page { html, ..page };
    transcript
        .answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    transcript.secrets.push(page.hidden("csrf"));
    let answer = browser.allow(server, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    let first = Tokens::from_response(&answer);
    let (_, answer) = server.refresh(&client, &first.refresh).await;
    let second = Tokens::from_response(&answer);
    transcript
        .answers
        .push_str(&server.projects(&second.access).await);
    // Valid secrets in wrong places.
    let v1 = server
        .call("/v1/mcp", "list_llmobs_projects")
        .bearer_auth(&second.access);
    transcript
        .answers
        .push_str(&headers_and_body(v1.send().await.unwrap()).await);
    let both = server
        .call("/mcp", "list_llmobs_projects")
        .bearer_auth(&second.access)
        .header("dd-api-key", BOB.api_key);
    transcript
        .answers
        .push_str(&headers_and_body(both.send().await.unwrap()).await);
    for (status, answer) in [
        server.exchange(&client, &code).await,
        server.refresh(&client, &first.refresh).await,
        server.refresh(&client, &second.refresh).await,
    ] {
        assert_eq!(status, 400);
        transcript.answers.push_str(&answer.to_string());
    }
    transcript.secrets.extend([
        code,
        first.access,
        first.refresh,
        second.access,
        second.refresh,
    ]);
    transcript
}

/// A sign-in at Datadog with many errors on the way.
async fn failing_datadog_sign_in(server: &TestServer, site: &SiteDouble) -> Transcript {
    let mut transcript = Transcript {
        secrets: Vec::new(),
        answers: String::new(),
    };
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    site.recorder
        .refuses_registration
        .store(true, Ordering::SeqCst);
    let page = browser.open(server, &client.authorize(server, &[])).await;
    let refused = browser.form(server, &page, "datadog", &[]).send().await;
    let page = Page::from_response(refused.unwrap()).await;
    site.recorder
        .refuses_registration
        .store(false, Ordering::SeqCst);
    // A wrong code, and a state that was used.
    let datadog_url = redirect_to_datadog(server, &mut browser, &page, &[]).await;
    let callback_url = site.decide(server, &datadog_url, "allow").await;
    transcript
        .secrets
        .push(parameter(&callback_url, "state").unwrap());
    transcript
        .secrets
        .push(parameter(&callback_url, "code").unwrap());
    let wrong = format!("{}&x=y", callback_url.as_str().replace("code=", "code=x"));
    let page = Page::from_response(browser.arrive(server, &wrong).await).await;
    assert_eq!(page.status, 422);
    transcript.secrets.push(page.hidden("csrf"));
    transcript
        .answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    let used = Page::from_response(browser.arrive(server, callback_url.as_str()).await).await;
    transcript.answers.push_str(&used.html);
    // A login without read access.
    site.recorder.refuses_reading.store(true, Ordering::SeqCst);
    let datadog_url = redirect_to_datadog(server, &mut browser, &page, &[]).await;
    let callback_url = site.decide(server, &datadog_url, "allow").await;
    let page = Page::from_response(browser.arrive(server, callback_url.as_str()).await).await;
    transcript
        .answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    site.recorder.refuses_reading.store(false, Ordering::SeqCst);
    // A login with read access: a failed renewal, a renewal, and revocation.
    let url = client.authorize(server, &[]);
    let callback_url = complete_at_datadog(server, site, &mut browser, &url, &[]).await;
    transcript
        .secrets
        .push(parameter(&callback_url, "state").unwrap());
    let answer = browser.arrive(server, callback_url.as_str()).await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    let tokens = Tokens::from_response(&answer);
    transcript
        .answers
        .push_str(&server.projects(&tokens.access).await);
    server.clock.advance(Duration::from_secs(57 * 60));
    site.recorder.refuses_tokens.store(true, Ordering::SeqCst);
    transcript
        .answers
        .push_str(&server.projects(&tokens.access).await);
    site.recorder.refuses_tokens.store(false, Ordering::SeqCst);
    server.clock.advance(Duration::from_secs(10));
    transcript
        .answers
        .push_str(&server.projects(&tokens.access).await);
    let (_, answer) = server.refresh(&client, &tokens.refresh).await;
    let tokens = Tokens::from_response(&answer);
    let (_, refresh) = site.last_tokens();
    site.revoke(server, &refresh).await;
    server.clock.advance(Duration::from_secs(58 * 60));
    transcript
        .answers
        .push_str(&server.projects(&tokens.access).await);
    let revoke = server.http.post(server.at("/oauth/revoke"));
    let revoke = revoke.form(&[("token", tokens.access.as_str())]);
    let before = site.revocations().len();
    transcript
        .answers
        .push_str(&headers_and_body(revoke.send().await.unwrap()).await);
    wait_until(|| site.revocations().len() > before).await;
    transcript.secrets.extend(browser.cookies.into_values());
    transcript
        .secrets
        .extend([code, tokens.access, tokens.refresh]);
    transcript.secrets.extend(site.secrets());
    transcript
}

async fn headers_and_body(answer: reqwest::Response) -> String {
    format!(
        "{:?} {}",
        answer.headers().clone(),
        answer.text().await.unwrap()
    )
}

/// Runs a sign-in, and checks that its secrets are neither in its responses nor in the log. The log must
/// contain `lines`.
async fn assert_no_secret_leaks(lines: &[&str], failing_sign_in: impl AsyncFnOnce() -> Transcript) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // With a second dispatcher, `tracing` asks this subscriber about every event. With a single one it
    // caches the interest of the first thread, and threads of other tests have no subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // Everything runs on this thread, except queries of the store.
    let guard = tracing::subscriber::set_default(subscriber);
    let transcript = failing_sign_in().await;
    drop(guard);
    let text = log.text();
    for line in lines {
        assert!(text.contains(line), "the log lacks a line: {line}");
    }
    for secret in &transcript.secrets {
        assert!(secret.len() > 8, "too short for a secret");
        assert!(!text.contains(secret), "logged: {secret}");
        assert!(!transcript.answers.contains(secret), "repeated: {secret}");
    }
}

#[tokio::test]
async fn secrets_are_not_logged_or_repeated() {
    let lines = [
        "a user granted access",
        "issued tokens for a code",
        "was used twice",
    ];
    assert_no_secret_leaks(&lines, async || {
        failing_sign_in(&TestServer::new().await).await
    })
    .await;
}

#[tokio::test]
async fn secrets_of_datadog_sign_in_are_not_logged_or_repeated() {
    let lines = [
        "the sign-in at Datadog could not start",
        "a sign-in at Datadog failed",
        "refused a login at Datadog",
        "\"sign-in at Datadog\"",
        "was not renewed",
        "renewed a login at Datadog",
        "no longer renews the login",
        "revoked a login at Datadog",
    ];
    let failing_sign_in = async || {
        let site = SiteDouble::new().await;
        let server = TestServer::start(site.setup_with_sign_in(None)).await;
        failing_datadog_sign_in(&server, &site).await
    };
    assert_no_secret_leaks(&lines, failing_sign_in).await;
}

#[tokio::test]
async fn store_files_contain_no_secrets() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    browser.open(&server, &client.authorize(&server, &[])).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let mut secrets: Vec<String> = browser.cookies.into_values().collect();
    secrets.extend([tokens.access, tokens.refresh]);
    secrets.extend([ALICE.api_key.to_owned(), ALICE.app_key.to_owned()]);
    assert_files_contain_none(&server, &secrets);
}

#[tokio::test]
async fn store_files_contain_no_secrets_of_datadog_sign_in() {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_with_sign_in(None)).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&server, &[]);
    let page = browser.open(&server, &url).await;
    // An unfinished sign-in, and a finished one.
    let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
    let mut secrets = vec![
        parameter(&datadog_url, "state").unwrap(),
        page.hidden("page"),
    ];
    let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
    read_continue_page(browser.arrive(&server, callback_url.as_str()).await).await;
    secrets.extend(browser.cookies.into_values());
    secrets.extend(site.secrets());
    assert!(secrets.len() >= 8);
    assert_files_contain_none(&server, &secrets);
}

fn assert_files_contain_none(server: &TestServer, secrets: &[String]) {
    let mut files = 0;
    for entry in std::fs::read_dir(server.state.path().join("state")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(files > 0 || !bytes.is_empty());
        for secret in secrets {
            assert!(!text.contains(secret), "stored: {secret}");
        }
        files += 1;
    }
    assert!(files >= 1);
}
