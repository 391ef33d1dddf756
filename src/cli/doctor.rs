//! `doctor`: what is configured, from where, what answers, what is missing, each with its mend.
//!
//! Nothing here prints a value of a secret, only its name. Without `--probe` nothing is opened or
//! changed on a local setup.

use std::fmt::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::server::{Catalogue, CredentialSource, VERSION, Wish};
use datadog_llmobs::{Credential, CredentialError, ProbeResult, ResponseLimits, Upstream};
use llmobs_local::owner::AGENT_ADDRESS;

use super::args::DoctorArgs;
use super::error::CliError;
use super::gate;
use super::output;
use super::settings::{Choice, Settings};
use super::upstream::{Connected, connect, http_transport};

/// How long the local address may take to say who it is.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Note,
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "PROBLEM",
        })
    }
}

/// The findings, in the order in which they were made.
#[derive(Default)]
struct Report {
    text: String,
    problems: usize,
}

impl Report {
    fn say(&mut self, level: Level, what: &str) {
        self.problems += usize::from(level == Level::Problem);
        let _ = writeln!(self.text, "{level:<8} {what}");
    }

    fn mend(&mut self, mend: &str) {
        let _ = writeln!(self.text, "         -> {mend}");
    }
}

pub(crate) async fn run(settings: Settings, args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let mut report = Report::default();
    report.say(Level::Ok, &format!("llmobs-mcp {VERSION}"));
    configuration(&mut report, &settings);
    credential(&mut report, &settings);
    callers(&mut report, &settings);
    what_is_served(&mut report, &settings);
    data(&mut report, &settings).await;
    let talks = args.probe || matches!(settings.choice, Choice::Datadog(_));
    if talks {
        probe(&mut report, settings, args.probe).await?;
    }
    let verdict = match report.problems {
        0 => "Nothing is wrong.".to_owned(),
        1 => "One problem.".to_owned(),
        many => format!("{many} problems."),
    };
    output::print(&format!("{}\n{verdict}", report.text))?;
    Ok(ExitCode::from(u8::from(report.problems > 0)))
}

fn configuration(report: &mut Report, settings: &Settings) {
    let (path, found) = &settings.config;
    let state = if *found {
        "read"
    } else {
        "not there, not needed"
    };
    report.say(
        Level::Ok,
        &format!("config file {}: {state}", path.display()),
    );
    for note in &settings.notes {
        report.say(Level::Note, note);
    }
    let upstream = match &settings.choice {
        Choice::Local => "the local backend".to_owned(),
        Choice::Unchosen(site) => format!(
            "the local backend; requests over HTTP that bring their own credentials go to {site}"
        ),
        Choice::Datadog(upstream) => upstream.api_base().into_owned(),
    };
    report.say(
        Level::Ok,
        &format!("upstream: {upstream} ({})", settings.because),
    );
}

fn credential(report: &mut Report, settings: &Settings) {
    if settings.login.is_some() {
        let (kind, origin) = settings.in_force();
        report.say(Level::Ok, &format!("credential: {kind} from {origin}"));
        if settings.profile.is_some() && !settings.secrets.labels().is_empty() {
            let others = settings.secrets.labels().join(", ");
            report.say(
                Level::Note,
                &format!("{others} not used: a profile was named"),
            );
        }
        return;
    }
    let set = settings.secrets.labels();
    let current = settings.secrets.credential().unwrap_or(Credential::None);
    match settings.half {
        Some(CredentialError::MissingApplicationKey) => {
            report.say(
                Level::Note,
                &format!(
                    "{} alone does not select Datadog: it is what an application needs to send \
                     traces, not what it takes to read them",
                    set.join(", ")
                ),
            );
            report.mend(
                "to read a site, also set DD_APPLICATION_KEY (Datadog: Organization Settings, \
                 Application Keys)",
            );
        }
        Some(_) => {
            report.say(
                Level::Problem,
                &format!("{} without an API key", set.join(", ")),
            );
            report.mend("set DD_API_KEY too (Datadog: Organization Settings, API Keys)");
        }
        None if current.is_none() => {
            report.say(
                Level::Ok,
                "credential: none is set, and local data needs none",
            );
            report
                .mend("to read a Datadog site: `llmobs-mcp login`, or export DD_SITE=… DD_API_KEY=… DD_APPLICATION_KEY=…");
        }
        None => report.say(
            Level::Ok,
            &format!(
                "credential: {} from {}",
                current.kind(),
                settings.secrets.origin()
            ),
        ),
    }
}

/// Who may call over HTTP, as far as the environment and the file say.
fn callers(report: &mut Report, settings: &Settings) {
    let problem = |report: &mut Report, error: CliError| {
        report.say(Level::Problem, &format!("callers over HTTP: {error}"));
        if let Some(mend) = error.mend() {
            report.mend(&mend);
        }
    };
    let mode = match settings.callers.mode() {
        Ok(Some(mode)) => mode,
        Ok(None) => {
            if let (Choice::Datadog(_), Some(origin)) = (&settings.choice, gate::own(settings)) {
                report.say(
                    Level::Note,
                    &format!(
                        "`serve --http` does not start without --auth: it would lend {origin}"
                    ),
                );
                report.mend(
                    "--auth none for this machine, --auth static-bearer for whoever knows a secret",
                );
            }
            return;
        }
        Err(error) => return problem(report, error.into()),
    };
    if let Err(error) = settings.callers.check_sign_in(&mode) {
        return problem(report, error.into());
    }
    match gate::secret_of(mode.value, &settings.callers) {
        Ok(secret) => {
            let secret = secret.map_or(String::new(), |by| format!(", secret from {by}"));
            report.say(
                Level::Ok,
                &format!(
                    "callers over HTTP: {} ({}{secret})",
                    gate::words(mode.value, &settings.callers),
                    mode.by
                ),
            );
        }
        Err(error) => problem(report, error),
    }
}

