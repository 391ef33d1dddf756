//! The source of the process's own credential: fixed, read from files, or a stored login.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use datadog_llmobs::login::StoredLogin;
use datadog_llmobs::{Credential, RenewCredential};

/// A source of the process's own credential. Each call reads it, so that a changed secret file takes
/// effect.
pub trait CredentialSource: Send + Sync {
    /// The current credential.
    fn current(&self) -> Credential;
    /// The name of the source, for people. Never the value.
    fn origin(&self) -> String;

    /// The credential for a call that starts now. A source that can renew it does so if needed.
    fn ready(&self) -> BoxFuture<'_, Result<Credential, CredentialUnavailable>> {
        std::future::ready(Ok(self.current())).boxed()
    }

    /// The renewal to use if the upstream refuses the credential.
    fn renewal(&self) -> Option<Arc<dyn RenewCredential>> {
        None
    }
}

/// The reason why a source has no usable credential now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialUnavailable {
    /// What is wrong.
    pub error: String,
    /// How to fix it.
    pub hint: String,
}

impl CredentialSource for StoredLogin {
    fn current(&self) -> Credential {
        StoredLogin::current(self)
    }

    fn origin(&self) -> String {
        format!("the stored login of profile {}", self.state().name)
    }

    fn ready(&self) -> BoxFuture<'_, Result<Credential, CredentialUnavailable>> {
        async move {
            StoredLogin::ready(self)
                .await
                .map_err(|error| CredentialUnavailable {
                    error: error.to_string(),
                    hint: error.hint(),
                })
        }
        .boxed()
    }

    fn renewal(&self) -> Option<Arc<dyn RenewCredential>> {
        Some(Arc::new(self.clone()))
    }
}

/// A credential that never changes.
pub struct FixedCredential {
    credential: Credential,
    origin: String,
}

impl FixedCredential {
    /// Creates a source with this credential and this name.
    pub fn new(credential: Credential, origin: impl Into<String>) -> Self {
        Self {
            credential,
            origin: origin.into(),
        }
    }
}

impl CredentialSource for FixedCredential {
    fn current(&self) -> Credential {
        self.credential.clone()
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }
}
