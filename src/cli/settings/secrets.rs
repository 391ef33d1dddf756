//! The process's own credential: from variables, from mounted files, from the config file.
//!
//! Mounted secrets rotate, so a file is read again when it changes. If it cannot be read at that
//! moment (a mount is being replaced), the last valid value stays in use.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use crate::server::CredentialSource;
use datadog_llmobs::{Credential, CredentialError};

use super::error::SettingsError;
use super::file::others_can_read;
use super::values::{
    ACCESS_TOKEN, API_KEY, APP_KEY, Layers, SecretLocation, SecretName, SecretSource, Setting,
};

/// A secret and its source.
struct Secret {
    /// The name of the source, for people.
    name: String,
    value: SecretString,
    file: Option<(PathBuf, Stamp)>,
}

/// Modification time and length: they differ after a change.
type Stamp = Option<(SystemTime, u64)>;

/// The secrets of this process.
#[derive(Default)]
pub(crate) struct Secrets {
    api_key: Mutex<Option<Secret>>,
    app_key: Mutex<Option<Secret>>,
    token: Mutex<Option<Secret>>,
}

impl Secrets {
    /// Reads the secrets. The sources of one secret must agree.
    pub(super) fn resolve(layers: &Layers<'_>) -> Result<Self, SettingsError> {
        let read = |names: &[SecretName]| -> Result<_, SettingsError> {
            Ok(Mutex::new(read_agreed(&layers.secret_sources(names))?))
        };
        Ok(Self {
            api_key: read(&API_KEY)?,
            app_key: read(&APP_KEY)?,
            token: read(&ACCESS_TOKEN)?,
        })
    }

    /// The current credential, or which half of a key pair is missing.
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

    fn name_of(secret: &Mutex<Option<Secret>>) -> Option<String> {
        let guard = secret
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.as_ref().map(|secret| secret.name.clone())
    }

    /// The names of all secrets that are set, used or not.
    pub(crate) fn names(&self) -> Vec<String> {
        [&self.api_key, &self.app_key, &self.token]
            .into_iter()
            .filter_map(Self::name_of)
            .collect()
    }
}

impl CredentialSource for Secrets {
    fn current(&self) -> Credential {
        self.credential().unwrap_or_else(|error| {
            // The start already reported half a pair; anything else is a damaged mounted file.
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
        .filter_map(Self::name_of)
        .collect();
        if used.is_empty() {
            "none".to_owned()
        } else {
            used.join(" and ")
        }
    }
}

impl SecretSource {
    fn read(&self) -> Result<Secret, SettingsError> {
        let path = match &self.location {
            SecretLocation::File(path) => path,
            SecretLocation::Inline(value) => {
                return Ok(Secret {
                    name: self.name.clone(),
                    value: value.clone(),
                    file: None,
                });
            }
        };
        let unreadable = |why: String| SettingsError::SecretFile {
            name: self.name.clone(),
            why,
        };
        let stamp = stamp(path);
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        if text.trim().is_empty() {
            return Err(unreadable("it is empty".to_owned()));
        }
        Ok(Secret {
            name: self.name.clone(),
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
                "the file in {} changed and cannot be read; the last valid value stays in use",
                self.name
            ),
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The secret that the sources agree on, with the name of the first source.
pub(super) fn read(
    sources: &[SecretSource],
) -> Result<Option<Setting<SecretString>>, SettingsError> {
    Ok(read_agreed(sources)?.map(|secret| Setting {
        value: secret.value,
        source: secret.name,
    }))
}

/// The names of the sources that are files which other users can read.
pub(super) fn open_to_others(sources: &[SecretSource]) -> Vec<&str> {
    sources
        .iter()
        .filter(|source| match &source.location {
            SecretLocation::File(path) => others_can_read(path),
            SecretLocation::Inline(_) => false,
        })
        .map(|source| source.name.as_str())
        .collect()
}

/// Reads all sources and returns the first. They must agree.
fn read_agreed(sources: &[SecretSource]) -> Result<Option<Secret>, SettingsError> {
    let mut secrets = Vec::with_capacity(sources.len());
    for source in sources {
        secrets.push(source.read()?);
    }
    let mut secrets = secrets.into_iter();
    let Some(first) = secrets.next() else {
        return Ok(None);
    };
    match secrets.find(|other| other.value.expose_secret() != first.value.expose_secret()) {
        Some(other) => Err(SettingsError::Contradiction {
            one: first.name,
            other: other.name,
        }),
        None => Ok(Some(first)),
    }
}
