//! Open consent pages: what was asked, and by which browser.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::oauth::opaque::Hashed;

/// Pages open at a time; more than the rate limit lets in during one page's life.
const MOST: i64 = 20_000;

/// What a consent page is about.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct Consent {
    /// Hash of the cookie of the browser that was shown the page.
    pub(in crate::oauth) browser: Hashed,
    /// Hash of the token in the page's form.
    pub(in crate::oauth) csrf: Hashed,
    /// The client that asks.
    pub(in crate::oauth) client: String,
    /// Its name, as it was shown.
    pub(in crate::oauth) client_name: String,
    /// The host of its metadata document, for a client that has one.
    pub(in crate::oauth) client_host: Option<String>,
    /// Where the answer goes.
    pub(in crate::oauth) redirect: String,
    /// What the client wants back with it.
    pub(in crate::oauth) state: Option<String>,
    /// The PKCE challenge (S256).
    pub(in crate::oauth) challenge: String,
    /// The audience: one of our MCP addresses.
    pub(in crate::oauth) resource: String,
    /// Credentials that were tried.
    pub(in crate::oauth) attempts: i64,
    /// Until when it waits.
    pub(in crate::oauth) until_ms: i64,
}

/// A page that is being opened.
#[derive(Debug)]
pub(in crate::oauth) struct NewConsent {
    /// Hash of its id.
    pub(in crate::oauth) id: Hashed,
    /// What it is about.
    pub(in crate::oauth) consent: Consent,
}

/// Adds a page; `false` if too many are open.
pub(in crate::oauth) fn add(connection: &Connection, new: &NewConsent) -> rusqlite::Result<bool> {
    let open: i64 = connection.query_row("SELECT count(*) FROM consents", [], |row| row.get(0))?;
    if open >= MOST {
        return Ok(false);
    }
    let consent = &new.consent;
    connection.execute(
        "INSERT INTO consents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            new.id,
            consent.browser,
            consent.csrf,
            consent.client,
            consent.client_name,
            consent.client_host,
            consent.redirect,
            consent.state,
            consent.challenge,
            consent.resource,
            consent.attempts,
            consent.until_ms
        ],
    )?;
    Ok(true)
}

/// An open page.
pub(in crate::oauth) fn get(
    connection: &Connection,
    id: &Hashed,
    now_ms: i64,
) -> rusqlite::Result<Option<Consent>> {
    connection
        .query_row(
            &format!("SELECT {COLUMNS} FROM consents WHERE id = ?1 AND until_ms > ?2"),
            params![id, now_ms],
            consent_of,
        )
        .optional()
}

/// Counts an attempt and gives the page's form another token; `false` when the form was sent
/// before, or `most` attempts were made.
pub(in crate::oauth) fn tried(
    connection: &Connection,
    id: &Hashed,
    sent: &Hashed,
    next: &Hashed,
    most: i64,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE consents SET attempts = attempts + 1, csrf = ?3
         WHERE id = ?1 AND csrf = ?2 AND attempts < ?4",
        params![id, sent, next, most],
    )?;
    Ok(changed == 1)
}

/// Gives an open page's form another token, because the page is shown again; `false` if it is over.
pub(in crate::oauth) fn shown_again(
    connection: &Connection,
    id: &Hashed,
    next: &Hashed,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE consents SET csrf = ?2 WHERE id = ?1 AND until_ms > ?3",
        params![id, next, now_ms],
    )?;
    Ok(changed == 1)
}

/// Takes a page out: it is answered. `None` if somebody was quicker.
pub(in crate::oauth) fn take(
    connection: &Connection,
    id: &Hashed,
    now_ms: i64,
) -> rusqlite::Result<Option<Consent>> {
    connection
        .query_row(
            &format!("DELETE FROM consents WHERE id = ?1 AND until_ms > ?2 RETURNING {COLUMNS}"),
            params![id, now_ms],
            consent_of,
        )
        .optional()
}

const COLUMNS: &str = "browser, csrf, client, client_name, client_host, redirect, state, challenge, \
                       resource, attempts, until_ms";

fn consent_of(row: &Row<'_>) -> rusqlite::Result<Consent> {
    Ok(Consent {
        browser: row.get(0)?,
        csrf: row.get(1)?,
        client: row.get(2)?,
        client_name: row.get(3)?,
        client_host: row.get(4)?,
        redirect: row.get(5)?,
        state: row.get(6)?,
        challenge: row.get(7)?,
        resource: row.get(8)?,
        attempts: row.get(9)?,
        until_ms: row.get(10)?,
    })
}

pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM consents WHERE until_ms <= ?1", params![now_ms])
        .map(drop)
}
