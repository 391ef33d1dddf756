//! `serve --http` with the program in each mode: which settings start, which callers are admitted, and
//! that no output holds a secret.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::binary::program;

const BEARER: &str = "an-obviously-made-up-secret-of-the-tests";
const SECRETS: [(&str, &str); 5] = [
    ("DD_API_KEY", "first-word-to-hide"),
    ("DD_APPLICATION_KEY", "second-word-to-hide"),
    ("DD_ACCESS_TOKEN", "third-word-to-hide"),
    ("LLMOBS_MCP_BEARER", BEARER),
    (
        "LLMOBS_MCP_SECRET_KEY",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    ),
];

/// A server that ends with its test, and its log.
struct Server {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    log: String,
    url: String,
}

impl Server {
    fn start(home: &TempDir, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = program(home)
            .args(["serve", "--http", "127.0.0.1:0", "-vvv"])
            .args(flags)
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            stderr,
            log: String::new(),
            url: String::new(),
        };
        while server.url.is_empty() {
            let mut line = String::new();
            let read = server.stderr.read_line(&mut line).unwrap();
            server.log.push_str(&line);
            assert!(read > 0, "the server ended: {}", server.log);
            if line.starts_with("MCP over HTTP") {
                let mut words = line.split_whitespace();
                let url = words.find(|word| word.starts_with("http://")).unwrap();
                url.clone_into(&mut server.url);
            }
        }
        server
    }

    /// Stops the server and returns its log.
    fn stop(mut self) -> String {
        self.child.kill().unwrap();
        self.stderr.read_to_string(&mut self.log).unwrap();
        std::mem::take(&mut self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upstream that repeats the headers of the request.
async fn echo_upstream() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "data": [], "meta": {"status": "done", "page": {}}})))
        .mount(&server)
        .await;
    server
}

async fn received_keys(upstream: &MockServer) -> Vec<String> {
    let requests = upstream.received_requests().await.unwrap();
    upstream.reset().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "data": [], "meta": {"status": "done", "page": {}}})))
        .mount(upstream)
        .await;
    let mut seen: Vec<String> = requests
        .iter()
        .map(|request| {
            let key = request.headers.get("dd-api-key");
            key.map_or("-", |key| key.to_str().unwrap()).to_owned()
        })
        .collect();
    seen.dedup();
    seen
}

async fn search(url: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = datadog_llmobs::http_client()
        .no_proxy()
        .build()
        .unwrap()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "search_llmobs_spans", "arguments": {"ml_app": "a"}}}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

const OWN: &[(&str, &str)] = &[
    ("DD_API_KEY", "own-key"),
    ("DD_APPLICATION_KEY", "own-app-key"),
];
const SENT: &[(&str, &str)] = &[
    ("DD_API_KEY", "sent-key"),
    ("DD_APPLICATION_KEY", "sent-app-key"),
];

/// The keys that reach the upstream for a request with these headers.
#[rstest]
#[case::none_own("none", &[], &["own-key"])]
#[case::none_sent("none", SENT, &["sent-key"])]
#[case::headers_sent("datadog-headers", SENT, &["sent-key"])]
#[case::headers_nothing("datadog-headers", &[], &["-"])]
#[case::bearer_own("static-bearer", &[("Authorization", "Bearer an-obviously-made-up-secret-of-the-tests")], &["own-key"])]
#[case::bearer_nothing("static-bearer", &[], &[])]
#[case::bearer_sent("static-bearer", SENT, &[])]
#[tokio::test]
async fn selects_keys_for_upstream(
    #[case] mode: &str,
    #[case] headers: &[(&str, &str)],
    #[case] expected: &[&str],
) {
    let upstream = echo_upstream().await;
    let home = TempDir::new().unwrap();
    let env = [OWN, &[("LLMOBS_MCP_BEARER", BEARER)]].concat();
    let server = Server::start(&home, &["--auth", mode, "--api-url", &upstream.uri()], &env);
    let answer = search(&server.url, headers).await;
    let body = answer.text().await.unwrap();
    assert_eq!(received_keys(&upstream).await, expected, "{body}");
    let output = body + &server.stop();
    for secret in ["own-key", "own-app-key", "sent-key", "sent-app-key", BEARER] {
        assert!(!output.contains(secret), "{secret} was shown: {output}");
    }
}

#[tokio::test]
async fn limits_rate_of_bearer_guesses() {
    let home = TempDir::new().unwrap();
    let server = Server::start(
        &home,
        &["--auth", "static-bearer", "--local"],
        &[("LLMOBS_MCP_BEARER", BEARER)],
    );
    let mut retry_after = None;
    for number in 0..200 {
        let guess = format!("Bearer a-guess-that-is-wrong-however-long-it-is-{number}");
        let answer = search(&server.url, &[("Authorization", &guess)]).await;
        match answer.status().as_u16() {
            401 => {}
            429 => {
                retry_after = answer.headers().get("retry-after").cloned();
                break;
            }
            other => panic!("{other}"),
        }
    }
    let wait: u64 = retry_after.unwrap().to_str().unwrap().parse().unwrap();
    assert!(wait > 0);
    let bearer = format!("Bearer {BEARER}");
    let right = search(&server.url, &[("Authorization", &bearer)]).await;
    assert_eq!(
        right.status().as_u16(),
        200,
        "the right bearer is still admitted"
    );
}

