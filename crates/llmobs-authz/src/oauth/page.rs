//! The HTML pages of the sign-in: no scripts, no external resources, and no framing or caching.
//!
//! `maud` escapes every text that is inserted.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::html;

use super::primitives::{OauthError, OpaqueToken};
use super::redirect_uri;
use super::state::ServerState;
use super::store::consents::Consent;
use super::wire;

const STYLE: &str = "body{font:1.05rem/1.5 system-ui,sans-serif;max-width:38rem;margin:3rem auto;padding:0 1rem}\
code{background:#eee;padding:.1rem .3rem;overflow-wrap:anywhere}label{display:block;margin:.6rem 0}\
input[type=password]{width:100%;font:inherit;padding:.3rem;box-sizing:border-box}\
button{font:inherit;padding:.4rem 1.4rem;margin:1rem 1rem 0 0}\
.warning{border-left:.3rem solid #b60;padding-left:.8rem}.error{border-left:.3rem solid #b00;padding-left:.8rem}";

/// The message for a user when the upstream gave no usable response.
pub(super) const UPSTREAM_UNAVAILABLE: &str =
    "Datadog did not respond as expected, so nothing could be verified. Try again in a minute.";

/// The consent page: asks whether the client may have access, and for the credential to use. `error`
/// describes what was wrong with the previous submission.
pub(super) fn consent(
    server: &ServerState,
    consent: &Consent,
    redirect_uri: &Url,
    id: &str,
    csrf: &OpaqueToken,
    error: Option<&str>,
) -> Response {
    let body = html! {
        h1 { "Connect to LLM observability data" }
        @if let Some(error) = error {
            p.error role="alert" { (error) }
        }
        p {
            "The program " strong { (consent.client_name) } " requests access to "
            code { (consent.resource) } ", to read the LLM observability data of "
            (server.hub.upstream().name()) ": traces with their prompts and answers, experiments and \
            evaluators."
        }
        (client_origin(consent))
        (destination(redirect_uri))
        form method="post" action=(wire::CONSENT) autocomplete="off" {
            input type="hidden" name="page" value=(id);
            input type="hidden" name="csrf" value=(csrf.expose());
            (credential_fields(server))
            label {
                input type="checkbox" name="write" value="yes";
                " Also allow changes to experiments, datasets and evaluators"
            }
            button name="decision" value="allow" id="allow" { "Allow" }
            button name="decision" value="deny" id="deny" { "Deny" }
            (datadog_button(server))
        }
    };
    let status = match error {
        None => StatusCode::OK,
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    // The response to the form is a redirect to the client, so the policy must allow that address, and
    // the pages of Datadog if the form can lead there.
    let mut form_action = format!("'self' {}", redirect_uri::policy_source(redirect_uri));
    if let Some(sign_in) = &server.datadog_sign_in {
        form_action.push(' ');
        form_action.push_str(&sign_in.policy_sources());
    }
    page(status, &body, &form_action)
}

/// The consent page again, for a browser that returned from Datadog, with the error of that sign-in.
pub(super) fn consent_again(
    server: &ServerState,
    open_page: &Consent,
    id: &str,
    csrf: &OpaqueToken,
    error: &str,
) -> Result<Response, OauthError> {
    let redirect_uri = Url::parse(&open_page.redirect).map_err(|_| OauthError::server_error())?;
    Ok(consent(
        server,
        open_page,
        &redirect_uri,
        id,
        csrf,
        Some(error),
    ))
}

/// Where the name of the client comes from.
fn client_origin(consent: &Consent) -> Markup {
    html! {
        @match &consent.client_host {
            Some(host) => p {
                "The host " code { (host) } " publishes the name of this program."
            },
            None => p.warning {
                "The program chose this name; it is not verified. Continue only if you started this \
                 sign-in yourself, just now."
            },
        }
    }
}

/// Where the browser goes after the decision.
fn destination(redirect_uri: &Url) -> Markup {
    let address = redirect_uri::display_address(redirect_uri);
    html! {
        @if redirect_uri::is_loopback(redirect_uri) {
            p {
                "You will be sent back to a program on this computer, at " code { (address) } ". Deny if \
                 you followed a link that someone sent you."
            }
        } @else {
            p.warning {
                "You will be sent to " code { (address) } ". Allow only if you know and trust this address: \
                 it will be able to read the data."
            }
        }
    }
}

/// The input fields for a credential.
fn credential_fields(server: &ServerState) -> Markup {
    let field = |name: &str, label: &str| {
        html! {
            label {
                (label)
                input type="password" name=(name) autocomplete="off" spellcheck="false" maxlength="1000";
            }
        }
    };
    html! {
        h2 { "Your Datadog credential" }
        p {
            "A personal or service access token, or an API key with an application key, of "
            (server.hub.upstream().name()) ". This server verifies it, stores it encrypted, and never gives \
            it to the program. Limit its scopes to LLM Observability: read, and write if you allow changes \
            below."
        }
        (field("token", "Access token"))
        p { "or" }
        (field("api_key", "API key"))
        (field("application_key", "Application key"))
    }
}

/// The button for the sign-in at Datadog, if the server offers it. It is the last button, so that Enter
/// in a field does not press it.
fn datadog_button(server: &ServerState) -> Markup {
    html! {
        @if let Some(sign_in) = &server.datadog_sign_in {
            h2 { "Or without a token or keys" }
            p {
                "Sign in at " (sign_in.target.name()) " and allow the access there. This server receives a \
                 login for LLM Observability only: to read, and to write if you allow changes above. It \
                 stores the login encrypted, never gives it to the program, and revokes it when the \
                 program's access ends."
            }
            button name="decision" value="datadog" id="datadog" { "Sign in at Datadog" }
        }
    }
}

/// Sends a browser that came from another site's form on to the client. A redirect would not work:
/// browsers check every redirect that follows a form against the policy of the page with the form. That
/// page can allow this server, but not the addresses of its clients.
pub(super) fn continue_to_client(url: &Url) -> Response {
    let body = html! {
        h1 { "Signed in" }
        p {
            "Returning to the program. If nothing happens, " a href=(url.as_str()) { "continue here" } "."
        }
    };
    let mut response = page(StatusCode::OK, &body, "'none'");
    // A URL that is not a valid header value still has the link.
    if let Ok(mut refresh) = HeaderValue::from_str(&format!("0; url={url}")) {
        refresh.set_sensitive(true);
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    response
}

/// An error page. It leads nowhere.
pub(super) fn error(error: &OauthError) -> Response {
    let body = html! {
        h1 { "Sign-in failed" }
        p.error role="alert" { (error.description) }
        p { code { (error.code) } }
    };
    let mut response = page(error.status, &body, "'none'");
    if let Some(seconds) = error.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn page(status: StatusCode, body: &Markup, form_action: &str) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Sign in: llmobs-mcp" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action {form_action}; \
         frame-ancestors 'none'; base-uri 'none'",
        style = STANDARD.encode(Sha256::digest(STYLE)),
    );
    html::page(status, &policy, document.into_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn error_page_escapes_text_and_leads_nowhere() {
        let response = error(&OauthError::invalid_request("<b>"));
        assert_eq!(response.status(), 400);
        assert!(response.headers().get("location").is_none());
        let policy = response.headers().get("content-security-policy").unwrap();
        assert!(policy.to_str().unwrap().contains("form-action 'none'"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&body).unwrap();
        assert!(
            text.contains("&lt;b&gt;") && !text.contains("<b>"),
            "{text}"
        );
    }
}
