//! Opens the upstreams that the settings choose.

use std::sync::Arc;

use crate::server::{CredentialSource, UpstreamInfo, Upstreams};
use datadog_llmobs::login::{LoginTarget, StoredLogin};
use datadog_llmobs::{
    HttpTransport, HttpTransportOptions, Hub, HubSettings, Site, Transport, Upstream,
};

use super::Backend;
use super::error::CliError;
use super::settings::{Choice, Settings};

/// The upstreams, and the local backend if they need one.
pub(crate) struct Connection {
    pub(crate) upstreams: Upstreams,
    pub(crate) backend: Option<Backend>,
}

/// Closes the local backend of a [`Connection`].
pub(crate) async fn close_backend(backend: Option<Backend>) {
    if let Some(backend) = backend {
        backend.close().await;
    }
}

/// Opens the upstreams that the settings choose. The secrets move into them.
pub(crate) async fn connect(mut settings: Settings) -> Result<Connection, CliError> {
    match &settings.choice {
        Choice::Datadog(upstream) => {
            let upstream = upstream.clone();
            connect_datadog(&mut settings, &upstream)
        }
        Choice::Local => {
            let backend = Backend::open(&settings.local).await?;
            Ok(Connection {
                upstreams: Upstreams::local(backend.hub(), false, backend.describe()),
                backend: Some(backend),
            })
        }
        Choice::Unchosen(site) => {
            let backend = Backend::open(&settings.local).await?;
            Ok(Connection {
                upstreams: Upstreams::unchosen(
                    backend.hub(),
                    backend.describe(),
                    site.domain(),
                    for_headers(*site, &settings),
                ),
                backend: Some(backend),
            })
        }
    }
}

fn connect_datadog(settings: &mut Settings, upstream: &Upstream) -> Result<Connection, CliError> {
    let transport = http_transport(settings).map_err(|error| {
        CliError::usage(
            error,
            "check the file that --ca-file, LLMOBS_MCP_CA_FILE or ca_file names",
        )
    })?;
    let own: Arc<dyn CredentialSource> = match &settings.login {
        Some(login) => Arc::new(StoredLogin::open(
            settings.login_store()?,
            &login.name,
            &LoginTarget::from_upstream(upstream)?,
            transport.clone(),
        )?),
        None => Arc::new(std::mem::take(&mut settings.secrets)),
    };
    let hub = Hub::new(upstream.clone(), transport, HubSettings::default());
    let info = UpstreamInfo {
        site: match upstream {
            Upstream::Site(site) => Some(site.domain().to_owned()),
            Upstream::Local | Upstream::Url(_) => None,
        },
        url: Some(upstream.api_base().into_owned()),
    };
    Ok(Connection {
        upstreams: Upstreams::datadog(hub, own, info),
        backend: None,
    })
}

fn transport_options(settings: &Settings) -> HttpTransportOptions {
    HttpTransportOptions {
        ca_file: settings.ca_file.clone(),
        ..HttpTransportOptions::default()
    }
}

/// The transport over HTTP, with the certificates of the settings.
pub(crate) fn http_transport(settings: &Settings) -> Result<Arc<dyn Transport>, String> {
    match HttpTransport::new(&transport_options(settings)) {
        Ok(transport) => Ok(Arc::new(transport)),
        Err(error) => Err(error.to_string()),
    }
}

/// Creates the hub for requests that bring their own credentials, at the first such request.
fn for_headers(
    site: Site,
    settings: &Settings,
) -> Box<dyn Fn() -> Result<Hub, String> + Send + Sync> {
    let options = transport_options(settings);
    Box::new(move || {
        let transport = HttpTransport::new(&options).map_err(|error| error.to_string())?;
        Ok(Hub::new(
            Upstream::Site(site),
            Arc::new(transport),
            HubSettings::default(),
        ))
    })
}
