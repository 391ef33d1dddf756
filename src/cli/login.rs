//! `login`: signs in at Datadog in the browser and keeps the login.
//!
//! Standard output carries the result; everything on the way goes to standard error.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{
    CLIENT_NAME, CallbackListener, CompletedSignIn, DEFAULT_SCOPES, Login, LoginError, LoginStore,
    LoginStoreError, LoginTarget, PendingSignIn, SignInRequest, TokenStorage, revoke,
};

use super::args::{LoginArgs, Storage};
use super::error::CliError;
use super::output::{self, tell};
use super::settings::{Choice, DEFAULT_PROFILE, Settings};
use super::upstream::http_transport;

impl From<LoginError> for CliError {
    fn from(error: LoginError) -> Self {
        Self::failed(&error, error.hint())
    }
}

impl From<LoginStoreError> for CliError {
    fn from(error: LoginStoreError) -> Self {
        Self::failed(&error, error.hint())
    }
}

pub(crate) async fn run(settings: &Settings, args: &LoginArgs) -> Result<ExitCode, CliError> {
    let name = profile_name(settings)?;
    let store = store(settings)?;
    // A store that cannot be used should not cost a sign-in.
    store.list()?;
    let place = match &settings.choice {
        Choice::Datadog(upstream) => LoginTarget::from_upstream(upstream)?,
        Choice::Local | Choice::Unchosen(_) => {
            return Err(CliError::usage(
                "local data needs no sign-in",
                "name a site: llmobs-mcp login --site datadoghq.eu",
            ));
        }
    };
    if let Some(org) = &args.org
        && uuid::Uuid::parse_str(org).is_err()
    {
        return Err(CliError::usage(
            "--org takes the organisation's id, a UUID",
            "leave it out and choose in the browser",
        ));
    }
    let request = SignInRequest {
        target: place.clone(),
        scopes: scopes(args, settings.wish.read_only),
        client_name: args
            .client_name
            .clone()
            .unwrap_or_else(|| CLIENT_NAME.to_owned()),
        org: args.org.clone(),
    };
    let transport = http_transport(settings).map_err(|error| CliError::usage(error, ""))?;
    // The port first: the address that is registered holds it.
    let listener = CallbackListener::bind(args.callback_port).await?;
    let attempt = PendingSignIn::start(transport.clone(), request, &listener.redirect()).await?;
    let attempt = Arc::new(attempt);
    invite(&attempt, args.no_browser);
    let wait = listener.wait(attempt.clone(), Duration::from_secs(args.timeout));
    let answer = if args.no_browser {
        tokio::select! {
            answer = wait => answer?,
            pasted = pasted() => pasted,
        }
    } else {
        wait.await?
    };
    let CompletedSignIn { profile, notes } = attempt.finish(&answer).await?;
    for note in notes {
        tell(&format!("note: {note}"));
    }
    let safe = match args.storage {
        Storage::File => TokenStorage::File,
        Storage::Keyring => TokenStorage::Keyring,
    };
    let lock = store.lock().await?;
    // What cannot be read any more cannot be revoked either.
    let before = store.get(&name).ok().flatten();
    if let Some(note) = store.put(&lock, &name, &profile, safe, true)? {
        tell(&format!("warning: {note}"));
    }
    drop(lock);
    if let Some((before, _)) = before
        && before.target == profile.target
        && let Err(error) = revoke(&*transport, &before).await
    {
        tell(&format!(
            "note: the login before could not be revoked: {error}"
        ));
    }
    if !settings.secrets.labels().is_empty() {
        tell(&format!(
            "note: {} win over a stored login while they make a whole credential; --profile {name} chooses the login all the same",
            settings.secrets.labels().join(" and ")
        ));
    }
    output::print(&result(&name, &profile))?;
    Ok(ExitCode::SUCCESS)
}

fn result(name: &str, profile: &Login) -> String {
    let org = match (&profile.org_name, &profile.org_id) {
        (Some(name), _) | (None, Some(name)) => format!(", organisation {name}"),
        (None, None) => String::new(),
    };
    let end = if profile.refresh.is_some() {
        "it renews itself"
    } else {
        "it cannot be renewed and ends within a day"
    };
    let flag = match profile.target.upstream() {
        Upstream::Site(_) => String::new(),
        _ => format!(" (use it with --api-url {})", profile.target.key()),
    };
    format!(
        "Signed in to {}{org}\nprofile {name}, scopes {}; {end}{flag}",
        profile.target.name(),
        if profile.scope.is_empty() {
            "not told"
        } else {
            &profile.scope
        },
    )
}

/// The scopes to ask for: what was said, or the usual ones.
fn scopes(args: &LoginArgs, read_only: bool) -> Vec<String> {
    let said: Vec<String> = args
        .scope
        .iter()
        .flat_map(|text| text.split([',', ' ']))
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    match said.as_slice() {
        [] => DEFAULT_SCOPES
            .iter()
            .filter(|scope| !read_only || scope.ends_with("_read"))
            .map(|scope| (*scope).to_owned())
            .collect(),
        _ => said,
    }
}

/// Opens the browser, or says what to open.
fn invite(attempt: &PendingSignIn, no_browser: bool) {
    let url = attempt.url();
    if !no_browser && open_browser(url.as_str()) {
        tell(&format!(
            "A browser opens. If it does not, open this address:\n\n  {url}\n\nWaiting for the answer (Ctrl-C stops it)…"
        ));
        return;
    }
    let paste = if no_browser {
        "\nIf that browser cannot reach this machine, paste the address that it ends at (127.0.0.1…) here."
    } else {
        ""
    };
    tell(&format!(
        "Open this address in a browser:\n\n  {url}\n\nWaiting for the answer (Ctrl-C stops it)…{paste}"
    ));
}

/// Starts the platform's opener; says whether that could be tried.
fn open_browser(url: &str) -> bool {
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    tokio::process::Command::new(program)
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}

/// The first line on standard input that looks like an address; waits forever when there is none.
async fn pasted() -> String {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        if line.contains("state=") {
            return line.to_owned();
        }
        if !line.is_empty() {
            tell("that is not the address that the browser ends at: it holds `state=`");
        }
    }
    std::future::pending().await
}

/// The name under which the login is kept.
fn profile_name(settings: &Settings) -> Result<String, CliError> {
    let name = settings
        .profile
        .as_ref()
        .map_or(DEFAULT_PROFILE, |said| said.value.as_str());
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(name.to_owned())
    } else {
        Err(CliError::usage(
            "a profile's name is 1 to 64 letters, digits, dots, dashes and underscores",
            "for example: llmobs-mcp login --site datadoghq.eu --profile work-eu",
        ))
    }
}

/// The store of logins.
pub(crate) fn store(settings: &Settings) -> Result<LoginStore, CliError> {
    settings
        .state_dir
        .as_ref()
        .map(LoginStore::new)
        .ok_or_else(|| {
            CliError::usage(
                "this user has no home folder, so there is no place for logins",
                "name one: LLMOBS_MCP_STATE_DIR=/path/to/folder",
            )
        })
}
