//! The process's own credential: from variables, from mounted files, from the config file.
//!
//! Mounted secrets rotate, so a file is read again when it changed. If it cannot be read just then
//! (a mount being replaced), the last good value stays.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use crate::datadog::{Credential, CredentialError};
use crate::server::CredentialSource;

use super::file::Values;
use super::{Environment, SettingsError};

/// Where one secret comes from.
struct Secret {
    /// Its name for people.
    label: String,
    value: SecretString,
    file: Option<(PathBuf, Stamp)>,
}

/// What tells that a file changed.
type Stamp = Option<(SystemTime, u64)>;

/// The secrets of this process.
#[derive(Default)]
pub(crate) struct Secrets {
    api_key: Mutex<Option<Secret>>,
    app_key: Mutex<Option<Secret>>,
    token: Mutex<Option<Secret>>,
}

impl Secrets {
    /// Gathers the secrets. Names of one secret that are both set must agree.
    pub(crate) fn resolve(env: &Environment, file: &Values) -> Result<Self, SettingsError> {
        let role = |variables: &[&str], keys: &[&str]| -> Result<_, SettingsError> {
            let found = match from_variables(env, variables)? {
                Some(secret) => Some(secret),
                None => from_file(file, keys)?,
            };
            Ok(Mutex::new(found))
        };
        Ok(Self {
            api_key: role(&["DD_API_KEY"], &["api_key"])?,
            app_key: role(
                &["DD_APPLICATION_KEY", "DD_APP_KEY"],
                &["application_key", "app_key"],
            )?,
            token: role(&["DD_ACCESS_TOKEN"], &["access_token"])?,
        })
    }

    /// The credential that the secrets make now, or which half of a pair is missing.
    pub(crate) fn credential(&self) -> Result<Credential, CredentialError> {
        let parts = [&self.api_key, &self.app_key, &self.token].map(|secret| {
            let mut guard = secret
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            guard.as_mut().map(|secret| {
                secret.refresh();
                secret.value.clone()
            })
        });
        let [api_key, app_key, token] = parts
            .each_ref()
            .map(|part| part.as_ref().map(ExposeSecret::expose_secret));
        Credential::from_parts(api_key, app_key, token)
    }

    fn label(&self, secret: &Mutex<Option<Secret>>) -> Option<String> {
        let guard = secret
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.as_ref().map(|secret| secret.label.clone())
    }

    /// The names of everything that is set, used or not.
    pub(crate) fn labels(&self) -> Vec<String> {
        [&self.api_key, &self.app_key, &self.token]
            .into_iter()
            .filter_map(|secret| self.label(secret))
            .collect()
    }
}

impl CredentialSource for Secrets {
    fn current(&self) -> Credential {
        self.credential().unwrap_or_else(|error| {
            // Half a pair was told at the start; anything else is a mounted file gone wrong.
            if matches!(error, CredentialError::BadCharacters(_)) {
                tracing::warn!("no credential is sent: {error}");
            }
            Credential::None
        })
    }

    fn origin(&self) -> String {
        let used: Vec<String> = match self.current() {
            Credential::KeyPair { .. } => vec![&self.api_key, &self.app_key],
            Credential::AppToken(..) => vec![&self.app_key],
            Credential::Bearer(..) => vec![&self.token],
            Credential::None => vec![],
        }
        .into_iter()
        .filter_map(|secret| self.label(secret))
        .collect();
        if used.is_empty() {
            "none".to_owned()
        } else {
            used.join(" and ")
        }
    }
}

impl Secret {
    fn of_file(label: String, path: PathBuf) -> Result<Self, SettingsError> {
        let stamp = stamp(&path);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => Err(SettingsError::SecretFile {
                by: label,
                why: "it is empty".to_owned(),
            }),
            Ok(text) => Ok(Self {
                label,
                value: text.trim().into(),
                file: Some((path, stamp)),
            }),
            Err(error) => Err(SettingsError::SecretFile {
                by: label,
                why: error.to_string(),
            }),
        }
    }

    /// Reads a file again if it changed.
    fn refresh(&mut self) {
        let Some((path, seen)) = &mut self.file else {
            return;
        };
        let now = stamp(path);
        if now == *seen {
            return;
        }
        match std::fs::read_to_string(&*path) {
            Ok(text) if !text.trim().is_empty() => {
                self.value = text.trim().into();
                *seen = now;
            }
            _ => tracing::warn!(
                "the file of {} changed and cannot be read; the last good value stays",
                self.label
            ),
        }
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

fn from_variables(env: &Environment, names: &[&str]) -> Result<Option<Secret>, SettingsError> {
    let mut found = Vec::new();
    for name in names {
        if let Some(value) = env.get(name) {
            found.push(Secret {
                label: (*name).to_owned(),
                value: value.into(),
                file: None,
            });
        }
    }
    for name in names {
        let name = format!("{name}_FILE");
        if let Some(path) = env.get(&name) {
            found.push(Secret::of_file(name, PathBuf::from(path))?);
        }
    }
    the_one(found)
}

fn from_file(file: &Values, keys: &[&str]) -> Result<Option<Secret>, SettingsError> {
    let mut found = Vec::new();
    for key in keys {
        for (name, value) in &file.secrets {
            if name == key {
                found.push(Secret {
                    label: format!("{name} in the config file"),
                    value: value.clone(),
                    file: None,
                });
            }
        }
        let with_suffix = format!("{key}_file");
        for (name, path) in &file.secret_files {
            if *name == with_suffix {
                let label = format!("{name} in the config file");
                found.push(Secret::of_file(label, path.clone())?);
            }
        }
    }
    the_one(found)
}

/// The first of several sources, all of which must agree.
fn the_one(found: Vec<Secret>) -> Result<Option<Secret>, SettingsError> {
    let mut sources = found.into_iter();
    let Some(first) = sources.next() else {
        return Ok(None);
    };
    match sources.find(|other| other.value.expose_secret() != first.value.expose_secret()) {
        Some(other) => Err(SettingsError::Contradiction {
            one: first.label,
            other: other.label,
        }),
        None => Ok(Some(first)),
    }
}
