//! The hosts of a sign-in: for registration, for the browser and for tokens.
//!
//! A response may move a sign-in to another Datadog site, because each account belongs to a site; it
//! can never move it to another host. A sign-in at a server on this machine stays at exactly that
//! authority.

use url::Url;

use super::super::site::{Site, Upstream, is_loopback};
use super::super::text;
use super::error::LoginError;

const REGISTER_PATH: &str = "/api/v2/oauth2/register";
const AUTHORIZE_PATH: &str = "/oauth2/v1/authorize";
const TOKEN_PATH: &str = "/oauth2/v1/token";
const REVOKE_PATH: &str = "/oauth2/v1/revoke";

/// Where a login is valid: a Datadog site, or a server on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginTarget(Upstream);

impl LoginTarget {
    /// The target of an upstream.
    ///
    /// # Errors
    /// [`LoginError::UnsupportedTarget`] for a URL that is neither a site nor on this machine: its
    /// hosts are unknown.
    pub fn from_upstream(upstream: &Upstream) -> Result<Self, LoginError> {
        match upstream {
            Upstream::Site(_) => Ok(Self(upstream.clone())),
            Upstream::Url(url) if is_loopback(url) => Ok(Self(upstream.clone())),
            Upstream::Url(_) | Upstream::Local => Err(LoginError::UnsupportedTarget),
        }
    }

    /// Parses a [`LoginTarget::key`]; `None` if it is no longer a valid target.
    pub fn from_key(key: &str) -> Option<Self> {
        let upstream = if key.starts_with("http") {
            Upstream::from_api_url(key).ok()?
        } else {
            Upstream::Site(site_by_domain(key)?)
        };
        Self::from_upstream(&upstream).ok()
    }

    /// The key of the target in stores: the site, or the base URL of `--api-url`.
    pub fn key(&self) -> String {
        match &self.0 {
            Upstream::Site(site) => site.domain().to_owned(),
            other => other.api_base().into_owned(),
        }
    }

    /// The upstream whose API accepts the tokens.
    pub fn upstream(&self) -> &Upstream {
        &self.0
    }

    /// The name in messages.
    pub fn name(&self) -> String {
        text::excerpt(&self.0.name(), 100)
    }

    pub(super) fn register_url(&self) -> String {
        format!("{}{REGISTER_PATH}", self.0.api_base())
    }

    pub(super) fn token_url(&self) -> String {
        format!("{}{TOKEN_PATH}", self.0.api_base())
    }

    pub(super) fn revoke_url(&self) -> String {
        format!("{}{REVOKE_PATH}", self.0.api_base())
    }

    /// The authorization endpoint, which the browser opens.
    pub fn authorize_url(&self) -> String {
        let base = match &self.0 {
            Upstream::Site(site) => site.app_base().to_owned(),
            other => other.api_base().into_owned(),
        };
        format!("{base}{AUTHORIZE_PATH}")
    }

    /// The target that the `domain` of a response names; this one if there is no `domain`.
    pub(super) fn with_domain(&self, domain: Option<&str>) -> Result<Self, LoginError> {
        let Some(domain) = domain else {
            return Ok(self.clone());
        };
        match &self.0 {
            Upstream::Url(url) => {
                let expected = authority(url);
                if domain == expected {
                    Ok(self.clone())
                } else {
                    Err(LoginError::WrongAuthority {
                        found: text::excerpt(domain, 80),
                        expected,
                    })
                }
            }
            _ => site_by_domain(domain)
                .map(|site| Self(Upstream::Site(site)))
                .ok_or_else(|| LoginError::ForeignDomain(text::excerpt(domain, 80))),
        }
    }

    /// Checks that the `site` of a response, the address of the account's web pages, is Datadog's.
    /// Nothing is sent there, but a response that names another host is not trusted. Organisations
    /// can have a subdomain below a site.
    pub(super) fn check_site(&self, site: Option<&str>) -> Result<(), LoginError> {
        let Some(site) = site else {
            return Ok(());
        };
        let url = Url::parse(site)
            .ok()
            .filter(|url| url.username().is_empty() && url.password().is_none());
        match &self.0 {
            Upstream::Url(base) => {
                let expected = authority(base);
                match url {
                    Some(url) if authority(&url) == expected => Ok(()),
                    _ => Err(LoginError::WrongAuthority {
                        found: text::excerpt(site, 80),
                        expected,
                    }),
                }
            }
            _ if url.as_ref().is_some_and(is_site_page) => Ok(()),
            _ => Err(LoginError::ForeignDomain(text::excerpt(site, 80))),
        }
    }
}

