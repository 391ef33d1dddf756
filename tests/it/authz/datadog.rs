//! Users who sign in at Datadog, over HTTP from the client to the site and back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::StatusCode;
use rmcp::transport::auth::AuthClient;
use rstest::rstest;
use serde_json::{Value, json};

use super::sign_in::{request, rmcp_call, rmcp_login_with};
use super::site_double::{
    SiteDouble, complete_at_datadog, read_continue_page, redirect_to_datadog, wait_until,
};
use super::test_server::{
    ALICE, Browser, CALLBACK, Client, Form as _, Page, TestServer, Tokens, location, origin_header,
    parameter, send_for_json,
};

/// Almost an hour: Datadog's access token is about to expire, and the token of this server is valid.
const ALMOST_AN_HOUR: Duration = Duration::from_secs(57 * 60);

async fn site_and_server() -> (SiteDouble, TestServer) {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_with_sign_in(None)).await;
    (site, server)
}

/// Signs a user in at the site, and returns the tokens of the client.
async fn sign_in_at_datadog(server: &TestServer, site: &SiteDouble, client: &Client) -> Tokens {
    let mut browser = Browser::default();
    let url = client.authorize(server, &[]);
    let callback_url = complete_at_datadog(server, site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(server, callback_url.as_str()).await;
    let code = parameter(&read_continue_page(answer).await, "code").expect("a code");
    let (status, answer) = server.exchange(client, &code).await;
    assert_eq!(status, 200, "{answer}");
    Tokens::from_response(&answer)
}

/// The text of a tool call, and whether it is an error.
async fn search(server: &TestServer, token: &str) -> (String, bool) {
    let call = server
        .call("/mcp", "search_llmobs_spans")
        .bearer_auth(token);
    let (status, answer) = send_for_json(call).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer.pointer("/result/content/0/text").unwrap();
    let failed = answer["result"]["isError"] == true;
    (text.as_str().unwrap().to_owned(), failed)
}

async fn assert_search_succeeds(server: &TestServer, token: &str) {
    let (text, failed) = search(server, token).await;
    assert!(!failed, "{text}");
}

async fn revoke_token(server: &TestServer, token: &str) {
    let revoke = server.http.post(server.at("/oauth/revoke"));
    let (status, _) = send_for_json(revoke.form(&[("token", token)])).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn rmcp_signs_in_at_datadog_and_revocation_ends_the_login() {
    let (site, server) = site_and_server().await;
    let by_datadog = async |url: String| {
        let mut browser = Browser::default();
        let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
        assert_eq!(callback_url.path(), "/oauth/callback");
        let answer = browser.arrive(&server, callback_url.as_str()).await;
        assert_eq!(answer.headers()["referrer-policy"], "same-origin");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        read_continue_page(answer).await
    };
    let manager = rmcp_login_with(&server, "/mcp", request(), by_datadog).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&server, "/mcp", &auth, "search_llmobs_spans").await;
    let answer: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(answer["spans"], json!([]));

    let (access, refresh) = site.last_tokens();
    assert_eq!(
        site.last_bearer(),
        access,
        "the call used the access token of the login"
    );
    let own_token = auth.get_access_token().await.unwrap();
    for seen in site.requests_to("/api/v2/llm-obs/v1/spans/events/search") {
        assert_ne!(seen.bearer.as_deref(), Some(own_token.as_str()));
    }
    assert!(site.accepts(&server, &access).await);

    revoke_token(&server, &own_token).await;
    wait_until(|| site.revocations().len() == 2).await;
    let revoked: Vec<String> = site
        .revocations()
        .iter()
        .map(|seen| seen.form["token"].clone())
        .collect();
    assert_eq!(revoked, [refresh, access.clone()]);
    assert!(!site.accepts(&server, &access).await);
    let refused = rmcp_call(&server, "/mcp", &auth, "search_llmobs_spans").await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn registers_at_datadog_once_a_day() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    sign_in_at_datadog(&server, &site, &client).await;
    sign_in_at_datadog(&server, &site, &client).await;
    assert_eq!(site.registrations().len(), 1);
    assert_eq!(site.exchanges().len(), 2);
    for seen in site.exchanges() {
        assert_eq!(seen.form["redirect_uri"], server.at("/oauth/callback"));
        assert!(seen.form["code_verifier"].len() >= 43);
    }
    server.clock.advance(Duration::from_secs(24 * 3_600));
    let client = server.client("A client", CALLBACK).await;
    sign_in_at_datadog(&server, &site, &client).await;
    assert_eq!(site.registrations().len(), 2);
}

#[tokio::test]
async fn uses_configured_client_id() {
    let site = SiteDouble::new().await;
    let first = TestServer::start(site.setup()).await;
    let id = site.register(&first, &first.at("/oauth/callback")).await;
    let setup = site.setup_with_sign_in(Some(&id)).sharing_state_of(&first);
    let server = TestServer::start(setup).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    // The address of the server differs from its public URL, as behind a load balancer.
    let url = client.authorize(&server, &[("resource", &first.at("/mcp"))]);
    let page = browser.open(&server, &url).await;
    let form = browser.form(&server, &page, "datadog", &[]);
    let form = form.headers(origin_header(&first));
    let datadog_url = location(&form.send().await.unwrap());
    assert_eq!(parameter(&datadog_url, "client_id"), Some(id));
    let callback = parameter(&datadog_url, "redirect_uri");
    assert_eq!(callback, Some(first.at("/oauth/callback")));
    assert_eq!(
        site.registrations().len(),
        1,
        "the registration of the operator"
    );
}

#[rstest]
#[case::unchecked(&[], false, "llm_observability_read", "llmobs:read")]
#[case::checked(&[("write", "yes")], false, "llm_observability_read llm_observability_write", "llmobs:read llmobs:write")]
#[case::checked_and_not_granted(&[("write", "yes")], true, "llm_observability_read llm_observability_write", "llmobs:read")]
#[tokio::test]
async fn write_checkbox_decides_requested_scopes(
    #[case] fields: &[(&str, &str)],
    #[case] grants_less: bool,
    #[case] datadog_scope: &str,
    #[case] granted_scope: &str,
) {
    let (site, server) = site_and_server().await;
    site.recorder
        .grants_reading_only
        .store(grants_less, Ordering::SeqCst);
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let url = redirect_to_datadog(&server, &mut browser, &page, fields).await;
    assert_eq!(parameter(&url, "scope").as_deref(), Some(datadog_scope));
    let callback_url = site.decide(&server, &url, "allow").await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    assert_eq!(answer["scope"], granted_scope);
}

#[tokio::test]
async fn another_process_handles_the_callback() {
    let (site, server) = site_and_server().await;
    let other = TestServer::start(site.setup_with_sign_in(None).sharing_state_of(&server)).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&server, &[]);
    let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
    let datadog_url = callback_url.as_str().replace(&server.base, &other.base);
    let answer = browser.arrive(&other, &datadog_url).await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    // The callback is accepted once across both processes.
    let again = browser.arrive(&server, callback_url.as_str()).await;
    assert_eq!(again.status(), 403);
    let (status, answer) = server.exchange(&client, &code).await;
    assert_eq!(status, 200, "{answer}");
    assert_search_succeeds(&other, &Tokens::from_response(&answer).access).await;
    assert_eq!(site.registrations().len(), 1);
}

