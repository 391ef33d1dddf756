//! The pages that a browser is shown: plain HTML of ours, no script, nothing from elsewhere.
//!
//! Whatever came with a request is escaped. No page may be framed or kept.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::answer::OauthError;
use super::opaque::Opaque;
use super::store::consents::Consent;
use super::{CONSENT, Inner, redirect};
use crate::html::{self, escaped};

const STYLE: &str = "body{font:1.05rem/1.5 system-ui,sans-serif;max-width:38rem;margin:3rem auto;padding:0 1rem}\
code{background:#eee;padding:.1rem .3rem;overflow-wrap:anywhere}label{display:block;margin:.6rem 0}\
input[type=password]{width:100%;font:inherit;padding:.3rem;box-sizing:border-box}\
button{font:inherit;padding:.4rem 1.4rem;margin:1rem 1rem 0 0}\
.warning{border-left:.3rem solid #b60;padding-left:.8rem}.error{border-left:.3rem solid #b00;padding-left:.8rem}";

/// What a page says when the upstream gave no usable answer.
pub(super) const NO_ANSWER: &str =
    "Datadog did not answer as expected, so nothing could be tried; try again in a minute";

/// Asks whether this client may, and for the credential that it would use.
pub(super) fn consent(
    inner: &Inner,
    asked: &Consent,
    target: &Url,
    id: &str,
    csrf: &Opaque,
    error: Option<&str>,
) -> Response {
    let name = escaped(&asked.client_name);
    let upstream = escaped(&inner.hub.upstream().name());
    let error = error.map_or(String::new(), |words| {
        format!("<p class=\"error\" role=\"alert\">{}</p>", escaped(words))
    });
    let body = format!(
        "<h1>Connect to LLM observability data</h1>{error}\
         <p>The program <strong>{name}</strong> asks for access to <code>{resource}</code>, to read the \
         LLM observability data of {upstream}: traces with their prompts and answers, experiments and \
         evaluators.</p>{origin}{leads}\
         <form method=\"post\" action=\"{CONSENT}\" autocomplete=\"off\">\
         <input type=\"hidden\" name=\"page\" value=\"{id}\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">{fields}\
         <label><input type=\"checkbox\" name=\"write\" value=\"yes\"> Let it also make changes: \
         experiments, datasets and evaluators</label>\
         <button name=\"decision\" value=\"allow\" id=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\" id=\"deny\">Deny</button>{sign_in}</form>",
        resource = escaped(&asked.resource),
        origin = who(asked),
        leads = where_to(target),
        id = escaped(id),
        csrf = escaped(csrf.expose()),
        fields = fields(inner),
        sign_in = sign_in(inner),
    );
    let status = if error.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    // The answer to the form is a redirect to the client, so that address must be named too; and
    // where one can go by way of Datadog, its pages.
    let mut form_action = format!("'self' {}", redirect::policy_source(target));
    if let Some(sign_in) = &inner.sign_in {
        form_action.push(' ');
        form_action.push_str(&sign_in.policy_sources());
    }
    page(status, &body, &form_action)
}

/// The page again for a browser that comes back from Datadog, with what was wrong there.
pub(super) fn asked_again(
    inner: &Inner,
    asked: &Consent,
    id: &str,
    csrf: &Opaque,
    error: &str,
) -> Result<Response, OauthError> {
    let target = Url::parse(&asked.redirect).map_err(|_| OauthError::server())?;
    Ok(consent(inner, asked, &target, id, csrf, Some(error)))
}

/// What is known of the client.
fn who(asked: &Consent) -> String {
    match &asked.client_host {
        Some(host) => format!(
            "<p>It is described by <code>{}</code>; its name is what that host says.</p>",
            escaped(host)
        ),
        None => "<p class=\"warning\">The program gave itself this name; nobody has checked it. \
                 Go on only if you started this sign-in yourself, just now.</p>"
            .to_owned(),
    }
}

/// Where the answer goes.
fn where_to(target: &Url) -> String {
    let shown = escaped(&redirect::shown(target));
    if redirect::is_loopback_url(target) {
        format!(
            "<p>The answer goes to a program on your own computer, at <code>{shown}</code>. Deny if you \
             followed a link that somebody sent you.</p>"
        )
    } else {
        format!(
            "<p class=\"warning\">The answer goes to <code>{shown}</code>. Allow only if you know and trust \
             this address: it will be able to read the data.</p>"
        )
    }
}

/// The fields for a credential.
fn fields(inner: &Inner) -> String {
    let field = |name: &str, label: &str| {
        format!(
            "<label>{label}<input type=\"password\" name=\"{name}\" autocomplete=\"off\" \
             spellcheck=\"false\" maxlength=\"1000\"></label>"
        )
    };
    format!(
        "<h2>Your Datadog credential</h2><p>A personal or service access token, or an API key with an \
         application key, of {}. It is tried, kept encrypted on this server, and never given to the \
         program. Limit its scopes to LLM Observability: read, and write if you tick it below.</p>\
         {}<p>or</p>{}{}",
        escaped(&inner.hub.upstream().name()),
        field("token", "Access token"),
        field("api_key", "API key"),
        field("application_key", "Application key"),
    )
}

/// The way by Datadog's own page, where the server offers it. It stands last, so that Enter in a
/// field does not take it.
fn sign_in(inner: &Inner) -> String {
    let Some(sign_in) = &inner.sign_in else {
        return String::new();
    };
    format!(
        "<h2>Or without a token or keys</h2><p>Sign in at {} and allow it there. This server gets a login \
         for LLM Observability alone: to read, and to write if you ticked it above. It is kept encrypted, \
         never given to the program, and ends with its access.</p>\
         <button name=\"decision\" value=\"datadog\" id=\"datadog\">Sign in at Datadog</button>",
        escaped(&sign_in.place.name()),
    )
}

/// Takes a browser that came from another site's form on to the client. Not by a redirect: browsers
/// hold every redirect behind a form to the policy of the page that it was on, and that site can name
/// this server there, but not the addresses of our clients.
pub(super) fn onward(target: &Url) -> Response {
    let body = format!(
        "<h1>Signed in</h1><p>The program has the answer next. If nothing happens: <a href=\"{}\">go \
         on</a>.</p>",
        escaped(target.as_str())
    );
    let mut response = page(StatusCode::OK, &body, "'none'");
    // The link is there if this cannot be.
    if let Ok(mut refresh) = HeaderValue::from_str(&format!("0; url={target}")) {
        refresh.set_sensitive(true);
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    response
}

/// Says what was wrong, and sends the browser nowhere.
pub(super) fn wrong(error: &OauthError) -> Response {
    let body = format!(
        "<h1>This does not work</h1><p class=\"error\" role=\"alert\">{}</p><p><code>{}</code></p>",
        escaped(&error.words),
        escaped(error.code),
    );
    let mut response = page(error.status, &body, "'none'");
    if let Some(seconds) = error.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn page(status: StatusCode, body: &str, form_action: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Sign in: llmobs-mcp</title>\
         <style>{STYLE}</style></head><body>{body}</body></html>"
    );
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action {form_action}; \
         frame-ancestors 'none'; base-uri 'none'",
        style = STANDARD.encode(Sha256::digest(STYLE)),
    );
    html::page(status, &policy, html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leads_nowhere() {
        let response = wrong(&OauthError::invalid_request("<b>"));
        assert_eq!(response.status(), 400);
        assert!(response.headers().get("location").is_none());
        let policy = response.headers().get("content-security-policy").unwrap();
        assert!(policy.to_str().unwrap().contains("form-action 'none'"));
    }
}
