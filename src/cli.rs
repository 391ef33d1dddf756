//! The command line: one file per command, settings resolved in one place.
//!
//! Exit codes: 0 success, 1 a tool or a command failed, 2 the command line, the environment or the
//! config file is wrong. Standard output carries the result of a command only; notes, progress and
//! logs go to standard error.

mod address;
mod args;
#[cfg(feature = "local")]
mod backend;
mod bind;
mod call;
mod completions;
#[cfg(feature = "local")]
mod demo;
mod doctor;
mod error;
mod gate;
mod leaks;
#[cfg(feature = "local")]
mod local;
mod logging;
mod login;
mod logout;
mod output;
mod peer;
mod quantity;
mod serve;
mod settings;
mod signals;
mod status;
mod tools;
mod upstream;
mod whoami;
#[cfg(not(feature = "local"))]
mod without_local;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Cli, Command};
#[cfg(feature = "local")]
use backend::Backend;
use error::CliError;
use settings::{Environment, Need, Settings};
#[cfg(not(feature = "local"))]
use without_local::{Backend, demo, local};

/// How long background tasks may take to end after the command.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs the command line of this process and returns its exit code.
pub fn run() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(warning) = leaks::warning(&words) {
        output::print_note(&warning);
    }
    let cli = match Cli::try_parse_from(args::reorder(words)) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to standard output, errors to standard error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return output::report(&CliError::failed(error, "try again")),
    };
    let code = runtime.block_on(async {
        dispatch(cli)
            .await
            .unwrap_or_else(|error| output::report(&error))
    });
    // A pending read of standard input must not keep the process alive.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    code
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    if let Some(Command::Completions(args)) = &cli.command {
        return completions::run(args);
    }
    let need = match &cli.command {
        Some(Command::Demo(_) | Command::Local(_) | Command::Tools(_) | Command::Logout(_)) => {
            Need::NoUpstream
        }
        Some(Command::Login(_)) => Need::SignIn,
        _ => Need::Upstream,
    };
    let settings = Settings::resolve(&cli, &Environment::from_process(), need)?;
    let Cli { shared, command } = cli;
    let command = command.unwrap_or_default();
    if matches!(
        command,
        Command::Serve(_) | Command::Call(_) | Command::Tools(_) | Command::Demo(_)
    ) {
        settings.check_toolsets()?;
    }
    logging::start(settings.log.unwrap_or(command.default_log()));
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    match command {
        Command::Serve(args) => serve::run(settings, &args).await,
        Command::Local(args) => local::run(&settings, &args).await,
        Command::Demo(args) => demo::run(&shared, &settings, &args).await,
        Command::Call(args) => call::run(settings, &args).await,
        Command::Tools(args) => tools::run(&settings, &args),
        Command::Doctor(args) => doctor::run(settings, &args).await,
        Command::Login(args) => login::run(&settings, &args).await,
        Command::Logout(args) => logout::run(&shared, &settings, &args).await,
        Command::Status => status::run(&settings),
        Command::Whoami(args) => whoami::run(&settings, &args),
        Command::Completions(args) => completions::run(&args),
    }
}
