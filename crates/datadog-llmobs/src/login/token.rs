//! The token endpoint: code exchange, refresh and revocation.
//!
//! The `oauth2` crate writes the forms and reads the success responses; requests go through our
//! [`Transport`]. Errors are read here, because Datadog returns them in two formats: OAuth's `error`,
//! and `{"errors": ["invalid_grant - message"]}`, which no library reads. Revocation is implemented
//! here too: the crate requires https for it, which a server on this machine does not have.

use std::sync::{Mutex, PoisonError};
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

use super::super::cause::ErrorCause;
use super::super::credential::Credential;
use super::super::error::upstream_message;
use super::super::text;
use super::super::transport::{Transport, TransportError};
use super::error::LoginError;
use super::store::Login;
use super::target::LoginTarget;
use super::{RESPONSE_LIMITS, now_ms};

/// The documented lifetime of an access token, for responses that do not state it.
const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// Longer stated lifetimes are reduced to this.
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// Clocks that differ by more are reported.
const MAX_CLOCK_SKEW_MS: i64 = 120_000;

const MAX_MESSAGE_BYTES: usize = 300;

/// The tokens of a success response.
pub(super) struct Tokens {
    pub(super) access_token: SecretString,
    pub(super) refresh_token: Option<SecretString>,
    /// When they were received, by this machine's clock.
    pub(super) issued_at_ms: i64,
    /// When the access token expires, by this machine's clock.
    pub(super) expires_at_ms: i64,
    /// The granted scopes, if the response states them.
    pub(super) scope: Option<String>,
    /// How far this machine's clock is ahead of the server's, if by more than
    /// [`MAX_CLOCK_SKEW_MS`].
    clock_ahead_ms: Option<i64>,
}

impl Tokens {
    /// A note for the user if this machine's clock is wrong.
    pub(super) fn clock_note(&self, target: &LoginTarget) -> Option<String> {
        let ahead_ms = self.clock_ahead_ms?;
        let minutes = ahead_ms.saturating_abs() / 60_000;
        let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the clock of this machine is {minutes} minutes {direction} that of {}; correct it, or logins expire too early or too late",
            target.name()
        ))
    }
}

/// Why a token endpoint returned no tokens.
pub(super) enum TokenError {
    /// The code or refresh token was rejected.
    Grant(String),
    /// The client id is unknown.
    Client(String),
    /// The scopes were rejected.
    Scope(String),
    /// Any other error.
    Other(LoginError),
}

/// Exchanges a code for tokens.
pub(super) async fn exchange(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_id: &str,
    redirect_uri: &str,
    code: &SecretString,
    verifier: PkceCodeVerifier,
) -> Result<Tokens, TokenError> {
    let request = TokenRequest::new(transport, target, "the code exchange");
    let client = request.client(client_id)?;
    let redirect_uri = RedirectUrl::new(redirect_uri.to_owned())
        .map_err(|_| request.not_a_url("the redirect URI is not a URL"))?;
    // Both are redacted from error messages.
    let secrets = Credential::KeyPair {
        api_key: code.clone(),
        app_key: verifier.secret().as_str().into(),
    };
    let client = client.set_redirect_uri(redirect_uri);
    let http = HttpAdapter {
        request: &request,
        secrets: &secrets,
    };
    let response = client
        .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
        .set_pkce_verifier(verifier)
        .request_async(&http)
        .await;
    request.read(response)
}

/// Exchanges a refresh token for new tokens.
pub(super) async fn refresh(
    transport: &dyn Transport,
    target: &LoginTarget,
    client_id: &str,
    refresh_token: &SecretString,
) -> Result<Tokens, TokenError> {
    let request = TokenRequest::new(transport, target, "the renewal of the login");
    let client = request.client(client_id)?;
    let secrets = Credential::Bearer(refresh_token.clone());
    let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
    let http = HttpAdapter {
        request: &request,
        secrets: &secrets,
    };
    let response = client
        .exchange_refresh_token(&token)
        .request_async(&http)
        .await;
    request.read(response)
}

/// Revokes the tokens of a login: first the refresh token, which ends the grant.
///
/// # Errors
/// The server did not accept the revocation. The login should be removed nevertheless.
pub async fn revoke(transport: &dyn Transport, login: &Login) -> Result<(), LoginError> {
    let tokens = [
        login
            .refresh_token
            .as_ref()
            .map(|token| (token, "refresh_token")),
        Some((&login.access_token, "access_token")),
    ];
    for (token, hint) in tokens.into_iter().flatten() {
        revoke_token(transport, login, token, hint).await?;
    }
    Ok(())
}

async fn revoke_token(
    transport: &dyn Transport,
    login: &Login,
    token: &SecretString,
    hint: &str,
) -> Result<(), LoginError> {
    const OPERATION: &str = "the revocation";
    let target = &login.target;
    let no_response = |source: ErrorCause| LoginError::NoResponse {
        target: target.name(),
        operation: OPERATION,
        source,
    };
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client_id", &login.client_id)
        .append_pair("token", token.expose_secret())
        .append_pair("token_type_hint", hint)
        .finish();
    let mut request = Request::new(Bytes::from(form));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = target
        .revoke_url()
        .parse()
        .map_err(|error: http::uri::InvalidUri| no_response(ErrorCause::new(error)))?;
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    Credential::Bearer(login.access_token.clone()).apply(request.headers_mut());
    let response = transport
        .send(request, RESPONSE_LIMITS)
        .await
        .map_err(|error| no_response(ErrorCause::new(error)))?;
    match response.status().as_u16() {
        200..=299 => Ok(()),
        // The access token has expired, or ended with its refresh token.
        401 if hint == "access_token" => Ok(()),
        status => Err(LoginError::Status {
            target: target.name(),
            operation: OPERATION,
            status,
            message: error_message(response.body(), &Credential::Bearer(token.clone())),
        }),
    }
}

