//! Attacks on the sign-in at Datadog. Each case is a callback or a form that must have no effect.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rstest::rstest;
use url::Url;

use super::site_double::{
    SiteDouble, complete_at_datadog, read_continue_page, redirect_to_datadog,
};
use super::test_server::{ALICE, Browser, CALLBACK, Client, Page, TestServer, location, parameter};

/// A browser that the consent page of a client has redirected to Datadog.
struct SignInAtDatadog {
    site: SiteDouble,
    server: TestServer,
    client: Client,
    browser: Browser,
    page: Page,
    /// The URL at Datadog.
    datadog_url: Url,
}

impl SignInAtDatadog {
    async fn new() -> Self {
        let site = SiteDouble::new().await;
        let server = TestServer::start(site.setup_with_sign_in(None)).await;
        let client = server.client("A client", CALLBACK).await;
        let mut browser = Browser::default();
        let page = browser.open(&server, &client.authorize(&server, &[])).await;
        let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
        Self {
            site,
            server,
            client,
            browser,
            page,
            datadog_url,
        }
    }

    /// The callback URL after the user allows access at Datadog.
    async fn allowed_callback(&self) -> Url {
        self.site
            .decide(&self.server, &self.datadog_url, "allow")
            .await
    }

    /// The callback URL with these parameters and the right `state`.
    fn callback(&self, rest: &str) -> String {
        let state = parameter(&self.datadog_url, "state").unwrap();
        self.server
            .at(&format!("/oauth/callback?{rest}&state={state}"))
    }

    async fn arrive(&self, url: &str) -> Page {
        let answer = self.browser.arrive(&self.server, url).await;
        for name in ["location", "refresh"] {
            assert!(answer.headers().get(name).is_none(), "{url}");
        }
        Page::from_response(answer).await
    }

    fn assert_nothing_exchanged(&self) {
        assert!(self.site.exchanges().is_empty(), "the code was sent");
    }
}

/// A URL with one parameter replaced.
fn with(url: &Url, name: &str, value: &str) -> String {
    let mut changed = url.clone();
    let others: Vec<(String, String)> = url
        .query_pairs()
        .into_owned()
        .filter(|(key, _)| key != name)
        .collect();
    changed.query_pairs_mut().clear().extend_pairs(others);
    if !value.is_empty() {
        changed.query_pairs_mut().append_pair(name, value);
    }
    changed.into()
}

#[rstest]
#[case::no_state(|callback_url: &Url| with(callback_url, "state", ""), 403)]
#[case::wrong_state(|callback_url: &Url| with(callback_url, "state", "guess-guess-guess"), 403)]
#[case::longer_state(|callback_url: &Url| with(callback_url, "state", &format!("{}x", parameter(callback_url, "state").unwrap())), 403)]
#[case::two_states(|callback_url: &Url| format!("{callback_url}&state=other"), 400)]
#[case::two_codes(|callback_url: &Url| format!("{callback_url}&code=other"), 400)]
#[case::nothing(|callback_url: &Url| callback_url.as_str().split('?').next().unwrap().to_owned(), 403)]
#[case::too_long(|callback_url: &Url| format!("{callback_url}&x={}", "x".repeat(9_000)), 400)]
#[tokio::test]
async fn callback_without_sign_in_is_refused(
    #[case] change: fn(&Url) -> String,
    #[case] status: u16,
) {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let page = sign_in.arrive(&change(&callback_url)).await;
    assert_eq!(page.status, status, "{}", page.html);
    sign_in.assert_nothing_exchanged();
    // The right callback is still accepted.
    let answer = sign_in
        .browser
        .arrive(&sign_in.server, callback_url.as_str())
        .await;
    assert!(parameter(&read_continue_page(answer).await, "code").is_some());
}

#[tokio::test]
async fn callback_is_accepted_once() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let answer = sign_in
        .browser
        .arrive(&sign_in.server, callback_url.as_str())
        .await;
    let code = parameter(&read_continue_page(answer).await, "code").unwrap();
    assert_eq!(sign_in.arrive(callback_url.as_str()).await.status, 403);
    assert_eq!(sign_in.site.exchanges().len(), 1);
    // The grant of the first callback stays valid.
    let (status, _) = sign_in.server.exchange(&sign_in.client, &code).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_callbacks_are_accepted_once() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let tries = (0..12).map(|_| {
        sign_in
            .browser
            .arrive(&sign_in.server, callback_url.as_str())
    });
    let answers = futures_util::future::join_all(tries).await;
    let through = answers.iter().filter(|answer| answer.status() == 200);
    assert_eq!(through.count(), 1);
    assert_eq!(sign_in.site.exchanges().len(), 1);
}

