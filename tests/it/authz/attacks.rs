//! Attacks that must fail. Each case is one attempt.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rstest::rstest;
use serde_json::{Value, json};

use super::test_server::{
    ALICE, BOB, Browser, CALLBACK, Client, Form as _, TestServer, Tokens, VERIFIER, challenge,
    location, parameter, send_for_json,
};

const EVIL: &str = "https://evil.example/callback";

/// A form with some fields replaced or added; an empty value removes a field.
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
async fn replayed_code_ends_its_grant() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let code = server.code(&client, ALICE).await;
    let (_, answer) = server.exchange(&client, &code).await;
    let tokens = Tokens::from_response(&answer);
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
    refused(&server.exchange(&client, &code).await, "invalid_grant");
    assert_eq!(server.status("/mcp", &tokens.access).await, 401);
    refused(
        &server.refresh(&client, &tokens.refresh).await,
        "invalid_grant",
    );
}

#[tokio::test]
async fn code_of_another_client_is_refused_and_consumed() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let thief = server.client("A thief", CALLBACK).await;
    let code = server.code(&client, ALICE).await;
    refused(&server.exchange(&thief, &code).await, "invalid_grant");
    refused(&server.exchange(&client, &code).await, "invalid_grant");
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
async fn mismatched_exchange_gets_no_token(#[case] changes: &[(&str, &str)], #[case] error: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let code = server.code(&client, ALICE).await;
    let (of_verifier, v1) = (challenge(VERIFIER), server.at("/v1/mcp"));
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|(name, value)| match *value {
            "CHALLENGE" => (*name, of_verifier.as_str()),
            "V1" => (*name, v1.as_str()),
            value => (*name, value),
        })
        .collect();
    let form = changed(client.exchange(&code), &changes);
    refused(&server.token(&form).await, error);
}

#[tokio::test]
async fn refuses_repeated_parameter() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let code = server.code(&client, ALICE).await;
    let mut form = client.exchange(&code);
    form.push(("code_verifier", VERIFIER));
    refused(&server.token(&form).await, "invalid_request");
    let url = format!("{}&redirect_uri={EVIL}", client.authorize(&server, &[]));
    let page = Browser::default().open(&server, &url).await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
}

#[rstest]
#[case::no_challenge(&[("code_challenge", "")], "invalid_request")]
#[case::plain(&[("code_challenge_method", "plain")], "invalid_request")]
#[case::method_dropped(&[("code_challenge_method", "")], "invalid_request")]
#[case::lower_case_method(&[("code_challenge_method", "s256")], "invalid_request")]
#[case::malformed_challenge(&[("code_challenge", "too-short")], "invalid_request")]
#[case::no_pkce(&[("code_challenge", ""), ("code_challenge_method", "")], "invalid_request")]
#[case::foreign_audience(&[("resource", "https://evil.example/mcp")], "invalid_target")]
#[case::bare_origin(&[("resource", "ORIGIN")], "invalid_target")]
#[case::token_flow(&[("response_type", "token")], "unsupported_response_type")]
#[case::hybrid_flow(&[("response_type", "code token")], "unsupported_response_type")]
#[case::fragment_mode(&[("response_mode", "fragment")], "invalid_request")]
#[case::request_object(&[("request", "eyJhbGciOiJub25lIn0..")], "request_not_supported")]
#[case::request_uri(&[("request_uri", "http://169.254.169.254/")], "request_not_supported")]
#[case::unknown_scope(&[("scope", "llmobs:read admin")], "invalid_scope")]
#[tokio::test]
async fn weak_request_opens_no_consent_page(#[case] changes: &[(&str, &str)], #[case] error: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let changes: Vec<(&str, &str)> = changes
        .iter()
        .map(|(name, value)| {
            (
                *name,
                if *value == "ORIGIN" {
                    &server.base
                } else {
                    *value
                },
            )
        })
        .collect();
    let answer = server
        .http
        .get(client.authorize(&server, &changes))
        .send()
        .await
        .unwrap();
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK), "{target}");
    assert_eq!(parameter(&target, "error").as_deref(), Some(error));
    assert_eq!(parameter(&target, "state").as_deref(), Some("a-state"));
    assert_eq!(parameter(&target, "iss"), Some(server.base.clone()));
    assert!(answer.headers().get("set-cookie").is_none());
}

// --- redirects ---

