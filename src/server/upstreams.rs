//! Which upstream answers a call, and with whose credentials.
//!
//! Three situations, and only three:
//!
//! * **Local was chosen** (`--local`, `DD_SITE=local`, `demo`): everything goes there, and
//!   credentials in a request's headers are dropped unread.
//! * **Nothing was chosen**: calls go to local, unless the request brings complete credentials;
//!   then that request alone goes to Datadog at the default site. Its hub is made when first needed.
//! * **Datadog was chosen**: the process's own credential is used, unless the request brings
//!   complete ones. Half a pair is an error, never a silent fall back to someone else's keys.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::datadog::{Client, Credential, Hub};

use super::credentials::{CredentialSource, HeaderCredentials, NotReady};

/// Why calls go to the local backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalReason {
    /// It was asked for.
    Chosen,
    /// It is the demo.
    Demo,
    /// No Datadog credential was found.
    NothingConfigured,
}

/// What an upstream is, in words that can be shown to anyone.
#[derive(Debug, Clone)]
pub struct Described {
    /// The site, such as `datadoghq.com`, when the upstream is one.
    pub site: Option<String>,
    /// The base of its HTTP API, or where the local backend listens.
    pub url: Option<String>,
}

type MakeHub = Box<dyn Fn() -> Result<Hub, String> + Send + Sync>;

/// The hubs that calls may go through. Lives as long as the process.
pub struct Upstreams {
    choice: Choice,
    described: Described,
}

enum Choice {
    Local {
        hub: Hub,
        reason: LocalReason,
        /// Datadog for requests that bring credentials; only when nothing was chosen.
        for_headers: Option<Lazy>,
    },
    Datadog {
        hub: Hub,
        own: Arc<dyn CredentialSource>,
    },
}

struct Lazy {
    site: String,
    make: MakeHub,
    hub: OnceLock<Hub>,
}

/// Why a call cannot be sent at all.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What was wrong.
    pub error: String,
    /// The mend.
    pub hint: String,
}

impl Upstreams {
    /// Local was chosen: header credentials are dropped.
    pub fn local(hub: Hub, demo: bool, described: Described) -> Self {
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
            described,
        }
    }

    /// Nothing was chosen: local, and Datadog at `site` for requests that bring credentials.
    pub fn unchosen(
        hub: Hub,
        described: Described,
        site: impl Into<String>,
        make: MakeHub,
    ) -> Self {
        Self {
            choice: Choice::Local {
                hub,
                reason: LocalReason::NothingConfigured,
                for_headers: Some(Lazy {
                    site: site.into(),
                    make,
                    hub: OnceLock::new(),
                }),
            },
            described,
        }
    }

    /// Datadog (or `--api-url`) with the process's own credential, which may be none.
    pub fn datadog(hub: Hub, own: Arc<dyn CredentialSource>, described: Described) -> Self {
        Self {
            choice: Choice::Datadog { hub, own },
            described,
        }
    }

    /// Why calls go to local, or `None` when they go to Datadog.
    pub fn local_reason(&self) -> Option<LocalReason> {
        match &self.choice {
            Choice::Local { reason, .. } => Some(*reason),
            Choice::Datadog { .. } => None,
        }
    }

    /// What the upstream is.
    pub fn described(&self) -> &Described {
        &self.described
    }

    /// A client with the process's own credential.
    ///
    /// # Errors
    /// The credential is over and cannot be renewed.
    pub async fn own_client(&self, caller: &str) -> Result<Client, NotReady> {
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
        sent: &HeaderCredentials,
        caller: &str,
    ) -> Result<Client, Refused> {
        match (&self.choice, sent) {
            (
                Choice::Local {
                    hub,
                    for_headers: None,
                    ..
                },
                _,
            )
            | (Choice::Local { hub, .. }, HeaderCredentials::Absent) => {
                Ok(hub.client(Credential::None, caller))
            }
            (_, HeaderCredentials::Unusable(why)) => Err(Refused {
                error: why.clone(),
                hint: "send both headers DD_API_KEY and DD_APPLICATION_KEY, or one header \
                       'Authorization: Bearer TOKEN', or neither"
                    .to_owned(),
            }),
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                HeaderCredentials::Complete(credential),
            ) => Ok(lazy.hub()?.client(credential.clone(), caller)),
            (Choice::Datadog { hub, .. }, HeaderCredentials::Complete(credential)) => {
                Ok(hub.client(credential.clone(), caller))
            }
            (Choice::Datadog { .. }, HeaderCredentials::Absent) => {
                let NotReady { error, hint } = match self.own_client(caller).await {
                    Ok(client) => return Ok(client),
                    Err(not_ready) => not_ready,
                };
                Err(Refused { error, hint })
            }
        }
    }

    /// Which upstream answers such a request, and with what kind of credential from where. Never a
    /// credential's value.
    pub(crate) fn whoami(&self, sent: &HeaderCredentials) -> Value {
        let headers = "the request's headers";
        let (upstream, kind_of, origin) = match (&self.choice, sent) {
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                HeaderCredentials::Complete(credential),
            ) => (
                json!({"kind": "datadog", "site": lazy.site, "chosen_by": headers}),
                credential.kind(),
                headers.to_owned(),
            ),
            (Choice::Local { reason, .. }, _) => {
                let why = match reason {
                    LocalReason::Chosen => "the settings",
                    LocalReason::Demo => "the demo",
                    LocalReason::NothingConfigured => "no Datadog credential is configured",
                };
                (
                    json!({"kind": "local", "url": self.described.url, "chosen_by": why}),
                    Credential::None.kind(),
                    "none needed".to_owned(),
                )
            }
            (Choice::Datadog { own, .. }, _) => {
                let mut upstream = json!({"kind": "datadog", "url": self.described.url});
                if let (Some(site), Some(map)) = (&self.described.site, upstream.as_object_mut()) {
                    map.insert("site".to_owned(), json!(site));
                }
                match sent {
                    HeaderCredentials::Complete(credential) => {
                        (upstream, credential.kind(), headers.to_owned())
                    }
                    _ => (upstream, own.current().kind(), own.origin()),
                }
            }
        };
        json!({"upstream": upstream, "credential": {"kind": kind_of, "origin": origin}})
    }
}

impl Lazy {
    fn hub(&self) -> Result<&Hub, Refused> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        // Two callers may both make one; the first stays, and nothing has been sent through either.
        let made = (self.make)().map_err(|error| Refused {
            error: format!("the client for {} could not be made: {error}", self.site),
            hint:
                "check LLMOBS_MCP_CA_FILE and the proxy variables; `llmobs-mcp doctor` tells more"
                    .to_owned(),
        })?;
        Ok(self.hub.get_or_init(|| made))
    }
}