#[tokio::test]
async fn callback_in_another_browser_is_refused() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    // The attacker gave consent here, and the victim allowed access at Datadog.
    let mut victim = Browser::default();
    let other = sign_in.server.client("Another", CALLBACK).await;
    let page = victim
        .open(&sign_in.server, &other.authorize(&sign_in.server, &[]))
        .await;
    redirect_to_datadog(&sign_in.server, &mut victim, &page, &[]).await;
    for browser in [Browser::default(), victim] {
        let answer = browser.arrive(&sign_in.server, callback_url.as_str()).await;
        assert_eq!(answer.status(), 403);
        assert!(answer.headers().get("location").is_none());
    }
    sign_in.assert_nothing_exchanged();
    let answer = sign_in
        .browser
        .arrive(&sign_in.server, callback_url.as_str())
        .await;
    assert!(parameter(&read_continue_page(answer).await, "code").is_some());
}

#[tokio::test]
async fn cookie_of_consent_page_is_not_accepted_at_callback() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let state = parameter(&callback_url, "state").unwrap();
    let mut page_alone = sign_in.browser.clone();
    page_alone
        .cookies
        .retain(|name, _| name.contains("llmobs-consent-"));
    let value = page_alone.cookies.values().next().unwrap().clone();
    let name: String = state.chars().take(8).collect();
    let cookies = [(format!("llmobs-sign-in-{name}"), value)];
    let planted = Browser {
        cookies: cookies.into(),
    };
    let answer = planted.arrive(&sign_in.server, callback_url.as_str()).await;
    assert_eq!(answer.status(), 403);
    sign_in.assert_nothing_exchanged();
}

#[tokio::test]
async fn callbacks_of_two_clients_cannot_be_swapped() {
    let mut sign_in = SignInAtDatadog::new().await;
    let mine = sign_in.allowed_callback().await;
    let thief = sign_in
        .server
        .client("A thief", "https://evil.example/callback")
        .await;
    let url = thief.authorize(&sign_in.server, &[]);
    let theirs = complete_at_datadog(
        &sign_in.server,
        &sign_in.site,
        &mut sign_in.browser,
        &url,
        &[],
    )
    .await;
    // The code of one sign-in with the state of the other.
    let swapped = with(&theirs, "code", &parameter(&mine, "code").unwrap());
    let page = sign_in.arrive(&swapped).await;
    assert_eq!(page.status, 422);
    assert!(
        page.html.contains("did not accept its own code"),
        "{}",
        page.html
    );
    assert!(
        page.html.contains("A thief"),
        "the page belongs to the client of the state"
    );
    assert!(
        sign_in
            .site
            .exchanges()
            .iter()
            .all(|seen| seen.status == 400)
    );
}

#[tokio::test]
async fn datadog_code_is_accepted_once() {
    let mut sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let answer = sign_in
        .browser
        .arrive(&sign_in.server, callback_url.as_str())
        .await;
    assert!(parameter(&read_continue_page(answer).await, "code").is_some());
    let url = sign_in.client.authorize(&sign_in.server, &[]);
    let again = complete_at_datadog(
        &sign_in.server,
        &sign_in.site,
        &mut sign_in.browser,
        &url,
        &[],
    )
    .await;
    let replayed = with(&again, "code", &parameter(&callback_url, "code").unwrap());
    let page = sign_in.arrive(&replayed).await;
    assert_eq!(page.status, 422);
    assert!(
        page.html.contains("did not accept its own code"),
        "{}",
        page.html
    );
}