#[rstest]
#[case::another_host("https://app.example/cb", "https://evil.example/cb")]
#[case::subdomain("https://app.example/cb", "https://x.app.example/cb")]
#[case::longer_host("https://app.example/cb", "https://app.example.evil.example/cb")]
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
async fn never_redirects_to_unregistered_uri(#[case] registered: &str, #[case] asked: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", registered).await;
    let url = client.authorize(&server, &[("redirect_uri", asked)]);
    let page = Browser::default().open(&server, &url).await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
    assert!(page.headers.get("set-cookie").is_none());
    // An error that is otherwise sent to the redirect URI is not sent either.
    let both = [("redirect_uri", asked), ("response_type", "token")];
    let page = Browser::default()
        .open(&server, &client.authorize(&server, &both))
        .await;
    assert!(page.headers.get("location").is_none());
}

#[tokio::test]
async fn only_port_of_loopback_redirect_may_differ() {
    let server = TestServer::new().await;
    let mut client = server.client("A client", "http://127.0.0.1/callback").await;
    client.redirect = CALLBACK.to_owned();
    let tokens = server.sign_in(&client, ALICE).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
}

#[rstest]
#[case::a_url(EVIL)]
#[case::a_header("x\r\nLocation: https://evil.example/")]
#[case::more_parameters("x&code=stolen&redirect_uri=https://evil.example")]
#[case::a_fragment("x#access_token=stolen")]
#[case::markup("\"><script>alert(1)</script>")]
#[case::a_null("x\0y")]
#[tokio::test]
async fn state_is_returned_unchanged_and_not_interpreted(#[case] state: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let url = client.authorize(&server, &[("state", state)]);
    let mut browser = Browser::default();
    let page = browser.open(&server, &url).await;
    assert_eq!(page.status, 200);
    assert!(!page.html.contains("<script"), "{}", page.html);
    assert!(!page.html.contains("evil.example"), "{}", page.html);
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
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
    // The same for an error response.
    let url = client.authorize(&server, &[("state", state), ("response_type", "token")]);
    let answer = server.http.get(url).send().await.unwrap();
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
#[case::sent_by_sibling_domain("sec-fetch-site", "same-site")]
#[case::not_a_form("content-type", "text/plain")]
#[case::foreign_host("host", "evil.example")]
#[tokio::test]
async fn cross_site_consent_form_grants_nothing(
    #[case] name: &'static str,
    #[case] value: &'static str,
) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let form = browser.form(&server, &page, "allow", &ALICE.fields());
    // Replaces the header of the browser.
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
    assert_eq!(
        server.datadog.request_count(),
        0,
        "the credential was verified"
    );
    // A submission by the user is still accepted.
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case::wrong_token("csrf", "guess")]
#[case::no_token("csrf", "")]
#[case::wrong_page("page", "guess")]
#[case::no_page("page", "")]
#[tokio::test]
async fn form_without_page_secrets_grants_nothing(#[case] name: &str, #[case] value: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&server, &client.authorize(&server, &[])).await;
    let right = page.hidden(name);
    page.html = page.html.replace(&right, value);
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("location").is_none());
    assert_eq!(server.datadog.request_count(), 0);
}

#[tokio::test]
async fn page_of_attacker_is_refused_in_browser_of_victim() {
    let server = TestServer::new().await;
    let client = server.client("An attacker's client", EVIL).await;
    let mut attacker = Browser::default();
    let page = attacker
        .open(&server, &client.authorize(&server, &[]))
        .await;
    // The victim has another page open, and is tricked into sending the attacker's form.
    let other = server.client("A client", CALLBACK).await;
    let mut victim = Browser::default();
    victim.open(&server, &other.authorize(&server, &[])).await;
    let answer = victim.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().get("location").is_none());
    assert_eq!(server.datadog.request_count(), 0);
}

#[tokio::test]
async fn planted_cookie_is_not_adopted() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut attacker = Browser::default();
    attacker
        .open(&server, &client.authorize(&server, &[]))
        .await;
    let mut victim = attacker.clone();
    let page = victim.open(&server, &client.authorize(&server, &[])).await;
    // The page of the victim has a cookie that the attacker does not know.
    let answer = attacker.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    let answer = victim.allow(&server, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[tokio::test]
async fn consent_is_for_one_client_and_one_submission() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let thief = server.client("A thief", EVIL).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    // Fields about the client are ignored.
    let mut fields = ALICE.fields().to_vec();
    fields.extend([("client_id", thief.id.as_str()), ("redirect_uri", EVIL)]);
    let answer = browser.allow(&server, &page, &fields).await;
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK), "{target}");
    let code = parameter(&target, "code").unwrap();
    // The page is closed and refuses a second submission.
    let again = browser.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(again.status(), 403);
    // Another client in the same browser needs its own consent.
    let page = browser.open(&server, &thief.authorize(&server, &[])).await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("A thief"));
    refused(&server.exchange(&thief, &code).await, "invalid_grant");
}

