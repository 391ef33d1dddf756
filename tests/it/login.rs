//! The complete sign-in with the program over HTTP, against the local backend.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use llmobs_datadog_double::{DatadogDouble, DoubleOptions};
use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A local backend over HTTP, and a home directory for logins.
struct Fixture {
    double: DatadogDouble,
    url: String,
    home: tempfile::TempDir,
}

/// The exit code and the output of a program.
#[derive(Debug)]
struct ProgramOutput {
    code: i32,
    out: String,
    err: String,
}

impl Fixture {
    async fn new() -> Self {
        let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let options = DoubleOptions {
            sign_in: true,
            ..DoubleOptions::default()
        };
        let double = DatadogDouble::new(backend, options);
        tokio::spawn(axum::serve(listener, double.router()).into_future());
        Self {
            double,
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

    async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let output = self.command(arguments).output().await.unwrap();
        ProgramOutput {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts `login` and returns the address to open.
    async fn login(&self, more: &[&str]) -> (PendingLogin, String) {
        let mut arguments = vec!["login", "--no-browser", "--api-url", &self.url];
        if !more.contains(&"--callback-port") {
            arguments.extend(["--callback-port", "0"]);
        }
        arguments.extend(more);
        let mut child = self.command(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut text = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            text.push_str(&line);
            text.push('\n');
            if let Some(url) = line.trim().strip_prefix("http") {
                let url = format!("http{url}");
                return (PendingLogin { child, lines, text }, url);
            }
        }
        panic!("login printed no address: {text}");
    }

    async fn sign_in(&self, more: &[&str]) -> ProgramOutput {
        let (login, url) = self.login(more).await;
        let callback = answer_consent_page(&url, "allow").await;
        assert_eq!(get(&callback).await.0, 200);
        let output = login.end().await;
        assert_eq!(output.code, 0, "{output:?}");
        output
    }

    /// The stored access and refresh tokens.
    fn tokens(&self, profile: &str) -> (String, String) {
        let file: Value =
            serde_json::from_str(&std::fs::read_to_string(self.file()).unwrap()).unwrap();
        let tokens = &file["profiles"][profile]["tokens"];
        let text = |key: &str| tokens[key].as_str().unwrap().to_owned();
        (text("access"), text("refresh"))
    }

    /// Marks the access token as expired.
    fn expire(&self, profile: &str) {
        let mut file: Value =
            serde_json::from_str(&std::fs::read_to_string(self.file()).unwrap()).unwrap();
        file["profiles"][profile]["expires_at_ms"] = json!(1_000);
        file["profiles"][profile]["issued_at_ms"] = json!(0);
        std::fs::write(self.file(), file.to_string()).unwrap();
    }

    async fn search(&self) -> ProgramOutput {
        let arguments = ["call", "search_llmobs_spans", "--api-url", &self.url];
        self.run(&arguments).await
    }

    fn request_count(&self, route: &str) -> u64 {
        let counts = self.double.request_counts().requests;
        counts.get(route).copied().unwrap_or_default()
    }
}

/// A `login` that waits for the browser.
struct PendingLogin {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    text: String,
}

impl PendingLogin {
    async fn end(mut self) -> ProgramOutput {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.text.push_str(&line);
            self.text.push('\n');
        }
        let mut out = String::new();
        let stdout = self.child.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut out).await.unwrap();
        ProgramOutput {
            code: self.child.wait().await.unwrap().code().unwrap(),
            out,
            err: self.text,
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

/// Opens the consent page like a browser, presses a button, and returns the redirect.
async fn answer_consent_page(url: &str, decision: &str) -> String {
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

fn assert_no_secrets(output: &ProgramOutput, secrets: &[&str]) {
    for secret in secrets {
        assert!(!output.out.contains(secret), "{output:?}");
        assert!(!output.err.contains(secret), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_in_renews_and_signs_out() {
    let fixture = Fixture::new().await;
    let before = fixture.run(&["status"]).await;
    assert!(before.out.contains("Not signed in"), "{before:?}");
    let signed_in = fixture.sign_in(&[]).await;
    assert!(
        signed_in.out.contains("Signed in to 127.0.0.1"),
        "{signed_in:?}"
    );
    let (access, refresh) = fixture.tokens("default");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&fixture.file()), 0o600);
        assert_eq!(mode(&fixture.state()), 0o700);
    }

    let status = fixture.run(&["status"]).await;
    assert!(
        status.out.contains("* default: http://127.0.0.1"),
        "{status:?}"
    );
    let whoami = fixture
        .run(&["whoami", "--json", "--api-url", &fixture.url])
        .await;
    let report: Value = serde_json::from_str(&whoami.out).unwrap();
    assert_eq!(report["credential"]["kind"], "bearer token");
    let origin = "the stored login of profile default";
    assert_eq!(report["credential"]["origin"], origin);
    let doctor = fixture.run(&["doctor", "--api-url", &fixture.url]).await;
    assert!(doctor.out.contains(origin), "{doctor:?}");
    // A login at a loopback server is used only with a flag that names the server.
    let elsewhere = fixture.run(&["whoami"]).await;
    assert!(elsewhere.out.contains("no credential"), "{elsewhere:?}");

    let found = fixture.search().await;
    assert_eq!(found.code, 0, "{found:?}");
    assert_eq!(fixture.request_count("POST /oauth2/v1/token"), 1);

    // Two processes with an expired token: one renews it, both succeed.
    fixture.expire("default");
    let (one, other) = tokio::join!(fixture.search(), fixture.search());
    assert_eq!((one.code, other.code), (0, 0), "{one:?} {other:?}");
    assert_eq!(fixture.request_count("POST /oauth2/v1/token"), 2);
    let (new_access, new_refresh) = fixture.tokens("default");
    assert_ne!((&access, &refresh), (&new_access, &new_refresh));

    // Only the access token is revoked: the next call is refused once and renews it.
    let file: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture.file()).unwrap()).unwrap();
    let client = file["profiles"]["default"]["client_id"].as_str().unwrap();
    let revoke = async |token: &str| {
        let url = format!("{}/oauth2/v1/revoke", fixture.url);
        browser()
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("client_id={client}&token={token}"))
            .send()
            .await
            .unwrap();
    };
    revoke(&new_access).await;
    let renewed = fixture.search().await;
    assert_eq!(renewed.code, 0, "{renewed:?}");
    assert_eq!(fixture.request_count("POST /oauth2/v1/token"), 3);

    // The grant is revoked: the error says how to sign in again.
    let (last_access, last_refresh) = fixture.tokens("default");
    revoke(&last_refresh).await;
    let revoked = fixture.search().await;
    assert_eq!(revoked.code, 1);
    assert!(
        revoked.out.contains("sign in again: llmobs-mcp login"),
        "{revoked:?}"
    );

    let again = fixture.sign_in(&[]).await;
    let (access2, refresh2) = fixture.tokens("default");
    let out = fixture.run(&["logout", "--api-url", &fixture.url]).await;
    assert_eq!(out.code, 0, "{out:?}");
    assert!(out.out.contains("revoked and deleted"), "{out:?}");
    assert!(
        !std::fs::read_to_string(fixture.file())
            .unwrap()
            .contains(&access2)
    );
    let bearer = format!("Bearer {access2}");
    let url = format!("{}/api/v2/llm-obs/v1/spans/events", fixture.url);
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
    for output in [
        signed_in, status, whoami, doctor, found, one, other, renewed, revoked, again, out,
    ] {
        assert_no_secrets(&output, &secrets);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_several_profiles() {
    let fixture = Fixture::new().await;
    fixture.sign_in(&["--profile", "one", "--read-only"]).await;
    fixture.sign_in(&["--profile", "two"]).await;
    let status = fixture.run(&["status"]).await;
    assert!(
        status.out.contains("  one: ") && status.out.contains("* two: "),
        "{status:?}"
    );
    let whoami = async |profile: &str| {
        let arguments = [
            "whoami",
            "--json",
            "--api-url",
            &fixture.url,
            "--profile",
            profile,
        ];
        fixture.run(&arguments).await
    };
    let one: Value = serde_json::from_str(&whoami("one").await.out).unwrap();
    assert_eq!(one["credential"]["scopes"], "llm_observability_read");
    let unknown = whoami("three").await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("stored are one, two"), "{unknown:?}");
    // Keys in the environment take precedence, unless a flag names a profile.
    let mut keys = fixture.command(&["whoami", "--api-url", &fixture.url]);
    keys.env("DD_API_KEY", "alpha")
        .env("DD_APPLICATION_KEY", "beta");
    let output = String::from_utf8(keys.output().await.unwrap().stdout).unwrap();
    assert!(
        output.contains("from DD_API_KEY and DD_APPLICATION_KEY"),
        "{output}"
    );
    let mut named = fixture.command(&["whoami", "--api-url", &fixture.url, "--profile", "one"]);
    named
        .env("DD_API_KEY", "alpha")
        .env("DD_APPLICATION_KEY", "beta");
    let output = String::from_utf8(named.output().await.unwrap().stdout).unwrap();
    assert!(
        output.contains("the stored login of profile one"),
        "{output}"
    );
    let out = fixture
        .run(&["logout", "--all", "--api-url", &fixture.url])
        .await;
    assert_eq!(out.code, 0, "{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_token_to_loopback_server_only_if_named() {
    let fixture = Fixture::new().await;
    fixture.sign_in(&[]).await;
    let out = fixture.run(&["logout"]).await;
    assert_eq!(out.code, 1);
    assert!(out.err.contains("deleted here but not revoked"), "{out:?}");
    assert_eq!(fixture.request_count("POST /oauth2/v1/revoke"), 0);
    assert!(fixture.run(&["status"]).await.out.contains("Not signed in"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_denied_sign_in() {
    let fixture = Fixture::new().await;
    let (login, url) = fixture.login(&[]).await;
    get(&answer_consent_page(&url, "deny").await).await;
    let output = login.end().await;
    assert_eq!(output.code, 1);
    assert!(output.err.contains("the sign-in was denied"), "{output:?}");
    assert!(!fixture.file().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_unknown_scope() {
    let fixture = Fixture::new().await;
    let (login, url) = fixture.login(&["--scope", "admin"]).await;
    let answer = browser().get(&url).send().await.unwrap();
    get(answer.headers()["location"].to_str().unwrap()).await;
    let output = login.end().await;
    assert_eq!(output.code, 1);
    assert!(output.err.contains("not recognized: admin"), "{output:?}");
    assert!(
        output.err.contains("--scope llm_observability_read"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_redirect_does_not_end_wait() {
    let fixture = Fixture::new().await;
    let (login, url) = fixture.login(&[]).await;
    let callback = answer_consent_page(&url, "allow").await;
    let (head, _) = callback.split_once('?').unwrap();
    let (status, page) = get(&format!("{head}?code=x&state=y&domain=evil.example")).await;
    assert_eq!(status, 400);
    assert!(page.contains("another sign-in"), "{page}");
    get(&callback).await;
    assert_eq!(login.end().await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepts_pasted_redirect() {
    let fixture = Fixture::new().await;
    let (mut login, url) = fixture.login(&[]).await;
    let callback = answer_consent_page(&url, "allow").await;
    let mut stdin = login.child.stdin.take().unwrap();
    stdin.write_all(b"what?\n").await.unwrap();
    stdin
        .write_all(format!("{callback}\n").as_bytes())
        .await
        .unwrap();
    let output = login.end().await;
    assert_eq!(output.code, 0, "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_redirect_with_another_domain() {
    let fixture = Fixture::new().await;
    for domain in ["datadoghq.com", "localhost:1", "evil.example"] {
        let (mut login, url) = fixture.login(&[]).await;
        let callback = answer_consent_page(&url, "allow").await;
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
        let output = login.end().await;
        assert_eq!(output.code, 1);
        assert!(
            output.err.contains("the code was not sent there"),
            "{output:?}"
        );
    }
    assert_eq!(fixture.request_count("POST /oauth2/v1/token"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_port_in_use_and_timeout() {
    let fixture = Fixture::new().await;
    let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = used.local_addr().unwrap().port().to_string();
    let arguments = ["login", "--api-url", &fixture.url, "--callback-port", &port];
    let output = fixture.run(&arguments).await;
    assert_eq!(output.code, 1);
    assert!(output.err.contains(&format!("port {port}")), "{output:?}");
    assert_eq!(fixture.request_count("POST /api/v2/oauth2/register"), 0);

    let (login, _) = fixture.login(&["--timeout", "1"]).await;
    let output = tokio::time::timeout(Duration::from_secs(30), login.end())
        .await
        .unwrap();
    assert_eq!(output.code, 1);
    assert!(
        output.err.contains("no response came from the browser"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warns_of_missing_keyring() {
    let fixture = Fixture::new().await;
    // This environment has no session bus, or this build no keyring.
    let output = fixture.sign_in(&["--storage", "keyring"]).await;
    assert!(
        output
            .err
            .contains("warning: the system keyring cannot be used"),
        "{output:?}"
    );
    assert!(output.err.contains("logins.json"), "{output:?}");
    assert!(fixture.run(&["status"]).await.out.contains("in file"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_login_file_that_others_can_read() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::new().await;
        fixture.sign_in(&[]).await;
        std::fs::set_permissions(fixture.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let output = fixture.run(&["whoami", "--api-url", &fixture.url]).await;
        assert!(output.out.contains("no credential"), "{output:?}");
        assert!(output.err.contains("other users can read"), "{output:?}");
        let output = fixture.run(&["status"]).await;
        assert_eq!(output.code, 1);
        assert!(output.err.contains("chmod 600"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_sign_in_at_unsupported_targets() {
    let fixture = Fixture::new().await;
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
        (
            &["login", "--profile", "../../x"],
            "the name of a profile is",
        ),
        (&["login", "--org", "acme"], "a UUID"),
    ] {
        let output = fixture.run(arguments).await;
        assert_ne!(output.code, 0);
        assert!(output.err.contains(words), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warns_of_key_in_arguments_without_repeating_it() {
    let fixture = Fixture::new().await;
    let key = "0123456789abcdef0123456789abcdef";
    let output = fixture.run(&["--api-key", key, "tools"]).await;
    assert_eq!(output.code, 2);
    assert!(
        output.err.contains("an argument looks like a key"),
        "{output:?}"
    );
    let help = fixture
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