#[rstest]
#[case::foreign_domain("code=c&domain=evil.example", "does not belong to Datadog")]
#[case::lookalike(
    "code=c&domain=datadoghq.com.evil.example",
    "does not belong to Datadog"
)]
#[case::another_site("code=c&domain=datadoghq.com", "does not belong to Datadog")]
#[case::another_port("code=c&domain=127.0.0.1:1", "does not belong to Datadog")]
#[case::a_user_part("code=c&domain=127.0.0.1:1@evil.example", "does not belong to Datadog")]
#[case::foreign_site("code=c&site=https://evil.example", "does not belong to Datadog")]
#[case::denied("error=access_denied", "denied at Datadog")]
#[case::denied_beside_a_code("code=c&error=access_denied", "denied at Datadog")]
#[case::scope(
    "error=invalid_scope",
    "does not allow the access that this server requests"
)]
#[case::another_error("error=server_error", "ended with an error")]
#[case::no_code("x=y", "ended with an error")]
#[case::empty_code("code=", "ended with an error")]
#[case::wrong_code("code=guess", "did not accept its own code")]
#[case::markup(
    "error=%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cimg%3E",
    "ended with an error"
)]
#[tokio::test]
async fn failed_callback_shows_error_and_page_still_accepts_keys(
    #[case] rest: &str,
    #[case] words: &str,
) {
    let sign_in = SignInAtDatadog::new().await;
    let page = sign_in.arrive(&sign_in.callback(rest)).await;
    assert_eq!(page.status, 422);
    assert!(page.html.contains(words), "{}", page.html);
    for foreign in ["evil", "script", "<img"] {
        assert!(!page.html.contains(foreign), "{}", page.html);
    }
    assert!(
        sign_in
            .site
            .exchanges()
            .iter()
            .all(|seen| seen.status == 400)
    );
    if !rest.starts_with("code=guess") {
        sign_in.assert_nothing_exchanged();
    }
    // The sign-in is consumed.
    let again = sign_in.arrive(&sign_in.callback("code=c")).await;
    assert_eq!(again.status, 403);
    let answer = sign_in
        .browser
        .allow(&sign_in.server, &page, &ALICE.fields())
        .await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case::foreign_domain("domain=evil.example", "does not belong to Datadog")]
#[case::subdomain_of_site("domain=evil.datadoghq.eu", "does not belong to Datadog")]
#[case::lookalike("domain=datadoghq.eu.evil.example", "does not belong to Datadog")]
#[case::a_user_part("domain=datadoghq.eu@evil.example", "does not belong to Datadog")]
#[case::a_port("domain=datadoghq.eu:8443", "does not belong to Datadog")]
#[case::loopback("domain=127.0.0.1:8126", "does not belong to Datadog")]
#[case::government_domain("domain=ddog-gov.com", "does not belong to Datadog")]
#[case::foreign_site(
    "domain=datadoghq.eu&site=https://evil.example",
    "does not belong to Datadog"
)]
#[case::site_over_http(
    "domain=datadoghq.eu&site=http://app.datadoghq.eu",
    "does not belong to Datadog"
)]
#[case::account_elsewhere("domain=us5.datadoghq.com", "Your account is at us5.datadoghq.com")]
#[tokio::test]
async fn code_is_sent_to_configured_site_only(#[case] rest: &str, #[case] words: &str) {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_as("datadoghq.eu")).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
    assert_eq!(datadog_url.host_str(), Some("app.datadoghq.eu"));
    let state = parameter(&datadog_url, "state").unwrap();
    let url = server.at(&format!("/oauth/callback?code=c&{rest}&state={state}"));
    let page = Page::from_response(browser.arrive(&server, &url).await).await;
    assert_eq!(page.status, 422);
    assert!(page.html.contains(words), "{}", page.html);
    assert!(!page.html.contains("evil"), "{}", page.html);
    assert!(site.exchanges().is_empty(), "the code was sent");
}

#[tokio::test]
async fn callback_may_name_subdomain_of_site() {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_as("datadoghq.eu")).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
    let state = parameter(&datadog_url, "state").unwrap();
    let rest = "code=c&domain=datadoghq.eu&site=https://acme.datadoghq.eu";
    let url = server.at(&format!("/oauth/callback?{rest}&state={state}"));
    browser.arrive(&server, &url).await;
    let [exchange] = site.exchanges().try_into().unwrap();
    assert_eq!(exchange.form["code"], "c");
}

#[tokio::test]
async fn sign_in_at_datadog_expires() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    sign_in.server.clock.advance(Duration::from_secs(600));
    assert_eq!(sign_in.arrive(callback_url.as_str()).await.status, 403);
    sign_in.assert_nothing_exchanged();
}

