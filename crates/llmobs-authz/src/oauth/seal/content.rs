//! What is inside a seal, as JSON.

use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

use super::Unsealable;
use datadog_llmobs::Credential;
use datadog_llmobs::login::{Login, LoginTarget};

/// What a grant holds.
pub(in crate::oauth) enum Held {
    /// A credential that the user gave.
    Given(Credential),
    /// A login of the user at Datadog, which renews itself.
    Login(Box<Login>),
}

impl Held {
    /// The kind in words.
    pub(in crate::oauth) fn kind(&self) -> &'static str {
        match self {
            Self::Given(credential) => credential.kind(),
            Self::Login(_) => "sign-in at Datadog",
        }
    }
}

/// The secrets of a sign-in at Datadog that waits for its answer.
pub(in crate::oauth) struct OfSignIn {
    /// The PKCE verifier.
    pub(in crate::oauth) verifier: SecretString,
    /// The id of the consent page that it began on.
    pub(in crate::oauth) page: SecretString,
}

type Text<'a> = Cow<'a, str>;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum PlainHeld<'a> {
    KeyPair {
        #[serde(borrow)]
        api_key: Text<'a>,
        app_key: Text<'a>,
    },
    Bearer {
        token: Text<'a>,
    },
    AppToken {
        token: Text<'a>,
    },
    Login {
        place: Text<'a>,
        client_id: Text<'a>,
        access: Text<'a>,
        refresh: Option<Text<'a>>,
        issued_at_ms: i64,
        expires_at_ms: i64,
        scope: Text<'a>,
    },
}

#[derive(Serialize, Deserialize)]
struct PlainOfSignIn<'a> {
    #[serde(borrow)]
    verifier: Text<'a>,
    page: Text<'a>,
}

impl Held {
    pub(super) fn encode(&self) -> Result<SecretSlice<u8>, Unsealable> {
        let plain = match self {
            Self::Given(Credential::KeyPair { api_key, app_key }) => PlainHeld::KeyPair {
                api_key: text(api_key),
                app_key: text(app_key),
            },
            Self::Given(Credential::Bearer(token)) => PlainHeld::Bearer { token: text(token) },
            Self::Given(Credential::AppToken(token)) => PlainHeld::AppToken { token: text(token) },
            // Nothing is no credential to keep for a user.
            Self::Given(Credential::None) => return Err(Unsealable),
            Self::Login(profile) => PlainHeld::Login {
                place: profile.target.key().into(),
                client_id: Cow::Borrowed(&profile.client_id),
                access: text(&profile.access),
                refresh: profile.refresh.as_ref().map(text),
                issued_at_ms: profile.issued_at_ms,
                expires_at_ms: profile.expires_at_ms,
                scope: Cow::Borrowed(&profile.scope),
            },
        };
        written(&plain)
    }

    pub(super) fn decode(plain: &SecretSlice<u8>) -> Result<Self, Unsealable> {
        let plain = serde_json::from_slice(plain.expose_secret()).map_err(|_| Unsealable)?;
        Ok(match plain {
            PlainHeld::KeyPair { api_key, app_key } => Self::Given(Credential::KeyPair {
                api_key: secret(api_key),
                app_key: secret(app_key),
            }),
            PlainHeld::Bearer { token } => Self::Given(Credential::Bearer(secret(token))),
            PlainHeld::AppToken { token } => Self::Given(Credential::AppToken(secret(token))),
            PlainHeld::Login {
                place,
                client_id,
                access,
                refresh,
                issued_at_ms,
                expires_at_ms,
                scope,
            } => Self::Login(Box::new(Login {
                target: LoginTarget::from_key(&place).ok_or(Unsealable)?,
                client_id: client_id.into_owned(),
                access: secret(access),
                refresh: refresh.map(secret),
                issued_at_ms,
                expires_at_ms,
                scope: scope.into_owned(),
                // Nobody asks for them here.
                org_id: None,
                org_name: None,
            })),
        })
    }
}

