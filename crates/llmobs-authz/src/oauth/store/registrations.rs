//! Registrations of this server at Datadog: the client id for a redirect URI.

use rusqlite::{Connection, OptionalExtension, params};

/// The client id for a redirect URI at a Datadog site (`place`).
pub(in crate::oauth) fn get(
    connection: &Connection,
    place: &str,
    redirect: &str,
    now_ms: i64,
) -> rusqlite::Result<Option<String>> {
    connection
        .query_row(
            "SELECT client_id FROM registrations
             WHERE place = ?1 AND redirect = ?2 AND until_ms > ?3",
            params![place, redirect, now_ms],
            |row| row.get(0),
        )
        .optional()
}

/// Stores a client id.
pub(in crate::oauth) fn insert(
    connection: &Connection,
    place: &str,
    redirect: &str,
    client_id: &str,
    until_ms: i64,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO registrations (place, redirect, client_id, until_ms)
             VALUES (?1, ?2, ?3, ?4)",
            params![place, redirect, client_id, until_ms],
        )
        .map(drop)
}

/// Deletes a client id that Datadog does not know any more.
pub(in crate::oauth) fn delete(connection: &Connection, client_id: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM registrations WHERE client_id = ?1",
            params![client_id],
        )
        .map(drop)
}

/// Deletes expired registrations.
pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM registrations WHERE until_ms <= ?1",
            params![now_ms],
        )
        .map(drop)
}
