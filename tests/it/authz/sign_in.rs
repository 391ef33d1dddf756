//! Sign-ins by real clients, and the responses that they receive.

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

use super::test_server::{
    ALICE, BOB, Browser, CALLBACK, Client, Form as _, ServerSetup, TestServer, User, location,
    origin_header, parameter, send_for_json,
};

const ID: &str = "https://client.example/oauth/client.json";

/// Logs rmcp's client in: discovery, registration, consent in a browser, code, tokens.
async fn rmcp_login(
    server: &TestServer,
    path: &str,
    request: AuthorizationRequest,
    fields: &[(&str, &str)],
) -> AuthorizationManager {
    let by_form = async |url: String| {
        let mut browser = Browser::default();
        let page = browser.open(server, &url).await;
        assert_eq!(page.status, 200, "{}", page.html);
        location(&browser.allow(server, &page, fields).await)
    };
    rmcp_login_with(server, path, request, by_form).await
}

/// Logs rmcp's client in; `user` opens the authorization URL and returns the final redirect.
pub(super) async fn rmcp_login_with(
    server: &TestServer,
    path: &str,
    request: AuthorizationRequest,
    user: impl AsyncFnOnce(String) -> url::Url,
) -> AuthorizationManager {
    let mut oauth = OAuthState::new(server.at(path), None).await.unwrap();
    oauth.start_authorization(request).await.unwrap();
    let url = oauth.get_authorization_url().await.unwrap();
    let callback = user(url).await;
    oauth.handle_callback_url(callback.as_str()).await.unwrap();
    oauth.into_authorization_manager().unwrap()
}

pub(super) fn request() -> AuthorizationRequest {
    AuthorizationRequest::new(CALLBACK).with_client_name("Codex")
}

/// Calls a tool with rmcp's client and returns the text of the answer.
pub(super) async fn rmcp_call(
    server: &TestServer,
    path: &str,
    auth: &AuthClient<reqwest::Client>,
    tool: &'static str,
) -> Result<String, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(server.at(path));
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
async fn rmcp_completes_the_life_of_a_grant(#[case] path: &str) {
    let server = TestServer::new().await;
    let manager = rmcp_login(&server, path, request(), &ALICE.fields()).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&server, path, &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-alice"));

    let first = auth.get_access_token().await.unwrap();
    let renewed = auth.auth_manager.lock().await.refresh_token().await;
    renewed.unwrap();
    let second = auth.get_access_token().await.unwrap();
    assert_ne!(first, second);
    let text = rmcp_call(&server, path, &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-alice"));

    let revoke = server.http.post(server.at("/oauth/revoke"));
    let (status, _) = send_for_json(revoke.form(&[("token", second.as_str())])).await;
    assert_eq!(status, 200);
    let refused = rmcp_call(&server, path, &auth, "list_llmobs_projects").await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(server.status(path, &second).await, 401);
    assert_eq!(server.status(path, &first).await, 401);
    let renewed = auth.auth_manager.lock().await.refresh_token().await;
    assert!(renewed.is_err(), "the grant has ended, not only the token");
}

#[tokio::test]
async fn rmcp_signs_in_with_a_metadata_document() {
    let server = TestServer::new().await;
    let document = json!({"client_id": ID, "client_name": "Codex",
        "redirect_uris": ["http://127.0.0.1/callback"], "token_endpoint_auth_method": "none"});
    server.library.put(ID, document);
    let request = request().with_client_metadata_url(ID);
    let manager = rmcp_login(&server, "/mcp", request, &BOB.fields()).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&server, "/mcp", &auth, "list_llmobs_projects").await;
    assert!(text.unwrap().contains("project-of-bob"));
    assert_eq!(server.library.request_count(), 1);
}

