//! Datadog's sites, and what the client talks to.
//!
//! Credentials go only to hosts of this table or to a base that a flag named (design invariant 5),
//! so the table is an allow-list: an unknown site is an error, never a host name to try.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;
use url::{Host, Url};

use super::text;

/// One row of the site table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    domain: &'static str,
    api: &'static str,
    app: &'static str,
    aliases: &'static [&'static str],
}

/// The sites that offer LLM Observability. The regional sites have no `app.` host.
const SITES: [Row; 7] = [
    Row {
        domain: "datadoghq.com",
        api: "https://api.datadoghq.com",
        app: "https://app.datadoghq.com",
        aliases: &["us1", "us"],
    },
    Row {
        domain: "us3.datadoghq.com",
        api: "https://api.us3.datadoghq.com",
        app: "https://us3.datadoghq.com",
        aliases: &["us3"],
    },
    Row {
        domain: "us5.datadoghq.com",
        api: "https://api.us5.datadoghq.com",
        app: "https://us5.datadoghq.com",
        aliases: &["us5"],
    },
    Row {
        domain: "datadoghq.eu",
        api: "https://api.datadoghq.eu",
        app: "https://app.datadoghq.eu",
        aliases: &["eu", "eu1"],
    },
    Row {
        domain: "ap1.datadoghq.com",
        api: "https://api.ap1.datadoghq.com",
        app: "https://ap1.datadoghq.com",
        aliases: &["ap1"],
    },
    Row {
        domain: "ap2.datadoghq.com",
        api: "https://api.ap2.datadoghq.com",
        app: "https://ap2.datadoghq.com",
        aliases: &["ap2"],
    },
    Row {
        domain: "uk1.datadoghq.com",
        api: "https://api.uk1.datadoghq.com",
        app: "https://uk1.datadoghq.com",
        aliases: &["uk1", "uk"],
    },
];

const GOVERNMENT_ALIASES: [&str; 7] = [
    "gov", "fed", "us1-fed", "us1_fed", "us2-fed", "us2_fed", "us-fed",
];

/// A Datadog site that offers LLM Observability.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Site(&'static Row);

/// Why a text names no usable site.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SiteError {
    /// A government site.
    #[error(
        "Datadog does not offer LLM Observability on its government sites ({0}); use a commercial site such as datadoghq.com, or `--local` for the backend on this machine"
    )]
    Government(String),
    /// An organisation's own host below a site.
    #[error(
        "`{host}` looks like an organisation's own address; give the regional site instead: DD_SITE={site}"
    )]
    Organisation {
        /// What was given.
        host: String,
        /// The site it lies below.
        site: &'static str,
    },
    /// Anything else.
    #[error(
        "`{0}` is not a Datadog site; use one of datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, for example DD_SITE=datadoghq.eu, or `local`"
    )]
    Unknown(String),
}

impl Site {
    /// Reads a site as people write it: the domain, an alias (`us1`, `eu`), or the address of its
    /// web page, API or MCP host, in any case.
    ///
    /// # Errors
    /// Government sites, an organisation's own host, and anything that is not in the table.
    pub fn parse(text: &str) -> Result<Self, SiteError> {
        let lower = text.trim().to_ascii_lowercase();
        let mut host = lower.as_str();
        for scheme in ["https://", "http://"] {
            host = host.strip_prefix(scheme).unwrap_or(host);
        }
        host = host.split(['/', '?', '#']).next().unwrap_or_default();
        host = host.trim_end_matches('.');
        for prefix in ["app.", "api.", "mcp."] {
            if let Some(rest) = host.strip_prefix(prefix) {
                host = rest;
                break;
            }
        }
        if GOVERNMENT_ALIASES.contains(&host)
            || host == "ddog-gov.com"
            || host.ends_with(".ddog-gov.com")
        {
            return Err(SiteError::Government(text::excerpt(host, 60)));
        }
        if let Some(row) = SITES
            .iter()
            .find(|row| row.domain == host || row.aliases.contains(&host))
        {
            return Ok(Site(row));
        }
        let below = SITES
            .iter()
            .filter(|row| host.ends_with(&format!(".{}", row.domain)))
            .max_by_key(|row| row.domain.len());
        Err(match below {
            Some(row) => SiteError::Organisation {
                host: text::excerpt(host, 60),
                site: row.domain,
            },
            None => SiteError::Unknown(text::excerpt(text, 60)),
        })
    }

    /// All sites, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Site> {
        SITES.iter().map(Site)
    }

    /// The value of `DD_SITE`.
    pub fn domain(self) -> &'static str {
        self.0.domain
    }

    /// Where the API answers, without a trailing slash.
    pub fn api_base(self) -> &'static str {
        self.0.api
    }

    /// Where the web pages are, without a trailing slash.
    pub fn app_base(self) -> &'static str {
        self.0.app
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.domain())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Site({})", self.domain())
    }
}

impl std::str::FromStr for Site {
    type Err = SiteError;

    fn from_str(text: &str) -> Result<Self, SiteError> {
        Self::parse(text)
    }
}

/// What the client talks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// The embedded backend of this machine.
    Local,
    /// A Datadog site.
    Site(Site),
    /// A base named by `--api-url`.
    Url(Url),
}

