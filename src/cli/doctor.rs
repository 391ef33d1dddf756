//! `doctor`: checks the configuration and the upstream, and says how to fix each problem.
//!
//! It prints the names of secrets, never their values. Without `--probe` it opens and changes nothing
//! on a local setup.

#[cfg(feature = "local")]
mod data;
mod probe;

use std::fmt::{self, Write};
use std::process::ExitCode;

use crate::server::{CredentialSource, ToolFilter, ToolRegistry, VERSION};
use datadog_llmobs::{Credential, CredentialError};

use super::args::DoctorArgs;
use super::error::CliError;
use super::gate;
use super::output;
use super::settings::{Choice, Settings};

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

/// The findings in the order of the checks.
#[derive(Default)]
struct Report {
    text: String,
    problems: usize,
}

impl Report {
    fn add(&mut self, level: Level, finding: &str) {
        self.problems += usize::from(level == Level::Problem);
        let _ = writeln!(self.text, "{level:<8} {finding}");
    }

    /// Adds how to fix the last finding.
    fn hint(&mut self, hint: &str) {
        let _ = writeln!(self.text, "         -> {hint}");
    }
}

pub(crate) async fn run(settings: Settings, args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let mut report = Report::default();
    report.add(Level::Ok, &format!("llmobs-mcp {VERSION}"));
    check_configuration(&mut report, &settings);
    check_credential(&mut report, &settings);
    check_callers(&mut report, &settings);
    check_tools(&mut report, &settings);
    #[cfg(feature = "local")]
    data::check(&mut report, &settings).await;
    if args.probe || matches!(settings.choice, Choice::Datadog(_)) {
        probe::check(&mut report, settings, args.probe).await?;
    }
    let summary = match report.problems {
        0 => "No problems found.".to_owned(),
        1 => "One problem.".to_owned(),
        many => format!("{many} problems."),
    };
    output::print(&format!("{}\n{summary}", report.text))?;
    Ok(ExitCode::from(u8::from(report.problems > 0)))
}

fn check_configuration(report: &mut Report, settings: &Settings) {
    let (path, exists) = &settings.config;
    let state = if *exists {
        "read"
    } else {
        "does not exist (optional)"
    };
    report.add(
        Level::Ok,
        &format!("config file {}: {state}", path.display()),
    );
    for note in &settings.notes {
        report.add(Level::Note, note);
    }
    let upstream = match &settings.choice {
        Choice::Local => "the local backend".to_owned(),
        Choice::Unchosen(site) => {
            format!(
                "the local backend; HTTP requests that bring their own credentials go to {site}"
            )
        }
        Choice::Datadog(upstream) => upstream.api_base().into_owned(),
    };
    report.add(
        Level::Ok,
        &format!("upstream: {upstream} ({})", settings.because),
    );
}

fn check_credential(report: &mut Report, settings: &Settings) {
    let names = settings.secrets.names().join(", ");
    if settings.login.is_some() {
        let credential = settings.describe_credential();
        report.add(Level::Ok, &format!("credential: {credential}"));
        if settings.profile.is_some() && !names.is_empty() {
            let note = format!("{names}: not used, because a setting names a profile");
            report.add(Level::Note, &note);
        }
        return;
    }
    let current = settings.secrets.credential().unwrap_or(Credential::None);
    match settings.half {
        Some(CredentialError::MissingApplicationKey) => {
            report.add(
                Level::Note,
                &format!(
                    "{names} alone does not select Datadog: it lets applications send traces, but \
                     reading them takes an application key too"
                ),
            );
            report.hint(
                "to read a site, also set DD_APPLICATION_KEY (Datadog: Organization Settings, \
                 Application Keys)",
            );
        }
        Some(_) => {
            report.add(Level::Problem, &format!("{names} without an API key"));
            report.hint("set DD_API_KEY too (Datadog: Organization Settings, API Keys)");
        }
        None if current.is_none() => {
            report.add(Level::Ok, "no credential (local data needs none)");
            report.hint(
                "to read a Datadog site: `llmobs-mcp login`, or export DD_SITE=… DD_API_KEY=… \
                 DD_APPLICATION_KEY=…",
            );
        }
        None => report.add(
            Level::Ok,
            &format!(
                "credential: {} from {}",
                current.kind(),
                settings.secrets.origin()
            ),
        ),
    }
}

/// Checks who may call over HTTP, as far as the environment and the config file decide it.
fn check_callers(report: &mut Report, settings: &Settings) {
    if let Err(error) = describe_callers(report, settings) {
        report.add(Level::Problem, &format!("callers over HTTP: {error}"));
        if let Some(hint) = error.hint() {
            report.hint(&hint);
        }
    }
}

fn describe_callers(report: &mut Report, settings: &Settings) -> Result<(), CliError> {
    let Some(mode) = settings.callers.mode()? else {
        if let (Choice::Datadog(_), Some(origin)) =
            (&settings.choice, gate::own_credentials(settings))
        {
            report.add(
                Level::Note,
                &format!(
                    "`serve --http` needs --auth to start: otherwise every caller could use {origin}"
                ),
            );
            report.hint(
                "--auth none allows every program on this machine, --auth static-bearer requires a \
                 secret",
            );
        }
        return Ok(());
    };
    settings.callers.check_sign_in(&mode)?;
    let secret = gate::secret_source(mode.value, &settings.callers)?
        .map_or(String::new(), |source| format!(", secret from {source}"));
    report.add(
        Level::Ok,
        &format!(
            "callers over HTTP: {} ({}{secret})",
            gate::describe(mode.value, &settings.callers),
            mode.source
        ),
    );
    Ok(())
}

fn check_tools(report: &mut Report, settings: &Settings) {
    let selection =
        ToolRegistry::from_tools().select(&settings.tool_filter, &ToolFilter::default());
    for warning in &selection.warnings {
        report.add(Level::Note, warning);
    }
    let tools = selection.served().len();
    if tools == 0 {
        report.add(Level::Problem, "no tools are served");
        report.hint("check --toolsets and --omit-tools; the default is --toolsets llmobs");
        return;
    }
    let toolsets = selection.toolsets.join(", ");
    let read_only = if selection.read_only {
        ", read-only"
    } else {
        ""
    };
    report.add(
        Level::Ok,
        &format!("{tools} tools of {toolsets}{read_only}"),
    );
}
