//! The token endpoint: code exchange, refresh, revocation.
//!
//! The forms and the answers are the `oauth2` crate's; the requests travel by our [`Transport`],
//! and errors are read by us, because Datadog gives them in two shapes: OAuth's `error`, and
//! `{"errors": ["invalid_grant - words"]}`, which no library reads. Revocation is ours as well: the
//! crate does it over https only, and a server of this machine has none.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, header};
use oauth2::basic::{BasicClient, BasicTokenResponse, BasicTokenType};
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, ClientId, HttpRequest, HttpResponse,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};

use super::super::credential::Credential;
use super::super::error::upstream_words;
use super::super::text;
use super::super::transport::{Transport, TransportError};
use super::error::LoginError;
use super::store::Login;
use super::target::LoginTarget;
use super::{RESPONSE_LIMITS, now_ms};

/// The life of an access token that came without one, as documented.
const USUAL_LIFE: Duration = Duration::from_secs(3_600);

/// No token is believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Clocks that differ by more are worth a remark.
const SKEW_MS: i64 = 120_000;

/// What a token endpoint gave.
pub(super) struct Tokens {
    pub(super) access: SecretString,
    pub(super) refresh: Option<SecretString>,
    /// When it was received, by this machine's clock.
    pub(super) issued_at_ms: i64,
    /// When the access token ends, by this machine's clock.
    pub(super) expires_at_ms: i64,
    /// What was granted, if the answer said.
    pub(super) scope: Option<String>,
    /// How far this machine's clock is ahead of the server's, if by much.
    pub(super) clock_ahead_ms: Option<i64>,
}

/// Why a token endpoint gave nothing.
pub(super) enum Failure {
    /// The grant (code or refresh token) is not accepted.
    Grant(String),
    /// The client id is not known.
    Client(String),
    /// The scopes are not.
    Scope(String),
    /// Anything else.
    Other(LoginError),
}

/// Exchanges a code.
pub(super) async fn exchange(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_id: &str,
    redirect: &str,
    code: &SecretString,
    verifier: PkceCodeVerifier,
) -> Result<Tokens, Failure> {
    let call = TokenCall::new(transport, target, "the code exchange");
    let client = call.client(client_id)?;
    let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|_| call.broken("redirect"))?;
    // Both leave every text that comes back.
    let secrets = Credential::KeyPair {
        api_key: code.clone(),
        app_key: verifier.secret().as_str().into(),
    };
    let client = client.set_redirect_uri(redirect);
    let http = Http {
        call: &call,
        secrets: &secrets,
    };
    let answer = client
        .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
        .set_pkce_verifier(verifier)
        .request_async(&http)
        .await;
    call.read(answer)
}

/// Takes new tokens for a refresh token.
pub(super) async fn refresh(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_id: &str,
    refresh: &SecretString,
) -> Result<Tokens, Failure> {
    let call = TokenCall::new(transport, target, "the renewal of the login");
    let client = call.client(client_id)?;
    let secrets = Credential::Bearer(refresh.clone());
    let token = RefreshToken::new(refresh.expose_secret().to_owned());
    let http = Http {
        call: &call,
        secrets: &secrets,
    };
    let answer = client
        .exchange_refresh_token(&token)
        .request_async(&http)
        .await;
    call.read(answer)
}

/// Revokes the tokens of a profile at its target: the refresh token first, which ends the grant.
///
/// # Errors
/// When the target did not take it. The profile should be forgotten all the same.
pub async fn revoke(transport: &dyn Transport, profile: &Login) -> Result<(), LoginError> {
    let tokens = [
        profile
            .refresh
            .as_ref()
            .map(|token| (token, "refresh_token")),
        Some((&profile.access, "access_token")),
    ];
    for (token, hint) in tokens.into_iter().flatten() {
        revoke_one(transport, profile, token, hint).await?;
    }
    Ok(())
}

async fn revoke_one(
    transport: &dyn Transport,
    profile: &Login,
    token: &SecretString,
    hint: &str,
) -> Result<(), LoginError> {
    const WHAT: &str = "the revocation";
    let target = &profile.target;
    let no_answer = |why: String| LoginError::NoAnswer {
        target: target.name(),
        what: WHAT,
        why,
    };
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", &profile.client_id)
        .append_pair("token", token.expose_secret())
        .append_pair("token_type_hint", hint)
        .finish();
    let mut request = Request::new(Bytes::from(form));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = target
        .revoke_url()
        .parse()
        .map_err(|_| no_answer("its address is not a URL".to_owned()))?;
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    Credential::Bearer(profile.access.clone()).apply(request.headers_mut());
    let answer = transport
        .send(request, RESPONSE_LIMITS)
        .await
        .map_err(|error| no_answer(error.to_string()))?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        // An access token that ended or went with its refresh token.
        401 if hint == "access_token" => Ok(()),
        status => Err(LoginError::Status {
            target: target.name(),
            what: WHAT,
            status,
            words: words(answer.body(), &Credential::Bearer(token.clone())),
        }),
    }
}

