//! `logout`: revokes a stored login at its upstream and deletes it, even if the revocation fails.

use std::process::ExitCode;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{Login, LoginStore, revoke};

use super::args::{LogoutArgs, SharedFlags};
use super::error::CliError;
use super::output::{print, print_note};
use super::settings::Settings;
use super::upstream::http_transport;

pub(crate) async fn run(
    flags: &SharedFlags,
    settings: &Settings,
    args: &LogoutArgs,
) -> Result<ExitCode, CliError> {
    let store = settings.login_store()?;
    let logins = store.list()?;
    let names: Vec<String> = match &settings.profile {
        _ if args.all => logins.into_iter().map(|login| login.name).collect(),
        Some(profile) => vec![profile.value.clone()],
        None => logins
            .into_iter()
            .filter(|login| login.current)
            .map(|login| login.name)
            .collect(),
    };
    if names.is_empty() {
        print("Not signed in.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all_revoked = true;
    for name in &names {
        all_revoked &= sign_out(&store, name, flags, settings).await?;
    }
    Ok(ExitCode::from(u8::from(!all_revoked)))
}

/// Revokes and deletes one login. Returns whether it is certainly revoked.
async fn sign_out(
    store: &LoginStore,
    name: &str,
    flags: &SharedFlags,
    settings: &Settings,
) -> Result<bool, CliError> {
    // The lock covers the revocation: a concurrent renewal would leave a valid token.
    let lock = store.lock().await?;
    let profile = store.get(name);
    let revoked = match &profile {
        Ok(Some((profile, _))) => revoke_at_upstream(profile, flags, settings).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if !store.remove(&lock, name)? {
        return Err(CliError::failed(
            format!("no stored login is named {name}"),
            "`llmobs-mcp status` lists the stored logins",
        ));
    }
    match revoked {
        Ok(()) => {
            print(&format!(
                "Signed out: the login {name} is revoked and deleted."
            ))?;
            Ok(true)
        }
        Err(why) => {
            print_note(&format!(
                "warning: the login {name} is deleted here but not revoked: {why}\n  \
                 revoke it in Datadog: Personal Settings or Organization Settings, authorized apps"
            ));
            Ok(false)
        }
    }
}

async fn revoke_at_upstream(
    profile: &Login,
    flags: &SharedFlags,
    settings: &Settings,
) -> Result<(), String> {
    // A file must not decide where a token is sent: a flag must name a server on this machine.
    if !matches!(profile.target.upstream(), Upstream::Site(_)) {
        let named = flags
            .api_url
            .as_deref()
            .and_then(|url| Upstream::from_api_url(url).ok());
        if named.as_ref() != Some(profile.target.upstream()) {
            return Err(format!(
                "it is for a server on this machine; to revoke it, add --api-url {}",
                profile.target.key()
            ));
        }
    }
    let transport = http_transport(settings)?;
    revoke(&*transport, profile)
        .await
        .map_err(|error| error.to_string())
}
