//! Tests of the settings: sources and the resolved values.

use std::path::Path;

use super::*;
use crate::server::CredentialSource;
use datadog_llmobs::Credential;
use rstest::rstest;

/// Resolves settings with this text as config file, apart from the settings of this machine.
fn resolve(flags: &[&str], env: &[(&str, &str)], toml: &str) -> Result<Settings, SettingsError> {
    let directory = tempfile::tempdir().expect("a directory");
    resolve_in(directory.path(), flags, env, toml)
}

pub(crate) fn resolve_in(
    directory: &Path,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<Settings, SettingsError> {
    use clap::Parser as _;
    let path = directory.join("config.toml");
    std::fs::write(&path, toml).expect("written");
    let words = std::iter::once("llmobs-mcp").chain(flags.iter().copied());
    let mut cli = Cli::try_parse_from(words).expect("flags");
    cli.shared.config.get_or_insert(path);
    let state = directory.join("state");
    let mut env = env.to_vec();
    env.push(("LLMOBS_MCP_STATE_DIR", state.to_str().expect("text")));
    Settings::resolve(&cli, &Environment::from_pairs(&env), Need::Upstream)
}

fn upstream(settings: &Settings) -> String {
    match &settings.choice {
        Choice::Local => "local".to_owned(),
        Choice::Unchosen(site) => format!("unchosen, {site} for headers"),
        Choice::Datadog(upstream) => upstream.api_base().into_owned(),
    }
}

const PAIR: [(&str, &str); 2] = [("DD_API_KEY", "a"), ("DD_APPLICATION_KEY", "b")];

#[rstest]
#[case::nothing(&[], &[], "", "unchosen, datadoghq.com for headers")]
#[case::pair(&[], &PAIR, "", "https://api.datadoghq.com")]
#[case::pair_and_site(&[], &[PAIR[0], PAIR[1], ("DD_SITE", "us5.datadoghq.com")], "", "https://api.us5.datadoghq.com")]
#[case::flag_over_env(&["--site", "eu"], &[PAIR[0], PAIR[1], ("DD_SITE", "us5.datadoghq.com")], "", "https://api.datadoghq.eu")]
#[case::env_over_file(&[], &[PAIR[0], PAIR[1], ("DD_SITE", "us5")], "site = 'eu'", "https://api.us5.datadoghq.com")]
#[case::file(&[], &PAIR, "site = 'eu'", "https://api.datadoghq.eu")]
#[case::short_name_of_application_key(&[], &[PAIR[0], ("DD_APP_KEY", "b")], "", "https://api.datadoghq.com")]
#[case::api_key_alone(&[], &[PAIR[0], ("DD_SITE", "eu")], "", "unchosen, datadoghq.eu for headers")]
#[case::app_key_alone(&[], &[PAIR[1]], "", "unchosen, datadoghq.com for headers")]
#[case::token_as_app_key(&[], &[("DD_APPLICATION_KEY", "ddpat_x")], "", "https://api.datadoghq.com")]
#[case::access_token(&[], &[("DD_ACCESS_TOKEN", "t")], "", "https://api.datadoghq.com")]
#[case::empty_is_absent(&[], &[PAIR[0], ("DD_APPLICATION_KEY", " "), ("DD_SITE", "")], "", "unchosen, datadoghq.com for headers")]
#[case::local_flag(&["--local"], &PAIR, "", "local")]
#[case::local_flag_over_a_wrong_site(&["--local"], &[("DD_SITE", "ddog-gov.com")], "", "local")]
#[case::local_site(&[], &[PAIR[0], PAIR[1], ("DD_SITE", "LOCAL")], "", "local")]
#[case::local_site_flag(&["--site", "local"], &PAIR, "", "local")]
#[case::local_site_file(&[], &PAIR, "site = 'local'", "local")]
#[case::site_flag_over_local(&["--site", "eu"], &[PAIR[0], PAIR[1], ("DD_SITE", "local")], "", "https://api.datadoghq.eu")]
#[case::api_url(&["--api-url", "http://127.0.0.1:8126"], &[], "", "http://127.0.0.1:8126")]
#[case::api_url_over_local(&["--api-url", "http://127.0.0.1:1/"], &[("DD_SITE", "local")], "", "http://127.0.0.1:1")]
#[case::pair_from_two_sources(&[], &[PAIR[0]], "application_key = 'b'", "https://api.datadoghq.com")]
#[case::pair_from_file(&[], &[], "api_key = 'a'\napp_key = 'b'", "https://api.datadoghq.com")]
fn chooses_upstream(
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: &str,
) {
    let settings = resolve(flags, env, toml)
        .map_err(|e| e.to_string())
        .expect("resolves");
    assert_eq!(upstream(&settings), expected);
}

#[rstest]
#[case::contradiction(&[], &[PAIR[1], ("DD_APP_KEY", "c")], "", "DD_APPLICATION_KEY and DD_APP_KEY are both set and differ")]
#[case::government(&[], &[("DD_SITE", "ddog-gov.com")], "", "government")]
#[case::unknown_site(&["--site", "datadog.example"], &[], "", "--site: ")]
#[case::http_beyond_loopback(&["--api-url", "http://example.com"], &[], "", "https")]
#[case::unknown_key(&[], &[], "tool_sets = ['llmobs']", "unknown key tool_sets; did you mean toolsets?")]
#[case::api_url_in_file(&[], &[], "api_url = 'https://x'", "flag --api-url")]
#[case::wrong_type(&[], &[], "read_only = 'yes'", "read_only must be true or false")]
#[case::not_toml(&[], &[], "site = 'eu'\napi_key = hunter2", "in line 2")]
#[case::bad_level(&[], &[("LLMOBS_MCP_LOG", "loud")], "", "LLMOBS_MCP_LOG: a level is one of")]
#[case::missing_secret_file(&[], &[("DD_API_KEY_FILE", "nowhere/at/all")], "", "DD_API_KEY_FILE names a file that cannot be read")]
#[case::missing_config(&["--config", "nowhere.toml"], &[], "", "nowhere.toml cannot be read")]
#[case::retain_days(&[], &[("LLMOBS_MCP_RETAIN_DAYS", "0")], "", "LLMOBS_MCP_RETAIN_DAYS: ")]
#[case::line_break_in_key(&[], &[PAIR[1], ("DD_API_KEY", "hun\nter2")], "", "characters")]
fn refuses_wrong_settings(
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: &str,
) {
    let error = resolve(flags, env, toml).expect_err("refused");
    let text = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("hunter2"), "a secret in an error: {text}");
}

