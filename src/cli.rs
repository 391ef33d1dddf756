//! The command line: one file per command, settings resolved in one place.
//!
//! Exit codes: 0 when all went well, 1 when a tool or the work failed, 2 when the command line, the
//! environment or the config file is wrong. Standard output carries a command's result and nothing
//! else; everything for people's eyes beside it goes to standard error.

mod address;
mod args;
mod backend;
mod call;
mod completions;
mod demo;
mod doctor;
mod error;
mod gate;
mod leaks;
mod local;
mod logging;
mod login;
mod logout;
mod output;
mod serve;
mod settings;
mod signals;
mod status;
mod tools;
mod upstream;
mod whoami;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Cli, Command};
use error::CliError;
use settings::{Environment, Need, Settings};

/// How long background work may take to end once the command is done.
const WIND_DOWN: Duration = Duration::from_millis(500);

/// Runs the command line of this process and says how it ended.
pub fn run() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(remark) = leaks::remark(&words) {
        output::tell(&remark);
    }
    let cli = match Cli::try_parse_from(args::hoist(words)) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and versions go to standard output, complaints to standard error.
            let _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return output::complain(&CliError::failed(error, "try again")),
    };
    let code = runtime.block_on(async {
        dispatch(cli)
            .await
            .unwrap_or_else(|error| output::complain(&error))
    });
    // A read of standard input that nobody answers must not keep the process alive.
    runtime.shutdown_timeout(WIND_DOWN);
    code
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let command = cli.command.unwrap_or_default();
    if let Command::Completions(args) = &command {
        return completions::run(args);
    }
    let need = match &command {
        Command::Demo(_) | Command::Local(_) | Command::Tools(_) | Command::Logout(_) => {
            Need::NoUpstream
        }
        Command::Login(_) => Need::SignIn,
        _ => Need::Upstream,
    };
    let settings = Settings::resolve(&cli.shared, &Environment::of_process(), need)?;
    logging::start(settings.log.unwrap_or(command.default_log()));
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    match command {
        Command::Serve(args) => serve::run(settings, &args).await,
        Command::Local(args) => local::run(&settings, &args).await,
        Command::Demo(args) => demo::run(&cli.shared, &settings, &args).await,
        Command::Call(args) => call::run(settings, &args).await,
        Command::Tools(args) => tools::run(&settings, &args),
        Command::Doctor(args) => doctor::run(settings, &args).await,
        Command::Login(args) => login::run(&settings, &args).await,
        Command::Logout(args) => logout::run(&cli.shared, &settings, &args).await,
        Command::Status => status::run(&settings),
        Command::Whoami(args) => whoami::run(&settings, &args),
        Command::Completions(args) => completions::run(&args),
    }
}
