//! Attacks on the way by Datadog: each row is an answer, or a form, that must come to nothing.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rstest::rstest;
use url::Url;

use super::site::{Site, leave, onward, through};
use super::stage::{ALICE, Browser, CALLBACK, Client, Page, Stage, location, parameter};

/// A browser at Datadog's door: it left the consent page of a client.
struct Scene {
    site: Site,
    stage: Stage,
    client: Client,
    browser: Browser,
    page: Page,
    /// Where the browser was sent.
    there: Url,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new().await;
        let stage = Stage::start(site.setup_with_sign_in(None)).await;
        let client = stage.client("A client", CALLBACK).await;
        let mut browser = Browser::default();
        let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
        let there = leave(&stage, &mut browser, &page, &[]).await;
        Self {
            site,
            stage,
            client,
            browser,
            page,
            there,
        }
    }

    /// Where Datadog sends the browser when the user says yes.
    async fn back(&self) -> Url {
        self.site.decide(&self.stage, &self.there, "allow").await
    }

    /// The callback with these parameters beside the right `state`.
    fn callback(&self, rest: &str) -> String {
        let state = parameter(&self.there, "state").unwrap();
        self.stage
            .at(&format!("/oauth/callback?{rest}&state={state}"))
    }

    async fn arrive(&self, url: &str) -> Page {
        let answer = self.browser.arrive(&self.stage, url).await;
        for name in ["location", "refresh"] {
            assert!(answer.headers().get(name).is_none(), "{url}");
        }
        Page::of(answer).await
    }

    fn nothing_was_exchanged(&self) {
        assert!(self.site.exchanges().is_empty(), "the code was sent");
    }
}

/// An address with a parameter changed.
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
#[case::no_state(|back: &Url| with(back, "state", ""), 403)]
#[case::wrong_state(|back: &Url| with(back, "state", "guess-guess-guess"), 403)]
#[case::a_state_that_begins_alike(|back: &Url| with(back, "state", &format!("{}x", parameter(back, "state").unwrap())), 403)]
#[case::two_states(|back: &Url| format!("{back}&state=other"), 400)]
#[case::two_codes(|back: &Url| format!("{back}&code=other"), 400)]
#[case::nothing(|back: &Url| back.as_str().split('?').next().unwrap().to_owned(), 403)]
#[case::endless(|back: &Url| format!("{back}&x={}", "x".repeat(9_000)), 400)]
#[tokio::test]
async fn an_answer_of_no_sign_in_is_refused_and_spends_none(
    #[case] change: fn(&Url) -> String,
    #[case] status: u16,
) {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let page = scene.arrive(&change(&back)).await;
    assert_eq!(page.status, status, "{}", page.html);
    scene.nothing_was_exchanged();
    // The right one still counts.
    let answer = scene.browser.arrive(&scene.stage, back.as_str()).await;
    assert!(parameter(&onward(answer).await, "code").is_some());
}

#[tokio::test]
async fn an_answer_counts_once() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let answer = scene.browser.arrive(&scene.stage, back.as_str()).await;
    let code = parameter(&onward(answer).await, "code").unwrap();
    assert_eq!(scene.arrive(back.as_str()).await.status, 403);
    assert_eq!(scene.site.exchanges().len(), 1);
    // And harms nothing that came of it.
    let (status, _) = scene.stage.exchange(&scene.client, &code).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_sent_many_times_at_once_counts_once() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let tries = (0..12).map(|_| scene.browser.arrive(&scene.stage, back.as_str()));
    let answers = futures_util::future::join_all(tries).await;
    let through = answers.iter().filter(|answer| answer.status() == 200);
    assert_eq!(through.count(), 1);
    assert_eq!(scene.site.exchanges().len(), 1);
}

#[tokio::test]
async fn an_answer_in_another_browser_is_nothing_there_and_nothing_is_spent() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    // The attacker consented here, and had the victim allow it at Datadog.
    let mut victim = Browser::default();
    let other = scene.stage.client("Another", CALLBACK).await;
    let page = victim
        .open(&scene.stage, &other.authorize(&scene.stage, &[]))
        .await;
    leave(&scene.stage, &mut victim, &page, &[]).await;
    for browser in [Browser::default(), victim] {
        let answer = browser.arrive(&scene.stage, back.as_str()).await;
        assert_eq!(answer.status(), 403);
        assert!(answer.headers().get("location").is_none());
    }
    scene.nothing_was_exchanged();
    let answer = scene.browser.arrive(&scene.stage, back.as_str()).await;
    assert!(parameter(&onward(answer).await, "code").is_some());
}

#[tokio::test]
async fn the_cookie_of_the_consent_page_is_not_that_of_the_way_back() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let state = parameter(&back, "state").unwrap();
    let mut page_alone = scene.browser.clone();
    page_alone
        .cookies
        .retain(|name, _| name.contains("llmobs-consent-"));
    let value = page_alone.cookies.values().next().unwrap().clone();
    let name: String = state.chars().take(8).collect();
    let cookies = [(format!("llmobs-sign-in-{name}"), value)];
    let planted = Browser {
        cookies: cookies.into(),
    };
    let answer = planted.arrive(&scene.stage, back.as_str()).await;
    assert_eq!(answer.status(), 403);
    scene.nothing_was_exchanged();
}

