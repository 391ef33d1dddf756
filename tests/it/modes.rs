//! `serve --http` in each mode with the real program: what starts, who is let in, and that no secret
//! is ever shown.

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

/// A server that ends with its test, and everything that it says.
struct Server {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
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
        let said = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            said,
            log: String::new(),
            url: String::new(),
        };
        while server.url.is_empty() {
            let mut line = String::new();
            let read = server.said.read_line(&mut line).unwrap();
            server.log.push_str(&line);
            assert!(read > 0, "it ended: {}", server.log);
            if line.starts_with("MCP over HTTP") {
                let mut words = line.split_whitespace();
                let url = words.find(|word| word.starts_with("http://")).unwrap();
                url.clone_into(&mut server.url);
            }
        }
        server
    }

    /// Ends it and gives all that it said.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.said.read_to_string(&mut self.log).unwrap();
        std::mem::take(&mut self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upstream that says back which headers it was sent.
async fn telltale() -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({
            "data": [], "meta": {"status": "done", "page": {}}})))
        .mount(&server)
        .await;
    server
}

async fn keys_seen(upstream: &MockServer) -> Vec<String> {
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

/// Which keys reach the upstream when a request brings these headers.
#[rstest]
#[case::none_own("none", &[], &["own-key"])]
#[case::none_sent("none", SENT, &["sent-key"])]
#[case::headers_sent("datadog-headers", SENT, &["sent-key"])]
#[case::headers_nothing("datadog-headers", &[], &["-"])]
#[case::bearer_own("static-bearer", &[("Authorization", "Bearer an-obviously-made-up-secret-of-the-tests")], &["own-key"])]
#[case::bearer_nothing("static-bearer", &[], &[])]
#[case::bearer_sent("static-bearer", SENT, &[])]
#[tokio::test]
async fn whose_keys_are_used(
    #[case] mode: &str,
    #[case] headers: &[(&str, &str)],
    #[case] expected: &[&str],
) {
    let upstream = telltale().await;
    let home = TempDir::new().unwrap();
    let env = [OWN, &[("LLMOBS_MCP_BEARER", BEARER)]].concat();
    let server = Server::start(&home, &["--auth", mode, "--api-url", &upstream.uri()], &env);
    let answer = search(&server.url, headers).await;
    let body = answer.text().await.unwrap();
    assert_eq!(keys_seen(&upstream).await, expected, "{body}");
    let said = body + &server.end();
    for secret in ["own-key", "own-app-key", "sent-key", "sent-app-key", BEARER] {
        assert!(!said.contains(secret), "{secret} was shown: {said}");
    }
}

#[tokio::test]
async fn guessing_the_bearer_is_slowed_down() {
    let home = TempDir::new().unwrap();
    let server = Server::start(
        &home,
        &["--auth", "static-bearer", "--local"],
        &[("LLMOBS_MCP_BEARER", BEARER)],
    );
    let mut slowed = None;
    for number in 0..200 {
        let guess = format!("Bearer a-guess-that-is-wrong-however-long-it-is-{number}");
        let answer = search(&server.url, &[("Authorization", &guess)]).await;
        match answer.status().as_u16() {
            401 => {}
            429 => {
                slowed = answer.headers().get("retry-after").cloned();
                break;
            }
            other => panic!("{other}"),
        }
    }
    let wait: u64 = slowed.unwrap().to_str().unwrap().parse().unwrap();
    assert!(wait > 0);
    let bearer = format!("Bearer {BEARER}");
    let right = search(&server.url, &[("Authorization", &bearer)]).await;
    assert_eq!(right.status().as_u16(), 200, "nobody is locked out");
}

#[test]
fn a_server_that_would_lend_its_keys_refuses_at_once_and_names_the_mend() {
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
        let said = String::from_utf8(done.stderr).unwrap();
        for word in ["error: ", "--auth static-bearer"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(!said.contains("own-key"), "{said}");
    }
}

#[test]
fn help_and_wrong_usage_show_no_secret_of_the_environment() {
    let home = TempDir::new().unwrap();
    let mut said = String::new();
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
        // A closed port: nothing leaves this machine.
        command
            .args(arguments)
            .envs(SECRETS)
            .env("DD_SITE", "local")
            .env("LLMOBS_MCP_AUTH", "static-bearer");
        let done = command.output().unwrap();
        said += &String::from_utf8(done.stdout).unwrap();
        said += &String::from_utf8(done.stderr).unwrap();
    }
    for word in [
        "LLMOBS_MCP_BEARER",
        "LLMOBS_MCP_SECRET_KEY",
        "static-bearer",
    ] {
        assert!(said.contains(word), "the help names {word}");
    }
    for (name, secret) in SECRETS {
        assert!(!said.contains(secret), "{name} was shown");
    }
}

#[rstest]
#[case::bearer(&["serve", "--http", "127.0.0.1:0", "--bearer", BEARER])]
#[case::key(&["--api-key=0123456789abcdef0123456789abcdef", "doctor"])]
fn a_secret_among_the_arguments_draws_a_warning_and_is_not_repeated(#[case] arguments: &[&str]) {
    let home = TempDir::new().unwrap();
    let done = program(&home).args(arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(2), "no flag takes it");
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("warning: an argument looks like"), "{said}");
    for secret in [BEARER, "0123456789abcdef"] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// The four sources, the nearest first; `whoami` and `doctor` agree and never show a value.
#[rstest]
#[case::pair(&[("DD_API_KEY", "first-word-to-hide"), ("DD_APPLICATION_KEY", "second-word-to-hide")],
    "API key and application key", "DD_API_KEY and DD_APPLICATION_KEY")]
#[case::bearer(&[("DD_ACCESS_TOKEN", "third-word-to-hide")], "bearer token", "DD_ACCESS_TOKEN")]
#[case::token_alone(&[("DD_APP_KEY", "ddpat_word-to-hide")], "access token as application key", "DD_APP_KEY")]
#[case::none(&[], "no credential", "none")]
fn whoami_and_doctor_name_the_credential_in_force(
    #[case] env: &[(&str, &str)],
    #[case] kind: &str,
    #[case] origin: &str,
) {
    let home = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let done = program(&home)
            .args(arguments)
            // A port where nobody listens.
            .args(["--api-url", "http://127.0.0.1:9"])
            .envs(env.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap()
    };
    let told: Value =
        serde_json::from_str(run(&["whoami", "--json"]).lines().next().unwrap()).unwrap();
    assert_eq!(told["credential"], json!({"kind": kind, "origin": origin}));
    let doctor = run(&["doctor"]);
    if !env.is_empty() {
        assert!(
            doctor.contains(&format!("credential: {kind} from {origin}")),
            "{doctor}"
        );
        assert!(doctor.contains("does not start without --auth"), "{doctor}");
    }
    assert!(!doctor.contains("word-to-hide"), "{doctor}");
}

#[rstest]
#[case::headers("datadog-headers")]
#[case::oauth("oauth")]
fn a_local_backend_is_never_the_judge_of_strangers(#[case] mode: &str) {
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
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("takes every key for a good one"), "{said}");
}
