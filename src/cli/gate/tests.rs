//! Tests of the gate: which servers start, and the errors of the others.

use std::path::Path;

use rstest::rstest;

use super::*;
use crate::cli::settings::tests::{resolve_in, store_logins};
use crate::server::CredentialSource as _;

const PAIR: [(&str, &str); 2] = [("DD_API_KEY", "key-a"), ("DD_APPLICATION_KEY", "key-b")];
const BEARER: (&str, &str) = (
    "LLMOBS_MCP_BEARER",
    "an-obviously-made-up-secret-of-the-tests",
);
const KEY: (&str, &str) = (
    "LLMOBS_MCP_SECRET_KEY",
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
);
const PUBLIC: [&str; 2] = ["--public-url", "https://mcp.example.com"];

/// Plans the gate of `serve --http ADDRESS FLAGS`.
fn plan_in(
    directory: &Path,
    address: &str,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<(GatePlan, Settings), CliError> {
    let mut line = vec!["serve", "--http", address];
    line.extend(flags);
    let mut settings = resolve_in(directory, &line, env, toml)?;
    let address = address.parse().expect("an address");
    let plan = plan_gate(&mut settings, address)?;
    Ok((plan, settings))
}

fn plan(
    address: &str,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<(GatePlan, Settings), CliError> {
    let directory = tempfile::tempdir().expect("a directory");
    plan_in(directory.path(), address, flags, env, toml)
}

const LOOPBACK: &str = "127.0.0.1:8787";
const ALL_INTERFACES: &str = "0.0.0.0:8787";

#[rstest]
#[case::local_data_by_default(LOOPBACK, &["--local"], &PAIR, "", "each request brings its own Datadog credentials (the default)")]
#[case::nothing_configured(LOOPBACK, &[], &[], "", "brings its own Datadog credentials (the default)")]
#[case::api_url_without_keys(LOOPBACK, &["--api-url", "http://127.0.0.1:8126"], &[], "", "brings its own Datadog credentials (the default)")]
#[case::half_a_pair_does_not_count(LOOPBACK, &["--api-url", "http://127.0.0.1:8126"], &PAIR[..1], "", "brings its own Datadog credentials (the default)")]
#[case::none(LOOPBACK, &["--auth", "none"], &PAIR, "", "every program on this machine, with this server's credentials (--auth)")]
#[case::none_on_ipv6("[::1]:8787", &["--auth", "none"], &PAIR, "", "every program on this machine")]
#[case::headers_with_server_keys(LOOPBACK, &["--auth", "datadog-headers"], &PAIR, "", "brings its own Datadog credentials (--auth)")]
#[case::headers_on_all_interfaces(ALL_INTERFACES, &["--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", "brings its own Datadog credentials")]
#[case::bearer(LOOPBACK, &["--auth", "static-bearer"], &[BEARER], "", "callers that send the bearer secret")]
#[case::bearer_on_all_interfaces(ALL_INTERFACES, &["--auth", "static-bearer", PUBLIC[0], PUBLIC[1]], &[BEARER, PAIR[0], PAIR[1]], "", "callers that send the bearer secret")]
#[case::bearer_for_local_data(ALL_INTERFACES, &["--local", "--auth", "static-bearer", PUBLIC[0], PUBLIC[1]], &[BEARER], "", "callers that send the bearer secret")]
#[case::mode_from_environment(LOOPBACK, &[], &[PAIR[0], PAIR[1], ("LLMOBS_MCP_AUTH", "none")], "", "(LLMOBS_MCP_AUTH)")]
#[case::mode_from_file(LOOPBACK, &[], &PAIR, "auth = 'none'", "(auth in the config file)")]
#[case::flag_over_environment(LOOPBACK, &["--auth", "none"], &[("LLMOBS_MCP_AUTH", "static-bearer")], "auth = 'oauth'", "(--auth)")]
#[case::oauth(ALL_INTERFACES, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "", "oauth: users sign in here")]
#[case::oauth_on_loopback(LOOPBACK, &["--auth", "oauth", "--public-url", "http://127.0.0.1:8787", "--api-url", "http://127.0.0.1:8126"], &[KEY], "", "oauth: users sign in here")]
#[case::oauth_from_environment(ALL_INTERFACES, &[], &[KEY, ("LLMOBS_MCP_AUTH", "oauth"), ("LLMOBS_MCP_PUBLIC_URL", PUBLIC[1]), ("LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS", "1")], "", "oauth: users sign in here")]
#[case::oauth_with_sign_in(ALL_INTERFACES, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in"], &[KEY], "", "with a Datadog sign-in")]
#[case::oauth_with_sign_in_from_environment(ALL_INTERFACES, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY, ("LLMOBS_MCP_DATADOG_SIGN_IN", "1"), ("LLMOBS_MCP_DATADOG_CLIENT_ID", "client-a")], "", "with a Datadog sign-in")]
#[case::oauth_with_sign_in_from_file(ALL_INTERFACES, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "datadog_sign_in = true\ndatadog_client_id = 'client-a'", "with a Datadog sign-in")]
#[case::sign_in_turned_off(LOOPBACK, &[], &[("LLMOBS_MCP_DATADOG_SIGN_IN", "0")], "datadog_sign_in = false", "brings its own Datadog credentials")]
#[case::everything_from_file(ALL_INTERFACES, &[], &[], "auth = 'static-bearer'\nbearer = 'an-obviously-made-up-secret-of-the-tests'\npublic_url = 'https://mcp.example.com'", "callers that send the bearer secret")]
fn starts(
    #[case] address: &str,
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: &str,
) {
    let (plan, _) = plan(address, flags, env, toml)
        .map_err(|error| error.to_string())
        .expect("starts");
    assert!(plan.description.contains(expected), "{}", plan.description);
}

#[rstest]
#[case::no_mode_on_all_interfaces(ALL_INTERFACES, &[], &[], "", &["reached from other machines", "--auth static-bearer", "--auth oauth", "127.0.0.1:8787"])]
#[case::local_on_all_interfaces(ALL_INTERFACES, &["--local"], &[], "", &["reached from other machines"])]
#[case::none_on_all_interfaces(ALL_INTERFACES, &["--auth", "none"], &PAIR, "", &["mode none (--auth)", "127.0.0.1:8787", "--auth static-bearer"])]
#[case::none_from_environment_on_other_interface("192.168.1.2:8787", &[], &[("LLMOBS_MCP_AUTH", "none")], "", &["mode none (LLMOBS_MCP_AUTH)"])]
#[case::none_behind_a_proxy(LOOPBACK, &["--auth", "none", PUBLIC[0], PUBLIC[1]], &[], "", &["--public-url means that other machines", "mode none"])]
#[case::server_keys_without_mode(LOOPBACK, &[], &PAIR, "", &["DD_API_KEY and DD_APPLICATION_KEY", "--auth none", "--auth static-bearer"])]
#[case::server_token_without_mode(LOOPBACK, &[], &[("DD_ACCESS_TOKEN", "token-a")], "", &["DD_ACCESS_TOKEN", "--auth none", "--auth static-bearer"])]
#[case::server_keys_from_file(LOOPBACK, &[], &[], "api_key = 'key-a'\napp_key = 'key-b'", &["in the config file", "--auth none", "--auth static-bearer"])]
#[case::server_keys_with_api_url(LOOPBACK, &["--api-url", "http://127.0.0.1:8126"], &PAIR, "", &["--auth none"])]
#[case::bearer_without_secret(LOOPBACK, &["--auth", "static-bearer"], &PAIR, "", &["LLMOBS_MCP_BEARER", "openssl rand -hex 32"])]
#[case::bearer_too_short(LOOPBACK, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER", "hunter2")], "", &["LLMOBS_MCP_BEARER: ", "at least 32"])]
#[case::bearer_with_a_space(LOOPBACK, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER", "hunter2 hunter2 hunter2 hunter2 hunter2")], "", &["LLMOBS_MCP_BEARER: ", "an HTTP header cannot carry"])]
#[case::bearer_in_a_missing_file(LOOPBACK, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER_FILE", "nowhere/at/all")], "", &["LLMOBS_MCP_BEARER_FILE names a file that cannot be read"])]
#[case::bearer_on_all_interfaces_without_public_url(ALL_INTERFACES, &["--auth", "static-bearer"], &[BEARER], "", &["without a public URL", "--public-url"])]
#[case::headers_on_all_interfaces_without_public_url(ALL_INTERFACES, &["--auth", "datadog-headers"], &[], "", &["without a public URL"])]
#[case::local_data_by_header(ALL_INTERFACES, &["--local", "--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", &["everybody could read it", "--auth static-bearer"])]
#[case::local_data_by_header_behind_a_proxy(LOOPBACK, &["--local", "--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", &["everybody could read it"])]
#[case::oauth_without_a_key(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &PAIR, "", &["LLMOBS_MCP_SECRET_KEY", "--secret-key-file", "openssl rand -hex 32"])]
#[case::oauth_with_a_short_key(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[("LLMOBS_MCP_SECRET_KEY", "hunter2")], "", &["LLMOBS_MCP_SECRET_KEY: ", "64 hexadecimal"])]
#[case::oauth_with_a_missing_file(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--secret-key-file", "nowhere/at/all"], &[KEY], "", &["--secret-key-file names a file that cannot be read"])]
#[case::oauth_without_public_url(LOOPBACK, &["--auth", "oauth"], &[KEY], "", &["--public-url https://mcp.example.com", "--public-url http://127.0.0.1:8787"])]
#[case::oauth_over_plain_http(LOOPBACK, &["--auth", "oauth", "--public-url", "http://mcp.example.com"], &[KEY], "", &["--public-url: ", "https://mcp.example.com"])]
#[case::oauth_for_local_data(LOOPBACK, &["--local", "--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "", &["everybody could read it", "--auth static-bearer"])]
#[case::public_url_over_plain_http(LOOPBACK, &["--auth", "static-bearer", "--public-url", "http://mcp.example.com"], &[BEARER], "", &["--public-url: ", "https://mcp.example.com"])]
#[case::sign_in_in_another_mode(LOOPBACK, &["--auth", "none", "--datadog-sign-in"], &PAIR, "", &["--datadog-sign-in: ", "mode oauth only", "none (--auth)"])]
#[case::sign_in_without_a_mode(LOOPBACK, &["--datadog-sign-in"], &[], "", &["--datadog-sign-in: ", "datadog-headers (the default)", "--auth oauth"])]
#[case::sign_in_from_environment_in_another_mode(LOOPBACK, &["--auth", "static-bearer"], &[BEARER, ("LLMOBS_MCP_DATADOG_SIGN_IN", "yes")], "", &["LLMOBS_MCP_DATADOG_SIGN_IN: ", "mode oauth only"])]
#[case::sign_in_from_file_in_another_mode(LOOPBACK, &["--auth", "none"], &[], "datadog_sign_in = true", &["datadog_sign_in in the config file: ", "mode oauth only"])]
#[case::client_id_without_sign_in(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-client-id", "client-a"], &[KEY], "", &["--datadog-client-id: ", "add --datadog-sign-in"])]
#[case::malformed_client_id(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in", "--datadog-client-id", "a b"], &[KEY], "", &["--datadog-client-id: ", "a client id is"])]
#[case::sign_in_at_other_api_url(LOOPBACK, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in", "--api-url", "https://proxy.example.com"], &[KEY], "", &["--datadog-sign-in: ", "neither", "--site datadoghq.eu"])]
#[case::unknown_mode(LOOPBACK, &[], &[("LLMOBS_MCP_AUTH", "basic")], "", &["LLMOBS_MCP_AUTH: the mode must be none"])]
fn refuses_to_start(
    #[case] address: &str,
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] words: &[&str],
) {
    let error = plan(address, flags, env, toml).err().expect("refused");
    assert_eq!(error.code(), 2);
    let message = format!("{error} {}", error.hint().unwrap_or_default());
    for word in words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    for secret in ["key-a", "key-b", "token-a", "hunter2", BEARER.1, KEY.1] {
        assert!(!message.contains(secret), "a secret in: {message}");
    }
}

#[tokio::test]
async fn does_not_share_stored_login() {
    let directory = tempfile::tempdir().expect("a directory");
    store_logins(directory.path(), &[("work", "datadoghq.eu")]).await;
    let error = plan_in(directory.path(), LOOPBACK, &[], &[], "")
        .err()
        .expect("refused");
    let message = format!("{error} {}", error.hint().unwrap_or_default());
    for word in ["profile work", "--auth none", "--auth static-bearer"] {
        assert!(message.contains(word), "{message}");
    }
    let flags = ["--auth", "datadog-headers"];
    let (_, settings) = plan_in(directory.path(), LOOPBACK, &flags, &[], "")
        .map_err(|error| error.to_string())
        .expect("starts");
    assert!(settings.login.is_none());
}

#[test]
fn drops_server_credentials_if_callers_bring_theirs() {
    let (_, settings) = plan(LOOPBACK, &["--auth", "datadog-headers"], &PAIR, "").expect("starts");
    assert!(settings.secrets.current().is_none());
    let (_, settings) = plan(LOOPBACK, &["--auth", "none"], &PAIR, "").expect("starts");
    assert!(!settings.secrets.current().is_none());
}

#[test]
fn exposed_header_mode_never_reads_local_data() {
    let flags = ["--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]];
    for address in [LOOPBACK, ALL_INTERFACES] {
        let (_, settings) = plan(address, &flags, &[], "").expect("starts");
        assert!(matches!(settings.choice, Choice::Datadog(_)));
    }
    let (_, settings) = plan(LOOPBACK, &["--auth", "datadog-headers"], &[], "").expect("starts");
    assert!(matches!(settings.choice, Choice::Unchosen(_)));
}
