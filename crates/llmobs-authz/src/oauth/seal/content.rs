//! The contents of sealed blobs, as JSON.

use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

use thiserror::Error;

use datadog_llmobs::Credential;
use datadog_llmobs::login::{Login, LoginTarget};

/// The credential of a grant.
pub(in crate::oauth) enum StoredCredential {
    /// A credential that the user entered.
    Entered(Credential),
    /// A login at Datadog, which the server renews.
    Login(Box<Login>),
}

impl StoredCredential {
    /// The kind of credential, for logs.
    pub(in crate::oauth) fn kind(&self) -> &'static str {
        match self {
            Self::Entered(credential) => credential.kind(),
            Self::Login(_) => "sign-in at Datadog",
        }
    }
}

/// The secrets of a sign-in at Datadog that has not finished.
pub(in crate::oauth) struct SignInSecrets {
    /// The PKCE verifier.
    pub(in crate::oauth) verifier: SecretString,
    /// The id of the consent page where it started.
    pub(in crate::oauth) page: SecretString,
}

type JsonText<'a> = Cow<'a, str>;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum SerializedCredential<'a> {
    KeyPair {
        #[serde(borrow)]
        api_key: JsonText<'a>,
        app_key: JsonText<'a>,
    },
    Bearer {
        token: JsonText<'a>,
    },
    AppToken {
        token: JsonText<'a>,
    },
    Login {
        place: JsonText<'a>,
        client_id: JsonText<'a>,
        access: JsonText<'a>,
        refresh: Option<JsonText<'a>>,
        issued_at_ms: i64,
        expires_at_ms: i64,
        scope: JsonText<'a>,
    },
}

#[derive(Serialize, Deserialize)]
struct SerializedSecrets<'a> {
    #[serde(borrow)]
    verifier: JsonText<'a>,
    page: JsonText<'a>,
}

impl StoredCredential {
    pub(super) fn encode(&self) -> Result<SecretSlice<u8>, SealError> {
        let plain = match self {
            Self::Entered(Credential::KeyPair { api_key, app_key }) => {
                SerializedCredential::KeyPair {
                    api_key: borrow_secret(api_key),
                    app_key: borrow_secret(app_key),
                }
            }
            Self::Entered(Credential::Bearer(token)) => SerializedCredential::Bearer {
                token: borrow_secret(token),
            },
            Self::Entered(Credential::AppToken(token)) => SerializedCredential::AppToken {
                token: borrow_secret(token),
            },
            Self::Entered(Credential::None) => return Err(SealError),
            Self::Login(login) => SerializedCredential::Login {
                place: login.target.key().into(),
                client_id: Cow::Borrowed(&login.client_id),
                access: borrow_secret(&login.access_token),
                refresh: login.refresh_token.as_ref().map(borrow_secret),
                issued_at_ms: login.issued_at_ms,
                expires_at_ms: login.expires_at_ms,
                scope: Cow::Borrowed(&login.scope),
            },
        };
        serialize(&plain)
    }

    pub(super) fn decode(plain: &SecretSlice<u8>) -> Result<Self, SealError> {
        let plain = serde_json::from_slice(plain.expose_secret()).map_err(|_| SealError)?;
        Ok(match plain {
            SerializedCredential::KeyPair { api_key, app_key } => {
                Self::Entered(Credential::KeyPair {
                    api_key: into_secret(api_key),
                    app_key: into_secret(app_key),
                })
            }
            SerializedCredential::Bearer { token } => {
                Self::Entered(Credential::Bearer(into_secret(token)))
            }
            SerializedCredential::AppToken { token } => {
                Self::Entered(Credential::AppToken(into_secret(token)))
            }
            SerializedCredential::Login {
                place,
                client_id,
                access,
                refresh,
                issued_at_ms,
                expires_at_ms,
                scope,
            } => Self::Login(Box::new(Login {
                target: LoginTarget::from_key(&place).ok_or(SealError)?,
                client_id: client_id.into_owned(),
                access_token: into_secret(access),
                refresh_token: refresh.map(into_secret),
                issued_at_ms,
                expires_at_ms,
                scope: scope.into_owned(),
                // Not used by this server.
                org_id: None,
                org_name: None,
            })),
        })
    }
}

impl SignInSecrets {
    pub(super) fn encode(&self) -> Result<SecretSlice<u8>, SealError> {
        serialize(&SerializedSecrets {
            verifier: borrow_secret(&self.verifier),
            page: borrow_secret(&self.page),
        })
    }

    pub(super) fn decode(plain: &SecretSlice<u8>) -> Result<Self, SealError> {
        let plain: SerializedSecrets<'_> =
            serde_json::from_slice(plain.expose_secret()).map_err(|_| SealError)?;
        Ok(Self {
            verifier: into_secret(plain.verifier),
            page: into_secret(plain.page),
        })
    }
}

fn borrow_secret(secret: &SecretString) -> JsonText<'_> {
    Cow::Borrowed(secret.expose_secret())
}

fn into_secret(text: JsonText<'_>) -> SecretString {
    text.into_owned().into()
}

fn serialize(plain: &impl Serialize) -> Result<SecretSlice<u8>, SealError> {
    serde_json::to_vec(plain)
        .map(SecretSlice::from)
        .map_err(|_| SealError)
}

/// A credential that could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a stored credential cannot be opened with this server's secret key")]
pub(in crate::oauth) struct SealError;