#[rstest]
#[case::nothing(&[], &[], "", false)]
#[case::flag(&["--read-only"], &[("LLMOBS_MCP_READ_ONLY", "false")], "read_only = false", true)]
#[case::env(&[], &[("LLMOBS_MCP_READ_ONLY", "1")], "", true)]
#[case::datadog_variable(&[], &[("DD_LLMOBS_READ_ONLY", "true")], "", true)]
#[case::env_cannot_loosen(&[], &[("LLMOBS_MCP_READ_ONLY", "false")], "read_only = true", true)]
#[case::unclear_value_counts_as_on(&[], &[("DD_LLMOBS_READ_ONLY", "maybe")], "", true)]
#[case::off(&[], &[("DD_LLMOBS_READ_ONLY", "0")], "read_only = false", false)]
fn read_only_cannot_be_turned_off(
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: bool,
) {
    assert_eq!(
        resolve(flags, env, toml)
            .ok()
            .map(|s| s.tool_filter.read_only),
        Some(expected)
    );
}

#[test]
fn lists_follow_precedence_of_sources() {
    let env = [
        ("LLMOBS_MCP_TOOLSETS", "b,llmobs"),
        ("LLMOBS_MCP_OMIT_TOOLS", ""),
    ];
    let toml = "toolsets = ['c']\nomit_tools = 'x, Y'";
    let filter = resolve(&[], &env, toml).expect("resolves").tool_filter;
    assert_eq!(
        filter.toolsets,
        Some(vec!["b".to_owned(), "llmobs".to_owned()])
    );
    assert_eq!(filter.omit, ["x", "y"]);
    let filter = resolve(&["--toolsets", "all,d"], &env, toml)
        .expect("resolves")
        .tool_filter;
    assert_eq!(
        filter.toolsets,
        Some(vec!["all".to_owned(), "d".to_owned()])
    );
}

