//! `whoami`: which upstream answers, with which kind of credential, from where. Never its value.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::args::WhoamiArgs;
use super::error::CliError;
use super::output;
use super::settings::{Choice, Settings};

pub(crate) fn run(settings: &Settings, args: &WhoamiArgs) -> Result<ExitCode, CliError> {
    let (kind, origin) = settings.in_force();
    let upstream = match &settings.choice {
        Choice::Local | Choice::Unchosen(_) => "the local backend".to_owned(),
        Choice::Datadog(upstream) => upstream.name().into_owned(),
    };
    let text = if args.json {
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
        .to_string()
    } else {
        let who = settings.login.as_ref().map_or(String::new(), |login| {
            let org = login.org.as_deref().unwrap_or("not told");
            format!("\norganisation {org}, scopes {}", login.scope)
        });
        format!(
            "upstream {upstream} ({})\ncredential: {kind} from {origin}{who}",
            settings.because
        )
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