#[tokio::test]
async fn consent_page_expires() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    server.clock.advance(std::time::Duration::from_secs(600));
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(server.datadog.request_count(), 0);
}

// --- registration ---

#[rstest]
#[case::script_redirect(json!({"redirect_uris": ["javascript:alert(1)"]}), "invalid_redirect_uri")]
#[case::plain_http(json!({"redirect_uris": ["http://evil.example/cb"]}), "invalid_redirect_uri")]
#[case::data(json!({"redirect_uris": ["data:text/html,<script>"]}), "invalid_redirect_uri")]
#[case::no_redirect(json!({"client_name": "x"}), "invalid_redirect_uri")]
#[case::many_redirects(json!({"redirect_uris": vec!["https://app.example/cb"; 11]}), "invalid_redirect_uri")]
#[case::header_in_redirect(json!({"redirect_uris": ["https://app.example/cb\r\nX: y"]}), "invalid_redirect_uri")]
#[case::invisible_character_in_name(json!({"client_name": "Codex\u{202e}", "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::header_in_name(json!({"client_name": "a\r\nX: y", "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::long_name(json!({"client_name": "x".repeat(101), "redirect_uris": [CALLBACK]}), "invalid_client_metadata")]
#[case::not_an_object(json!(["x"]), "invalid_request")]
#[case::huge(json!({"client_name": "x", "redirect_uris": [CALLBACK], "contacts": vec!["x"; 10_000]}), "invalid_request")]
#[tokio::test]
async fn refuses_hostile_client_metadata(#[case] metadata: Value, #[case] error: &str) {
    let server = TestServer::new().await;
    refused(&server.register(&metadata).await, error);
}

