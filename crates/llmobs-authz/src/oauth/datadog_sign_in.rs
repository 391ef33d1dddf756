//! How users sign in at Datadog, as far as it is configured.

use url::Url;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::{ClientRegistration, DEFAULT_SCOPES, LoginTarget};

use super::redirect_uri;

/// The Datadog scope that changes require.
const WRITE_SCOPE: &str = "llm_observability_write";

/// Configuration of the sign-in at Datadog.
#[derive(Debug, Clone)]
pub struct DatadogSignIn {
    /// Where users sign in. It must be the upstream of the server.
    pub target: LoginTarget,
    /// The client id of this server at Datadog. With `None` the server registers a client, which
    /// Datadog may refuse for a redirect URI that is not on loopback.
    pub client_id: Option<String>,
}

impl DatadogSignIn {
    /// The sources that a content security policy must allow so that the consent form may lead to
    /// Datadog's pages: browsers check every redirect that follows a form. Organisations may have
    /// their own subdomain of a site.
    pub(super) fn policy_sources(&self) -> String {
        let page = Url::parse(&self.target.authorize_url());
        let mut sources = page
            .as_ref()
            .map(redirect_uri::policy_source)
            .unwrap_or_default();
        if let Upstream::Site(site) = self.target.upstream() {
            sources.push_str(&format!(" https://*.{}", site.domain()));
        }
        sources
    }

    /// The registration with a known client id.
    pub(super) fn registration(&self, client_id: String, redirect: String) -> ClientRegistration {
        ClientRegistration {
            target: self.target.clone(),
            client_id,
            redirect_uri: redirect,
        }
    }

    /// The Datadog scopes to request: the write scope only if the user allowed changes.
    pub(super) fn scopes(may_write: bool) -> Vec<String> {
        DEFAULT_SCOPES
            .iter()
            .filter(|scope| may_write || **scope != WRITE_SCOPE)
            .map(|scope| (*scope).to_owned())
            .collect()
    }

    /// Whether the scopes of a login include the write scope.
    pub(super) fn may_write(scope: &str) -> bool {
        scope.split(' ').any(|scope| scope == WRITE_SCOPE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datadog_llmobs::Site;
    use rstest::rstest;

    #[rstest]
    #[case(Upstream::Site(Site::parse("eu").unwrap()), "https://app.datadoghq.eu https://*.datadoghq.eu")]
    #[case(Upstream::Site(Site::parse("us5").unwrap()), "https://us5.datadoghq.com https://*.us5.datadoghq.com")]
    #[case(Upstream::from_api_url("http://127.0.0.1:9").unwrap(), "http://127.0.0.1:9")]
    fn policy_allows_sign_in_pages(#[case] upstream: Upstream, #[case] sources: &str) {
        let sign_in = DatadogSignIn {
            target: LoginTarget::from_upstream(&upstream).unwrap(),
            client_id: None,
        };
        assert_eq!(sign_in.policy_sources(), sources);
    }

    #[test]
    fn requests_write_scope_only_if_allowed() {
        assert_eq!(DatadogSignIn::scopes(false), ["llm_observability_read"]);
        let both = DatadogSignIn::scopes(true);
        assert_eq!(both.len(), 2);
        assert!(DatadogSignIn::may_write(&both.join(" ")));
        assert!(!DatadogSignIn::may_write("llm_observability_read"));
    }
}
