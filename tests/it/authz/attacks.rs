//! The attack suite: each row is an attempt that must fail, with what must not happen.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rstest::rstest;
use serde_json::{Value, json};

use super::stage::{
    ALICE, BOB, Browser, CALLBACK, Client, Form as _, Stage, Tokens, VERIFIER, challenge, json_of,
    location, parameter,
};

const EVIL: &str = "https://evil.example/callback";

/// A form with some fields changed, added or (empty) left out.
fn changed<'a>(
    mut form: Vec<(&'a str, &'a str)>,
    changes: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    for (name, value) in changes {
        form.retain(|(known, _)| known != name);
        if !value.is_empty() {
            form.push((name, value));
        }
    }
    form
}

fn refused(answer: &(StatusCode, Value), error: &str) {
    let (status, body) = answer;
    assert!(status.is_client_error(), "{status} {body}");
    assert_eq!(body["error"], error, "{body}");
    assert!(body.get("access_token").is_none(), "{body}");
}

// --- codes and PKCE ---

#[tokio::test]
async fn code_replay_is_refused_and_ends_what_the_code_gave() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let code = stage.code(&client, ALICE).await;
    let (_, answer) = stage.exchange(&client, &code).await;
    let tokens = Tokens::of(&answer);
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
    refused(&stage.exchange(&client, &code).await, "invalid_grant");
    assert_eq!(stage.status("/mcp", &tokens.access).await, 401);
    refused(
        &stage.refresh(&client, &tokens.refresh).await,
        "invalid_grant",
    );
}

#[tokio::test]
async fn code_of_another_client_is_refused_and_spent() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let thief = stage.client("A thief", CALLBACK).await;
    let code = stage.code(&client, ALICE).await;
    refused(&stage.exchange(&thief, &code).await, "invalid_grant");
    refused(&stage.exchange(&client, &code).await, "invalid_grant");
}

#[rstest]
#[case::wrong_verifier(&[("code_verifier", "another-verifier-of-more-than-43-characters-0123456789")], "invalid_grant")]
#[case::no_verifier(&[("code_verifier", "")], "invalid_request")]
#[case::challenge_as_verifier(&[("code_verifier", "CHALLENGE")], "invalid_grant")]
#[case::short_verifier(&[("code_verifier", "short")], "invalid_grant")]
#[case::another_redirect(&[("redirect_uri", "http://127.0.0.1:45455/callback")], "invalid_grant")]
#[case::no_redirect(&[("redirect_uri", "")], "invalid_request")]
#[case::another_audience(&[("resource", "V1")], "invalid_target")]
#[case::foreign_audience(&[("resource", "https://evil.example/mcp")], "invalid_target")]
#[case::no_client(&[("client_id", "")], "invalid_request")]
#[case::implicit(&[("grant_type", "implicit")], "unsupported_grant_type")]
#[case::password(&[("grant_type", "password")], "unsupported_grant_type")]
#[case::client_credentials(&[("grant_type", "client_credentials")], "unsupported_grant_type")]
#[tokio::test]
async fn code_with_something_wrong_gives_no_token(
    #[case] changes: &[(&str, &str)],
    #[case] error: &str,
) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let code = stage.code(&client, ALICE).await;
    let (of_verifier, v1) = (challenge(VERIFIER), stage.at("/v1/mcp"));
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|(name, value)| match *value {
            "CHALLENGE" => (*name, of_verifier.as_str()),
            "V1" => (*name, v1.as_str()),
            value => (*name, value),
        })
        .collect();
    let form = changed(client.exchange(&code), &changes);
    refused(&stage.token(&form).await, error);
}

#[tokio::test]
async fn a_parameter_given_twice_is_refused() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let code = stage.code(&client, ALICE).await;
    let mut form = client.exchange(&code);
    form.push(("code_verifier", VERIFIER));
    refused(&stage.token(&form).await, "invalid_request");
    let url = format!("{}&redirect_uri={EVIL}", client.authorize(&stage, &[]));
    let page = Browser::default().open(&stage, &url).await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
}

