//! The process's own credential behind a small trait: fixed, read from files, or a stored login.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use datadog_llmobs::login::StoredLogin;
use datadog_llmobs::{Credential, RenewCredential};

/// Where the process's own credential comes from. Asked at each call, so that a mounted secret that
/// changes is picked up.
pub trait CredentialSource: Send + Sync {
    /// The credential to use now.
    fn current(&self) -> Credential;
    /// Where it comes from, in words for a person; never its value.
    fn origin(&self) -> String;

    /// The credential for a call that begins now. A source that can renew does so first where
    /// needed.
    fn ready(&self) -> BoxFuture<'_, Result<Credential, NotReady>> {
        std::future::ready(Ok(self.current())).boxed()
    }

    /// Who gives a new credential when this one is refused.
    fn renewal(&self) -> Option<Arc<dyn RenewCredential>> {
        None
    }
}

/// Why a source has no usable credential at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// What is wrong.
    pub error: String,
    /// The mend.
    pub hint: String,
}

impl CredentialSource for StoredLogin {
    fn current(&self) -> Credential {
        StoredLogin::current(self)
    }

    fn origin(&self) -> String {
        format!("the stored login of profile {}", self.state().name)
    }

    fn ready(&self) -> BoxFuture<'_, Result<Credential, NotReady>> {
        async move {
            StoredLogin::ready(self).await.map_err(|error| NotReady {
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
    /// This credential, from there.
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
