//! Sign-ins as real clients do them, and what a client is told on its way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use llmobs_local::{DataDir, LocalBackend, LocalOptions};
use reqwest::StatusCode;
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationManager, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rstest::rstest;
use serde_json::{Value, json};

use super::stage::{
    ALICE, BOB, Browser, CALLBACK, Client, Form as _, Setup, Stage, User, by_name_of, json_of,
    location, parameter,
};

const ID: &str = "https://client.example/oauth/client.json";

/// Logs rmcp's client in: discovery, registration, consent in a browser, code, tokens.
async fn rmcp_login(
    stage: &Stage,
    path: &str,
    request: AuthorizationRequest,
    fields: &[(&str, &str)],
) -> AuthorizationManager {
    let by_form = async |url: String| {
        let mut browser = Browser::default();
        let page = browser.open(stage, &url).await;
        assert_eq!(page.status, 200, "{}", page.html);
        location(&browser.allow(stage, &page, fields).await)
    };
    rmcp_login_by(stage, path, request, by_form).await
}

/// Logs rmcp's client in with a user who takes the address to its end.
pub(super) async fn rmcp_login_by(
    stage: &Stage,
    path: &str,
    request: AuthorizationRequest,
    user: impl AsyncFnOnce(String) -> url::Url,
) -> AuthorizationManager {
    let mut oauth = OAuthState::new(stage.at(path), None).await.unwrap();
    oauth.start_authorization(request).await.unwrap();
    let url = oauth.get_authorization_url().await.unwrap();
    let callback = user(url).await;
    oauth.handle_callback_url(callback.as_str()).await.unwrap();
    oauth.into_authorization_manager().unwrap()
}

pub(super) fn request() -> AuthorizationRequest {
    AuthorizationRequest::new(CALLBACK).with_client_name("Codex")
}

/// Calls a tool with rmcp's client and gives the text of the answer.
pub(super) async fn rmcp_call(
    stage: &Stage,
    path: &str,
    auth: &AuthClient<reqwest::Client>,
    tool: &'static str,
) -> Result<String, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(stage.at(path));
    let transport = StreamableHttpClientTransport::with_client(auth.clone(), config);
    let service = ().serve(transport).await.map_err(|error| error.to_string())?;
    let answer = service
        .call_tool(CallToolRequestParams::new(tool))
        .await
        .map_err(|error| error.to_string());
    let _ = service.cancel().await;
    let answer = serde_json::to_value(answer?).unwrap();
    let text = answer.pointer("/content/0/text").unwrap();
    Ok(text.as_str().unwrap().to_owned())
}

