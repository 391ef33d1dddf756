//! Open consent pages, with the authorization requests that they belong to.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::oauth::primitives::TokenHash;

/// The maximum number of open pages. The rate limit allows fewer within the lifetime of a page.
const MAX_PAGES: i64 = 20_000;

/// An open consent page.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct Consent {
    /// Hash of the cookie of the browser that was shown the page.
    pub(in crate::oauth) browser: TokenHash,
    /// Hash of the CSRF token in the form.
    pub(in crate::oauth) csrf: TokenHash,
    /// The id of the client.
    pub(in crate::oauth) client: String,
    /// The name of the client, as the page shows it.
    pub(in crate::oauth) client_name: String,
    /// The host of the client's metadata document; `None` for a registered client.
    pub(in crate::oauth) client_host: Option<String>,
    /// The redirect URI.
    pub(in crate::oauth) redirect: String,
    /// The parameter `state` of the client.
    pub(in crate::oauth) state: Option<String>,
    /// The PKCE challenge (S256).
    pub(in crate::oauth) challenge: String,
    /// The audience: an MCP address of this server.
    pub(in crate::oauth) resource: String,
    /// The number of attempts to enter a credential.
    pub(in crate::oauth) attempts: i64,
    /// When the page expires.
    pub(in crate::oauth) until_ms: i64,
}

/// A new page.
#[derive(Debug)]
pub(in crate::oauth) struct NewConsent {
    /// Hash of the id of the page.
    pub(in crate::oauth) id: TokenHash,
    /// The page.
    pub(in crate::oauth) consent: Consent,
}

/// Inserts a page. `false` if too many pages are open.
pub(in crate::oauth) fn insert(
    connection: &Connection,
    new: &NewConsent,
) -> rusqlite::Result<bool> {
    let open: i64 = connection.query_row("SELECT count(*) FROM consents", [], |row| row.get(0))?;
    if open >= MAX_PAGES {
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

/// An open page by the hash of its id.
pub(in crate::oauth) fn get(
    connection: &Connection,
    id: &TokenHash,
    now_ms: i64,
) -> rusqlite::Result<Option<Consent>> {
    connection
        .query_row(
            &format!("SELECT {COLUMNS} FROM consents WHERE id = ?1 AND until_ms > ?2"),
            params![id, now_ms],
            read_consent,
        )
        .optional()
}

/// Counts an attempt and replaces the CSRF token `sent` by `next`. `false` if the form was sent before, or
/// `max_attempts` is reached.
pub(in crate::oauth) fn count_attempt(
    connection: &Connection,
    id: &TokenHash,
    sent: &TokenHash,
    next: &TokenHash,
    max_attempts: i64,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE consents SET attempts = attempts + 1, csrf = ?3
         WHERE id = ?1 AND csrf = ?2 AND attempts < ?4",
        params![id, sent, next, max_attempts],
    )?;
    Ok(changed == 1)
}

/// Replaces the CSRF token of a page that is shown again. `false` if the page has expired.
pub(in crate::oauth) fn replace_csrf_token(
    connection: &Connection,
    id: &TokenHash,
    next: &TokenHash,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let changed = connection.execute(
        "UPDATE consents SET csrf = ?2 WHERE id = ?1 AND until_ms > ?3",
        params![id, next, now_ms],
    )?;
    Ok(changed == 1)
}

/// Removes a page and returns it. `None` if it has expired or another request removed it.
pub(in crate::oauth) fn remove(
    connection: &Connection,
    id: &TokenHash,
    now_ms: i64,
) -> rusqlite::Result<Option<Consent>> {
    connection
        .query_row(
            &format!("DELETE FROM consents WHERE id = ?1 AND until_ms > ?2 RETURNING {COLUMNS}"),
            params![id, now_ms],
            read_consent,
        )
        .optional()
}

const COLUMNS: &str = "browser, csrf, client, client_name, client_host, redirect, state, challenge, \
                       resource, attempts, until_ms";

fn read_consent(row: &Row<'_>) -> rusqlite::Result<Consent> {
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

/// Deletes expired pages.
pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM consents WHERE until_ms <= ?1", params![now_ms])
        .map(drop)
}
