//! `login`: signs in at Datadog in the browser and stores the login.
//!
//! The result goes to standard output, the progress to standard error.

use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{
    CLIENT_NAME, CallbackListener, CompletedSignIn, DEFAULT_SCOPES, Login, LoginTarget,
    PendingSignIn, SignInRequest, TokenStorage, revoke,
};

use super::args::{LoginArgs, Storage};
use super::error::CliError;
use super::output::{self, print_note};
use super::settings::{Choice, DEFAULT_PROFILE, Settings};
use super::upstream::http_transport;

pub(crate) async fn run(settings: &Settings, args: &LoginArgs) -> Result<ExitCode, CliError> {
    let name = profile_name(settings)?;
    let store = settings.login_store()?;
    // Before the sign-in: an unusable store would waste it.
    store.list()?;
    let request = sign_in_request(settings, args)?;
    let transport = http_transport(settings).map_err(|error| CliError::usage(error, ""))?;
    // The port first: the registered redirect URI contains it.
    let listener = CallbackListener::bind(args.callback_port).await?;
    let attempt =
        PendingSignIn::start(transport.clone(), request, &listener.redirect_uri()).await?;
    let attempt = Arc::new(attempt);
    open_or_print(&attempt, args.no_browser);
    let wait = listener.wait(attempt.clone(), Duration::from_secs(args.timeout));
    let redirect = if args.no_browser {
        tokio::select! {
            redirect = wait => redirect?,
            pasted = read_pasted_address() => pasted,
        }
    } else {
        wait.await?
    };
    let CompletedSignIn {
        login: profile,
        notes,
    } = attempt.finish(&redirect).await?;
    for note in notes {
        print_note(&format!("note: {note}"));
    }
    let storage = match args.storage {
        Storage::File => TokenStorage::File,
        Storage::Keyring => TokenStorage::Keyring,
    };
    let lock = store.lock().await?;
    // The revocation of an unreadable login is impossible, so its error is ignored.
    let previous = store.get(&name).ok().flatten();
    if let Some(note) = store.put(&lock, &name, &profile, storage, true)? {
        print_note(&format!("warning: {note}"));
    }
    drop(lock);
    if let Some((previous, _)) = previous
        && previous.target == profile.target
        && let Err(error) = revoke(&*transport, &previous).await
    {
        print_note(&format!(
            "note: the previous login could not be revoked: {error}"
        ));
    }
    if !settings.secrets.names().is_empty() {
        print_note(&format!(
            "note: a complete credential in {} takes precedence over a stored login; --profile {name} selects the login",
            settings.secrets.names().join(" and ")
        ));
    }
    output::print(&result(&name, &profile))?;
    Ok(ExitCode::SUCCESS)
}

/// The sign-in that flags and settings ask for.
fn sign_in_request(settings: &Settings, args: &LoginArgs) -> Result<SignInRequest, CliError> {
    let target = match &settings.choice {
        Choice::Datadog(upstream) => LoginTarget::from_upstream(upstream)?,
        Choice::Local | Choice::Unchosen(_) => {
            return Err(CliError::usage(
                "local data needs no sign-in",
                "to sign in at Datadog, name a site: llmobs-mcp login --site datadoghq.eu",
            ));
        }
    };
    if let Some(org) = &args.org
        && uuid::Uuid::parse_str(org).is_err()
    {
        return Err(CliError::usage(
            "--org requires the id of an organisation, a UUID",
            "remove it and choose the organisation in the browser",
        ));
    }
    Ok(SignInRequest {
        target,
        scopes: scopes(args, settings.tool_filter.read_only),
        client_name: args
            .client_name
            .clone()
            .unwrap_or_else(|| CLIENT_NAME.to_owned()),
        org: args.org.clone(),
    })
}

fn result(name: &str, profile: &Login) -> String {
    let org = match (&profile.org_name, &profile.org_id) {
        (Some(name), _) | (None, Some(name)) => format!(", organisation {name}"),
        (None, None) => String::new(),
    };
    let renewal = if profile.refresh_token.is_some() {
        "it is renewed automatically"
    } else {
        "it cannot be renewed and expires within a day"
    };
    let flag = match profile.target.upstream() {
        Upstream::Site(_) => String::new(),
        _ => format!(" (use it with --api-url {})", profile.target.key()),
    };
    format!(
        "Signed in to {}{org}\nprofile {name}, scopes {}; {renewal}{flag}",
        profile.target.name(),
        if profile.scope.is_empty() {
            "unknown"
        } else {
            &profile.scope
        },
    )
}

/// The scopes to request: those of the flags, or the default ones.
fn scopes(args: &LoginArgs, read_only: bool) -> Vec<String> {
    let requested: Vec<String> = args
        .scope
        .iter()
        .flat_map(|text| text.split([',', ' ']))
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    match requested.as_slice() {
        [] => DEFAULT_SCOPES
            .iter()
            .filter(|scope| !read_only || scope.ends_with("_read"))
            .map(|scope| (*scope).to_owned())
            .collect(),
        _ => requested,
    }
}

/// Opens the browser, or prints the address to open.
fn open_or_print(attempt: &PendingSignIn, no_browser: bool) {
    let url = attempt.url();
    if !no_browser && open_browser(url.as_str()) {
        print_note(&format!(
            "Opening a browser. If none opens, go to this address:\n\n  {url}\n\nWaiting for the sign-in (Ctrl-C stops it)…"
        ));
        return;
    }
    let paste = if no_browser {
        "\nIf the browser cannot reach this machine, paste the address that it is sent to (127.0.0.1…) here."
    } else {
        ""
    };
    print_note(&format!(
        "Open this address in a browser:\n\n  {url}\n\nWaiting for the sign-in (Ctrl-C stops it)…{paste}"
    ));
}

/// Starts the platform's opener. Returns whether it started.
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

/// The first line on standard input that looks like the redirect; waits forever if there is none.
async fn read_pasted_address() -> String {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = line.trim();
        if line.contains("state=") {
            return line.to_owned();
        }
        if !line.is_empty() {
            print_note(
                "not the address that the browser is sent to: that address contains `state=`",
            );
        }
    }
    std::future::pending().await
}

/// The profile of the login.
fn profile_name(settings: &Settings) -> Result<String, CliError> {
    let name = settings
        .profile
        .as_ref()
        .map_or(DEFAULT_PROFILE, |profile| profile.value.as_str());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err(CliError::usage(
            "the name of a profile is 1 to 64 letters, digits, dots, dashes and underscores",
            "for example: llmobs-mcp login --site datadoghq.eu --profile work-eu",
        ))
    }
}
