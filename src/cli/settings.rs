//! Settings: flags over environment over config file, resolved once, with where each came from.
//!
//! The upstream is chosen by what is *complete*: an API key alone, the normal setting of a traced
//! application, does not select Datadog. Read-only is the exception to "flags over environment over
//! file": any source can turn it on and none can turn it off.

mod callers;
mod environment;
mod file;
mod logins;
mod retention;
mod secrets;

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use tracing::level_filters::LevelFilter;

use crate::server::{CredentialSource, Wish};
use datadog_llmobs::login::{LoginStoreError, LoginSummary};
use datadog_llmobs::{ApiUrlError, Credential, CredentialError, Site, SiteError, Upstream};
use llmobs_local::Retention;

use super::args::Shared;

pub(crate) use callers::Callers;
pub(crate) use environment::Environment;
pub(crate) use logins::DEFAULT_PROFILE;
use logins::Logins;
pub(crate) use retention::{bytes, days};
pub(crate) use secrets::Secrets;

/// The site for requests that bring credentials when no site was named.
const DEFAULT_SITE: &str = "datadoghq.com";

/// Whether a command talks to an upstream of the user's choice at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It does.
    Upstream,
    /// It does not, so wrong credentials must not stop it.
    NoUpstream,
    /// It signs in there, so what is there already does not count.
    SignIn,
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The local backend was asked for.
    Local,
    /// Nothing was: local, and Datadog at this site for requests that bring credentials.
    Unchosen(Site),
    /// A Datadog site, or a base named by `--api-url`.
    Datadog(Upstream),
}

/// A setting's value and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said<T> {
    pub(crate) value: T,
    pub(crate) by: String,
}

/// Everything a command needs to know.
pub(crate) struct Settings {
    pub(crate) choice: Choice,
    /// Why that upstream, in words.
    pub(crate) because: String,
    pub(crate) secrets: Secrets,
    /// The stored login that is in force, if one is.
    pub(crate) login: Option<LoginSummary>,
    /// The profile that was named.
    pub(crate) profile: Option<Said<String>>,
    /// Where logins are kept, if this user has a place for them.
    pub(crate) state_dir: Option<PathBuf>,
    /// The half of a pair that is missing, if one is.
    pub(crate) half: Option<CredentialError>,
    pub(crate) data_dir: PathBuf,
    /// Whether somebody named the data folder.
    pub(crate) data_dir_named: bool,
    /// What the local backend keeps.
    pub(crate) retention: Retention,
    /// Whether the local backend holds to Datadog's limits on what is sent.
    pub(crate) datadog_limits: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) wish: Wish,
    /// What is said about callers over HTTP.
    pub(crate) callers: Callers,
    pub(crate) log: Option<LevelFilter>,
    /// The config file and whether it was there.
    pub(crate) config: (PathBuf, bool),
    /// Remarks for the log and for `doctor`.
    pub(crate) notes: Vec<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secrets stay out of it.
        f.debug_struct("Settings")
            .field("choice", &self.choice)
            .field("wish", &self.wish)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// A site that is none, or is not served.
    #[error("{by}: {error}")]
    Site { by: String, error: SiteError },
    /// A base that credentials must not be sent to.
    #[error("{0}")]
    ApiUrl(#[from] ApiUrlError),
    /// Two sources of one secret disagree.
    #[error("{one} and {other} are both set and differ")]
    Contradiction { one: String, other: String },
    /// A secret that no header can carry.
    #[error("{error}")]
    Credential { error: CredentialError },
    /// A secret's file.
    #[error("{by} names a file that cannot be read: {why}")]
    SecretFile { by: String, why: String },
    /// A stored login that does not fit.
    #[error("{by}: {why}")]
    Profile { by: String, why: String },
    /// Stored logins that cannot be read.
    #[error("{error}")]
    Logins { error: LoginStoreError },
    /// A value of a variable.
    #[error("{name}: {why}")]
    Value { name: String, why: String },
    /// The config file cannot be read.
    #[error("the config file {path} cannot be read: {why}")]
    Unreadable { path: String, why: String },
    /// The config file is not TOML, or holds what it must not.
    #[error("the config file {path} is wrong{line}: {why}")]
    File {
        path: String,
        line: String,
        why: String,
    },
    /// No home folder.
    #[error("this user has no home folder, so the data folder is unknown")]
    NoHome,
}

impl SettingsError {
    /// The mend, where the message does not already hold it.
    pub(crate) fn mend(&self) -> Option<String> {
        let mend = match self {
            Self::Site { .. } | Self::ApiUrl(_) | Self::Credential { .. } | Self::Value { .. } => {
                return None;
            }
            Self::Profile { .. } => "`llmobs-mcp status` lists the stored logins".to_owned(),
            Self::Logins { error } => error.hint(),
            Self::Contradiction { one, .. } => format!("unset all but one of them, such as all but {one}"),
            Self::SecretFile { by, .. } => {
                format!("let {by} name a readable file that holds the secret and nothing else")
            }
            Self::Unreadable { .. } | Self::File { .. } => {
                "an example of a good file:\n    site = \"datadoghq.eu\"\n    toolsets = [\"llmobs\"]\n    read_only = true"
                    .to_owned()
            }
            Self::NoHome => "name one: --data-dir /path/to/folder".to_owned(),
        };
        Some(mend)
    }
}

