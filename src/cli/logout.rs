//! `logout`: revokes a stored login where it came from, and forgets it, whatever that answers.

use std::process::ExitCode;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{Login, LoginStore, revoke};

use super::args::{LogoutArgs, Shared};
use super::error::CliError;
use super::login::store;
use super::output::{print, tell};
use super::settings::Settings;
use super::upstream::http_transport;

pub(crate) async fn run(
    flags: &Shared,
    settings: &Settings,
    args: &LogoutArgs,
) -> Result<ExitCode, CliError> {
    let store = store(settings)?;
    let kept = store.list()?;
    let names: Vec<String> = match &settings.profile {
        _ if args.all => kept.into_iter().map(|kept| kept.name).collect(),
        Some(said) => vec![said.value.clone()],
        None => kept
            .into_iter()
            .filter(|kept| kept.current)
            .map(|kept| kept.name)
            .collect(),
    };
    if names.is_empty() {
        print("Nobody is signed in.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut all_revoked = true;
    for name in &names {
        all_revoked &= leave(&store, name, flags, settings).await?;
    }
    Ok(ExitCode::from(u8::from(!all_revoked)))
}

/// Ends one login. Says whether it is surely revoked.
async fn leave(
    store: &LoginStore,
    name: &str,
    flags: &Shared,
    settings: &Settings,
) -> Result<bool, CliError> {
    // The lock is held through the revocation: a renewal beside it would leave a live token.
    let lock = store.lock().await?;
    let profile = store.get(name);
    let revoked = match &profile {
        Ok(Some((profile, _))) => end(profile, flags, settings).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if !store.remove(&lock, name)? {
        return Err(CliError::failed(
            format!("there is no stored login named {name}"),
            "`llmobs-mcp status` lists them",
        ));
    }
    match revoked {
        Ok(()) => {
            print(&format!(
                "Signed out: the login {name} is revoked and forgotten."
            ))?;
            Ok(true)
        }
        Err(why) => {
            tell(&format!(
                "warning: the login {name} is forgotten here but not revoked: {why}\n  \
                 revoke it in Datadog: Personal Settings or Organization Settings, authorized apps"
            ));
            Ok(false)
        }
    }
}

async fn end(profile: &Login, flags: &Shared, settings: &Settings) -> Result<(), String> {
    // Where a token is sent is not for a file to say: a server of this machine must be named.
    if !matches!(profile.target.upstream(), Upstream::Site(_)) {
        let named = flags
            .api_url
            .as_deref()
            .and_then(|url| Upstream::from_api_url(url).ok());
        if named.as_ref() != Some(profile.target.upstream()) {
            return Err(format!(
                "it is for a server of this machine; name it to revoke: --api-url {}",
                profile.target.key()
            ));
        }
    }
    let transport = http_transport(settings)?;
    revoke(&*transport, profile)
        .await
        .map_err(|error| error.to_string())
}