#[test]
fn refuses_toolsets_without_a_known_name() {
    let settings = resolve(&["--toolsets", "llmob,rum"], &[], "").expect("resolves");
    let error = settings.check_toolsets().expect_err("refused").to_string();
    assert!(
        error.starts_with("--toolsets: unknown toolset 'llmob'"),
        "{error}"
    );
    assert!(error.contains("did you mean 'llmobs'?"), "{error}");
    let settings = resolve(&["--toolsets", "rum,llmobs"], &[], "").expect("resolves");
    assert!(settings.check_toolsets().is_ok());
}

#[test]
fn config_file_paths_are_relative_to_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = resolve_in(directory.path(), &[], &[], "data_dir = 'data'").expect("resolves");
    assert_eq!(settings.local.data_dir, directory.path().join("data"));
    assert!(settings.local.data_dir_named);
    let flags = ["--data-dir", "elsewhere"];
    let settings =
        resolve_in(directory.path(), &flags, &[], "data_dir = 'data'").expect("resolves");
    assert_eq!(settings.local.data_dir, Path::new("elsewhere"));
}

#[test]
fn rereads_changed_secret_file_and_keeps_value_of_removed_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = directory.path().join("token");
    std::fs::write(&mount, "first\n").expect("written");
    let env = [("DD_ACCESS_TOKEN_FILE", mount.to_str().expect("text"))];
    let settings = resolve_in(directory.path(), &[], &env, "").expect("resolves");
    let token = || match settings.secrets.current() {
        Credential::Bearer(token) => {
            use secrecy::ExposeSecret;
            token.expose_secret().to_owned()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(token(), "first");
    assert_eq!(settings.secrets.origin(), "DD_ACCESS_TOKEN_FILE");
    std::fs::write(&mount, "second-one").expect("written");
    assert_eq!(token(), "second-one");
    std::fs::remove_file(&mount).expect("removed");
    assert_eq!(token(), "second-one");
}

#[test]
fn notes_settings_without_effect() {
    let env = [
        ("LLMOBS_MCP_TOOLSET", "x"),
        ("LLMOBS_MCP_API_URL", "https://x"),
    ];
    let notes = resolve(&["--site", "eu"], &env, "")
        .expect("resolves")
        .notes
        .join("\n");
    assert!(
        notes.contains("did you mean LLMOBS_MCP_TOOLSETS?"),
        "{notes}"
    );
    assert!(notes.contains("only the flag --api-url"), "{notes}");
    assert!(notes.contains("--site eu has no effect yet"), "{notes}");
}

#[test]
fn ignores_wrong_credentials_without_upstream() {
    let env = [("DD_SITE", "ddog-gov.com"), PAIR[1], ("DD_APP_KEY", "c")];
    let cli = Cli {
        shared: SharedFlags::default(),
        command: None,
    };
    assert!(Settings::resolve(&cli, &Environment::from_pairs(&env), Need::NoUpstream).is_ok());
}

/// Stores logins as pairs of profile and upstream; the last one is current.
pub(crate) async fn store_logins(directory: &Path, logins: &[(&str, &str)]) {
    use datadog_llmobs::login::{Login, LoginStore, LoginTarget, TokenStorage};
    let store = LoginStore::new(directory.join("state"));
    let lock = store.lock().await.expect("a lock");
    for (name, target) in logins {
        let profile = Login {
            target: LoginTarget::from_key(target).expect("a target"),
            client_id: "c".to_owned(),
            access_token: "access-secret".into(),
            refresh_token: None,
            issued_at_ms: 0,
            expires_at_ms: 1,
            scope: String::new(),
            org_id: None,
            org_name: None,
        };
        store
            .put(&lock, name, &profile, TokenStorage::File, true)
            .expect("stored");
    }
}

const THIS_MACHINE: &str = "http://127.0.0.1:9";

#[rstest]
#[case::login_chooses_site(&[("a", "datadoghq.eu")], &[], &[], "https://api.datadoghq.eu a")]
#[case::current_login(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &[], &[], "https://api.us5.datadoghq.com b")]
#[case::profile_from_flag(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &["--profile", "a"], &[], "https://api.datadoghq.eu a")]
#[case::profile_from_environment(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &[], &[("LLMOBS_MCP_PROFILE", "a")], "https://api.datadoghq.eu a")]
#[case::login_at_named_site(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &["--site", "eu"], &[], "https://api.datadoghq.eu a")]
#[case::no_login_at_named_site(&[("a", "datadoghq.eu")], &["--site", "us5"], &[], "unchosen, us5.datadoghq.com for headers -")]
#[case::keys_precede_login(&[("a", "datadoghq.eu")], &[], &PAIR, "https://api.datadoghq.com -")]
#[case::named_profile_precedes_keys(&[("a", "datadoghq.eu")], &["--profile", "a"], &PAIR, "https://api.datadoghq.eu a")]
#[case::half_a_pair_does_not_count(&[("a", "datadoghq.eu")], &[], &[PAIR[0]], "https://api.datadoghq.eu a")]
#[case::local_needs_no_login(&[("a", "datadoghq.eu")], &["--local"], &[], "local -")]
#[case::loopback_login_chooses_nothing(&[("a", THIS_MACHINE)], &[], &[], "unchosen, datadoghq.com for headers -")]
#[case::loopback_login_with_api_url(&[("a", THIS_MACHINE)], &["--api-url", THIS_MACHINE], &[], "http://127.0.0.1:9 a")]
#[case::loopback_login_at_other_port(&[("a", THIS_MACHINE)], &["--api-url", "http://127.0.0.1:10"], &[], "http://127.0.0.1:10 -")]
#[case::proxy_gets_no_login(&[("a", "datadoghq.eu")], &["--api-url", "https://proxy.example.com"], &[], "https://proxy.example.com -")]
#[tokio::test]
async fn selects_stored_login(
    #[case] logins: &[(&str, &str)],
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] expected: &str,
) {
    let directory = tempfile::tempdir().expect("a directory");
    store_logins(directory.path(), logins).await;
    let settings = resolve_in(directory.path(), flags, env, "").expect("resolves");
    let login = settings.login.as_ref().map_or("-", |login| &login.name);
    assert_eq!(format!("{} {login}", upstream(&settings)), expected);
    let origin = settings.credential_in_use().map(|(_, origin)| origin);
    let from_login = origin.is_some_and(|origin| origin.contains("stored login"));
    assert_eq!(from_login, login != "-");
}