/// Why `--api-url` was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiUrlError {
    /// Not a URL.
    #[error(
        "--api-url needs an absolute URL, for example --api-url https://api.datadoghq.eu or --api-url http://127.0.0.1:8126"
    )]
    NotAUrl,
    /// Plain HTTP beyond this machine.
    #[error(
        "--api-url takes http only on this machine (127.0.0.1, [::1], localhost), because credentials would travel in clear; use https"
    )]
    Insecure,
    /// Neither http nor https.
    #[error("--api-url takes https, or http on this machine")]
    Scheme,
    /// User name, query or fragment.
    #[error(
        "--api-url takes a base only: no user name, no query and no fragment, for example --api-url https://proxy.example.com/datadog"
    )]
    NotABase,
}

impl Upstream {
    /// Reads the value of `--api-url`: https anywhere, http on loopback only. A path is kept as a
    /// prefix.
    ///
    /// # Errors
    /// Anything else, without echoing what was given: it might hold a secret.
    pub fn from_api_url(text: &str) -> Result<Self, ApiUrlError> {
        let url = Url::parse(text.trim()).map_err(|_| ApiUrlError::NotAUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(ApiUrlError::Insecure),
            _ => return Err(ApiUrlError::Scheme),
        }
        if url.host().is_none()
            || !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(ApiUrlError::NotABase);
        }
        Ok(Upstream::Url(url))
    }

    /// The base of every request, without a trailing slash. For [`Upstream::Local`] it is the
    /// address that a router in this process accepts; a program that reaches an owner over HTTP
    /// uses [`Upstream::Url`].
    pub fn api_base(&self) -> Cow<'_, str> {
        match self {
            Upstream::Local => Cow::Borrowed("http://127.0.0.1:8126"),
            Upstream::Site(site) => Cow::Borrowed(site.api_base()),
            Upstream::Url(url) => Cow::Borrowed(url.as_str().trim_end_matches('/')),
        }
    }

    /// Where the web pages of this upstream are; only a site has some.
    pub fn app_base(&self) -> Option<&'static str> {
        match self {
            Upstream::Site(site) => Some(site.app_base()),
            Upstream::Local | Upstream::Url(_) => None,
        }
    }

    /// How messages call it: `datadoghq.eu`, `the local backend`, or the host of `--api-url`.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Upstream::Local => Cow::Borrowed("the local backend"),
            Upstream::Site(site) => Cow::Borrowed(site.domain()),
            Upstream::Url(url) => {
                let host = url.host_str().unwrap_or("the upstream");
                match url.port() {
                    Some(port) => Cow::Owned(format!("{host}:{port}")),
                    None => Cow::Borrowed(host),
                }
            }
        }
    }
}

/// Whether a URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("datadoghq.com", "datadoghq.com")]
    #[case("  US1 ", "datadoghq.com")]
    #[case("https://app.datadoghq.com/", "datadoghq.com")]
    #[case("api.us5.datadoghq.com", "us5.datadoghq.com")]
    #[case("mcp.ap2.datadoghq.com", "ap2.datadoghq.com")]
    #[case("eu", "datadoghq.eu")]
    #[case("https://us3.datadoghq.com/llm/traces?x=1", "us3.datadoghq.com")]
    #[case("uk1", "uk1.datadoghq.com")]
    fn a_site_is_found_however_it_is_written(#[case] text: &str, #[case] domain: &str) {
        assert_eq!(Site::parse(text).unwrap().domain(), domain);
    }

    #[rstest]
    #[case("ddog-gov.com")]
    #[case("https://app.ddog-gov.com")]
    #[case("us2.ddog-gov.com")]
    #[case("us1-fed")]
    #[case("GOV")]
    fn government_sites_are_refused_with_the_reason(#[case] text: &str) {
        let error = Site::parse(text).unwrap_err();
        assert!(matches!(error, SiteError::Government(_)), "{error:?}");
        assert!(error.to_string().contains("government"));
    }

    #[test]
    fn an_unknown_host_is_an_error_and_never_a_host_to_try() {
        for text in [
            "",
            "datad0g.com",
            "evil.com",
            "datadoghq.com.evil.com",
            "xdatadoghq.com",
        ] {
            assert!(
                matches!(Site::parse(text), Err(SiteError::Unknown(_))),
                "{text}"
            );
        }
        let error = Site::parse("acme.us5.datadoghq.com").unwrap_err();
        assert!(error.to_string().ends_with("DD_SITE=us5.datadoghq.com"));
    }

    #[test]
    fn an_api_url_is_https_or_this_machine() {
        let base = |text| Upstream::from_api_url(text).map(|u| u.api_base().into_owned());
        assert_eq!(base("http://127.0.0.1:9/").unwrap(), "http://127.0.0.1:9");
        assert_eq!(base("http://[::1]:9").unwrap(), "http://[::1]:9");
        assert_eq!(
            base("https://proxy.example.com/dd/").unwrap(),
            "https://proxy.example.com/dd"
        );
        assert_eq!(base("http://example.com"), Err(ApiUrlError::Insecure));
        assert_eq!(
            base("http://localhost.example.com"),
            Err(ApiUrlError::Insecure)
        );
        assert_eq!(base("ftp://127.0.0.1"), Err(ApiUrlError::Scheme));
        assert_eq!(base("127.0.0.1:9"), Err(ApiUrlError::NotAUrl));
        assert_eq!(
            base("https://user:pw@example.com"),
            Err(ApiUrlError::NotABase)
        );
    }
}