impl OfSignIn {
    pub(super) fn encode(&self) -> Result<SecretSlice<u8>, Unsealable> {
        written(&PlainOfSignIn {
            verifier: text(&self.verifier),
            page: text(&self.page),
        })
    }

    pub(super) fn decode(plain: &SecretSlice<u8>) -> Result<Self, Unsealable> {
        let plain: PlainOfSignIn<'_> =
            serde_json::from_slice(plain.expose_secret()).map_err(|_| Unsealable)?;
        Ok(Self {
            verifier: secret(plain.verifier),
            page: secret(plain.page),
        })
    }
}

fn text(secret: &SecretString) -> Text<'_> {
    Cow::Borrowed(secret.expose_secret())
}

fn secret(text: Text<'_>) -> SecretString {
    text.into_owned().into()
}

fn written(plain: &impl Serialize) -> Result<SecretSlice<u8>, Unsealable> {
    serde_json::to_vec(plain)
        .map(SecretSlice::from)
        .map_err(|_| Unsealable)
}

#[cfg(test)]
mod tests {
    use super::super::testing::key;
    use super::super::{Place as Sealed, SecretKey};
    use super::*;
    use datadog_llmobs::Upstream;
    use rstest::rstest;

    const PLACE: Sealed<'_> = Sealed {
        grant: "g",
        client: "c",
        resource: "r",
    };

    fn pair() -> Credential {
        // With the characters that JSON escapes, in case a key ever has them.
        Credential::from_parts(Some("key-a"), Some(r#"key-b~!{}"\"#), None).unwrap()
    }

    fn login() -> Held {
        let here = Upstream::from_api_url("http://127.0.0.1:9").unwrap();
        Held::Login(Box::new(Login {
            target: LoginTarget::from_upstream(&here).unwrap(),
            client_id: "client-a".into(),
            access: "access-a".into(),
            refresh: Some("refresh-a".into()),
            issued_at_ms: 1,
            expires_at_ms: 2,
            scope: "llm_observability_read".into(),
            org_id: None,
            org_name: None,
        }))
    }

    fn shown(held: &Held) -> Vec<String> {
        let of = |secret: &SecretString| secret.expose_secret().to_owned();
        match held {
            Held::Given(Credential::KeyPair { api_key, app_key }) => vec![of(api_key), of(app_key)],
            Held::Given(Credential::Bearer(token) | Credential::AppToken(token)) => {
                vec![of(token)]
            }
            Held::Given(Credential::None) => panic!("nothing was sealed"),
            Held::Login(profile) => {
                let mut all = vec![of(&profile.access)];
                all.extend(profile.refresh.as_ref().map(of));
                all.extend([profile.target.key(), profile.client_id.clone()]);
                all.push(format!(
                    "{}-{}",
                    profile.issued_at_ms, profile.expires_at_ms
                ));
                all.push(profile.scope.clone());
                all
            }
        }
    }

    fn sealed(key: &SecretKey, held: &Held) -> Vec<u8> {
        key.seal(held, &PLACE).unwrap()
    }

    #[rstest]
    #[case(Held::Given(pair()))]
    #[case(Held::Given(Credential::Bearer("token-a".into())))]
    #[case(Held::Given(Credential::AppToken("token-b".into())))]
    #[case(login())]
    fn what_was_sealed_opens_in_its_place(#[case] held: Held) {
        let blob = sealed(&key('a'), &held);
        let opened = key('a').open(&blob, &PLACE).unwrap();
        assert_eq!(opened.kind(), held.kind());
        assert_eq!(shown(&opened), shown(&held));
        for secret in shown(&held) {
            let shown = blob.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!shown, "the blob holds {secret}");
        }
    }

    #[test]
    fn nothing_is_not_sealed() {
        let nothing = Held::Given(Credential::None);
        assert!(key('a').seal(&nothing, &PLACE).is_err());
    }
}