#[rstest]
#[case::no_challenge(&[("code_challenge", "")], "invalid_request")]
#[case::plain(&[("code_challenge_method", "plain")], "invalid_request")]
#[case::method_dropped(&[("code_challenge_method", "")], "invalid_request")]
#[case::lower_case_method(&[("code_challenge_method", "s256")], "invalid_request")]
#[case::no_hash(&[("code_challenge", "too-short")], "invalid_request")]
#[case::nothing_at_all(&[("code_challenge", ""), ("code_challenge_method", "")], "invalid_request")]
#[case::foreign_audience(&[("resource", "https://evil.example/mcp")], "invalid_target")]
#[case::bare_origin(&[("resource", "ORIGIN")], "invalid_target")]
#[case::token_flow(&[("response_type", "token")], "unsupported_response_type")]
#[case::hybrid_flow(&[("response_type", "code token")], "unsupported_response_type")]
#[case::fragment_mode(&[("response_mode", "fragment")], "invalid_request")]
#[case::request_object(&[("request", "eyJhbGciOiJub25lIn0..")], "request_not_supported")]
#[case::request_uri(&[("request_uri", "http://169.254.169.254/")], "request_not_supported")]
#[case::unknown_scope(&[("scope", "llmobs:read admin")], "invalid_scope")]
#[tokio::test]
async fn a_weak_request_opens_no_consent_page(
    #[case] changes: &[(&str, &str)],
    #[case] error: &str,
) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|(name, value)| {
            (
                *name,
                if *value == "ORIGIN" {
                    &stage.base
                } else {
                    *value
                },
            )
        })
        .collect();
    let answer = stage
        .http
        .get(client.authorize(&stage, &changes))
        .send()
        .await
        .unwrap();
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK), "{target}");
    assert_eq!(parameter(&target, "error").as_deref(), Some(error));
    assert_eq!(parameter(&target, "state").as_deref(), Some("a-state"));
    assert_eq!(parameter(&target, "iss"), Some(stage.base.clone()));
    assert!(answer.headers().get("set-cookie").is_none());
}

// --- where the browser is sent ---

#[rstest]
#[case::another_host("https://app.example/cb", "https://evil.example/cb")]
#[case::a_host_below("https://app.example/cb", "https://x.app.example/cb")]
#[case::a_longer_host("https://app.example/cb", "https://app.example.evil.example/cb")]
#[case::a_user_part("https://app.example/cb", "https://app.example@evil.example/cb")]
#[case::another_path("https://app.example/cb", "https://app.example/other")]
#[case::a_longer_path("https://app.example/cb", "https://app.example/cb/../../other")]
#[case::another_query(
    "https://app.example/cb",
    "https://app.example/cb?next=https://evil.example"
)]
#[case::another_scheme("https://app.example/cb", "http://app.example/cb")]
#[case::script(
    "https://app.example/cb",
    "javascript:alert(1)//https://app.example/cb"
)]
#[case::another_port("https://app.example/cb", "https://app.example:8443/cb")]
#[case::a_fragment("https://app.example/cb", "https://app.example/cb#x")]
#[case::a_backslash("https://app.example/cb", "https://app.example\\@evil.example/cb")]
#[case::a_line_break("https://app.example/cb", "https://app.example/cb\r\nSet-Cookie: a=b")]
#[case::loopback_other_path(CALLBACK, "http://127.0.0.1:45454/other")]
#[case::loopback_other_name(CALLBACK, "http://localhost:45454/callback")]
#[case::loopback_https(CALLBACK, "https://127.0.0.1:45454/callback")]
#[case::loopback_lookalike(CALLBACK, "http://127.0.0.1.evil.example:45454/callback")]
#[case::none(CALLBACK, "")]
#[tokio::test]
async fn an_unregistered_redirect_is_never_followed(#[case] registered: &str, #[case] asked: &str) {
    let stage = Stage::new().await;
    let client = stage.client("A client", registered).await;
    let url = client.authorize(&stage, &[("redirect_uri", asked)]);
    let page = Browser::default().open(&stage, &url).await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
    assert!(page.headers.get("set-cookie").is_none());
    // With an error that would otherwise be redirected, neither.
    let both = [("redirect_uri", asked), ("response_type", "token")];
    let page = Browser::default()
        .open(&stage, &client.authorize(&stage, &both))
        .await;
    assert!(page.headers.get("location").is_none());
}