// --- renewal ---

#[tokio::test]
async fn renews_login_before_it_expires() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let (first, refresh) = site.last_tokens();
    server.clock.advance(Duration::from_secs(50 * 60));
    assert_search_succeeds(&server, &tokens.access).await;
    assert!(
        site.renewals().is_empty(),
        "the token is not about to expire"
    );

    server.clock.advance(Duration::from_secs(7 * 60));
    assert_search_succeeds(&server, &tokens.access).await;
    let [renewal] = site.renewals().try_into().unwrap();
    assert_eq!(renewal.form["refresh_token"], refresh);
    let (second, _) = site.last_tokens();
    assert_ne!(first, second);
    assert_eq!(site.last_bearer(), second);

    assert_search_succeeds(&server, &tokens.access).await;
    assert_eq!(site.renewals().len(), 1);
    // Another process reads the renewed login from the store.
    let again = TestServer::start(site.setup_with_sign_in(None).sharing_state_of(&server)).await;
    assert_search_succeeds(&again, &tokens.access).await;
    assert_eq!(site.last_bearer(), second);
    assert_eq!(site.renewals().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_in_two_processes_renew_once() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let again = TestServer::start(site.setup_with_sign_in(None).sharing_state_of(&server)).await;
    // The token has expired, so all calls need the new one.
    server.clock.advance(ALMOST_AN_HOUR);
    let (_, answer) = server.refresh(&client, &tokens.refresh).await;
    let own_token = Tokens::from_response(&answer).access;
    server.clock.advance(Duration::from_secs(4 * 60));
    let calls = (0..24).map(|n| {
        let server = if n % 2 == 0 { &server } else { &again };
        assert_search_succeeds(server, &own_token)
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(site.renewals().len(), 1);
    let (access, _) = site.last_tokens();
    assert_eq!(site.last_bearer(), access);
}

#[tokio::test]
async fn refused_renewal_asks_to_sign_in_again() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let (_, refresh) = site.last_tokens();
    site.revoke(&server, &refresh).await;
    server.clock.advance(ALMOST_AN_HOUR);
    for _ in 0..3 {
        let (text, failed) = search(&server, &tokens.access).await;
        assert!(failed, "{text}");
        for words in [
            "401",
            "sign-in at Datadog has ended",
            "sign in to this server again",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(site.secrets().iter().all(|secret| !text.contains(secret)));
    }
    assert_eq!(site.renewals().len(), 1, "one renewal request is sent");
    // A new sign-in works.
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    assert_search_succeeds(&server, &tokens.access).await;
}

#[tokio::test]
async fn refused_token_is_renewed_once() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let (access, _) = site.last_tokens();
    server.clock.advance(Duration::from_secs(120));
    site.revoke(&server, &access).await;
    assert_search_succeeds(&server, &tokens.access).await;
    assert_eq!(site.renewals().len(), 1);
    // A new token is not refused because of its age.
    let (access, _) = site.last_tokens();
    site.revoke(&server, &access).await;
    let (text, failed) = search(&server, &tokens.access).await;
    assert!(
        failed && text.contains("Datadog rejected a token"),
        "{text}"
    );
    assert_eq!(site.renewals().len(), 1);
}

#[tokio::test]
async fn failed_renewal_keeps_valid_token() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let (access, _) = site.last_tokens();
    server.clock.advance(ALMOST_AN_HOUR);
    site.recorder.refuses_tokens.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_search_succeeds(&server, &tokens.access).await;
        assert_eq!(site.last_bearer(), access);
    }
    assert_eq!(
        site.renewals().len(),
        1,
        "failed renewals are not repeated immediately"
    );
    site.recorder.refuses_tokens.store(false, Ordering::SeqCst);
    server.clock.advance(Duration::from_secs(10));
    assert_search_succeeds(&server, &tokens.access).await;
    assert_ne!(site.last_bearer(), access);
    assert_eq!(site.renewals().len(), 2);
}

