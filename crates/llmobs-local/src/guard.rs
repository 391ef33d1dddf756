//! What stands before every route: who may ask, what happens to a panic, and the counting.
//!
//! A web page can send requests to loopback. It cannot forge `Host` (a rebound name shows) nor
//! leave out `Origin` on anything that changes data: both have to name this machine.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use tower_http::catch_panic::CatchPanicLayer;

use super::http::ApiError;
use super::{Backend, PROXY_PREFIXES};

/// Puts the guard around the routes, and answers what no route knows.
pub(super) fn guarded(routes: Router, backend: &Arc<Backend>) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(backend.clone(), count))
        .layer(from_fn(check))
        .layer(CatchPanicLayer::custom(|_panic| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "llmobs-mcp has a fault; please report it",
            )
            .into_response()
        }))
}

async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "the local backend has no such path; GET /info lists what it serves",
    )
}

async fn not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take this method; the Allow header names those it takes",
    )
}

async fn count(
    State(backend): State<Arc<Backend>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let route = matched.map_or_else(
        || "unknown".to_owned(),
        |path| {
            let path = path.as_str();
            let path = PROXY_PREFIXES
                .iter()
                .find_map(|prefix| path.strip_prefix(prefix))
                .unwrap_or(path);
            format!("{} {path}", request.method())
        },
    );
    backend.counters.count_request(route);
    next.run(request).await
}

async fn check(request: Request, next: Next) -> Response {
    match foreign(request.headers(), request.uri()) {
        None => next.run(request).await,
        Some(what) => ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "{what} does not name this machine; the local backend answers only requests to 127.0.0.1, [::1] or localhost that no web page of another site made"
            ),
        )
        .into_response(),
    }
}

/// Which part of the request names another machine, if any.
///
/// A request without `Host` comes from this process or from a client that is no browser.
fn foreign(headers: &HeaderMap, uri: &http::Uri) -> Option<&'static str> {
    let hosts_fine = headers
        .get_all(header::HOST)
        .iter()
        .all(|host| host.to_str().is_ok_and(authority_is_loopback))
        && uri
            .authority()
            .is_none_or(|authority| authority_is_loopback(authority.as_str()));
    if !hosts_fine {
        return Some("the Host header");
    }
    let origins_fine = headers
        .get_all(header::ORIGIN)
        .iter()
        .all(|origin| origin.to_str().is_ok_and(origin_is_loopback));
    (!origins_fine).then_some("the Origin header")
}

fn origin_is_loopback(origin: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme))
        .is_some_and(authority_is_loopback)
}

/// Whether `host` or `host:port` names this machine.
pub(super) fn authority_is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            return is_port(port) && address.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback());
        }
        None => match authority.split_once(':') {
            Some((host, port)) if is_port_number(port) => host,
            Some(_) => return false,
            None => authority,
        },
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port_number)
}

fn is_port_number(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:8126", true)]
    #[case("127.8.0.1", true)]
    #[case("localhost:1", true)]
    #[case("LOCALHOST", true)]
    #[case("[::1]:8126", true)]
    #[case("[::1]", true)]
    #[case("evil.example", false)]
    #[case("127.0.0.1.evil.example:8126", false)]
    #[case("localhost.evil.example", false)]
    #[case("127.0.0.1:8126@evil.example", false)]
    #[case("[::1].evil.example", false)]
    #[case("0.0.0.0:8126", false)]
    #[case("2130706433", false)]
    #[case("", false)]
    fn only_names_of_this_machine_are_loopback(#[case] host: &str, #[case] fine: bool) {
        assert_eq!(authority_is_loopback(host), fine);
    }

    #[rstest]
    #[case("http://localhost:3000", true)]
    #[case("https://127.0.0.1", true)]
    #[case("null", false)]
    #[case("https://evil.example", false)]
    #[case("file://", false)]
    #[case("http://localhost:3000/x", false)]
    fn an_origin_is_a_scheme_and_a_loopback_host(#[case] origin: &str, #[case] fine: bool) {
        assert_eq!(origin_is_loopback(origin), fine);
    }
}
