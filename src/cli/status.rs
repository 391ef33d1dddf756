//! `status`: the stored logins, and the credential in use.

use std::fmt::Write;
use std::process::ExitCode;

use datadog_llmobs::login::{LoginSummary, TokenStorage};
use llmobs_core::query::time::format_rfc3339;

use super::error::CliError;
use super::output;
use super::settings::Settings;

pub(crate) fn run(settings: &Settings) -> Result<ExitCode, CliError> {
    let store = settings.login_store()?;
    let logins = store.list()?;
    let mut text = if logins.is_empty() {
        "Not signed in. Sign in with `llmobs-mcp login --site <your site>`.\n".to_owned()
    } else {
        format!("Logins in {}\n", store.path().display())
    };
    for login in &logins {
        text.push_str(&line(login));
    }
    let _ = write!(text, "In use: {}", settings.describe_credential());
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn line(login: &LoginSummary) -> String {
    let org = login.org.as_deref().unwrap_or("unknown organisation");
    let renewable = if login.renewable {
        ", renewed automatically"
    } else {
        ""
    };
    let storage = match login.storage {
        TokenStorage::File => "file",
        TokenStorage::Keyring => "keyring",
    };
    format!(
        "{} {}: {}, {org}; scopes {}; token until {}{renewable}; in {storage}\n",
        if login.current { "*" } else { " " },
        login.name,
        login.target,
        login.scope,
        format_rfc3339(login.expires_at_ms),
    )
}
