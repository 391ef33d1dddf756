//! The consent page and its refusals. Everything that came with a request is escaped; no script.

use axum::response::Response;
use http::StatusCode;
use url::Url;

use llmobs_authz::html::{self, escaped};

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
    html::page(status, &policy, html)
}