fn words(body: &[u8], secrets: &Credential) -> String {
    text::cut(&upstream_words(body, secrets), 300)
}

/// What was seen of an answer beside what the library reads.
#[derive(Default)]
struct Seen {
    refused: Option<(u16, String)>,
    server_time_ms: Option<i64>,
}

/// One call of a token endpoint.
struct TokenCall<'a> {
    transport: &'a dyn Transport,
    target: &'a LoginTarget,
    what: &'static str,
    seen: Mutex<Seen>,
}

/// The library's way to send.
struct Http<'a> {
    call: &'a TokenCall<'a>,
    secrets: &'a Credential,
}

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = TransportError;
    type Future = BoxFuture<'c, Result<HttpResponse, TransportError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.call.send(request, self.secrets).boxed()
    }
}

type Client = BasicClient<
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

impl<'a> TokenCall<'a> {
    fn new(transport: &'a dyn Transport, target: &'a LoginTarget, what: &'static str) -> Self {
        Self {
            transport,
            target,
            what,
            seen: Mutex::default(),
        }
    }

    fn client(&self, client_id: &str) -> Result<Client, Failure> {
        let url = TokenUrl::new(self.target.token_url()).map_err(|_| self.broken("token"))?;
        Ok(BasicClient::new(ClientId::new(client_id.to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(url))
    }

    fn broken(&self, which: &str) -> Failure {
        Failure::Other(LoginError::NoAnswer {
            target: self.target.name(),
            what: self.what,
            why: format!("the {which} address is not a URL"),
        })
    }

    async fn send(
        &self,
        request: HttpRequest,
        secrets: &Credential,
    ) -> Result<HttpResponse, TransportError> {
        let answer = self
            .transport
            .send(request.map(Bytes::from), RESPONSE_LIMITS)
            .await?;
        let date = answer
            .headers()
            .get(header::DATE)
            .and_then(|date| date.to_str().ok())
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
            .map(|date| date.timestamp().as_millisecond());
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.server_time_ms = date;
        if !answer.status().is_success() {
            seen.refused = Some((answer.status().as_u16(), words(answer.body(), secrets)));
        }
        Ok(answer.map(Vec::from))
    }

    fn read<E: oauth2::ErrorResponse>(
        self,
        answer: Result<BasicTokenResponse, RequestTokenError<TransportError, E>>,
    ) -> Result<Tokens, Failure> {
        let seen = self
            .seen
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let target = self.target.name();
        let what = self.what;
        let unreadable = |why| {
            Failure::Other(LoginError::Unreadable {
                target: target.clone(),
                what,
                why,
            })
        };
        if let Some((status, words)) = seen.refused {
            // `invalid_grant; words` or `invalid_grant - words`.
            let code = words.split([' ', ';', ',', ':']).next().unwrap_or_default();
            let unknown_client = code == "invalid_client" || words.contains("client_id");
            return Err(match code {
                "invalid_grant" => Failure::Grant(words),
                "invalid_scope" => Failure::Scope(words),
                _ if unknown_client => Failure::Client(words),
                _ => Failure::Other(LoginError::Status {
                    target,
                    what,
                    status,
                    words,
                }),
            });
        }
        let tokens = match answer {
            Ok(tokens) => tokens,
            Err(RequestTokenError::Request(error)) => {
                return Err(Failure::Other(LoginError::NoAnswer {
                    target,
                    what,
                    why: error.to_string(),
                }));
            }
            // The library's own words may quote the body, and the body may hold tokens.
            Err(_) => return Err(unreadable("it is not the promised JSON")),
        };
        if *tokens.token_type() != BasicTokenType::Bearer {
            return Err(unreadable("the token is no bearer token"));
        }
        let good = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let access = tokens.access_token().secret();
        let refresh = tokens.refresh_token().map(|token| token.secret().as_str());
        if !good(access) || !refresh.is_none_or(good) {
            return Err(unreadable("a token is empty or holds odd characters"));
        }
        let now = now_ms();
        let life = tokens.expires_in().unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
        Ok(Tokens {
            access: access.as_str().into(),
            refresh: refresh.map(Into::into),
            issued_at_ms: now,
            expires_at_ms: now.saturating_add(i64::try_from(life.as_millis()).unwrap_or(0)),
            scope: tokens.scopes().map(|scopes| {
                let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
                text::excerpt(&names.join(" "), 1_000)
            }),
            clock_ahead_ms: seen
                .server_time_ms
                .map(|server| now.saturating_sub(server))
                .filter(|ahead| ahead.saturating_abs() > SKEW_MS),
        })
    }
}
