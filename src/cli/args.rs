//! The grammar of the command line.
//!
//! A flag is valid at any position: before the subcommand, after it, between its arguments. Flags of
//! several commands are global in clap's sense. [`reorder()`] moves the flags of one command behind
//! the command before clap parses the line, so that `llmobs-mcp --probe doctor` works.
//!
//! There are no flags for keys or tokens: other users of the machine can read the arguments of a
//! process.

#![expect(
    rustdoc::bare_urls,
    reason = "the doc comments of flags are the help, which has no links"
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

#[cfg_attr(
    not(feature = "local"),
    allow(
        dead_code,
        unused_imports,
        reason = "the local backend alone reads these flags"
    )
)]
mod local;
mod reorder;

use super::address::any;
use llmobs_authz::AuthMode;

pub(crate) use local::{DemoArgs, LocalArgs};
#[cfg(feature = "local")]
pub(crate) use local::{
    ExportArgs, ImportArgs, LocalCommand, PurgeArgs, ReindexArgs, StatsArgs, VerifyArgs,
};
pub(crate) use reorder::reorder;

const LONG_ABOUT: &str = "\
Datadog's `llmobs` toolset for any MCP client: traces, spans and errors of LLM applications.

Reads a Datadog site, or, without an account, an embedded backend that speaks the same \
API and receives what Datadog's SDKs and OpenTelemetry send.

Without a subcommand it serves MCP over stdio. To try it, run `llmobs-mcp demo`.";

const AFTER_LONG_HELP: &str = "\
Environment (precedence: flags, environment, config file):
  DD_SITE                  Datadog site, such as datadoghq.eu, or `local`
  DD_API_KEY, DD_APPLICATION_KEY (or DD_APP_KEY)
                           a pair of keys; reading a site requires both
  DD_ACCESS_TOKEN          an access token instead of the pair
  DD_API_KEY_FILE, …       files that hold these secrets; read again when they change
  LLMOBS_MCP_TOOLSETS, LLMOBS_MCP_OMIT_TOOLS, LLMOBS_MCP_READ_ONLY, LLMOBS_MCP_DATA_DIR,
  LLMOBS_MCP_RETAIN_DAYS, LLMOBS_MCP_RETAIN_BYTES, LLMOBS_MCP_CA_FILE, LLMOBS_MCP_LOG,
  LLMOBS_MCP_CONFIG, LLMOBS_MCP_PROFILE
                           the flags of the same names; DD_LLMOBS_READ_ONLY also sets --read-only
  LLMOBS_MCP_STATE_DIR     directory of stored logins (see `login`) and of users' sign-ins
  LLMOBS_MCP_AUTH, LLMOBS_MCP_PUBLIC_URL, LLMOBS_MCP_SECRET_KEY_FILE,
  LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS, LLMOBS_MCP_DATADOG_SIGN_IN,
  LLMOBS_MCP_DATADOG_CLIENT_ID
                           the flags of `serve` of the same names
  LLMOBS_MCP_BEARER        the secret of --auth static-bearer, or LLMOBS_MCP_BEARER_FILE
  LLMOBS_MCP_SECRET_KEY    the key of --auth oauth, or --secret-key-file
  HTTPS_PROXY, NO_PROXY    as usual

Exit codes:
  0  success
  1  a tool or a command failed
  2  the command line, the environment or the config file is wrong

