//! The whole sign-in with the real program, over real HTTP, against the local backend.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use llmobs_local::{DataDir, LocalBackend, LocalOptions, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A local backend that listens, and a home for logins.
struct Stage {
    backend: LocalBackend,
    url: String,
    home: tempfile::TempDir,
}

/// How a program ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Stage {
    async fn new() -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(backend.clone(), listener, std::future::pending()));
        Self {
            backend,
            url,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn state(&self) -> std::path::PathBuf {
        self.home.path().join("state")
    }

    fn file(&self) -> std::path::PathBuf {
        self.state().join("logins.json")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmobs-mcp"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("LLMOBS_MCP_STATE_DIR", self.state())
            .env("LLMOBS_MCP_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().await.unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts `login` and gives the address that it wants opened.
    async fn login(&self, more: &[&str]) -> (Login, String) {
        let mut arguments = vec!["login", "--no-browser", "--api-url", &self.url];
        if !more.contains(&"--callback-port") {
            arguments.extend(["--callback-port", "0"]);
        }
        arguments.extend(more);
        let mut child = self.command(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            said.push_str(&line);
            said.push('\n');
            if let Some(url) = line.trim().strip_prefix("http") {
                let url = format!("http{url}");
                return (Login { child, lines, said }, url);
            }
        }
        panic!("login asked for nothing: {said}");
    }

    async fn signed_in(&self, more: &[&str]) -> Ended {
        let (login, url) = self.login(more).await;
        let callback = answer_page(&url, "allow").await;
        assert_eq!(get(&callback).await.0, 200);
        let ended = login.end().await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended
    }

    /// The tokens as they are kept.
    fn tokens(&self, profile: &str) -> (String, String) {
        let file: Value =
            serde_json::from_str(&std::fs::read_to_string(self.file()).unwrap()).unwrap();
        let tokens = &file["profiles"][profile]["tokens"];
        let text = |key: &str| tokens[key].as_str().unwrap().to_owned();
        (text("access"), text("refresh"))
    }

    /// Makes the access token look as if it had ended.
    fn let_end(&self, profile: &str) {
        let mut file: Value =
            serde_json::from_str(&std::fs::read_to_string(self.file()).unwrap()).unwrap();
        file["profiles"][profile]["expires_at_ms"] = json!(1_000);
        file["profiles"][profile]["issued_at_ms"] = json!(0);
        std::fs::write(self.file(), file.to_string()).unwrap();
    }

    async fn search(&self) -> Ended {
        let arguments = ["call", "search_llmobs_spans", "--api-url", &self.url];
        self.run(&arguments).await
    }

    fn asked(&self, route: &str) -> u64 {
        let counts = self.backend.request_counts().requests;
        counts.get(route).copied().unwrap_or_default()
    }
}

/// A `login` that waits.
struct Login {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    said: String,
}

impl Login {
    async fn end(mut self) -> Ended {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        let mut out = String::new();
        let stdout = self.child.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut out).await.unwrap();
        Ended {
            code: self.child.wait().await.unwrap().code().unwrap(),
            out,
            err: self.said,
        }
    }
}

fn browser() -> reqwest::Client {
    datadog_llmobs::http_client()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

async fn get(url: &str) -> (u16, String) {
    let answer = browser().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Opens the consent page as a browser does, presses a button, and gives where that leads.
async fn answer_page(url: &str, decision: &str) -> String {
    let page = browser().get(url).send().await.unwrap();
    let cookie = page.headers()["set-cookie"].to_str().unwrap().to_owned();
    let html = page.text().await.unwrap();
    let consent = html.split_once("name=\"consent\" value=\"").unwrap().1;
    let consent = consent.split('"').next().unwrap();
    let form = format!("consent={consent}&decision={decision}");
    let origin: url::Url = url.parse().unwrap();
    let answer = browser()
        .post(format!(
            "{}/oauth2/v1/authorize",
            origin.origin().ascii_serialization()
        ))
        .header("cookie", cookie.split(';').next().unwrap())
        .header("origin", origin.origin().ascii_serialization())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    answer.headers()["location"].to_str().unwrap().to_owned()
}

fn without_secrets(ended: &Ended, secrets: &[&str]) {
    for secret in secrets {
        assert!(!ended.out.contains(secret), "{ended:?}");
        assert!(!ended.err.contains(secret), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_in_use_renew_and_sign_out() {
    let stage = Stage::new().await;
    let before = stage.run(&["status"]).await;
    assert!(before.out.contains("Nobody is signed in"), "{before:?}");
    let signed_in = stage.signed_in(&[]).await;
    assert!(
        signed_in.out.contains("Signed in to 127.0.0.1"),
        "{signed_in:?}"
    );
    let (access, refresh) = stage.tokens("default");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&stage.file()), 0o600);
        assert_eq!(mode(&stage.state()), 0o700);
    }

    let status = stage.run(&["status"]).await;
    assert!(
        status.out.contains("* default: http://127.0.0.1"),
        "{status:?}"
    );
    let whoami = stage
        .run(&["whoami", "--json", "--api-url", &stage.url])
        .await;
    let told: Value = serde_json::from_str(&whoami.out).unwrap();
    assert_eq!(told["credential"]["kind"], "bearer token");
    let origin = "the stored login of profile default";
    assert_eq!(told["credential"]["origin"], origin);
    let doctor = stage.run(&["doctor", "--api-url", &stage.url]).await;
    assert!(doctor.out.contains(origin), "{doctor:?}");
    // A server of this machine counts only where a flag names it.
    let elsewhere = stage.run(&["whoami"]).await;
    assert!(elsewhere.out.contains("no credential"), "{elsewhere:?}");

    let found = stage.search().await;
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(stage.asked("POST /oauth2/v1/token"), 1);

    // Two processes whose token has ended: one renews, both are answered.
    stage.let_end("default");
    let (one, other) = tokio::join!(stage.search(), stage.search());
    assert_eq!((one.code, other.code), (0, 0), "{one:?} {other:?}");
    assert_eq!(stage.asked("POST /oauth2/v1/token"), 2);
    let (new_access, new_refresh) = stage.tokens("default");
    assert_ne!((&access, &refresh), (&new_access, &new_refresh));

    // Only the access token is revoked: the next call is refused once and renews.
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(stage.file()).unwrap()).unwrap();
    let client = file["profiles"]["default"]["client_id"].as_str().unwrap();
    let revoke = async |token: &str| {
        let body = format!("client_id={client}&token={token}");
        let url = format!("{}/oauth2/v1/revoke", stage.url);
        browser().post(url).body(body).send().await.unwrap();
    };
    revoke(&new_access).await;
    let healed = stage.search().await;
    assert_eq!(healed.code, 0, "{healed:?}");
    assert_eq!(stage.asked("POST /oauth2/v1/token"), 3);

    // The whole grant is revoked: the error says what to do.
    let (last_access, last_refresh) = stage.tokens("default");
    revoke(&last_refresh).await;
    let over = stage.search().await;
    assert_eq!(over.code, 1);
    assert!(
        over.out.contains("sign in again: llmobs-mcp login"),
        "{over:?}"
    );

    let again = stage.signed_in(&[]).await;
    let (access2, refresh2) = stage.tokens("default");
    let out = stage.run(&["logout", "--api-url", &stage.url]).await;
    assert_eq!(out.code, 0, "{out:?}");
    assert!(out.out.contains("revoked and forgotten"), "{out:?}");
    assert!(
        !std::fs::read_to_string(stage.file())
            .unwrap()
            .contains(&access2)
    );
    let bearer = format!("Bearer {access2}");
    let url = format!("{}/api/v2/llm-obs/v1/spans/events", stage.url);
    let answer = browser()
        .get(url)
        .header("authorization", bearer)
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 401);

    let secrets = [
        &access,
        &refresh,
        &new_access,
        &new_refresh,
        &last_access,
        &last_refresh,
        &access2,
        &refresh2,
    ];
    let secrets: Vec<&str> = secrets.iter().map(|secret| secret.as_str()).collect();
    for ended in [
        signed_in, status, whoami, doctor, found, one, other, healed, over, again, out,
    ] {
        without_secrets(&ended, &secrets);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_live_beside_each_other() {
    let stage = Stage::new().await;
    stage.signed_in(&["--profile", "one", "--read-only"]).await;
    stage.signed_in(&["--profile", "two"]).await;
    let status = stage.run(&["status"]).await;
    assert!(
        status.out.contains("  one: ") && status.out.contains("* two: "),
        "{status:?}"
    );
    let whoami = async |profile: &str| {
        let arguments = [
            "whoami",
            "--json",
            "--api-url",
            &stage.url,
            "--profile",
            profile,
        ];
        stage.run(&arguments).await
    };
    let one: Value = serde_json::from_str(&whoami("one").await.out).unwrap();
    assert_eq!(one["credential"]["scopes"], "llm_observability_read");
    let nobody = whoami("three").await;
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains("there are one, two"), "{nobody:?}");
    // Keys of the environment come first, unless a profile is named.
    let mut keys = stage.command(&["whoami", "--api-url", &stage.url]);
    keys.env("DD_API_KEY", "alpha")
        .env("DD_APPLICATION_KEY", "beta");
    let output = String::from_utf8(keys.output().await.unwrap().stdout).unwrap();
    assert!(
        output.contains("from DD_API_KEY and DD_APPLICATION_KEY"),
        "{output}"
    );
    let mut named = stage.command(&["whoami", "--api-url", &stage.url, "--profile", "one"]);
    named
        .env("DD_API_KEY", "alpha")
        .env("DD_APPLICATION_KEY", "beta");
    let output = String::from_utf8(named.output().await.unwrap().stdout).unwrap();
    assert!(
        output.contains("the stored login of profile one"),
        "{output}"
    );
    let out = stage
        .run(&["logout", "--all", "--api-url", &stage.url])
        .await;
    assert_eq!(out.code, 0, "{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_this_machine_must_be_named_before_a_token_is_sent_there() {
    let stage = Stage::new().await;
    stage.signed_in(&[]).await;
    let out = stage.run(&["logout"]).await;
    assert_eq!(out.code, 1);
    assert!(
        out.err.contains("forgotten here but not revoked"),
        "{out:?}"
    );
    assert_eq!(stage.asked("POST /oauth2/v1/revoke"), 0);
    assert!(
        stage
            .run(&["status"])
            .await
            .out
            .contains("Nobody is signed in")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_in_the_browser() {
    let stage = Stage::new().await;
    let (login, url) = stage.login(&[]).await;
    get(&answer_page(&url, "deny").await).await;
    let ended = login.end().await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("the sign-in was denied"), "{ended:?}");
    assert!(!stage.file().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_is_not_known() {
    let stage = Stage::new().await;
    let (login, url) = stage.login(&["--scope", "admin"]).await;
    let answer = browser().get(&url).send().await.unwrap();
    get(answer.headers()["location"].to_str().unwrap()).await;
    let ended = login.end().await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("not recognized: admin"), "{ended:?}");
    assert!(
        ended.err.contains("--scope llm_observability_read"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_answer_does_not_end_the_wait() {
    let stage = Stage::new().await;
    let (login, url) = stage.login(&[]).await;
    let callback = answer_page(&url, "allow").await;
    let (head, _) = callback.split_once('?').unwrap();
    let (status, page) = get(&format!("{head}?code=x&state=y&domain=evil.example")).await;
    assert_eq!(status, 400);
    assert!(page.contains("another sign-in"), "{page}");
    get(&callback).await;
    assert_eq!(login.end().await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_may_be_pasted_where_the_browser_is_elsewhere() {
    let stage = Stage::new().await;
    let (mut login, url) = stage.login(&[]).await;
    let callback = answer_page(&url, "allow").await;
    let mut stdin = login.child.stdin.take().unwrap();
    stdin.write_all(b"what?\n").await.unwrap();
    stdin
        .write_all(format!("{callback}\n").as_bytes())
        .await
        .unwrap();
    let ended = login.end().await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_another_domain_is_not_followed() {
    let stage = Stage::new().await;
    for domain in ["datadoghq.com", "localhost:1", "evil.example"] {
        let (mut login, url) = stage.login(&[]).await;
        let callback = answer_page(&url, "allow").await;
        let mut changed: url::Url = callback.parse().unwrap();
        let values: Vec<(String, String)> = changed
            .query_pairs()
            .into_owned()
            .map(|(name, value)| {
                let value = if name == "domain" {
                    domain.to_owned()
                } else {
                    value
                };
                (name, value)
            })
            .collect();
        changed.query_pairs_mut().clear().extend_pairs(values);
        let mut stdin = login.child.stdin.take().unwrap();
        stdin
            .write_all(format!("{changed}\n").as_bytes())
            .await
            .unwrap();
        let ended = login.end().await;
        assert_eq!(ended.code, 1);
        assert!(
            ended.err.contains("the code was not sent there"),
            "{ended:?}"
        );
    }
    assert_eq!(stage.asked("POST /oauth2/v1/token"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_and_a_browser_that_never_comes() {
    let stage = Stage::new().await;
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = used.local_addr().unwrap().port().to_string();
    let arguments = ["login", "--api-url", &stage.url, "--callback-port", &port];
    let ended = stage.run(&arguments).await;
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains(&format!("port {port}")), "{ended:?}");
    assert_eq!(stage.asked("POST /api/v2/oauth2/register"), 0);

    let (login, _) = stage.login(&["--timeout", "1"]).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), login.end())
        .await
        .unwrap();
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("no answer came from the browser"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyring_that_is_not_there_is_said_loudly() {
    let stage = Stage::new().await;
    // No session bus in this environment, or no keyring in this build.
    let ended = stage.signed_in(&["--storage", "keyring"]).await;
    assert!(
        ended
            .err
            .contains("warning: the system's keyring cannot be used"),
        "{ended:?}"
    );
    assert!(ended.err.contains("logins.json"), "{ended:?}");
    assert!(stage.run(&["status"]).await.out.contains("in file"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_logins_that_others_can_read_is_not_used() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let stage = Stage::new().await;
        stage.signed_in(&[]).await;
        std::fs::set_permissions(stage.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let ended = stage.run(&["whoami", "--api-url", &stage.url]).await;
        assert!(ended.out.contains("no credential"), "{ended:?}");
        assert!(ended.err.contains("other users can read"), "{ended:?}");
        let ended = stage.run(&["status"]).await;
        assert_eq!(ended.code, 1);
        assert!(ended.err.contains("chmod 600"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_nobody_signs_in_to() {
    let stage = Stage::new().await;
    for (arguments, words) in [
        (
            &["login", "--site", "local"][..],
            "local data needs no sign-in",
        ),
        (
            &["login", "--api-url", "https://proxy.example.com"],
            "neither",
        ),
        (&["login", "--site", "ddog-gov.com"], "government"),
        (&["login", "--profile", "../../x"], "a profile's name is"),
        (&["login", "--org", "acme"], "a UUID"),
    ] {
        let ended = stage.run(arguments).await;
        assert_ne!(ended.code, 0);
        assert!(ended.err.contains(words), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_among_the_arguments_is_warned_of_and_not_repeated() {
    let stage = Stage::new().await;
    let key = "0123456789abcdef0123456789abcdef";
    let ended = stage.run(&["--api-key", key, "tools"]).await;
    assert_eq!(ended.code, 2);
    assert!(
        ended.err.contains("an argument looks like a key"),
        "{ended:?}"
    );
    let help = stage
        .command(&["--help"])
        .env("DD_API_KEY", key)
        .output()
        .await
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(!help.contains(key));
    for command in ["login", "logout", "status", "whoami"] {
        assert!(help.contains(command), "{help}");
    }
}
