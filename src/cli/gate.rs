//! From settings to the gate of `serve --http`: which mode, whether it may start at all, and with
//! what.
//!
//! Everything that can be refused is refused here, before a port or a store is opened. Two rules
//! decide: credentials of the server's own are lent to nobody unless somebody said so, and whoever
//! comes from another machine shows who they are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::server::{CredentialSource, Upstreams};
use datadog_llmobs::Upstream;
use datadog_llmobs::login;
use llmobs_authz::oauth::{
    AuthorizationServer, DatadogSignIn, FetchDocument, HttpFetch, Options, SecretKey, SystemClock,
    SystemResolver,
};
use llmobs_authz::{DatadogHeaders, Gate, Mode, Open, PublicUrl, StaticBearer};

use super::args::ServeArgs;
use super::doctor;
use super::error::CliError;
use super::settings::{Callers, Choice, Said, Secrets, Settings};

/// What stands before the MCP endpoint.
pub(crate) struct Front {
    kind: Kind,
    /// The base of an API, not a site's, that alone judges credentials of callers from elsewhere.
    judge: Option<String>,
    /// Who may call, for people.
    pub(crate) told: String,
}

enum Kind {
    Ready(Arc<dyn Gate>),
    SignIn(Box<SignIn>),
}

/// What the sign-in is made of, once there is an upstream to try credentials at.
struct SignIn {
    public_url: PublicUrl,
    key: SecretKey,
    state_dir: PathBuf,
    documents: Option<Arc<dyn FetchDocument>>,
    at_datadog: Option<DatadogSignIn>,
}

impl Front {
    /// Looks whether a local backend would be the judge of strangers' credentials: it takes any.
    ///
    /// # Errors
    /// It would.
    pub(crate) async fn check(&self, settings: &Settings) -> Result<(), CliError> {
        let Some(base) = &self.judge else {
            return Ok(());
        };
        let who = doctor::who_answers(settings, base).await;
        if who.is_some_and(|who| who.ours) {
            return Err(CliError::usage(
                format!(
                    "at {base} a local backend answers, which takes every key for a good one, so everybody \
                     could read its data"
                ),
                "use --local --auth static-bearer in front of local data, or name a Datadog site: --site \
                 datadoghq.eu",
            ));
        }
        Ok(())
    }

    /// The gate. Opens the store of sign-ins where the mode has one, and keeps it in order from
    /// then on.
    ///
    /// # Errors
    /// The store cannot be used.
    pub(crate) fn open(self, upstreams: &Upstreams) -> Result<Arc<dyn Gate>, CliError> {
        let sign_in = match self.kind {
            Kind::Ready(gate) => return Ok(gate),
            Kind::SignIn(sign_in) => sign_in,
        };
        let options = Options {
            public_url: sign_in.public_url,
            key: sign_in.key,
            hub: upstreams.hub().clone(),
            documents: sign_in.documents,
            sign_in: sign_in.at_datadog,
            clock: Arc::new(SystemClock::default()),
        };
        let server = AuthorizationServer::open(&sign_in.state_dir, options)
            .map_err(|error| CliError::failed(error, ""))?;
        let server = Arc::new(server);
        let tended = server.clone();
        tokio::spawn(async move { tended.tend().await });
        Ok(server)
    }
}

/// Decides who may call at `address`. Takes the server's own credentials out of the settings where
/// the mode does not use them, and chooses a site where the mode has no use for local data.
pub(crate) fn front(
    settings: &mut Settings,
    flags: &ServeArgs,
    address: SocketAddr,
) -> Result<Front, CliError> {
    let callers = std::mem::take(&mut settings.callers).with_flags(flags);
    let mode = match callers.mode()? {
        Some(named) => named,
        None => by_default(settings, address)?,
    };
    let public_url = callers.public_url()?;
    let place = Place {
        address,
        public_url,
    };
    callers.check_sign_in(&mode)?;
    let told = format!("{} ({})", words(mode.value, &callers), mode.by);
    let exposed = place.is_exposed();
    let kind = match mode.value {
        Mode::None => {
            place.must_be_this_machine(&mode.by)?;
            Kind::Ready(Arc::new(Open))
        }
        Mode::DatadogHeaders => {
            place.must_have_a_name()?;
            if exposed {
                choose_site(settings, mode.value)?;
            }
            lend_nothing(settings, mode.value);
            Kind::Ready(Arc::new(DatadogHeaders::new(place.into_url())))
        }
        Mode::StaticBearer => {
            place.must_have_a_name()?;
            let (gate, by) = static_bearer(&callers, place.into_url())?;
            tracing::debug!("the bearer secret is from {by}");
            Kind::Ready(Arc::new(gate))
        }
        Mode::OAuth => Kind::SignIn(Box::new(sign_in(settings, &callers, place)?)),
    };
    let judge = match (&settings.choice, mode.value) {
        (Choice::Datadog(upstream @ Upstream::Url(_)), Mode::DatadogHeaders | Mode::OAuth)
            if exposed =>
        {
            Some(upstream.api_base().into_owned())
        }
        _ => None,
    };
    Ok(Front { kind, judge, told })
}

