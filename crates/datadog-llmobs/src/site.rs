//! Datadog's sites, and the upstream of a client.
//!
//! Invariant: credentials are sent only to hosts of the site table or to the URL of `--api-url`. The
//! table is an allow-list: an unknown site is an error and never used as a host name.

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;
use url::{Host, Url};

use super::text;

/// An entry of the site table.
#[derive(Debug, PartialEq, Eq)]
struct SiteEntry {
    domain: &'static str,
    api: &'static str,
    app: &'static str,
    aliases: &'static [&'static str],
}

/// The sites that offer LLM Observability. Regional sites have no `app.` host.
const SITES: [SiteEntry; 7] = [
    SiteEntry {
        domain: "datadoghq.com",
        api: "https://api.datadoghq.com",
        app: "https://app.datadoghq.com",
        aliases: &["us1", "us"],
    },
    SiteEntry {
        domain: "us3.datadoghq.com",
        api: "https://api.us3.datadoghq.com",
        app: "https://us3.datadoghq.com",
        aliases: &["us3"],
    },
    SiteEntry {
        domain: "us5.datadoghq.com",
        api: "https://api.us5.datadoghq.com",
        app: "https://us5.datadoghq.com",
        aliases: &["us5"],
    },
    SiteEntry {
        domain: "datadoghq.eu",
        api: "https://api.datadoghq.eu",
        app: "https://app.datadoghq.eu",
        aliases: &["eu", "eu1"],
    },
    SiteEntry {
        domain: "ap1.datadoghq.com",
        api: "https://api.ap1.datadoghq.com",
        app: "https://ap1.datadoghq.com",
        aliases: &["ap1"],
    },
    SiteEntry {
        domain: "ap2.datadoghq.com",
        api: "https://api.ap2.datadoghq.com",
        app: "https://ap2.datadoghq.com",
        aliases: &["ap2"],
    },
    SiteEntry {
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
pub struct Site(&'static SiteEntry);

/// Why a text is not a supported site.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SiteError {
    /// A government site.
    #[error(
        "Datadog does not offer LLM Observability on its government sites ({0}); use a commercial site such as datadoghq.com, or `--local` for the local backend"
    )]
    Government(String),
    /// The subdomain of an organisation.
    #[error(
        "`{host}` looks like the subdomain of an organisation; use the site instead: DD_SITE={site}"
    )]
    Organisation {
        /// The given host.
        host: String,
        /// The site that it belongs to.
        site: &'static str,
    },
    /// Any other text.
    #[error(
        "`{0}` is not a Datadog site; use one of datadoghq.com, us3.datadoghq.com, us5.datadoghq.com, datadoghq.eu, ap1.datadoghq.com, ap2.datadoghq.com, uk1.datadoghq.com, for example DD_SITE=datadoghq.eu, or `local`"
    )]
    Unknown(String),
}

impl Site {
    /// Parses a site leniently: its domain, an alias (`us1`, `eu`), or the address of its web page,
    /// API or MCP host, in upper or lower case.
    ///
    /// # Errors
    /// Government sites, subdomains of organisations, and everything else that is not in the table.
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
        if let Some(entry) = SITES
            .iter()
            .find(|entry| entry.domain == host || entry.aliases.contains(&host))
        {
            return Ok(Site(entry));
        }
        let parent = SITES
            .iter()
            .filter(|entry| host.ends_with(&format!(".{}", entry.domain)))
            .max_by_key(|entry| entry.domain.len());
        Err(match parent {
            Some(entry) => SiteError::Organisation {
                host: text::excerpt(host, 60),
                site: entry.domain,
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

    /// The base URL of the API, without a trailing slash.
    pub fn api_base(self) -> &'static str {
        self.0.api
    }

    /// The base URL of the web pages, without a trailing slash.
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

/// Where a client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// The local backend in this process.
    Local,
    /// A Datadog site.
    Site(Site),
    /// The base URL of `--api-url`.
    Url(Url),
}

/// Why the value of `--api-url` is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiUrlError {
    /// Not a URL.
    #[error(
        "--api-url needs an absolute URL, for example --api-url https://api.datadoghq.eu or --api-url http://127.0.0.1:8126"
    )]
    NotAUrl,
    /// Plain HTTP to another machine.
    #[error(
        "--api-url accepts http only for this machine (127.0.0.1, [::1], localhost), because credentials would be sent unencrypted; use https, for example --api-url https://api.datadoghq.eu"
    )]
    Insecure,
    /// Neither http nor https.
    #[error(
        "--api-url accepts https, or http for this machine, for example --api-url https://api.datadoghq.eu"
    )]
    Scheme,
    /// A URL with a user name, query or fragment.
    #[error(
        "--api-url accepts a base URL without user name, query and fragment, for example --api-url https://proxy.example.com/datadog"
    )]
    NotABase,
}

impl Upstream {
    /// Parses the value of `--api-url`: https, or http for this machine. A path is kept as a prefix.
    ///
    /// # Errors
    /// Any other value. The error does not repeat it, because it may contain a secret.
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

    /// The base URL of every request, without a trailing slash. For [`Upstream::Local`] it is the
    /// address that a router in this process accepts; a program that reaches the owner over HTTP uses
    /// [`Upstream::Url`].
    pub fn api_base(&self) -> Cow<'_, str> {
        match self {
            Upstream::Local => Cow::Borrowed("http://127.0.0.1:8126"),
            Upstream::Site(site) => Cow::Borrowed(site.api_base()),
            Upstream::Url(url) => Cow::Borrowed(url.as_str().trim_end_matches('/')),
        }
    }

    /// The base URL of the web pages; only a site has one.
    pub fn app_base(&self) -> Option<&'static str> {
        match self {
            Upstream::Site(site) => Some(site.app_base()),
            Upstream::Local | Upstream::Url(_) => None,
        }
    }

    /// The name in messages: `datadoghq.eu`, `the local backend`, or the host of `--api-url`.
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

/// Whether the host of a URL is this machine.
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
    fn parses_every_form_of_site(#[case] text: &str, #[case] domain: &str) {
        assert_eq!(Site::parse(text).unwrap().domain(), domain);
    }

    #[rstest]
    #[case("ddog-gov.com")]
    #[case("https://app.ddog-gov.com")]
    #[case("us2.ddog-gov.com")]
    #[case("us1-fed")]
    #[case("GOV")]
    fn rejects_government_sites(#[case] text: &str) {
        let error = Site::parse(text).unwrap_err();
        assert!(matches!(error, SiteError::Government(_)), "{error:?}");
        assert!(error.to_string().contains("government"));
    }

    #[test]
    fn rejects_unknown_hosts() {
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
    fn api_url_is_https_or_loopback() {
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