#[rstest]
#[case::unknown_profile(&["--profile", "x"], "no stored login has that name; stored are a, b, c")]
#[case::other_site(&["--profile", "a", "--site", "us5"], "is for datadoghq.eu, not for us5.datadoghq.com")]
#[case::loopback_without_api_url(&["--profile", "c"], "add --api-url http://127.0.0.1:9")]
#[case::proxy(&["--profile", "a", "--api-url", "https://proxy.example.com"], "for a Datadog site")]
#[case::several(&["--site", "eu"], "several stored logins match: a, b; select one with --profile")]
#[tokio::test]
async fn refuses_stored_login_that_does_not_match(#[case] flags: &[&str], #[case] words: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let logins = [
        ("a", "datadoghq.eu"),
        ("b", "datadoghq.eu"),
        ("c", THIS_MACHINE),
    ];
    store_logins(directory.path(), &logins).await;
    let error = resolve_in(directory.path(), flags, &[], "").expect_err("refused");
    assert!(error.to_string().contains(words), "{error}");
}

#[cfg(unix)]
#[test]
fn detects_secret_file_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bearer");
    std::fs::write(&path, "a-secret").expect("written");
    let env = [("LLMOBS_MCP_BEARER_FILE", path.to_str().expect("text"))];
    let variables = Environment::from_pairs(&env)
        .values(&mut Vec::new())
        .expect("values");
    let none = Values::default();
    let layers = Layers::new(&none, &variables, &none, directory.path());
    let sources = layers.secret_sources(&values::BEARER);
    for (mode, expected) in [(0o600, &[][..]), (0o640, &["LLMOBS_MCP_BEARER_FILE"][..])] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        assert_eq!(secrets::open_to_others(&sources), expected);
    }
}
