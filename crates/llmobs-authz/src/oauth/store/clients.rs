//! Programs that registered themselves (RFC 7591).
//!
//! Anyone may register, so the table is bounded: a registration that nobody ever signed in with goes
//! after a day, any other after three months without use, and when the table is full the oldest
//! unused one makes room. Those that have a live grant stay.

use rusqlite::{Connection, OptionalExtension, params};

/// Registrations kept at a time.
const MOST: i64 = 10_000;
/// How long a registration waits for its first sign-in, in ms.
const UNUSED_LIFE_MS: i64 = 24 * 3_600 * 1_000;
/// How long it lives after its last use, in ms.
const IDLE_LIFE_MS: i64 = 90 * 24 * 3_600 * 1_000;

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct Registered {
    /// The id that it was given.
    pub(in crate::oauth) id: String,
    /// The name that it gave itself.
    pub(in crate::oauth) name: String,
    /// Where browsers may be sent.
    pub(in crate::oauth) redirects: Vec<String>,
}

/// Adds a registration; `false` if there is no room.
pub(in crate::oauth) fn add(
    connection: &Connection,
    client: &Registered,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let count: i64 = connection.query_row("SELECT count(*) FROM clients", [], |row| row.get(0))?;
    if count >= MOST {
        let made_room = connection.execute(
            "DELETE FROM clients WHERE id = (
               SELECT id FROM clients WHERE used_ms IS NULL ORDER BY created_ms LIMIT 1)",
            [],
        )?;
        if made_room == 0 {
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

/// A registration by its id.
pub(in crate::oauth) fn get(
    connection: &Connection,
    id: &str,
) -> rusqlite::Result<Option<Registered>> {
    connection
        .query_row(
            "SELECT id, name, redirects FROM clients WHERE id = ?1",
            params![id],
            |row| {
                let redirects: String = row.get(2)?;
                Ok(Registered {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    redirects: serde_json::from_str(&redirects).unwrap_or_default(),
                })
            },
        )
        .optional()
}

/// Whether there is such a registration.
pub(in crate::oauth) fn exists(connection: &Connection, id: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM clients WHERE id = ?1";
    connection.query_row(sql, params![id], |row| Ok(row.get::<_, i64>(0)? > 0))
}

/// Notes that somebody signed in with it.
pub(super) fn used(connection: &Connection, id: &str, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "UPDATE clients SET used_ms = ?2 WHERE id = ?1",
            params![id, now_ms],
        )
        .map(drop)
}

pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM clients WHERE
               (used_ms IS NULL AND created_ms < ?1 OR used_ms < ?2)
               AND id NOT IN (SELECT client FROM grants)",
            params![now_ms - UNUSED_LIFE_MS, now_ms - IDLE_LIFE_MS],
        )
        .map(drop)
}