#[tokio::test]
async fn only_the_port_of_a_loopback_redirect_may_differ() {
    let stage = Stage::new().await;
    let mut client = stage.client("A client", "http://127.0.0.1/callback").await;
    client.redirect = CALLBACK.to_owned();
    let tokens = stage.signed_in(&client, ALICE).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
}

#[rstest]
#[case::a_url(EVIL)]
#[case::a_header("x\r\nLocation: https://evil.example/")]
#[case::more_parameters("x&code=stolen&redirect_uri=https://evil.example")]
#[case::a_fragment("x#access_token=stolen")]
#[case::markup("\"><script>alert(1)</script>")]
#[case::a_null("x\0y")]
#[tokio::test]
async fn state_leads_nowhere_and_comes_back_to_the_letter(#[case] state: &str) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let url = client.authorize(&stage, &[("state", state)]);
    let mut browser = Browser::default();
    let page = browser.open(&stage, &url).await;
    assert_eq!(page.status, 200);
    assert!(!page.html.contains("<script"), "{}", page.html);
    assert!(!page.html.contains("evil.example"), "{}", page.html);
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.headers().get_all("location").iter().count(), 1);
    let target = location(&answer);
    assert_eq!(target.origin(), url::Url::parse(CALLBACK).unwrap().origin());
    assert_eq!(target.path(), "/callback");
    assert_eq!(target.fragment(), None);
    assert_eq!(parameter(&target, "state").as_deref(), Some(state));
    assert!(
        parameter(&target, "code")
            .unwrap()
            .starts_with("llmobs_ac_")
    );
    // An error takes the same way.
    let url = client.authorize(&stage, &[("state", state), ("response_type", "token")]);
    let answer = stage.http.get(url).send().await.unwrap();
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK), "{target}");
    assert_eq!(parameter(&target, "state").as_deref(), Some(state));
}

// --- the consent page ---

#[rstest]
#[case::no_cookie("cookie", "x=y")]
#[case::foreign_origin("origin", "https://evil.example")]
#[case::null_origin("origin", "null")]
#[case::another_loopback_page("origin", "http://127.0.0.1:1")]
#[case::sent_by_another_site("sec-fetch-site", "cross-site")]
#[case::sent_by_a_neighbour("sec-fetch-site", "same-site")]
#[case::not_a_form("content-type", "text/plain")]
#[case::foreign_host("host", "evil.example")]
#[tokio::test]
async fn csrf_on_consent_grants_nothing(#[case] name: &'static str, #[case] value: &'static str) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let form = browser.form(&stage, &page, "allow", &ALICE.fields());
    // Takes the place of what the browser would send.
    let header = (
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    );
    let answer = form
        .headers(HeaderMap::from_iter([header]))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_client_error(), "{}", answer.status());
    assert!(answer.headers().get("location").is_none());
    assert_eq!(stage.datadog.asked(), 0, "the credential was tried");
    // The user's own answer still counts.
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case::wrong_token("csrf", "guess")]
#[case::no_token("csrf", "")]
#[case::wrong_page("page", "guess")]
#[case::no_page("page", "")]
#[tokio::test]
async fn a_form_without_the_pages_secrets_grants_nothing(#[case] name: &str, #[case] value: &str) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let right = page.hidden(name);
    page.html = page.html.replace(&right, value);
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("location").is_none());
    assert_eq!(stage.datadog.asked(), 0);
}

