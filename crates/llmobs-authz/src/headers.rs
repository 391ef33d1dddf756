//! Credentials in the headers of a request.
//!
//! Header names have two spellings: Datadog documents `DD_API_KEY` with underscores, its SDK examples
//! send `DD-API-KEY`, and some proxies drop names with underscores. Both are accepted. An empty value
//! counts as absent, because plugins send `"${DD_API_KEY:-}"` whether or not the variable is set.

use http::HeaderMap;
use secrecy::SecretString;

use datadog_llmobs::Credential;

const API_KEY: [&str; 2] = ["dd-api-key", "dd_api_key"];
const APP_KEY: [&str; 2] = ["dd-application-key", "dd_application_key"];
const AUTHORIZATION: &str = "authorization";

/// The Datadog credentials in the headers of a request.
#[derive(Clone, Default)]
pub enum HeaderCredentials {
    /// No credential.
    #[default]
    Absent,
    /// A complete credential.
    Complete(Credential),
    /// Half of a key pair, or an unusable value, with the reason for the caller.
    Unusable(String),
}

impl HeaderCredentials {
    /// Removes the credentials from the headers, so that later code cannot use or log them.
    pub fn remove_from(headers: &mut HeaderMap) -> Self {
        let api_key = remove_value(headers, &API_KEY);
        let app_key = remove_value(headers, &APP_KEY);
        let bearer = remove_value(headers, &[AUTHORIZATION]);
        let parsed = api_key.and_then(|api_key| {
            let app_key = app_key?;
            let bearer = bearer?.and_then(|value| parse_bearer(&value));
            Credential::from_parts(api_key.as_deref(), app_key.as_deref(), bearer.as_deref())
                .map_err(|error| format!("in the request's headers: {error}"))
        });
        match parsed {
            Ok(Credential::None) => Self::Absent,
            Ok(credential) => Self::Complete(credential),
            Err(reason) => Self::Unusable(reason),
        }
    }
}

/// The credentials of a request in a mode that expects a bearer of this server.
pub(crate) struct BearerHeaders {
    /// The bearer, if the request has a readable one.
    pub(crate) bearer: Option<SecretString>,
    /// Whether the request also has Datadog keys.
    pub(crate) datadog_keys: bool,
}

impl BearerHeaders {
    /// Removes the bearer and all Datadog keys from the headers.
    pub(crate) fn remove_from(headers: &mut HeaderMap) -> Self {
        let keys = [
            remove_value(headers, &API_KEY),
            remove_value(headers, &APP_KEY),
        ];
        let bearer = remove_value(headers, &[AUTHORIZATION])
            .ok()
            .flatten()
            .and_then(|value| parse_bearer(&value))
            .filter(|token| !token.is_empty());
        Self {
            bearer: bearer.map(SecretString::from),
            datadog_keys: keys.iter().any(|key| !matches!(key, Ok(None))),
        }
    }
}

/// The token of an `Authorization` value with scheme `Bearer`; `None` for other schemes.
fn parse_bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// Removes a header in all its spellings and returns its single value; `None` if it is empty.
fn remove_value(headers: &mut HeaderMap, names: &[&str]) -> Result<Option<String>, String> {
    let mut found: Option<String> = None;
    let mut problem = None;
    for name in names {
        for value in headers.get_all(*name) {
            let Ok(text) = value.to_str().map(str::trim) else {
                problem = Some("contains characters that no key has");
                continue;
            };
            if text.is_empty() {
                continue;
            }
            match &found {
                Some(first) if first != text => {
                    problem = Some("was sent twice with different values");
                }
                Some(_) => {}
                None => found = Some(text.to_owned()),
            }
        }
        headers.remove(*name);
    }
    match problem {
        Some(problem) => {
            let name = names.first().copied().unwrap_or_default();
            Err(format!("the request's header {name} {problem}"))
        }
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use rstest::rstest;
    use secrecy::ExposeSecret;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        map
    }

    #[rstest]
    #[case::no_header(&[], "absent")]
    #[case::underscores(&[("DD_API_KEY", "a"), ("DD_APPLICATION_KEY", "b")], "API key and application key")]
    #[case::dashes(&[("DD-API-KEY", "a"), ("DD-APPLICATION-KEY", "b")], "API key and application key")]
    #[case::mixed(&[("dd-api-key", "a"), ("DD_APPLICATION_KEY", "b")], "API key and application key")]
    #[case::empty_is_absent(&[("DD_API_KEY", ""), ("DD_APPLICATION_KEY", "  ")], "absent")]
    #[case::api_key_alone(&[("DD_API_KEY", "a"), ("DD_APPLICATION_KEY", "")], "unusable")]
    #[case::app_key_alone(&[("DD_APPLICATION_KEY", "b")], "unusable")]
    #[case::bearer(&[("Authorization", "bearer  tok")], "bearer token")]
    #[case::empty_bearer(&[("Authorization", "Bearer ")], "absent")]
    #[case::basic_scheme(&[("Authorization", "Basic dTpw")], "absent")]
    #[case::same_value_twice(&[("DD_API_KEY", "a"), ("DD-API-KEY", "a"), ("DD-APPLICATION-KEY", "b")], "API key and application key")]
    #[case::two_values(&[("DD_API_KEY", "a"), ("DD-API-KEY", "z"), ("DD-APPLICATION-KEY", "b")], "unusable")]
    fn parses_credentials_and_removes_them(#[case] sent: &[(&str, &str)], #[case] expected: &str) {
        let mut map = headers(sent);
        let found = match HeaderCredentials::remove_from(&mut map) {
            HeaderCredentials::Absent => "absent",
            HeaderCredentials::Complete(credential) => credential.kind(),
            HeaderCredentials::Unusable(_) => "unusable",
        };
        assert_eq!(found, expected);
        assert!(map.is_empty(), "a credential is left in the headers");
    }

    #[rstest]
    #[case::no_header(&[], None, false)]
    #[case::bearer(&[("Authorization", "BEARER  tok")], Some("tok"), false)]
    #[case::empty(&[("Authorization", "Bearer ")], None, false)]
    #[case::another_scheme(&[("Authorization", "Basic dTpw")], None, false)]
    #[case::two_bearers(&[("Authorization", "Bearer a"), ("Authorization", "Bearer b")], None, false)]
    #[case::empty_keys(&[("Authorization", "Bearer tok"), ("DD_API_KEY", "")], Some("tok"), false)]
    #[case::one_key(&[("Authorization", "Bearer tok"), ("DD_API_KEY", "a")], Some("tok"), true)]
    #[case::two_values(&[("DD_API_KEY", "a"), ("DD-API-KEY", "z")], None, true)]
    fn parses_bearer_and_removes_keys(
        #[case] sent: &[(&str, &str)],
        #[case] bearer: Option<&str>,
        #[case] datadog_keys: bool,
    ) {
        let mut map = headers(sent);
        let found = BearerHeaders::remove_from(&mut map);
        let shown = found.bearer.as_ref().map(ExposeSecret::expose_secret);
        assert_eq!((shown, found.datadog_keys), (bearer, datadog_keys));
        assert!(map.is_empty(), "a credential is left in the headers");
    }

    #[test]
    fn error_does_not_contain_header_values() {
        let mut map = headers(&[("DD_API_KEY", "s3cr3t-one"), ("DD-API-KEY", "s3cr3t-two")]);
        let HeaderCredentials::Unusable(reason) = HeaderCredentials::remove_from(&mut map) else {
            panic!("two different values are refused");
        };
        assert!(!reason.contains("s3cr3t"), "{reason}");
    }
}
