//! Which servers start, and what the others are told.

use std::path::Path;

use rstest::rstest;

use super::*;
use crate::cli::args::{Cli, Command, hoist};
use crate::cli::settings::tests::{keep, resolve_in};

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

/// Asks for the front of `serve --http ADDRESS FLAGS`.
fn asked(
    folder: &Path,
    address: &str,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<(Front, Settings), CliError> {
    use clap::Parser;
    let mut line = vec!["llmobs-mcp", "serve", "--http", address];
    line.extend(flags);
    let words = line.iter().map(std::ffi::OsString::from).collect();
    let cli = Cli::try_parse_from(hoist(words)).expect("parses");
    let Some(Command::Serve(args)) = cli.command else {
        panic!("serve");
    };
    let shared: Vec<&str> = flags
        .windows(2)
        .filter(|pair| ["--site", "--api-url"].contains(&pair[0]))
        .flatten()
        .copied()
        .chain(flags.iter().copied().filter(|flag| *flag == "--local"))
        .collect();
    let mut settings = resolve_in(folder, &shared, env, toml)?;
    let address = args.http.expect("an address");
    let front = front(&mut settings, &args, address)?;
    Ok((front, settings))
}

fn start(
    address: &str,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<(Front, Settings), CliError> {
    let folder = tempfile::tempdir().expect("a folder");
    asked(folder.path(), address, flags, env, toml)
}

const HERE: &str = "127.0.0.1:8787";
const EVERYWHERE: &str = "0.0.0.0:8787";

#[rstest]
#[case::local_needs_no_flag(HERE, &["--local"], &PAIR, "", "with the Datadog credentials that a request brings (the default)")]
#[case::nothing_configured(HERE, &[], &[], "", "a request brings (the default)")]
#[case::a_base_without_keys(HERE, &["--api-url", "http://127.0.0.1:8126"], &[], "", "a request brings (the default)")]
#[case::half_a_pair_is_none(HERE, &["--api-url", "http://127.0.0.1:8126"], &PAIR[..1], "", "a request brings (the default)")]
#[case::none(HERE, &["--auth", "none"], &PAIR, "", "whoever is on this machine, with the credentials of this server (--auth)")]
#[case::none_on_ipv6("[::1]:8787", &["--auth", "none"], &PAIR, "", "whoever is on this machine")]
#[case::headers_beside_own_keys(HERE, &["--auth", "datadog-headers"], &PAIR, "", "a request brings (--auth)")]
#[case::headers_for_others(EVERYWHERE, &["--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", "a request brings")]
#[case::bearer(HERE, &["--auth", "static-bearer"], &[BEARER], "", "whoever knows the bearer secret")]
#[case::bearer_for_others(EVERYWHERE, &["--auth", "static-bearer", PUBLIC[0], PUBLIC[1]], &[BEARER, PAIR[0], PAIR[1]], "", "whoever knows the bearer secret")]
#[case::bearer_before_local_data(EVERYWHERE, &["--local", "--auth", "static-bearer", PUBLIC[0], PUBLIC[1]], &[BEARER], "", "whoever knows the bearer secret")]
#[case::mode_of_the_environment(HERE, &[], &[PAIR[0], PAIR[1], ("LLMOBS_MCP_AUTH", "none")], "", "(LLMOBS_MCP_AUTH)")]
#[case::mode_of_the_file(HERE, &[], &PAIR, "auth = 'none'", "(auth in the config file)")]
#[case::flag_over_environment(HERE, &["--auth", "none"], &[("LLMOBS_MCP_AUTH", "static-bearer")], "auth = 'oauth'", "(--auth)")]
#[case::oauth(EVERYWHERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "", "users who sign in here")]
#[case::oauth_to_try_it(HERE, &["--auth", "oauth", "--public-url", "http://127.0.0.1:8787", "--api-url", "http://127.0.0.1:8126"], &[KEY], "", "users who sign in here")]
#[case::oauth_of_the_environment(EVERYWHERE, &[], &[KEY, ("LLMOBS_MCP_AUTH", "oauth"), ("LLMOBS_MCP_PUBLIC_URL", PUBLIC[1]), ("LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS", "1")], "", "users who sign in here")]
#[case::oauth_with_sign_in(EVERYWHERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in"], &[KEY], "", "or sign in at Datadog for")]
#[case::oauth_with_sign_in_of_the_environment(EVERYWHERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY, ("LLMOBS_MCP_DATADOG_SIGN_IN", "1"), ("LLMOBS_MCP_DATADOG_CLIENT_ID", "client-a")], "", "or sign in at Datadog for")]
#[case::oauth_with_sign_in_of_the_file(EVERYWHERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "datadog_sign_in = true\ndatadog_client_id = 'client-a'", "or sign in at Datadog for")]
#[case::sign_in_turned_off_elsewhere(HERE, &[], &[("LLMOBS_MCP_DATADOG_SIGN_IN", "0")], "datadog_sign_in = false", "a request brings")]
#[case::everything_of_the_file(EVERYWHERE, &[], &[], "auth = 'static-bearer'\nbearer = 'an-obviously-made-up-secret-of-the-tests'\npublic_url = 'https://mcp.example.com'", "whoever knows the bearer secret")]
fn what_starts(
    #[case] address: &str,
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] told: &str,
) {
    let (front, _) = start(address, flags, env, toml)
        .map_err(|error| error.to_string())
        .expect("starts");
    assert!(front.told.contains(told), "{}", front.told);
}

#[rstest]
#[case::nothing_said_for_others(EVERYWHERE, &[], &[], "", &["reached from other machines", "--auth static-bearer", "--auth oauth", "127.0.0.1:8787"])]
#[case::local_for_others(EVERYWHERE, &["--local"], &[], "", &["reached from other machines"])]
#[case::none_for_others(EVERYWHERE, &["--auth", "none"], &PAIR, "", &["mode none (--auth)", "127.0.0.1:8787", "--auth static-bearer"])]
#[case::none_for_others_by_the_environment("192.168.1.2:8787", &[], &[("LLMOBS_MCP_AUTH", "none")], "", &["mode none (LLMOBS_MCP_AUTH)"])]
#[case::none_behind_a_proxy(HERE, &["--auth", "none", PUBLIC[0], PUBLIC[1]], &[], "", &["--public-url says that other machines", "mode none"])]
#[case::own_keys_and_no_mode(HERE, &[], &PAIR, "", &["DD_API_KEY and DD_APPLICATION_KEY", "--auth none", "--auth static-bearer"])]
#[case::own_token_and_no_mode(HERE, &[], &[("DD_ACCESS_TOKEN", "token-a")], "", &["DD_ACCESS_TOKEN", "--auth none", "--auth static-bearer"])]
#[case::own_keys_of_the_file(HERE, &[], &[], "api_key = 'key-a'\napp_key = 'key-b'", &["in the config file", "--auth none", "--auth static-bearer"])]
#[case::own_keys_and_a_base(HERE, &["--api-url", "http://127.0.0.1:8126"], &PAIR, "", &["--auth none"])]
#[case::bearer_without_a_secret(HERE, &["--auth", "static-bearer"], &PAIR, "", &["LLMOBS_MCP_BEARER", "openssl rand -hex 32"])]
#[case::bearer_too_short(HERE, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER", "hunter2")], "", &["LLMOBS_MCP_BEARER: ", "at least 32"])]
#[case::bearer_with_a_space(HERE, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER", "hunter2 hunter2 hunter2 hunter2 hunter2")], "", &["LLMOBS_MCP_BEARER: ", "no header carries"])]
#[case::bearer_in_a_missing_file(HERE, &["--auth", "static-bearer"], &[("LLMOBS_MCP_BEARER_FILE", "nowhere/at/all")], "", &["LLMOBS_MCP_BEARER_FILE names a file that cannot be read"])]
#[case::bearer_for_others_without_a_name(EVERYWHERE, &["--auth", "static-bearer"], &[BEARER], "", &["nothing says under which name", "--public-url"])]
#[case::headers_for_others_without_a_name(EVERYWHERE, &["--auth", "datadog-headers"], &[], "", &["nothing says under which name"])]
#[case::local_data_by_header(EVERYWHERE, &["--local", "--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", &["everybody could read them", "--auth static-bearer"])]
#[case::local_data_by_header_behind_a_proxy(HERE, &["--local", "--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]], &[], "", &["everybody could read them"])]
#[case::oauth_without_a_key(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &PAIR, "", &["LLMOBS_MCP_SECRET_KEY", "--secret-key-file", "openssl rand -hex 32"])]
#[case::oauth_with_a_short_key(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[("LLMOBS_MCP_SECRET_KEY", "hunter2")], "", &["LLMOBS_MCP_SECRET_KEY: ", "64 hexadecimal"])]
#[case::oauth_with_a_missing_file(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--secret-key-file", "nowhere/at/all"], &[KEY], "", &["--secret-key-file names a file that cannot be read"])]
#[case::oauth_without_a_name(HERE, &["--auth", "oauth"], &[KEY], "", &["--public-url https://mcp.example.com", "--public-url http://127.0.0.1:8787"])]
#[case::oauth_in_the_clear(HERE, &["--auth", "oauth", "--public-url", "http://mcp.example.com"], &[KEY], "", &["--public-url: ", "https://mcp.example.com"])]
#[case::oauth_before_local_data(HERE, &["--local", "--auth", "oauth", PUBLIC[0], PUBLIC[1]], &[KEY], "", &["everybody could read them", "--auth static-bearer"])]
#[case::in_the_clear(HERE, &["--auth", "static-bearer", "--public-url", "http://mcp.example.com"], &[BEARER], "", &["--public-url: ", "https://mcp.example.com"])]
#[case::sign_in_in_another_mode(HERE, &["--auth", "none", "--datadog-sign-in"], &PAIR, "", &["--datadog-sign-in: ", "mode oauth only", "none (--auth)"])]
#[case::sign_in_without_a_mode(HERE, &["--datadog-sign-in"], &[], "", &["--datadog-sign-in: ", "datadog-headers (the default)", "--auth oauth"])]
#[case::sign_in_of_the_environment_in_another_mode(HERE, &["--auth", "static-bearer"], &[BEARER, ("LLMOBS_MCP_DATADOG_SIGN_IN", "yes")], "", &["LLMOBS_MCP_DATADOG_SIGN_IN: ", "mode oauth only"])]
#[case::sign_in_of_the_file_in_another_mode(HERE, &["--auth", "none"], &[], "datadog_sign_in = true", &["datadog_sign_in in the config file: ", "mode oauth only"])]
#[case::client_id_without_sign_in(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-client-id", "client-a"], &[KEY], "", &["--datadog-client-id: ", "add --datadog-sign-in"])]
#[case::client_id_that_is_none(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in", "--datadog-client-id", "a b"], &[KEY], "", &["--datadog-client-id: ", "a client id is"])]
#[case::sign_in_at_another_base(HERE, &["--auth", "oauth", PUBLIC[0], PUBLIC[1], "--datadog-sign-in", "--api-url", "https://proxy.example.com"], &[KEY], "", &["--datadog-sign-in: ", "neither", "--site datadoghq.eu"])]
#[case::unknown_mode(HERE, &[], &[("LLMOBS_MCP_AUTH", "basic")], "", &["LLMOBS_MCP_AUTH: a mode is one of none"])]
fn what_does_not_start(
    #[case] address: &str,
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] words: &[&str],
) {
    let error = start(address, flags, env, toml).err().expect("refused");
    assert_eq!(error.code(), 2);
    let told = format!("{error} {}", error.mend().unwrap_or_default());
    for word in words {
        assert!(told.contains(word), "{word} is not in: {told}");
    }
    for secret in ["key-a", "key-b", "token-a", "hunter2", BEARER.1, KEY.1] {
        assert!(!told.contains(secret), "a secret in: {told}");
    }
}

