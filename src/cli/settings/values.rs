//! The table of settings: each key once, with its type and its environment variable.
//!
//! The flags, the environment and the config file each fill one [`Values`]. [`Layers`] reads them in
//! order of precedence and names the source of each value.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::cli::quantity::{bytes, days};

/// The value of a setting and its source: a flag, a variable, a key of the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) source: String,
}

/// Declares the settings: doc comment, key in the config file, type, environment variable.
macro_rules! settings {
    ($($(#[$doc:meta])* $key:ident: $type:ty = $variable:literal;)*) => {
        /// The settings of one source. A key that the source does not set is `None`.
        #[derive(Default)]
        pub(crate) struct Values {
            $($(#[$doc])* pub(crate) $key: Option<$type>,)*
        }

        /// Each key of the config file with its environment variable.
        pub(super) const SETTINGS: &[(&str, &str)] = &[$((stringify!($key), $variable)),*];

        impl Values {
            /// Sets a key of [`SETTINGS`].
            ///
            /// # Errors
            /// The value does not fit; the message says what the key must be.
            pub(super) fn set(&mut self, key: &str, raw: Raw<'_>) -> Result<(), String> {
                match key {
                    $(stringify!($key) => self.$key = Some(<$type>::read(raw)?),)*
                    _ => return Err("not a setting".to_owned()),
                }
                Ok(())
            }
        }
    };
}

settings! {
    /// A Datadog site, or `local`.
    site: String = "DD_SITE";
    toolsets: Names = "LLMOBS_MCP_TOOLSETS";
    omit_tools: Names = "LLMOBS_MCP_OMIT_TOOLS";
    read_only: bool = "LLMOBS_MCP_READ_ONLY";
    data_dir: PathBuf = "LLMOBS_MCP_DATA_DIR";
    retain_days: Days = "LLMOBS_MCP_RETAIN_DAYS";
    retain_bytes: Bytes = "LLMOBS_MCP_RETAIN_BYTES";
    datadog_limits: bool = "LLMOBS_MCP_DATADOG_LIMITS";
    ca_file: PathBuf = "LLMOBS_MCP_CA_FILE";
    log: String = "LLMOBS_MCP_LOG";
    api_key: SecretString = "DD_API_KEY";
    api_key_file: PathBuf = "DD_API_KEY_FILE";
    application_key: SecretString = "DD_APPLICATION_KEY";
    application_key_file: PathBuf = "DD_APPLICATION_KEY_FILE";
    app_key: SecretString = "DD_APP_KEY";
    app_key_file: PathBuf = "DD_APP_KEY_FILE";
    access_token: SecretString = "DD_ACCESS_TOKEN";
    access_token_file: PathBuf = "DD_ACCESS_TOKEN_FILE";
    auth: String = "LLMOBS_MCP_AUTH";
    public_url: String = "LLMOBS_MCP_PUBLIC_URL";
    no_client_metadata_documents: bool = "LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS";
    datadog_sign_in: bool = "LLMOBS_MCP_DATADOG_SIGN_IN";
    datadog_client_id: String = "LLMOBS_MCP_DATADOG_CLIENT_ID";
    /// The secret of mode `static-bearer`.
    bearer: SecretString = "LLMOBS_MCP_BEARER";
    bearer_file: PathBuf = "LLMOBS_MCP_BEARER_FILE";
    /// The key of mode `oauth`.
    secret_key: SecretString = "LLMOBS_MCP_SECRET_KEY";
    secret_key_file: PathBuf = "LLMOBS_MCP_SECRET_KEY_FILE";
}

/// A value before its type is known.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// From a variable.
    Text(&'a str),
    /// From the config file.
    Toml(&'a toml::Value),
}

impl<'a> Raw<'a> {
    fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }
}

/// A type that a setting can have.
trait ReadSetting: Sized {
    /// Reads a value. The error never quotes it, because it may be a secret.
    fn read(raw: Raw<'_>) -> Result<Self, String>;
}

impl ReadSetting for String {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        raw.as_str()
            .map(str::to_owned)
            .ok_or_else(|| "must be a string".to_owned())
    }
}

impl ReadSetting for PathBuf {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        String::read(raw).map(Self::from)
    }
}

impl ReadSetting for SecretString {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        String::read(raw).map(|text| text.trim().into())
    }
}

impl ReadSetting for bool {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let value = match raw {
            Raw::Toml(value) => value.as_bool(),
            Raw::Text(text) => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => Some(true),
                "0" | "false" | "no" | "off" => Some(false),
                _ => None,
            },
        };
        value.ok_or_else(|| "must be true or false".to_owned())
    }
}

