//! Users who sign in at Datadog, over real HTTP from the client to the site and back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::StatusCode;
use rmcp::transport::auth::AuthClient;
use rstest::rstest;
use serde_json::{Value, json};

use super::sign_in::{request, rmcp_call, rmcp_login_by};
use super::site::{Site, leave, onward, through, until};
use super::stage::{
    ALICE, Browser, CALLBACK, Client, Form as _, Page, Stage, Tokens, by_name_of, json_of,
    location, parameter,
};

/// Almost an hour: a token of Datadog's is about to end, and one of ours is still good.
const ALMOST_AN_HOUR: Duration = Duration::from_secs(57 * 60);

async fn both() -> (Site, Stage) {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_with_sign_in(None)).await;
    (site, stage)
}

/// The tokens of a client whose user signed in at the site.
async fn signed_in(stage: &Stage, site: &Site, client: &Client) -> Tokens {
    let mut browser = Browser::default();
    let url = client.authorize(stage, &[]);
    let back = through(stage, site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").expect("a code");
    let (status, answer) = stage.exchange(client, &code).await;
    assert_eq!(status, 200, "{answer}");
    Tokens::of(&answer)
}

/// The text of a search, and whether it is an error.
async fn search(stage: &Stage, token: &str) -> (String, bool) {
    let call = stage.call("/mcp", "search_llmobs_spans").bearer_auth(token);
    let (status, answer) = json_of(call).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer.pointer("/result/content/0/text").unwrap();
    let failed = answer["result"]["isError"] == true;
    (text.as_str().unwrap().to_owned(), failed)
}

async fn found(stage: &Stage, token: &str) {
    let (text, failed) = search(stage, token).await;
    assert!(!failed, "{text}");
}

async fn revoke_at_ours(stage: &Stage, token: &str) {
    let revoke = stage.http.post(stage.at("/oauth/revoke"));
    let (status, _) = json_of(revoke.form(&[("token", token)])).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn rmcp_signs_in_by_way_of_datadog_calls_and_its_login_ends_there_with_the_grant() {
    let (site, stage) = both().await;
    let by_datadog = async |url: String| {
        let mut browser = Browser::default();
        let back = through(&stage, &site, &mut browser, &url, &[]).await;
        assert_eq!(back.path(), "/oauth/callback");
        let answer = browser.arrive(&stage, back.as_str()).await;
        assert_eq!(answer.headers()["referrer-policy"], "same-origin");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        onward(answer).await
    };
    let manager = rmcp_login_by(&stage, "/mcp", request(), by_datadog).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&stage, "/mcp", &auth, "search_llmobs_spans").await;
    let answer: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(answer["spans"], json!([]));

    let (access, refresh) = site.given();
    assert_eq!(site.last_bearer(), access, "the call was made with it");
    let ours = auth.get_access_token().await.unwrap();
    for seen in site.asked("/api/v2/llm-obs/v1/spans/events/search") {
        assert_ne!(seen.bearer.as_deref(), Some(ours.as_str()));
    }
    assert!(site.takes(&stage, &access).await);

    revoke_at_ours(&stage, &ours).await;
    until(|| site.revocations().len() == 2).await;
    let revoked: Vec<String> = site
        .revocations()
        .iter()
        .map(|seen| seen.form["token"].clone())
        .collect();
    assert_eq!(revoked, [refresh, access.clone()]);
    assert!(!site.takes(&stage, &access).await);
    let refused = rmcp_call(&stage, "/mcp", &auth, "search_llmobs_spans").await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn this_server_registers_once_a_day_with_its_callback_and_pkce() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    signed_in(&stage, &site, &client).await;
    signed_in(&stage, &site, &client).await;
    assert_eq!(site.registrations().len(), 1);
    assert_eq!(site.exchanges().len(), 2);
    for seen in site.exchanges() {
        assert_eq!(seen.form["redirect_uri"], stage.at("/oauth/callback"));
        assert!(seen.form["code_verifier"].len() >= 43);
    }
    stage.clock.pass(Duration::from_secs(24 * 3_600));
    let client = stage.client("A client", CALLBACK).await;
    signed_in(&stage, &site, &client).await;
    assert_eq!(site.registrations().len(), 2);
}

#[tokio::test]
async fn a_client_id_of_the_operators_is_used_as_it_is() {
    let site = Site::new().await;
    let first = Stage::start(site.setup()).await;
    let id = site.register(&first, &first.at("/oauth/callback")).await;
    let setup = site.setup_with_sign_in(Some(&id)).beside(&first);
    let stage = Stage::start(setup).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    // Its own address differs from the public one, as behind a balancer.
    let url = client.authorize(&stage, &[("resource", &first.at("/mcp"))]);
    let page = browser.open(&stage, &url).await;
    let form = browser.form(&stage, &page, "datadog", &[]);
    let form = form.headers(by_name_of(&first));
    let there = location(&form.send().await.unwrap());
    assert_eq!(parameter(&there, "client_id"), Some(id));
    let callback = parameter(&there, "redirect_uri");
    assert_eq!(callback, Some(first.at("/oauth/callback")));
    assert_eq!(site.registrations().len(), 1, "the operator's own");
}

#[rstest]
#[case::not_ticked(&[], false, "llm_observability_read", "llmobs:read")]
#[case::ticked(&[("write", "yes")], false, "llm_observability_read llm_observability_write", "llmobs:read llmobs:write")]
#[case::ticked_and_not_granted(&[("write", "yes")], true, "llm_observability_read llm_observability_write", "llmobs:read")]
#[tokio::test]
async fn the_tick_decides_what_is_asked_at_datadog(
    #[case] fields: &[(&str, &str)],
    #[case] less: bool,
    #[case] there: &str,
    #[case] here: &str,
) {
    let (site, stage) = both().await;
    site.tap.grants_no_writes.store(less, Ordering::SeqCst);
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let url = leave(&stage, &mut browser, &page, fields).await;
    assert_eq!(parameter(&url, "scope").as_deref(), Some(there));
    let back = site.decide(&stage, &url, "allow").await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    assert_eq!(answer["scope"], here);
}

#[tokio::test]
async fn a_browser_that_left_one_process_may_come_back_to_another() {
    let (site, stage) = both().await;
    let other = Stage::start(site.setup_with_sign_in(None).beside(&stage)).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&stage, &[]);
    let back = through(&stage, &site, &mut browser, &url, &[]).await;
    let there = back.as_str().replace(&stage.base, &other.base);
    let answer = browser.arrive(&other, &there).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    // Once over both.
    let again = browser.arrive(&stage, back.as_str()).await;
    assert_eq!(again.status(), 403);
    let (status, answer) = stage.exchange(&client, &code).await;
    assert_eq!(status, 200, "{answer}");
    found(&other, &Tokens::of(&answer).access).await;
    assert_eq!(site.registrations().len(), 1);
}

