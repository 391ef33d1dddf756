//! A warning when a credential seems to stand among the process's arguments.
//!
//! Every user of a machine can read them, and shells remember them. No flag takes a credential, only
//! files of some, so whoever does it has guessed a flag; the value itself is never repeated.

use std::ffi::OsString;

/// The remark, if any argument looks like a key or a token.
pub(crate) fn remark(args: &[OsString]) -> Option<String> {
    let mut named = false;
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, value),
            None => ("", arg),
        };
        if looks_like_token(value) || ((named || says_secret(name)) && is_long(value)) {
            return Some(
                "warning: an argument looks like a key, a token or a secret; other users of this machine can see \
                 it, and the shell remembers it. Set DD_API_KEY and DD_APPLICATION_KEY (or DD_ACCESS_TOKEN, \
                 LLMOBS_MCP_BEARER, LLMOBS_MCP_SECRET_KEY) in the environment, or name files in DD_API_KEY_FILE \
                 and so on; if it was a real one, replace it"
                    .to_owned(),
            );
        }
        named = value == arg && arg.starts_with("--") && says_secret(arg);
    }
    None
}

fn says_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    // The name of a file is no secret.
    !name.ends_with("_file")
        && ["key", "token", "secret", "password", "bearer"]
            .iter()
            .any(|word| name.contains(word))
}

/// Long enough to be a key; a word or a flag is not.
fn is_long(value: &str) -> bool {
    value.len() >= 32 && !value.starts_with("--") && !value.contains(char::is_whitespace)
}

/// Tokens by their beginning; application keys by their form. API keys look like trace ids and
/// count only where a name says so.
fn looks_like_token(value: &str) -> bool {
    let value = value.strip_prefix("Bearer ").unwrap_or(value);
    let long_tail = |prefix: &str| {
        value
            .strip_prefix(prefix)
            .is_some_and(|tail| tail.len() >= 12)
    };
    ["ddpat_", "ddsat_", "ddapp_"].into_iter().any(long_tail) || is_hex(value, 40)
}

fn is_hex(value: &str, length: usize) -> bool {
    value.len() == length && value.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TRACE: &str = "0123456789abcdef0123456789abcdef";
    const APP: &str = "0123456789abcdef0123456789abcdef01234567";

    #[rstest]
    #[case(&["call", "t", "trace_id=0123456789abcdef0123456789abcdef"], false)]
    #[case(&["--api-key", TRACE], true)]
    #[case(&["--api-key=0123456789abcdef0123456789abcdef"], true)]
    #[case(&["DD_API_KEY=0123456789abcdef0123456789abcdef"], true)]
    #[case(&["call", TRACE], false)]
    #[case(&["call", APP], true)]
    #[case(&["--header", "Bearer ddpat_abcdefghijklmnop"], true)]
    #[case(&["ddsat_x"], false)]
    #[case(&["serve", "--bearer", "an-obviously-made-up-secret-0123456789"], true)]
    #[case(&["LLMOBS_MCP_SECRET_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"], true)]
    #[case(&["serve", "--secret-key-file", "/run/secrets/the-key-of-this-server-0123456789"], false)]
    #[case(&["serve", "--secret-key-file=/run/secrets/the-key-of-this-server-0123456789"], false)]
    #[case(&["--key-like-flag", "short"], false)]
    #[case(&[], false)]
    fn what_looks_like_a_key(#[case] args: &[&str], #[case] warned: bool) {
        let args: Vec<OsString> = std::iter::once("llmobs-mcp")
            .chain(args.iter().copied())
            .map(OsString::from)
            .collect();
        let remark = remark(&args);
        assert_eq!(remark.is_some(), warned);
        assert!(remark.is_none_or(|text| !text.contains("0123456789")));
    }
}
