//! Flags before their subcommand: moved behind it before clap looks.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::CommandFactory as _;

use super::Cli;

/// Moves whatever stands before the subcommand behind it, and before a subcommand of that behind
/// both, and adds the subcommand that a lone `--http` or `--stdio` can only mean.
pub(crate) fn hoist(args: Vec<OsString>) -> Vec<OsString> {
    let root = Cli::command();
    let takes_value = flags_of(&root);
    let mut command = &root;
    // Where the next subcommand belongs: all that is known stands before.
    let mut place = 1;

    let mut words = args;
    let mut serves = false;
    let mut position = 1;
    while let Some(word) = words.get(position) {
        let Some(word) = word.to_str() else {
            return words;
        };
        match word {
            "-h" | "--help" | "-V" | "--version" | "--" => return words,
            _ => {}
        }
        if let Some(flag) = word.strip_prefix("--") {
            let name = flag.split_once('=').map_or(flag, |(name, _)| name);
            serves |= matches!(name, "http" | "stdio");
            let next_is_value = match name {
                _ if flag.contains('=') => false,
                // `call --json '{…}'` takes a value, `tools --json` does not.
                "json" => words
                    .get(position + 1)
                    .and_then(|next| next.to_str())
                    .is_some_and(|next| next == "-" || next.trim_start().starts_with('{')),
                _ => takes_value.get(name).copied().unwrap_or_default(),
            };
            position += if next_is_value { 2 } else { 1 };
        } else if word.starts_with('-') {
            position += 1;
        } else if let Some(found) = command.find_subcommand(word) {
            if let Some(head) = words.get_mut(place..=position) {
                head.rotate_right(1);
            }
            if !found.has_subcommands() {
                return words;
            }
            command = found;
            place += 1;
            position += 1;
        } else {
            return words;
        }
    }
    if serves && place == 1 {
        words.insert(1.min(words.len()), OsString::from("serve"));
    }
    words
}

/// The long flags of a command and of all below it; whether each takes a value.
fn flags_of(command: &clap::Command) -> HashMap<String, bool> {
    let mut flags: HashMap<String, bool> = command.get_subcommands().flat_map(flags_of).collect();
    let own = command.get_arguments();
    flags.extend(own.filter_map(|arg| {
        let takes = arg.get_action().takes_values();
        Some((arg.get_long()?.to_owned(), takes))
    }));
    flags
}
