//! The sign-in as programs and attackers meet it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Answer, Local};

const REDIRECT: &str = "http://127.0.0.1:8000/oauth/callback";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more-0";
const HOST: (&str, &str) = ("host", "127.0.0.1:8126");

fn challenge(verifier: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// The pairs with some of them replaced; an empty value removes one.
fn changed(pairs: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let mut values: Vec<(&str, &str)> = pairs.to_vec();
    for (name, value) in changes {
        values.retain(|(other, _)| other != name);
        if !value.is_empty() {
            values.push((name, value));
        }
    }
    encoded(&values)
}

impl Local {
    async fn register(&self) -> String {
        let answer = self
            .post(
                "/api/v2/oauth2/register",
                &json!({"client_name": "llmobs-mcp", "redirect_uris": [REDIRECT]}),
            )
            .await;
        assert_eq!(answer.status, StatusCode::CREATED);
        answer.json()["client_id"].as_str().unwrap().to_owned()
    }

    async fn page(&self, client: &str, changes: &[(&str, &str)]) -> Answer {
        let challenge = challenge(VERIFIER);
        let query = changed(
            &[
                ("response_type", "code"),
                ("client_id", client),
                ("redirect_uri", REDIRECT),
                ("state", "s/t&a=te"),
                ("scope", "llm_observability_read"),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ],
            changes,
        );
        self.get(&format!("/oauth2/v1/authorize?{query}")).await
    }

    async fn form(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("content-type", "application/x-www-form-urlencoded"), HOST];
        all.extend_from_slice(headers);
        self.raw(http::Method::POST, path, &all, body.as_bytes().to_vec())
            .await
    }

    async fn decide(&self, page: &Answer, decision: &str) -> Answer {
        let body = encoded(&[("consent", &hidden(page)), ("decision", decision)]);
        let headers = [
            ("cookie", &*cookie(page)),
            ("origin", "http://127.0.0.1:8126"),
        ];
        self.form("/oauth2/v1/authorize", &headers, &body).await
    }

    async fn code(&self, client: &str) -> String {
        let page = self.page(client, &[]).await;
        location(&self.decide(&page, "allow").await)["code"].clone()
    }

    async fn exchange(&self, client: &str, code: &str, changes: &[(&str, &str)]) -> Answer {
        let body = changed(
            &[
                ("grant_type", "authorization_code"),
                ("client_id", client),
                ("code", code),
                ("redirect_uri", REDIRECT),
                ("code_verifier", VERIFIER),
            ],
            changes,
        );
        self.form("/oauth2/v1/token", &[], &body).await
    }

    async fn refresh(&self, client: &str, token: &Value) -> Answer {
        let body = encoded(&[
            ("grant_type", "refresh_token"),
            ("client_id", client),
            ("refresh_token", token.as_str().unwrap()),
        ]);
        self.form("/oauth2/v1/token", &[], &body).await
    }

    async fn revoke(&self, client: &str, token: &Value) -> StatusCode {
        let body = encoded(&[("client_id", client), ("token", token.as_str().unwrap())]);
        self.form("/oauth2/v1/revoke", &[], &body).await.status
    }

    async fn api_with(&self, token: &str) -> StatusCode {
        let bearer = format!("Bearer {token}");
        self.raw(
            http::Method::GET,
            "/api/v2/llm-obs/v1/spans/events",
            &[("authorization", &bearer)],
            Vec::new(),
        )
        .await
        .status
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn hidden(page: &Answer) -> String {
    let html = text(page);
    let rest = html.split_once("name=\"consent\" value=\"").unwrap().1;
    rest.split('"').next().unwrap().to_owned()
}

fn cookie(page: &Answer) -> String {
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// Where the browser is sent, as the values of its query.
fn location(answer: &Answer) -> HashMap<String, String> {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", text(answer));
    let url: url::Url = answer.headers["location"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(url.as_str().starts_with(REDIRECT), "{url}");
    url.query_pairs().into_owned().collect()
}

fn oauth_error(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", text(answer));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.json();
    let code = body["error"].as_str().unwrap().to_owned();
    let datadogs = body["errors"][0].as_str().unwrap();
    assert!(datadogs.starts_with(&format!("{code} - ")), "{datadogs}");
    code
}

#[tokio::test]
async fn consent_gives_a_code_the_code_gives_tokens_and_tokens_renew_and_end() {
    let local = Local::new();
    let client = local.register().await;
    let page = local.page(&client, &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(text(&page).contains("llm_observability_read"));
    let set = page.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"));
    let values = location(&local.decide(&page, "allow").await);
    assert_eq!(values["state"], "s/t&a=te");
    assert_eq!(values["domain"], "127.0.0.1:8126");
    assert_eq!(values["site"], "http://127.0.0.1:8126");
    assert!(uuid::Uuid::parse_str(&values["dd_oid"]).is_ok());

    let answer = local.exchange(&client, &values["code"], &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", text(&answer));
    let first = answer.json();
    assert_eq!(first["token_type"], "Bearer");
    assert_eq!(first["expires_in"], 3600);
    assert_eq!(first["scope"], "llm_observability_read");
    let access = |tokens: &Value| tokens["access_token"].as_str().unwrap().to_owned();
    assert_eq!(local.api_with(&access(&first)).await, StatusCode::OK);

    let second = local.refresh(&client, &first["refresh_token"]).await.json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(local.api_with(&access(&second)).await, StatusCode::OK);
    let status = local.revoke(&client, &second["refresh_token"]).await;
    assert_eq!(status, StatusCode::OK);
    for tokens in [&first, &second] {
        let status = local.api_with(&access(tokens)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let renewed = local.refresh(&client, &second["refresh_token"]).await;
    assert_eq!(oauth_error(&renewed), "invalid_grant");
}

#[tokio::test]
async fn the_api_asks_nobody_for_a_token_and_minds_only_its_own() {
    let local = Local::new();
    for token in ["anything", "ddpat_x", ""] {
        assert_eq!(local.api_with(token).await, StatusCode::OK, "{token}");
    }
    let made_up = local.api_with("llmobs_local_access_guess").await;
    assert_eq!(made_up, StatusCode::UNAUTHORIZED);
}

#[rstest]
#[case::not_json(json!("x"), "invalid_request")]
#[case::no_name(json!({"redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::control_characters(json!({"client_name": "a\u{1b}b", "redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::long_name(json!({"client_name": "x".repeat(300), "redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::no_redirect(json!({"client_name": "x", "redirect_uris": []}), "invalid_client_metadata")]
#[case::many_redirects(json!({"client_name": "x", "redirect_uris": vec![REDIRECT; 1_000]}), "invalid_client_metadata")]
#[case::elsewhere(json!({"client_name": "x", "redirect_uris": ["https://evil.example/cb"]}), "invalid_client_metadata")]
#[case::lookalike(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1.evil.example/cb"]}), "invalid_client_metadata")]
#[case::user(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1@evil.example/cb"]}), "invalid_client_metadata")]
#[case::script(json!({"client_name": "x", "redirect_uris": ["javascript:alert(1)"]}), "invalid_client_metadata")]
#[case::fragment(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1:1/cb#x"]}), "invalid_client_metadata")]
#[case::secret_client(json!({"client_name": "x", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic"}), "invalid_client_metadata")]
#[case::implicit(json!({"client_name": "x", "redirect_uris": [REDIRECT], "response_types": ["token"]}), "invalid_client_metadata")]
#[tokio::test]
async fn hostile_registrations(#[case] body: Value, #[case] code: &str) {
    let local = Local::new();
    let answer = local.post("/api/v2/oauth2/register", &body).await;
    assert_eq!(oauth_error(&answer), code);
}

#[tokio::test]
async fn a_registration_cannot_be_huge_and_its_name_is_shown_as_text() {
    let local = Local::new();
    let huge = json!({"client_name": "x", "padding": "x".repeat(100_000)});
    let answer = local.post("/api/v2/oauth2/register", &huge).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let name = "<script>alert(1)</script>\"'&";
    let body = json!({"client_name": name, "redirect_uris": [REDIRECT]});
    let answer = local.post("/api/v2/oauth2/register", &body).await.json();
    let page = local.page(answer["client_id"].as_str().unwrap(), &[]).await;
    let html = text(&page);
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
}

#[rstest]
#[case::unknown_program(&[("client_id", "nobody")])]
#[case::no_program(&[("client_id", "")])]
#[case::other_host(&[("redirect_uri", "http://evil.example/oauth/callback")])]
#[case::other_port(&[("redirect_uri", "http://127.0.0.1:8001/oauth/callback")])]
#[case::other_path(&[("redirect_uri", "http://127.0.0.1:8000/oauth/callback/../x")])]
#[case::other_scheme(&[("redirect_uri", "https://127.0.0.1:8000/oauth/callback")])]
#[case::longer(&[("redirect_uri", "http://127.0.0.1:8000/oauth/callback?x=1")])]
#[case::no_redirect(&[("redirect_uri", "")])]
#[tokio::test]
async fn nobody_is_redirected_to_where_a_program_did_not_register(
    #[case] changes: &[(&str, &str)],
) {
    let local = Local::new();
    let client = local.register().await;
    let answer = local.page(&client, changes).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.headers.contains_key("location"));
    assert!(!answer.headers.contains_key("set-cookie"));
}

#[rstest]
#[case::no_pkce(&[("code_challenge", ""), ("code_challenge_method", "")], "invalid_request")]
#[case::plain(&[("code_challenge_method", "plain")], "invalid_request")]
#[case::no_method_means_plain(&[("code_challenge_method", "")], "invalid_request")]
#[case::short_challenge(&[("code_challenge", "short")], "invalid_request")]
#[case::implicit(&[("response_type", "token")], "unsupported_response_type")]
#[case::no_state(&[("state", "")], "invalid_request")]
#[case::unknown_scope(&[("scope", "llm_observability_read admin")], "invalid_scope")]
#[tokio::test]
async fn a_program_hears_what_was_wrong_with_its_question(
    #[case] changes: &[(&str, &str)],
    #[case] code: &str,
) {
    let local = Local::new();
    let client = local.register().await;
    let values = location(&local.page(&client, changes).await);
    assert_eq!(values["error"], code);
    assert!(!values.contains_key("code"));
}

#[tokio::test]
async fn consent_is_bound_to_its_browser_and_answered_once() {
    let local = Local::new();
    let client = local.register().await;
    let refused = |answer: &Answer| {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!answer.headers.contains_key("location"));
    };
    // Another browser's cookie: a page that an attacker opened and had somebody else answer.
    let (mine, theirs) = (
        local.page(&client, &[]).await,
        local.page(&client, &[]).await,
    );
    let body = encoded(&[("consent", &hidden(&theirs)), ("decision", "allow")]);
    let my_cookie = cookie(&mine);
    let crossed = local
        .form("/oauth2/v1/authorize", &[("cookie", &my_cookie)], &body)
        .await;
    refused(&crossed);
    // And that answer spent it.
    refused(&local.decide(&theirs, "allow").await);
    // No cookie at all, and a form from another origin.
    let page = local.page(&client, &[]).await;
    let body = encoded(&[("consent", &hidden(&page)), ("decision", "allow")]);
    refused(&local.form("/oauth2/v1/authorize", &[], &body).await);
    let page = local.page(&client, &[]).await;
    let body = encoded(&[("consent", &hidden(&page)), ("decision", "allow")]);
    let its_cookie = cookie(&page);
    let headers = [
        ("cookie", its_cookie.as_str()),
        ("origin", "http://127.0.0.1:9999"),
    ];
    refused(&local.form("/oauth2/v1/authorize", &headers, &body).await);
    // Answered once.
    assert!(location(&local.decide(&mine, "allow").await).contains_key("code"));
    refused(&local.decide(&mine, "allow").await);
}

#[rstest]
#[case("deny")]
#[case("")]
#[case("Allow")]
#[tokio::test]
async fn everything_but_allow_is_no(#[case] decision: &str) {
    let local = Local::new();
    let client = local.register().await;
    let page = local.page(&client, &[]).await;
    let values = location(&local.decide(&page, decision).await);
    assert_eq!(values["error"], "access_denied");
    assert_eq!(values["state"], "s/t&a=te");
    assert!(!values.contains_key("code"));
}

#[rstest]
#[case::no_verifier(&[("code_verifier", "")], "invalid_request")]
#[case::wrong_verifier(&[("code_verifier", "another-verifier-of-forty-three-characters-or-more")], "invalid_grant")]
#[case::short_verifier(&[("code_verifier", "short")], "invalid_grant")]
#[case::other_redirect(&[("redirect_uri", "http://127.0.0.1:8001/oauth/callback")], "invalid_grant")]
#[case::no_redirect(&[("redirect_uri", "")], "invalid_request")]
#[case::unknown_client(&[("client_id", "nobody")], "invalid_request")]
#[case::wrong_code(&[("code", "guess")], "invalid_grant")]
#[case::other_grant(&[("grant_type", "password")], "unsupported_grant_type")]
#[case::no_grant(&[("grant_type", "")], "invalid_request")]
#[tokio::test]
async fn a_code_is_exchanged_only_as_it_was_asked_for(
    #[case] changes: &[(&str, &str)],
    #[case] code: &str,
) {
    let local = Local::new();
    let client = local.register().await;
    let given = local.code(&client).await;
    let answer = local.exchange(&client, &given, changes).await;
    assert_eq!(oauth_error(&answer), code);
}

#[tokio::test]
async fn a_guess_at_the_verifier_spends_the_code() {
    let local = Local::new();
    let client = local.register().await;
    let code = local.code(&client).await;
    let guess = [(
        "code_verifier",
        "another-verifier-of-forty-three-characters-or-more",
    )];
    local.exchange(&client, &code, &guess).await;
    let answer = local.exchange(&client, &code, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
}

#[tokio::test]
async fn another_programs_code_is_worthless() {
    let local = Local::new();
    let (mine, theirs) = (local.register().await, local.register().await);
    let code = local.code(&mine).await;
    let answer = local.exchange(&theirs, &code, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    let code = local.code(&mine).await;
    let tokens = local.exchange(&mine, &code, &[]).await.json();
    let answer = local.refresh(&theirs, &tokens["refresh_token"]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    // Nor can it revoke, and it does not learn that.
    assert_eq!(
        local.revoke(&theirs, &tokens["refresh_token"]).await,
        StatusCode::OK
    );
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(local.api_with(access).await, StatusCode::OK);
}

#[tokio::test]
async fn a_code_or_refresh_token_that_comes_twice_ends_everything_that_came_of_it() {
    let local = Local::new();
    let client = local.register().await;
    let code = local.code(&client).await;
    let tokens = local.exchange(&client, &code, &[]).await.json();
    let again = local.exchange(&client, &code, &[]).await;
    assert_eq!(oauth_error(&again), "invalid_grant");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(local.api_with(access).await, StatusCode::UNAUTHORIZED);

    let code = local.code(&client).await;
    let first = local.exchange(&client, &code, &[]).await.json();
    let second = local.refresh(&client, &first["refresh_token"]).await.json();
    let stolen = local.refresh(&client, &first["refresh_token"]).await;
    assert_eq!(oauth_error(&stolen), "invalid_grant");
    let access = second["access_token"].as_str().unwrap();
    assert_eq!(local.api_with(access).await, StatusCode::UNAUTHORIZED);
    let renewed = local.refresh(&client, &second["refresh_token"]).await;
    assert_eq!(oauth_error(&renewed), "invalid_grant");
}

#[tokio::test]
async fn a_parameter_that_comes_twice_is_refused() {
    let local = Local::new();
    let client = local.register().await;
    let code = local.code(&client).await;
    let body = format!("client_id={client}&client_id=x&grant_type=authorization_code&code={code}");
    let answer = local.form("/oauth2/v1/token", &[], &body).await;
    assert_eq!(oauth_error(&answer), "invalid_request");
    let twice = local
        .get(&format!(
            "/oauth2/v1/authorize?client_id={client}&client_id=x"
        ))
        .await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn codes_live_a_minute_and_access_tokens_an_hour() {
    let local = Local::new();
    let client = local.register().await;
    let (late, soon) = (local.code(&client).await, local.code(&client).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(59)).await;
    let tokens = local.exchange(&client, &soon, &[]).await.json();
    tokio::time::advance(Duration::from_secs(2)).await;
    let answer = local.exchange(&client, &late, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(local.api_with(access).await, StatusCode::UNAUTHORIZED);
    let renewed = local.refresh(&client, &tokens["refresh_token"]).await;
    assert_eq!(renewed.status, StatusCode::OK);
}
