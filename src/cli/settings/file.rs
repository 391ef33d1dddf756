//! The config file: TOML, every key optional, an unknown key an error.
//!
//! It may hold secrets, though a file that `api_key_file` or a variable names is safer. It names a
//! site at most, never another destination of credentials: only a flag may do that.

use std::path::{Path, PathBuf};

use llmobs_core::analysis::candidates::closest;
use toml::Table;

use super::directories::default_dir;
use super::environment::CONFIG;
use super::environment::Environment;
use super::error::SettingsError;
use super::values::{Raw, SETTINGS, Values};

/// The config file, or its absence.
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) exists: bool,
    pub(crate) values: Values,
}

impl ConfigFile {
    /// The directory of the file, which its relative paths start at.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Reads the named file, or the default one if it exists.
pub(super) fn load(
    flag: Option<&Path>,
    env: &Environment,
    notes: &mut Vec<String>,
) -> Result<ConfigFile, SettingsError> {
    let named = flag
        .map(Path::to_owned)
        .or_else(|| env.get(CONFIG).map(PathBuf::from));
    let must_exist = named.is_some();
    let path = named.unwrap_or_else(|| {
        default_dir(|dirs| dirs.config_dir())
            .unwrap_or_default()
            .join("config.toml")
    });
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(ConfigFile {
                path,
                exists: false,
                values: Values::default(),
            });
        }
        Err(error) => {
            return Err(SettingsError::Unreadable {
                path: path.display().to_string(),
                why: error.to_string(),
            });
        }
    };
    let values = parse(&path, &text)?;
    if values.has_secrets() && others_can_read(&path) {
        notes.push(format!(
            "the config file {0} holds secrets and other users can read it; run: chmod 600 {0}",
            path.display()
        ));
    }
    Ok(ConfigFile {
        path,
        exists: true,
        values,
    })
}

fn parse(path: &Path, text: &str) -> Result<Values, SettingsError> {
    let wrong = |line: String, why: String| SettingsError::File {
        path: path.display().to_string(),
        line,
        why,
    };
    // The library's own error quotes the line, and the line may hold a secret.
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map(|before| format!(" in line {}", before.matches('\n').count() + 1))
            .unwrap_or_default();
        wrong(line, error.message().to_owned())
    })?;
    let mut values = Values::default();
    for (key, value) in &table {
        if !SETTINGS.iter().any(|(known, _)| known == key) {
            return Err(wrong(String::new(), unknown_key(key)));
        }
        values
            .set(key, Raw::Toml(value))
            .map_err(|why| wrong(String::new(), format!("{key} {why}")))?;
    }
    Ok(values)
}

fn unknown_key(key: &str) -> String {
    let keys = || SETTINGS.iter().map(|(key, _)| *key);
    if key == "api_url" {
        return "api_url is not allowed: only the flag --api-url may say where credentials are sent"
            .to_owned();
    }
    match closest(key, keys()) {
        Some(near) => format!("unknown key {key}; did you mean {near}?"),
        None => {
            let keys: Vec<&str> = keys().collect();
            format!("unknown key {key}; the keys are {}", keys.join(", "))
        }
    }
}

/// Whether users besides the owner can read a file.
#[cfg(unix)]
pub(super) fn others_can_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn others_can_read(_path: &Path) -> bool {
    false
}
