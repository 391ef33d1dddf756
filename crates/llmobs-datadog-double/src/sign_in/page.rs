//! The consent page and its error page. maud escapes everything that came with a request.

use axum::response::Response;
use http::StatusCode;
use llmobs_authz::html;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use url::Url;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}\
code{background:#eee;padding:.1rem .3rem}button{font:inherit;padding:.4rem 1.2rem;margin-right:1rem}";

/// Asks the user whether a client may have the scopes.
pub(super) fn consent(
    client_name: &str,
    scope: &str,
    consent_id: &str,
    redirect: &Url,
) -> Response {
    let origin = redirect.origin().ascii_serialization();
    let body = html! {
        h1 { "Sign in to the double of Datadog" }
        p { "The program " strong { (client_name) } " on this computer requests:" }
        ul { @for scope in scope.split(' ') { li { code { (scope) } } } }
        p { "You will be sent back to " code { (origin) } "." }
        form method="post" action="/oauth2/v1/authorize" {
            input type="hidden" name="consent" value=(consent_id);
            button name="decision" value="allow" id="allow" { "Allow" }
            button name="decision" value="deny" id="deny" { "Deny" }
        }
    };
    // Browsers apply the policy to the redirect that follows the form, so it names the client, too.
    page(StatusCode::OK, &body, &format!("'self' {origin}"))
}

/// Says what is wrong. It does not redirect, because the redirect URI may be wrong.
pub(super) fn error(description: &str) -> Response {
    let body = html! {
        h1 { "The sign-in failed" }
        p { (description) }
    };
    page(StatusCode::BAD_REQUEST, &body, "'none'")
}

fn page(status: StatusCode, body: &Markup, form_action: &str) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Sign in" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; form-action {form_action}; frame-ancestors 'none'; base-uri 'none'"
    );
    html::page(status, &policy, document.into_string())
}
