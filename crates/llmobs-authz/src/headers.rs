//! Credentials as a caller sends them in a request's headers.
//!
//! Header names come in two spellings: Datadog documents `DD_API_KEY` with underscores, its own SDK
//! examples send `DD-API-KEY`, and some proxies drop names with underscores. Both are accepted. An
//! empty value is absent, because plugins send `"${DD_API_KEY:-}"` whether or not it is set.

use http::HeaderMap;
use secrecy::SecretString;

use datadog_llmobs::Credential;

const API_KEY: [&str; 2] = ["dd-api-key", "dd_api_key"];
const APP_KEY: [&str; 2] = ["dd-application-key", "dd_application_key"];
const AUTHORIZATION: &str = "authorization";

/// The credentials that a request brought in its headers.
#[derive(Clone, Default)]
pub enum HeaderCredentials {
    /// None at all.
    #[default]
    Absent,
    /// Enough to make calls with.
    Complete(Credential),
    /// A half pair or an unusable value: what to tell the caller.
    Unusable(String),
}

impl HeaderCredentials {
    /// Takes the credentials out of the headers: whatever comes after cannot see or log them.
    pub fn take(headers: &mut HeaderMap) -> Self {
        let api_key = take_value(headers, &API_KEY);
        let app_key = take_value(headers, &APP_KEY);
        let bearer = take_value(headers, &[AUTHORIZATION]);
        let made = api_key.and_then(|api_key| {
            let app_key = app_key?;
            let bearer = bearer?.and_then(|value| bearer_of(&value));
            Credential::from_parts(api_key.as_deref(), app_key.as_deref(), bearer.as_deref())
                .map_err(|error| format!("in the request's headers: {error}"))
        });
        match made {
            Ok(Credential::None) => Self::Absent,
            Ok(credential) => Self::Complete(credential),
            Err(why) => Self::Unusable(why),
        }
    }
}

/// What a request brought where a bearer of ours is asked for.
pub(crate) struct Presented {
    /// The bearer, if one was sent that can be read.
    pub(crate) bearer: Option<SecretString>,
    /// Whether Datadog keys came along.
    pub(crate) datadog_keys: bool,
}

impl Presented {
    /// Takes the bearer and every Datadog credential out of the headers.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        let keys = [take_value(headers, &API_KEY), take_value(headers, &APP_KEY)];
        let bearer = take_value(headers, &[AUTHORIZATION])
            .ok()
            .flatten()
            .and_then(|value| bearer_of(&value))
            .filter(|token| !token.is_empty());
        Self {
            bearer: bearer.map(SecretString::from),
            datadog_keys: keys.iter().any(|key| !matches!(key, Ok(None))),
        }
    }
}

/// The token of a `Bearer` value; other schemes are not ours.
fn bearer_of(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// Removes every spelling of a header and returns its one value, `None` if empty.
fn take_value(headers: &mut HeaderMap, names: &[&str]) -> Result<Option<String>, String> {
    let mut found: Option<String> = None;
    let mut wrong = None;
    for name in names {
        for value in headers.get_all(*name) {
            let Ok(text) = value.to_str().map(str::trim) else {
                wrong = Some("holds characters that no key has");
                continue;
            };
            if text.is_empty() {
                continue;
            }
            match &found {
                Some(first) if first != text => {
                    wrong = Some("was sent twice with different values");
                }
                Some(_) => {}
                None => found = Some(text.to_owned()),
            }
        }
        headers.remove(*name);
    }
    match wrong {
        Some(wrong) => {
            let name = names.first().copied().unwrap_or_default();
            Err(format!("the request's header {name} {wrong}"))
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
    #[case::nothing(&[], "absent")]
    #[case::underscores(&[("DD_API_KEY", "a"), ("DD_APPLICATION_KEY", "b")], "API key and application key")]
    #[case::dashes(&[("DD-API-KEY", "a"), ("DD-APPLICATION-KEY", "b")], "API key and application key")]
    #[case::mixed(&[("dd-api-key", "a"), ("DD_APPLICATION_KEY", "b")], "API key and application key")]
    #[case::empty_is_absent(&[("DD_API_KEY", ""), ("DD_APPLICATION_KEY", "  ")], "absent")]
    #[case::api_key_alone(&[("DD_API_KEY", "a"), ("DD_APPLICATION_KEY", "")], "unusable")]
    #[case::app_key_alone(&[("DD_APPLICATION_KEY", "b")], "unusable")]
    #[case::bearer(&[("Authorization", "bearer  tok")], "bearer token")]
    #[case::empty_bearer(&[("Authorization", "Bearer ")], "absent")]
    #[case::basic_is_not_ours(&[("Authorization", "Basic dTpw")], "absent")]
    #[case::same_twice(&[("DD_API_KEY", "a"), ("DD-API-KEY", "a"), ("DD-APPLICATION-KEY", "b")], "API key and application key")]
    #[case::contradiction(&[("DD_API_KEY", "a"), ("DD-API-KEY", "z"), ("DD-APPLICATION-KEY", "b")], "unusable")]
    fn headers_to_credentials(#[case] sent: &[(&str, &str)], #[case] expected: &str) {
        let mut map = headers(sent);
        let found = match HeaderCredentials::take(&mut map) {
            HeaderCredentials::Absent => "absent",
            HeaderCredentials::Complete(credential) => credential.kind(),
            HeaderCredentials::Unusable(_) => "unusable",
        };
        assert_eq!(found, expected);
        assert!(map.is_empty(), "nothing is left for others to see");
    }

    #[rstest]
    #[case::nothing(&[], None, false)]
    #[case::bearer(&[("Authorization", "BEARER  tok")], Some("tok"), false)]
    #[case::empty(&[("Authorization", "Bearer ")], None, false)]
    #[case::another_scheme(&[("Authorization", "Basic dTpw")], None, false)]
    #[case::two_bearers(&[("Authorization", "Bearer a"), ("Authorization", "Bearer b")], None, false)]
    #[case::empty_keys(&[("Authorization", "Bearer tok"), ("DD_API_KEY", "")], Some("tok"), false)]
    #[case::half_a_pair(&[("Authorization", "Bearer tok"), ("DD_API_KEY", "a")], Some("tok"), true)]
    #[case::contradiction(&[("DD_API_KEY", "a"), ("DD-API-KEY", "z")], None, true)]
    fn a_bearer_of_ours(
        #[case] sent: &[(&str, &str)],
        #[case] bearer: Option<&str>,
        #[case] datadog_keys: bool,
    ) {
        let mut map = headers(sent);
        let found = Presented::take(&mut map);
        let shown = found.bearer.as_ref().map(ExposeSecret::expose_secret);
        assert_eq!((shown, found.datadog_keys), (bearer, datadog_keys));
        assert!(map.is_empty(), "nothing is left for others to see");
    }

    #[test]
    fn a_message_about_headers_never_holds_a_value() {
        let mut map = headers(&[("DD_API_KEY", "s3cr3t-one"), ("DD-API-KEY", "s3cr3t-two")]);
        let HeaderCredentials::Unusable(why) = HeaderCredentials::take(&mut map) else {
            panic!("two different values are a contradiction");
        };
        assert!(!why.contains("s3cr3t"), "{why}");
    }
}