#[tokio::test]
async fn answers_of_two_clients_in_one_browser_cannot_be_swapped() {
    let mut scene = Scene::new().await;
    let mine = scene.back().await;
    let thief = scene
        .stage
        .client("A thief", "https://evil.example/callback")
        .await;
    let url = thief.authorize(&scene.stage, &[]);
    let theirs = through(&scene.stage, &scene.site, &mut scene.browser, &url, &[]).await;
    // The code that was allowed for one, with the state of the other.
    let swapped = with(&theirs, "code", &parameter(&mine, "code").unwrap());
    let page = scene.arrive(&swapped).await;
    assert_eq!(page.status, 422);
    assert!(
        page.html.contains("did not accept its own code"),
        "{}",
        page.html
    );
    assert!(page.html.contains("A thief"), "it is the thief's page");
    assert!(scene.site.exchanges().iter().all(|seen| seen.status == 400));
}

#[tokio::test]
async fn a_code_of_datadogs_is_not_taken_twice() {
    let mut scene = Scene::new().await;
    let back = scene.back().await;
    let answer = scene.browser.arrive(&scene.stage, back.as_str()).await;
    assert!(parameter(&onward(answer).await, "code").is_some());
    let url = scene.client.authorize(&scene.stage, &[]);
    let again = through(&scene.stage, &scene.site, &mut scene.browser, &url, &[]).await;
    let replayed = with(&again, "code", &parameter(&back, "code").unwrap());
    let page = scene.arrive(&replayed).await;
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
#[case::a_real_site_that_is_not_ours("code=c&domain=datadoghq.com", "does not belong to Datadog")]
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
async fn an_answer_that_is_wrong_is_told_on_the_page_which_takes_keys_still(
    #[case] rest: &str,
    #[case] words: &str,
) {
    let scene = Scene::new().await;
    let page = scene.arrive(&scene.callback(rest)).await;
    assert_eq!(page.status, 422);
    assert!(page.html.contains(words), "{}", page.html);
    for foreign in ["evil", "script", "<img"] {
        assert!(!page.html.contains(foreign), "{}", page.html);
    }
    assert!(scene.site.exchanges().iter().all(|seen| seen.status == 400));
    if !rest.starts_with("code=guess") {
        scene.nothing_was_exchanged();
    }
    // It was spent.
    let again = scene.arrive(&scene.callback("code=c")).await;
    assert_eq!(again.status, 403);
    let answer = scene
        .browser
        .allow(&scene.stage, &page, &ALICE.fields())
        .await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case::foreign_domain("domain=evil.example", "does not belong to Datadog")]
#[case::below_a_site("domain=evil.datadoghq.eu", "does not belong to Datadog")]
#[case::lookalike("domain=datadoghq.eu.evil.example", "does not belong to Datadog")]
#[case::a_user_part("domain=datadoghq.eu@evil.example", "does not belong to Datadog")]
#[case::a_port("domain=datadoghq.eu:8443", "does not belong to Datadog")]
#[case::this_machine("domain=127.0.0.1:8126", "does not belong to Datadog")]
#[case::government("domain=ddog-gov.com", "does not belong to Datadog")]
#[case::foreign_site(
    "domain=datadoghq.eu&site=https://evil.example",
    "does not belong to Datadog"
)]
#[case::site_in_the_clear(
    "domain=datadoghq.eu&site=http://app.datadoghq.eu",
    "does not belong to Datadog"
)]
#[case::account_elsewhere("domain=us5.datadoghq.com", "Your account is at us5.datadoghq.com")]
#[tokio::test]
async fn the_code_goes_to_the_site_of_this_server_or_nowhere(
    #[case] rest: &str,
    #[case] words: &str,
) {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_as("datadoghq.eu")).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let there = leave(&stage, &mut browser, &page, &[]).await;
    assert_eq!(there.host_str(), Some("app.datadoghq.eu"));
    let state = parameter(&there, "state").unwrap();
    let url = stage.at(&format!("/oauth/callback?code=c&{rest}&state={state}"));
    let page = Page::of(browser.arrive(&stage, &url).await).await;
    assert_eq!(page.status, 422);
    assert!(page.html.contains(words), "{}", page.html);
    assert!(!page.html.contains("evil"), "{}", page.html);
    assert!(site.exchanges().is_empty(), "the code was sent");
}

#[tokio::test]
async fn an_answer_may_name_this_servers_site_and_an_address_of_the_organisation() {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_as("datadoghq.eu")).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let there = leave(&stage, &mut browser, &page, &[]).await;
    let state = parameter(&there, "state").unwrap();
    let rest = "code=c&domain=datadoghq.eu&site=https://acme.datadoghq.eu";
    let url = stage.at(&format!("/oauth/callback?{rest}&state={state}"));
    browser.arrive(&stage, &url).await;
    let [exchange] = site.exchanges().try_into().unwrap();
    assert_eq!(exchange.form["code"], "c");
}