#[test]
fn refuses_to_share_server_keys_without_mode() {
    let home = TempDir::new().unwrap();
    for flags in [
        &["serve", "--http", "127.0.0.1:0"][..],
        &["serve", "--http", "0.0.0.0:0", "--auth", "none"],
    ] {
        let done = program(&home)
            .args(flags)
            .envs(OWN.iter().copied())
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(2));
        let output = String::from_utf8(done.stderr).unwrap();
        for word in ["error: ", "--auth static-bearer"] {
            assert!(output.contains(word), "{output}");
        }
        assert!(!output.contains("own-key"), "{output}");
    }
}

#[test]
fn help_and_errors_show_no_secret_from_environment() {
    let home = TempDir::new().unwrap();
    let mut output = String::new();
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["serve", "--help"],
        &["serve", "-h"],
        &["doctor", "--help"],
        &["login", "--help"],
        &["serve", "--http", "nonsense"],
        &["serve", "--http", "127.0.0.1:0", "--auth", "nonsense"],
        &["completions", "bash"],
        &["whoami", "--json"],
        &["doctor"],
    ] {
        let mut command = program(&home);
        command
            .args(arguments)
            .envs(SECRETS)
            .env("DD_SITE", "local")
            .env("LLMOBS_MCP_AUTH", "static-bearer");
        let done = command.output().unwrap();
        output += &String::from_utf8(done.stdout).unwrap();
        output += &String::from_utf8(done.stderr).unwrap();
    }
    for word in [
        "LLMOBS_MCP_BEARER",
        "LLMOBS_MCP_SECRET_KEY",
        "static-bearer",
    ] {
        assert!(output.contains(word), "the help does not mention {word}");
    }
    for (name, secret) in SECRETS {
        assert!(!output.contains(secret), "{name} was shown");
    }
}

#[rstest]
#[case::bearer(&["serve", "--http", "127.0.0.1:0", "--bearer", BEARER])]
#[case::key(&["--api-key=0123456789abcdef0123456789abcdef", "doctor"])]
fn warns_of_secret_in_arguments_without_repeating_it(#[case] arguments: &[&str]) {
    let home = TempDir::new().unwrap();
    let done = program(&home).args(arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(2), "no flag accepts a secret");
    let output = String::from_utf8(done.stderr).unwrap();
    assert!(
        output.contains("warning: an argument looks like"),
        "{output}"
    );
    for secret in [BEARER, "0123456789abcdef"] {
        assert!(!output.contains(secret), "{output}");
    }
}

/// `whoami` and `doctor` name the same source of the credential, and never its value.
#[rstest]
#[case::pair(&[("DD_API_KEY", "first-word-to-hide"), ("DD_APPLICATION_KEY", "second-word-to-hide")],
    "API key and application key", "DD_API_KEY and DD_APPLICATION_KEY")]
#[case::bearer(&[("DD_ACCESS_TOKEN", "third-word-to-hide")], "bearer token", "DD_ACCESS_TOKEN")]
#[case::token_alone(&[("DD_APP_KEY", "ddpat_word-to-hide")], "access token as application key", "DD_APP_KEY")]
#[case::none(&[], "no credential", "none")]
fn whoami_and_doctor_name_credential_in_use(
    #[case] env: &[(&str, &str)],
    #[case] kind: &str,
    #[case] origin: &str,
) {
    let home = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let done = program(&home)
            .args(arguments)
            // A closed port.
            .args(["--api-url", "http://127.0.0.1:9"])
            .envs(env.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap()
    };
    let report: Value =
        serde_json::from_str(run(&["whoami", "--json"]).lines().next().unwrap()).unwrap();
    assert_eq!(
        report["credential"],
        json!({"kind": kind, "origin": origin})
    );
    let doctor = run(&["doctor"]);
    if !env.is_empty() {
        assert!(
            doctor.contains(&format!("credential: {kind} from {origin}")),
            "{doctor}"
        );
        assert!(doctor.contains("needs --auth to start"), "{doctor}");
    }
    assert!(!doctor.contains("word-to-hide"), "{doctor}");
}

#[rstest]
#[case::headers("datadog-headers")]
#[case::oauth("oauth")]
fn refuses_local_backend_as_only_verifier(#[case] mode: &str) {
    let home = TempDir::new().unwrap();
    let backend = crate::binary::demo(&home);
    let flags = [
        "serve",
        "--http",
        "127.0.0.1:0",
        "--auth",
        mode,
        "--api-url",
        &backend.url,
    ];
    let done = program(&home)
        .args(flags)
        .args(["--public-url", "https://mcp.example.com"])
        .envs(
            SECRETS
                .iter()
                .filter(|(name, _)| *name == "LLMOBS_MCP_SECRET_KEY")
                .copied(),
        )
        .output()
        .unwrap();
    let output = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{output}");
    assert!(output.contains("accepts any key"), "{output}");
}