impl Settings {
    /// Resolves the settings of one command.
    pub(crate) fn resolve(
        flags: &Shared,
        env: &Environment,
        need: Need,
    ) -> Result<Self, SettingsError> {
        let mut notes = env.unknown_names();
        let config = file::load(flags.config.as_deref(), env)?;
        notes.extend(config.notes.iter().cloned());
        let file = &config.values;

        let secrets = match need {
            Need::Upstream => Secrets::resolve(env, file)?,
            Need::NoUpstream => Secrets::default(),
            Need::SignIn => Secrets::resolve(env, file).unwrap_or_default(),
        };
        let state_dir = logins::state_dir(env);
        let profile = logins::named_profile(flags.profile.as_deref(), env);
        let credential = secrets.credential();
        if let Err(error @ CredentialError::BadCharacters(_)) = credential {
            return Err(SettingsError::Credential { error });
        }
        let half = credential.as_ref().err().copied();
        let complete = credential.is_ok_and(|credential| !credential.is_none());

        let Chosen {
            choice,
            because,
            login,
        } = match need {
            Need::NoUpstream => {
                Chosen::without_login(Choice::Local, "this command uses local data")
            }
            Need::SignIn => choose(flags, env, file, true, None)?,
            Need::Upstream => {
                let logins = Logins::read(state_dir.as_ref(), profile.clone(), &mut notes)?;
                choose(flags, env, file, complete, Some(&logins))?
            }
        };
        if let (Choice::Unchosen(_), Some(site)) = (&choice, &flags.site) {
            notes.push(format!(
                "--site {site} has no effect yet: no complete credential is set, so the data is \
                 local; set DD_API_KEY and DD_APPLICATION_KEY, or sign in with `llmobs-mcp login`"
            ));
        }
        match (half, &choice) {
            (Some(CredentialError::MissingApiKey), Choice::Unchosen(_)) => notes.push(
                "an application key without an API key does not select Datadog: set DD_API_KEY too"
                    .to_owned(),
            ),
            (Some(error), Choice::Datadog(_)) if login.is_none() && need == Need::Upstream => {
                notes.push(format!("calls are sent without a credential: {error}"));
            }
            _ => {}
        }

        let list = |flag: &Option<String>, variable: &str, file: &Option<Vec<String>>| {
            flag.clone()
                .or_else(|| env.get(variable))
                .map(|text| split(&text))
                .or_else(|| file.clone())
                .filter(|names| !names.is_empty())
        };
        let mut read_only = flags.read_only || file.read_only.unwrap_or_default();
        for variable in ["LLMOBS_MCP_READ_ONLY", "DD_LLMOBS_READ_ONLY"] {
            read_only |= env.is_set(variable, &mut notes);
        }
        let callers = Callers::resolve(env, file, &mut notes);
        let wish = Wish {
            toolsets: list(&flags.toolsets, "LLMOBS_MCP_TOOLSETS", &file.toolsets),
            omit: list(&flags.omit_tools, "LLMOBS_MCP_OMIT_TOOLS", &file.omit_tools)
                .unwrap_or_default(),
            read_only,
        };

        let named_dir = flags
            .data_dir
            .clone()
            .or_else(|| env.get("LLMOBS_MCP_DATA_DIR").map(PathBuf::from))
            .or_else(|| file.data_dir.clone());
        let data_dir_named = named_dir.is_some();
        let data_dir = match named_dir {
            Some(dir) => dir,
            None => default_dir(|dirs| dirs.data_dir())?,
        };
        let ca_file = flags
            .ca_file
            .clone()
            .or_else(|| env.get("LLMOBS_MCP_CA_FILE").map(PathBuf::from))
            .or_else(|| file.ca_file.clone());

        let datadog_limits = env.is_set("LLMOBS_MCP_DATADOG_LIMITS", &mut notes)
            || file.datadog_limits.unwrap_or_default();

        Ok(Self {
            choice,
            because,
            secrets,
            login,
            profile,
            state_dir,
            half,
            data_dir,
            data_dir_named,
            retention: retention::resolve(env, file)?,
            datadog_limits,
            ca_file,
            wish,
            callers,
            log: level(flags, env, file)?,
            config: (config.path.clone(), config.found),
            notes,
        })
    }
}

impl Settings {
    /// The kind of the credential in force and where it comes from. Never its value.
    pub(crate) fn in_force(&self) -> (&'static str, String) {
        match (&self.choice, &self.login) {
            (Choice::Local | Choice::Unchosen(_), _) => (
                Credential::None.kind(),
                "nowhere, none is needed".to_owned(),
            ),
            (Choice::Datadog(_), Some(login)) => (
                Credential::Bearer(String::new().into()).kind(),
                format!("the stored login of profile {}", login.name),
            ),
            (Choice::Datadog(_), None) => (self.secrets.current().kind(), self.secrets.origin()),
        }
    }
}