// --- revocation ---

#[tokio::test]
async fn unclaimed_grant_revokes_its_login() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&server, &[]);
    let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    server.clock.advance(Duration::from_secs(61));
    server.start_maintenance();
    wait_until(|| site.revocations().len() == 2).await;
    let (access, _) = site.last_tokens();
    assert!(!site.accepts(&server, &access).await);
    let (status, _) = server.exchange(&client, &code).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn replayed_code_revokes_the_login() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&server, &[]);
    let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    server.exchange(&client, &code).await;
    assert!(site.revocations().is_empty());
    server.exchange(&client, &code).await;
    wait_until(|| site.revocations().len() == 2).await;
}

#[tokio::test]
async fn failed_revocation_is_retried() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    site.recorder
        .refuses_revocation
        .store(true, Ordering::SeqCst);
    revoke_token(&server, &tokens.access).await;
    wait_until(|| site.revocations().len() == 1).await;
    assert_eq!(server.status("/mcp", &tokens.access).await, 401);
    site.recorder
        .refuses_revocation
        .store(false, Ordering::SeqCst);
    server.clock.advance(Duration::from_secs(61));
    server.start_maintenance();
    wait_until(|| site.revocations().len() == 3).await;
    let (access, _) = site.last_tokens();
    assert!(!site.accepts(&server, &access).await);
}

#[tokio::test]
async fn maintenance_revokes_logins_of_expired_grants() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    sign_in_at_datadog(&server, &site, &client).await;
    server.clock.advance(Duration::from_secs(91 * 24 * 3_600));
    assert!(site.revocations().is_empty());
    server.start_maintenance();
    wait_until(|| site.revocations().len() == 2).await;
}