#[tokio::test]
async fn a_sign_in_that_took_too_long_is_over() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    scene.stage.clock.pass(Duration::from_secs(600));
    assert_eq!(scene.arrive(back.as_str()).await.status, 403);
    scene.nothing_was_exchanged();
}

#[tokio::test]
async fn a_page_that_was_answered_otherwise_has_no_way_back() {
    // Another tab of the same page, after its token was renewed.
    let scene = Scene::new().await;
    let page = scene.arrive(&scene.callback("error=access_denied")).await;
    let mut browser = scene.browser.clone();
    let there = leave(&scene.stage, &mut browser, &page, &[]).await;
    let back = scene.site.decide(&scene.stage, &there, "allow").await;
    // Only the newest way to Datadog of a page counts.
    let old = scene.back().await;
    assert_eq!(scene.arrive(old.as_str()).await.status, 403);
    let answer = browser.arrive(&scene.stage, back.as_str()).await;
    assert!(parameter(&onward(answer).await, "code").is_some());
    let answer = browser.arrive(&scene.stage, back.as_str()).await;
    assert_eq!(answer.status(), 403);
}

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
async fn csrf_on_the_button_sends_nobody_to_datadog(
    #[case] name: &'static str,
    #[case] value: &'static str,
) {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_with_sign_in(None)).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let form = browser.form(&stage, &page, "datadog", &[]);
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
    assert!(answer.headers().get("set-cookie").is_none());
    assert!(site.registrations().is_empty());
    // The user's own press still counts.
    leave(&stage, &mut browser, &page, &[]).await;
}

#[rstest]
#[case::wrong_token("csrf", "guess")]
#[case::no_token("csrf", "")]
#[case::wrong_page("page", "guess")]
#[case::no_page("page", "")]
#[tokio::test]
async fn the_button_needs_the_pages_secrets(#[case] name: &str, #[case] value: &str) {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_with_sign_in(None)).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let right = page.hidden(name);
    page.html = page.html.replace(&right, value);
    let form = browser.form(&stage, &page, "datadog", &[]);
    let answer = form.send().await.unwrap();
    assert!(answer.status().is_client_error());
    assert!(answer.headers().get("location").is_none());
    assert!(site.registrations().is_empty());
}

#[tokio::test]
async fn the_button_works_once_and_by_post_only() {
    let scene = Scene::new().await;
    let form = scene
        .browser
        .form(&scene.stage, &scene.page, "datadog", &[]);
    assert_eq!(form.send().await.unwrap().status(), 403);
    let (page, csrf) = (scene.page.hidden("page"), scene.page.hidden("csrf"));
    let path = format!("/oauth/consent?page={page}&csrf={csrf}&decision=datadog");
    assert_eq!(scene.stage.get(&path).await.status(), 405);
    let post = scene.stage.http.post(scene.stage.at("/oauth/callback"));
    assert_eq!(post.send().await.unwrap().status(), 405);
    assert_eq!(scene.site.registrations().len(), 1);
}

#[tokio::test]
async fn a_page_sends_few_to_datadog() {
    let site = Site::new().await;
    let stage = Stage::start(site.setup_with_sign_in(None)).await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let mut page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    for _ in 0..5 {
        let there = leave(&stage, &mut browser, &page, &[]).await;
        let back = site.decide(&stage, &there, "deny").await;
        page = Page::of(browser.arrive(&stage, back.as_str()).await).await;
        assert_eq!(page.status, 422);
    }
    let form = browser.form(&stage, &page, "datadog", &[]);
    assert_eq!(form.send().await.unwrap().status(), 403);
}

#[rstest]
#[case::host("host", "evil.example")]
#[case::origin("origin", "https://evil.example")]
#[case::null_origin("origin", "null")]
#[tokio::test]
async fn a_foreign_name_is_refused_at_the_callback_too(#[case] name: &str, #[case] value: &str) {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let request = scene.stage.http.get(back.as_str()).header(name, value);
    assert_eq!(request.send().await.unwrap().status(), 403);
    scene.nothing_was_exchanged();
}

#[tokio::test]
async fn the_client_never_gets_what_datadog_gave() {
    let scene = Scene::new().await;
    let back = scene.back().await;
    let answer = scene.browser.arrive(&scene.stage, back.as_str()).await;
    let target = onward(answer).await;
    let code = parameter(&target, "code").unwrap();
    let (_, answer) = scene.stage.exchange(&scene.client, &code).await;
    let told = format!("{target} {answer}");
    for secret in scene.site.secrets() {
        assert!(!told.contains(&secret), "{told}");
    }
    let (access, _) = scene.site.given();
    // Nor is it taken for one of ours.
    assert_eq!(scene.stage.status("/mcp", &access).await, 401);
}