#[rstest]
#[case("/mcp")]
#[case("/v1/mcp")]
#[case("/api/unstable/mcp-server/mcp")]
#[tokio::test]
async fn rmcp_registers_signs_in_calls_refreshes_and_is_refused_after_revocation(
    #[case] path: &str,
) {
    let stage = Stage::new().await;
    let manager = rmcp_login(&stage, path, request(), &ALICE.fields()).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&stage, path, &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-alice"));

    let first = auth.get_access_token().await.unwrap();
    let renewed = auth.auth_manager.lock().await.refresh_token().await;
    renewed.unwrap();
    let second = auth.get_access_token().await.unwrap();
    assert_ne!(first, second);
    let text = rmcp_call(&stage, path, &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-alice"));

    let revoke = stage.http.post(stage.at("/oauth/revoke"));
    let (status, _) = json_of(revoke.form(&[("token", second.as_str())])).await;
    assert_eq!(status, 200);
    let refused = rmcp_call(&stage, path, &auth, "list_llmobs_projects").await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(stage.status(path, &second).await, 401);
    assert_eq!(stage.status(path, &first).await, 401);
    let renewed = auth.auth_manager.lock().await.refresh_token().await;
    assert!(renewed.is_err(), "the grant is gone, not only the token");
}

#[tokio::test]
async fn rmcp_signs_in_with_a_metadata_document() {
    let stage = Stage::new().await;
    let document = json!({"client_id": ID, "client_name": "Codex",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none"});
    stage.library.put(ID, document);
    let request = request().with_client_metadata_url(ID);
    let manager = rmcp_login(&stage, "/mcp", request, &BOB.fields()).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&stage, "/mcp", &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-bob"));
    assert_eq!(stage.library.asked(), 1);
}

#[tokio::test]
async fn where_metadata_documents_are_off_none_is_offered_nor_asked_for() {
    let stage = Stage::start(Setup {
        documents: false,
        ..Setup::over(axum::Router::new())
    })
    .await;
    let metadata = stage.get("/.well-known/oauth-authorization-server").await;
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(metadata.get("client_id_metadata_document_supported"), None);
    let client = Client {
        id: ID.to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let page = Browser::default()
        .open(&stage, &client.authorize(&stage, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.html.contains("must register itself"), "{}", page.html);
    assert_eq!(stage.library.asked(), 0);
    let (status, answer) = stage.exchange(&client, "a-code").await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
    );
}

#[tokio::test]
async fn a_page_of_one_process_is_answered_at_another_and_its_code_exchanged_at_the_first() {
    let stage = Stage::new().await;
    let other = stage.restarted().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let form = browser.form(&other, &page, "allow", &ALICE.fields());
    let answer = form.headers(by_name_of(&stage)).send().await.unwrap();
    let code = parameter(&location(&answer), "code").unwrap();
    let (status, answer) = stage.exchange(&client, &code).await;
    assert_eq!(status, 200, "{answer}");
    // What was answered there is over here.
    let again = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert_eq!(again.status(), 403);
}

#[tokio::test]
async fn a_signed_in_client_reads_the_local_backend_over_its_api() {
    let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
    let stage = Stage::over(backend.router()).await;
    let fields = [("token", "token-a")];
    let manager = rmcp_login(&stage, "/mcp", request(), &fields).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&stage, "/mcp", &auth, "search_llmobs_spans").await;
    let answer: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(answer["spans"], json!([]));
}

#[tokio::test]
async fn two_users_at_once_see_their_own_data_only() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let alice = stage.signed_in(&client, ALICE).await;
    let bob = stage.signed_in(&client, BOB).await;
    let calls = (0..20).map(|n| {
        let (user, tokens) = if n % 2 == 0 {
            (ALICE, &alice)
        } else {
            (BOB, &bob)
        };
        let stage = &stage;
        async move { (user, stage.projects(&tokens.access).await) }
    });
    for (user, text) in futures_util::future::join_all(calls).await {
        let other = if user.name == ALICE.name { BOB } else { ALICE };
        assert!(
            text.contains(&format!("project-of-{}", user.name)),
            "{text}"
        );
        assert!(
            !text.contains(&format!("project-of-{}", other.name)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_second_sign_in_leaves_the_first_one_alone() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let first = stage.signed_in(&client, ALICE).await;
    stage.signed_in(&client, ALICE).await;
    assert_eq!(stage.status("/mcp", &first.access).await, 200);
}

#[tokio::test]
async fn sign_ins_outlive_the_process() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let again = stage.restarted().await;
    assert!(
        again
            .projects(&tokens.access)
            .await
            .contains("project-of-alice")
    );
    let (status, answer) = again.refresh(&client, &tokens.refresh).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn writing_takes_a_tick_on_the_consent_page() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tools = |token: String| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let request = stage
            .http
            .post(stage.at("/mcp"))
            .bearer_auth(token)
            .json(&body);
        async move {
            let request = request.header("accept", "application/json, text/event-stream");
            let (_, answer) = json_of(request).await;
            answer.to_string().contains("create_llmobs_experiment")
        }
    };
    let reads = stage.signed_in(&client, ALICE).await;
    assert_eq!(reads.scope, "llmobs:read");
    let call = stage.call("/mcp", "create_llmobs_experiment");
    let (_, answer) = json_of(call.bearer_auth(&reads.access)).await;
    assert_eq!(answer["result"]["isError"], true);
    assert!(answer.to_string().contains("sign in to this server again"));
    assert_eq!(stage.datadog.asked(), 1, "only the credential was tried");
    assert!(!tools(reads.access).await);

    let mut browser = Browser::default();
    // Asking for it is not enough, and ticking it is without asking.
    let page = browser
        .open(
            &stage,
            &client.authorize(&stage, &[("scope", "llmobs:read")]),
        )
        .await;
    let mut fields = ALICE.fields().to_vec();
    fields.push(("write", "yes"));
    let answer = browser.allow(&stage, &page, &fields).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    assert_eq!(answer["scope"], "llmobs:read llmobs:write");
    assert!(tools(answer["access_token"].as_str().unwrap().to_owned()).await);

    let both = ("scope", "llmobs:read llmobs:write");
    let page = browser
        .open(&stage, &client.authorize(&stage, &[both]))
        .await;
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    assert_eq!(answer["scope"], "llmobs:read");
}

#[tokio::test]
async fn a_user_who_denies_sends_an_error_and_grants_nothing() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let answer = browser
        .form(&stage, &page, "deny", &[])
        .send()
        .await
        .unwrap();
    let target = location(&answer);
    assert!(target.as_str().starts_with(CALLBACK));
    assert_eq!(
        parameter(&target, "error").as_deref(),
        Some("access_denied")
    );
    assert_eq!(parameter(&target, "state").as_deref(), Some("a-state"));
    assert_eq!(parameter(&target, "iss"), Some(stage.base.clone()));
    assert_eq!(parameter(&target, "code"), None);
    assert_eq!(stage.datadog.asked(), 0);
}

#[rstest]
#[case::wrong_key(&[("api_key", "key-of-alice"), ("application_key", "app-key-of-bob")], "did not accept")]
#[case::unknown_token(&[("token", "unknown-token")], "did not accept")]
#[case::half_a_pair(&[("api_key", "key-of-alice")], "Enter the application key too")]
#[case::other_half(&[("application_key", "app-key-of-alice")], "Enter the API key too")]
#[case::nothing(&[], "Enter an access token")]
#[case::both(&[("token", "x"), ("api_key", "y")], "not both")]
#[case::no_key(&[("token", "a b")], "holds characters")]
#[tokio::test]
async fn a_credential_that_datadog_does_not_take_is_said_on_the_page(
    #[case] fields: &[(&str, &str)],
    #[case] words: &str,
) {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    let answer = browser.allow(&stage, &page, fields).await;
    assert_eq!(answer.status(), 422);
    assert!(answer.headers().get("location").is_none());
    let html = answer.text().await.unwrap();
    assert!(html.contains(words), "{html}");
    for (_, value) in fields.iter().filter(|(_, value)| value.len() > 3) {
        assert!(!html.contains(value), "the page repeats a secret");
    }
    // The same page takes the right one.
    let page = super::stage::Page { html, ..page };
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case("/mcp")]
#[case("/v1/mcp")]
#[case("/api/unstable/mcp-server/mcp")]
#[tokio::test]
async fn a_caller_without_a_token_is_told_where_to_sign_in(#[case] path: &str) {
    let stage = Stage::new().await;
    // Clients probe with GET as well.
    for request in [
        stage.call(path, "list_llmobs_projects"),
        stage.http.get(stage.at(path)),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        let expected = format!(
            "Bearer realm=\"llmobs-mcp\", resource_metadata=\"{}/.well-known/oauth-protected-resource{path}\", scope=\"llmobs:read\"",
            stage.base
        );
        assert_eq!(challenge, expected);
    }
    let document = stage
        .get(&format!("/.well-known/oauth-protected-resource{path}"))
        .await;
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["resource"], stage.at(path));
    assert_eq!(document["authorization_servers"], json!([stage.base]));
    assert_eq!(document["scopes_supported"], json!(["llmobs:read"]));
}

#[tokio::test]
async fn what_the_server_says_of_itself() {
    let stage = Stage::new().await;
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        let document: Value = stage.get(path).await.json().await.unwrap();
        let shown = document.to_string().replace(&stage.base, "BASE");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        insta::assert_json_snapshot!("authorization_server", shown);
    }
    let root: Value = stage
        .get("/.well-known/oauth-protected-resource")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(root["resource"], stage.at("/mcp"));
    // Below a path the issuer would be another one.
    for path in [
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration/mcp",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/other",
    ] {
        let answer = stage.get(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json::<Value>().await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn the_consent_page_names_who_asks_for_what() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&stage, &client.authorize(&stage, &[])).await;
    for words in ["A client", "it is not verified", "127.0.0.1:45454", "/mcp"] {
        assert!(page.html.contains(words), "{words}: {}", page.html);
    }
    let header = |name: &str| page.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("x-frame-options"), "DENY");
    assert_eq!(header("referrer-policy"), "same-origin");
    let policy = header("content-security-policy");
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(
        policy.contains("form-action 'self' http://127.0.0.1:45454"),
        "{policy}"
    );
    assert!(
        !policy.contains("script") && !policy.contains("unsafe"),
        "{policy}"
    );
    let cookie = header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
}

