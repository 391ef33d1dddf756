//! The server's own credentials, and the modes that must not use them.

use crate::cli::error::CliError;
use crate::cli::settings::{Choice, Secrets, Settings};
use crate::server::CredentialSource;
use datadog_llmobs::Upstream;
use llmobs_authz::AuthMode;

/// Where the server's own credentials come from, if it has any.
pub(crate) fn own_credentials(settings: &Settings) -> Option<String> {
    if let Some(login) = &settings.login {
        return Some(format!("the stored login of profile {}", login.name));
    }
    let complete = !settings.secrets.current().is_none();
    complete.then(|| settings.secrets.origin())
}

/// Removes the server's own credentials, so that no later mistake can share them.
pub(super) fn drop_server_credentials(settings: &mut Settings, mode: AuthMode) {
    if let Some(origin) = own_credentials(settings) {
        tracing::warn!(
            "{origin}: not used, because in mode {mode} callers use their own credentials"
        );
    }
    settings.secrets = Secrets::default();
    settings.login = None;
}

/// Chooses a site if nothing is chosen, and refuses local data, which no credential protects.
pub(super) fn require_site(settings: &mut Settings, mode: AuthMode) -> Result<(), CliError> {
    match settings.choice {
        Choice::Datadog(_) => Ok(()),
        Choice::Unchosen(site) => {
            settings.choice = Choice::Datadog(Upstream::Site(site));
            settings.because = format!("callers in mode {mode} bring credentials for a site");
            Ok(())
        }
        Choice::Local => Err(CliError::usage(
            format!(
                "mode {mode} checks Datadog credentials, but local data needs none, so everybody could \
                 read it"
            ),
            "for local data, use --auth static-bearer; or name a Datadog site: --site datadoghq.eu",
        )),
    }
}