fn error_message(body: &[u8], secrets: &Credential) -> String {
    text::truncate(&upstream_message(body, secrets), MAX_MESSAGE_BYTES)
}

/// The parts of a response that the library does not read.
#[derive(Default)]
struct ResponseDetails {
    error: Option<(u16, String)>,
    server_time_ms: Option<i64>,
}

/// One request to a token endpoint.
struct TokenRequest<'a> {
    transport: &'a dyn Transport,
    target: &'a LoginTarget,
    operation: &'static str,
    details: Mutex<ResponseDetails>,
}

/// Sends the library's requests through our transport.
struct HttpAdapter<'a> {
    request: &'a TokenRequest<'a>,
    secrets: &'a Credential,
}

impl<'c> AsyncHttpClient<'c> for HttpAdapter<'_> {
    type Error = TransportError;
    type Future = BoxFuture<'c, Result<HttpResponse, TransportError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        self.request.send(request, self.secrets).boxed()
    }
}

type TokenClient = BasicClient<
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointSet,
>;

impl<'a> TokenRequest<'a> {
    fn new(transport: &'a dyn Transport, target: &'a LoginTarget, operation: &'static str) -> Self {
        Self {
            transport,
            target,
            operation,
            details: Mutex::default(),
        }
    }

    fn client(&self, client_id: &str) -> Result<TokenClient, TokenError> {
        let url = TokenUrl::new(self.target.token_url())
            .map_err(|_| self.not_a_url("the token address is not a URL"))?;
        Ok(BasicClient::new(ClientId::new(client_id.to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(url))
    }

    fn not_a_url(&self, message: &str) -> TokenError {
        TokenError::Other(self.no_response(message.into()))
    }

    fn no_response(&self, source: ErrorCause) -> LoginError {
        LoginError::NoResponse {
            target: self.target.name(),
            operation: self.operation,
            source,
        }
    }

    fn unreadable(&self, reason: &'static str) -> TokenError {
        TokenError::Other(LoginError::Unreadable {
            target: self.target.name(),
            operation: self.operation,
            reason,
        })
    }

    async fn send(
        &self,
        request: HttpRequest,
        secrets: &Credential,
    ) -> Result<HttpResponse, TransportError> {
        let response = self
            .transport
            .send(request.map(Bytes::from), RESPONSE_LIMITS)
            .await?;
        let date = response
            .headers()
            .get(header::DATE)
            .and_then(|date| date.to_str().ok())
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
            .map(|date| date.timestamp().as_millisecond());
        let mut details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        details.server_time_ms = date;
        if !response.status().is_success() {
            let message = error_message(response.body(), secrets);
            details.error = Some((response.status().as_u16(), message));
        }
        Ok(response.map(Vec::from))
    }

    fn read<E: oauth2::ErrorResponse>(
        self,
        response: Result<BasicTokenResponse, RequestTokenError<TransportError, E>>,
    ) -> Result<Tokens, TokenError> {
        let details =
            std::mem::take(&mut *self.details.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((status, message)) = details.error {
            return Err(self.status_error(status, message));
        }
        let tokens = match response {
            Ok(tokens) => tokens,
            Err(RequestTokenError::Request(error)) => {
                return Err(TokenError::Other(self.no_response(ErrorCause::new(error))));
            }
            // The library's message may quote the body, and the body may hold tokens.
            Err(_) => return Err(self.unreadable("it is not the expected JSON")),
        };
        if *tokens.token_type() != BasicTokenType::Bearer {
            return Err(self.unreadable("the token is not a bearer token"));
        }
        let is_valid = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let access_token = tokens.access_token().secret();
        let refresh_token = tokens.refresh_token().map(|token| token.secret().as_str());
        if !is_valid(access_token) || !refresh_token.is_none_or(is_valid) {
            return Err(self.unreadable("a token is empty or has invalid characters"));
        }
        let now = now_ms();
        let lifetime = tokens
            .expires_in()
            .unwrap_or(DEFAULT_TOKEN_LIFETIME)
            .min(MAX_TOKEN_LIFETIME);
        Ok(Tokens {
            access_token: access_token.as_str().into(),
            refresh_token: refresh_token.map(Into::into),
            issued_at_ms: now,
            expires_at_ms: now.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(0)),
            scope: tokens.scopes().map(|scopes| {
                let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
                text::excerpt(&names.join(" "), 1_000)
            }),
            clock_ahead_ms: details
                .server_time_ms
                .map(|server| now.saturating_sub(server))
                .filter(|ahead| ahead.saturating_abs() > MAX_CLOCK_SKEW_MS),
        })
    }

    fn status_error(&self, status: u16, message: String) -> TokenError {
        // `invalid_grant; description` or `invalid_grant - description`.
        let code = message
            .split([' ', ';', ',', ':'])
            .next()
            .unwrap_or_default();
        let is_unknown_client = code == "invalid_client" || message.contains("client_id");
        match code {
            "invalid_grant" => TokenError::Grant(message),
            "invalid_scope" => TokenError::Scope(message),
            _ if is_unknown_client => TokenError::Client(message),
            _ => TokenError::Other(LoginError::Status {
                target: self.target.name(),
                operation: self.operation,
                status,
                message,
            }),
        }
    }
}