#[tokio::test]
async fn a_stored_login_is_lent_to_nobody_either() {
    let folder = tempfile::tempdir().expect("a folder");
    keep(folder.path(), &[("work", "datadoghq.eu")]).await;
    let error = asked(folder.path(), HERE, &[], &[], "")
        .err()
        .expect("refused");
    let told = format!("{error} {}", error.mend().unwrap_or_default());
    for word in ["profile work", "--auth none", "--auth static-bearer"] {
        assert!(told.contains(word), "{told}");
    }
    let flags = ["--auth", "datadog-headers"];
    let (_, settings) = asked(folder.path(), HERE, &flags, &[], "")
        .map_err(|error| error.to_string())
        .expect("starts");
    assert!(settings.login.is_none());
}

#[test]
fn where_callers_bring_credentials_the_servers_own_are_gone() {
    let (_, settings) = start(HERE, &["--auth", "datadog-headers"], &PAIR, "").expect("starts");
    assert!(settings.secrets.current().is_none());
    let (_, settings) = start(HERE, &["--auth", "none"], &PAIR, "").expect("starts");
    assert!(!settings.secrets.current().is_none());
}

#[test]
fn callers_from_other_machines_who_bring_credentials_never_meet_local_data() {
    let flags = ["--auth", "datadog-headers", PUBLIC[0], PUBLIC[1]];
    for address in [HERE, EVERYWHERE] {
        let (_, settings) = start(address, &flags, &[], "").expect("starts");
        assert!(matches!(settings.choice, Choice::Datadog(_)));
    }
    let (_, settings) = start(HERE, &["--auth", "datadog-headers"], &[], "").expect("starts");
    assert!(matches!(settings.choice, Choice::Unchosen(_)));
}
