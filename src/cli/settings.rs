//! The settings of a command, resolved once from flags, environment and config file, in this order of
//! precedence.
//!
//! Only a *complete* credential selects Datadog: an API key alone, the normal setting of a traced
//! application, does not. Switches such as read-only only restrict: any source can turn one on, and
//! none can turn it off.

#[cfg_attr(
    not(feature = "oauth"),
    allow(
        dead_code,
        reason = "the authorization server alone reads some of them"
    )
)]
mod callers;
mod choice;
mod directories;
mod environment;
mod error;
mod file;
mod flags;
mod logins;
mod secrets;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::server::{CredentialSource, ToolFilter, ToolRegistry};
use datadog_llmobs::login::{LoginStore, LoginSummary};
use datadog_llmobs::{Credential, CredentialError};

use super::args::{Cli, SharedFlags};

pub(crate) use callers::CallerSettings;
pub(crate) use choice::Choice;
use choice::{ChoiceInputs, UpstreamChoice, choose};
use directories::default_dir;
pub(crate) use environment::Environment;
pub(crate) use error::SettingsError;
pub(crate) use logins::DEFAULT_PROFILE;
use logins::Logins;
pub(crate) use secrets::Secrets;
pub(crate) use values::Setting;
use values::{Layers, Names, Values, pick, pick_switch};

/// What a command needs of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It calls the upstream that the settings choose.
    Upstream,
    /// It calls none, so wrong credentials must not stop it.
    NoUpstream,
    /// It signs in there, so existing credentials do not count.
    SignIn,
}

/// Settings of the local backend.
#[derive(Debug, Default)]
#[cfg_attr(
    not(feature = "local"),
    allow(dead_code, reason = "the local backend alone reads them")
)]
pub(crate) struct LocalSettings {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// Whether a setting names the data directory.
    pub(crate) data_dir_named: bool,
    /// Maximum age of a span by its start.
    pub(crate) max_age: Option<Duration>,
    /// Maximum size of the store in bytes.
    pub(crate) max_bytes: Option<u64>,
    /// Whether the intake enforces Datadog's limits.
    pub(crate) datadog_limits: bool,
}

/// The settings of a command.
pub(crate) struct Settings {
    pub(crate) choice: Choice,
    /// Why that upstream, for people.
    pub(crate) because: String,
    pub(crate) secrets: Secrets,
    /// The stored login to use, if any.
    pub(crate) login: Option<LoginSummary>,
    /// The profile that a setting names.
    pub(crate) profile: Option<Setting<String>>,
    /// The directory of stored logins; `None` for a user without a home directory.
    pub(crate) state_dir: Option<PathBuf>,
    /// The missing half of a key pair, if one half is set.
    pub(crate) half: Option<CredentialError>,
    pub(crate) local: LocalSettings,
    pub(crate) ca_file: Option<PathBuf>,
    /// Which tools the process serves.
    pub(crate) tool_filter: ToolFilter,
    /// The source of the list of toolsets, if a setting names toolsets.
    toolsets_source: Option<String>,
    /// Settings of callers over HTTP.
    pub(crate) callers: CallerSettings,
    pub(crate) log: Option<LevelFilter>,
    /// The path of the config file and whether it exists.
    pub(crate) config: (PathBuf, bool),
    /// Notes for the log and for `doctor`.
    pub(crate) notes: Vec<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the secrets.
        f.debug_struct("Settings")
            .field("choice", &self.choice)
            .field("tool_filter", &self.tool_filter)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Resolves the settings of one command.
    pub(crate) fn resolve(cli: &Cli, env: &Environment, need: Need) -> Result<Self, SettingsError> {
        let mut notes = env.unknown_names();
        let config = file::load(cli.shared.config.as_deref(), env, &mut notes)?;
        let flags = flags::values(cli);
        let variables = env.values(&mut notes)?;
        let layers = Layers::new(&flags, &variables, &config.values, config.directory());

        let ProcessCredential {
            secrets,
            half,
            complete,
        } = ProcessCredential::resolve(&layers, need)?;
        let state_dir = logins::state_dir(env);
        let profile = logins::named_profile(cli.shared.profile.as_deref(), env);
        let logins = match need {
            Need::Upstream => Some(Logins::read(
                state_dir.as_ref(),
                profile.clone(),
                &mut notes,
            )?),
            Need::NoUpstream | Need::SignIn => None,
        };
        let inputs = ChoiceInputs {
            local: cli.shared.local,
            api_url: cli.shared.api_url.as_deref(),
            site: pick!(layers, site),
            complete: complete || need == Need::SignIn,
            logins: logins.as_ref(),
        };
        let UpstreamChoice {
            choice,
            because,
            login,
        } = match need {
            Need::NoUpstream => {
                UpstreamChoice::without_login(Choice::Local, "this command uses local data")
            }
            Need::Upstream | Need::SignIn => choose(inputs)?,
        };
        let uses_keys = login.is_none() && need == Need::Upstream;
        note_unused_settings(&cli.shared, &choice, half, uses_keys, &mut notes);

        Ok(Self {
            choice,
            because,
            secrets,
            login,
            profile,
            state_dir,
            half,
            local: local_settings(&layers)?,
            ca_file: layers.path(|values| values.ca_file.as_ref()),
            tool_filter: tool_filter(&layers),
            toolsets_source: pick!(layers, toolsets).map(|setting| setting.source),
            callers: CallerSettings::resolve(&layers),
            log: log_level(&layers, cli.shared.verbose)?,
            config: (config.path.clone(), config.exists),
            notes,
        })
    }

