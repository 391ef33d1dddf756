//! Chooses the gate of `serve --http` from the settings, or refuses to start.
//!
//! Every refusal happens here, before a port or a store is opened. Two rules decide: the server
//! shares its own credentials only if a setting says so, and callers from other machines must
//! authenticate.

mod credentials;
mod listen;
#[cfg(feature = "oauth")]
mod sign_in;
#[cfg(not(feature = "oauth"))]
mod without_oauth;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::server::Upstreams;
use datadog_llmobs::Upstream;
use llmobs_authz::{AuthMode, DatadogHeadersGate, Gate, OpenGate, PublicUrl, StaticBearerGate};

use super::error::CliError;
use super::peer::{Peer, identify};
use super::settings::{CallerSettings, Choice, Setting, Settings};

pub(crate) use credentials::own_credentials;
use credentials::{drop_server_credentials, require_site};
use listen::ListenPolicy;
#[cfg(feature = "oauth")]
use sign_in::SignInPlan;
#[cfg(not(feature = "oauth"))]
use without_oauth::SignInPlan;

/// The gate that the settings ask for, before the upstream is open.
pub(crate) struct GatePlan {
    kind: GateKind,
    /// The base URL of `--api-url`, if the API there alone checks credentials from other machines.
    verifier: Option<String>,
    /// Who may call, for people.
    pub(crate) description: String,
}

enum GateKind {
    Ready(Arc<dyn Gate>),
    SignIn(Box<SignInPlan>),
}

impl GatePlan {
    /// Refuses a local backend as the only verifier of callers' credentials: it accepts any.
    ///
    /// # Errors
    /// A local backend answers at the base URL.
    pub(crate) async fn check_verifier(&self, settings: &Settings) -> Result<(), CliError> {
        let Some(base) = &self.verifier else {
            return Ok(());
        };
        if identify(settings, base).await == Some(Peer::LocalBackend) {
            return Err(CliError::usage(
                format!(
                    "{base} is a local backend, which accepts any key, so everybody could read its data"
                ),
                "for local data, use --local --auth static-bearer; or name a Datadog site: --site \
                 datadoghq.eu",
            ));
        }
        Ok(())
    }

    /// Builds the gate. AuthMode `oauth` opens its store and starts its maintenance.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn open(self, upstreams: &Upstreams) -> Result<Arc<dyn Gate>, CliError> {
        match self.kind {
            GateKind::Ready(gate) => Ok(gate),
            GateKind::SignIn(plan) => plan.open(upstreams),
        }
    }
}

/// Decides who may call at `address`. Removes the server's own credentials from the settings where
/// the mode does not use them, and chooses a site where the mode cannot use local data.
pub(crate) fn plan_gate(
    settings: &mut Settings,
    address: SocketAddr,
) -> Result<GatePlan, CliError> {
    let callers = std::mem::take(&mut settings.callers);
    let mode = match callers.mode()? {
        Some(named) => named,
        None => default_mode(settings, address)?,
    };
    let policy = ListenPolicy::new(address, callers.public_url()?);
    callers.check_sign_in(&mode)?;
    let description = format!("{} ({})", describe(mode.value, &callers), mode.source);
    let exposed = policy.is_exposed();
    let kind = match mode.value {
        AuthMode::None => {
            policy.require_this_machine(&mode.source)?;
            GateKind::Ready(Arc::new(OpenGate))
        }
        AuthMode::DatadogHeaders => {
            policy.require_public_url()?;
            if exposed || cfg!(not(feature = "local")) {
                require_site(settings, mode.value)?;
            }
            drop_server_credentials(settings, mode.value);
            GateKind::Ready(Arc::new(DatadogHeadersGate::new(policy.into_url())))
        }
        AuthMode::StaticBearer => {
            policy.require_public_url()?;
            let (gate, source) = static_bearer(&callers, policy.into_url())?;
            tracing::debug!("the bearer secret is from {source}");
            GateKind::Ready(Arc::new(gate))
        }
        AuthMode::OAuth => {
            let plan = SignInPlan::new(settings, &callers, policy.into_url())?;
            GateKind::SignIn(Box::new(plan))
        }
    };
    let verifier = match (&settings.choice, mode.value) {
        (
            Choice::Datadog(upstream @ Upstream::Url(_)),
            AuthMode::DatadogHeaders | AuthMode::OAuth,
        ) if exposed => Some(upstream.api_base().into_owned()),
        _ => None,
    };
    Ok(GatePlan {
        kind,
        verifier,
        description,
    })
}