/// The mode when none was named.
fn by_default(settings: &Settings, address: SocketAddr) -> Result<Said<Mode>, CliError> {
    if !address.ip().is_loopback() {
        return Err(CliError::usage(
            format!(
                "{address} can be reached from other machines, and nothing says who may call there"
            ),
            "say it: --auth static-bearer (one secret) or --auth oauth (users sign in), both with \
             --public-url https://mcp.example.com; or use a loopback address such as 127.0.0.1:8787",
        ));
    }
    if let (Choice::Datadog(_), Some(origin)) = (&settings.choice, own(settings)) {
        return Err(CliError::usage(
            format!(
                "this server has Datadog credentials of its own ({origin}), and whoever reaches \
                 {address} could use them"
            ),
            format!(
                "say that you want it: `llmobs-mcp serve --http {address} --auth none` for everybody on \
                 this machine, or --auth static-bearer for whoever knows the secret in \
                 LLMOBS_MCP_BEARER; with --auth datadog-headers callers use keys of their own only"
            ),
        ));
    }
    Ok(Said {
        value: Mode::DatadogHeaders,
        by: "the default".to_owned(),
    })
}

/// Where the server's own credentials come from, if it has any.
pub(crate) fn own(settings: &Settings) -> Option<String> {
    if let Some(login) = &settings.login {
        return Some(format!("the stored login of profile {}", login.name));
    }
    let complete = !settings.secrets.current().is_none();
    complete.then(|| settings.secrets.origin())
}

/// Takes the server's own credentials away: then no mistake can lend them.
fn lend_nothing(settings: &mut Settings, mode: Mode) {
    if let Some(origin) = own(settings) {
        tracing::warn!(
            "{origin}: not used, because in mode {mode} callers use credentials of their own"
        );
    }
    settings.secrets = Secrets::default();
    settings.login = None;
}

/// Without a choice the data would be local, which asks nobody for a credential: then it is a site.
fn choose_site(settings: &mut Settings, mode: Mode) -> Result<(), CliError> {
    match settings.choice {
        Choice::Datadog(_) => Ok(()),
        Choice::Unchosen(site) => {
            settings.choice = Choice::Datadog(Upstream::Site(site));
            settings.because = format!("callers in mode {mode} bring credentials for a site");
            Ok(())
        }
        Choice::Local => Err(CliError::usage(
            format!(
                "in mode {mode} callers show Datadog credentials, and local data ask for none, so \
                 everybody could read them"
            ),
            "use --auth static-bearer in front of local data, or name a Datadog site: --site datadoghq.eu",
        )),
    }
}

/// Where the secret of a mode comes from, if the mode has one.
///
/// # Errors
/// It is missing, or of no use.
pub(crate) fn secret_of(mode: Mode, callers: &Callers) -> Result<Option<String>, CliError> {
    match mode {
        Mode::None | Mode::DatadogHeaders => Ok(None),
        Mode::StaticBearer => static_bearer(callers, None).map(|(_, by)| Some(by)),
        Mode::OAuth => secret_key(callers).map(|(_, by)| Some(by)),
    }
}

fn sign_in(settings: &mut Settings, callers: &Callers, place: Place) -> Result<SignIn, CliError> {
    let Some(public_url) = place.into_url() else {
        return Err(CliError::usage(
            "mode oauth needs to know where callers reach this server: its metadata and tokens name it",
            "--public-url https://mcp.example.com; to try it on this machine, --public-url \
             http://127.0.0.1:8787",
        ));
    };
    let (key, _) = secret_key(callers)?;
    choose_site(settings, Mode::OAuth)?;
    lend_nothing(settings, Mode::OAuth);
    let Some(state_dir) = settings.state_dir.clone() else {
        return Err(CliError::usage(
            "this user has no home folder, so there is no place for users' sign-ins",
            "name one: LLMOBS_MCP_STATE_DIR=/path/to/folder",
        ));
    };
    let documents: Option<Arc<dyn FetchDocument>> = if callers.metadata_documents {
        let fetch = HttpFetch::new(Arc::new(SystemResolver), settings.ca_file.as_deref())
            .map_err(|why| CliError::usage(why, "check --ca-file"))?;
        Some(Arc::new(fetch))
    } else {
        None
    };
    Ok(SignIn {
        public_url,
        key,
        state_dir,
        documents,
        at_datadog: at_datadog(settings, callers)?,
    })
}