Examples:
  llmobs-mcp demo
  llmobs-mcp serve --http 127.0.0.1:8787
  llmobs-mcp call search_llmobs_spans query='@status:error' from=now-1d
  llmobs-mcp doctor --probe";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "llmobs-mcp",
    version,
    about = "An MCP server for LLM observability: Datadog's llmobs toolset, with or without Datadog",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_LONG_HELP,
    after_help = "See `--help` for environment variables, exit codes and examples."
)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) shared: SharedFlags,
    /// The subcommand; absent means `serve --stdio`.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct SharedFlags {
    /// Read local data, even if Datadog credentials are set
    #[arg(long, global = true, help_heading = "Data source", conflicts_with_all = ["site", "api_url"])]
    pub(crate) local: bool,
    /// Datadog site, such as datadoghq.eu or us5, or `local`
    #[arg(long, global = true, help_heading = "Data source", value_name = "SITE")]
    pub(crate) site: Option<String>,
    /// Base URL of a Datadog-compatible API: https, or http on this machine
    ///
    /// Receives the credentials of the environment, so only this flag can set it.
    #[arg(
        long,
        global = true,
        help_heading = "Data source",
        value_name = "URL",
        conflicts_with = "site"
    )]
    pub(crate) api_url: Option<String>,
    /// Stored login to use (see `login`), even if keys are set in the environment
    #[arg(long, global = true, help_heading = "Data source", value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Data directory of the local backend
    #[arg(long, global = true, help_heading = "Data source", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// PEM file of certificates to trust in addition to the system's
    #[arg(long, global = true, help_heading = "Data source", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Toolsets to serve, separated by commas; `all` serves every toolset [default: llmobs]
    #[arg(long, global = true, help_heading = "Tools", value_name = "NAMES")]
    pub(crate) toolsets: Option<String>,
    /// Tools not to serve, separated by commas
    #[arg(long, global = true, help_heading = "Tools", value_name = "NAMES")]
    pub(crate) omit_tools: Option<String>,
    /// Serve no tool that writes
    #[arg(long, global = true, help_heading = "Tools")]
    pub(crate) read_only: bool,
    /// Config file (TOML) instead of the default one
    #[arg(long, global = true, help_heading = "General", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Log level on stderr: off, error, warn, info, debug or trace
    #[arg(long, global = true, help_heading = "General", value_name = "LEVEL")]
    pub(crate) log: Option<LevelFilter>,
    /// Log at level info; twice for debug, three times for trace
    #[arg(short, long, global = true, help_heading = "General", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve MCP over stdio (the default) or over HTTP
    Serve(ServeArgs),
    /// Run the local backend alone: a Datadog-compatible API and SDK intake
    Local(LocalArgs),
    /// Try it: sample data, MCP over HTTP, and commands to connect a client
    Demo(DemoArgs),
    /// Call one tool and print its JSON
    Call(CallArgs),
    /// List the tools
    Tools(ToolsArgs),
    /// Check the configuration and the upstream
    Doctor(DoctorArgs),
    /// Sign in at Datadog in the browser and store the login
    Login(LoginArgs),
    /// Revoke and delete a stored login
    Logout(LogoutArgs),
    /// List the stored logins and the credential in use
    Status,
    /// Show the upstream and the source of the credential, never its value
    Whoami(WhoamiArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

impl Default for Command {
    fn default() -> Self {
        Self::Serve(ServeArgs::default())
    }
}

impl Command {
    /// The log level of a command if no setting names one: `info` for servers in a terminal, `warn` for
    /// all others.
    pub(crate) fn default_log(&self) -> LevelFilter {
        match self {
            Self::Serve(ServeArgs { http: Some(_), .. })
            | Self::Local(LocalArgs { command: None, .. }) => LevelFilter::INFO,
            _ => LevelFilter::WARN,
        }
    }
}

/// Flags of `serve`.
#[derive(Debug, Default, Args)]
pub(crate) struct ServeArgs {
    /// Speak MCP on standard input and output (the default)
    #[arg(long, conflicts_with = "http")]
    pub(crate) stdio: bool,
    /// Speak MCP over Streamable HTTP at this address, at /mcp
    ///
    /// A request can restrict the tools with ?toolsets=, ?omit_tools= and ?read_only=true. An address
    /// other than loopback requires --auth and --public-url.
    #[arg(long, value_name = "ADDR", value_parser = any)]
    pub(crate) http: Option<SocketAddr>,
    /// Who may call over HTTP, and with which Datadog credentials
    ///
    /// none: every program on this machine, with the server's credentials. datadog-headers: each
    /// request brings its own credentials, in DD_API_KEY and DD_APPLICATION_KEY or as a bearer token.
    /// static-bearer: callers that send LLMOBS_MCP_BEARER, with the server's credentials. oauth: users
    /// sign in here with their own credentials. The default is datadog-headers, on loopback only. See
    /// docs/deployment.md.
    #[arg(long, value_name = "MODE", value_parser = mode(), requires = "http", conflicts_with = "stdio")]
    pub(crate) auth: Option<AuthMode>,
    /// URL that callers use, such as https://mcp.example.com
    ///
    /// Host and Origin may name its host, in addition to those of loopback.
    #[arg(long, value_name = "URL", requires = "http")]
    pub(crate) public_url: Option<String>,
    /// File with the key that encrypts the Datadog credentials of users: 64 hexadecimal characters
    /// (--auth oauth)
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// Refuse client ids that are URLs, so that no caller can make this server send requests to a host
    /// (--auth oauth)
    #[arg(long, requires = "http")]
    pub(crate) no_client_metadata_documents: bool,
    /// Let users sign in at Datadog instead of giving a token or keys (--auth oauth)
    ///
    /// This server must be registered at Datadog, with the redirect URI PUBLIC_URL/oauth/callback. It
    /// registers itself; if Datadog refuses that, --datadog-client-id names a registered client.
    #[arg(long, requires = "http")]
    pub(crate) datadog_sign_in: bool,
    /// The client id of this server at Datadog (--datadog-sign-in), instead of registering one
    #[arg(long, value_name = "ID", requires = "http")]
    pub(crate) datadog_client_id: Option<String>,
}

/// Parses a mode, and lists all modes in the help.
fn mode() -> impl TypedValueParser<Value = AuthMode> {
    PossibleValuesParser::new(AuthMode::ALL.map(AuthMode::name))
        .try_map(|name| name.parse::<AuthMode>())
}

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp call search_llmobs_spans ml_app=support-agent from=now-1d limit=5
  llmobs-mcp call get_llmobs_span_content --json '{\"trace_id\":\"…\",\"span_id\":\"…\",\"field\":\"messages\"}'
  llmobs-mcp tools        lists the tools; `tools --json` with their arguments

Exit codes: 0 the tool succeeded, 1 the tool failed (prints its error as JSON), 2 wrong usage.")]
pub(crate) struct CallArgs {
    /// The tool, such as search_llmobs_spans
    pub(crate) tool: String,
    /// Arguments; lists and objects as JSON, or a key given several times for a list
    #[arg(value_name = "KEY=VALUE", conflicts_with = "json")]
    pub(crate) arguments: Vec<String>,
    /// All arguments as one JSON object; `-` reads it from standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) json: Option<String>,
}

/// Flags of `tools`.
#[derive(Debug, Args)]
pub(crate) struct ToolsArgs {
    /// Print what an MCP client receives: names, schemas, annotations
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Send one small read to each endpoint that the tools need
    #[arg(long)]
    pub(crate) probe: bool,
}

/// Flags of `login`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp login --site datadoghq.eu
  llmobs-mcp login --site us5 --profile work --read-only
  llmobs-mcp login --no-browser        prints the address; accepts the redirect as pasted text

Keys in the environment take precedence over a stored login, unless --profile names one.")]
pub(crate) struct LoginArgs {
    /// Scopes to request, separated by commas or given several times
    /// [default: llm_observability_read and, without --read-only, llm_observability_write]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
    /// Print the address instead of opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Id of the organisation to sign in to
    #[arg(long, value_name = "UUID")]
    pub(crate) org: Option<String>,
    /// Port of 127.0.0.1 that receives the redirect; 0 selects a free one
    /// [default: the first free one of 8000, 8080, 8888, 9000]
    #[arg(long, value_name = "PORT")]
    pub(crate) callback_port: Option<u16>,
    /// Client name to register [default: llmobs-mcp]
    #[arg(long, value_name = "NAME")]
    pub(crate) client_name: Option<String>,
    /// Where to store the tokens
    #[arg(long, value_enum, default_value_t = Storage::File)]
    pub(crate) storage: Storage,
    /// Seconds to wait for the browser
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
}

/// Where tokens are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Storage {
    /// A file that only you can read
    File,
    /// The system's keyring if this build and this session have one, otherwise a file, with a warning
    Keyring,
}

