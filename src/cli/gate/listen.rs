//! What a listening address requires of the settings.

use std::net::SocketAddr;

use crate::cli::error::CliError;
use crate::cli::settings::Setting;
use llmobs_authz::PublicUrl;

/// The address that the server listens on, and the URL that callers use.
pub(super) struct ListenPolicy {
    address: SocketAddr,
    public_url: Option<Setting<PublicUrl>>,
}

impl ListenPolicy {
    pub(super) fn new(address: SocketAddr, public_url: Option<Setting<PublicUrl>>) -> Self {
        Self {
            address,
            public_url,
        }
    }

    pub(super) fn into_url(self) -> Option<PublicUrl> {
        self.public_url.map(|url| url.value)
    }

    /// Whether other machines can reach the server, directly or through a proxy.
    pub(super) fn is_exposed(&self) -> bool {
        let public = self.public_url.as_ref();
        !self.address.ip().is_loopback() || public.is_some_and(|url| !url.value.is_loopback())
    }

    /// Mode none: refuses everything but a loopback address without a public URL.
    pub(super) fn require_this_machine(&self, mode_source: &str) -> Result<(), CliError> {
        if !self.address.ip().is_loopback() {
            return Err(CliError::usage(
                format!(
                    "{} can be reached from other machines, and mode none ({mode_source}) does not \
                     authenticate callers",
                    self.address
                ),
                "use a loopback address such as 127.0.0.1:8787; or --auth static-bearer with the secret \
                 in LLMOBS_MCP_BEARER and --public-url https://mcp.example.com",
            ));
        }
        match &self.public_url {
            Some(url) => Err(CliError::usage(
                format!(
                    "{} means that other machines reach this server, and mode none ({mode_source}) \
                     does not authenticate callers",
                    url.source
                ),
                "remove the public URL, or use --auth static-bearer with the secret in \
                 LLMOBS_MCP_BEARER",
            )),
            None => Ok(()),
        }
    }

    /// Beyond loopback only a setting can name the hosts that `Host` may hold.
    pub(super) fn require_public_url(&self) -> Result<(), CliError> {
        if self.public_url.is_some() || self.address.ip().is_loopback() {
            return Ok(());
        }
        Err(CliError::usage(
            format!(
                "{} can be reached from other machines, and without a public URL the server cannot \
                 check the Host header of requests",
                self.address
            ),
            "name the URL that callers use, with TLS in front: --public-url https://mcp.example.com",
        ))
    }
}
