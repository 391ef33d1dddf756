//! The program: exit codes, standard output, equal answers over every transport, and no credential in
//! any output.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

/// The program without the settings of the user that runs the test.
pub(crate) fn program(home: &TempDir) -> Command {
    let mut command = Command::new(cargo_bin("llmobs-mcp"));
    command
        .env_clear()
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .env("XDG_DATA_HOME", home.path().join("data"))
        .env("APPDATA", home.path())
        .env("LOCALAPPDATA", home.path());
    for name in ["PATH", "SystemRoot", "TEMP", "TMP", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A server process that ends with its test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Running {
    /// Starts a server and reads its address from the line that holds `word`.
    pub(crate) fn start(mut command: Command, word: &'static str) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, url) = std::sync::mpsc::channel();
        let out: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in out {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(at) = line
                        .find("http://127.0.0.1:")
                        .filter(|_| line.contains(word))
                    {
                        let url: String = line[at..]
                            .chars()
                            .take_while(|c| !c.is_whitespace())
                            .collect();
                        let _ = sender.send(url);
                    }
                }
            });
        }
        let url = url
            .recv_timeout(std::time::Duration::from_secs(30))
            .expect("an address");
        let url = url
            .trim_end_matches(',')
            .trim_end_matches("/mcp")
            .to_owned();
        Self { child, url }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn demo(home: &TempDir) -> Running {
    let mut command = program(home);
    command.args(["demo", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    Running::start(command, "local backend")
}

/// The local backend with a data directory, on a free port.
pub(crate) fn local(home: &TempDir, data: &Path) -> Command {
    let mut command = program(home);
    command
        .args(["local", "--log", "off", "--listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(data);
    command
}

/// The report of `local verify` on a data directory, which must have no faults.
pub(crate) fn verified(home: &TempDir, data: &Path) -> Value {
    let done = program(home)
        .args(["local", "verify", "--json", "--data-dir"])
        .arg(data)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["clean"], true, "{report}");
    report
}

/// Calls a tool with one stateless request.
fn over_http(url: &str, tool: &str, arguments: &Value) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let answer = datadog_llmobs::http_client()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("{url}/mcp"))
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-06-18")
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    })
}

fn over_stdio(mut command: Command, tool: &str, arguments: &Value) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}}),
    ] {
        writeln!(stdin, "{message}").unwrap();
    }
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answer = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).expect("only protocol on stdout"))
        .find(|message| message["id"] == 2)
        .unwrap();
    // A client ends the server by closing its input.
    drop(stdin);
    assert!(child.wait().unwrap().success());
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_transport_gives_the_same_bytes() {
    let home = TempDir::new().unwrap();
    let backend = demo(&home);
    let mut serve = program(&home);
    serve.args(["serve", "--http", "127.0.0.1:0", "--api-url", &backend.url]);
    let http = Running::start(serve, "MCP over HTTP");

    let search_answer = program(&home)
        .args([
            "call",
            "search_llmobs_spans",
            "ml_app=support-agent",
            "query=@status:error",
        ])
        .args([
            "from=now-7d",
            "limit=1",
            "root_spans_only=true",
            "--api-url",
            &backend.url,
        ])
        .output()
        .unwrap();
    assert!(
        search_answer.status.success(),
        "{}",
        String::from_utf8_lossy(&search_answer.stderr)
    );
    let search_answer: Value = serde_json::from_slice(&search_answer.stdout).unwrap();
    let root = &search_answer["spans"][0];
    let (trace, span) = (&root["trace_id"], &root["span_id"]);
    let (from, to) = (
        &search_answer["window"]["from"],
        &search_answer["window"]["to"],
    );
    for (tool, mut arguments) in [
        ("search_llmobs_spans", json!({"trace_id": trace})),
        ("search_llmobs_spans", json!({"ml_app": "no-such-app"})),
        ("get_llmobs_trace", json!({"trace_id": trace})),
        (
            "get_llmobs_span_details",
            json!({"trace_id": trace, "span_ids": [span]}),
        ),
        (
            "get_llmobs_span_content",
            json!({"trace_id": trace, "span_id": span, "field": "input"}),
        ),
        ("find_llmobs_error_spans", json!({"trace_id": trace})),
        (
            "expand_llmobs_spans",
            json!({"trace_id": trace, "span_ids": [span], "max_depth": 2}),
        ),
        ("get_llmobs_agent_loop", json!({"trace_id": trace})),
    ] {
        arguments["from"] = from.clone();
        arguments["to"] = to.clone();
        let called = program(&home)
            .args([
                "call",
                tool,
                "--json",
                &arguments.to_string(),
                "--api-url",
                &backend.url,
            ])
            .output()
            .unwrap();
        let shell = String::from_utf8(called.stdout).unwrap();
        assert_eq!(called.status.code(), Some(0), "{tool}: {shell}");
        let mut stdio = program(&home);
        stdio.args(["serve", "--stdio", "--api-url", &backend.url]);
        assert_eq!(
            shell.trim_end(),
            over_http(&http.url, tool, &arguments),
            "{tool} over HTTP"
        );
        assert_eq!(
            shell.trim_end(),
            over_stdio(stdio, tool, &arguments),
            "{tool} over stdio"
        );
    }
}