#[tokio::test]
async fn session_fixation_a_page_opened_by_the_attacker_is_nothing_in_the_victims_browser() {
    let stage = Stage::new().await;
    let client = stage.client("An attacker's client", EVIL).await;
    let mut attacker = Browser::default();
    let page = attacker.open(&stage, &client.authorize(&stage, &[])).await;
    // The victim has a page of its own open, and is made to send the attacker's form.
    let other = stage.client("A client", CALLBACK).await;
    let mut victim = Browser::default();
    victim.open(&stage, &other.authorize(&stage, &[])).await;
    let answer = victim.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().get("location").is_none());
    assert_eq!(stage.datadog.asked(), 0);
}

#[tokio::test]
async fn session_fixation_a_cookie_that_was_planted_is_not_taken_up() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut attacker = Browser::default();
    attacker.open(&stage, &client.authorize(&stage, &[])).await;
    let mut victim = attacker.clone();
    let page = victim.open(&stage, &client.authorize(&stage, &[])).await;
    // The victim's page has a cookie that the attacker does not know.
    let answer = attacker.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    let answer = victim.allow(&stage, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[tokio::test]
async fn consent_is_for_one_client_and_one_answer() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let thief = stage.client("A thief", EVIL).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    // What a form says about the client does not count.
    let mut fields = ALICE.fields().to_vec();
    fields.extend([("client_id", thief.id.as_str()), ("redirect_uri", EVIL)]);
    let answer = browser.allow(&stage, &page, &fields).await;
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK), "{target}");
    let code = parameter(&target, "code").unwrap();
    // The page was answered: it is not good for a second answer.
    let again = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(again.status(), 403);
    // Another client in the same browser is asked about anew, whatever was agreed to before.
    let page = browser.open(&stage, &thief.authorize(&stage, &[])).await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("A thief"));
    refused(&stage.exchange(&thief, &code).await, "invalid_grant");
}

#[tokio::test]
async fn a_page_that_waited_too_long_is_over() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    stage.clock.pass(std::time::Duration::from_secs(600));
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(stage.datadog.asked(), 0);
}

// --- registration ---

#[rstest]
#[case::script_redirect(json!({"redirect_uris": ["javascript:alert(1)"]}), "invalid_redirect_uri")]
#[case::plain_http(json!({"redirect_uris": ["http://evil.example/cb"]}), "invalid_redirect_uri")]
#[case::data(json!({"redirect_uris": ["data:text/html,<script>"]}), "invalid_redirect_uri")]
#[case::no_redirect(json!({"client_name": "x"}), "invalid_redirect_uri")]
#[case::many_redirects(json!({"redirect_uris": vec!["https://app.example/cb"; 11]}), "invalid_redirect_uri")]
#[case::header_in_redirect(json!({"redirect_uris": ["https://app.example/cb\r\nX: y"]}), "invalid_redirect_uri")]
#[case::hidden_name(json!({"client_name": "Codex\u{202e}", "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::header_in_name(json!({"client_name": "a\r\nX: y", "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::long_name(json!({"client_name": "x".repeat(101), "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::no_object(json!(["x"]), "invalid_request")]
#[case::huge(json!({"client_name": "x", "redirect_uris": [CALLBACK], "contacts": vec!["x"; 10_000]}), "invalid_request")]
#[tokio::test]
async fn hostile_metadata_is_not_registered(#[case] metadata: Value, #[case] error: &str) {
    let stage = Stage::new().await;
    refused(&stage.register(&metadata).await, error);
}

#[tokio::test]
async fn deep_metadata_is_refused_and_harms_nothing() {
    let stage = Stage::new().await;
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(3_000), "]".repeat(3_000));
    let request = stage
        .http
        .post(stage.at("/oauth/register"))
        .header("content-type", "application/json")
        .body(deep);
    refused(&json_of(request).await, "invalid_request");
    assert_eq!(stage.get("/healthz").await.status(), 200);
}

