//! Which TLS implementation HTTP clients use: rustls with the `ring` provider, which builds in
//! seconds with any C compiler.

/// A builder of HTTP clients that use the TLS provider of this project.
///
/// `reqwest` is built without a default provider, so every client of this workspace starts here.
/// The provider is installed once per process; one that was installed earlier is kept.
pub fn http_client() -> reqwest::ClientBuilder {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