#[tokio::test]
async fn disabled_metadata_documents_are_not_fetched() {
    let server = TestServer::start(ServerSetup {
        documents: false,
        ..ServerSetup::with_api(axum::Router::new())
    })
    .await;
    let metadata = server.get("/.well-known/oauth-authorization-server").await;
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(metadata.get("client_id_metadata_document_supported"), None);
    let client = Client {
        id: ID.to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let page = Browser::default()
        .open(&server, &client.authorize(&server, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.html.contains("must register itself"), "{}", page.html);
    assert_eq!(server.library.request_count(), 0);
    let (status, answer) = server.exchange(&client, "a-code").await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
    );
}

#[tokio::test]
async fn processes_share_pages_and_codes() {
    let server = TestServer::new().await;
    let other = server.restart().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let form = browser.form(&other, &page, "allow", &ALICE.fields());
    let answer = form.headers(origin_header(&server)).send().await.unwrap();
    let code = parameter(&location(&answer), "code").unwrap();
    let (status, answer) = server.exchange(&client, &code).await;
    assert_eq!(status, 200, "{answer}");
    // The first process refuses the page that the second one closed.
    let again = browser.allow(&server, &page, &ALICE.fields()).await;
    assert_eq!(again.status(), 403);
}

#[tokio::test]
async fn client_reads_local_backend_after_sign_in() {
    let backend = LocalBackend::open(LocalOptions::new(DataDir::Temporary)).unwrap();
    let server = TestServer::with_api(backend.router()).await;
    let fields = [("token", "token-a")];
    let manager = rmcp_login(&server, "/mcp", request(), &fields).await;
    let auth = AuthClient::new(datadog_llmobs::http_client().build().unwrap(), manager);
    let text = rmcp_call(&server, "/mcp", &auth, "search_llmobs_spans").await;
    let answer: Value = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(answer["spans"], json!([]));
}

#[tokio::test]
async fn concurrent_users_see_their_own_data_only() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let alice = server.sign_in(&client, ALICE).await;
    let bob = server.sign_in(&client, BOB).await;
    let calls = (0..20).map(|n| {
        let (user, tokens) = if n % 2 == 0 {
            (ALICE, &alice)
        } else {
            (BOB, &bob)
        };
        let server = &server;
        async move { (user, server.projects(&tokens.access).await) }
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
async fn second_sign_in_does_not_affect_the_first() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let first = server.sign_in(&client, ALICE).await;
    server.sign_in(&client, ALICE).await;
    assert_eq!(server.status("/mcp", &first.access).await, 200);
}

#[tokio::test]
async fn sign_ins_survive_a_restart() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let again = server.restart().await;
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
async fn writing_requires_the_write_checkbox() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tools = |token: String| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let request = server
            .http
            .post(server.at("/mcp"))
            .bearer_auth(token)
            .json(&body);
        async move {
            let request = request.header("accept", "application/json, text/event-stream");
            let (_, answer) = send_for_json(request).await;
            answer.to_string().contains("create_llmobs_experiment")
        }
    };
    let reads = server.sign_in(&client, ALICE).await;
    assert_eq!(reads.scope, "llmobs:read");
    let call = server.call("/mcp", "create_llmobs_experiment");
    let (_, answer) = send_for_json(call.bearer_auth(&reads.access)).await;
    assert_eq!(answer["result"]["isError"], true);
    assert!(answer.to_string().contains("sign in to this server again"));
    assert_eq!(
        server.datadog.request_count(),
        1,
        "only the verification of the credential was sent"
    );
    assert!(!tools(reads.access).await);

    let mut browser = Browser::default();
    // Requesting the scope is not sufficient, and not necessary.
    let page = browser
        .open(
            &server,
            &client.authorize(&server, &[("scope", "llmobs:read")]),
        )
        .await;
    let mut fields = ALICE.fields().to_vec();
    fields.push(("write", "yes"));
    let answer = browser.allow(&server, &page, &fields).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    assert_eq!(answer["scope"], "llmobs:read llmobs:write");
    assert!(tools(answer["access_token"].as_str().unwrap().to_owned()).await);

    let both = ("scope", "llmobs:read llmobs:write");
    let page = browser
        .open(&server, &client.authorize(&server, &[both]))
        .await;
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    assert_eq!(answer["scope"], "llmobs:read");
}

#[tokio::test]
async fn denial_redirects_with_error() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let answer = browser
        .form(&server, &page, "deny", &[])
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
    assert_eq!(parameter(&target, "iss"), Some(server.base.clone()));
    assert_eq!(parameter(&target, "code"), None);
    assert_eq!(server.datadog.request_count(), 0);
}

#[rstest]
#[case::wrong_key(&[("api_key", "key-of-alice"), ("application_key", "app-key-of-bob")], "did not accept")]
#[case::unknown_token(&[("token", "unknown-token")], "did not accept")]
#[case::api_key_only(&[("api_key", "key-of-alice")], "Enter the application key too")]
#[case::application_key_only(&[("application_key", "app-key-of-alice")], "Enter the API key too")]
#[case::nothing(&[], "Enter an access token")]
#[case::both(&[("token", "x"), ("api_key", "y")], "not both")]
#[case::invalid_characters(&[("token", "a b")], "contains invalid characters")]
#[tokio::test]
async fn page_shows_refused_credential(#[case] fields: &[(&str, &str)], #[case] words: &str) {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
    let answer = browser.allow(&server, &page, fields).await;
    assert_eq!(answer.status(), 422);
    assert!(answer.headers().get("location").is_none());
    let html = answer.text().await.unwrap();
    assert!(html.contains(words), "{html}");
    for (_, value) in fields.iter().filter(|(_, value)| value.len() > 3) {
        assert!(!html.contains(value), "the page repeats a secret");
    }
    // The page still accepts a valid credential.
    let page = super::test_server::Page { html, ..page };
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    assert!(parameter(&location(&answer), "code").is_some());
}

