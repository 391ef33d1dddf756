//! No secret in the log, in an answer's words, or in the store's files.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::site::{Site, leave, onward, through, until};
use super::stage::{
    ALICE, BOB, Browser, CALLBACK, Form as _, Page, Stage, Tokens, location, parameter,
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

/// Everything that must not be seen, gathered on the way.
struct Told {
    secrets: Vec<String>,
    answers: String,
}

/// A sign-in with all that can go wrong on it, noting secrets and answers.
async fn adventure(stage: &Stage) -> Told {
    let mut told = Told {
        secrets: [ALICE, BOB]
            .iter()
            .flat_map(|user| [user.api_key.to_owned(), user.app_key.to_owned()])
            .collect(),
        answers: String::new(),
    };
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(stage, &client.authorize(stage, &[])).await;
    told.secrets.extend(browser.cookies.values().cloned());
    told.secrets.push(page.hidden("csrf"));
    // A pair of two users' halves: Datadog's refusal repeats what it was sent.
    let mixed = [("api_key", ALICE.api_key), ("application_key", BOB.app_key)];
    let answer = browser.allow(stage, &page, &mixed).await;
    let html = answer.text().await.unwrap();
    let page = super::stage::Page { html, ..page };
    told.answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    told.secrets.push(page.hidden("csrf"));
    let answer = browser.allow(stage, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    let first = Tokens::of(&answer);
    let (_, answer) = stage.refresh(&client, &first.refresh).await;
    let second = Tokens::of(&answer);
    told.answers.push_str(&stage.projects(&second.access).await);
    // Wrong uses of right secrets.
    let v1 = stage
        .call("/v1/mcp", "list_llmobs_projects")
        .bearer_auth(&second.access);
    told.answers
        .push_str(&everything(v1.send().await.unwrap()).await);
    let both = stage
        .call("/mcp", "list_llmobs_projects")
        .bearer_auth(&second.access)
        .header("dd-api-key", BOB.api_key);
    told.answers
        .push_str(&everything(both.send().await.unwrap()).await);
    for (status, answer) in [
        stage.exchange(&client, &code).await,
        stage.refresh(&client, &first.refresh).await,
        stage.refresh(&client, &second.refresh).await,
    ] {
        assert_eq!(status, 400);
        told.answers.push_str(&answer.to_string());
    }
    told.secrets.extend([
        code,
        first.access,
        first.refresh,
        second.access,
        second.refresh,
    ]);
    told
}

/// A sign-in at Datadog with all that can go wrong on it, likewise.
async fn adventure_at_datadog(stage: &Stage, site: &Site) -> Told {
    let mut told = Told {
        secrets: Vec::new(),
        answers: String::new(),
    };
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    site.tap.registers_nobody.store(true, Ordering::SeqCst);
    let page = browser.open(stage, &client.authorize(stage, &[])).await;
    let refused = browser.form(stage, &page, "datadog", &[]).send().await;
    let page = Page::of(refused.unwrap()).await;
    site.tap.registers_nobody.store(false, Ordering::SeqCst);
    // A code that is somebody else's, and a state that was used.
    let there = leave(stage, &mut browser, &page, &[]).await;
    let back = site.decide(stage, &there, "allow").await;
    told.secrets.push(parameter(&back, "state").unwrap());
    told.secrets.push(parameter(&back, "code").unwrap());
    let wrong = format!("{}&x=y", back.as_str().replace("code=", "code=x"));
    let page = Page::of(browser.arrive(stage, &wrong).await).await;
    assert_eq!(page.status, 422);
    told.secrets.push(page.hidden("csrf"));
    told.answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    let used = Page::of(browser.arrive(stage, back.as_str()).await).await;
    told.answers.push_str(&used.html);
    // A login that may not read.
    site.tap.lets_nobody_read.store(true, Ordering::SeqCst);
    let there = leave(stage, &mut browser, &page, &[]).await;
    let back = site.decide(stage, &there, "allow").await;
    let page = Page::of(browser.arrive(stage, back.as_str()).await).await;
    told.answers
        .push_str(&page.html.replace(&page.hidden("csrf"), ""));
    site.tap.lets_nobody_read.store(false, Ordering::SeqCst);
    // One that does, is renewed, fails to be, and ends.
    let url = client.authorize(stage, &[]);
    let back = through(stage, site, &mut browser, &url, &[]).await;
    told.secrets.push(parameter(&back, "state").unwrap());
    let answer = browser.arrive(stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    let tokens = Tokens::of(&answer);
    told.answers.push_str(&stage.projects(&tokens.access).await);
    stage.clock.pass(Duration::from_secs(57 * 60));
    site.tap.gives_no_tokens.store(true, Ordering::SeqCst);
    told.answers.push_str(&stage.projects(&tokens.access).await);
    site.tap.gives_no_tokens.store(false, Ordering::SeqCst);
    stage.clock.pass(Duration::from_secs(10));
    told.answers.push_str(&stage.projects(&tokens.access).await);
    let (_, answer) = stage.refresh(&client, &tokens.refresh).await;
    let tokens = Tokens::of(&answer);
    let (_, refresh) = site.given();
    site.revoke(stage, &refresh).await;
    stage.clock.pass(Duration::from_secs(58 * 60));
    told.answers.push_str(&stage.projects(&tokens.access).await);
    let revoke = stage.http.post(stage.at("/oauth/revoke"));
    let revoke = revoke.form(&[("token", tokens.access.as_str())]);
    let before = site.revocations().len();
    told.answers
        .push_str(&everything(revoke.send().await.unwrap()).await);
    until(|| site.revocations().len() > before).await;
    told.secrets.extend(browser.cookies.into_values());
    told.secrets.extend([code, tokens.access, tokens.refresh]);
    told.secrets.extend(site.secrets());
    told
}

async fn everything(answer: reqwest::Response) -> String {
    format!(
        "{:?} {}",
        answer.headers().clone(),
        answer.text().await.unwrap()
    )
}

/// Does something, and finds none of its secrets in its answers or in the log, which holds these lines.
async fn without_a_secret(lines: &[&str], adventure: impl AsyncFnOnce() -> Told) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // Beside a second one, this subscriber is asked about every line. While it is the only one, the
    // thread that comes to a line first answers for all, and threads of other tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // All of it runs on this thread; what runs beside it only reaches the store.
    let listening = tracing::subscriber::set_default(subscriber);
    let told = adventure().await;
    drop(listening);
    let text = log.text();
    for line in lines {
        assert!(
            text.contains(line),
            "the log is not the one looked for: {line}"
        );
    }
    for secret in &told.secrets {
        assert!(secret.len() > 8, "no secret worth the name");
        assert!(!text.contains(secret), "logged: {secret}");
        assert!(!told.answers.contains(secret), "repeated: {secret}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_or_repeated() {
    let lines = [
        "a user granted access",
        "issued tokens for a code",
        "was used twice",
    ];
    without_a_secret(&lines, async || adventure(&Stage::new().await).await).await;
}

#[tokio::test]
async fn no_secret_of_a_sign_in_at_datadog_is_logged_or_repeated() {
    let lines = [
        "the sign-in at Datadog could not start",
        "a sign-in at Datadog failed",
        "refused a login at Datadog",
        "\"sign-in at Datadog\"",
        "was not renewed",
        "a login at Datadog was renewed",
        "no longer renews the login",
        "revoked a login at Datadog",
    ];
    let adventure = async || {
        let site = Site::new().await;
        let stage = Stage::start(site.setup_with_sign_in(None)).await;
        adventure_at_datadog(&stage, &site).await
    };
    without_a_secret(&lines, adventure).await;
}

#[tokio::test]
async fn no_secret_stands_in_the_stores_files() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    browser.open(&stage, &client.authorize(&stage, &[])).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let mut secrets: Vec<String> = browser.cookies.into_values().collect();
    secrets.extend([tokens.access, tokens.refresh]);
    secrets.extend([ALICE.api_key.to_owned(), ALICE.app_key.to_owned()]);
    the_files_hold_none(&stage, &secrets);
}

#[tokio::test]
async fn no_secret_of_a_sign_in_at_datadog_stands_in_the_stores_files() {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_with_sign_in(None)).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&stage, &[]);
    let page = browser.open(&stage, &url).await;
    // One that waits, and one that is done.
    let there = leave(&stage, &mut browser, &page, &[]).await;
    let mut secrets = vec![parameter(&there, "state").unwrap(), page.hidden("page")];
    let back = through(&stage, &site, &mut browser, &url, &[]).await;
    onward(browser.arrive(&stage, back.as_str()).await).await;
    secrets.extend(browser.cookies.into_values());
    secrets.extend(site.secrets());
    assert!(secrets.len() >= 8);
    the_files_hold_none(&stage, &secrets);
}

fn the_files_hold_none(stage: &Stage, secrets: &[String]) {
    let mut files = 0;
    for entry in std::fs::read_dir(stage.state.path().join("state")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(files > 0 || !bytes.is_empty());
        for secret in secrets {
            assert!(!text.contains(secret), "kept: {secret}");
        }
        files += 1;
    }
    assert!(files >= 1);
}