#[tokio::test]
async fn refuses_deeply_nested_metadata() {
    let server = TestServer::new().await;
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(3_000), "]".repeat(3_000));
    let request = server
        .http
        .post(server.at("/oauth/register"))
        .header("content-type", "application/json")
        .body(deep);
    refused(&send_for_json(request).await, "invalid_request");
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[rstest]
#[case("<script>alert(1)</script>")]
#[case("</strong><form action=https://evil.example>")]
#[case("\" onmouseover=\"alert(1)")]
#[case("<img src=x onerror=alert(1)>")]
#[case("&lt;b&gt;")]
#[tokio::test]
async fn client_name_is_escaped(#[case] name: &str) {
    let server = TestServer::new().await;
    let client = server.client(name, CALLBACK).await;
    let page = Browser::default()
        .open(&server, &client.authorize(&server, &[]))
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
#[case::loopback_as_integer("https://2130706433/client.json")]
#[case::loopback_in_hex("https://0x7f000001/client.json")]
#[case::loopback_v6("https://[::1]/client.json")]
#[case::mapped_v6("https://[::ffff:10.0.0.1]/client.json")]
#[case::private("https://10.0.0.1/client.json")]
#[case::metadata_service("https://169.254.169.254/latest/meta-data")]
#[case::plain_http("http://client.example/client.json")]
#[case::another_port("https://client.example:8126/client.json")]
#[case::a_user("https://user:pass@client.example/client.json")]
#[case::a_file("file:///etc/passwd")]
#[case::name_without_dot("https://intranet/client.json")]
#[tokio::test]
async fn metadata_url_causes_no_internal_request(#[case] id: &str) {
    let server = TestServer::new().await;
    let client = Client {
        id: id.to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let page = Browser::default()
        .open(&server, &client.authorize(&server, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.headers.get("location").is_none());
    assert_eq!(server.library.request_count(), 0, "a request was sent");
}

#[rstest]
#[case::another_id(json!({"client_id": "https://other.example/client.json", "redirect_uris": [EVIL]}))]
#[case::no_id(json!({"redirect_uris": [EVIL]}))]
#[case::a_secret(json!({"client_id": "ID", "client_secret": "x", "redirect_uris": [EVIL]}))]
#[case::script_redirect(json!({"client_id": "ID", "redirect_uris": ["javascript:alert(1)"]}))]
#[case::no_redirect(json!({"client_id": "ID"}))]
#[case::not_an_object(json!("<html>"))]
#[tokio::test]
async fn refuses_hostile_metadata_document(#[case] document: Value) {
    const ID: &str = "https://client.example/client.json";
    let server = TestServer::new().await;
    let document: Value =
        serde_json::from_str(&document.to_string().replace("\"ID\"", &format!("\"{ID}\"")))
            .unwrap();
    server.library.put(ID, document);
    let client = Client {
        id: ID.to_owned(),
        redirect: EVIL.to_owned(),
    };
    let page = Browser::default()
        .open(&server, &client.authorize(&server, &[]))
        .await;
    assert_eq!(page.status, 400, "{}", page.html);
    assert!(page.headers.get("location").is_none());
}

// --- tokens ---

#[tokio::test]
async fn token_is_valid_for_its_audience_only() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
    for path in ["/v1/mcp", "/api/unstable/mcp-server/mcp"] {
        let call = server
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
async fn refuses_token_of_another_server() {
    let (server, other) = (TestServer::new().await, TestServer::new().await);
    let client = other.client("A client", CALLBACK).await;
    let tokens = other.sign_in(&client, ALICE).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 401);
    assert_eq!(server.datadog.request_count(), 0);
}

#[rstest]
#[case::a_datadog_token("/mcp", &[("authorization", "Bearer ddpat_not_ours")])]
#[case::a_datadog_oauth_token("/mcp", &[("authorization", "Bearer e30.e30.x")])]
#[case::empty_bearer("/mcp", &[("authorization", "Bearer ")])]
#[case::another_scheme("/mcp", &[("authorization", "Basic dTpw")])]
#[case::a_guess("/mcp", &[("authorization", "Bearer llmobs_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")])]
#[case::datadog_keys("/mcp", &[("DD_API_KEY", "key-of-alice"), ("DD_APPLICATION_KEY", "app-key-of-alice")])]
#[case::in_the_query("/mcp?access_token=llmobs_at_x", &[])]
#[tokio::test]
async fn refuses_foreign_credentials(#[case] path: &str, #[case] headers: &[(&str, &str)]) {
    let server = TestServer::new().await;
    let mut call = server.call(path, "list_llmobs_projects");
    for (name, value) in headers {
        call = call.header(*name, *value);
    }
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers().contains_key("www-authenticate"));
    assert_eq!(
        server.datadog.request_count(),
        0,
        "a request reached the upstream"
    );
}

#[rstest]
#[case::refresh_token(|tokens: &Tokens| tokens.refresh.clone())]
#[case::cut_token(|tokens: &Tokens| tokens.access[..tokens.access.len() - 1].to_owned())]
#[case::longer_token(|tokens: &Tokens| format!("{}x", tokens.access))]
#[tokio::test]
async fn refuses_altered_tokens(#[case] wrong: fn(&Tokens) -> String) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    assert_eq!(server.status("/mcp", &wrong(&tokens)).await, 401);
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
}

#[tokio::test]
async fn refuses_token_with_datadog_keys() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let before = server.datadog.request_count();
    let call = server
        .call("/mcp", "list_llmobs_projects")
        .bearer_auth(&tokens.access)
        .header("DD_API_KEY", BOB.api_key)
        .header("DD_APPLICATION_KEY", BOB.app_key);
    assert_eq!(call.send().await.unwrap().status(), 400);
    assert_eq!(server.datadog.request_count(), before);
}

#[tokio::test]
async fn refuses_two_authorization_headers() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let call = server
        .call("/mcp", "list_llmobs_projects")
        .header("authorization", format!("Bearer {}", tokens.access))
        .header("authorization", "Bearer ddpat_x");
    assert_eq!(call.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn tokens_of_one_side_never_reach_the_other() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let code = server.code(&client, ALICE).await;
    let (_, answer) = server.exchange(&client, &code).await;
    let tokens = Tokens::from_response(&answer);
    server.projects(&tokens.access).await;
    assert!(server.datadog.received(ALICE.app_key));
    for ours in [&tokens.access, &tokens.refresh, &code, "llmobs_"] {
        assert!(
            !server.datadog.received(ours),
            "a token of this server was sent to Datadog"
        );
    }
    for theirs in [ALICE.api_key, ALICE.app_key] {
        assert!(!answer.to_string().contains(theirs));
    }
}

// --- refresh tokens and revocation ---

#[tokio::test]
async fn reused_refresh_token_ends_its_grant() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let first = server.sign_in(&client, ALICE).await;
    let (_, answer) = server.refresh(&client, &first.refresh).await;
    let second = Tokens::from_response(&answer);
    let (_, answer) = server.refresh(&client, &second.refresh).await;
    let third = Tokens::from_response(&answer);
    assert_eq!(server.status("/mcp", &third.access).await, 200);
    refused(
        &server.refresh(&client, &first.refresh).await,
        "invalid_grant",
    );
    assert_eq!(server.status("/mcp", &third.access).await, 401);
    refused(
        &server.refresh(&client, &third.refresh).await,
        "invalid_grant",
    );
}

