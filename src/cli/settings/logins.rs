//! Which stored login counts, if one does.
//!
//! A login of a site may choose that site. A login at a server of this machine counts only beside
//! the `--api-url` that names it: where credentials go is never said by a file.

use std::path::PathBuf;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{LoginStore, LoginSummary, LoginTarget};

use super::{Environment, Said, SettingsError, default_dir};

/// The name of a login that nobody named.
pub(crate) const DEFAULT_PROFILE: &str = "default";

/// The stored logins, and which one was asked for.
pub(crate) struct Logins {
    pub(crate) kept: Vec<LoginSummary>,
    pub(crate) named: Option<Said<String>>,
}

/// The folder of stored logins; `None` for a user without a home.
pub(super) fn state_dir(env: &Environment) -> Option<PathBuf> {
    env.get("LLMOBS_MCP_STATE_DIR")
        .map(PathBuf::from)
        .or_else(|| default_dir(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_dir())).ok())
}

/// The profile that a flag or the environment names.
pub(super) fn named_profile(flag: Option<&str>, env: &Environment) -> Option<Said<String>> {
    let said = |value: String, by: &str| Said {
        value,
        by: by.to_owned(),
    };
    flag.map(|name| said(name.trim().to_owned(), "--profile"))
        .or_else(|| {
            env.get("LLMOBS_MCP_PROFILE")
                .map(|name| said(name, "LLMOBS_MCP_PROFILE"))
        })
}

impl Logins {
    /// What is stored. A file that must not be read is a remark, unless a profile was asked for.
    pub(super) fn read(
        folder: Option<&PathBuf>,
        named: Option<Said<String>>,
        notes: &mut Vec<String>,
    ) -> Result<Self, SettingsError> {
        let kept = match folder.map(|folder| LoginStore::new(folder).list()) {
            None => Vec::new(),
            Some(Ok(kept)) => kept,
            Some(Err(error)) if named.is_some() => return Err(SettingsError::Logins { error }),
            Some(Err(error)) => {
                notes.push(format!("stored logins are not used: {error}"));
                Vec::new()
            }
        };
        Ok(Self { kept, named })
    }

    /// The login to use at this upstream, if it was named there.
    pub(super) fn at(&self, upstream: &Upstream) -> Result<Option<LoginSummary>, SettingsError> {
        let Ok(place) = LoginTarget::from_upstream(upstream) else {
            return match &self.named {
                None => Ok(None),
                Some(named) => Err(SettingsError::Profile {
                    by: named.by.clone(),
                    why:
                        "a stored login is for a Datadog site, or for an --api-url on this machine"
                            .to_owned(),
                }),
            };
        };
        let key = place.key();
        if let Some(named) = &self.named {
            let kept = self.find(named)?;
            return if kept.target == key {
                Ok(Some(kept))
            } else {
                Err(SettingsError::Profile {
                    by: named.by.clone(),
                    why: format!(
                        "the login {} is for {}, and this is {key}",
                        kept.name, kept.target
                    ),
                })
            };
        }
        let fitting: Vec<&LoginSummary> =
            self.kept.iter().filter(|kept| kept.target == key).collect();
        let one = match fitting.as_slice() {
            [] => return Ok(None),
            [one] => Some(*one),
            several => several
                .iter()
                .find(|kept| kept.current)
                .or_else(|| several.iter().find(|kept| kept.name == DEFAULT_PROFILE))
                .copied(),
        };
        one.cloned()
            .map(Some)
            .ok_or_else(|| SettingsError::Profile {
                by: key,
                why: format!(
                    "several stored logins are for it: {}; name one with --profile",
                    fitting
                        .iter()
                        .map(|kept| kept.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })
    }

    /// The login that chooses the site by itself, when nothing else did.
    pub(super) fn anywhere(&self) -> Result<Option<(LoginSummary, Upstream)>, SettingsError> {
        let kept = match &self.named {
            Some(named) => Some(self.find(named)?),
            None => self.kept.iter().find(|kept| kept.current).cloned(),
        };
        let Some(kept) = kept else {
            return Ok(None);
        };
        match LoginTarget::from_key(&kept.target).map(|place| place.upstream().clone()) {
            Some(upstream @ Upstream::Site(_)) => Ok(Some((kept, upstream))),
            _ => match &self.named {
                None => Ok(None),
                Some(named) => Err(SettingsError::Profile {
                    by: named.by.clone(),
                    why: format!(
                        "the login {} is for {place}; add --api-url {place}",
                        kept.name,
                        place = kept.target
                    ),
                }),
            },
        }
    }

    fn find(&self, named: &Said<String>) -> Result<LoginSummary, SettingsError> {
        self.kept
            .iter()
            .find(|kept| kept.name == named.value)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = self.kept.iter().map(|kept| kept.name.as_str()).collect();
                let there = if names.is_empty() {
                    "there are none; sign in with `llmobs-mcp login`".to_owned()
                } else {
                    format!("there are {}", names.join(", "))
                };
                SettingsError::Profile {
                    by: named.by.clone(),
                    why: format!("no stored login has that name; {there}"),
                }
            })
    }
}
