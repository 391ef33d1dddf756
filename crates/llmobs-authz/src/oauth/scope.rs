//! The scopes of a grant: reading always, writing if the user allowed it.

use super::primitives::OauthError;

/// Read traces, experiments and evaluators.
pub(super) const READ: &str = "llmobs:read";
/// Change experiments, datasets and evaluators.
pub(super) const WRITE: &str = "llmobs:write";

/// Validates the scopes that a client requests. The user alone decides whether the client may write.
///
/// # Errors
/// Returns an error if a scope is unknown, because it could not be granted.
pub(super) fn validate(requested: Option<&str>) -> Result<(), OauthError> {
    // Some clients add `offline_access`; every grant has a refresh token anyway.
    let is_known = |scope: &str| [READ, WRITE, "offline_access"].contains(&scope);
    let mut scopes = requested
        .unwrap_or_default()
        .split(' ')
        .filter(|scope| !scope.is_empty());
    if scopes.all(is_known) {
        Ok(())
    } else {
        Err(OauthError::new(
            "invalid_scope",
            "unknown scope; the scopes are llmobs:read and llmobs:write",
        ))
    }
}

/// The scope of a grant.
pub(super) fn granted_scope(may_write: bool) -> String {
    if may_write {
        format!("{READ} {WRITE}")
    } else {
        READ.to_owned()
    }
}

/// Whether a scope includes writing.
pub(super) fn allows_writing(scope: &str) -> bool {
    scope.split(' ').any(|scope| scope == WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_unknown_scopes() {
        for requested in [
            None,
            Some(""),
            Some("llmobs:read"),
            Some("llmobs:read llmobs:write offline_access"),
        ] {
            assert!(validate(requested).is_ok(), "{requested:?}");
        }
        for requested in [
            "admin",
            "llmobs:read admin",
            "LLMOBS:READ",
            "llmobs:read\tllmobs:write",
        ] {
            assert_eq!(validate(Some(requested)).unwrap_err().code, "invalid_scope");
        }
    }

    #[test]
    fn grants_writing_only_if_allowed() {
        assert!(!allows_writing(&granted_scope(false)));
        assert!(allows_writing(&granted_scope(true)));
        assert!(!allows_writing("llmobs:writes"));
    }
}
