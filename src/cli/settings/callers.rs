//! What the settings say about callers over HTTP. Only `serve --http` looks at it, so nothing is
//! judged or read here that another command could stumble over.

use secrecy::SecretString;

use llmobs_authz::{Mode, PublicUrl};

use super::super::args::ServeArgs;
use super::file::Values;
use super::secrets::{Source, open_to_others, read, said};
use super::{Environment, Said, SettingsError};

const SIGN_IN: &str = "LLMOBS_MCP_DATADOG_SIGN_IN";

/// Settings of the HTTP front, with the flags of `serve` over environment over file.
#[derive(Default)]
pub(crate) struct Callers {
    auth: Option<Said<String>>,
    public_url: Option<Said<String>>,
    /// Whether URLs are taken for client ids.
    pub(crate) metadata_documents: bool,
    /// Who lets users sign in at Datadog, if anybody does.
    pub(crate) datadog_sign_in: Option<String>,
    datadog_client_id: Option<Said<String>>,
    bearer: Vec<Source>,
    secret_key: Vec<Source>,
}

impl Callers {
    /// What environment and file say.
    pub(super) fn resolve(env: &Environment, file: &Values, notes: &mut Vec<String>) -> Self {
        let said_by = |variable: &str, key: &str, value: &Option<String>| {
            let of = |value: String, by: String| Said { value, by };
            env.get(variable)
                .map(|value| of(value, variable.to_owned()))
                .or_else(|| {
                    let value = value.clone()?;
                    Some(of(value, format!("{key} in the config file")))
                })
        };
        let off = file.no_client_metadata_documents.unwrap_or_default()
            || env.is_set("LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS", notes);
        let datadog_sign_in = if env.is_set(SIGN_IN, notes) {
            Some(SIGN_IN.to_owned())
        } else {
            file.datadog_sign_in
                .unwrap_or_default()
                .then(|| "datadog_sign_in in the config file".to_owned())
        };
        Self {
            datadog_sign_in,
            datadog_client_id: said_by(
                "LLMOBS_MCP_DATADOG_CLIENT_ID",
                "datadog_client_id",
                &file.datadog_client_id,
            ),
            auth: said_by("LLMOBS_MCP_AUTH", "auth", &file.auth),
            public_url: said_by("LLMOBS_MCP_PUBLIC_URL", "public_url", &file.public_url),
            metadata_documents: !off,
            bearer: said(env, &["LLMOBS_MCP_BEARER"], file, &["bearer"]),
            secret_key: said(env, &["LLMOBS_MCP_SECRET_KEY"], file, &["secret_key"]),
        }
    }

    /// The same with the flags over it.
    pub(crate) fn with_flags(mut self, flags: &ServeArgs) -> Self {
        let by_flag = |value: &str, by: &str| Said {
            value: value.to_owned(),
            by: by.to_owned(),
        };
        if let Some(mode) = flags.auth {
            self.auth = Some(by_flag(mode.name(), "--auth"));
        }
        if let Some(url) = &flags.public_url {
            self.public_url = Some(by_flag(url, "--public-url"));
        }
        if let Some(path) = &flags.secret_key_file {
            self.secret_key = vec![Source::file("--secret-key-file", path.clone())];
        }
        self.metadata_documents &= !flags.no_client_metadata_documents;
        if flags.datadog_sign_in {
            self.datadog_sign_in = Some("--datadog-sign-in".to_owned());
        }
        if let Some(id) = &flags.datadog_client_id {
            self.datadog_client_id = Some(by_flag(id, "--datadog-client-id"));
        }
        self
    }

    /// Whether what was said of sign-ins at Datadog goes together with the mode.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check_sign_in(&self, mode: &Said<Mode>) -> Result<(), SettingsError> {
        let wrong = |name: &str, why: String| SettingsError::Value {
            name: name.to_owned(),
            why,
        };
        match (&self.datadog_sign_in, &self.datadog_client_id) {
            (Some(by), _) if mode.value != Mode::OAuth => Err(wrong(
                by,
                format!(
                    "users sign in at Datadog in mode oauth only, and the mode is {} ({}): use --auth \
                     oauth, or leave it out",
                    mode.value, mode.by
                ),
            )),
            (None, Some(id)) => Err(wrong(
                &id.by,
                "it is for sign-ins at Datadog, which are off: add --datadog-sign-in, or leave it out"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The client id that Datadog knows this server by, if one was named.
    ///
    /// # Errors
    /// It cannot be one.
    pub(crate) fn datadog_client_id(&self) -> Result<Option<String>, SettingsError> {
        let Some(id) = &self.datadog_client_id else {
            return Ok(None);
        };
        let value = id.value.trim();
        if value.is_empty() || value.len() > 200 || !value.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SettingsError::Value {
                name: id.by.clone(),
                why: "a client id is up to 200 letters, digits and signs, such as \
                      8e5f6cda-45ad-4d2b-9b6c-6f4a50a1b7a1"
                    .to_owned(),
            });
        }
        Ok(Some(value.to_owned()))
    }

    /// The mode that was named, and by whom.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn mode(&self) -> Result<Option<Said<Mode>>, SettingsError> {
        let Some(auth) = &self.auth else {
            return Ok(None);
        };
        let value = auth.value.parse().map_err(|error| SettingsError::Value {
            name: auth.by.clone(),
            why: format!("{error}"),
        })?;
        Ok(Some(Said {
            value,
            by: auth.by.clone(),
        }))
    }

    /// The public URL that was named, and by whom.
    ///
    /// # Errors
    /// It is not one that callers may be sent to.
    pub(crate) fn public_url(&self) -> Result<Option<Said<PublicUrl>>, SettingsError> {
        let Some(url) = &self.public_url else {
            return Ok(None);
        };
        let value = PublicUrl::parse(&url.value).map_err(|error| SettingsError::Value {
            name: url.by.clone(),
            why: error.to_string(),
        })?;
        Ok(Some(Said {
            value,
            by: url.by.clone(),
        }))
    }

    /// The secret of mode static-bearer, and where it was found.
    ///
    /// # Errors
    /// Two places disagree, or a file cannot be read.
    pub(crate) fn bearer(&self) -> Result<Option<Said<SecretString>>, SettingsError> {
        secret(&self.bearer)
    }

    /// The key of mode oauth as it was written, and where it was found.
    ///
    /// # Errors
    /// Two places disagree, or a file cannot be read.
    pub(crate) fn secret_key(&self) -> Result<Option<Said<SecretString>>, SettingsError> {
        secret(&self.secret_key)
    }
}

fn secret(sources: &[Source]) -> Result<Option<Said<SecretString>>, SettingsError> {
    let found = read(sources)?;
    for name in open_to_others(sources) {
        tracing::warn!("{name} names a file that other users can read; close it with chmod 600");
    }
    Ok(found.map(|(by, value)| Said { value, by }))
}
