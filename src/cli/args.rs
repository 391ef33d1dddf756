//! The grammar of the command line.
//!
//! A flag may stand anywhere: before the subcommand, after it, between its arguments. The flags that
//! several commands share are global in clap's sense; those of one command are moved behind it by
//! [`hoist()`] before clap looks, so that `llmobs-mcp --probe doctor` means what it says.
//!
//! There are no flags for keys or tokens: other users of a machine can read a process's arguments.

// The comments of flags are the program's help, which has no links.
#![allow(rustdoc::bare_urls)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use tracing::level_filters::LevelFilter;

mod hoist;
mod local;

use super::address::{any, loopback};
use super::settings::{bytes, days};
use llmobs_authz::Mode;

pub(crate) use hoist::hoist;
pub(crate) use local::{
    ExportArgs, ImportArgs, LocalCommand, PurgeArgs, ReindexArgs, StatsArgs, VerifyArgs,
};

const LONG_ABOUT: &str = "\
Datadog's `llmobs` toolset for any MCP client: traces, spans and errors of LLM applications.

Works over a Datadog site, or with no account at all over an embedded backend that speaks the same \
API and takes in what Datadog's SDKs and OpenTelemetry send.

With no subcommand it serves MCP over stdio. New here? Run `llmobs-mcp demo`.";

const AFTER_LONG_HELP: &str = "\
Environment (flags win over it, it wins over the config file):
  DD_SITE                  Datadog site, such as datadoghq.eu, or `local`
  DD_API_KEY, DD_APPLICATION_KEY (or DD_APP_KEY)
                           a pair of keys; both are needed to read a site
  DD_ACCESS_TOKEN          an access token instead of the pair
  DD_API_KEY_FILE, …       each of these may be read from a file; it is read again when it changes
  LLMOBS_MCP_TOOLSETS, LLMOBS_MCP_OMIT_TOOLS, LLMOBS_MCP_READ_ONLY, LLMOBS_MCP_DATA_DIR,
  LLMOBS_MCP_RETAIN_DAYS, LLMOBS_MCP_RETAIN_BYTES, LLMOBS_MCP_CA_FILE, LLMOBS_MCP_LOG,
  LLMOBS_MCP_CONFIG, LLMOBS_MCP_PROFILE
                           as the flags of these names; DD_LLMOBS_READ_ONLY also makes read-only
  LLMOBS_MCP_STATE_DIR     folder of stored logins (see `login`) and of users' sign-ins
  LLMOBS_MCP_AUTH, LLMOBS_MCP_PUBLIC_URL, LLMOBS_MCP_SECRET_KEY_FILE,
  LLMOBS_MCP_NO_CLIENT_METADATA_DOCUMENTS, LLMOBS_MCP_DATADOG_SIGN_IN,
  LLMOBS_MCP_DATADOG_CLIENT_ID
                           as the flags of `serve` of these names
  LLMOBS_MCP_BEARER        the secret of --auth static-bearer; LLMOBS_MCP_BEARER_FILE names a file
  LLMOBS_MCP_SECRET_KEY    the key of --auth oauth, unless it is in a file
  HTTPS_PROXY, NO_PROXY    as usual

Exit codes:
  0  all went well
  1  a tool or the work failed
  2  the command line, the environment or the config file is wrong

