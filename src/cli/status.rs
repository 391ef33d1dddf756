//! `status`: the stored logins, and which credential is in force.

use std::fmt::Write;
use std::process::ExitCode;

use datadog_llmobs::login::{LoginSummary, TokenStorage};
use llmobs_core::query::time::format_rfc3339;

use super::error::CliError;
use super::login::store;
use super::output;
use super::settings::Settings;

pub(crate) fn run(settings: &Settings) -> Result<ExitCode, CliError> {
    let store = store(settings)?;
    let kept = store.list()?;
    let mut text = if kept.is_empty() {
        "Nobody is signed in: `llmobs-mcp login --site datadoghq.eu` does it.\n".to_owned()
    } else {
        format!("Logins in {}\n", store.path().display())
    };
    for kept in &kept {
        text.push_str(&line(kept));
    }
    let (kind, origin) = settings.in_force();
    let _ = write!(text, "In force: {kind} from {origin}");
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn line(kept: &LoginSummary) -> String {
    let org = kept.org.as_deref().unwrap_or("organisation not told");
    let renewable = if kept.renewable {
        ", renews itself"
    } else {
        ""
    };
    let safe = match kept.storage {
        TokenStorage::File => "file",
        TokenStorage::Keyring => "keyring",
    };
    format!(
        "{} {}: {}, {org}; scopes {}; token until {}{renewable}; in {safe}\n",
        if kept.current { "*" } else { " " },
        kept.name,
        kept.target,
        kept.scope,
        format_rfc3339(kept.expires_at_ms),
    )
}
