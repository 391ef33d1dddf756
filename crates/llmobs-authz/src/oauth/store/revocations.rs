//! Logins of ended grants, until they are revoked at Datadog. A trigger on table `grants` inserts the rows.

use rusqlite::{Connection, OptionalExtension, params};

/// A login to revoke.
#[derive(Debug)]
pub(in crate::oauth) struct PendingRevocation {
    /// The id of the ended grant.
    pub(in crate::oauth) grant: String,
    /// The client of the grant.
    pub(in crate::oauth) client: String,
    /// The audience of the grant.
    pub(in crate::oauth) resource: String,
    /// The sealed login.
    pub(in crate::oauth) credential: Vec<u8>,
    /// The number of attempts, including this one.
    pub(in crate::oauth) attempts: i64,
}

/// Whether a revocation is due.
pub(in crate::oauth) fn are_due(connection: &Connection, now_ms: i64) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM revocations WHERE due_ms <= ?1)",
        params![now_ms],
        |row| row.get(0),
    )
}

/// The next revocation that is due. It is due again at `again_ms`, unless it is removed before.
pub(in crate::oauth) fn next_due(
    connection: &Connection,
    now_ms: i64,
    again_ms: i64,
) -> rusqlite::Result<Option<PendingRevocation>> {
    connection
        .query_row(
            "UPDATE revocations SET attempts = attempts + 1, due_ms = ?2
             WHERE grant_id = (
               SELECT grant_id FROM revocations WHERE due_ms <= ?1 ORDER BY due_ms LIMIT 1)
             RETURNING grant_id, client, resource, credential, attempts",
            params![now_ms, again_ms],
            |row| {
                Ok(PendingRevocation {
                    grant: row.get(0)?,
                    client: row.get(1)?,
                    resource: row.get(2)?,
                    credential: row.get(3)?,
                    attempts: row.get(4)?,
                })
            },
        )
        .optional()
}

/// Removes a revocation that succeeded, or reached the maximum number of attempts.
pub(in crate::oauth) fn remove(connection: &Connection, grant: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM revocations WHERE grant_id = ?1",
            params![grant],
        )
        .map(drop)
}
