//! Settings of callers over HTTP. Only `serve --http` checks them, so that they cannot stop another
//! command.

use secrecy::SecretString;

use llmobs_authz::{AuthMode, PublicUrl};

use super::error::SettingsError;
use super::secrets::{open_to_others, read};
use super::values::{BEARER, Layers, SECRET_KEY, SecretSource, Setting, pick, pick_switch};

/// The longest client id at Datadog, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 200;

/// Settings of callers over HTTP.
#[derive(Default)]
pub(crate) struct CallerSettings {
    auth: Option<Setting<String>>,
    public_url: Option<Setting<String>>,
    /// Whether a client id may be the URL of a metadata document.
    pub(crate) metadata_documents: bool,
    /// The setting that lets users sign in at Datadog, if one does.
    pub(crate) datadog_sign_in: Option<String>,
    datadog_client_id: Option<Setting<String>>,
    bearer: Vec<SecretSource>,
    secret_key: Vec<SecretSource>,
}

impl CallerSettings {
    pub(super) fn resolve(layers: &Layers<'_>) -> Self {
        Self {
            auth: pick!(layers, auth),
            public_url: pick!(layers, public_url),
            metadata_documents: pick_switch!(layers, no_client_metadata_documents).is_none(),
            datadog_sign_in: pick_switch!(layers, datadog_sign_in).map(|setting| setting.source),
            datadog_client_id: pick!(layers, datadog_client_id),
            bearer: layers.secret_sources(&BEARER),
            secret_key: layers.secret_sources(&SECRET_KEY),
        }
    }

    /// Checks that the settings of the Datadog sign-in match the mode.
    ///
    /// # Errors
    /// They do not match.
    pub(crate) fn check_sign_in(&self, mode: &Setting<AuthMode>) -> Result<(), SettingsError> {
        match (&self.datadog_sign_in, &self.datadog_client_id) {
            (Some(source), _) if mode.value != AuthMode::OAuth => Err(SettingsError::Value {
                name: source.clone(),
                why: format!(
                    "users sign in at Datadog in mode oauth only, and the mode is {} ({}): use --auth \
                     oauth, or remove this setting",
                    mode.value, mode.source
                ),
            }),
            (None, Some(id)) => Err(SettingsError::Value {
                name: id.source.clone(),
                why: "the client id is for the Datadog sign-in, which is off: add --datadog-sign-in, or \
                      remove this setting"
                    .to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The client id of this server at Datadog, if a setting names one.
    ///
    /// # Errors
    /// It is not a client id.
    pub(crate) fn datadog_client_id(&self) -> Result<Option<String>, SettingsError> {
        let Some(id) = &self.datadog_client_id else {
            return Ok(None);
        };
        let value = id.value.trim();
        let valid = (1..=MAX_CLIENT_ID_BYTES).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_graphic());
        if valid {
            return Ok(Some(value.to_owned()));
        }
        Err(SettingsError::Value {
            name: id.source.clone(),
            why: "a client id is 1 to 200 visible ASCII characters, such as \
                  8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1"
                .to_owned(),
        })
    }

    /// The mode that a setting names.
    ///
    /// # Errors
    /// It is not a mode.
    pub(crate) fn mode(&self) -> Result<Option<Setting<AuthMode>>, SettingsError> {
        parse(self.auth.as_ref(), |text| {
            text.parse().map_err(|error| format!("{error}"))
        })
    }

    /// The public URL that a setting names.
    ///
    /// # Errors
    /// It is not a URL that callers can use.
    pub(crate) fn public_url(&self) -> Result<Option<Setting<PublicUrl>>, SettingsError> {
        parse(self.public_url.as_ref(), |text| {
            PublicUrl::parse(text).map_err(|error| error.to_string())
        })
    }

    /// The secret of mode static-bearer.
    ///
    /// # Errors
    /// Two sources differ, or a file cannot be read.
    pub(crate) fn bearer(&self) -> Result<Option<Setting<SecretString>>, SettingsError> {
        read_secret(&self.bearer)
    }

    /// The key of mode oauth, not yet parsed.
    ///
    /// # Errors
    /// Two sources differ, or a file cannot be read.
    pub(crate) fn secret_key(&self) -> Result<Option<Setting<SecretString>>, SettingsError> {
        read_secret(&self.secret_key)
    }
}

fn parse<T>(
    setting: Option<&Setting<String>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Setting<T>>, SettingsError> {
    let Some(Setting { value, source }) = setting else {
        return Ok(None);
    };
    match parse(value) {
        Ok(value) => Ok(Some(Setting {
            value,
            source: source.clone(),
        })),
        Err(why) => Err(SettingsError::Value {
            name: source.clone(),
            why,
        }),
    }
}

fn read_secret(sources: &[SecretSource]) -> Result<Option<Setting<SecretString>>, SettingsError> {
    let secret = read(sources)?;
    for name in open_to_others(sources) {
        tracing::warn!("{name} names a file that other users can read; run chmod 600 on it");
    }
    Ok(secret)
}