// --- renewal ---

#[tokio::test]
async fn a_login_is_renewed_before_it_ends_and_goes_on_with_the_new_token() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let (first, refresh) = site.given();
    stage.clock.pass(Duration::from_secs(50 * 60));
    found(&stage, &tokens.access).await;
    assert!(site.renewals().is_empty(), "there is time");

    stage.clock.pass(Duration::from_secs(7 * 60));
    found(&stage, &tokens.access).await;
    let [renewal] = site.renewals().try_into().unwrap();
    assert_eq!(renewal.form["refresh_token"], refresh);
    let (second, _) = site.given();
    assert_ne!(first, second);
    assert_eq!(site.last_bearer(), second);

    found(&stage, &tokens.access).await;
    assert_eq!(site.renewals().len(), 1);
    // Another process finds it in the store.
    let again = Stage::start(site.setup_with_sign_in(None).beside(&stage)).await;
    found(&again, &tokens.access).await;
    assert_eq!(site.last_bearer(), second);
    assert_eq!(site.renewals().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_in_two_processes_renew_once() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let again = Stage::start(site.setup_with_sign_in(None).beside(&stage)).await;
    // Past its end: all of them need the new one. The client has renewed its own in between.
    stage.clock.pass(ALMOST_AN_HOUR);
    let (_, answer) = stage.refresh(&client, &tokens.refresh).await;
    let ours = Tokens::of(&answer).access;
    stage.clock.pass(Duration::from_secs(4 * 60));
    let calls = (0..24).map(|n| {
        let stage = if n % 2 == 0 { &stage } else { &again };
        found(stage, &ours)
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(site.renewals().len(), 1);
    let (access, _) = site.given();
    assert_eq!(site.last_bearer(), access);
}

#[tokio::test]
async fn a_login_that_datadog_no_longer_renews_is_an_error_of_the_tool_that_says_to_sign_in() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let (_, refresh) = site.given();
    site.revoke(&stage, &refresh).await;
    stage.clock.pass(ALMOST_AN_HOUR);
    for _ in 0..3 {
        let (text, failed) = search(&stage, &tokens.access).await;
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
    assert_eq!(site.renewals().len(), 1, "it is asked once");
    // The mend.
    let tokens = signed_in(&stage, &site, &client).await;
    found(&stage, &tokens.access).await;
}

#[tokio::test]
async fn a_token_that_is_refused_before_its_time_is_renewed_once() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let (access, _) = site.given();
    stage.clock.pass(Duration::from_secs(120));
    site.revoke(&stage, &access).await;
    found(&stage, &tokens.access).await;
    assert_eq!(site.renewals().len(), 1);
    // One that was only just given is refused for another reason than its age.
    let (access, _) = site.given();
    site.revoke(&stage, &access).await;
    let (text, failed) = search(&stage, &tokens.access).await;
    assert!(failed && text.contains("refused all the same"), "{text}");
    assert_eq!(site.renewals().len(), 1);
}

#[tokio::test]
async fn while_a_token_lives_its_renewal_may_fail_for_now() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let (access, _) = site.given();
    stage.clock.pass(ALMOST_AN_HOUR);
    site.tap.gives_no_tokens.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        found(&stage, &tokens.access).await;
        assert_eq!(site.last_bearer(), access);
    }
    assert_eq!(site.renewals().len(), 1, "a pause, not a storm");
    site.tap.gives_no_tokens.store(false, Ordering::SeqCst);
    stage.clock.pass(Duration::from_secs(10));
    found(&stage, &tokens.access).await;
    assert_ne!(site.last_bearer(), access);
    assert_eq!(site.renewals().len(), 2);
}