#[rstest]
#[case("<script>alert(1)</script>")]
#[case("</strong><form action=https://evil.example>")]
#[case("\" onmouseover=\"alert(1)")]
#[case("<img src=x onerror=alert(1)>")]
#[case("&lt;b&gt;")]
#[tokio::test]
async fn a_name_with_markup_is_shown_as_text(#[case] name: &str) {
    let stage = Stage::new().await;
    let client = stage.client(name, CALLBACK).await;
    let page = Browser::default()
        .open(&stage, &client.authorize(&stage, &[]))
        .await;
    assert_eq!(page.status, 200);
    assert!(!page.html.contains(name), "{}", page.html);
    let shown = name
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    assert!(page.html.contains(&shown), "{}", page.html);
}

#[rstest]
#[case::loopback("https://127.0.0.1/client.json")]
#[case::loopback_name("https://localhost/client.json")]
#[case::loopback_in_numbers("https://2130706433/client.json")]
#[case::loopback_in_hex("https://0x7f000001/client.json")]
#[case::loopback_v6("https://[::1]/client.json")]
#[case::mapped_v6("https://[::ffff:10.0.0.1]/client.json")]
#[case::private("https://10.0.0.1/client.json")]
#[case::metadata_service("https://169.254.169.254/latest/meta-data")]
#[case::plain_http("http://client.example/client.json")]
#[case::another_port("https://client.example:8126/client.json")]
#[case::a_user("https://user:pass@client.example/client.json")]
#[case::a_file("file:///etc/passwd")]
#[case::a_short_name("https://intranet/client.json")]
#[tokio::test]
async fn no_request_is_forged_by_a_metadata_address(#[case] id: &str) {
    let stage = Stage::new().await;
    let client = Client {
        id: id.to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let page = Browser::default()
        .open(&stage, &client.authorize(&stage, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
    assert_eq!(stage.library.asked(), 0, "it was asked for");
}

#[rstest]
#[case::another_id(json!({"client_id": "https://other.example/client.json", "redirect_uris": [EVIL]}))]
#[case::no_id(json!({"redirect_uris": [EVIL]}))]
#[case::a_secret(json!({"client_id": "ID", "client_secret": "x", "redirect_uris": [EVIL]}))]
#[case::script_redirect(json!({"client_id": "ID", "redirect_uris": ["javascript:alert(1)"]}))]
#[case::no_redirect(json!({"client_id": "ID"}))]
#[case::no_object(json!("<html>"))]
#[tokio::test]
async fn a_hostile_metadata_document_is_not_used(#[case] document: Value) {
    const ID: &str = "https://client.example/client.json";
    let stage = Stage::new().await;
    let document: Value =
        serde_json::from_str(&document.to_string().replace("\"ID\"", &format!("\"{ID}\"")))
            .unwrap();
    stage.library.put(ID, document);
    let client = Client {
        id: ID.to_owned(),
        redirect: EVIL.to_owned(),
    };
    let page = Browser::default()
        .open(&stage, &client.authorize(&stage, &[]))
        .await;
    assert_eq!(page.status, 400, "{}", page.html);
    assert!(page.headers.get("location").is_none());
}

// --- tokens ---

#[tokio::test]
async fn a_token_is_good_for_its_own_audience_only() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
    for path in ["/v1/mcp", "/api/unstable/mcp-server/mcp"] {
        let call = stage
            .call(path, "list_llmobs_projects")
            .bearer_auth(&tokens.access);
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        assert!(
            challenge.contains(&format!("oauth-protected-resource{path}\"")),
            "{challenge}"
        );
    }
}

#[tokio::test]
async fn a_token_of_another_server_is_refused() {
    let (stage, other) = (Stage::new().await, Stage::new().await);
    let client = other.client("A client", CALLBACK).await;
    let tokens = other.signed_in(&client, ALICE).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 401);
    assert_eq!(stage.datadog.asked(), 0);
}

#[rstest]
#[case::a_datadog_token("/mcp", &[("authorization", "Bearer ddpat_not_ours")])]
#[case::a_datadog_oauth_token("/mcp", &[("authorization", "Bearer e30.e30.x")])]
#[case::nothing_after_the_scheme("/mcp", &[("authorization", "Bearer ")])]
#[case::another_scheme("/mcp", &[("authorization", "Basic dTpw")])]
#[case::a_guess("/mcp", &[("authorization", "Bearer llmobs_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")])]
#[case::datadog_keys("/mcp", &[("DD_API_KEY", "key-of-alice"), ("DD_APPLICATION_KEY", "app-key-of-alice")])]
#[case::in_the_query("/mcp?access_token=llmobs_at_x", &[])]
#[tokio::test]
async fn what_is_no_token_of_ours_opens_nothing(
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
) {
    let stage = Stage::new().await;
    let mut call = stage.call(path, "list_llmobs_projects");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers().contains_key("www-authenticate"));
    assert_eq!(stage.datadog.asked(), 0, "something was sent on");
}

