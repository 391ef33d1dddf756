//! The process's own credential: from variables, from mounted files, from the config file.
//!
//! Mounted secrets rotate, so a file is read again when it changed. If it cannot be read just then
//! (a mount being replaced), the last good value stays.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use crate::server::CredentialSource;
use datadog_llmobs::{Credential, CredentialError};

use super::file::{Values, others_can_read};
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
            Ok(Mutex::new(the_one(&said(env, variables, file, keys))?))
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

/// Where a secret was said to be, not read yet.
#[derive(Clone)]
pub(super) struct Source {
    /// Its name for people.
    pub(super) label: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here(SecretString),
    File(PathBuf),
}

impl Source {
    /// A file that somebody named.
    pub(super) fn file(label: impl Into<String>, path: PathBuf) -> Self {
        Self {
            label: label.into(),
            place: Place::File(path),
        }
    }

    fn read(&self) -> Result<Secret, SettingsError> {
        let path = match &self.place {
            Place::File(path) => path,
            Place::Here(value) => {
                return Ok(Secret {
                    label: self.label.clone(),
                    value: value.clone(),
                    file: None,
                });
            }
        };
        let unreadable = |why: String| SettingsError::SecretFile {
            by: self.label.clone(),
            why,
        };
        let stamp = stamp(path);
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        if text.trim().is_empty() {
            return Err(unreadable("it is empty".to_owned()));
        }
        Ok(Secret {
            label: self.label.clone(),
            value: text.trim().into(),
            file: Some((path.clone(), stamp)),
        })
    }
}

impl Secret {
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

/// Every place that a secret is said to be at: those of the environment, or else those of the file.
pub(super) fn said(
    env: &Environment,
    variables: &[&str],
    file: &Values,
    keys: &[&str],
) -> Vec<Source> {
    let found = in_variables(env, variables);
    if found.is_empty() {
        in_file(file, keys)
    } else {
        found
    }
}

fn in_variables(env: &Environment, names: &[&str]) -> Vec<Source> {
    let here = names.iter().filter_map(|name| {
        Some(Source {
            label: (*name).to_owned(),
            place: Place::Here(env.get(name)?.into()),
        })
    });
    let files = names.iter().filter_map(|name| {
        let name = format!("{name}_FILE");
        let path = env.get(&name)?;
        Some(Source::file(name, PathBuf::from(path)))
    });
    here.chain(files).collect()
}

fn in_file(file: &Values, keys: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for key in keys {
        for (name, value) in file.secrets.iter().filter(|(name, _)| name == key) {
            found.push(Source {
                label: format!("{name} in the config file"),
                place: Place::Here(value.clone()),
            });
        }
        for (name, path) in &file.secret_files {
            if name.strip_suffix("_file") == Some(*key) {
                found.push(Source::file(
                    format!("{name} in the config file"),
                    path.clone(),
                ));
            }
        }
    }
    found
}

/// What stands at the places of one secret, which must agree, and the name of the first.
pub(super) fn read(sources: &[Source]) -> Result<Option<(String, SecretString)>, SettingsError> {
    Ok(the_one(sources)?.map(|secret| (secret.label, secret.value)))
}

/// The names of those sources that are files which other users can read.
pub(super) fn open_to_others(sources: &[Source]) -> Vec<&str> {
    let open = |source: &&Source| match &source.place {
        Place::File(path) => others_can_read(path),
        Place::Here(_) => false,
    };
    let open = sources.iter().filter(open);
    open.map(|source| source.label.as_str()).collect()
}

/// The first of several sources, all of which must agree.
fn the_one(sources: &[Source]) -> Result<Option<Secret>, SettingsError> {
    let mut found = Vec::with_capacity(sources.len());
    for source in sources {
        found.push(source.read()?);
    }
    let mut found = found.into_iter();
    let Some(first) = found.next() else {
        return Ok(None);
    };
    match found.find(|other| other.value.expose_secret() != first.value.expose_secret()) {
        Some(other) => Err(SettingsError::Contradiction {
            one: first.label,
            other: other.label,
        }),
        None => Ok(Some(first)),
    }
}
