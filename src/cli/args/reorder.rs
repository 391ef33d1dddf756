//! Moves flags that precede their subcommand behind it, so that clap accepts them.

use std::collections::HashMap;
use std::ffi::OsString;

use clap::CommandFactory as _;

use super::Cli;

/// Moves the subcommands of a line to its front, and adds `serve` to a line that has `--http` or
/// `--stdio` and no subcommand.
pub(crate) fn reorder(args: Vec<OsString>) -> Vec<OsString> {
    let root = Cli::command();
    let takes_value = long_flags(&root);
    let mut command = &root;
    // The target position of the next subcommand.
    let mut target = 1;

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
        } else if let Some(subcommand) = command.find_subcommand(word) {
            if let Some(head) = words.get_mut(target..=position) {
                head.rotate_right(1);
            }
            if !subcommand.has_subcommands() {
                return words;
            }
            command = subcommand;
            target += 1;
            position += 1;
        } else {
            return words;
        }
    }
    if serves && target == 1 {
        words.insert(1.min(words.len()), OsString::from("serve"));
    }
    words
}

/// The long flags of a command and its subcommands, and whether each takes a value.
fn long_flags(command: &clap::Command) -> HashMap<String, bool> {
    let mut flags: HashMap<String, bool> = command.get_subcommands().flat_map(long_flags).collect();
    let own = command.get_arguments();
    flags.extend(own.filter_map(|arg| {
        let takes_value = arg.get_action().takes_values();
        Some((arg.get_long()?.to_owned(), takes_value))
    }));
    flags
}
