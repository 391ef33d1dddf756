//! Users who sign in at Datadog instead of giving a token or keys: this server as an OAuth client of
//! Datadog, between a consent page and the code for our own client.
//!
//! - `client`: under which client id.
//! - `start`: from the consent page to Datadog.
//! - `callback`: back from there, to tokens and a grant.
//! - `renewal`: new tokens in time, one renewal of a grant at a time.
//! - `revocation`: the end of a login with its grant.
//!
//! Two flows meet here, and nothing of one is used in the other: `state`, PKCE and codes towards
//! Datadog are our own, and the client's wait in the consent page. Consent comes first: the browser
//! is sent to Datadog only by the form of a page that it was shown, and what comes back counts only
//! from that browser, once. What a sign-in needs until then is in the store (`state` and cookie as
//! hashes, the verifier sealed), so that the browser may come back to another process.

mod callback;
mod client;
mod renewal;
mod revocation;
mod start;

use url::Url;

use datadog_llmobs::Upstream;
use datadog_llmobs::login::LoginTarget;

use super::redirect;

pub(super) use callback::back;
pub(super) use renewal::Renewing;
pub(super) use start::leave;

/// How users sign in at Datadog.
#[derive(Debug, Clone)]
pub struct DatadogSignIn {
    /// Where. It must be the place of the server's upstream.
    pub place: LoginTarget,
    /// This server's client id there. `None` registers one, which Datadog may refuse to a redirect
    /// address that is not on loopback.
    pub client_id: Option<String>,
}

impl DatadogSignIn {
    /// What a content security policy must name so that the answer to our form may lead to
    /// Datadog's pages: browsers hold every redirect on that way to it. Organisations may have an
    /// address of their own below a site.
    pub(super) fn policy_sources(&self) -> String {
        let page = Url::parse(&self.place.authorize_url());
        let mut sources = page
            .as_ref()
            .map(redirect::policy_source)
            .unwrap_or_default();
        if let Upstream::Site(site) = self.place.upstream() {
            sources.push_str(&format!(" https://*.{}", site.domain()));
        }
        sources
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
    fn the_policy_names_the_pages_of_the_sign_in(
        #[case] upstream: Upstream,
        #[case] sources: &str,
    ) {
        let sign_in = DatadogSignIn {
            place: LoginTarget::from_upstream(&upstream).unwrap(),
            client_id: None,
        };
        assert_eq!(sign_in.policy_sources(), sources);
    }
}
