//! No secret in the log, in an answer's words, or in the store's files.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::stage::{ALICE, BOB, Browser, CALLBACK, Stage, Tokens, location, parameter};

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

async fn everything(answer: reqwest::Response) -> String {
    format!(
        "{:?} {}",
        answer.headers().clone(),
        answer.text().await.unwrap()
    )
}

#[tokio::test]
async fn no_secret_is_logged_or_repeated() {
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
    let stage = Stage::new().await;
    let told = adventure(&stage).await;
    drop(listening);
    let text = log.text();
    for line in [
        "a user agreed",
        "tokens were given for a code",
        "came a second time",
    ] {
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
async fn no_secret_stands_in_the_stores_files() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    browser.open(&stage, &client.authorize(&stage, &[])).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let mut secrets: Vec<String> = browser.cookies.into_values().collect();
    secrets.extend([tokens.access, tokens.refresh]);
    secrets.extend([ALICE.api_key.to_owned(), ALICE.app_key.to_owned()]);
    let mut files = 0;
    for entry in std::fs::read_dir(stage.state.path().join("state")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(files > 0 || !bytes.is_empty());
        for secret in &secrets {
            assert!(!text.contains(secret), "kept: {secret}");
        }
        files += 1;
    }
    assert!(files >= 1);
}
