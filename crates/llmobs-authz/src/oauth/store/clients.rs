//! Registered clients (RFC 7591).
//!
//! Any program may register, so the table is bounded. A client without a sign-in is deleted after a day,
//! any other client after 90 days without use. A full table drops the oldest client that was never used.
//! Clients with a grant stay.

use rusqlite::{Connection, OptionalExtension, params};

/// The maximum number of clients.
const MAX_CLIENTS: i64 = 10_000;
/// How long a client without a sign-in is kept, in ms.
const UNUSED_LIFETIME_MS: i64 = 24 * 3_600 * 1_000;
/// How long a client is kept after its last use, in ms.
const IDLE_LIFETIME_MS: i64 = 90 * 24 * 3_600 * 1_000;

/// A registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct RegisteredClient {
    /// The id that the server assigned.
    pub(in crate::oauth) id: String,
    /// The name that the client chose.
    pub(in crate::oauth) name: String,
    /// The redirect URIs.
    pub(in crate::oauth) redirects: Vec<String>,
}

/// Inserts a client. `false` if the table is full of used clients.
pub(in crate::oauth) fn insert(
    connection: &Connection,
    client: &RegisteredClient,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let count: i64 = connection.query_row("SELECT count(*) FROM clients", [], |row| row.get(0))?;
    if count >= MAX_CLIENTS {
        let deleted = connection.execute(
            "DELETE FROM clients WHERE id = (
               SELECT id FROM clients WHERE used_ms IS NULL ORDER BY created_ms LIMIT 1)",
            [],
        )?;
        if deleted == 0 {
            return Ok(false);
        }
    }
    let redirects = serde_json::json!(client.redirects).to_string();
    connection.execute(
        "INSERT INTO clients (id, name, redirects, created_ms) VALUES (?1, ?2, ?3, ?4)",
        params![client.id, client.name, redirects, now_ms],
    )?;
    Ok(true)
}

/// A client by its id.
pub(in crate::oauth) fn get(
    connection: &Connection,
    id: &str,
) -> rusqlite::Result<Option<RegisteredClient>> {
    connection
        .query_row(
            "SELECT id, name, redirects FROM clients WHERE id = ?1",
            params![id],
            |row| {
                let redirects: String = row.get(2)?;
                Ok(RegisteredClient {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    redirects: serde_json::from_str(&redirects).unwrap_or_default(),
                })
            },
        )
        .optional()
}

/// Whether a client with this id exists.
pub(in crate::oauth) fn exists(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM clients WHERE id = ?1";
    connection.query_row(sql, params![id], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// Records a sign-in with a client.
pub(super) fn mark_used(connection: &Connection, id: &str, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE clients SET used_ms = ?2 WHERE id = ?1",
            params![id, now_ms],
        )
        .map(drop)
}

/// Deletes expired clients.
pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM clients WHERE
               (used_ms IS NULL AND created_ms < ?1 OR used_ms < ?2)
               AND id NOT IN (SELECT client FROM grants)",
            params![now_ms - UNUSED_LIFETIME_MS, now_ms - IDLE_LIFETIME_MS],
        )
        .map(drop)
}
