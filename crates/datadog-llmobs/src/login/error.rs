//! Errors of signing in, renewing and signing out, each with a hint. No variant holds a token, a
//! code or a verifier.

use std::time::Duration;

use thiserror::Error;

use super::super::cause::ErrorCause;
use super::store_error::LoginStoreError;

/// Why a sign-in, a renewal or a revocation failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Nothing says which hosts belong to this upstream.
    #[error(
        "sign-in needs a Datadog site, or an --api-url on this machine; this --api-url is neither"
    )]
    UnsupportedTarget,
    /// A scope with invalid characters.
    #[error("`{0}` is not a valid scope: a scope consists of letters, digits and underscores")]
    BadScope(String),
    /// The named callback port cannot be bound.
    #[error("port {port} of 127.0.0.1 is already in use or not permitted ({source})")]
    PortInUse {
        /// The port.
        port: u16,
        /// The error of the system.
        source: ErrorCause,
    },
    /// No default callback port can be bound.
    #[error("the ports 8000, 8080, 8888 and 9000 of 127.0.0.1 are all in use")]
    AllPortsInUse,
    /// The registration got an error status.
    #[error("{target} rejected the registration of this program ({status}): {message}")]
    RegistrationRejected {
        /// The server.
        target: String,
        /// The HTTP status.
        status: u16,
        /// The message of the body.
        message: String,
    },
    /// The browser did not return in time.
    #[error("no response came from the browser within {} minutes{}", .waited.as_secs().div_ceil(60), other_sign_ins(*.wrong_states))]
    TimedOut {
        /// The time waited.
        waited: Duration,
        /// The number of responses that belonged to another sign-in.
        wrong_states: u32,
    },
    /// The response belongs to another sign-in.
    #[error("the response does not belong to this sign-in: its `state` is wrong or missing")]
    WrongState,
    /// The user denied the access, or Datadog did for the user.
    #[error("the sign-in was denied{}", in_parentheses(.0))]
    Denied(String),
    /// A scope is not allowed for this program or organisation.
    #[error("a scope was rejected{}", in_parentheses(.0))]
    ScopeRejected(String),
    /// The response holds another OAuth error.
    #[error("the sign-in failed with `{code}`{}", in_parentheses(.message))]
    Failed {
        /// The OAuth error code.
        code: String,
        /// The description.
        message: String,
    },
    /// The response holds neither a code nor an error.
    #[error("the response of the browser holds neither a code nor an error")]
    NoCode,
    /// The response names a host that is not Datadog's.
    #[error(
        "the response names `{0}` as the site of the account, which is not one of Datadog's sites; the code was not sent there"
    )]
    ForeignDomain(String),
    /// The response to a sign-in on this machine names another server.
    #[error(
        "the response names `{found}` as the site of the account, but the sign-in is at {expected}; the code was not sent there"
    )]
    WrongAuthority {
        /// The named authority.
        found: String,
        /// The authority of `--api-url`.
        expected: String,
    },
    /// The account is of another organisation than the required one.
    #[error("the sign-in was for another organisation than --org requires; the code was not used")]
    OtherOrganisation,
    /// The code was rejected.
    #[error("{target} rejected the code: it has expired, was used before, or belongs to another sign-in{}", in_parentheses(.message))]
    CodeRejected {
        /// The server.
        target: String,
        /// The message of the body.
        message: String,
    },
    /// The token endpoint does not know the client id.
    #[error("{target} does not know the registration of this program{}", in_parentheses(.message))]
    UnknownClient {
        /// The server.
        target: String,
        /// The message of the body.
        message: String,
    },
    /// The refresh token was rejected.
    #[error(
        "the login of profile `{profile}` has ended: {target} no longer accepts its refresh token (revoked, expired or used elsewhere)"
    )]
    Revoked {
        /// The profile.
        profile: String,
        /// The server.
        target: String,
    },
    /// The access token has expired and there is no refresh token.
    #[error("the login of profile `{0}` has expired and has no refresh token")]
    Expired(String),
    /// Another error status.
    #[error("{target} returned {status} to {operation}{}", in_parentheses(.message))]
    Status {
        /// The server.
        target: String,
        /// The operation, for example `the code exchange`.
        operation: &'static str,
        /// The HTTP status.
        status: u16,
        /// The message of the body.
        message: String,
    },
    /// A success status with an unusable body.
    #[error("{target} returned an unusable response to {operation}: {reason}")]
    Unreadable {
        /// The server.
        target: String,
        /// The operation.
        operation: &'static str,
        /// What is wrong with the response.
        reason: &'static str,
    },
    /// No response.
    #[error("{operation} got no response from {target}: {source}")]
    NoResponse {
        /// The server.
        target: String,
        /// The operation.
        operation: &'static str,
        /// Why.
        source: ErrorCause,
    },
    /// The profile does not exist.
    #[error("there is no stored login named `{0}`")]
    NotLoggedIn(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] LoginStoreError),
}

