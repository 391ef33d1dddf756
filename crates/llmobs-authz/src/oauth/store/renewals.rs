//! Whose turn it is to renew the login of a grant.
//!
//! Datadog may take a refresh token once, so one task renews at a time, over all processes on this
//! file. A turn is a row that is changed only if nobody else has it, and only while the grant holds
//! what the claimant has read (a compare-and-set on its sealed contents). A turn ends by itself, so
//! that a process that died in the middle blocks nobody for long.

use rusqlite::{Connection, params};

/// A turn that is asked for.
pub(in crate::oauth) struct Claim {
    /// The grant.
    pub(in crate::oauth) grant: String,
    /// Its sealed contents, as the claimant read them.
    pub(in crate::oauth) seen: Vec<u8>,
    /// Who claims; new for each claim.
    pub(in crate::oauth) renewer: String,
    /// When the turn ends.
    pub(in crate::oauth) until_ms: i64,
    /// Whether the login is of no use until it is renewed: then a pause after a failure does not
    /// count.
    pub(in crate::oauth) urgent: bool,
}

/// Takes a turn; `false` if it is somebody else's, or the login was renewed in the meantime.
pub(in crate::oauth) fn claim(
    connection: &Connection,
    claim: &Claim,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE grants SET renewer = ?3, renewing_until_ms = ?4
         WHERE id = ?1 AND credential = ?2
           AND (renewing_until_ms <= ?5 OR (renewer IS NULL AND ?6))",
        params![
            claim.grant,
            claim.seen,
            claim.renewer,
            claim.until_ms,
            now_ms,
            claim.urgent
        ],
    )?;
    Ok(changed == 1)
}

/// Ends a turn with new contents; `false` if the grant ended, or the turn did.
pub(in crate::oauth) fn keep(
    connection: &Connection,
    grant: &str,
    renewer: &str,
    contents: &[u8],
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE grants SET credential = ?3, renewer = NULL, renewing_until_ms = 0
         WHERE id = ?1 AND renewer = ?2",
        params![grant, renewer, contents],
    )?;
    Ok(changed == 1)
}

/// Ends a turn that came to nothing. Until `pause_until_ms` only those try again who must.
pub(in crate::oauth) fn give_up(
    connection: &Connection,
    grant: &str,
    renewer: &str,
    pause_until_ms: i64,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE grants SET renewer = NULL, renewing_until_ms = ?3
             WHERE id = ?1 AND renewer = ?2",
            params![grant, renewer, pause_until_ms],
        )
        .map(drop)
}