/// Whether this is an https URL on a Datadog site or below one.
fn is_site_page(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let is_site = Site::all().any(|site| {
        host.strip_suffix(site.domain())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    is_site && url.scheme() == "https" && url.port().is_none()
}

/// A site by its exact domain. [`Site::parse`] is too lenient here: it accepts aliases.
fn site_by_domain(domain: &str) -> Option<Site> {
    Site::all().find(|site| site.domain() == domain)
}

/// `host:port` as a browser writes it.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn eu() -> LoginTarget {
        LoginTarget::from_upstream(&Upstream::Site(Site::parse("eu").unwrap())).unwrap()
    }

    fn local() -> LoginTarget {
        LoginTarget::from_upstream(&Upstream::from_api_url("http://127.0.0.1:9/").unwrap()).unwrap()
    }

    #[test]
    fn authorize_url_is_on_web_host_and_token_url_on_api_host() {
        assert_eq!(
            eu().authorize_url(),
            "https://app.datadoghq.eu/oauth2/v1/authorize"
        );
        assert_eq!(eu().token_url(), "https://api.datadoghq.eu/oauth2/v1/token");
        assert_eq!(
            local().authorize_url(),
            "http://127.0.0.1:9/oauth2/v1/authorize"
        );
    }

    #[rstest]
    #[case("us3.datadoghq.com", true)]
    #[case("datadoghq.com", true)]
    #[case("evil.example", false)]
    #[case("datadoghq.com.evil.example", false)]
    #[case("evildatadoghq.com", false)]
    #[case("evil.datadoghq.com", false)]
    #[case("datadoghq.com/@evil.example", false)]
    #[case("datadoghq.com:8443", false)]
    #[case("https://datadoghq.com", false)]
    #[case("DATADOGHQ.COM", false)]
    #[case("us3", false)]
    #[case("ddog-gov.com", false)]
    #[case("127.0.0.1:9", false)]
    #[case("", false)]
    fn accepts_exact_site_domains_only(#[case] domain: &str, #[case] accepted: bool) {
        match eu().with_domain(Some(domain)) {
            Ok(target) => {
                assert!(accepted, "{domain}");
                assert_eq!(target.key(), domain);
            }
            Err(error) => {
                assert!(!accepted, "{domain}");
                assert!(matches!(error, LoginError::ForeignDomain(_)));
            }
        }
        assert_eq!(eu().with_domain(None).unwrap(), eu());
    }

    #[rstest]
    #[case("127.0.0.1:9", true)]
    #[case("localhost:9", false)]
    #[case("127.0.0.1:10", false)]
    #[case("127.0.0.1", false)]
    #[case("datadoghq.com", false)]
    #[case("127.0.0.1:9@evil.example", false)]
    fn local_target_accepts_its_authority_as_domain(#[case] domain: &str, #[case] accepted: bool) {
        assert_eq!(
            local().with_domain(Some(domain)).is_ok(),
            accepted,
            "{domain}"
        );
    }

    #[rstest]
    #[case("https://us3.datadoghq.com", true)]
    #[case("https://app.datadoghq.eu/", true)]
    #[case("https://acme.datadoghq.com", true)]
    #[case("http://app.datadoghq.eu", false)]
    #[case("https://evil.example", false)]
    #[case("https://datadoghq.com.evil.example", false)]
    #[case("https://evildatadoghq.com", false)]
    #[case("https://datadoghq.com@evil.example", false)]
    #[case("https://evil.example@datadoghq.com", false)]
    #[case("https://datadoghq.com:8443", false)]
    #[case("datadoghq.com", false)]
    #[case("", false)]
    fn accepts_pages_of_datadog_sites_only(#[case] site: &str, #[case] accepted: bool) {
        assert_eq!(eu().check_site(Some(site)).is_ok(), accepted, "{site}");
        assert_eq!(eu().check_site(None), Ok(()));
    }

    #[rstest]
    #[case("http://127.0.0.1:9", true)]
    #[case("http://127.0.0.1:10", false)]
    #[case("http://127.0.0.1:9@evil.example", false)]
    #[case("https://app.datadoghq.eu", false)]
    fn local_target_accepts_its_authority_as_site(#[case] site: &str, #[case] accepted: bool) {
        assert_eq!(local().check_site(Some(site)).is_ok(), accepted, "{site}");
    }

    #[test]
    fn rejects_other_urls_as_target() {
        let proxy = Upstream::from_api_url("https://proxy.example.com").unwrap();
        assert_eq!(
            LoginTarget::from_upstream(&proxy),
            Err(LoginError::UnsupportedTarget)
        );
        assert_eq!(LoginTarget::from_key("https://proxy.example.com"), None);
        assert_eq!(LoginTarget::from_key("evil.example"), None);
        assert_eq!(LoginTarget::from_key(&local().key()), Some(local()));
        assert_eq!(LoginTarget::from_key(&eu().key()), Some(eu()));
    }
}
