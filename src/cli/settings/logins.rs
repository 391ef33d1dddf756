//! Selects the stored login to use, if any.
//!
//! A login at a site may choose that site. A login at a server on this machine is used only together
//! with the `--api-url` that names it: no file decides where credentials are sent.

use std::path::PathBuf;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{LoginStore, LoginSummary, LoginTarget};

use super::directories::default_dir;
use super::environment::Environment;
use super::environment::{PROFILE, STATE_DIR};
use super::error::SettingsError;
use super::values::Setting;

/// The profile of a login if no setting names one.
pub(crate) const DEFAULT_PROFILE: &str = "default";

/// The stored logins, and the profile that a setting names.
pub(crate) struct Logins {
    pub(crate) logins: Vec<LoginSummary>,
    pub(crate) named: Option<Setting<String>>,
}

/// The directory of stored logins; `None` for a user without a home directory.
pub(super) fn state_dir(env: &Environment) -> Option<PathBuf> {
    env.get(STATE_DIR)
        .map(PathBuf::from)
        .or_else(|| default_dir(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_dir())).ok())
}

/// The profile that a flag or the environment names.
pub(super) fn named_profile(flag: Option<&str>, env: &Environment) -> Option<Setting<String>> {
    let setting = |value: &str, source: &str| Setting {
        value: value.to_owned(),
        source: source.to_owned(),
    };
    flag.map(|name| setting(name.trim(), "--profile"))
        .or_else(|| env.get(PROFILE).map(|name| setting(name, PROFILE)))
}

impl Logins {
    /// Reads the stored logins. An unreadable file is a note, or an error if a setting names a profile.
    pub(super) fn read(
        directory: Option<&PathBuf>,
        named: Option<Setting<String>>,
        notes: &mut Vec<String>,
    ) -> Result<Self, SettingsError> {
        let logins = match directory.map(|directory| LoginStore::new(directory).list()) {
            None => Vec::new(),
            Some(Ok(logins)) => logins,
            Some(Err(error)) if named.is_some() => return Err(SettingsError::Logins { error }),
            Some(Err(error)) => {
                notes.push(format!("stored logins are not used: {error}"));
                Vec::new()
            }
        };
        Ok(Self { logins, named })
    }

    /// The login to use at this upstream, if there is one.
    pub(super) fn for_upstream(
        &self,
        upstream: &Upstream,
    ) -> Result<Option<LoginSummary>, SettingsError> {
        let Ok(target) = LoginTarget::from_upstream(upstream) else {
            return match &self.named {
                None => Ok(None),
                Some(named) => Err(SettingsError::Profile {
                    name: named.source.clone(),
                    why:
                        "a stored login is for a Datadog site, or for an --api-url on this machine"
                            .to_owned(),
                }),
            };
        };
        let key = target.key();
        if let Some(named) = &self.named {
            let login = self.find(named)?;
            return if login.target == key {
                Ok(Some(login))
            } else {
                Err(SettingsError::Profile {
                    name: named.source.clone(),
                    why: format!(
                        "the login {} is for {}, not for {key}",
                        login.name, login.target
                    ),
                })
            };
        }
        let matching: Vec<&LoginSummary> = self
            .logins
            .iter()
            .filter(|login| login.target == key)
            .collect();
        let one = match matching.as_slice() {
            [] => return Ok(None),
            [one] => Some(*one),
            several => several
                .iter()
                .find(|login| login.current)
                .or_else(|| several.iter().find(|login| login.name == DEFAULT_PROFILE))
                .copied(),
        };
        one.cloned()
            .map(Some)
            .ok_or_else(|| SettingsError::Profile {
                name: key,
                why: format!(
                    "several stored logins match: {}; select one with --profile",
                    matching
                        .iter()
                        .map(|login| login.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })
    }

    /// The login that chooses the site if no setting does.
    pub(super) fn choose_site(&self) -> Result<Option<(LoginSummary, Upstream)>, SettingsError> {
        let login = match &self.named {
            Some(named) => Some(self.find(named)?),
            None => self.logins.iter().find(|login| login.current).cloned(),
        };
        let Some(login) = login else {
            return Ok(None);
        };
        match LoginTarget::from_key(&login.target).map(|target| target.upstream().clone()) {
            Some(upstream @ Upstream::Site(_)) => Ok(Some((login, upstream))),
            _ => match &self.named {
                None => Ok(None),
                Some(named) => Err(SettingsError::Profile {
                    name: named.source.clone(),
                    why: format!(
                        "the login {} is for {target}; add --api-url {target}",
                        login.name,
                        target = login.target
                    ),
                }),
            },
        }
    }

    fn find(&self, named: &Setting<String>) -> Result<LoginSummary, SettingsError> {
        self.logins
            .iter()
            .find(|login| login.name == named.value)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = self
                    .logins
                    .iter()
                    .map(|login| login.name.as_str())
                    .collect();
                let existing = if names.is_empty() {
                    "none is stored; sign in with `llmobs-mcp login`".to_owned()
                } else {
                    format!("stored are {}", names.join(", "))
                };
                SettingsError::Profile {
                    name: named.source.clone(),
                    why: format!("no stored login has that name; {existing}"),
                }
            })
    }
}
