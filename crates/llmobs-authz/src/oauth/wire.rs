//! Fixed names in URLs and tokens: paths of endpoints and prefixes of tokens.

/// The authorization endpoint.
pub(super) const AUTHORIZE: &str = "/oauth/authorize";
/// Where the form of the consent page is sent.
pub(super) const CONSENT: &str = "/oauth/consent";
/// Where browsers return from Datadog. Part of this server's registration at Datadog.
pub(super) const CALLBACK: &str = "/oauth/callback";
/// The token endpoint.
pub(super) const TOKEN: &str = "/oauth/token";
/// The registration endpoint.
pub(super) const REGISTER: &str = "/oauth/register";
/// The revocation endpoint.
pub(super) const REVOKE: &str = "/oauth/revoke";
/// The metadata of a protected resource (RFC 9728).
pub(super) const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";
/// The metadata of the authorization server (RFC 8414).
pub(super) const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";
/// The same document at the path of OpenID Connect, the only one that some clients read.
pub(super) const OPENID_METADATA: &str = "/.well-known/openid-configuration";

/// The prefix of access tokens.
pub(super) const ACCESS_TOKEN_PREFIX: &str = "llmobs_at_";
/// The prefix of refresh tokens.
pub(super) const REFRESH_TOKEN_PREFIX: &str = "llmobs_rt_";
/// The prefix of authorization codes.
pub(super) const CODE_PREFIX: &str = "llmobs_ac_";