#[tokio::test]
async fn login_without_read_access_is_revoked() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    site.recorder.refuses_reading.store(true, Ordering::SeqCst);
    let mut browser = Browser::default();
    let url = client.authorize(&server, &[]);
    let callback_url = complete_at_datadog(&server, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    assert_eq!(answer.status(), 422);
    let page = Page::from_response(answer).await;
    assert!(
        page.html.contains("may not read LLM Observability"),
        "{}",
        page.html
    );
    assert_eq!(site.revocations().len(), 2);
    site.recorder.refuses_reading.store(false, Ordering::SeqCst);
    let (access, _) = site.last_tokens();
    assert!(!site.accepts(&server, &access).await);
}

#[tokio::test]
async fn login_is_not_sent_to_another_upstream() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let (access, _) = site.last_tokens();
    let elsewhere = SiteDouble::new().await;
    let moved =
        TestServer::start(elsewhere.setup_with_sign_in(None).sharing_state_of(&server)).await;
    assert_eq!(moved.status("/mcp", &tokens.access).await, 401);
    revoke_token(&moved, &tokens.access).await;
    for path in ["/oauth2/v1/revoke", "/oauth2/v1/token"] {
        assert!(elsewhere.requests_to(path).is_empty());
    }
    assert!(site.accepts(&server, &access).await);
}

// --- without the sign-in at Datadog, and when it fails ---

#[tokio::test]
async fn page_offers_datadog_sign_in_if_configured() {
    let site = SiteDouble::new().await;
    for offered in [true, false] {
        let setup = if offered {
            site.setup_with_sign_in(None)
        } else {
            site.setup()
        };
        let server = TestServer::start(setup).await;
        let client = server.client("A client", CALLBACK).await;
        let mut browser = Browser::default();
        let page = browser.open(&server, &client.authorize(&server, &[])).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        let sources = format!("form-action 'self' http://127.0.0.1:45454 {}", site.base);
        assert_eq!(policy.contains(&sources), offered, "{policy}");
        assert_eq!(page.html.contains("Sign in at Datadog"), offered);
        assert_eq!(page.html.contains("value=\"datadog\""), offered);
        let callback = server.get("/oauth/callback?code=c&state=s").await.status();
        assert_eq!(callback == StatusCode::NOT_FOUND, !offered, "{callback}");
        if !offered {
            let form = browser.form(&server, &page, "datadog", &[]);
            let answer = form.send().await.unwrap();
            assert_eq!(answer.status(), 400);
            assert!(site.registrations().is_empty());
        }
    }
}

#[tokio::test]
async fn refused_registration_is_shown_and_keys_still_work() {
    let (site, server) = site_and_server().await;
    site.recorder
        .refuses_registration
        .store(true, Ordering::SeqCst);
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let form = browser.form(&server, &page, "datadog", &[]);
    let answer = form.send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let page = Page::from_response(answer).await;
    assert!(
        page.html
            .contains("does not accept sign-ins from this server"),
        "{}",
        page.html
    );
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    assert_search_succeeds(&server, &Tokens::from_response(&answer).access).await;
}

#[tokio::test]
async fn denial_at_datadog_shows_the_page_again() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
    let callback_url = site.decide(&server, &datadog_url, "deny").await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    assert_eq!(answer.status(), 422);
    let page = Page::from_response(answer).await;
    assert!(page.html.contains("denied at Datadog"), "{}", page.html);
    assert!(site.exchanges().is_empty());
    // The page still accepts keys, another sign-in at Datadog, and a denial.
    let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
    let callback_url = site.decide(&server, &datadog_url, "allow").await;
    let answer = browser.arrive(&server, callback_url.as_str()).await;
    assert!(parameter(&read_continue_page(answer).await, "code").is_some());
}

#[tokio::test]
async fn whoami_describes_login_without_secrets() {
    let (site, server) = site_and_server().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = sign_in_at_datadog(&server, &site, &client).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read",
                      "params": {"uri": llmobs_mcp::server::WHOAMI_URI}});
    let request = server
        .http
        .post(server.at("/mcp"))
        .header("accept", "application/json, text/event-stream")
        .bearer_auth(&tokens.access)
        .json(&body);
    let (_, answer) = send_for_json(request).await;
    let text = answer.to_string();
    assert!(text.contains("bearer token"), "{text}");
    assert!(site.secrets().iter().all(|secret| !text.contains(secret)));
}
