//! The sign-in as clients and attackers use it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Harness, Response};
use crate::DoubleOptions;

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

/// Encodes the pairs with some of them replaced; an empty value removes one.
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

impl Harness {
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

    async fn page(&self, client: &str, changes: &[(&str, &str)]) -> Response {
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

    async fn form(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut all = vec![("content-type", "application/x-www-form-urlencoded"), HOST];
        all.extend_from_slice(headers);
        self.send(http::Method::POST, path, &all, body.as_bytes().to_vec())
            .await
    }

    async fn decide(&self, page: &Response, decision: &str) -> Response {
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

    async fn exchange(&self, client: &str, code: &str, changes: &[(&str, &str)]) -> Response {
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

    async fn refresh(&self, client: &str, token: &Value) -> Response {
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
        self.send(
            http::Method::GET,
            "/api/v2/llm-obs/v1/spans/events",
            &[("authorization", &bearer)],
            Vec::new(),
        )
        .await
        .status
    }
}

fn with_sign_in() -> Harness {
    Harness::new(DoubleOptions {
        sign_in: true,
        ..DoubleOptions::default()
    })
}

fn hidden(page: &Response) -> String {
    let html = page.text();
    let rest = html.split_once("name=\"consent\" value=\"").unwrap().1;
    rest.split('"').next().unwrap().to_owned()
}

fn cookie(page: &Response) -> String {
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// The query of the redirect to the client.
fn location(answer: &Response) -> HashMap<String, String> {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let url: url::Url = answer.headers["location"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(url.as_str().starts_with(REDIRECT), "{url}");
    url.query_pairs().into_owned().collect()
}

fn oauth_error(answer: &Response) -> String {
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.json();
    let code = body["error"].as_str().unwrap().to_owned();
    let listed = body["errors"][0].as_str().unwrap();
    assert!(listed.starts_with(&format!("{code} - ")), "{listed}");
    code
}

#[tokio::test]
async fn consent_leads_to_a_code_tokens_renewal_and_revocation() {
    let double = with_sign_in();
    let client = double.register().await;
    let page = double.page(&client, &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(page.text().contains("llm_observability_read"));
    let set = page.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"));
    let values = location(&double.decide(&page, "allow").await);
    assert_eq!(values["state"], "s/t&a=te");
    assert_eq!(values["domain"], "127.0.0.1:8126");
    assert_eq!(values["site"], "http://127.0.0.1:8126");
    assert!(uuid::Uuid::parse_str(&values["dd_oid"]).is_ok());

    let answer = double.exchange(&client, &values["code"], &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let first = answer.json();
    assert_eq!(first["token_type"], "Bearer");
    assert_eq!(first["expires_in"], 3600);
    assert_eq!(first["scope"], "llm_observability_read");
    let access = |tokens: &Value| tokens["access_token"].as_str().unwrap().to_owned();
    assert_eq!(double.api_with(&access(&first)).await, StatusCode::OK);

    let second = double
        .refresh(&client, &first["refresh_token"])
        .await
        .json();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(double.api_with(&access(&second)).await, StatusCode::OK);
    let status = double.revoke(&client, &second["refresh_token"]).await;
    assert_eq!(status, StatusCode::OK);
    for tokens in [&first, &second] {
        let status = double.api_with(&access(tokens)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let renewed = double.refresh(&client, &second["refresh_token"]).await;
    assert_eq!(oauth_error(&renewed), "invalid_grant");
}

#[tokio::test]
async fn the_api_checks_only_tokens_of_this_sign_in() {
    let double = with_sign_in();
    for token in ["anything", "ddpat_x", ""] {
        assert_eq!(double.api_with(token).await, StatusCode::OK, "{token}");
    }
    let invented = double.api_with("llmobs_double_access_guess").await;
    assert_eq!(invented, StatusCode::UNAUTHORIZED);
}

#[rstest]
#[case::not_json(json!("x"), "invalid_request")]
#[case::no_name(json!({"redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::control_characters(json!({"client_name": "a\u{1b}b", "redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::long_name(json!({"client_name": "x".repeat(300), "redirect_uris": [REDIRECT]}), "invalid_client_metadata")]
#[case::no_redirect(json!({"client_name": "x", "redirect_uris": []}), "invalid_client_metadata")]
#[case::many_redirects(json!({"client_name": "x", "redirect_uris": vec![REDIRECT; 100]}), "invalid_client_metadata")]
#[case::elsewhere(json!({"client_name": "x", "redirect_uris": ["https://evil.example/cb"]}), "invalid_client_metadata")]
#[case::lookalike(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1.evil.example/cb"]}), "invalid_client_metadata")]
#[case::user(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1@evil.example/cb"]}), "invalid_client_metadata")]
#[case::script(json!({"client_name": "x", "redirect_uris": ["javascript:alert(1)"]}), "invalid_client_metadata")]
#[case::fragment(json!({"client_name": "x", "redirect_uris": ["http://127.0.0.1:1/cb#x"]}), "invalid_client_metadata")]
#[case::secret_client(json!({"client_name": "x", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic"}), "invalid_client_metadata")]
#[case::implicit(json!({"client_name": "x", "redirect_uris": [REDIRECT], "response_types": ["token"]}), "invalid_client_metadata")]
#[tokio::test]
async fn invalid_registrations_are_refused(#[case] body: Value, #[case] code: &str) {
    let double = with_sign_in();
    let answer = double.post("/api/v2/oauth2/register", &body).await;
    assert_eq!(oauth_error(&answer), code);
}

#[tokio::test]
async fn registrations_are_bounded_and_names_are_escaped() {
    let double = with_sign_in();
    let huge = json!({"client_name": "x", "padding": "x".repeat(100_000)});
    let answer = double.post("/api/v2/oauth2/register", &huge).await;
    assert_eq!(oauth_error(&answer), "invalid_request");
    let name = "<script>alert(1)</script>\"'&";
    let body = json!({"client_name": name, "redirect_uris": [REDIRECT]});
    let answer = double.post("/api/v2/oauth2/register", &body).await.json();
    let page = double
        .page(answer["client_id"].as_str().unwrap(), &[])
        .await;
    let html = page.text();
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;"));
}

#[rstest]
#[case::unknown_program(&[("client_id", "unknown")])]
#[case::no_program(&[("client_id", "")])]
#[case::other_host(&[("redirect_uri", "http://evil.example/oauth/callback")])]
#[case::other_port(&[("redirect_uri", "http://127.0.0.1:8001/oauth/callback")])]
#[case::other_path(&[("redirect_uri", "http://127.0.0.1:8000/oauth/callback/../x")])]
#[case::other_scheme(&[("redirect_uri", "https://127.0.0.1:8000/oauth/callback")])]
#[case::longer(&[("redirect_uri", "http://127.0.0.1:8000/oauth/callback?x=1")])]
#[case::no_redirect(&[("redirect_uri", "")])]
#[tokio::test]
async fn unregistered_clients_and_redirect_uris_get_no_redirect(#[case] changes: &[(&str, &str)]) {
    let double = with_sign_in();
    let client = double.register().await;
    let answer = double.page(&client, changes).await;
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
async fn invalid_requests_are_reported_to_the_client(
    #[case] changes: &[(&str, &str)],
    #[case] code: &str,
) {
    let double = with_sign_in();
    let client = double.register().await;
    let values = location(&double.page(&client, changes).await);
    assert_eq!(values["error"], code);
    assert!(!values.contains_key("code"));
}

#[tokio::test]
async fn consent_belongs_to_one_browser_and_is_submitted_once() {
    let double = with_sign_in();
    let client = double.register().await;
    let refused = |answer: &Response| {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(!answer.headers.contains_key("location"));
    };
    // The cookie of another browser: a page that an attacker opened for a victim to submit.
    let (mine, theirs) = (
        double.page(&client, &[]).await,
        double.page(&client, &[]).await,
    );
    let body = encoded(&[("consent", &hidden(&theirs)), ("decision", "allow")]);
    let my_cookie = cookie(&mine);
    let crossed = double
        .form("/oauth2/v1/authorize", &[("cookie", &my_cookie)], &body)
        .await;
    refused(&crossed);
    // The attempt used up the page.
    refused(&double.decide(&theirs, "allow").await);
    // No cookie at all, and a form from another origin.
    let page = double.page(&client, &[]).await;
    let body = encoded(&[("consent", &hidden(&page)), ("decision", "allow")]);
    refused(&double.form("/oauth2/v1/authorize", &[], &body).await);
    let page = double.page(&client, &[]).await;
    let body = encoded(&[("consent", &hidden(&page)), ("decision", "allow")]);
    let its_cookie = cookie(&page);
    let headers = [
        ("cookie", its_cookie.as_str()),
        ("origin", "http://127.0.0.1:9999"),
    ];
    refused(&double.form("/oauth2/v1/authorize", &headers, &body).await);
    // A page is submitted once.
    assert!(location(&double.decide(&mine, "allow").await).contains_key("code"));
    refused(&double.decide(&mine, "allow").await);
}

#[rstest]
#[case("deny")]
#[case("")]
#[case("Allow")]
#[tokio::test]
async fn only_allow_grants_access(#[case] decision: &str) {
    let double = with_sign_in();
    let client = double.register().await;
    let page = double.page(&client, &[]).await;
    let values = location(&double.decide(&page, decision).await);
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
#[case::unknown_client(&[("client_id", "unknown")], "invalid_request")]
#[case::wrong_code(&[("code", "guess")], "invalid_grant")]
#[case::other_grant(&[("grant_type", "password")], "unsupported_grant_type")]
#[case::no_grant(&[("grant_type", "")], "invalid_request")]
#[tokio::test]
async fn a_code_is_exchanged_only_with_the_values_of_its_request(
    #[case] changes: &[(&str, &str)],
    #[case] code: &str,
) {
    let double = with_sign_in();
    let client = double.register().await;
    let code_value = double.code(&client).await;
    let answer = double.exchange(&client, &code_value, changes).await;
    assert_eq!(oauth_error(&answer), code);
}

#[tokio::test]
async fn a_wrong_verifier_invalidates_the_code() {
    let double = with_sign_in();
    let client = double.register().await;
    let code = double.code(&client).await;
    let guess = [(
        "code_verifier",
        "another-verifier-of-forty-three-characters-or-more",
    )];
    double.exchange(&client, &code, &guess).await;
    let answer = double.exchange(&client, &code, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
}

#[tokio::test]
async fn codes_and_tokens_work_only_for_their_client() {
    let double = with_sign_in();
    let (mine, theirs) = (double.register().await, double.register().await);
    let code = double.code(&mine).await;
    let answer = double.exchange(&theirs, &code, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    let code = double.code(&mine).await;
    let tokens = double.exchange(&mine, &code, &[]).await.json();
    let answer = double.refresh(&theirs, &tokens["refresh_token"]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    // It cannot revoke them either, and the response does not reveal that.
    assert_eq!(
        double.revoke(&theirs, &tokens["refresh_token"]).await,
        StatusCode::OK
    );
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(double.api_with(access).await, StatusCode::OK);
}

#[tokio::test]
async fn reuse_of_a_code_or_refresh_token_ends_the_grant() {
    let double = with_sign_in();
    let client = double.register().await;
    let code = double.code(&client).await;
    let tokens = double.exchange(&client, &code, &[]).await.json();
    let again = double.exchange(&client, &code, &[]).await;
    assert_eq!(oauth_error(&again), "invalid_grant");
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(double.api_with(access).await, StatusCode::UNAUTHORIZED);

    let code = double.code(&client).await;
    let first = double.exchange(&client, &code, &[]).await.json();
    let second = double
        .refresh(&client, &first["refresh_token"])
        .await
        .json();
    let stolen = double.refresh(&client, &first["refresh_token"]).await;
    assert_eq!(oauth_error(&stolen), "invalid_grant");
    let access = second["access_token"].as_str().unwrap();
    assert_eq!(double.api_with(access).await, StatusCode::UNAUTHORIZED);
    let renewed = double.refresh(&client, &second["refresh_token"]).await;
    assert_eq!(oauth_error(&renewed), "invalid_grant");
}

#[tokio::test]
async fn repeated_parameters_are_refused() {
    let double = with_sign_in();
    let client = double.register().await;
    let code = double.code(&client).await;
    let body = format!("client_id={client}&client_id=x&grant_type=authorization_code&code={code}");
    let answer = double.form("/oauth2/v1/token", &[], &body).await;
    assert_eq!(oauth_error(&answer), "invalid_request");
    let twice = double
        .get(&format!(
            "/oauth2/v1/authorize?client_id={client}&client_id=x"
        ))
        .await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn codes_are_valid_for_a_minute_and_access_tokens_for_an_hour() {
    let double = with_sign_in();
    let client = double.register().await;
    let (late, soon) = (double.code(&client).await, double.code(&client).await);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(59)).await;
    let tokens = double.exchange(&client, &soon, &[]).await.json();
    tokio::time::advance(Duration::from_secs(2)).await;
    let answer = double.exchange(&client, &late, &[]).await;
    assert_eq!(oauth_error(&answer), "invalid_grant");
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(double.api_with(access).await, StatusCode::UNAUTHORIZED);
    let renewed = double.refresh(&client, &tokens["refresh_token"]).await;
    assert_eq!(renewed.status, StatusCode::OK);
}
