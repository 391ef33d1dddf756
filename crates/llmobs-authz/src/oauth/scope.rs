//! What a grant allows: reading always, writing when the user ticked it.

use super::answer::OauthError;

/// Reading traces, experiments, evaluators.
pub(super) const READ: &str = "llmobs:read";
/// Changing experiments, datasets, evaluators.
pub(super) const WRITE: &str = "llmobs:write";

/// Checks what a client asks for. The user decides about writing, whatever it asks; a scope that we
/// do not know is an error, because a client that wants it would not get it.
pub(super) fn check(asked: Option<&str>) -> Result<(), OauthError> {
    // Some clients add `offline_access` unasked; refresh tokens are given anyway.
    let known = |scope: &str| [READ, WRITE, "offline_access"].contains(&scope);
    if asked
        .unwrap_or_default()
        .split(' ')
        .filter(|s| !s.is_empty())
        .all(known)
    {
        Ok(())
    } else {
        Err(OauthError::new(
            "invalid_scope",
            "the scopes are llmobs:read and llmobs:write",
        ))
    }
}

/// The scope of a grant.
pub(super) fn granted(writes: bool) -> String {
    if writes {
        format!("{READ} {WRITE}")
    } else {
        READ.to_owned()
    }
}

/// Whether a granted scope allows writing.
pub(super) fn writes(granted: &str) -> bool {
    granted.split(' ').any(|scope| scope == WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scopes_pass_and_others_do_not() {
        for asked in [
            None,
            Some(""),
            Some("llmobs:read"),
            Some("llmobs:read llmobs:write offline_access"),
        ] {
            assert!(check(asked).is_ok(), "{asked:?}");
        }
        for asked in [
            "admin",
            "llmobs:read admin",
            "LLMOBS:READ",
            "llmobs:read\tllmobs:write",
        ] {
            assert_eq!(check(Some(asked)).unwrap_err().code, "invalid_scope");
        }
    }

    #[test]
    fn writing_is_granted_when_it_was_ticked() {
        assert!(!writes(&granted(false)));
        assert!(writes(&granted(true)));
        assert!(!writes("llmobs:writes"));
    }
}