/// The mode if no setting names one.
fn default_mode(settings: &Settings, address: SocketAddr) -> Result<Setting<AuthMode>, CliError> {
    if !address.ip().is_loopback() {
        return Err(CliError::usage(
            format!(
                "{address} can be reached from other machines, and no setting says who may call there"
            ),
            "add --auth static-bearer (one secret) or --auth oauth (users sign in), both with \
             --public-url https://mcp.example.com; or use a loopback address such as 127.0.0.1:8787",
        ));
    }
    if let (Choice::Datadog(_), Some(origin)) = (&settings.choice, own_credentials(settings)) {
        return Err(CliError::usage(
            format!(
                "this server has Datadog credentials ({origin}), and every program that reaches \
                 {address} could use them"
            ),
            format!(
                "to allow that, run `llmobs-mcp serve --http {address} --auth none`; or require a \
                 secret with --auth static-bearer and LLMOBS_MCP_BEARER; with --auth datadog-headers \
                 callers use their own keys only"
            ),
        ));
    }
    Ok(Setting {
        value: AuthMode::DatadogHeaders,
        source: "the default".to_owned(),
    })
}

/// Where the secret of a mode comes from, if the mode has one.
///
/// # Errors
/// The secret is missing or unusable.
pub(crate) fn secret_source(
    mode: AuthMode,
    callers: &CallerSettings,
) -> Result<Option<String>, CliError> {
    match mode {
        AuthMode::None | AuthMode::DatadogHeaders => Ok(None),
        AuthMode::StaticBearer => static_bearer(callers, None).map(|(_, source)| Some(source)),
        AuthMode::OAuth => SignInPlan::key_source(callers).map(Some),
    }
}

fn static_bearer(
    callers: &CallerSettings,
    public_url: Option<PublicUrl>,
) -> Result<(StaticBearerGate, String), CliError> {
    const HINT: &str = "generate one with `openssl rand -hex 32` and set LLMOBS_MCP_BEARER, or name a \
                        file that holds it in LLMOBS_MCP_BEARER_FILE";
    let Some(Setting { value, source }) = callers.bearer()? else {
        return Err(CliError::usage(
            "mode static-bearer needs a secret that callers send, and none is set",
            HINT,
        ));
    };
    match StaticBearerGate::new(&value, public_url) {
        Ok(gate) => Ok((gate, source)),
        Err(error) => Err(CliError::usage(format!("{source}: {error}"), HINT)),
    }
}

/// Describes for people who may call, and with which credentials.
pub(crate) fn describe(mode: AuthMode, callers: &CallerSettings) -> &'static str {
    match mode {
        AuthMode::None => "none: every program on this machine, with this server's credentials",
        AuthMode::DatadogHeaders => {
            "datadog-headers: each request brings its own Datadog credentials"
        }
        AuthMode::StaticBearer => {
            "static-bearer: callers that send the bearer secret, with this server's credentials"
        }
        AuthMode::OAuth if callers.datadog_sign_in.is_some() => {
            "oauth: users sign in here, with a Datadog sign-in or their own Datadog credentials"
        }
        AuthMode::OAuth => "oauth: users sign in here with their own Datadog credentials",
    }
}

#[cfg(test)]
mod tests;