#[rstest]
#[case("/mcp")]
#[case("/v1/mcp")]
#[case("/api/unstable/mcp-server/mcp")]
#[tokio::test]
async fn challenge_names_metadata_url(#[case] path: &str) {
    let server = TestServer::new().await;
    // Some clients probe with GET.
    for request in [
        server.call(path, "list_llmobs_projects"),
        server.http.get(server.at(path)),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        let expected = format!(
            "Bearer realm=\"llmobs-mcp\", resource_metadata=\"{}/.well-known/oauth-protected-resource{path}\", scope=\"llmobs:read\"",
            server.base
        );
        assert_eq!(challenge, expected);
    }
    let document = server
        .get(&format!("/.well-known/oauth-protected-resource{path}"))
        .await;
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["resource"], server.at(path));
    assert_eq!(document["authorization_servers"], json!([server.base]));
    assert_eq!(document["scopes_supported"], json!(["llmobs:read"]));
}

#[tokio::test]
async fn serves_authorization_server_metadata() {
    let server = TestServer::new().await;
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ] {
        let document: Value = server.get(path).await.json().await.unwrap();
        let shown = document.to_string().replace(&server.base, "BASE");
        let shown: Value = serde_json::from_str(&shown).unwrap();
        insta::assert_json_snapshot!("authorization_server", shown);
    }
    let root: Value = server
        .get("/.well-known/oauth-protected-resource")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(root["resource"], server.at("/mcp"));
    // With a path the issuer would be another one.
    for path in [
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration/mcp",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/other",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(answer.json::<Value>().await.is_ok(), "{path}");
    }
}

#[tokio::test]
async fn consent_page_names_client_and_resource() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser.open(&server, &client.authorize(&server, &[])).await;
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
async fn default_audience_is_first_mcp_path() {
    let server = TestServer::new().await;
    let client = server.client("An older client", CALLBACK).await;
    let mut browser = Browser::default();
    let page = browser
        .open(&server, &client.authorize(&server, &[("resource", "")]))
        .await;
    let answer = browser.allow(&server, &page, &ALICE.fields()).await;
    let code = parameter(&location(&answer), "code").unwrap();
    let (_, answer) = server.exchange(&client, &code).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(server.status("/mcp", token).await, 200);
    assert_eq!(server.status("/v1/mcp", token).await, 401);
}

#[tokio::test]
async fn access_token_expires_and_refresh_renews_it() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    server.clock.advance(Duration::from_secs(3_600));
    assert_eq!(server.status("/mcp", &tokens.access).await, 401);
    let (_, answer) = server.refresh(&client, &tokens.refresh).await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(server.status("/mcp", token).await, 200);
}

#[tokio::test]
async fn unregistered_client_is_asked_to_register() {
    let server = TestServer::new().await;
    let gone = Client {
        id: "llmobs-gone".to_owned(),
        redirect: CALLBACK.to_owned(),
    };
    let (status, answer) = server.exchange(&gone, "x").await;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
    );
    let page = Browser::default()
        .open(&server, &gone.authorize(&server, &[]))
        .await;
    assert_eq!(page.status, 400);
    assert!(page.html.contains("not registered"), "{}", page.html);
}

#[tokio::test]
async fn revoked_credential_asks_to_sign_in_again() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    server.datadog.revoked.store(true, Ordering::SeqCst);
    let text = server.projects(&tokens.access).await;
    assert!(
        text.contains("401") && text.contains("sign in to this server again"),
        "{text}"
    );
    // The grant stays valid: the credential may be accepted again.
    server.datadog.revoked.store(false, Ordering::SeqCst);
    assert!(
        server
            .projects(&tokens.access)
            .await
            .contains("project-of-alice")
    );
}

#[tokio::test]
async fn whoami_describes_credential_without_secrets() {
    let server = TestServer::new().await;
    let client = server.client("A client", CALLBACK).await;
    let tokens = server.sign_in(&client, ALICE).await;
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/read",
                      "params": {"uri": llmobs_mcp::server::WHOAMI_URI}});
    let request = server
        .http
        .post(server.at("/mcp"))
        .header("accept", "application/json, text/event-stream")
        .bearer_auth(&tokens.access)
        .json(&body);
    let (status, answer) = send_for_json(request).await;
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
