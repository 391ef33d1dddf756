//! The TLS implementation of HTTP clients: rustls with the `ring` provider, which builds quickly with
//! any C compiler.

/// A builder of HTTP clients with the TLS provider of this project.
///
/// `reqwest` is built without a default provider, so every HTTP client of this workspace must be built
/// with this function. The provider is installed once per process; an earlier one is kept.
pub fn http_client() -> reqwest::ClientBuilder {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