fn what_is_served(report: &mut Report, settings: &Settings) {
    let selection = Catalogue::of_tools().select(&settings.wish, &Wish::default());
    for warning in &selection.warnings {
        report.say(Level::Note, warning);
    }
    let read_only = if selection.read_only {
        ", read-only"
    } else {
        ""
    };
    let tools = selection.served().len();
    let sets = selection.toolsets.join(", ");
    if tools == 0 {
        report.say(Level::Problem, "no tools are served");
        report.mend("check --toolsets and --omit-tools; the default is --toolsets llmobs");
    } else {
        report.say(Level::Ok, &format!("{tools} tools of {sets}{read_only}"));
    }
}

/// The data folder and whoever listens on the Agent's port.
async fn data(report: &mut Report, settings: &Settings) {
    if matches!(settings.choice, Choice::Datadog(_)) {
        return;
    }
    let folder = &settings.data_dir;
    let named = if settings.data_dir_named {
        ""
    } else {
        " (the default)"
    };
    match usable(folder) {
        Ok(state) => {
            report.say(
                Level::Ok,
                &format!("data folder {}{named}: {state}", folder.display()),
            );
        }
        Err(why) => {
            report.say(
                Level::Problem,
                &format!("data folder {}{named}: {why}", folder.display()),
            );
            report
                .mend("name a folder that you can write to: --data-dir DIR or LLMOBS_MCP_DATA_DIR");
        }
    }
    let address = format!("http://{AGENT_ADDRESS}");
    match who_answers(settings, &address).await {
        None => report.say(
            Level::Ok,
            &format!("{address}: nobody listens; the backend takes it when it starts"),
        ),
        Some(who) if who.ours => {
            report.say(
                Level::Ok,
                &format!("{address}: a local backend of llmobs-mcp answers"),
            );
        }
        Some(who) => {
            report.say(
                Level::Note,
                &format!(
                    "{address}: {} answers, so the backend takes another port",
                    who.what
                ),
            );
            report.mend(
                "tell SDKs the backend's address (it is printed at its start) in DD_TRACE_AGENT_URL",
            );
        }
    }
}

fn usable(folder: &Path) -> Result<&'static str, String> {
    match std::fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => Err("it is not a folder".to_owned()),
        Ok(meta) if meta.permissions().readonly() => Err("it cannot be written to".to_owned()),
        Ok(_) => Ok("there"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok("not there yet; it is made at the first start")
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Who listens somewhere.
pub(crate) struct Answerer {
    /// Whether it is a local backend of this program.
    pub(crate) ours: bool,
    what: &'static str,
}

/// Who listens at a base, if anybody does.
pub(crate) async fn who_answers(settings: &Settings, base: &str) -> Option<Answerer> {
    let transport = http_transport(settings).ok()?;
    let request = Request::get(format!("{base}/info"))
        .body(Bytes::new())
        .ok()?;
    let limits = ResponseLimits {
        timeout: LOOK,
        max_body_bytes: 1 << 20,
    };
    match transport.send(request, limits).await {
        Ok(answer) => {
            let info: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let ours = info.pointer("/llmobs_mcp/store_id").is_some();
            let what = if info.get("endpoints").is_some() {
                "a Datadog Agent"
            } else {
                "another program"
            };
            Some(Answerer { ours, what })
        }
        Err(error) if error.surely_not_executed() => None,
        Err(_) => Some(Answerer {
            ours: false,
            what: "another program",
        }),
    }
}

/// Asks the endpoints that the tools need. In full when asked for, else in one line.
async fn probe(report: &mut Report, settings: Settings, in_full: bool) -> Result<(), CliError> {
    let name = match &settings.choice {
        Choice::Datadog(upstream) => upstream.name().into_owned(),
        Choice::Local | Choice::Unchosen(_) => Upstream::Local.name().into_owned(),
    };
    let Connected { upstreams, backend } = connect(settings).await?;
    let results = match upstreams.own_client("cli doctor").await {
        Ok(client) => client.probe().await,
        Err(not_ready) => {
            report.say(Level::Problem, &format!("credential: {}", not_ready.error));
            report.mend(&not_ready.hint);
            Connected::close(backend).await;
            return Ok(());
        }
    };
    let answered = results.iter().filter(|result| result.is_ok()).count();
    let level = if answered == 0 {
        Level::Problem
    } else {
        Level::Ok
    };
    report.say(
        level,
        &format!(
            "{name}: {answered} of {} endpoints answered as the tools need",
            results.len()
        ),
    );
    if answered < results.len() && !in_full {
        report.mend("`llmobs-mcp doctor --probe` shows each of them");
    }
    for result in results.iter().filter(|_| in_full) {
        let level = if result.is_ok() {
            Level::Ok
        } else {
            Level::Note
        };
        report.say(level, &line(result));
    }
    Connected::close(backend).await;
    Ok(())
}

/// What one endpoint answered: status, names of keys, no content.
fn line(result: &ProbeResult) -> String {
    let status = result
        .status
        .map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let head = format!("  {} ({})", result.name, result.endpoint);
    let Some(elapsed_ms) = result.elapsed_ms else {
        return format!("{head}: {}", result.detail);
    };
    let mut line = format!("{head}: {status} in {elapsed_ms} ms");
    if !result.is_ok() {
        let _ = write!(line, "; {}", result.detail);
    }
    for (what, keys) in [
        ("keys", &result.top_level_keys),
        ("row keys", &result.row_keys),
    ] {
        if !keys.is_empty() {
            let _ = write!(line, "\n             {what}: {}", keys.join(", "));
        }
    }
    line
}