#[rstest]
#[case::refresh_token(|tokens: &Tokens| tokens.refresh.clone())]
#[case::cut_token(|tokens: &Tokens| tokens.access[..tokens.access.len() - 1].to_owned())]
#[case::longer_token(|tokens: &Tokens| format!("{}x", tokens.access))]
#[tokio::test]
async fn what_is_nearly_a_token_opens_nothing(#[case] wrong: fn(&Tokens) -> String) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    assert_eq!(stage.status("/mcp", &wrong(&tokens)).await, 401);
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
}

#[tokio::test]
async fn a_token_beside_datadog_keys_is_refused_and_neither_is_used() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let asked = stage.datadog.asked();
    let call = stage
        .call("/mcp", "list_llmobs_projects")
        .bearer_auth(&tokens.access)
        .header("DD_API_KEY", BOB.api_key)
        .header("DD_APPLICATION_KEY", BOB.app_key);
    assert_eq!(call.send().await.unwrap().status(), 400);
    assert_eq!(stage.datadog.asked(), asked);
}

#[tokio::test]
async fn two_authorization_headers_are_refused() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let call = stage
        .call("/mcp", "list_llmobs_projects")
        .header("authorization", format!("Bearer {}", tokens.access))
        .header("authorization", "Bearer ddpat_x");
    assert_eq!(call.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn our_token_is_never_passed_on_and_datadogs_never_given_out() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let code = stage.code(&client, ALICE).await;
    let (_, answer) = stage.exchange(&client, &code).await;
    let tokens = Tokens::of(&answer);
    stage.projects(&tokens.access).await;
    assert!(stage.datadog.saw(ALICE.app_key));
    for ours in [&tokens.access, &tokens.refresh, &code, "llmobs_"] {
        assert!(!stage.datadog.saw(ours), "a token of ours went to Datadog");
    }
    for theirs in [ALICE.api_key, ALICE.app_key] {
        assert!(!answer.to_string().contains(theirs));
    }
}

// --- refresh tokens and revocation ---

#[tokio::test]
async fn refresh_token_reuse_after_rotation_ends_the_family() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let first = stage.signed_in(&client, ALICE).await;
    let (_, answer) = stage.refresh(&client, &first.refresh).await;
    let second = Tokens::of(&answer);
    let (_, answer) = stage.refresh(&client, &second.refresh).await;
    let third = Tokens::of(&answer);
    assert_eq!(stage.status("/mcp", &third.access).await, 200);
    refused(
        &stage.refresh(&client, &first.refresh).await,
        "invalid_grant",
    );
    assert_eq!(stage.status("/mcp", &third.access).await, 401);
    refused(
        &stage.refresh(&client, &third.refresh).await,
        "invalid_grant",
    );
}

#[rstest]
#[case::access_token(|tokens: &Tokens| tokens.access.clone())]
#[case::code(|_: &Tokens| "llmobs_ac_x".to_owned())]
#[case::nothing(|_: &Tokens| String::new())]
#[tokio::test]
async fn only_a_refresh_token_refreshes(#[case] wrong: fn(&Tokens) -> String) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let (status, answer) = stage.refresh(&client, &wrong(&tokens)).await;
    assert_eq!(status, 400, "{answer}");
}

