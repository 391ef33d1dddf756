//! Chooses the upstream and the stored login.

use datadog_llmobs::login::LoginSummary;
use datadog_llmobs::{Site, Upstream};

use super::error::SettingsError;
use super::logins::Logins;
use super::values::Setting;

/// The site for requests that bring credentials if no setting names one.
const DEFAULT_SITE: &str = "datadoghq.com";

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A setting chooses the local backend.
    Local,
    /// No setting chooses: local, and this Datadog site for requests that bring credentials.
    Unchosen(Site),
    /// A Datadog site, or the base URL of `--api-url`.
    Datadog(Upstream),
}

/// The chosen upstream, the reason for people, and the stored login to use there.
pub(super) struct UpstreamChoice {
    pub(super) choice: Choice,
    pub(super) because: String,
    pub(super) login: Option<LoginSummary>,
}

impl UpstreamChoice {
    pub(super) fn without_login(choice: Choice, because: impl Into<String>) -> Self {
        Self {
            choice,
            because: because.into(),
            login: None,
        }
    }
}

/// What the choice depends on.
pub(super) struct ChoiceInputs<'a> {
    /// Whether `--local` is given.
    pub(super) local: bool,
    /// The value of `--api-url`.
    pub(super) api_url: Option<&'a str>,
    pub(super) site: Option<Setting<String>>,
    /// Whether the environment and the config file make a complete credential.
    pub(super) complete: bool,
    /// The stored logins, if the command uses them.
    pub(super) logins: Option<&'a Logins>,
}

/// Chooses the upstream: flags, then a site named `local`, then a complete credential, then a stored
/// login. A named profile takes precedence over keys in the environment.
pub(super) fn choose(inputs: ChoiceInputs<'_>) -> Result<UpstreamChoice, SettingsError> {
    let complete = inputs.complete;
    let logins = inputs
        .logins
        .filter(|logins| !complete || logins.named.is_some());
    if inputs.local {
        return Ok(UpstreamChoice::without_login(Choice::Local, "--local"));
    }
    if let Some(url) = inputs.api_url {
        let upstream = Upstream::from_api_url(url)?;
        let login = match logins {
            Some(logins) => logins.for_upstream(&upstream)?,
            None => None,
        };
        return Ok(UpstreamChoice {
            login,
            ..UpstreamChoice::without_login(Choice::Datadog(upstream), "--api-url")
        });
    }
    if let Some(site) = &inputs.site
        && site.value.trim().eq_ignore_ascii_case("local")
    {
        let because = format!("{} is local", site.source);
        return Ok(UpstreamChoice::without_login(Choice::Local, because));
    }
    if inputs.site.is_none()
        && let Some(logins) = logins
        && let Some((login, upstream)) = logins.choose_site()?
    {
        return Ok(UpstreamChoice {
            choice: Choice::Datadog(upstream),
            because: format!("the stored login of profile {}", login.name),
            login: Some(login),
        });
    }
    choose_at_site(inputs.site, complete, logins)
}

fn choose_at_site(
    site: Option<Setting<String>>,
    complete: bool,
    logins: Option<&Logins>,
) -> Result<UpstreamChoice, SettingsError> {
    let site = site.unwrap_or_else(|| Setting {
        value: DEFAULT_SITE.to_owned(),
        source: "the default site".to_owned(),
    });
    let parsed = Site::parse(&site.value).map_err(|error| SettingsError::Site {
        name: site.source.clone(),
        error,
    })?;
    let upstream = Upstream::Site(parsed);
    if let Some(logins) = logins
        && let Some(login) = logins.for_upstream(&upstream)?
    {
        return Ok(UpstreamChoice {
            choice: Choice::Datadog(upstream),
            because: format!(
                "the stored login of profile {}; the site is from {}",
                login.name, site.source
            ),
            login: Some(login),
        });
    }
    Ok(if complete {
        let because = format!(
            "a complete credential is set; the site is from {}",
            site.source
        );
        UpstreamChoice::without_login(Choice::Datadog(upstream), because)
    } else {
        UpstreamChoice::without_login(
            Choice::Unchosen(parsed),
            "no complete Datadog credential is set",
        )
    })
}
