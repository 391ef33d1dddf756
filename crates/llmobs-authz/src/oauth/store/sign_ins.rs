//! Unfinished sign-ins at Datadog.
//!
//! A sign-in belongs to a consent page and expires with it. A page has at most one; a new one replaces the
//! previous one.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::oauth::primitives::TokenHash;

/// A sign-in whose response from Datadog has not arrived.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct PendingSignIn {
    /// Hash of the id of the consent page.
    pub(in crate::oauth) consent: TokenHash,
    /// Hash of the cookie of the browser.
    pub(in crate::oauth) browser: TokenHash,
    /// The client id of this server at Datadog.
    pub(in crate::oauth) client_id: String,
    /// The sealed PKCE verifier and page id.
    pub(in crate::oauth) secrets: Vec<u8>,
    /// Whether the user allowed changes on the consent page.
    pub(in crate::oauth) may_write: bool,
}

/// Inserts a sign-in under the hash of its `state`.
pub(in crate::oauth) fn insert(
    connection: &Connection,
    state: &TokenHash,
    new: &PendingSignIn,
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
                new.may_write
            ],
        )
        .map(drop)
}

/// The sign-in with this `state`, if its page has not expired.
pub(in crate::oauth) fn get(
    connection: &Connection,
    state: &TokenHash,
    now_ms: i64,
) -> rusqlite::Result<Option<PendingSignIn>> {
    connection
        .query_row(
            "SELECT consent, sign_ins.browser, client_id, secrets, writes
             FROM sign_ins JOIN consents ON consents.id = consent
             WHERE sign_ins.state = ?1 AND until_ms > ?2",
            params![state, now_ms],
            read_sign_in,
        )
        .optional()
}

/// Removes a sign-in and returns it. `None` if another request removed it.
pub(in crate::oauth) fn remove(
    connection: &Connection,
    state: &TokenHash,
) -> rusqlite::Result<Option<PendingSignIn>> {
    connection
        .query_row(
            "DELETE FROM sign_ins WHERE state = ?1
             RETURNING consent, browser, client_id, secrets, writes",
            params![state],
            read_sign_in,
        )
        .optional()
}

fn read_sign_in(row: &Row<'_>) -> rusqlite::Result<PendingSignIn> {
    Ok(PendingSignIn {
        consent: row.get(0)?,
        browser: row.get(1)?,
        client_id: row.get(2)?,
        secrets: row.get(3)?,
        may_write: row.get(4)?,
    })
}
