//! `whoami`: the upstream, and the kind and source of the credential. Never its value.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use datadog_llmobs::Credential;

use super::args::WhoamiArgs;
use super::error::CliError;
use super::output;
use super::settings::{Choice, Settings};

pub(crate) fn run(settings: &Settings, args: &WhoamiArgs) -> Result<ExitCode, CliError> {
    let upstream = match &settings.choice {
        Choice::Local | Choice::Unchosen(_) => "local data".to_owned(),
        Choice::Datadog(upstream) => upstream.name().into_owned(),
    };
    output::print(&if args.json {
        to_json(settings, &upstream).to_string()
    } else {
        to_text(settings, &upstream)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn to_json(settings: &Settings, upstream: &str) -> Value {
    let (kind, origin) = settings
        .credential_in_use()
        .unwrap_or((Credential::None.kind(), "none needed".to_owned()));
    let mut credential = Map::new();
    credential.insert("kind".to_owned(), json!(kind));
    credential.insert("origin".to_owned(), json!(origin));
    if let Some(login) = &settings.login {
        credential.insert("profile".to_owned(), json!(login.name));
        credential.insert("scopes".to_owned(), json!(login.scope));
        credential.insert("organisation".to_owned(), json!(login.org));
    }
    json!({
        "upstream": {"name": upstream, "chosen_by": settings.because},
        "credential": Value::Object(credential),
    })
}

fn to_text(settings: &Settings, upstream: &str) -> String {
    let because = &settings.because;
    let login = settings.login.as_ref().map_or(String::new(), |login| {
        let org = login.org.as_deref().unwrap_or("unknown");
        format!("\norganisation: {org}\nscopes: {}", login.scope)
    });
    let credential = match settings.credential_in_use() {
        Some(_) => format!("credential: {}", settings.describe_credential()),
        None => settings.describe_credential(),
    };
    format!("upstream: {upstream} ({because})\n{credential}{login}")
}