/// How users sign in at Datadog, if they may.
fn at_datadog(settings: &Settings, callers: &Callers) -> Result<Option<DatadogSignIn>, CliError> {
    let (Some(by), Choice::Datadog(upstream)) = (&callers.datadog_sign_in, &settings.choice) else {
        return Ok(None);
    };
    let place = login::LoginTarget::from_upstream(upstream).map_err(|_| {
        CliError::usage(
            format!(
                "{by}: users can sign in at a Datadog site, or at an --api-url on this machine, and this \
                 --api-url is neither"
            ),
            "name the site instead, for example --site datadoghq.eu, or let users give tokens and keys only",
        )
    })?;
    Ok(Some(DatadogSignIn {
        place,
        client_id: callers.datadog_client_id()?,
    }))
}

fn secret_key(callers: &Callers) -> Result<(SecretKey, String), CliError> {
    const MEND: &str = "make one with `openssl rand -hex 32`, keep it apart from the store, and set \
                        LLMOBS_MCP_SECRET_KEY, or let --secret-key-file name a file that holds it";
    let Some(Said { value, by }) = callers.secret_key()? else {
        return Err(CliError::usage(
            "mode oauth encrypts users' Datadog credentials, and no secret key is set",
            MEND,
        ));
    };
    match SecretKey::parse(&value) {
        Ok(key) => Ok((key, by)),
        Err(error) => Err(CliError::usage(format!("{by}: {error}"), MEND)),
    }
}

fn static_bearer(
    callers: &Callers,
    public_url: Option<PublicUrl>,
) -> Result<(StaticBearer, String), CliError> {
    const MEND: &str = "make one with `openssl rand -hex 32`, and set LLMOBS_MCP_BEARER, or let \
                        LLMOBS_MCP_BEARER_FILE name a file that holds it";
    let Some(Said { value, by }) = callers.bearer()? else {
        return Err(CliError::usage(
            "mode static-bearer asks callers for a secret, and none is set",
            MEND,
        ));
    };
    match StaticBearer::new(&value, public_url) {
        Ok(gate) => Ok((gate, by)),
        Err(error) => Err(CliError::usage(format!("{by}: {error}"), MEND)),
    }
}

/// Who may call, in words.
pub(crate) fn words(mode: Mode, callers: &Callers) -> &'static str {
    match mode {
        Mode::None => "whoever is on this machine, with the credentials of this server",
        Mode::DatadogHeaders => "whoever comes, with the Datadog credentials that a request brings",
        Mode::StaticBearer => {
            "whoever knows the bearer secret, with the credentials of this server"
        }
        Mode::OAuth if callers.datadog_sign_in.is_some() => {
            "users who sign in here, each with Datadog credentials that they give or sign in at Datadog for"
        }
        Mode::OAuth => "users who sign in here, each with their own Datadog credentials",
    }
}

/// Where the server listens and how it is reached.
struct Place {
    address: SocketAddr,
    public_url: Option<Said<PublicUrl>>,
}

impl Place {
    fn into_url(self) -> Option<PublicUrl> {
        self.public_url.map(|url| url.value)
    }

    /// Whether other machines can reach it, directly or through a proxy.
    fn is_exposed(&self) -> bool {
        let public = self.public_url.as_ref();
        !self.address.ip().is_loopback() || public.is_some_and(|url| !url.value.is_loopback())
    }

    fn must_be_this_machine(&self, by: &str) -> Result<(), CliError> {
        if !self.address.ip().is_loopback() {
            return Err(CliError::usage(
                format!(
                    "{} can be reached from other machines, and mode none ({by}) asks nobody who they \
                     are",
                    self.address
                ),
                "use a loopback address such as 127.0.0.1:8787; or --auth static-bearer with the secret \
                 in LLMOBS_MCP_BEARER and --public-url https://mcp.example.com",
            ));
        }
        match &self.public_url {
            Some(url) => Err(CliError::usage(
                format!(
                    "{} says that other machines reach this server, and mode none ({by}) asks nobody who \
                     they are",
                    url.by
                ),
                "leave out the public URL, or use --auth static-bearer with the secret in \
                 LLMOBS_MCP_BEARER",
            )),
            None => Ok(()),
        }
    }

    /// Beyond loopback nothing but a setting can tell which names in `Host` are ours.
    fn must_have_a_name(&self) -> Result<(), CliError> {
        if self.public_url.is_some() || self.address.ip().is_loopback() {
            return Ok(());
        }
        Err(CliError::usage(
            format!(
                "{} can be reached from other machines, and nothing says under which name, so that \
                 requests with a foreign Host could not be told",
                self.address
            ),
            "name it as callers do, with TLS in front: --public-url https://mcp.example.com",
        ))
    }
}

#[cfg(test)]
mod tests;
