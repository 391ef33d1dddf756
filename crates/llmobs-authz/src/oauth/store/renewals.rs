//! Leases for the renewal of logins.
//!
//! Datadog may accept a refresh token only once, so one task at a time renews a login, across all
//! processes that use the file. A task takes the lease by a compare-and-set: no other task holds it, and
//! the sealed login is the one that the task has read. A lease expires, so that a process that dies during
//! a renewal blocks the others only briefly.

use rusqlite::{Connection, params};

/// A request for a lease.
pub(in crate::oauth) struct Claim {
    /// The grant.
    pub(in crate::oauth) grant: String,
    /// The sealed login that the task has read.
    pub(in crate::oauth) seen: Vec<u8>,
    /// Identifies the task; unique per claim.
    pub(in crate::oauth) renewer: String,
    /// When the lease expires.
    pub(in crate::oauth) until_ms: i64,
    /// Whether the login is unusable until it is renewed. Then the pause after a failure is skipped.
    pub(in crate::oauth) urgent: bool,
}

/// Takes the lease. `false` if another task holds it, or the login was renewed in the meantime.
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

/// Stores the renewed login and releases the lease. `false` if the grant ended or the lease expired.
pub(in crate::oauth) fn keep(
    connection: &Connection,
    grant: &str,
    renewer: &str,
    credential: &[u8],
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE grants SET credential = ?3, renewer = NULL, renewing_until_ms = 0
         WHERE id = ?1 AND renewer = ?2",
        params![grant, renewer, credential],
    )?;
    Ok(changed == 1)
}

/// Releases the lease after a failure. Until `pause_until_ms` only urgent claims succeed.
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