/// Where calls go, why, and with which stored login.
struct Chosen {
    choice: Choice,
    because: String,
    login: Option<LoginSummary>,
}

impl Chosen {
    fn without_login(choice: Choice, because: &str) -> Self {
        Self {
            choice,
            because: because.to_owned(),
            login: None,
        }
    }
}

/// Chooses the upstream: flags, then a site named `local`, then whether a credential is complete,
/// then a stored login. A profile that was named wins over keys of the environment.
fn choose(
    flags: &Shared,
    env: &Environment,
    file: &file::Values,
    complete: bool,
    logins: Option<&Logins>,
) -> Result<Chosen, SettingsError> {
    let logins = logins.filter(|logins| !complete || logins.named.is_some());
    if flags.local {
        return Ok(Chosen::without_login(Choice::Local, "--local"));
    }
    if let Some(url) = &flags.api_url {
        let upstream = Upstream::from_api_url(url)?;
        let login = match logins {
            Some(logins) => logins.at(&upstream)?,
            None => None,
        };
        return Ok(Chosen {
            login,
            ..Chosen::without_login(Choice::Datadog(upstream), "--api-url")
        });
    }
    let said = |value: Option<String>, by: &str| {
        value.map(|value| Said {
            value,
            by: by.to_owned(),
        })
    };
    let site = said(flags.site.clone(), "--site")
        .or_else(|| said(env.get("DD_SITE"), "DD_SITE"))
        .or_else(|| said(file.site.clone(), "site in the config file"));
    if let Some(site) = &site
        && site.value.trim().eq_ignore_ascii_case("local")
    {
        let because = format!("{} is local", site.by);
        return Ok(Chosen::without_login(Choice::Local, &because));
    }
    if site.is_none()
        && let Some(logins) = logins
        && let Some((login, upstream)) = logins.anywhere()?
    {
        return Ok(Chosen {
            choice: Choice::Datadog(upstream),
            because: format!("the stored login of profile {}", login.name),
            login: Some(login),
        });
    }
    let site = site.unwrap_or_else(|| Said {
        value: DEFAULT_SITE.to_owned(),
        by: "the default site".to_owned(),
    });
    let parsed = Site::parse(&site.value).map_err(|error| SettingsError::Site {
        by: site.by.clone(),
        error,
    })?;
    let upstream = Upstream::Site(parsed);
    if let Some(logins) = logins
        && let Some(login) = logins.at(&upstream)?
    {
        return Ok(Chosen {
            choice: Choice::Datadog(upstream),
            because: format!(
                "the stored login of profile {}; the site is from {}",
                login.name, site.by
            ),
            login: Some(login),
        });
    }
    Ok(if complete {
        let because = format!("a complete credential is set; the site is from {}", site.by);
        Chosen::without_login(Choice::Datadog(upstream), &because)
    } else {
        Chosen::without_login(
            Choice::Unchosen(parsed),
            "no complete Datadog credential is set",
        )
    })
}

fn level(
    flags: &Shared,
    env: &Environment,
    file: &file::Values,
) -> Result<Option<LevelFilter>, SettingsError> {
    if flags.log.is_some() {
        return Ok(flags.log);
    }
    match flags.verbose {
        0 => {}
        1 => return Ok(Some(LevelFilter::INFO)),
        2 => return Ok(Some(LevelFilter::DEBUG)),
        _ => return Ok(Some(LevelFilter::TRACE)),
    }
    let (name, text) = match (env.get("LLMOBS_MCP_LOG"), &file.log) {
        (Some(text), _) => ("LLMOBS_MCP_LOG", text),
        (None, Some(text)) => ("log in the config file", text.clone()),
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).map_err(|_| SettingsError::Value {
        name: name.to_owned(),
        why: "a level is one of off, error, warn, info, debug, trace; for example LLMOBS_MCP_LOG=info"
            .to_owned(),
    })
}

/// The names of a comma list.
fn split(text: &str) -> Vec<String> {
    text.split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

/// This program's folder in one of the platform's.
fn default_dir(of: impl Fn(&dyn BaseStrategy) -> PathBuf) -> Result<PathBuf, SettingsError> {
    etcetera::choose_base_strategy()
        .map(|dirs| of(&dirs).join("llmobs-mcp"))
        .map_err(|_| SettingsError::NoHome)
}

/// A path of the config file: `~` is the home folder, and what is relative is so to the file.
fn path_in(file: &Path, text: &str) -> PathBuf {
    if let Some(rest) = text.strip_prefix("~/")
        && let Ok(home) = etcetera::home_dir()
    {
        return home.join(rest);
    }
    file.parent().unwrap_or(Path::new("")).join(text)
}

#[cfg(test)]
pub(super) mod tests;
