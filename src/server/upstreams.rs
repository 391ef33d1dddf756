//! Chooses the upstream and the credential of a call.
//!
//! There are three cases:
//!
//! * **Local is chosen** (`--local`, `DD_SITE=local`, `demo`): all calls go there, and credentials in
//!   the headers of a request are ignored.
//! * **Nothing is chosen**: calls go to local data. A request with complete credentials goes to
//!   Datadog at the default site; the first one creates that hub.
//! * **Datadog is chosen**: the call uses the credential that the gate admitted the caller with: the
//!   process's own, that of the request, or that of a signed-in user. Half a key pair is an error. A
//!   request that must bring a credential and brings none is an error too; it never uses the keys of
//!   the server.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use datadog_llmobs::{Client, Credential, Hub};
use llmobs_authz::{CallerCredential, HeaderCredentials, SignedInUser};

use super::credentials::{CredentialSource, CredentialUnavailable};

/// Why calls go to the local backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalReason {
    /// A setting chooses it.
    Chosen,
    /// It serves the demo.
    Demo,
    /// No Datadog credential is set.
    NothingConfigured,
}

/// A description of an upstream, without secrets.
#[derive(Debug, Clone)]
pub struct UpstreamInfo {
    /// The site, such as `datadoghq.com`, when the upstream is one.
    pub site: Option<String>,
    /// The base of its HTTP API, or where the local backend listens.
    pub url: Option<String>,
}

type MakeHub = Box<dyn Fn() -> Result<Hub, String> + Send + Sync>;

/// The hint for a request without credentials.
const CREDENTIALS_HINT: &str = "send both headers DD_API_KEY and DD_APPLICATION_KEY, or one header \
                         'Authorization: Bearer TOKEN'";

/// The hubs of the process, and the choice between them.
pub struct Upstreams {
    choice: Choice,
    info: UpstreamInfo,
}

enum Choice {
    Local {
        hub: Hub,
        reason: LocalReason,
        /// Datadog for requests that bring credentials, if nothing is chosen.
        for_headers: Option<LazyHub>,
    },
    Datadog {
        hub: Hub,
        own: Arc<dyn CredentialSource>,
    },
}

struct LazyHub {
    site: String,
    make: MakeHub,
    hub: OnceLock<Hub>,
}

/// Why a call is not sent.
#[derive(Debug)]
pub(crate) struct CallRefusal {
    /// What is wrong.
    pub error: String,
    /// How to fix it.
    pub hint: String,
}

impl Upstreams {
    /// Local data is chosen: credentials in headers are ignored.
    pub fn local(hub: Hub, demo: bool, info: UpstreamInfo) -> Self {
        let reason = if demo {
            LocalReason::Demo
        } else {
            LocalReason::Chosen
        };
        Self {
            choice: Choice::Local {
                hub,
                reason,
                for_headers: None,
            },
            info,
        }
    }

    /// Nothing is chosen: local data, and Datadog at `site` for requests that bring credentials.
    pub fn unchosen(hub: Hub, info: UpstreamInfo, site: impl Into<String>, make: MakeHub) -> Self {
        Self {
            choice: Choice::Local {
                hub,
                reason: LocalReason::NothingConfigured,
                for_headers: Some(LazyHub {
                    site: site.into(),
                    make,
                    hub: OnceLock::new(),
                }),
            },
            info,
        }
    }

    /// Datadog (or `--api-url`) is chosen, with the process's own credential, which may be none.
    pub fn datadog(hub: Hub, own: Arc<dyn CredentialSource>, info: UpstreamInfo) -> Self {
        Self {
            choice: Choice::Datadog { hub, own },
            info,
        }
    }

    /// Why calls go to local data, or `None` if they go to Datadog.
    pub fn local_reason(&self) -> Option<LocalReason> {
        match &self.choice {
            Choice::Local { reason, .. } => Some(*reason),
            Choice::Datadog { .. } => None,
        }
    }

    /// The hub of calls that bring no credentials.
    pub fn hub(&self) -> &Hub {
        match &self.choice {
            Choice::Local { hub, .. } | Choice::Datadog { hub, .. } => hub,
        }
    }

    /// The description of the upstream.
    pub fn info(&self) -> &UpstreamInfo {
        &self.info
    }

    /// A client with the process's own credential.
    ///
    /// # Errors
    /// The credential has expired and cannot be renewed.
    pub async fn own_client(&self, caller: &str) -> Result<Client, CredentialUnavailable> {
        match &self.choice {
            Choice::Local { hub, .. } => Ok(hub.client(Credential::None, caller)),
            Choice::Datadog { hub, own } => {
                let client = hub.client(own.ready().await?, caller);
                Ok(match own.renewal() {
                    Some(renewal) => client.with_renewal(renewal),
                    None => client,
                })
            }
        }
    }

