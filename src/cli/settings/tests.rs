//! Settings as a table: what was said where, and what follows.

use super::*;
use crate::server::CredentialSource;
use datadog_llmobs::Credential;
use rstest::rstest;

/// Resolves with a config file of this text (none if empty), away from this machine's own.
fn resolve(flags: &[&str], env: &[(&str, &str)], toml: &str) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().expect("a folder");
    resolve_in(folder.path(), flags, env, toml)
}

pub(crate) fn resolve_in(
    folder: &Path,
    flags: &[&str],
    env: &[(&str, &str)],
    toml: &str,
) -> Result<Settings, SettingsError> {
    use clap::Parser;
    let path = folder.join("config.toml");
    std::fs::write(&path, toml).expect("written");
    let words = std::iter::once("llmobs-mcp").chain(flags.iter().copied());
    let mut shared = crate::cli::args::Cli::try_parse_from(words)
        .expect("flags")
        .shared;
    shared.config.get_or_insert(path);
    let state = folder.join("state");
    let mut env = env.to_vec();
    env.push(("LLMOBS_MCP_STATE_DIR", state.to_str().expect("text")));
    Settings::resolve(&shared, &Environment::of(&env), Need::Upstream)
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
#[case::other_name_of_the_key(&[], &[PAIR[0], ("DD_APP_KEY", "b")], "", "https://api.datadoghq.com")]
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
#[case::pair_of_two_places(&[], &[PAIR[0]], "application_key = 'b'", "https://api.datadoghq.com")]
#[case::pair_of_the_file(&[], &[], "api_key = 'a'\napp_key = 'b'", "https://api.datadoghq.com")]
fn the_upstream(
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
#[case::http_elsewhere(&["--api-url", "http://example.com"], &[], "", "https")]
#[case::unknown_key(&[], &[], "tool_sets = ['llmobs']", "unknown key tool_sets; did you mean toolsets?")]
#[case::api_url_in_file(&[], &[], "api_url = 'https://x'", "flag --api-url")]
#[case::wrong_type(&[], &[], "read_only = 'yes'", "read_only must be true or false")]
#[case::not_toml(&[], &[], "site = 'eu'\napi_key = hunter2", "in line 2")]
#[case::bad_level(&[], &[("LLMOBS_MCP_LOG", "loud")], "", "LLMOBS_MCP_LOG: a level is one of")]
#[case::missing_secret_file(&[], &[("DD_API_KEY_FILE", "nowhere/at/all")], "", "DD_API_KEY_FILE names a file that cannot be read")]
#[case::missing_config(&["--config", "nowhere.toml"], &[], "", "nowhere.toml cannot be read")]
#[case::line_break_in_key(&[], &[PAIR[1], ("DD_API_KEY", "hun\nter2")], "", "characters")]
fn what_is_refused(
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: &str,
) {
    let error = resolve(flags, env, toml).expect_err("refused");
    let text = format!("{error} {}", error.mend().unwrap_or_default());
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("hunter2"), "a secret in an error: {text}");
}

#[rstest]
#[case::nothing(&[], &[], "", false)]
#[case::flag(&["--read-only"], &[("LLMOBS_MCP_READ_ONLY", "false")], "read_only = false", true)]
#[case::env(&[], &[("LLMOBS_MCP_READ_ONLY", "1")], "", true)]
#[case::datadogs_env(&[], &[("DD_LLMOBS_READ_ONLY", "true")], "", true)]
#[case::env_cannot_loosen(&[], &[("LLMOBS_MCP_READ_ONLY", "false")], "read_only = true", true)]
#[case::odd_value_tightens(&[], &[("DD_LLMOBS_READ_ONLY", "maybe")], "", true)]
#[case::off(&[], &[("DD_LLMOBS_READ_ONLY", "0")], "read_only = false", false)]
fn read_only_only_tightens(
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] toml: &str,
    #[case] expected: bool,
) {
    assert_eq!(
        resolve(flags, env, toml).ok().map(|s| s.wish.read_only),
        Some(expected)
    );
}

#[test]
fn lists_come_from_the_nearest_source_that_names_any() {
    let env = [("LLMOBS_MCP_TOOLSETS", "b"), ("LLMOBS_MCP_OMIT_TOOLS", "")];
    let toml = "toolsets = ['c']\nomit_tools = 'x, Y'";
    let wish = resolve(&[], &env, toml).expect("resolves").wish;
    assert_eq!(wish.toolsets, Some(vec!["b".to_owned()]));
    assert_eq!(wish.omit, ["x", "y"]);
    let wish = resolve(&["--toolsets", "a,d"], &env, toml)
        .expect("resolves")
        .wish;
    assert_eq!(wish.toolsets, Some(vec!["a".to_owned(), "d".to_owned()]));
}

#[test]
fn paths_of_the_file_are_relative_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = resolve_in(folder.path(), &[], &[], "data_dir = 'data'").expect("resolves");
    assert_eq!(settings.data_dir, folder.path().join("data"));
    assert!(settings.data_dir_named);
    let flags = ["--data-dir", "elsewhere"];
    let settings = resolve_in(folder.path(), &flags, &[], "data_dir = 'data'").expect("resolves");
    assert_eq!(settings.data_dir, Path::new("elsewhere"));
}

#[test]
fn a_mounted_secret_is_read_again_when_it_changes_and_kept_when_it_vanishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = folder.path().join("token");
    std::fs::write(&mount, "first\n").expect("written");
    let env = [("DD_ACCESS_TOKEN_FILE", mount.to_str().expect("text"))];
    let settings = resolve_in(folder.path(), &[], &env, "").expect("resolves");
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
fn remarks_name_what_had_no_effect() {
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
    assert!(notes.contains("flag --api-url only"), "{notes}");
    assert!(notes.contains("--site eu has no effect yet"), "{notes}");
}

