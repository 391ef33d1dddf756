//! The settings that the command line holds.

use crate::cli::args::{Cli, Command, LocalArgs, ServeArgs};

use super::values::{Bytes, Days, Names, Values};

/// The settings given as command-line flags.
pub(super) fn values(cli: &Cli) -> Values {
    let shared = &cli.shared;
    let mut values = Values {
        site: shared.site.clone(),
        toolsets: shared.toolsets.as_deref().map(Names::split),
        omit_tools: shared.omit_tools.as_deref().map(Names::split),
        read_only: Some(shared.read_only),
        data_dir: shared.data_dir.clone(),
        ca_file: shared.ca_file.clone(),
        log: shared.log.map(|level| level.to_string()),
        ..Values::default()
    };
    match &cli.command {
        Some(Command::Serve(flags)) => add_serve(&mut values, flags),
        Some(Command::Local(flags)) => add_local(&mut values, flags),
        _ => {}
    }
    values
}

fn add_serve(values: &mut Values, flags: &ServeArgs) {
    values.auth = flags.auth.map(|mode| mode.name().to_owned());
    values.public_url = flags.public_url.clone();
    values.secret_key_file = flags.secret_key_file.clone();
    values.no_client_metadata_documents = Some(flags.no_client_metadata_documents);
    values.datadog_sign_in = Some(flags.datadog_sign_in);
    values.datadog_client_id = flags.datadog_client_id.clone();
}

fn add_local(values: &mut Values, flags: &LocalArgs) {
    values.retain_days = flags.retain_days.map(Days);
    values.retain_bytes = flags.retain_bytes.map(Bytes);
    values.datadog_limits = Some(flags.datadog_limits);
}
