//! Redirects of a browser to a client or to Datadog.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use url::Url;

use super::primitives::OauthError;
use super::state::ServerState;

/// The redirect URI of a client with the parameters of an authorization response. The values are
/// percent-encoded, so that none of them can add a parameter, a header or another host.
pub(super) fn response_url(
    server: &ServerState,
    mut redirect_uri: Url,
    values: &[(&str, &str)],
    client_state: Option<&str>,
) -> Url {
    {
        let mut query = redirect_uri.query_pairs_mut();
        query.extend_pairs(values);
        if let Some(state) = client_state {
            query.append_pair("state", state);
        }
        // RFC 9207: the client compares it with the issuer of its request.
        query.append_pair("iss", server.public_url.origin());
    }
    redirect_uri
}

/// Redirects the browser to the client with an error.
pub(super) fn redirect_with_error(
    server: &ServerState,
    redirect_uri: Url,
    error: &OauthError,
    client_state: Option<&str>,
) -> Response {
    let values = [
        ("error", error.code),
        ("error_description", &error.description),
    ];
    redirect(&response_url(server, redirect_uri, &values, client_state))
}

/// Redirects the browser to a URL, which caches and logs must not keep.
pub(super) fn redirect(url: &Url) -> Response {
    let Ok(mut location) = HeaderValue::from_str(url.as_str()) else {
        return OauthError::server_error().into_response();
    };
    location.set_sensitive(true);
    let fixed = HeaderValue::from_static;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::REFERRER_POLICY, fixed("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
