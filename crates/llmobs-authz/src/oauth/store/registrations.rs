//! How Datadog knows this server: the client id that a redirect address was registered under.

use rusqlite::{Connection, OptionalExtension, params};

/// The client id of a redirect address at a place.
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

/// Keeps a client id.
pub(in crate::oauth) fn put(
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

/// Forgets a client id that is not known any more.
pub(in crate::oauth) fn forget(connection: &Connection, client_id: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM registrations WHERE client_id = ?1",
            params![client_id],
        )
        .map(drop)
}

pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM registrations WHERE until_ms <= ?1",
            params![now_ms],
        )
        .map(drop)
}