Examples:
  llmobs-mcp demo
  llmobs-mcp serve --http 127.0.0.1:8787
  llmobs-mcp call search_llmobs_spans query='@status:error' from=now-1d
  llmobs-mcp doctor --probe";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "llmobs-mcp",
    version,
    about = "An MCP server for LLM observability: Datadog's llmobs toolset, with or without Datadog",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_LONG_HELP,
    after_help = "`--help` tells more: environment variables, exit codes, examples."
)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) shared: Shared,
    /// What to do; nothing means `serve --stdio`.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags of every command.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct Shared {
    /// Read the embedded backend of this machine, whatever credentials are set
    #[arg(long, global = true, help_heading = "Where the data is", conflicts_with_all = ["site", "api_url"])]
    pub(crate) local: bool,
    /// Datadog site, such as datadoghq.eu or us5, or `local`
    #[arg(
        long,
        global = true,
        help_heading = "Where the data is",
        value_name = "SITE"
    )]
    pub(crate) site: Option<String>,
    /// Base of a Datadog-compatible API: https, or http on this machine
    ///
    /// Credentials of the environment are sent there, which is why this can only be a flag.
    #[arg(
        long,
        global = true,
        help_heading = "Where the data is",
        value_name = "URL",
        conflicts_with = "site"
    )]
    pub(crate) api_url: Option<String>,
    /// Stored login to use (see `login`), also beside keys in the environment
    #[arg(
        long,
        global = true,
        help_heading = "Where the data is",
        value_name = "NAME"
    )]
    pub(crate) profile: Option<String>,
    /// Folder of the embedded backend's data
    #[arg(
        long,
        global = true,
        help_heading = "Where the data is",
        value_name = "DIR"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// PEM file of certificates to trust besides the system's
    #[arg(
        long,
        global = true,
        help_heading = "Where the data is",
        value_name = "FILE"
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// Toolsets to serve, separated by commas; `all` for every one [default: llmobs]
    #[arg(
        long,
        global = true,
        help_heading = "What is served",
        value_name = "NAMES"
    )]
    pub(crate) toolsets: Option<String>,
    /// Tools to leave out, separated by commas
    #[arg(
        long,
        global = true,
        help_heading = "What is served",
        value_name = "NAMES"
    )]
    pub(crate) omit_tools: Option<String>,
    /// Leave out every tool that writes
    #[arg(long, global = true, help_heading = "What is served")]
    pub(crate) read_only: bool,
    /// Config file (TOML) instead of the default one
    #[arg(
        long,
        global = true,
        help_heading = "This program",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    /// What to log to stderr: off, error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        help_heading = "This program",
        value_name = "LEVEL"
    )]
    pub(crate) log: Option<LevelFilter>,
    /// Log more; twice for debug, three times for trace
    #[arg(short, long, global = true, help_heading = "This program", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve MCP over stdio (the default) or over HTTP
    Serve(ServeArgs),
    /// Run the local backend alone: a Datadog-compatible API and SDK intake
    Local(LocalArgs),
    /// Try it: sample data, MCP over HTTP, and lines to paste into your client
    Demo(DemoArgs),
    /// Call one tool and print its JSON
    Call(CallArgs),
    /// List the tools
    Tools(ToolsArgs),
    /// Tell what is configured, what answers and what is missing
    Doctor(DoctorArgs),
    /// Sign in at Datadog in the browser and keep the login
    Login(LoginArgs),
    /// Revoke a stored login and forget it
    Logout(LogoutArgs),
    /// List the stored logins and say which credential is in force
    Status,
    /// Say which upstream answers and which credential is used, never its value
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
    /// How much a command logs when nobody said: servers in a terminal a little, the rest only what
    /// went wrong.
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
    /// A request may narrow the tools with ?toolsets=, ?omit_tools= and ?read_only=true. Addresses
    /// other than loopback need --auth and --public-url.
    #[arg(long, value_name = "ADDR", value_parser = any)]
    pub(crate) http: Option<SocketAddr>,
    /// Who may call over HTTP, and with whose Datadog credentials
    ///
    /// none: everybody on this machine, with the server's own. datadog-headers: callers bring their
    /// own with each request, in DD_API_KEY and DD_APPLICATION_KEY or as a bearer token. static-bearer:
    /// whoever knows LLMOBS_MCP_BEARER, with the server's own. oauth: users sign in here and give
    /// their own. Without it datadog-headers, on loopback only. docs/deployment.md tells more.
    #[arg(long, value_name = "MODE", value_parser = mode(), requires = "http", conflicts_with = "stdio")]
    pub(crate) auth: Option<Mode>,
    /// Where callers reach this server, such as https://mcp.example.com
    ///
    /// Its host is accepted in Host and Origin besides those of loopback.
    #[arg(long, value_name = "URL", requires = "http")]
    pub(crate) public_url: Option<String>,
    /// File of the key that Datadog credentials of users are encrypted with: 64 hexadecimal
    /// characters (--auth oauth)
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) secret_key_file: Option<PathBuf>,
    /// Take no URL for a client's id (--auth oauth): no request of this server goes to a host that a
    /// caller names
    #[arg(long, requires = "http")]
    pub(crate) no_client_metadata_documents: bool,
    /// Let users sign in at Datadog instead of giving a token or keys (--auth oauth)
    ///
    /// Datadog has to know this server, with the redirect address PUBLIC_URL/oauth/callback. The server
    /// registers itself; where Datadog refuses that, --datadog-client-id names a client that it knows.
    #[arg(long, requires = "http")]
    pub(crate) datadog_sign_in: bool,
    /// The client id of this server at Datadog (--datadog-sign-in), instead of registering one
    #[arg(long, value_name = "ID", requires = "http")]
    pub(crate) datadog_client_id: Option<String>,
}

/// Reads a mode, and lists all in the help.
fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::name)).try_map(|name| name.parse::<Mode>())
}