#[tokio::test]
async fn closed_page_refuses_callback() {
    // Another tab of the same page, with the next CSRF token.
    let sign_in = SignInAtDatadog::new().await;
    let page = sign_in
        .arrive(&sign_in.callback("error=access_denied"))
        .await;
    let mut browser = sign_in.browser.clone();
    let datadog_url = redirect_to_datadog(&sign_in.server, &mut browser, &page, &[]).await;
    let callback_url = sign_in
        .site
        .decide(&sign_in.server, &datadog_url, "allow")
        .await;
    // Only the latest sign-in of a page is accepted.
    let old = sign_in.allowed_callback().await;
    assert_eq!(sign_in.arrive(old.as_str()).await.status, 403);
    let answer = browser.arrive(&sign_in.server, callback_url.as_str()).await;
    assert!(parameter(&read_continue_page(answer).await, "code").is_some());
    let answer = browser.arrive(&sign_in.server, callback_url.as_str()).await;
    assert_eq!(answer.status(), 403);
}

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
async fn cross_site_form_does_not_redirect_to_datadog(
    #[case] name: &'static str,
    #[case] value: &'static str,
) {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_with_sign_in(None)).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let form = browser.form(&server, &page, "datadog", &[]);
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
    assert!(answer.headers().get("set-cookie").is_none());
    assert!(site.registrations().is_empty());
    // A submission by the user is still accepted.
    redirect_to_datadog(&server, &mut browser, &page, &[]).await;
}

#[rstest]
#[case::wrong_token("csrf", "guess")]
#[case::no_token("csrf", "")]
#[case::wrong_page("page", "guess")]
#[case::no_page("page", "")]
#[tokio::test]
async fn datadog_button_requires_page_secrets(#[case] name: &str, #[case] value: &str) {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_with_sign_in(None)).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&server, &client.authorize(&server, &[])).await;
    let right = page.hidden(name);
    page.html = page.html.replace(&right, value);
    let form = browser.form(&server, &page, "datadog", &[]);
    let answer = form.send().await.unwrap();
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("location").is_none());
    assert!(site.registrations().is_empty());
}

#[tokio::test]
async fn datadog_button_works_once_and_by_post_only() {
    let sign_in = SignInAtDatadog::new().await;
    let form = sign_in
        .browser
        .form(&sign_in.server, &sign_in.page, "datadog", &[]);
    assert_eq!(form.send().await.unwrap().status(), 403);
    let (page, csrf) = (sign_in.page.hidden("page"), sign_in.page.hidden("csrf"));
    let path = format!("/oauth/consent?page={page}&csrf={csrf}&decision=datadog");
    assert_eq!(sign_in.server.get(&path).await.status(), 405);
    let post = sign_in
        .server
        .http
        .post(sign_in.server.at("/oauth/callback"));
    assert_eq!(post.send().await.unwrap().status(), 405);
    assert_eq!(sign_in.site.registrations().len(), 1);
}

#[tokio::test]
async fn limits_redirects_to_datadog_per_page() {
    let site = SiteDouble::new().await;
    let server = TestServer::start(site.setup_with_sign_in(None)).await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&server, &client.authorize(&server, &[])).await;
    for _ in 0..5 {
        let datadog_url = redirect_to_datadog(&server, &mut browser, &page, &[]).await;
        let callback_url = site.decide(&server, &datadog_url, "deny").await;
        page = Page::from_response(browser.arrive(&server, callback_url.as_str()).await).await;
        assert_eq!(page.status, 422);
    }
    let form = browser.form(&server, &page, "datadog", &[]);
    assert_eq!(form.send().await.unwrap().status(), 403);
}

#[rstest]
#[case::host("host", "evil.example")]
#[case::origin("origin", "https://evil.example")]
#[case::null_origin("origin", "null")]
#[tokio::test]
async fn callback_refuses_foreign_host_and_origin(#[case] name: &str, #[case] value: &str) {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let request = sign_in
        .server
        .http
        .get(callback_url.as_str())
        .header(name, value);
    assert_eq!(request.send().await.unwrap().status(), 403);
    sign_in.assert_nothing_exchanged();
}

#[tokio::test]
async fn client_never_receives_datadog_tokens() {
    let sign_in = SignInAtDatadog::new().await;
    let callback_url = sign_in.allowed_callback().await;
    let answer = sign_in
        .browser
        .arrive(&sign_in.server, callback_url.as_str())
        .await;
    let target = read_continue_page(answer).await;
    let code = parameter(&target, "code").unwrap();
    let (_, answer) = sign_in.server.exchange(&sign_in.client, &code).await;
    let text = format!("{target} {answer}");
    for secret in sign_in.site.secrets() {
        assert!(!text.contains(&secret), "{text}");
    }
    let (access, _) = sign_in.site.last_tokens();
    // This server does not accept it as a bearer either.
    assert_eq!(sign_in.server.status("/mcp", &access).await, 401);
}
