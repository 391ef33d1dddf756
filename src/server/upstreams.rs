//! Which upstream answers a call, and with whose credentials.
//!
//! Three situations, and only three:
//!
//! * **Local was chosen** (`--local`, `DD_SITE=local`, `demo`): everything goes there, and
//!   credentials in a request's headers are dropped unread.
//! * **Nothing was chosen**: calls go to local, unless the caller has complete credentials; then that
//!   request alone goes to Datadog at the default site. Its hub is made when first needed.
//! * **Datadog was chosen**: the credential is the one that the gate admitted the caller with: the
//!   process's own, what the request brought, or that of a signed-in user. Half a pair is an error,
//!   and where the request must bring its own, none is one too: never a silent fall back to someone
//!   else's keys.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use datadog_llmobs::{Client, Credential, Hub};
use llmobs_authz::{Admitted, HeaderCredentials, SignedIn};

use super::credentials::{CredentialSource, NotReady};

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

/// How a request brings credentials.
const SEND_THEM: &str = "send both headers DD_API_KEY and DD_APPLICATION_KEY, or one header \
                         'Authorization: Bearer TOKEN'";

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

    /// The hub through which calls go, whoever's they are.
    pub fn hub(&self) -> &Hub {
        match &self.choice {
            Choice::Local { hub, .. } | Choice::Datadog { hub, .. } => hub,
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
    pub(crate) async fn client(&self, caller: &Admitted, name: &str) -> Result<Client, Refused> {
        match (&self.choice, caller) {
            (
                Choice::Local {
                    hub,
                    for_headers: None,
                    ..
                },
                _,
            )
            | (
                Choice::Local { hub, .. },
                Admitted::Own | Admitted::Sent(HeaderCredentials::Absent),
            ) => Ok(hub.client(Credential::None, name)),
            (_, Admitted::Sent(HeaderCredentials::Unusable(why))) => Err(Refused {
                error: why.clone(),
                hint: format!("{SEND_THEM}, or neither"),
            }),
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                Admitted::Sent(HeaderCredentials::Complete(credential)),
            ) => Ok(lazy.hub()?.client(credential.clone(), name)),
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                Admitted::As(user),
            ) => Ok(client_of(user, lazy.hub()?, name)),
            (
                Choice::Datadog { hub, .. },
                Admitted::Sent(HeaderCredentials::Complete(credential)),
            ) => Ok(hub.client(credential.clone(), name)),
            (Choice::Datadog { hub, .. }, Admitted::As(user)) => Ok(client_of(user, hub, name)),
            (Choice::Datadog { .. }, Admitted::Own) => self
                .own_client(name)
                .await
                .map_err(|NotReady { error, hint }| Refused { error, hint }),
            // A base of one's own may need none; a site always does.
            (Choice::Datadog { hub, .. }, Admitted::Sent(HeaderCredentials::Absent))
                if self.described.site.is_none() =>
            {
                Ok(hub.client(Credential::None, name))
            }
            (Choice::Datadog { .. }, Admitted::Sent(HeaderCredentials::Absent)) => Err(Refused {
                error: "this request brought no Datadog credentials, and this server lends none"
                    .to_owned(),
                hint: SEND_THEM.to_owned(),
            }),
        }
    }

    /// Which upstream answers such a caller, and with what kind of credential from where. Never a
    /// credential's value.
    pub(crate) fn whoami(&self, caller: &Admitted) -> Value {
        let given = Given::of(caller);
        let (upstream, kind, origin) = match (&self.choice, &given) {
            (
                Choice::Local {
                    for_headers: Some(lazy),
                    ..
                },
                Given {
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
                    json!({"kind": "local", "url": self.described.url, "chosen_by": why}),
                    Credential::None.kind(),
                    "none needed".to_owned(),
                )
            }
            (Choice::Datadog { own, .. }, given) => {
                let mut upstream = json!({"kind": "datadog", "url": self.described.url});
                if let (Some(site), Some(map)) = (&self.described.site, upstream.as_object_mut()) {
                    map.insert("site".to_owned(), json!(site));
                }
                match (caller, given.credential) {
                    (Admitted::Own, _) => (upstream, own.current().kind(), own.origin()),
                    (_, Some(credential)) => (upstream, credential.kind(), given.origin.to_owned()),
                    (_, None) => (upstream, Credential::None.kind(), given.origin.to_owned()),
                }
            }
        };
        let mut credential = json!({"kind": kind, "origin": origin});
        if let (Some(subject), Some(map)) = (given.subject, credential.as_object_mut()) {
            map.insert("subject".to_owned(), json!(subject));
        }
        json!({"upstream": upstream, "credential": credential})
    }
}

/// What a caller was admitted with, apart from the server's own.
struct Given<'a> {
    credential: Option<&'a Credential>,
    origin: &'static str,
    subject: Option<&'a str>,
}

impl<'a> Given<'a> {
    fn of(caller: &'a Admitted) -> Self {
        let (credential, origin, subject) = match caller {
            Admitted::Own => (None, "this server", None),
            Admitted::Sent(HeaderCredentials::Complete(credential)) => {
                (Some(credential), "the request's headers", None)
            }
            Admitted::Sent(HeaderCredentials::Absent) => {
                (None, "none: the request's headers hold none", None)
            }
            Admitted::Sent(HeaderCredentials::Unusable(_)) => (
                None,
                "none: those in the request's headers cannot be used",
                None,
            ),
            Admitted::As(user) => (
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
fn client_of(user: &SignedIn, hub: &Hub, name: &str) -> Client {
    let client = hub.client(user.credential.clone(), name);
    match &user.renewal {
        Some(renewal) => client.with_renewal(renewal.clone()),
        None => client,
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