/// Names in lower case: a list, or a string with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl Names {
    /// Splits a list with commas.
    pub(crate) fn split(text: &str) -> Self {
        let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
        Self(names.filter(|name| !name.is_empty()).collect())
    }
}

impl ReadSetting for Names {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        let wrong = || "must be a list of strings, such as [\"llmobs\"]".to_owned();
        if let Raw::Toml(toml::Value::Array(items)) = raw {
            let names = items
                .iter()
                .map(|item| Some(item.as_str()?.trim().to_ascii_lowercase()));
            return names.collect::<Option<_>>().map(Self).ok_or_else(wrong);
        }
        raw.as_str().map(Self::split).ok_or_else(wrong)
    }
}

/// A retention by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(pub(crate) Duration);

impl ReadSetting for Days {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        quantity(raw, days).map(Self)
    }
}

/// A retention by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl ReadSetting for Bytes {
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        quantity(raw, bytes).map(Self)
    }
}

/// Reads a quantity from a string or a TOML integer.
fn quantity<T>(raw: Raw<'_>, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    match raw {
        Raw::Toml(toml::Value::Integer(number)) => parse(&number.to_string()),
        _ => parse(&String::read(raw)?),
    }
}

/// The origin of a layer of settings.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    Flags,
    Environment,
    /// The config file; its relative paths are relative to this directory.
    File(&'a Path),
}

impl Origin<'_> {
    /// The name of a key in this source, for people.
    fn name(self, key: &str) -> String {
        match self {
            Self::Flags => format!("--{}", key.replace('_', "-")),
            Self::Environment => SETTINGS
                .iter()
                .find(|(known, _)| *known == key)
                .map_or(key, |(_, variable)| variable)
                .to_owned(),
            Self::File(_) => format!("{key} in the config file"),
        }
    }

    /// Resolves a path: in the config file, `~` is the home directory and a relative path starts at
    /// the file.
    fn resolve(self, path: &Path) -> PathBuf {
        let Self::File(base) = self else {
            return path.to_owned();
        };
        if let Ok(rest) = path.strip_prefix("~")
            && let Ok(home) = etcetera::home_dir()
        {
            return home.join(rest);
        }
        base.join(path)
    }
}

/// The three sources in order of precedence: flags, environment, config file.
pub(super) struct Layers<'a>([(Origin<'a>, &'a Values); 3]);

/// Reads the setting of a key from the first layer that has it.
macro_rules! pick {
    ($layers:expr, $key:ident) => {
        $layers.first(stringify!($key), |values| values.$key.clone())
    };
}
pub(super) use pick;

/// The source of a switch if any layer turns it on. No layer turns it off again.
macro_rules! pick_switch {
    ($layers:expr, $key:ident) => {
        $layers.first(stringify!($key), |values| values.$key.filter(|on| *on))
    };
}
pub(super) use pick_switch;

impl<'a> Layers<'a> {
    /// Stacks the sources. `file_dir` is the directory of the config file.
    pub(super) fn new(
        flags: &'a Values,
        environment: &'a Values,
        file: &'a Values,
        file_dir: &'a Path,
    ) -> Self {
        Self([
            (Origin::Flags, flags),
            (Origin::Environment, environment),
            (Origin::File(file_dir), file),
        ])
    }