#[test]
fn exit_codes_distinguish_tool_errors_from_wrong_usage() {
    let home = TempDir::new().unwrap();
    let data = TempDir::new().unwrap();
    let call = |arguments: &[&str]| {
        let output = program(&home)
            .args(arguments)
            .args(["--local", "--data-dir"])
            .arg(data.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, answer) = call(&["call", "search_llmobs_spans", "limit=3"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["spans"],
        json!([])
    );
    let (code, answer) = call(&["call", "get_llmobs_trace", "trace_id=none"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap()["status"],
        404
    );
    for wrong in [
        vec!["call", "no_such_tool"],
        vec!["call", "get_llmobs_trace", "no-equals-sign"],
        vec!["call", "get_llmobs_trace", "--json", "{"],
        vec!["serve", "--http", "0.0.0.0:8787"],
        vec!["frobnicate"],
    ] {
        let (code, answer) = call(&wrong);
        assert_eq!((code, answer.as_str()), (Some(2), ""), "{wrong:?}");
    }
}

#[test]
fn no_credential_appears_in_any_output_at_any_level() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(async {
        let server = MockServer::start().await;
        // A hostile upstream that repeats the headers of the request.
        Mock::given(any())
            .respond_with(|request: &wiremock::Request| {
                let headers: Vec<String> = request
                    .headers
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("")))
                    .collect();
                ResponseTemplate::new(403).set_body_json(json!({"errors": [headers.join("; ")]}))
            })
            .mount(&server)
            .await;
        server
    });
    // Words that occur nowhere else and do not look like real keys.
    let secrets = [
        "first-word-to-hide",
        "second-word-to-hide",
        "third-word-to-hide",
    ];
    let home = TempDir::new().unwrap();
    let mut output = Vec::new();
    for arguments in [
        vec!["call", "search_llmobs_spans"],
        vec!["call", "find_llmobs_error_spans", "trace_id=1"],
        vec!["doctor", "--probe"],
        vec!["tools", "--json"],
    ] {
        for bearer in [false, true] {
            let mut command = program(&home);
            command
                .args(&arguments)
                .args(["-vvv", "--api-url", &upstream.uri()]);
            if bearer {
                command.env("DD_ACCESS_TOKEN", secrets[2]);
            } else {
                command
                    .env("DD_API_KEY", secrets[0])
                    .env("DD_APPLICATION_KEY", secrets[1]);
            }
            let done = command.output().unwrap();
            output.extend(done.stdout);
            output.extend(done.stderr);
        }
    }
    let requests = runtime.block_on(upstream.received_requests()).unwrap();
    let sent = requests.iter().filter(|request| {
        request
            .headers
            .get("dd-api-key")
            .is_some_and(|value| value == secrets[0])
    });
    assert!(sent.count() > 0, "the credentials were in use");

    // An HTTP server with verbose logs that receives credentials with a request.
    let mut serve = program(&home);
    serve.args([
        "serve",
        "--http",
        "127.0.0.1:0",
        "-vvv",
        "--api-url",
        &upstream.uri(),
    ]);
    let mut child = serve
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut url = String::new();
    while !url.contains("http://127.0.0.1:") || !url.contains("/mcp") {
        url.clear();
        assert!(
            stderr.read_line(&mut url).unwrap() > 0,
            "the server prints its address"
        );
        output.extend(url.as_bytes());
    }
    let at = url.find("http://").unwrap();
    let url: String = url[at..]
        .chars()
        .take_while(|c| !c.is_whitespace())
        .collect();
    runtime.block_on(async {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "search_llmobs_spans", "arguments": {}}});
        let answer = datadog_llmobs::http_client()
            .no_proxy()
            .build()
            .unwrap()
            .post(&url)
            .header("accept", "application/json, text/event-stream")
            .header("DD_API_KEY", secrets[0])
            .header("DD_APPLICATION_KEY", secrets[1])
            .json(&body)
            .send()
            .await
            .unwrap();
        output.extend(answer.bytes().await.unwrap());
    });
    child.kill().unwrap();
    child.wait().unwrap();
    stdout.read_to_end(&mut output).unwrap();
    stderr.read_to_end(&mut output).unwrap();

    let output = String::from_utf8_lossy(&output);
    assert!(output.contains("403"), "the upstream's refusal was shown");
    for secret in secrets {
        assert!(!output.contains(secret), "a credential was shown");
    }
}