#[rstest]
#[case::access_token(|tokens: &Tokens| tokens.access.clone())]
#[case::code(|_: &Tokens| "llmobs_ac_x".to_owned())]
#[case::nothing(|_: &Tokens| String::new())]
#[tokio::test]
async fn refuses_other_tokens_as_refresh_token(#[case] wrong: fn(&Tokens) -> String) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let (status, answer) = server.refresh(&client, &wrong(&tokens)).await;
    assert_eq!(status, 400, "{answer}");
}

#[rstest]
#[case::another_client("client_id", "OTHER", "invalid_grant")]
#[case::another_audience("resource", "V1", "invalid_target")]
#[case::more_scope("scope", "llmobs:read llmobs:write", "invalid_scope")]
#[tokio::test]
async fn refresh_cannot_widen_a_grant(
    #[case] name: &str,
    #[case] value: &str,
    #[case] error: &str,
) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let other = server.client("Another client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let v1 = server.at("/v1/mcp");
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
    refused(&server.token(&changed(form, &[(name, value)])).await, error);
}

#[tokio::test]
async fn revocation_by_another_client_has_no_effect() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let other = server.client("Another client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let revoke = |token: String, id: String| {
        let form = [("token", token), ("client_id", id)];
        send_for_json(server.http.post(server.at("/oauth/revoke")).form(&form))
    };
    let other_client = revoke(tokens.refresh.clone(), other.id.clone()).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 200);
    let unknown = revoke("llmobs_rt_x".to_owned(), client.id.clone()).await;
    let right = revoke(tokens.refresh.clone(), client.id.clone()).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 401);
    assert_eq!(other_client, unknown);
    assert_eq!(unknown, right);
}

// --- foreign hosts and origins ---

#[rstest]
#[case::mcp("POST", "/mcp")]
#[case::metadata("GET", "/.well-known/oauth-authorization-server")]
#[case::register("POST", "/oauth/register")]
#[case::authorize("GET", "/oauth/authorize")]
#[case::consent("POST", "/oauth/consent")]
#[case::token("POST", "/oauth/token")]
#[case::revoke("POST", "/oauth/revoke")]
#[tokio::test]
async fn refuses_foreign_host_and_origin_on_every_route(#[case] method: &str, #[case] path: &str) {
    let server = TestServer::new().await;
    let method: reqwest::Method = method.parse().unwrap();
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let request = server
            .http
            .request(method.clone(), server.at(path))
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
async fn metadata_ignores_forwarding_headers() {
    let server = TestServer::new().await;
    let port = url::Url::parse(&server.base).unwrap().port().unwrap();
    let request = server
        .http
        .get(server.at("/.well-known/oauth-authorization-server"))
        .header("host", format!("localhost:{port}"))
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "host=evil.example");
    let (_, document) = send_for_json(request).await;
    assert_eq!(document["issuer"], server.base);
    assert!(!document.to_string().contains("evil"), "{document}");
}

#[tokio::test]
async fn credential_is_not_sent_to_redirect_of_upstream() {
    let caught = std::sync::Arc::new(super::test_server::DatadogDouble::default());
    let api = axum::Router::new().fallback(|| async {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", "https://evil.example/collect")],
        )
    });
    let server = TestServer::with_api(api).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(
        answer.status(),
        422,
        "a redirect does not verify the credential"
    );
    assert!(answer.headers().get("location").is_none());
    assert_eq!(caught.request_count(), 0);
}

#[rstest]
#[case::authorize("/oauth/authorize?client_id=%0d%0aX-Injected:%20yes&redirect_uri=x")]
#[case::redirect("/oauth/authorize?client_id=x&redirect_uri=https://x/%0d%0aX-Injected:%20yes")]
#[case::metadata("/.well-known/oauth-protected-resource/%0d%0aX-Injected:%20yes")]
#[tokio::test]
async fn url_cannot_inject_headers(#[case] path: &str) {
    let server = TestServer::new().await;
    let answer = server.get(path).await;
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("x-injected").is_none());
    let text = answer.text().await.unwrap();
    assert!(!text.contains("X-Injected"), "{text}");
}
