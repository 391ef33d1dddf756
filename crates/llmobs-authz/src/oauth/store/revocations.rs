//! Logins of grants that ended, until they are revoked at Datadog. Rows come from a trigger on the
//! grants' table.

use rusqlite::{Connection, OptionalExtension, params};

/// A login that is to be revoked.
#[derive(Debug)]
pub(in crate::oauth) struct Ended {
    /// The grant that it belonged to.
    pub(in crate::oauth) grant: String,
    /// That grant's client.
    pub(in crate::oauth) client: String,
    /// That grant's audience.
    pub(in crate::oauth) resource: String,
    /// What it held, sealed.
    pub(in crate::oauth) credential: Vec<u8>,
    /// How often it was tried, with this time.
    pub(in crate::oauth) attempts: i64,
}

/// Whether any is due.
pub(in crate::oauth) fn are_due(connection: &Connection, now_ms: i64) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM revocations WHERE due_ms <= ?1)",
        params![now_ms],
        |row| row.get(0),
    )
}

/// The next one that is due. It is due again at `again_ms`, unless it is [`done`] by then.
pub(in crate::oauth) fn next(
    connection: &Connection,
    now_ms: i64,
    again_ms: i64,
) -> rusqlite::Result<Option<Ended>> {
    connection
        .query_row(
            "UPDATE revocations SET attempts = attempts + 1, due_ms = ?2
             WHERE grant_id = (
               SELECT grant_id FROM revocations WHERE due_ms <= ?1 ORDER BY due_ms LIMIT 1)
             RETURNING grant_id, client, resource, credential, attempts",
            params![now_ms, again_ms],
            |row| {
                Ok(Ended {
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

/// Forgets one: it is revoked, or was tried often enough.
pub(in crate::oauth) fn done(connection: &Connection, grant: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM revocations WHERE grant_id = ?1",
            params![grant],
        )
        .map(drop)
}