    /// Refuses a list of toolsets without a known name, which would serve no tool.
    pub(crate) fn check_toolsets(&self) -> Result<(), SettingsError> {
        let (Some(names), Some(source)) = (&self.tool_filter.toolsets, &self.toolsets_source)
        else {
            return Ok(());
        };
        ToolRegistry::from_tools()
            .check_toolsets(names)
            .map_err(|why| SettingsError::Value {
                name: source.clone(),
                why,
            })
    }

    /// The store of logins.
    pub(crate) fn login_store(&self) -> Result<LoginStore, SettingsError> {
        let directory = self.state_dir.as_ref().ok_or(SettingsError::NoStateDir)?;
        Ok(LoginStore::new(directory))
    }

    /// The kind and source of the credential in use, for people.
    pub(crate) fn describe_credential(&self) -> String {
        match self.credential_in_use() {
            Some((kind, _)) if kind == Credential::None.kind() => kind.to_owned(),
            Some((kind, origin)) => format!("{kind} from {origin}"),
            None => "no credential (local data needs none)".to_owned(),
        }
    }

    /// The kind of the credential in use and where it comes from; `None` if calls go to local data,
    /// which needs none. Never the value.
    pub(crate) fn credential_in_use(&self) -> Option<(&'static str, String)> {
        match (&self.choice, &self.login) {
            (Choice::Local | Choice::Unchosen(_), _) => None,
            (Choice::Datadog(_), Some(login)) => Some((
                Credential::Bearer(String::new().into()).kind(),
                format!("the stored login of profile {}", login.name),
            )),
            (Choice::Datadog(_), None) => {
                Some((self.secrets.current().kind(), self.secrets.origin()))
            }
        }
    }
}

/// The credential that the settings hold.
struct ProcessCredential {
    secrets: Secrets,
    /// The missing half of a key pair, if one half is set.
    half: Option<CredentialError>,
    complete: bool,
}

impl ProcessCredential {
    fn resolve(layers: &Layers<'_>, need: Need) -> Result<Self, SettingsError> {
        let secrets = match need {
            Need::Upstream => Secrets::resolve(layers)?,
            Need::NoUpstream => Secrets::default(),
            Need::SignIn => Secrets::resolve(layers).unwrap_or_default(),
        };
        let credential = secrets.credential();
        if let Err(error @ CredentialError::BadCharacters(_)) = credential {
            return Err(SettingsError::Credential { error });
        }
        Ok(Self {
            secrets,
            half: credential.as_ref().err().copied(),
            complete: credential.is_ok_and(|credential| !credential.is_none()),
        })
    }
}

/// Notes settings that have no effect because a credential is incomplete.
fn note_unused_settings(
    flags: &SharedFlags,
    choice: &Choice,
    half: Option<CredentialError>,
    uses_keys: bool,
    notes: &mut Vec<String>,
) {
    if let (Choice::Unchosen(_), Some(site)) = (choice, &flags.site) {
        notes.push(format!(
            "--site {site} has no effect yet: no complete credential is set, so the data is local; set \
             DD_API_KEY and DD_APPLICATION_KEY, or sign in with `llmobs-mcp login`"
        ));
    }
    match (half, choice) {
        (Some(CredentialError::MissingApiKey), Choice::Unchosen(_)) => notes.push(
            "an application key without an API key does not select Datadog: set DD_API_KEY too"
                .to_owned(),
        ),
        (Some(error), Choice::Datadog(_)) if uses_keys => {
            notes.push(format!("calls are sent without a credential: {error}"));
        }
        _ => {}
    }
}

fn local_settings(layers: &Layers<'_>) -> Result<LocalSettings, SettingsError> {
    let named = layers.path(|values| values.data_dir.as_ref());
    Ok(LocalSettings {
        data_dir_named: named.is_some(),
        data_dir: match named {
            Some(directory) => directory,
            None => default_dir(|dirs| dirs.data_dir())?,
        },
        max_age: pick!(layers, retain_days).map(|setting| setting.value.0),
        max_bytes: pick!(layers, retain_bytes).map(|setting| setting.value.0),
        datadog_limits: pick_switch!(layers, datadog_limits).is_some(),
    })
}

/// The tools of the process. An empty list counts as absent.
fn tool_filter(layers: &Layers<'_>) -> ToolFilter {
    let list = |key: &str, read: fn(&Values) -> Option<&Names>| {
        let names = layers.first(key, |values| read(values).cloned())?.value.0;
        (!names.is_empty()).then_some(names)
    };
    ToolFilter {
        toolsets: list("toolsets", |values| values.toolsets.as_ref()),
        omit: list("omit_tools", |values| values.omit_tools.as_ref()).unwrap_or_default(),
        read_only: pick_switch!(layers, read_only).is_some(),
    }
}

/// The log level: `--log`, then `-v`, then the other sources.
fn log_level(layers: &Layers<'_>, verbose: u8) -> Result<Option<LevelFilter>, SettingsError> {
    let setting = pick!(layers, log);
    let by_flag = setting.as_ref().is_some_and(|log| log.source == "--log");
    match verbose {
        _ if by_flag => {}
        0 => {}
        1 => return Ok(Some(LevelFilter::INFO)),
        2 => return Ok(Some(LevelFilter::DEBUG)),
        _ => return Ok(Some(LevelFilter::TRACE)),
    }
    let Some(Setting { value, source }) = setting else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| SettingsError::Value {
        name: source,
        why: "a level is one of off, error, warn, info, debug, trace; for example LLMOBS_MCP_LOG=info"
            .to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests;
