//! The consent page and its refusals. Everything that came with a request is escaped; no script.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use url::Url;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}\
code{background:#eee;padding:.1rem .3rem}button{font:inherit;padding:.4rem 1.2rem;margin-right:1rem}";

/// Asks whether this program may.
pub(super) fn consent(name: &str, scope: &str, id: &str, target: &Url) -> Response {
    let scopes: String = scope
        .split(' ')
        .map(|scope| format!("<li><code>{}</code></li>", escaped(scope)))
        .collect();
    let origin = target.origin().ascii_serialization();
    let body = format!(
        "<h1>Sign in to the local backend</h1>\
         <p>The program <strong>{name}</strong> on this machine asks for:</p><ul>{scopes}</ul>\
         <p>The answer goes to <code>{origin}</code>.</p>\
         <form method=\"post\" action=\"/oauth2/v1/authorize\">\
         <input type=\"hidden\" name=\"consent\" value=\"{id}\">\
         <button name=\"decision\" value=\"allow\" id=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\" id=\"deny\">Deny</button></form>",
        name = escaped(name),
        origin = escaped(&origin),
        id = escaped(id),
    );
    // The answer to the form is a redirect to the program, so that address must be named too.
    page(
        StatusCode::OK,
        "Sign in",
        &body,
        &format!("'self' {origin}"),
    )
}

/// Says what was wrong, and redirects nowhere.
pub(super) fn wrong(words: &str) -> Response {
    let body = format!("<h1>This does not work</h1><p>{}</p>", escaped(words));
    page(StatusCode::BAD_REQUEST, "Sign in", &body, "'none'")
}

fn page(status: StatusCode, title: &str, body: &str, form_action: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>{body}"
    );
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    );
    let fixed = HeaderValue::from_static;
    let policy = HeaderValue::from_str(&policy).unwrap_or(fixed("default-src 'none'"));
    let headers = [
        (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, fixed("no-store")),
        // Not `no-referrer`: browsers would send the form with `Origin: null`.
        (header::REFERRER_POLICY, fixed("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::X_FRAME_OPTIONS, fixed("DENY")),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, html).into_response()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}