/// Flags of `local`, and what else can be done with its data.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct LocalArgs {
    /// Without one it serves
    #[command(subcommand)]
    pub(crate) command: Option<LocalCommand>,
    /// Where to listen [default: 127.0.0.1:8126, the Agent's address, or a free port if it is taken]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
    /// Take in OpenTelemetry traces here too, at /v1/traces; without an address, where exporters
    /// send by default: 127.0.0.1:4318
    #[arg(long, value_name = "ADDR", value_parser = loopback, num_args = 0..=1,
        default_missing_value = "127.0.0.1:4318")]
    pub(crate) otlp_listen: Option<SocketAddr>,
    /// Hold to Datadog's limits on what is sent: refuse spans and evaluations older than 24 hours,
    /// drop input and output of spans of 5 MB and more [default: any age, any size that fits a
    /// request]. The limits on answers always hold: 10 spans a page unless asked for up to 5,000,
    /// 50 MB a page, the last 15 minutes
    #[arg(long)]
    pub(crate) datadog_limits: bool,
    /// Remove spans that began more than so many days ago [default: keep all]
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) retain_days: Option<std::time::Duration>,
    /// Remove the oldest spans while the store holds more, such as 500MB or 20GB [default: keep all]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) retain_bytes: Option<u64>,
    /// Leave undocumented attributes out of search answers, as a Datadog site may (for tests)
    #[arg(long, hide = true)]
    pub(crate) documented_only: bool,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where MCP listens [default: 127.0.0.1:8787, or the next free port]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) http: Option<SocketAddr>,
    /// Where the local backend listens [default: 127.0.0.1:8126, or a free port if it is taken]
    #[arg(long, value_name = "ADDR", value_parser = loopback)]
    pub(crate) listen: Option<SocketAddr>,
    /// Leave undocumented attributes out of search answers, as a Datadog site may (for tests)
    #[arg(long, hide = true)]
    pub(crate) documented_only: bool,
}

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp call search_llmobs_spans ml_app=support-agent from=now-1d limit=5
  llmobs-mcp call get_llmobs_span_content --json '{\"trace_id\":\"…\",\"span_id\":\"…\",\"field\":\"messages\"}'
  llmobs-mcp tools        lists the tools; `tools --json` with their arguments

Exit codes: 0 the tool answered, 1 the tool failed (its error JSON is printed), 2 wrong usage.")]
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
    /// Print what an MCP client gets: names, schemas, annotations
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Try each endpoint that the tools need with one small read
    #[arg(long)]
    pub(crate) probe: bool,
}

/// Flags of `login`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  llmobs-mcp login --site datadoghq.eu
  llmobs-mcp login --site us5 --profile work --read-only
  llmobs-mcp login --no-browser        prints the address; the answer may be pasted

Keys in the environment win over a stored login unless --profile names one.")]
pub(crate) struct LoginArgs {
    /// Scopes to ask for, separated by commas or given several times
    /// [default: llm_observability_read and, without --read-only, llm_observability_write]
    #[arg(long, value_name = "SCOPE")]
    pub(crate) scope: Vec<String>,
    /// Print the address instead of opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
    /// Organisation that must be signed in to, by its id
    #[arg(long, value_name = "UUID")]
    pub(crate) org: Option<String>,
    /// Port of 127.0.0.1 that the browser comes back to; 0 takes any free one
    /// [default: the first free one of 8000, 8080, 8888, 9000]
    #[arg(long, value_name = "PORT")]
    pub(crate) callback_port: Option<u16>,
    /// Name to register under [default: llmobs-mcp]
    #[arg(long, value_name = "NAME")]
    pub(crate) client_name: Option<String>,
    /// Where the tokens are kept
    #[arg(long, value_enum, default_value_t = Storage::File)]
    pub(crate) storage: Storage,
    /// Seconds to wait for the browser
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
}

/// Where tokens are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Storage {
    /// A file that only you can read
    File,
    /// The system's keyring, if this build and this session have one; else the file, with a warning
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
        Cli::try_parse_from(hoist(words.map(OsString::from).collect()))
    }

    #[test]
    fn the_grammar_is_sound() {
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
    fn a_shared_flag_may_stand_anywhere(#[case] line: &[&str]) {
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
    fn serve_over_http(#[case] line: &[&str]) {
        let Some(Command::Serve(serve)) = parse(line).expect("parses").command else {
            panic!("serve");
        };
        assert_eq!(serve.http.map(|a| a.port()), Some(1));
    }

    #[rstest]
    #[case(&["--json", "tools"])]
    #[case(&["tools", "--json"])]
    #[case(&["--json", "tools", "--toolsets", "all"])]
    fn tools_as_json(#[case] line: &[&str]) {
        let Some(Command::Tools(tools)) = parse(line).expect("parses").command else {
            panic!("tools");
        };
        assert!(tools.json);
    }

    #[rstest]
    #[case(&["--json", "{\"limit\":5}", "call", "t"])]
    #[case(&["call", "--json", "{\"limit\":5}", "t"])]
    #[case(&["call", "t", "--json={\"limit\":5}"])]
    fn call_with_json(#[case] line: &[&str]) {
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
    fn a_flag_may_stand_anywhere_around_a_command_of_local(#[case] line: &[&str]) {
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
    fn local_alone_serves_and_takes_no_flags_of_its_commands() {
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
    fn nothing_at_all_is_stdio() {
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
    #[case::half_a_pair_of_modes(&["serve", "--stdio", "--http", "127.0.0.1:1"])]
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
    fn wrong_usage_is_2(#[case] line: &[&str]) {
        assert_eq!(parse(line).expect_err("refused").exit_code(), 2);
    }

    #[test]
    fn help_and_version_are_left_to_clap() {
        for line in [&["--help", "call"][..], &["--version", "call"][..]] {
            assert_eq!(parse(line).expect_err("prints").exit_code(), 0);
        }
    }
}
