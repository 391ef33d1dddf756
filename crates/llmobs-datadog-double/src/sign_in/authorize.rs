//! Consent: the user sees which client requests what, and returns to the registered redirect URI.
//!
//! Nothing is redirected before client and redirect URI are known to belong together. A consent
//! page belongs to the browser that was shown it (a cookie beside the hidden field) and can be
//! submitted once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use llmobs_authz::oauth::primitives::{
    Form, OauthError, OpaqueToken, TokenHash, is_s256_challenge,
};
use tokio::time::Instant;
use url::Url;

use super::grants::AuthorizationRequest;
use super::{SignIn, page};

const COOKIE: &str = "llmobs_double_consent";
/// How long a consent page can be submitted.
const CONSENT_LIFETIME: Duration = Duration::from_secs(600);
/// The scopes of a request that names none.
const DEFAULT_SCOPES: &str = "llm_observability_read llm_observability_write";
const KNOWN_SCOPES: [&str; 9] = [
    "llm_observability_read",
    "llm_observability_write",
    "feature_flag_config_read",
    "feature_flag_config_write",
    "feature_flag_environment_config_read",
    "feature_flag_environment_config_write",
    "user_self_profile_read",
    "apm_read",
    "timeseries_query",
];
const ORG_NAME: &str = "Double";

/// An open consent page.
pub(super) struct PendingConsent {
    request: AuthorizationRequest,
    state: String,
    /// The hash of the cookie of the browser that was shown it.
    browser: TokenHash,
    expires: Instant,
}

/// `GET`: checks the request and shows the consent page.
pub(super) async fn show_page(State(sign_in): State<Arc<SignIn>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let form = match Form::parse(query.as_bytes()) {
        Ok(form) => form,
        Err(error) => return page::error(&error.description),
    };
    let (Some(client_id), Some(redirect_uri)) = (form.get("client_id"), form.get("redirect_uri"))
    else {
        return page::error("client_id and redirect_uri are required");
    };
    let Some(client) = sign_in.clients.get(client_id) else {
        return page::error("Invalid client_id: the program is not registered");
    };
    if !client
        .redirect_uris
        .iter()
        .any(|known| known == redirect_uri)
    {
        return page::error("Invalid redirect_uri: the program did not register it");
    }
    let Ok(redirect) = Url::parse(redirect_uri) else {
        return page::error("Invalid redirect_uri");
    };
    let state = form.get("state").unwrap_or_default();
    let request = match read_request(&form, client_id, redirect_uri) {
        Ok(request) => request,
        Err(error) => {
            let values = [
                ("error", error.code),
                ("error_description", &error.description),
            ];
            return redirect_to_client(redirect, &values, state);
        }
    };
    if state.is_empty() {
        let values = [
            ("error", "invalid_request"),
            ("error_description", "state is missing"),
        ];
        return redirect_to_client(redirect, &values, state);
    }
    let (id, browser) = (OpaqueToken::generate(), OpaqueToken::generate());
    let mut response = page::consent(&client.name, &request.scope, id.expose(), &redirect);
    let consent = PendingConsent {
        request,
        state: state.to_owned(),
        browser: browser.hash(),
        expires: Instant::now() + CONSENT_LIFETIME,
    };
    sign_in
        .consents
        .insert(id.expose().to_owned(), Arc::new(consent));
    let cookie = format!(
        "{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/oauth2/v1/authorize; Max-Age={}",
        browser.expose(),
        CONSENT_LIFETIME.as_secs()
    );
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn read_request(
    form: &Form,
    client_id: &str,
    redirect_uri: &str,
) -> Result<AuthorizationRequest, OauthError> {
    if form.get("response_type") != Some("code") {
        return Err(OauthError::new(
            "unsupported_response_type",
            "response_type can only be code",
        ));
    }
    let challenge = form.require("code_challenge")?;
    // The default method would be `plain`.
    if form.get("code_challenge_method") != Some("S256") {
        return Err(OauthError::invalid_request(
            "code_challenge_method can only be S256",
        ));
    }
    if !is_s256_challenge(challenge) {
        return Err(OauthError::invalid_request(
            "code_challenge is not a SHA-256 hash in base64url",
        ));
    }
    let scope = form.get("scope").unwrap_or(DEFAULT_SCOPES);
    let unknown: Vec<&str> = scope
        .split_ascii_whitespace()
        .filter(|scope| !KNOWN_SCOPES.contains(scope))
        .collect();
    if !unknown.is_empty() {
        return Err(OauthError::new(
            "invalid_scope",
            format!(
                "The following scopes are not recognized: {}",
                unknown.join(", ")
            ),
        ));
    }
    Ok(AuthorizationRequest {
        client_id: client_id.to_owned(),
        redirect_uri: redirect_uri.to_owned(),
        code_challenge: challenge.to_owned(),
        scope: scope.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
    })
}

/// `POST`: the submitted consent page.
pub(super) async fn submit(State(sign_in): State<Arc<SignIn>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let form = match Form::from_request(request).await {
        Ok(form) => form,
        Err(error) => return page::error(&error.description),
    };
    let authority = authority_of(&headers);
    let is_same_origin = headers
        .get(header::ORIGIN)
        .is_none_or(|origin| origin.as_bytes() == format!("http://{authority}").as_bytes());
    if !is_same_origin {
        return page::error("the form was not sent by the consent page");
    }
    // Removed in any case: a page can be submitted once.
    let consent = sign_in
        .consents
        .remove(form.get("consent").unwrap_or_default());
    let browser = cookie_of(&headers).map(|value| TokenHash::of(&value));
    let Some(consent) = consent.filter(|consent| {
        let is_same_browser = browser.is_some_and(|browser| consent.browser.matches(&browser));
        is_same_browser && consent.expires > Instant::now()
    }) else {
        return page::error(
            "This page has expired, was already submitted, or was opened in another browser. Start the sign-in again.",
        );
    };
    let Ok(redirect) = Url::parse(&consent.request.redirect_uri) else {
        return page::error("Invalid redirect_uri");
    };
    if form.get("decision") != Some("allow") {
        let values = [
            ("error", "access_denied"),
            ("error_description", "The user denied the access"),
        ];
        return redirect_to_client(redirect, &values, &consent.state);
    }
    let code = sign_in.grants().issue_code(consent.request.clone());
    let site = format!("http://{authority}");
    let values = [
        ("code", code.as_str()),
        ("domain", &authority),
        ("site", &site),
        ("dd_oid", &sign_in.org_id),
        ("dd_org_name", ORG_NAME),
    ];
    redirect_to_client(redirect, &values, &consent.state)
}

/// Redirects the browser to the client.
fn redirect_to_client(mut redirect: Url, values: &[(&str, &str)], state: &str) -> Response {
    {
        let mut query = redirect.query_pairs_mut();
        query.extend_pairs(values);
        if !state.is_empty() {
            query.append_pair("state", state);
        }
    }
    let Ok(location) = HeaderValue::from_str(redirect.as_str()) else {
        return page::error("Invalid redirect_uri");
    };
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::LOCATION, location),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::CACHE_CONTROL, fixed("no-store")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The address that the browser used. The backend accepts loopback addresses only.
fn authority_of(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("127.0.0.1:8126")
        .to_owned()
}

fn cookie_of(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}
