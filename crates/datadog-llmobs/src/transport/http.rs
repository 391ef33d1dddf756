//! HTTP over the network, with reqwest.
//!
//! Redirects are disabled: HTTP libraries strip only the standard credential headers, so a redirect
//! would send `DD-API-KEY` to another host. There are two connection pools: one for this machine (no
//! proxy, plain HTTP allowed) and one for all other hosts (https only, proxies from the environment).

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
use crate::cause::ErrorCause;
use crate::site::is_loopback;
use crate::text;

/// Settings of an [`HttpTransport`].
#[derive(Debug, Clone)]
pub struct HttpTransportOptions {
    /// The timeout of connecting. Default: 5 s.
    pub connect_timeout: Duration,
    /// A PEM file of trusted certificates, in addition to those of the system.
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

/// Why an HTTP client could not be created.
#[derive(Debug, Error)]
pub enum HttpTransportError {
    /// The CA file cannot be read.
    #[error("cannot read the CA file {path}: {source}", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The CA file holds no certificate.
    #[error(
        "the CA file {path} holds no PEM certificate; a certificate starts with `-----BEGIN CERTIFICATE-----`",
        path = .0.display()
    )]
    NoCertificate(PathBuf),
    /// TLS cannot be initialised, mostly because the system has no trusted certificates.
    #[error(
        "TLS could not be initialised ({0}); install the system's CA certificates (package ca-certificates), or name a bundle in SSL_CERT_FILE"
    )]
    Tls(#[source] ErrorCause),
}

/// Sends requests over the network.
pub struct HttpTransport {
    remote: reqwest::Client,
    loopback: reqwest::Client,
}

impl HttpTransport {
    /// Creates the connection pools. Reads `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` once.
    ///
    /// # Errors
    /// An unreadable CA file, or a system without trusted certificates.
    pub fn new(options: &HttpTransportOptions) -> Result<Self, HttpTransportError> {
        let extra_certificates = match &options.ca_file {
            Some(path) => read_certificates(path)?,
            None => Vec::new(),
        };
        let builder = || {
            crate::http_client()
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(options.connect_timeout)
                .tls_certs_merge(extra_certificates.clone())
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .build()
                .map_err(|error| HttpTransportError::Tls(root_cause(error)))
        };
        Ok(Self {
            remote: build(builder().https_only(true))?,
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
            &self.remote
        } else {
            return Err(TransportError::NotSent(
                "plain HTTP is allowed only for loopback addresses",
            ));
        };
        let request = reqwest::Request::try_from(request)
            .map_err(|_| TransportError::NotSent("it is malformed"))?;
        let mut response = client
            .execute(request)
            .await
            .map_err(|error| classify(error, limits))?;
        let mut body = BodyCollector::new(response.status().is_success(), limits);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    if !body.push(&chunk)? {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    body.interrupted(classify(error, limits))?;
                    break;
                }
            }
        }
        let mut complete = Response::new(body.finish());
        *complete.status_mut() = response.status();
        *complete.headers_mut() = std::mem::take(response.headers_mut());
        Ok(complete)
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

/// Classifies an error by whether the request can have been executed.
fn classify(error: reqwest::Error, limits: ResponseLimits) -> TransportError {
    let error = error.without_url();
    if error.is_builder() {
        TransportError::NotSent("it is malformed")
    } else if error.is_dns() {
        TransportError::Dns
    } else if error.is_connect() {
        if error.is_timeout() {
            TransportError::ConnectTimeout
        } else if is_tls(&error) {
            TransportError::Tls(root_cause(error))
        } else {
            TransportError::Connect(root_cause(error))
        }
    } else if error.is_timeout() {
        TransportError::Timeout(limits.timeout)
    } else if error.is_decode() && !is_io(&error) {
        TransportError::BadEncoding
    } else {
        TransportError::Interrupted(root_cause(error))
    }
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        // An I/O error that wraps an error returns the source of that error as its own, and so skips it.
        match error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::get_ref)
        {
            Some(Some(wrapped)) => Some(wrapped),
            _ => (*error).source(),
        }
    })
}

/// The error, with the message of its root cause.
fn root_cause(error: reqwest::Error) -> ErrorCause {
    let message = causes(&error).last().map(ToString::to_string);
    ErrorCause::with_message(text::excerpt(&message.unwrap_or_default(), 200), error)
}

/// rustls reports certificate and protocol errors as I/O errors of this kind.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
    })
}

/// Whether an undecodable body was interrupted rather than damaged.
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
