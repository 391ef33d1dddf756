//! Consent: who asks is shown, and the answer goes back to where that program registered.
//!
//! Nothing is redirected before program and address are known to belong together. A consent is
//! bound to the browser that was shown it (a cookie beside the hidden field) and good for one
//! answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::Instant;
use url::Url;

use super::grants::Asked;
use super::{Form, OauthError, body_of, hashed, page, random, unstored};
use crate::Backend;

const COOKIE: &str = "llmobs_mcp_consent";
/// How long a consent page waits.
const PATIENCE: Duration = Duration::from_secs(600);
/// What is asked for when a program names no scope.
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
/// The one organisation of this machine.
const ORG_NAME: &str = "Local";

/// An open consent page.
pub(super) struct Consent {
    asked: Asked,
    state: String,
    /// Hash of the cookie of the browser that was shown it.
    browser: [u8; 32],
    until: Instant,
}

pub(super) async fn ask(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let form = match Form::read(query.as_bytes()) {
        Ok(form) => form,
        Err(error) => return page::wrong(&error.words),
    };
    let (Some(client_id), Some(redirect)) = (form.get("client_id"), form.get("redirect_uri"))
    else {
        return page::wrong("client_id and redirect_uri are needed");
    };
    let Some(client) = backend
        .authority
        .known()
        .clients
        .get(&client_id.to_owned())
        .cloned()
    else {
        return page::wrong("Invalid client_id: this program is not registered here");
    };
    if !client.redirects.iter().any(|known| known == redirect) {
        return page::wrong("Invalid redirect_uri: this program did not register that address");
    }
    let Ok(target) = Url::parse(redirect) else {
        return page::wrong("Invalid redirect_uri");
    };
    let state = form.get("state").unwrap_or_default();
    let asked = match read(&form, client_id, redirect) {
        Ok(asked) => asked,
        Err(error) => {
            let error = [("error", error.code), ("error_description", &error.words)];
            return back(target, &error, state);
        }
    };
    if state.is_empty() {
        return back(
            target,
            &[
                ("error", "invalid_request"),
                ("error_description", "state is missing"),
            ],
            state,
        );
    }
    let (id, browser) = (random(), random());
    let shown = page::consent(&client.name, &asked.scope, &id, &target);
    let consent = Consent {
        asked,
        state: state.to_owned(),
        browser: hashed(&browser),
        until: Instant::now() + PATIENCE,
    };
    backend.authority.known().consents.insert(id, consent);
    let cookie = format!(
        "{COOKIE}={browser}; HttpOnly; SameSite=Strict; Path=/oauth2/v1/authorize; Max-Age={}",
        PATIENCE.as_secs()
    );
    let mut response = shown;
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn read(form: &Form, client_id: &str, redirect: &str) -> Result<Asked, OauthError> {
    if form.get("response_type") != Some("code") {
        return Err(OauthError::new(
            "unsupported_response_type",
            "response_type can only be code",
        ));
    }
    let challenge = form.need("code_challenge")?;
    // Without a method it would be `plain`.
    if form.get("code_challenge_method") != Some("S256") {
        return Err(OauthError::new(
            "invalid_request",
            "code_challenge_method can only be S256",
        ));
    }
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if challenge.len() != 43 || !challenge.bytes().all(base64url) {
        return Err(OauthError::new(
            "invalid_request",
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
    Ok(Asked {
        client_id: client_id.to_owned(),
        redirect: redirect.to_owned(),
        challenge: challenge.to_owned(),
        scope: scope.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
    })
}

pub(super) async fn decide(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let form = match body_of(request).await.and_then(|body| Form::read(&body)) {
        Ok(form) => form,
        Err(error) => return page::wrong(&error.words),
    };
    let authority = authority(&headers);
    let same_origin = headers
        .get(header::ORIGIN)
        .is_none_or(|origin| origin.as_bytes() == format!("http://{authority}").as_bytes());
    if !same_origin {
        return page::wrong("this answer does not come from the consent page");
    }
    let id = form.get("consent").unwrap_or_default().to_owned();
    // Taken out whatever the answer is: one page, one answer.
    let consent = backend.authority.known().consents.remove(&id);
    let browser = cookie(&headers).map(|value| hashed(&value));
    let Some(consent) = consent
        .filter(|consent| Some(consent.browser) == browser && consent.until > Instant::now())
    else {
        return page::wrong(
            "this consent page is over, was answered before, or was opened in another browser; start the sign-in again",
        );
    };
    let Ok(target) = Url::parse(&consent.asked.redirect) else {
        return page::wrong("Invalid redirect_uri");
    };
    if form.get("decision") != Some("allow") {
        let denied = [
            ("error", "access_denied"),
            ("error_description", "The user denied the access"),
        ];
        return back(target, &denied, &consent.state);
    }
    let code = backend.authority.known().grants.code(consent.asked);
    let site = format!("http://{authority}");
    let values = [
        ("code", code.as_str()),
        ("domain", &authority),
        ("site", &site),
        ("dd_oid", backend.store_id.as_str()),
        ("dd_org_name", ORG_NAME),
    ];
    back(target, &values, &consent.state)
}

/// Sends the browser back to the program.
fn back(mut target: Url, values: &[(&str, &str)], state: &str) -> Response {
    {
        let mut query = target.query_pairs_mut();
        query.extend_pairs(values);
        if !state.is_empty() {
            query.append_pair("state", state);
        }
    }
    let Ok(location) = HeaderValue::from_str(target.as_str()) else {
        return page::wrong("Invalid redirect_uri");
    };
    let headers = [
        (header::LOCATION, location),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    unstored((StatusCode::SEE_OTHER, headers).into_response())
}

/// The address that the browser used, which the guard has found to be loopback.
fn authority(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("127.0.0.1:8126")
        .to_owned()
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.to_owned())
}