#[rstest]
#[case::another_client("client_id", "OTHER", "invalid_grant")]
#[case::another_audience("resource", "V1", "invalid_target")]
#[case::more_scope("scope", "llmobs:read llmobs:write", "invalid_scope")]
#[tokio::test]
async fn a_refresh_widens_nothing(#[case] name: &str, #[case] value: &str, #[case] error: &str) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let other = stage.client("Another client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let v1 = stage.at("/v1/mcp");
    let value = match value {
        "OTHER" => &other.id,
        "V1" => &v1,
        value => value,
    };
    let form = vec![
        ("grant_type", "refresh_token"),
        ("client_id", client.id.as_str()),
        ("refresh_token", &tokens.refresh),
    ];
    refused(&stage.token(&changed(form, &[(name, value)])).await, error);
}

#[tokio::test]
async fn another_client_cannot_revoke_and_revocation_tells_nothing() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let other = stage.client("Another client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let revoke = |token: String, id: String| {
        let form = [("token", token), ("client_id", id)];
        json_of(stage.http.post(stage.at("/oauth/revoke")).form(&form))
    };
    let stranger = revoke(tokens.refresh.clone(), other.id.clone()).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 200);
    let unknown = revoke("llmobs_rt_x".to_owned(), client.id.clone()).await;
    let right = revoke(tokens.refresh.clone(), client.id.clone()).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 401);
    assert_eq!(stranger, unknown);
    assert_eq!(unknown, right);
}

// --- names and pages of others ---

#[rstest]
#[case::mcp("POST", "/mcp")]
#[case::metadata("GET", "/.well-known/oauth-authorization-server")]
#[case::register("POST", "/oauth/register")]
#[case::authorize("GET", "/oauth/authorize")]
#[case::consent("POST", "/oauth/consent")]
#[case::token("POST", "/oauth/token")]
#[case::revoke("POST", "/oauth/revoke")]
#[tokio::test]
async fn foreign_host_and_origin_are_refused_everywhere(#[case] method: &str, #[case] path: &str) {
    let stage = Stage::new().await;
    let method: reqwest::Method = method.parse().unwrap();
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let request = stage
            .http
            .request(method.clone(), stage.at(path))
            .header(name, value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        assert!(
            answer
                .headers()
                .get("access-control-allow-origin")
                .is_none()
        );
    }
}

#[tokio::test]
async fn what_the_server_says_of_itself_does_not_follow_the_request() {
    let stage = Stage::new().await;
    let port = url::Url::parse(&stage.base).unwrap().port().unwrap();
    let request = stage
        .http
        .get(stage.at("/.well-known/oauth-authorization-server"))
        .header("host", format!("localhost:{port}"))
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "host=evil.example");
    let (_, document) = json_of(request).await;
    assert_eq!(document["issuer"], stage.base);
    assert!(!document.to_string().contains("evil"), "{document}");
}

#[tokio::test]
async fn an_upstream_that_redirects_gets_no_second_request_with_the_credential() {
    let caught = std::sync::Arc::new(super::stage::Datadog::default());
    let api = axum::Router::new().fallback(|| async {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", "https://evil.example/collect")],
        )
    });
    let stage = Stage::over(api).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 422, "a redirect is no yes");
    assert!(answer.headers().get("location").is_none());
    assert_eq!(caught.asked(), 0);
}

#[rstest]
#[case::authorize("/oauth/authorize?client_id=%0d%0aX-Injected:%20yes&redirect_uri=x")]
#[case::redirect("/oauth/authorize?client_id=x&redirect_uri=https://x/%0d%0aX-Injected:%20yes")]
#[case::metadata("/.well-known/oauth-protected-resource/%0d%0aX-Injected:%20yes")]
#[tokio::test]
async fn header_injection_by_an_address_adds_no_header(#[case] path: &str) {
    let stage = Stage::new().await;
    let answer = stage.get(path).await;
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("x-injected").is_none());
    let text = answer.text().await.unwrap();
    assert!(!text.contains("X-Injected"), "{text}");
}
