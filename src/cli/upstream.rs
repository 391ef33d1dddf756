//! From settings to upstreams: which hubs, over which transport.

use std::sync::Arc;

use crate::server::{CredentialSource, Described, Upstreams};
use datadog_llmobs::login::{LoginTarget, StoredLogin};
use datadog_llmobs::{
    HttpTransport, HttpTransportOptions, Hub, HubSettings, Site, Transport, Upstream,
};
use llmobs_local::LocalOptions;
use llmobs_local::owner::Listen;

use super::backend::{Backend, in_folder};
use super::error::CliError;
use super::login::store;
use super::settings::{Choice, Settings};

/// Upstreams, and the local backend if one was opened for them.
pub(crate) struct Connected {
    pub(crate) upstreams: Upstreams,
    pub(crate) backend: Option<Backend>,
}

impl Connected {
    /// Lets go of the local backend.
    pub(crate) async fn close(backend: Option<Backend>) {
        if let Some(backend) = backend {
            backend.close().await;
        }
    }
}

/// Connects to what the settings chose. The secrets move into the upstream.
pub(crate) async fn connect(mut settings: Settings) -> Result<Connected, CliError> {
    match &settings.choice {
        Choice::Datadog(upstream) => {
            let transport = http_transport(&settings).map_err(|error| {
                CliError::usage(
                    error,
                    "the file is named by --ca-file, LLMOBS_MCP_CA_FILE or ca_file",
                )
            })?;
            let own: Arc<dyn CredentialSource> = match &settings.login {
                Some(login) => Arc::new(StoredLogin::open(
                    store(&settings)?,
                    &login.name,
                    &LoginTarget::from_upstream(upstream)?,
                    transport.clone(),
                )?),
                None => Arc::new(std::mem::take(&mut settings.secrets)),
            };
            let hub = Hub::new(upstream.clone(), transport, HubSettings::default());
            let described = Described {
                site: match upstream {
                    Upstream::Site(site) => Some(site.domain().to_owned()),
                    Upstream::Local | Upstream::Url(_) => None,
                },
                url: Some(upstream.api_base().into_owned()),
            };
            Ok(Connected {
                upstreams: Upstreams::datadog(hub, own, described),
                backend: None,
            })
        }
        Choice::Local => {
            let backend = Backend::share(own_data(&settings), Listen::Default).await?;
            let upstreams = Upstreams::local(local_hub(&backend), false, described(&backend));
            Ok(Connected {
                upstreams,
                backend: Some(backend),
            })
        }
        Choice::Unchosen(site) => {
            let backend = Backend::share(own_data(&settings), Listen::Default).await?;
            let upstreams = Upstreams::unchosen(
                local_hub(&backend),
                described(&backend),
                site.domain(),
                for_headers(*site, &settings),
            );
            Ok(Connected {
                upstreams,
                backend: Some(backend),
            })
        }
    }
}

/// The options of the shared store in the folder of the settings.
pub(crate) fn own_data(settings: &Settings) -> LocalOptions {
    let options = in_folder(&settings.data_dir, settings.retention);
    if settings.datadog_limits {
        return options.with_datadog_limits();
    }
    options
}

/// The hub over a local backend.
pub(crate) fn local_hub(backend: &Backend) -> Hub {
    Hub::new(Upstream::Local, backend.transport(), HubSettings::default())
}

/// What a local backend is, for people.
pub(crate) fn described(backend: &Backend) -> Described {
    Described {
        site: None,
        url: Some(backend.url()),
    }
}

/// The transport to a host, with the user's certificates.
pub(crate) fn http_transport(settings: &Settings) -> Result<Arc<dyn Transport>, String> {
    let options = HttpTransportOptions {
        ca_file: settings.ca_file.clone(),
        ..HttpTransportOptions::default()
    };
    match HttpTransport::new(&options) {
        Ok(transport) => Ok(Arc::new(transport)),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the hub for requests that bring their own credentials, when the first one comes.
fn for_headers(
    site: Site,
    settings: &Settings,
) -> Box<dyn Fn() -> Result<Hub, String> + Send + Sync> {
    let options = HttpTransportOptions {
        ca_file: settings.ca_file.clone(),
        ..HttpTransportOptions::default()
    };
    Box::new(move || {
        let transport = HttpTransport::new(&options).map_err(|error| error.to_string())?;
        Ok(Hub::new(
            Upstream::Site(site),
            Arc::new(transport),
            HubSettings::default(),
        ))
    })
}