impl LoginError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        const RETRY_OR_KEYS: &str = "run `llmobs-mcp login` again; if that fails too, use API keys instead (DD_API_KEY and DD_APPLICATION_KEY)";
        match self {
            Self::UnsupportedTarget => "name a site, for example `llmobs-mcp login --site datadoghq.eu`".into(),
            Self::BadScope(_) => "for example: llmobs-mcp login --scope llm_observability_read".into(),
            Self::PortInUse { .. } => "stop the program that uses it, or leave --callback-port out".into(),
            Self::AllPortsInUse => "stop one of the programs that use them, or let the system choose a port: llmobs-mcp login --callback-port 0".into(),
            Self::RegistrationRejected { .. } => "an administrator may have disabled third-party access; use API keys or an access token instead (DD_API_KEY and DD_APPLICATION_KEY, or DD_ACCESS_TOKEN)".into(),
            Self::TimedOut { .. } => "run `llmobs-mcp login` again and complete the sign-in in the browser; if no browser can reach this machine, add --no-browser and paste the address that the browser ends at".into(),
            Self::WrongState => "complete the sign-in in the window that this run opened, or run `llmobs-mcp login` again".into(),
            Self::Denied(_) => "run `llmobs-mcp login` again and allow the access, or use API keys instead (DD_API_KEY and DD_APPLICATION_KEY)".into(),
            Self::ScopeRejected(_) => "request fewer scopes: llmobs-mcp login --scope llm_observability_read; if that is rejected too, the organisation may not have LLM Observability, or allows only known programs: use API keys or an access token (DD_ACCESS_TOKEN)".into(),
            Self::Failed { .. } | Self::NoCode => RETRY_OR_KEYS.into(),
            Self::ForeignDomain(_) | Self::WrongAuthority { .. } => "run `llmobs-mcp login` again and check the address in the browser; if it happens again, please report it".into(),
            Self::OtherOrganisation => "choose that organisation in the browser, or leave --org out".into(),
            Self::CodeRejected { .. } => "run `llmobs-mcp login` again and complete it within a minute; check the clock of this machine".into(),
            Self::UnknownClient { .. } => "sign in at the site of your organisation, for example `llmobs-mcp login --site us5.datadoghq.com`".into(),
            Self::Revoked { profile, .. } | Self::Expired(profile) => format!("sign in again: llmobs-mcp login --profile {profile}"),
            Self::NotLoggedIn(profile) => format!("sign in: llmobs-mcp login --profile {profile}; `llmobs-mcp status` lists the stored logins"),
            Self::Status { .. } | Self::Unreadable { .. } => "try again in a minute; check the site (DD_SITE) and the proxy variables (HTTPS_PROXY, NO_PROXY)".into(),
            Self::NoResponse { .. } => "check the network, the site (DD_SITE) and the proxy variables (HTTPS_PROXY, NO_PROXY)".into(),
            Self::Store(error) => error.hint(),
        }
    }
}

fn in_parentheses(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

fn other_sign_ins(wrong_states: u32) -> String {
    match wrong_states {
        0 => String::new(),
        1 => "; one response belonged to another sign-in".to_owned(),
        count => format!("; {count} responses belonged to other sign-ins"),
    }
}
