//! Mode `oauth`: the settings of the authorization server.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::error::CliError;
use crate::cli::settings::{CallerSettings, Choice, Setting, Settings};
use crate::server::Upstreams;
use datadog_llmobs::login;
use llmobs_authz::oauth::{
    AuthorizationServer, AuthorizationServerOptions, DatadogSignIn, DocumentFetcher,
    HttpDocumentFetcher, SecretKey, SystemClock, SystemResolver,
};
use llmobs_authz::{AuthMode, Gate, PublicUrl};

use super::credentials::{drop_server_credentials, require_site};

/// The authorization server before an upstream is open to verify credentials at.
pub(super) struct SignInPlan {
    public_url: PublicUrl,
    key: SecretKey,
    state_dir: PathBuf,
    documents: Option<Arc<dyn DocumentFetcher>>,
    datadog_sign_in: Option<DatadogSignIn>,
}

impl SignInPlan {
    /// Checks the settings of mode `oauth`.
    pub(super) fn new(
        settings: &mut Settings,
        callers: &CallerSettings,
        public_url: Option<PublicUrl>,
    ) -> Result<Self, CliError> {
        let Some(public_url) = public_url else {
            return Err(CliError::usage(
                "mode oauth needs the URL that callers use: its metadata and tokens contain it",
                "--public-url https://mcp.example.com; to try it on this machine, --public-url \
                 http://127.0.0.1:8787",
            ));
        };
        let (key, _) = secret_key(callers)?;
        require_site(settings, AuthMode::OAuth)?;
        drop_server_credentials(settings, AuthMode::OAuth);
        let Some(state_dir) = settings.state_dir.clone() else {
            return Err(CliError::usage(
                "the directory of users' sign-ins is unknown, because this user has no home directory",
                "name one: LLMOBS_MCP_STATE_DIR=/path/to/directory",
            ));
        };
        let documents: Option<Arc<dyn DocumentFetcher>> = if callers.metadata_documents {
            let fetch =
                HttpDocumentFetcher::new(Arc::new(SystemResolver), settings.ca_file.as_deref())
                    .map_err(|why| CliError::usage(why, "check --ca-file"))?;
            Some(Arc::new(fetch))
        } else {
            None
        };
        Ok(Self {
            public_url,
            key,
            state_dir,
            documents,
            datadog_sign_in: datadog_sign_in(settings, callers)?,
        })
    }

    /// Where the secret key comes from.
    pub(super) fn key_source(callers: &CallerSettings) -> Result<String, CliError> {
        secret_key(callers).map(|(_, source)| source)
    }

    /// Opens the store of sign-ins and starts its maintenance.
    pub(super) fn open(self, upstreams: &Upstreams) -> Result<Arc<dyn Gate>, CliError> {
        let options = AuthorizationServerOptions {
            public_url: self.public_url,
            key: self.key,
            hub: upstreams.hub().clone(),
            documents: self.documents,
            sign_in: self.datadog_sign_in,
            clock: Arc::new(SystemClock::default()),
        };
        let server = AuthorizationServer::open(&self.state_dir, options)
            .map_err(|error| CliError::failed(error, ""))?;
        let server = Arc::new(server);
        let maintained = server.clone();
        tokio::spawn(async move { maintained.run_maintenance().await });
        Ok(server)
    }
}

/// The sign-in at Datadog, if a setting allows it.
fn datadog_sign_in(
    settings: &Settings,
    callers: &CallerSettings,
) -> Result<Option<DatadogSignIn>, CliError> {
    let (Some(source), Choice::Datadog(upstream)) = (&callers.datadog_sign_in, &settings.choice)
    else {
        return Ok(None);
    };
    let target = login::LoginTarget::from_upstream(upstream).map_err(|_| {
        CliError::usage(
            format!(
                "{source}: users can sign in at a Datadog site, or at an --api-url on this machine; this \
                 --api-url is neither"
            ),
            "name a site, for example --site datadoghq.eu, or remove the setting so that users give a \
             token or keys",
        )
    })?;
    Ok(Some(DatadogSignIn {
        target,
        client_id: callers.datadog_client_id()?,
    }))
}

fn secret_key(callers: &CallerSettings) -> Result<(SecretKey, String), CliError> {
    const HINT: &str = "generate one with `openssl rand -hex 32`, keep it apart from the store, and set \
                        LLMOBS_MCP_SECRET_KEY, or name a file that holds it with --secret-key-file";
    let Some(Setting { value, source }) = callers.secret_key()? else {
        return Err(CliError::usage(
            "mode oauth encrypts users' Datadog credentials, and no secret key is set",
            HINT,
        ));
    };
    match SecretKey::parse(&value) {
        Ok(key) => Ok((key, source)),
        Err(error) => Err(CliError::usage(format!("{source}: {error}"), HINT)),
    }
}
