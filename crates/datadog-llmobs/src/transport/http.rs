//! HTTP over the network, by reqwest.
//!
//! Redirects are off: a redirect would carry `DD-API-KEY` to another host, because HTTP libraries
//! strip only the standard credential headers. Two connection pools: one for this machine (no
//! proxy, plain HTTP allowed) and one for everything else (https only, proxies from the
//! environment).

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::redirect;
use thiserror::Error;
use url::Url;

use super::{BodyCollector, ResponseLimits, Transport, TransportError};
use crate::site::is_loopback;
use crate::text;

/// How to reach hosts.
#[derive(Debug, Clone)]
pub struct HttpTransportOptions {
    /// Time to establish a connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// A PEM file with certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for HttpTransportOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            ca_file: None,
        }
    }
}

/// Why no HTTP client could be set up.
#[derive(Debug, Error)]
pub enum HttpTransportError {
    /// The CA file cannot be read.
    #[error("cannot read the CA file {path}: {source}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA file holds no certificate.
    #[error(
        "the CA file {path} holds no PEM certificate; it must hold blocks that begin with `-----BEGIN CERTIFICATE-----`",
        path = .0.display()
    )]
    NoCertificate(PathBuf),
    /// TLS cannot start, most often because the system has no trusted certificates.
    #[error(
        "TLS could not be set up ({0}); install the system's CA certificates (package ca-certificates), or name a bundle in SSL_CERT_FILE"
    )]
    Tls(String),
}

/// Sends requests over the network.
pub struct HttpTransport {
    outside: reqwest::Client,
    loopback: reqwest::Client,
}

impl HttpTransport {
    /// Sets up the connection pools. Proxies are those of `HTTPS_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY`, as they are now.
    ///
    /// # Errors
    /// An unreadable CA file, or a system without trusted certificates.
    pub fn new(options: &HttpTransportOptions) -> Result<Self, HttpTransportError> {
        let extra = match &options.ca_file {
            Some(path) => read_certificates(path)?,
            None => Vec::new(),
        };
        let builder = || {
            crate::http_client()
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(options.connect_timeout)
                .tls_certs_merge(extra.clone())
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .build()
                .map_err(|error| HttpTransportError::Tls(root_cause(&error)))
        };
        Ok(Self {
            outside: build(builder().https_only(true))?,
            loopback: build(builder().no_proxy())?,
        })
    }

    async fn exchange(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> Result<Response<Bytes>, TransportError> {
        let url = Url::parse(&request.uri().to_string())
            .map_err(|_| TransportError::NotSent("its address is not a URL"))?;
        let client = if is_loopback(&url) {
            &self.loopback
        } else if url.scheme() == "https" {
            &self.outside
        } else {
            return Err(TransportError::NotSent(
                "plain HTTP is for this machine only",
            ));
        };
        let request = reqwest::Request::try_from(request)
            .map_err(|_| TransportError::NotSent("it is not well formed"))?;
        let mut answer = client
            .execute(request)
            .await
            .map_err(|error| classify(error, limits))?;
        let mut body = BodyCollector::new(answer.status().is_success(), limits);
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => {
                    if !body.push(&piece)? {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    body.broken(classify(error, limits))?;
                    break;
                }
            }
        }
        let mut response = Response::new(body.finish());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

impl std::fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpTransport")
    }
}

impl Transport for HttpTransport {
    fn send(
        &self,
        request: Request<Bytes>,
        limits: ResponseLimits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        async move {
            tokio::time::timeout(limits.timeout, self.exchange(request, limits))
                .await
                .unwrap_or(Err(TransportError::Timeout(limits.timeout)))
        }
        .boxed()
    }
}

fn read_certificates(path: &PathBuf) -> Result<Vec<reqwest::Certificate>, HttpTransportError> {
    let pem = std::fs::read(path).map_err(|source| HttpTransportError::CaFile {
        path: path.clone(),
        source,
    })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(HttpTransportError::NoCertificate(path.clone())),
    }
}

/// Sorts an error by whether the request can have been executed.
fn classify(error: reqwest::Error, limits: ResponseLimits) -> TransportError {
    let error = error.without_url();
    if error.is_builder() {
        TransportError::NotSent("it is not well formed")
    } else if error.is_dns() {
        TransportError::Dns
    } else if error.is_connect() {
        if error.is_timeout() {
            TransportError::ConnectTimeout
        } else if is_tls(&error) {
            TransportError::Tls(root_cause(&error))
        } else {
            TransportError::Connect(root_cause(&error))
        }
    } else if error.is_timeout() {
        TransportError::Timeout(limits.timeout)
    } else if error.is_decode() && !is_io(&error) {
        TransportError::BadEncoding
    } else {
        TransportError::Interrupted(root_cause(&error))
    }
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        // An I/O error that wraps another one names as its source what is behind that one.
        match error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::get_ref)
        {
            Some(Some(wrapped)) => Some(wrapped),
            _ => (*error).source(),
        }
    })
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let last = causes(error).last().map(ToString::to_string);
    text::excerpt(&last.unwrap_or_default(), 200)
}

/// Certificate and protocol errors come wrapped in I/O errors of this kind.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
    })
}

/// Whether a body that could not be decoded simply stopped coming.
fn is_io(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| {
            !matches!(
                io.kind(),
                std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::Other
            )
        })
    })
}