#[test]
fn a_command_without_an_upstream_is_not_stopped_by_wrong_credentials() {
    let env = [("DD_SITE", "ddog-gov.com"), PAIR[1], ("DD_APP_KEY", "c")];
    let shared = Shared {
        config: None,
        ..Shared::default()
    };
    assert!(Settings::resolve(&shared, &Environment::of(&env), Need::NoUpstream).is_ok());
}

/// Keeps logins named so, each at that place; the last one is current.
pub(crate) async fn keep(folder: &Path, logins: &[(&str, &str)]) {
    use datadog_llmobs::login::{Login, LoginStore, LoginTarget, TokenStorage};
    let store = LoginStore::new(folder.join("state"));
    let lock = store.lock().await.expect("a lock");
    for (name, place) in logins {
        let profile = Login {
            target: LoginTarget::from_key(place).expect("a place"),
            client_id: "c".to_owned(),
            access: "access-secret".into(),
            refresh: None,
            issued_at_ms: 0,
            expires_at_ms: 1,
            scope: String::new(),
            org_id: None,
            org_name: None,
        };
        store
            .put(&lock, name, &profile, TokenStorage::File, true)
            .expect("kept");
    }
}

const HERE: &str = "http://127.0.0.1:9";

#[rstest]
#[case::it_chooses_its_site(&[("a", "datadoghq.eu")], &[], &[], "https://api.datadoghq.eu a")]
#[case::the_current_one(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &[], &[], "https://api.us5.datadoghq.com b")]
#[case::a_profile(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &["--profile", "a"], &[], "https://api.datadoghq.eu a")]
#[case::a_profile_of_the_environment(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &[], &[("LLMOBS_MCP_PROFILE", "a")], "https://api.datadoghq.eu a")]
#[case::the_one_of_the_site(&[("a", "datadoghq.eu"), ("b", "us5.datadoghq.com")], &["--site", "eu"], &[], "https://api.datadoghq.eu a")]
#[case::none_of_the_site(&[("a", "datadoghq.eu")], &["--site", "us5"], &[], "unchosen, us5.datadoghq.com for headers -")]
#[case::keys_come_first(&[("a", "datadoghq.eu")], &[], &PAIR, "https://api.datadoghq.com -")]
#[case::a_named_profile_before_keys(&[("a", "datadoghq.eu")], &["--profile", "a"], &PAIR, "https://api.datadoghq.eu a")]
#[case::half_a_pair_is_none(&[("a", "datadoghq.eu")], &[], &[PAIR[0]], "https://api.datadoghq.eu a")]
#[case::local_is_local(&[("a", "datadoghq.eu")], &["--local"], &[], "local -")]
#[case::a_server_here_chooses_nothing(&[("a", HERE)], &[], &[], "unchosen, datadoghq.com for headers -")]
#[case::a_server_here_that_is_named(&[("a", HERE)], &["--api-url", HERE], &[], "http://127.0.0.1:9 a")]
#[case::another_server_here(&[("a", HERE)], &["--api-url", "http://127.0.0.1:10"], &[], "http://127.0.0.1:10 -")]
#[case::a_proxy_gets_no_login(&[("a", "datadoghq.eu")], &["--api-url", "https://proxy.example.com"], &[], "https://proxy.example.com -")]
#[tokio::test]
async fn which_stored_login_counts(
    #[case] kept: &[(&str, &str)],
    #[case] flags: &[&str],
    #[case] env: &[(&str, &str)],
    #[case] expected: &str,
) {
    let folder = tempfile::tempdir().expect("a folder");
    keep(folder.path(), kept).await;
    let settings = resolve_in(folder.path(), flags, env, "").expect("resolves");
    let login = settings.login.as_ref().map_or("-", |login| &login.name);
    assert_eq!(format!("{} {login}", upstream(&settings)), expected);
    let (_, origin) = settings.in_force();
    assert_eq!(origin.contains("stored login"), login != "-", "{origin}");
}

#[rstest]
#[case::no_such(&["--profile", "x"], "no stored login has that name; there are a, b, c")]
#[case::other_site(&["--profile", "a", "--site", "us5"], "is for datadoghq.eu, and this is us5.datadoghq.com")]
#[case::here_unnamed(&["--profile", "c"], "add --api-url http://127.0.0.1:9")]
#[case::proxy(&["--profile", "a", "--api-url", "https://proxy.example.com"], "for a Datadog site")]
#[case::several(&["--site", "eu"], "several stored logins are for it: a, b; name one with --profile")]
#[tokio::test]
async fn stored_logins_that_do_not_fit_are_refused(#[case] flags: &[&str], #[case] words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = [("a", "datadoghq.eu"), ("b", "datadoghq.eu"), ("c", HERE)];
    keep(folder.path(), &kept).await;
    let error = resolve_in(folder.path(), flags, &[], "").expect_err("refused");
    assert!(error.to_string().contains(words), "{error}");
}

#[cfg(unix)]
#[test]
fn a_secret_file_that_others_can_read_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bearer");
    std::fs::write(&path, "a-secret").expect("written");
    let env = [("LLMOBS_MCP_BEARER_FILE", path.to_str().expect("text"))];
    let sources = secrets::said(
        &Environment::of(&env),
        &["LLMOBS_MCP_BEARER"],
        &file::Values::default(),
        &["bearer"],
    );
    for (mode, noticed) in [(0o600, &[][..]), (0o640, &["LLMOBS_MCP_BEARER_FILE"][..])] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        assert_eq!(secrets::open_to_others(&sources), noticed);
    }
}