// --- the end ---

#[tokio::test]
async fn a_grant_that_nobody_came_for_ends_its_login_too() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&stage, &[]);
    let back = through(&stage, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    stage.clock.pass(Duration::from_secs(61));
    stage.tend();
    until(|| site.revocations().len() == 2).await;
    let (access, _) = site.given();
    assert!(!site.takes(&stage, &access).await);
    let (status, _) = stage.exchange(&client, &code).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_replayed_code_of_ours_ends_the_login() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let url = client.authorize(&stage, &[]);
    let back = through(&stage, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    stage.exchange(&client, &code).await;
    assert!(site.revocations().is_empty());
    stage.exchange(&client, &code).await;
    until(|| site.revocations().len() == 2).await;
}

#[tokio::test]
async fn a_revocation_that_fails_is_tried_again_and_the_grant_is_gone_all_the_same() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    site.tap.revokes_nothing.store(true, Ordering::SeqCst);
    revoke_at_ours(&stage, &tokens.access).await;
    until(|| site.revocations().len() == 1).await;
    assert_eq!(stage.status("/mcp", &tokens.access).await, 401);
    site.tap.revokes_nothing.store(false, Ordering::SeqCst);
    stage.clock.pass(Duration::from_secs(61));
    stage.tend();
    until(|| site.revocations().len() == 3).await;
    let (access, _) = site.given();
    assert!(!site.takes(&stage, &access).await);
}

#[tokio::test]
async fn a_login_whose_grant_is_over_is_revoked_though_nobody_signs_in_any_more() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    signed_in(&stage, &site, &client).await;
    stage.clock.pass(Duration::from_secs(91 * 24 * 3_600));
    assert!(site.revocations().is_empty());
    stage.tend();
    until(|| site.revocations().len() == 2).await;
}