/// The output and exit code of `doctor`.
fn diagnosis(command: &mut Command) -> (String, i32) {
    let done = command.output().unwrap();
    let output_text = String::from_utf8(done.stdout).unwrap();
    (output_text, done.status.code().unwrap())
}

#[test]
fn doctor_probes_endpoints_and_shows_keys_without_content() {
    let home = TempDir::new().unwrap();
    let demo = demo(&home);
    let mut command = program(&home);
    command.args(["doctor", "--probe", "--api-url", &demo.url]);
    let (output_text, code) = diagnosis(&mut command);
    assert_eq!(code, 0, "{output_text}");
    assert!(
        output_text.trim_end().ends_with("No problems found."),
        "{output_text}"
    );
    for endpoint in [
        "API key check (GET /api/v1/validate): 200",
        "span list (GET /api/v2/llm-obs/v1/spans/events): 200",
        "span search (POST /api/v2/llm-obs/v1/spans/events/search): 200",
        "error details (POST /api/unstable/llm-obs-mcp/v1/trace/find-error-spans): 200",
        "span content (POST /api/unstable/llm-obs-mcp/v1/trace/span-content): 200",
        "(GET /api/v2/llm-obs/v1/projects): 200",
        "(GET /api/v2/llm-obs/v1/{project_id}/datasets): 200",
        "(GET /api/v2/llm-obs/v1/{project_id}/datasets/{dataset_id}/records): 200",
        "experiment list (GET /api/v2/llm-obs/v1/experiments): 200",
        "experiment events (GET /api/v2/llm-obs/v3/experiments/{experiment_id}/events): 200",
        "list of custom evaluators (GET /api/unstable/llm-obs/config/evaluators/custom): 200",
    ] {
        assert!(
            output_text.contains(endpoint),
            "{endpoint} in {output_text}"
        );
    }
    assert!(
        output_text.contains("row keys:") && output_text.contains("ml_app"),
        "{output_text}"
    );
    for content in ["refund-helper-quality", "help-desk-baseline"] {
        assert!(!output_text.contains(content), "{content} in {output_text}");
    }
}

#[test]
fn doctor_reports_problems_with_hints() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let doctor = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = program(&home);
        command
            .arg("doctor")
            .args(arguments)
            .envs(environment.iter().copied());
        diagnosis(&mut command)
    };
    let path = file.to_str().unwrap();
    for (arguments, environment, problem, hint) in [
        (
            vec!["--data-dir", path],
            vec![],
            "not a directory",
            "--data-dir DIR",
        ),
        (
            vec!["--toolsets", "nothing"],
            vec![],
            "no tools are served",
            "the default is --toolsets llmobs",
        ),
        (
            vec![],
            vec![("DD_APPLICATION_KEY", "word-to-hide")],
            "without an API key",
            "set DD_API_KEY too",
        ),
        (
            vec!["--api-url", "http://127.0.0.1:9"],
            vec![
                ("DD_API_KEY", "word-to-hide"),
                ("DD_APPLICATION_KEY", "word-to-hide"),
            ],
            "could not reach 127.0.0.1:9: API key check got no response",
            "`llmobs-mcp doctor --probe` shows each endpoint",
        ),
    ] {
        let (output_text, code) = doctor(&arguments, &environment);
        assert_eq!(code, 1, "{output_text}");
        assert!(
            output_text.contains("PROBLEM ") && output_text.contains(problem),
            "{output_text}"
        );
        assert!(
            output_text.contains("-> ") && output_text.contains(hint),
            "{output_text}"
        );
        assert!(
            output_text.trim_end().ends_with("One problem."),
            "{output_text}"
        );
        assert!(!output_text.contains("word-to-hide"), "{output_text}");
    }
    let (output_text, code) = doctor(&[], &[("DD_API_KEY", "word-to-hide")]);
    assert_eq!(
        code, 0,
        "an API key for SDKs is not a problem: {output_text}"
    );
    assert!(
        output_text.contains("DD_API_KEY alone does not select Datadog"),
        "{output_text}"
    );
}