#[tokio::test]
async fn a_client_that_names_no_audience_gets_the_first_one() {
    let stage = Stage::new().await;
    let client = stage.client("An older client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser
        .open(&stage, &client.authorize(&stage, &[("resource", "")]))
        .await;
    let answer = browser.allow(&stage, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = stage.exchange(&client, &code).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(stage.status("/mcp", token).await, 200);
    assert_eq!(stage.status("/v1/mcp", token).await, 401);
}

#[tokio::test]
async fn an_access_token_ends_and_a_refresh_goes_on() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    stage.clock.pass(Duration::from_secs(3_600));
    assert_eq!(stage.status("/mcp", &tokens.access).await, 401);
    let (_, answer) = stage.refresh(&client, &tokens.refresh).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(stage.status("/mcp", token).await, 200);
}

#[tokio::test]
async fn a_client_that_is_no_longer_registered_is_told_to_register_anew() {
    let stage = Stage::new().await;
    let gone = Client {
        id: "llmobs-gone".to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let (status, answer) = stage.exchange(&gone, "x").await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
    );
    let page = Browser::default()
        .open(&stage, &gone.authorize(&stage, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.html.contains("not registered"), "{}", page.html);
}

#[tokio::test]
async fn a_credential_that_was_revoked_at_datadog_is_told_with_its_mend() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    stage.datadog.revoked.store(true, Ordering::SeqCst);
    let text = stage.projects(&tokens.access).await;
    assert!(
        text.contains("401") && text.contains("sign in to this server again"),
        "{text}"
    );
    // Only Datadog can say whether it stays so.
    stage.datadog.revoked.store(false, Ordering::SeqCst);
    assert!(
        stage
            .projects(&tokens.access)
            .await
            .contains("project-of-alice")
    );
}

#[tokio::test]
async fn a_user_of_one_server_is_named_without_a_secret() {
    let stage = Stage::new().await;
    let client = stage.client("A client", CALLBACK).await;
    let tokens = stage.signed_in(&client, ALICE).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read",
                      "params": {"uri": llmobs_mcp::server::WHOAMI_URI}});
    let request = stage
        .http
        .post(stage.at("/mcp"))
        .header("accept", "application/json, text/event-stream")
        .bearer_auth(&tokens.access)
        .json(&body);
    let (status, answer) = json_of(request).await;
    assert_eq!(status, 200, "{answer}");
    let text = answer.to_string();
    assert!(text.contains("API key and application key"), "{text}");
    let User {
        api_key, app_key, ..
    } = ALICE;
    for secret in [api_key, app_key, &tokens.access, &tokens.refresh] {
        assert!(!text.contains(secret));
    }
}