#[tokio::test]
async fn a_login_that_may_not_read_is_not_accepted_and_revoked() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    site.tap.lets_nobody_read.store(true, Ordering::SeqCst);
    let mut browser = Browser::default();
    let url = client.authorize(&stage, &[]);
    let back = through(&stage, &site, &mut browser, &url, &[]).await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    assert_eq!(answer.status(), 422);
    let page = Page::of(answer).await;
    assert!(
        page.html.contains("may not read LLM Observability"),
        "{}",
        page.html
    );
    assert_eq!(site.revocations().len(), 2);
    site.tap.lets_nobody_read.store(false, Ordering::SeqCst);
    let (access, _) = site.given();
    assert!(!site.takes(&stage, &access).await);
}

#[tokio::test]
async fn a_server_that_was_moved_to_another_upstream_shows_it_no_login_of_this_one() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let (access, _) = site.given();
    let elsewhere = Site::new().await;
    let moved = Stage::start(elsewhere.setup_with_sign_in(None).beside(&stage)).await;
    assert_eq!(moved.status("/mcp", &tokens.access).await, 401);
    revoke_at_ours(&moved, &tokens.access).await;
    for path in ["/oauth2/v1/revoke", "/oauth2/v1/token"] {
        assert!(elsewhere.asked(path).is_empty());
    }
    assert!(site.takes(&stage, &access).await);
}

// --- without it, and when it does not work ---

#[tokio::test]
async fn the_page_offers_it_where_the_server_does() {
    let site = Site::new().await;
    for offered in [true, false] {
        let setup = if offered {
            site.setup_with_sign_in(None)
        } else {
            site.setup()
        };
        let stage = Stage::start(setup).await;
        let client = stage.client("A client", CALLBACK).await;
        let mut browser = Browser::default();
        let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        let sources = format!("form-action 'self' http://127.0.0.1:45454 {}", site.base);
        assert_eq!(policy.contains(&sources), offered, "{policy}");
        assert_eq!(page.html.contains("Sign in at Datadog"), offered);
        assert_eq!(page.html.contains("value=\"datadog\""), offered);
        let callback = stage.get("/oauth/callback?code=c&state=s").await.status();
        assert_eq!(callback == StatusCode::NOT_FOUND, !offered, "{callback}");
        if !offered {
            let form = browser.form(&stage, &page, "datadog", &[]);
            let answer = form.send().await.unwrap();
            assert_eq!(answer.status(), 400);
            assert!(site.registrations().is_empty());
        }
    }
}

#[tokio::test]
async fn where_datadog_registers_nobody_the_page_says_so_and_keys_still_work() {
    let (site, stage) = both().await;
    site.tap.registers_nobody.store(true, Ordering::SeqCst);
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let form = browser.form(&stage, &page, "datadog", &[]);
    let answer = form.send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let page = Page::of(answer).await;
    assert!(
        page.html
            .contains("does not accept sign-ins from this server"),
        "{}",
        page.html
    );
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    found(&stage, &Tokens::of(&answer).access).await;
}

#[tokio::test]
async fn who_says_no_at_datadog_is_asked_again_here() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let there = leave(&stage, &mut browser, &page, &[]).await;
    let back = site.decide(&stage, &there, "deny").await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    assert_eq!(answer.status(), 422);
    let page = Page::of(answer).await;
    assert!(page.html.contains("denied at Datadog"), "{}", page.html);
    assert!(site.exchanges().is_empty());
    // The same page takes keys, a second try at Datadog, and a no.
    let there = leave(&stage, &mut browser, &page, &[]).await;
    let back = site.decide(&stage, &there, "allow").await;
    let answer = browser.arrive(&stage, back.as_str()).await;
    assert!(parameter(&onward(answer).await, "code").is_some());
}

#[tokio::test]
async fn whoami_names_the_login_without_a_secret() {
    let (site, stage) = both().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = signed_in(&stage, &site, &client).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read",
                      "params": {"uri": llmobs_mcp::server::WHOAMI_URI}});
    let request = stage
        .http
        .post(stage.at("/mcp"))
        .header("accept", "application/json, text/event-stream")
        .bearer_auth(&tokens.access)
        .json(&body);
    let (_, answer) = json_of(request).await;
    let text = answer.to_string();
    assert!(text.contains("bearer token"), "{text}");
    assert!(site.secrets().iter().all(|secret| !text.contains(secret)));
}