    /// The setting of a key from the first layer that has it. [`pick!`] is the short form.
    pub(super) fn first<T>(
        &self,
        key: &str,
        read: impl Fn(&Values) -> Option<T>,
    ) -> Option<Setting<T>> {
        self.0.iter().find_map(|(origin, values)| {
            Some(Setting {
                value: read(values)?,
                source: origin.name(key),
            })
        })
    }

    /// The path of a key from the first layer that has it.
    pub(super) fn path(&self, read: impl Fn(&Values) -> Option<&PathBuf>) -> Option<PathBuf> {
        self.0
            .iter()
            .find_map(|(origin, values)| Some(origin.resolve(read(values)?)))
    }

    /// The sources of a secret: those of the first layer that has any.
    pub(super) fn secret_sources(&self, names: &[SecretName]) -> Vec<SecretSource> {
        self.0
            .iter()
            .map(|(origin, values)| sources_in(*origin, values, names))
            .find(|sources| !sources.is_empty())
            .unwrap_or_default()
    }
}

fn sources_in(origin: Origin<'_>, values: &Values, names: &[SecretName]) -> Vec<SecretSource> {
    let inline = names.iter().filter_map(|name| {
        Some(SecretSource {
            name: origin.name(name.key),
            location: SecretLocation::Inline(name.inline(values)?.clone()),
        })
    });
    let files = names.iter().filter_map(|name| {
        Some(SecretSource {
            name: origin.name(name.file_key),
            location: SecretLocation::File(origin.resolve((name.file)(values)?)),
        })
    });
    inline.chain(files).collect()
}

/// The keys of one secret: the secret itself, and a file that holds it.
pub(super) struct SecretName {
    key: &'static str,
    value: fn(&Values) -> Option<&SecretString>,
    file_key: &'static str,
    file: fn(&Values) -> Option<&PathBuf>,
}

impl SecretName {
    /// The secret itself; an empty one counts as absent.
    fn inline<'a>(&self, values: &'a Values) -> Option<&'a SecretString> {
        use secrecy::ExposeSecret as _;
        (self.value)(values).filter(|secret| !secret.expose_secret().is_empty())
    }
}

/// The keys of one secret.
macro_rules! secret_name {
    ($key:ident, $file:ident) => {
        SecretName {
            key: stringify!($key),
            value: |values| values.$key.as_ref(),
            file_key: stringify!($file),
            file: |values| values.$file.as_ref(),
        }
    };
}

pub(super) const API_KEY: [SecretName; 1] = [secret_name!(api_key, api_key_file)];
pub(super) const APP_KEY: [SecretName; 2] = [
    secret_name!(application_key, application_key_file),
    secret_name!(app_key, app_key_file),
];
pub(super) const ACCESS_TOKEN: [SecretName; 1] = [secret_name!(access_token, access_token_file)];
pub(super) const BEARER: [SecretName; 1] = [secret_name!(bearer, bearer_file)];
pub(super) const SECRET_KEY: [SecretName; 1] = [secret_name!(secret_key, secret_key_file)];

impl Values {
    /// Whether the source holds a secret itself, not only the file of one.
    pub(super) fn has_secrets(&self) -> bool {
        API_KEY
            .iter()
            .chain(&APP_KEY)
            .chain(&ACCESS_TOKEN)
            .chain(&BEARER)
            .chain(&SECRET_KEY)
            .any(|name| name.inline(self).is_some())
    }
}

/// The source of a secret, before it is read.
#[derive(Clone)]
pub(super) struct SecretSource {
    /// The name for people.
    pub(super) name: String,
    pub(super) location: SecretLocation,
}

/// Where a secret is.
#[derive(Clone)]
pub(super) enum SecretLocation {
    /// In the setting itself.
    Inline(SecretString),
    /// In a file that the setting names.
    File(PathBuf),
}