    /// The client for one call.
    pub(crate) async fn client(
        &self,
        caller: &CallerCredential,
        name: &str,
    ) -> Result<Client, CallRefusal> {
        if let Choice::Local {
            hub,
            for_headers: None,
            ..
        } = &self.choice
        {
            return Ok(hub.client(Credential::None, name));
        }
        match caller {
            CallerCredential::Server => self
                .own_client(name)
                .await
                .map_err(|CredentialUnavailable { error, hint }| CallRefusal { error, hint }),
            CallerCredential::Request(HeaderCredentials::Complete(credential)) => {
                Ok(self.datadog_hub()?.client(credential.clone(), name))
            }
            CallerCredential::User(user) => Ok(client_of(user, self.datadog_hub()?, name)),
            CallerCredential::Request(HeaderCredentials::Unusable(why)) => Err(CallRefusal {
                error: why.clone(),
                hint: format!("{CREDENTIALS_HINT}, or neither"),
            }),
            CallerCredential::Request(HeaderCredentials::Absent) => {
                self.client_without_credential(name)
            }
        }
    }

    /// The hub for a credential that a caller brings.
    fn datadog_hub(&self) -> Result<&Hub, CallRefusal> {
        match &self.choice {
            Choice::Local {
                for_headers: Some(lazy),
                ..
            } => lazy.hub(),
            Choice::Local { hub, .. } | Choice::Datadog { hub, .. } => Ok(hub),
        }
    }

    /// The client for a request without credentials. A site always needs one; local data needs none,
    /// and the API at `--api-url` may need none.
    fn client_without_credential(&self, name: &str) -> Result<Client, CallRefusal> {
        match &self.choice {
            Choice::Datadog { .. } if self.info.site.is_some() => Err(CallRefusal {
                error:
                    "this request has no Datadog credentials, and the server does not share its own"
                        .to_owned(),
                hint: CREDENTIALS_HINT.to_owned(),
            }),
            Choice::Local { hub, .. } | Choice::Datadog { hub, .. } => {
                Ok(hub.client(Credential::None, name))
            }
        }
    }

    /// The upstream of a caller, and the kind and source of its credential. Never the value.
    pub(crate) fn whoami(&self, caller: &CallerCredential) -> Value {
        let sent = CredentialSummary::from_credential(caller);
        let (upstream, kind, origin) = match (&self.choice, &sent) {
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                CredentialSummary {
                    credential: Some(credential),
                    origin,
                    ..
                },
            ) => (
                json!({"kind": "datadog", "site": lazy.site, "chosen_by": origin}),
                credential.kind(),
                (*origin).to_owned(),
            ),
            (Choice::Local { reason, .. }, _) => {
                let why = match reason {
                    LocalReason::Chosen => "the settings",
                    LocalReason::Demo => "the demo",
                    LocalReason::NothingConfigured => "no Datadog credential is configured",
                };
                (
                    json!({"kind": "local", "url": self.info.url, "chosen_by": why}),
                    Credential::None.kind(),
                    "none needed".to_owned(),
                )
            }
            (Choice::Datadog { own, .. }, sent) => {
                let mut upstream = json!({"kind": "datadog", "url": self.info.url});
                if let (Some(site), Some(map)) = (&self.info.site, upstream.as_object_mut()) {
                    map.insert("site".to_owned(), json!(site));
                }
                match (caller, sent.credential) {
                    (CallerCredential::Server, _) => (upstream, own.current().kind(), own.origin()),
                    (_, Some(credential)) => (upstream, credential.kind(), sent.origin.to_owned()),
                    (_, None) => (upstream, Credential::None.kind(), sent.origin.to_owned()),
                }
            }
        };
        let mut credential = json!({"kind": kind, "origin": origin});
        if let (Some(subject), Some(map)) = (sent.subject, credential.as_object_mut()) {
            map.insert("subject".to_owned(), json!(subject));
        }
        json!({"upstream": upstream, "credential": credential})
    }
}

/// The credential that a caller brings; none if it uses the server's.
struct CredentialSummary<'a> {
    credential: Option<&'a Credential>,
    origin: &'static str,
    subject: Option<&'a str>,
}

impl<'a> CredentialSummary<'a> {
    fn from_credential(caller: &'a CallerCredential) -> Self {
        let (credential, origin, subject) = match caller {
            CallerCredential::Server => (None, "this server", None),
            CallerCredential::Request(HeaderCredentials::Complete(credential)) => {
                (Some(credential), "the request headers", None)
            }
            CallerCredential::Request(HeaderCredentials::Absent) => {
                (None, "none: the request has no credential headers", None)
            }
            CallerCredential::Request(HeaderCredentials::Unusable(_)) => (
                None,
                "none: the credentials in the request headers are unusable",
                None,
            ),
            CallerCredential::User(user) => (
                Some(&user.credential),
                "the sign-in at this server",
                Some(user.subject.as_str()),
            ),
        };
        Self {
            credential,
            origin,
            subject,
        }
    }
}

/// A client with the credential of a signed-in user.
fn client_of(user: &SignedInUser, hub: &Hub, name: &str) -> Client {
    let client = hub.client(user.credential.clone(), name);
    match &user.renewal {
        Some(renewal) => client.with_renewal(renewal.clone()),
        None => client,
    }
}

impl LazyHub {
    fn hub(&self) -> Result<&Hub, CallRefusal> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        // Two concurrent callers may each create a hub; the first one is used.
        let hub = (self.make)().map_err(|error| CallRefusal {
            error: format!("cannot create the client for {}: {error}", self.site),
            hint: "check LLMOBS_MCP_CA_FILE and the proxy variables with `llmobs-mcp doctor`"
                .to_owned(),
        })?;
        Ok(self.hub.get_or_init(|| hub))
    }
}