/// Flags of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Every stored login, not only the current one
    #[arg(long, conflicts_with = "profile")]
    pub(crate) all: bool,
}

/// Flags of `whoami`.
#[derive(Debug, Args)]
pub(crate) struct WhoamiArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory as _;
    use rstest::rstest;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        let words = std::iter::once("llmobs-mcp").chain(line.iter().copied());
        Cli::try_parse_from(reorder(words.map(OsString::from).collect()))
    }

    #[test]
    fn grammar_passes_clap_checks() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        let root = Cli::command();
        for arg in root
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .chain(root.get_arguments())
        {
            let name = arg.get_long().unwrap_or_default();
            if let Some(file) = name.strip_suffix("-file") {
                assert_eq!(
                    arg.get_value_names().map(|names| names[0].as_str()),
                    Some("FILE"),
                    "{file}"
                );
                continue;
            }
            for word in ["key", "token", "secret", "password", "bearer"] {
                assert!(!name.contains(word), "--{name}");
            }
        }
    }

    #[rstest]
    #[case::before(&["--site", "eu", "-v", "--read-only", "call", "search_llmobs_spans", "limit=5"])]
    #[case::after(&["call", "search_llmobs_spans", "limit=5", "--site", "eu", "--read-only", "-v"])]
    #[case::between(&["call", "--site=eu", "search_llmobs_spans", "-v", "--read-only", "limit=5"])]
    #[case::around(&["-v", "call", "search_llmobs_spans", "--site", "eu", "limit=5", "--read-only"])]
    fn accepts_shared_flag_at_any_position(#[case] line: &[&str]) {
        let cli = parse(line).expect("parses");
        assert_eq!(cli.shared.site.as_deref(), Some("eu"));
        assert!(cli.shared.read_only);
        assert_eq!(cli.shared.verbose, 1);
        let Some(Command::Call(call)) = cli.command else {
            panic!("call");
        };
        assert_eq!(call.tool, "search_llmobs_spans");
        assert_eq!(call.arguments, ["limit=5"]);
    }

    #[rstest]
    #[case(&["--http", "127.0.0.1:1", "serve"])]
    #[case(&["serve", "--http", "127.0.0.1:1"])]
    #[case(&["--http=127.0.0.1:1"])]
    #[case(&["--local", "--http", "127.0.0.1:1"])]
    #[case(&["--auth", "none", "--http", "127.0.0.1:1"])]
    #[case(&["--auth=oauth", "serve", "--http", "127.0.0.1:1", "--public-url", "http://127.0.0.1:1"])]
    fn parses_serve_over_http(#[case] line: &[&str]) {
        let Some(Command::Serve(serve)) = parse(line).expect("parses").command else {
            panic!("serve");
        };
        assert_eq!(serve.http.map(|a| a.port()), Some(1));
    }

    #[rstest]
    #[case(&["--json", "tools"])]
    #[case(&["tools", "--json"])]
    #[case(&["--json", "tools", "--toolsets", "all"])]
    fn parses_tools_with_json(#[case] line: &[&str]) {
        let Some(Command::Tools(tools)) = parse(line).expect("parses").command else {
            panic!("tools");
        };
        assert!(tools.json);
    }

    #[rstest]
    #[case(&["--json", "{\"limit\":5}", "call", "t"])]
    #[case(&["call", "--json", "{\"limit\":5}", "t"])]
    #[case(&["call", "t", "--json={\"limit\":5}"])]
    fn parses_call_with_json(#[case] line: &[&str]) {
        let Some(Command::Call(call)) = parse(line).expect("parses").command else {
            panic!("call");
        };
        assert_eq!(call.json.as_deref(), Some("{\"limit\":5}"));
    }

    #[rstest]
    #[case(&["local", "purge", "--older-than", "30", "--data-dir", "d", "--json"])]
    #[case(&["local", "--data-dir", "d", "purge", "--older-than", "30", "--json"])]
    #[case(&["--data-dir", "d", "--json", "local", "--older-than", "30", "purge"])]
    #[case(&["--older-than=30", "--data-dir=d", "local", "--json", "purge"])]
    fn accepts_flag_at_any_position_around_local_subcommand(#[case] line: &[&str]) {
        let cli = parse(line).expect("parses");
        assert_eq!(cli.shared.data_dir, Some(PathBuf::from("d")));
        let Some(Command::Local(LocalArgs {
            command: Some(LocalCommand::Purge(purge)),
            ..
        })) = cli.command
        else {
            panic!("local purge");
        };
        assert!(purge.json && purge.older_than.is_some());
    }

    #[test]
    fn local_without_subcommand_refuses_subcommand_flags() {
        let Some(Command::Local(local)) =
            parse(&["--listen", "1", "local"]).expect("parses").command
        else {
            panic!("local");
        };
        assert!(local.command.is_none() && local.listen.is_some());
        for line in [
            &["local", "--down-to", "1GB"][..],
            &["local", "stats", "--listen", "1"],
        ] {
            assert_eq!(parse(line).expect_err("refused").exit_code(), 2);
        }
    }

    #[test]
    fn empty_line_means_stdio() {
        let cli = parse(&[]).expect("parses");
        assert!(cli.command.is_none());
        assert!(
            parse(&["--site", "call"])
                .expect("a site named call")
                .command
                .is_none()
        );
    }

    #[rstest]
    #[case::stdio_and_http(&["serve", "--stdio", "--http", "127.0.0.1:1"])]
    #[case::other_machines(&["local", "--listen", "0.0.0.0:8126"])]
    #[case::unknown_mode(&["serve", "--http", "127.0.0.1:1", "--auth", "basic"])]
    #[case::mode_of_stdio(&["serve", "--stdio", "--auth", "none"])]
    #[case::bearer_as_flag(&["serve", "--http", "127.0.0.1:1", "--bearer", "x"])]
    #[case::secret_key_as_flag(&["serve", "--http", "127.0.0.1:1", "--secret-key", "x"])]
    #[case::two_upstreams(&["--local", "call", "--api-url", "http://127.0.0.1:1", "t"])]
    #[case::two_kinds_of_arguments(&["call", "t", "a=b", "--json", "{}"])]
    #[case::no_tool(&["call"])]
    #[case::unknown_command(&["cal", "t"])]
    #[case::key_as_flag(&["--api-key", "x", "call", "t"])]
    #[case::bad_level(&["--log", "loud", "tools"])]
    fn wrong_usage_exits_with_2(#[case] line: &[&str]) {
        assert_eq!(parse(line).expect_err("refused").exit_code(), 2);
    }

    #[test]
    fn help_and_version_exit_with_0() {
        for line in [&["--help", "call"][..], &["--version", "call"][..]] {
            assert_eq!(parse(line).expect_err("prints").exit_code(), 0);
        }
    }
}
