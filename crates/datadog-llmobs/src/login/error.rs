//! Everything that can go wrong while signing in, staying signed in and signing out, each with
//! its mend. No variant holds a token, a code or a verifier.

use std::time::Duration;

use thiserror::Error;

use super::store::LoginStoreError;

/// Why there is no (or no longer a) login.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginError {
    /// A sign-in needs hosts that are known to belong together.
    #[error(
        "signing in works with a Datadog site, or with an --api-url on this machine; this --api-url names neither"
    )]
    UnsupportedTarget,
    /// A scope that no scope list can hold.
    #[error("`{0}` cannot be a scope: a scope is letters, digits and underscores")]
    BadScope(String),
    /// The port for the answer is taken.
    #[error("port {port} of 127.0.0.1 cannot be listened on ({reason})")]
    PortTaken {
        /// The port that was named.
        port: u16,
        /// What the system said.
        reason: String,
    },
    /// All usual ports for the answer are taken.
    #[error("the ports 8000, 8080, 8888 and 9000 of 127.0.0.1 are all taken")]
    PortsTaken,
    /// ClientRegistration was answered with an error.
    #[error("{target} refused to register this program ({status}): {words}")]
    RegistrationRefused {
        /// Who refused.
        target: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        words: String,
    },
    /// Nobody came back from the browser.
    #[error("no answer came from the browser within {} minutes{}", .waited.as_secs().div_ceil(60), strangers(*.wrong_states))]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// Answers that belonged to another sign-in.
        wrong_states: u32,
    },
    /// The answer belongs to another sign-in.
    #[error("the answer does not belong to this sign-in: its `state` is wrong or missing")]
    WrongState,
    /// The person said no, or Datadog did on their behalf.
    #[error("the sign-in was denied{}", in_words(.0))]
    Denied(String),
    /// A scope is not allowed for this program, or the product is not there.
    #[error("a scope was refused{}", in_words(.0))]
    ScopeRefused(String),
    /// Another refusal on the way back from the browser.
    #[error("the sign-in ended with `{code}`{}", in_words(.words))]
    Refused {
        /// OAuth's code.
        code: String,
        /// What stood beside it.
        words: String,
    },
    /// Neither a code nor an error came back.
    #[error("the answer from the browser holds neither a code nor an error")]
    NoCode,
    /// The answer names a host that is none of Datadog's.
    #[error(
        "the answer names `{0}` as the target of the account, which is not one of Datadog's sites; the code was not sent there"
    )]
    ForeignDomain(String),
    /// With a server of this machine, the answer must name that server.
    #[error(
        "the answer names `{found}` as the target of the account, but the sign-in is at {expected}; the code was not sent there"
    )]
    WrongAuthority {
        /// What it named.
        found: String,
        /// The authority of `--api-url`.
        expected: String,
    },
    /// Another organisation than the one asked for.
    #[error("the sign-in was for another organisation than --org names; the code was not used")]
    OtherOrganisation,
    /// The code was refused.
    #[error("{target} did not accept the code: it expired, was used before, or belongs to another sign-in{}", in_words(.words))]
    CodeRefused {
        /// Who refused.
        target: String,
        /// What it said.
        words: String,
    },
    /// The registration is unknown where the code was exchanged.
    #[error("{target} does not know this program's registration{}", in_words(.words))]
    ClientUnknown {
        /// Who does not.
        target: String,
        /// What it said.
        words: String,
    },
    /// The refresh token is no longer good.
    #[error(
        "the login of profile `{profile}` is over: {target} no longer accepts its refresh token (revoked, expired or used elsewhere)"
    )]
    Revoked {
        /// The profile.
        profile: String,
        /// Who refused.
        target: String,
    },
    /// The access token ended and there is nothing to renew it with.
    #[error("the login of profile `{0}` has expired and came without a refresh token")]
    Expired(String),
    /// An error status with other words.
    #[error("{target} answered {status} to {what}{}", in_words(.words))]
    Status {
        /// Who answered.
        target: String,
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said.
        words: String,
    },
    /// A success status without what it promises.
    #[error("{target} answered {what} with something that cannot be used: {why}")]
    Unreadable {
        /// Who answered.
        target: String,
        /// What was asked.
        what: &'static str,
        /// What is missing.
        why: &'static str,
    },
    /// No answer at all.
    #[error("{what} got no answer from {target}: {why}")]
    NoAnswer {
        /// Who was asked.
        target: String,
        /// What was asked.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The profile is not there (any more).
    #[error("there is no stored login named `{0}`")]
    NotLoggedIn(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] LoginStoreError),
}

impl LoginError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::UnsupportedTarget => "name a site, for example `llmobs-mcp login --site datadoghq.eu`".into(),
            Self::BadScope(_) => "for example: llmobs-mcp login --scope llm_observability_read".into(),
            Self::PortTaken { .. } => "stop the program that uses it, or leave --callback-port out".into(),
            Self::PortsTaken => "stop one of the programs that use them, or let the system choose: llmobs-mcp login --callback-port 0".into(),
            Self::RegistrationRefused { .. } => "use keys or an access token instead (DD_API_KEY and DD_APPLICATION_KEY, or DD_ACCESS_TOKEN); an administrator may have turned off third-party access".into(),
            Self::TimedOut { .. } => "run `llmobs-mcp login` again and finish in the browser; where no browser can reach this machine, use --no-browser and paste the address that the browser ends at".into(),
            Self::WrongState => "finish the sign-in in the window that this run opened, or run `llmobs-mcp login` again".into(),
            Self::Denied(_) => "run `llmobs-mcp login` again and allow the access, or use keys instead".into(),
            Self::ScopeRefused(_) => "ask for less: llmobs-mcp login --scope llm_observability_read; if that is refused too, the organisation may not have LLM Observability, or only known programs may ask for it: use keys or an access token (DD_ACCESS_TOKEN)".into(),
            Self::Refused { .. } | Self::NoCode => "run `llmobs-mcp login` again; if it stays so, use keys instead".into(),
            Self::ForeignDomain(_) | Self::WrongAuthority { .. } => "run `llmobs-mcp login` again and check the address in the browser; if it stays so, please report it".into(),
            Self::OtherOrganisation => "choose that organisation in the browser, or leave --org out".into(),
            Self::CodeRefused { .. } => "run `llmobs-mcp login` again and finish within a minute; check this machine's clock".into(),
            Self::ClientUnknown { .. } => "sign in at the site of your organisation: llmobs-mcp login --site SITE".into(),
            Self::Revoked { profile, .. } | Self::Expired(profile) => format!("sign in again: llmobs-mcp login --profile {profile}"),
            Self::NotLoggedIn(profile) => format!("sign in: llmobs-mcp login --profile {profile}; `llmobs-mcp status` lists what there is"),
            Self::Status { .. } | Self::Unreadable { .. } => "try again in a minute; check the site and the proxy variables (HTTPS_PROXY, NO_PROXY)".into(),
            Self::NoAnswer { .. } => "check the network, the proxy variables (HTTPS_PROXY, NO_PROXY) and the site".into(),
            Self::Store(error) => error.hint(),
        }
    }
}

fn in_words(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({words})")
    }
}

fn strangers(wrong_states: u32) -> String {
    match wrong_states {
        0 => String::new(),
        1 => "; one answer came that belongs to another sign-in".to_owned(),
        many => format!("; {many} answers came that belong to other sign-ins"),
    }
}
