//! Warns if an argument of the process looks like a credential.
//!
//! Other users of the machine can read arguments, and shells record them. No flag takes a credential,
//! so such an argument belongs to a guessed flag. The warning never repeats the value.

use std::ffi::OsString;

/// The warning if an argument looks like a key or a token.
pub(crate) fn warning(args: &[OsString]) -> Option<String> {
    let mut after_secret_flag = false;
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, value),
            None => ("", arg),
        };
        if looks_like_token(value) || ((after_secret_flag || names_secret(name)) && is_long(value))
        {
            return Some(
                "warning: an argument looks like a key, a token or a secret. Other users of this machine can read \
                 it, and the shell records it. Set DD_API_KEY and DD_APPLICATION_KEY (or DD_ACCESS_TOKEN, \
                 LLMOBS_MCP_BEARER, LLMOBS_MCP_SECRET_KEY) in the environment, or name files in DD_API_KEY_FILE \
                 and so on. If the value is real, replace it."
                    .to_owned(),
            );
        }
        after_secret_flag = value == arg && arg.starts_with("--") && names_secret(arg);
    }
    None
}

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    // The path of a file is not a secret.
    !name.ends_with("_file")
        && ["key", "token", "secret", "password", "bearer"]
            .iter()
            .any(|word| name.contains(word))
}

/// Whether a value is long enough for a key, and neither prose nor a flag.
fn is_long(value: &str) -> bool {
    value.len() >= 32 && !value.starts_with("--") && !value.contains(char::is_whitespace)
}

/// Recognizes tokens by prefix and application keys by form. API keys look like trace ids, so they
/// count only after a name of a secret.
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
    fn recognizes_credentials(#[case] args: &[&str], #[case] warned: bool) {
        let args: Vec<OsString> = std::iter::once("llmobs-mcp")
            .chain(args.iter().copied())
            .map(OsString::from)
            .collect();
        let warning = warning(&args);
        assert_eq!(warning.is_some(), warned);
        assert!(warning.is_none_or(|text| !text.contains("0123456789")));
    }
}
