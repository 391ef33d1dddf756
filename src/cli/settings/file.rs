//! The config file: TOML, every key optional, an unknown key an error.
//!
//! It may hold secrets, though a file named by `api_key_file` or a variable is the better place. It
//! may not say where credentials are sent beyond naming a site: that is a flag's to say.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::{Table, Value};

use crate::server::closest;

use super::{Environment, SettingsError, default_dir, path_in};

const KEYS: [&str; 27] = [
    "site",
    "toolsets",
    "omit_tools",
    "read_only",
    "data_dir",
    "retain_days",
    "retain_bytes",
    "datadog_limits",
    "ca_file",
    "log",
    "api_key",
    "api_key_file",
    "application_key",
    "application_key_file",
    "app_key",
    "app_key_file",
    "access_token",
    "access_token_file",
    "auth",
    "public_url",
    "no_client_metadata_documents",
    "datadog_sign_in",
    "datadog_client_id",
    "bearer",
    "bearer_file",
    "secret_key",
    "secret_key_file",
];

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) site: Option<String>,
    pub(crate) toolsets: Option<Vec<String>>,
    pub(crate) omit_tools: Option<Vec<String>>,
    pub(crate) read_only: Option<bool>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) retain_days: Option<String>,
    pub(crate) retain_bytes: Option<String>,
    pub(crate) datadog_limits: Option<bool>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) log: Option<String>,
    pub(crate) auth: Option<String>,
    pub(crate) public_url: Option<String>,
    pub(crate) no_client_metadata_documents: Option<bool>,
    pub(crate) datadog_sign_in: Option<bool>,
    pub(crate) datadog_client_id: Option<String>,
    /// Secrets by their key in the file.
    pub(crate) secrets: Vec<(&'static str, SecretString)>,
    /// Files of secrets by their key in the file.
    pub(crate) secret_files: Vec<(&'static str, PathBuf)>,
}

/// The file as it was found.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) found: bool,
    pub(crate) values: Values,
    pub(crate) notes: Vec<String>,
}

/// Reads the file that was named, or the default one if it is there.
pub(crate) fn load(named: Option<&Path>, env: &Environment) -> Result<Loaded, SettingsError> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| env.get("LLMOBS_MCP_CONFIG").map(PathBuf::from));
    let (path, must_exist) = match named {
        Some(path) => (path, true),
        None => match default_dir(|dirs| dirs.config_dir()) {
            Ok(folder) => (folder.join("config.toml"), false),
            Err(_) => (PathBuf::from("config.toml"), false),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(Loaded {
                path,
                found: false,
                values: Values::default(),
                notes: Vec::new(),
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
    let mut notes = Vec::new();
    if !values.secrets.is_empty() && others_can_read(&path) {
        notes.push(format!(
            "the config file {0} holds secrets and other users can read it: chmod 600 {0}",
            path.display()
        ));
    }
    Ok(Loaded {
        path,
        found: true,
        values,
        notes,
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
        let bad = |wants: &str| wrong(String::new(), format!("{key} must be {wants}"));
        let string = || {
            value
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| bad("a string"))
        };
        let yes_or_no = || value.as_bool().ok_or_else(|| bad("true or false"));
        let file = || string().map(|text| path_in(path, &text));
        let amount = || match value {
            Value::Integer(number) => Ok(number.to_string()),
            _ => string(),
        };
        match key.as_str() {
            "site" => values.site = Some(string()?),
            "log" => values.log = Some(string()?),
            "toolsets" => values.toolsets = Some(names(value).ok_or_else(|| bad(LIST))?),
            "omit_tools" => values.omit_tools = Some(names(value).ok_or_else(|| bad(LIST))?),
            "auth" => values.auth = Some(string()?),
            "public_url" => values.public_url = Some(string()?),
            "read_only" => values.read_only = Some(yes_or_no()?),
            "no_client_metadata_documents" => {
                values.no_client_metadata_documents = Some(yes_or_no()?);
            }
            "datadog_sign_in" => values.datadog_sign_in = Some(yes_or_no()?),
            "datadog_client_id" => values.datadog_client_id = Some(string()?),
            "data_dir" => values.data_dir = Some(file()?),
            "retain_days" => values.retain_days = Some(amount()?),
            "retain_bytes" => values.retain_bytes = Some(amount()?),
            "datadog_limits" => values.datadog_limits = Some(yes_or_no()?),
            "ca_file" => values.ca_file = Some(file()?),
            "api_url" => {
                return Err(wrong(
                    String::new(),
                    "api_url cannot stand here: where credentials go is said by the flag --api-url \
                     only"
                        .to_owned(),
                ));
            }
            _ => match KEYS.iter().find(|known| *known == key) {
                Some(known) if known.ends_with("_file") => {
                    values.secret_files.push((known, file()?));
                }
                Some(known) => {
                    let secret = string()?;
                    if !secret.trim().is_empty() {
                        values.secrets.push((known, secret.trim().into()));
                    }
                }
                None => {
                    let why = match closest(key, KEYS) {
                        Some(near) => format!("unknown key {key}; did you mean {near}?"),
                        None => format!("unknown key {key}; the keys are {}", KEYS.join(", ")),
                    };
                    return Err(wrong(String::new(), why));
                }
            },
        }
    }
    Ok(values)
}

const LIST: &str = "a list of strings, such as [\"llmobs\"]";

/// A list of names, or a comma list in one string.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(super::split(text)),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(|name| name.trim().to_ascii_lowercase()))
            .collect(),
        _ => None,
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
