//! The hosts of a sign-in: where it registers, where the browser goes, where tokens come from.
//!
//! An answer from the browser may move a sign-in to another Datadog site, because accounts live on
//! sites; it may never move it anywhere else. A server of this machine is its own target: its
//! sign-ins stay at exactly that authority.

use url::Url;

use super::super::site::{Site, Upstream, is_loopback};
use super::super::text;
use super::error::LoginError;

const REGISTER: &str = "/api/v2/oauth2/register";
const AUTHORIZE: &str = "/oauth2/v1/authorize";
const TOKEN: &str = "/oauth2/v1/token";
const REVOKE: &str = "/oauth2/v1/revoke";

/// Where a login lives: a Datadog site, or a server of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginTarget(Upstream);

impl LoginTarget {
    /// The target of an upstream.
    ///
    /// # Errors
    /// [`LoginError::UnsupportedTarget`] for a base that is neither a site nor of this machine: which
    /// hosts belong to it is not known.
    pub fn from_upstream(upstream: &Upstream) -> Result<Self, LoginError> {
        match upstream {
            Upstream::Site(_) => Ok(Self(upstream.clone())),
            Upstream::Url(url) if is_loopback(url) => Ok(Self(upstream.clone())),
            Upstream::Url(_) | Upstream::Local => Err(LoginError::UnsupportedTarget),
        }
    }

    /// The target that [`LoginTarget::key`] names, if it still is one.
    pub fn from_key(key: &str) -> Option<Self> {
        let upstream = if key.starts_with("http") {
            Upstream::from_api_url(key).ok()?
        } else {
            Upstream::Site(Self::site(key)?)
        };
        Self::from_upstream(&upstream).ok()
    }

    /// What the target is called where logins are kept: the site, or the base of `--api-url`.
    pub fn key(&self) -> String {
        match &self.0 {
            Upstream::Site(site) => site.domain().to_owned(),
            other => other.api_base().into_owned(),
        }
    }

    /// The upstream whose API takes the tokens.
    pub fn upstream(&self) -> &Upstream {
        &self.0
    }

    /// How messages call it.
    pub fn name(&self) -> String {
        text::excerpt(&self.0.name(), 100)
    }

    pub(super) fn register_url(&self) -> String {
        format!("{}{REGISTER}", self.0.api_base())
    }

    pub(super) fn token_url(&self) -> String {
        format!("{}{TOKEN}", self.0.api_base())
    }

    pub(super) fn revoke_url(&self) -> String {
        format!("{}{REVOKE}", self.0.api_base())
    }

    /// Where the browser goes.
    pub fn authorize_url(&self) -> String {
        let base = match &self.0 {
            Upstream::Site(site) => site.app_base().to_owned(),
            other => other.api_base().into_owned(),
        };
        format!("{base}{AUTHORIZE}")
    }

    /// The target that an answer's `domain` names.
    pub(super) fn adopt(&self, domain: Option<&str>) -> Result<Self, LoginError> {
        let Some(domain) = domain else {
            // Nothing named, nobody moved.
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
            _ => Self::site(domain)
                .map(|site| Self(Upstream::Site(site)))
                .ok_or_else(|| LoginError::ForeignDomain(text::excerpt(domain, 80))),
        }
    }

    /// Whether an answer's `site`, the address of the account's web pages, is Datadog's. Nothing is
    /// ever sent there; an answer that names another host is not to be believed in the rest either.
    /// Organisations may have a name of their own below a site.
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
            _ => {
                let host = url
                    .as_ref()
                    .filter(|url| url.scheme() == "https" && url.port().is_none())
                    .and_then(Url::host_str);
                let known = host.is_some_and(|host| {
                    Site::all().any(|site| {
                        host.strip_suffix(site.domain())
                            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    })
                });
                if known {
                    Ok(())
                } else {
                    Err(LoginError::ForeignDomain(text::excerpt(site, 80)))
                }
            }
        }
    }

    /// A site by its exact domain. Not [`Site::parse`], which understands people.
    fn site(domain: &str) -> Option<Site> {
        Site::all().find(|site| site.domain() == domain)
    }
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

    fn here() -> LoginTarget {
        LoginTarget::from_upstream(&Upstream::from_api_url("http://127.0.0.1:9/").unwrap()).unwrap()
    }

    #[test]
    fn the_browser_goes_to_the_web_host_and_tokens_come_from_the_api_host() {
        assert_eq!(
            eu().authorize_url(),
            "https://app.datadoghq.eu/oauth2/v1/authorize"
        );
        assert_eq!(eu().token_url(), "https://api.datadoghq.eu/oauth2/v1/token");
        assert_eq!(
            here().authorize_url(),
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
    fn a_domain_is_one_of_the_sites_to_the_letter(#[case] domain: &str, #[case] fine: bool) {
        match eu().adopt(Some(domain)) {
            Ok(target) => {
                assert!(fine, "{domain}");
                assert_eq!(target.key(), domain);
            }
            Err(error) => {
                assert!(!fine, "{domain}");
                assert!(matches!(error, LoginError::ForeignDomain(_)));
            }
        }
        assert_eq!(eu().adopt(None).unwrap(), eu());
    }

    #[rstest]
    #[case("127.0.0.1:9", true)]
    #[case("localhost:9", false)]
    #[case("127.0.0.1:10", false)]
    #[case("127.0.0.1", false)]
    #[case("datadoghq.com", false)]
    #[case("127.0.0.1:9@evil.example", false)]
    fn on_this_machine_a_domain_is_that_authority(#[case] domain: &str, #[case] fine: bool) {
        assert_eq!(here().adopt(Some(domain)).is_ok(), fine, "{domain}");
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
    fn a_site_is_a_web_address_of_datadogs(#[case] site: &str, #[case] fine: bool) {
        assert_eq!(eu().check_site(Some(site)).is_ok(), fine, "{site}");
        assert_eq!(eu().check_site(None), Ok(()));
    }

    #[rstest]
    #[case("http://127.0.0.1:9", true)]
    #[case("http://127.0.0.1:10", false)]
    #[case("http://127.0.0.1:9@evil.example", false)]
    #[case("https://app.datadoghq.eu", false)]
    fn on_this_machine_a_site_is_that_authority_too(#[case] site: &str, #[case] fine: bool) {
        assert_eq!(here().check_site(Some(site)).is_ok(), fine, "{site}");
    }

    #[test]
    fn another_base_is_no_place_to_sign_in() {
        let proxy = Upstream::from_api_url("https://proxy.example.com").unwrap();
        assert_eq!(
            LoginTarget::from_upstream(&proxy),
            Err(LoginError::UnsupportedTarget)
        );
        assert_eq!(LoginTarget::from_key("https://proxy.example.com"), None);
        assert_eq!(LoginTarget::from_key("evil.example"), None);
        assert_eq!(LoginTarget::from_key(&here().key()), Some(here()));
        assert_eq!(LoginTarget::from_key(&eu().key()), Some(eu()));
    }
}
