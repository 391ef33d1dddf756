//! Users who went to Datadog to sign in, until they come back.
//!
//! One belongs to a consent page, lives as long as that page waits, and ends with it. A page has one
//! at a time: starting anew puts the one before out of force.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::oauth::opaque::Hashed;

/// A sign-in at Datadog that waits for its answer.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct SignIn {
    /// Hash of the id of the consent page.
    pub(in crate::oauth) consent: Hashed,
    /// Hash of the cookie of the browser that was sent there.
    pub(in crate::oauth) browser: Hashed,
    /// Whose request it was: our client id at Datadog.
    pub(in crate::oauth) client_id: String,
    /// The sealed verifier and page id.
    pub(in crate::oauth) secrets: Vec<u8>,
    /// Whether the user allowed changes before leaving.
    pub(in crate::oauth) writes: bool,
}

/// Keeps one under the hash of its `state`.
pub(in crate::oauth) fn add(
    connection: &Connection,
    state: &Hashed,
    new: &SignIn,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO sign_ins (state, consent, browser, client_id, secrets, writes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                state,
                new.consent,
                new.browser,
                new.client_id,
                new.secrets,
                new.writes
            ],
        )
        .map(drop)
}

/// The one with this `state`, if its page still waits.
pub(in crate::oauth) fn get(
    connection: &Connection,
    state: &Hashed,
    now_ms: i64,
) -> rusqlite::Result<Option<SignIn>> {
    connection
        .query_row(
            "SELECT consent, sign_ins.browser, client_id, secrets, writes
             FROM sign_ins JOIN consents ON consents.id = consent
             WHERE sign_ins.state = ?1 AND until_ms > ?2",
            params![state, now_ms],
            sign_in_of,
        )
        .optional()
}

/// Takes one out: its answer came. `None` if somebody was quicker.
pub(in crate::oauth) fn take(
    connection: &Connection,
    state: &Hashed,
) -> rusqlite::Result<Option<SignIn>> {
    connection
        .query_row(
            "DELETE FROM sign_ins WHERE state = ?1
             RETURNING consent, browser, client_id, secrets, writes",
            params![state],
            sign_in_of,
        )
        .optional()
}

fn sign_in_of(row: &Row<'_>) -> rusqlite::Result<SignIn> {
    Ok(SignIn {
        consent: row.get(0)?,
        browser: row.get(1)?,
        client_id: row.get(2)?,
        secrets: row.get(3)?,
        writes: row.get(4)?,
    })
}
