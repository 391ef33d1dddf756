//! Grants, with their codes, access tokens and refresh tokens.
//!
//! A code is valid once, for a minute. A second use ends the grant, because another party has the code. A
//! use with wrong parameters also consumes the code: an attacker can guess once.
//!
//! Each use of a refresh token returns a replacement. Clients lose replacements (a crash before the token is
//! saved, two processes that refresh at once), so the old token stays valid until a replacement is used.
//! After that, a further use of the old token means that two parties have it, and ends the grant. Within a
//! minute a repeated use counts as a retry or a race, and all replacements stay valid. After that minute
//! a new replacement invalidates the earlier ones that were not used, and using one of those ends the grant
//! too.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::clients;
use crate::oauth::primitives::{TokenHash, verify_pkce};
use crate::oauth::scope;

/// How long a code is valid, in ms.
const CODE_LIFETIME_MS: i64 = 60 * 1_000;
/// How long an access token is valid, in seconds.
pub(in crate::oauth) const ACCESS_TOKEN_LIFETIME_SECONDS: i64 = 3_600;
/// How long an unused refresh token is valid, in ms.
const REFRESH_TOKEN_LIFETIME_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// How long a grant is valid, in ms. After that the user must sign in again.
const GRANT_LIFETIME_MS: i64 = 90 * 24 * 3_600 * 1_000;
/// How long a repeated refresh counts as a retry or a race, in ms.
const RACE_WINDOW_MS: i64 = 60 * 1_000;
/// The maximum number of grants.
const MAX_GRANTS: i64 = 100_000;

/// What a user allowed a client.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct Grant {
    /// The id of the grant.
    pub(in crate::oauth) id: String,
    /// The id of the client.
    pub(in crate::oauth) client: String,
    /// The audience of its tokens.
    pub(in crate::oauth) resource: String,
    /// The granted scopes, separated by spaces.
    pub(in crate::oauth) scope: String,
    /// The sealed Datadog credential or login.
    pub(in crate::oauth) credential: Vec<u8>,
}

/// A new grant with its code.
pub(in crate::oauth) struct NewGrant {
    /// The grant.
    pub(in crate::oauth) grant: Grant,
    /// Whether it has a login, which must be revoked at Datadog when the grant ends.
    pub(in crate::oauth) is_login: bool,
    /// Hash of the code.
    pub(in crate::oauth) code: TokenHash,
    /// The redirect URI that receives the code.
    pub(in crate::oauth) redirect: String,
    /// The PKCE challenge (S256).
    pub(in crate::oauth) challenge: String,
}

/// Hashes of a new access token and its refresh token.
#[derive(Clone, Copy)]
pub(in crate::oauth) struct TokenPairHashes {
    /// Hash of the access token.
    pub(in crate::oauth) access: TokenHash,
    /// Hash of the refresh token.
    pub(in crate::oauth) refresh: TokenHash,
}

/// A request that exchanges a code.
pub(in crate::oauth) struct CodeExchange {
    /// Hash of the code.
    pub(in crate::oauth) code: TokenHash,
    /// The id of the client that sent it.
    pub(in crate::oauth) client: String,
    /// The redirect URI in the request.
    pub(in crate::oauth) redirect: String,
    /// The PKCE verifier.
    pub(in crate::oauth) verifier: String,
    /// The requested audience; `None` for that of the grant.
    pub(in crate::oauth) resource: Option<String>,
}

/// Why a code or a refresh token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::oauth) enum GrantRefusal {
    /// It does not exist, was revoked, or its grant has ended.
    Unknown,
    /// It has expired.
    Expired,
    /// It belongs to another client.
    OtherClient,
    /// The redirect URI or the PKCE verifier does not match.
    Mismatch,
    /// The grant has another audience.
    OtherResource,
    /// The user did not allow the requested scope.
    WiderScope,
    /// It was used before. The grant has been deleted.
    Reused,
}

/// The grant for which tokens were issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct IssuedGrant {
    /// The id of the grant.
    pub(in crate::oauth) grant: String,
    /// The granted scopes.
    pub(in crate::oauth) scope: String,
}

/// Inserts a grant and its code. `false` if the maximum number of grants is reached.
pub(in crate::oauth) fn insert(
    connection: &Connection,
    new: &NewGrant,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let count: i64 = connection.query_row("SELECT count(*) FROM grants", [], |row| row.get(0))?;
    if count >= MAX_GRANTS {
        return Ok(false);
    }
    let grant = &new.grant;
    // Until the code is exchanged, the grant expires with the code.
    let until = now_ms.saturating_add(CODE_LIFETIME_MS);
    connection.execute(
        "INSERT INTO grants (id, client, resource, scope, credential, created_ms, until_ms, is_login)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            grant.id,
            grant.client,
            grant.resource,
            grant.scope,
            grant.credential,
            now_ms,
            until,
            new.is_login
        ],
    )?;
    connection.execute(
        "INSERT INTO codes (hash, grant_id, redirect, challenge, until_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![new.code, grant.id, new.redirect, new.challenge, until],
    )?;
    clients::mark_used(connection, &grant.client, now_ms)?;
    Ok(true)
}

/// Exchanges a code for tokens.
pub(in crate::oauth) fn exchange_code(
    connection: &Connection,
    request: &CodeExchange,
    tokens: TokenPairHashes,
    now_ms: i64,
) -> rusqlite::Result<Result<IssuedGrant, GrantRefusal>> {
    let found = connection
        .query_row(
            "SELECT grant_id, codes.redirect, challenge, codes.until_ms, used_ms, client, resource,
                    scope, created_ms
             FROM codes JOIN grants ON grants.id = grant_id WHERE hash = ?1",
            params![request.code],
            |row| {
                Ok(StoredCode {
                    grant: row.get(0)?,
                    redirect: row.get(1)?,
                    challenge: row.get(2)?,
                    until_ms: row.get(3)?,
                    used_ms: row.get(4)?,
                    client: row.get(5)?,
                    resource: row.get(6)?,
                    scope: row.get(7)?,
                    created_ms: row.get(8)?,
                })
            },
        )
        .optional()?;
    let Some(code) = found else {
        return Ok(Err(GrantRefusal::Unknown));
    };
    if let Err(refusal) = code.check(request, now_ms) {
        delete(connection, &code.grant)?;
        return Ok(Err(refusal));
    }
    connection.execute(
        "UPDATE codes SET used_ms = ?2 WHERE hash = ?1",
        params![request.code, now_ms],
    )?;
    insert_tokens(
        connection,
        &code.grant,
        code.created_ms,
        None,
        tokens,
        now_ms,
    )?;
    Ok(Ok(IssuedGrant {
        grant: code.grant,
        scope: code.scope,
    }))
}

/// The row of a code, joined with its grant.
struct StoredCode {
    grant: String,
    redirect: String,
    challenge: String,
    until_ms: i64,
    used_ms: Option<i64>,
    client: String,
    resource: String,
    scope: String,
    created_ms: i64,
}

impl StoredCode {
    fn check(&self, request: &CodeExchange, now_ms: i64) -> Result<(), GrantRefusal> {
        let matches_redirect = self.redirect == request.redirect;
        if self.used_ms.is_some() {
            Err(GrantRefusal::Reused)
        } else if self.client != request.client {
            Err(GrantRefusal::OtherClient)
        } else if self.until_ms <= now_ms {
            Err(GrantRefusal::Expired)
        } else if !matches_redirect || !verify_pkce(&request.verifier, &self.challenge) {
            Err(GrantRefusal::Mismatch)
        } else if is_other(request.resource.as_deref(), &self.resource) {
            Err(GrantRefusal::OtherResource)
        } else {
            Ok(())
        }
    }
}

/// A request that exchanges a refresh token.
pub(in crate::oauth) struct RefreshRequest {
    /// Hash of the refresh token.
    pub(in crate::oauth) token: TokenHash,
    /// The id of the client that sent it.
    pub(in crate::oauth) client: String,
    /// The requested scope; `None` for that of the grant.
    pub(in crate::oauth) scope: Option<String>,
    /// The requested audience; `None` for that of the grant.
    pub(in crate::oauth) resource: Option<String>,
}

/// Exchanges a refresh token for new tokens.
pub(in crate::oauth) fn rotate_refresh_token(
    connection: &Connection,
    request: &RefreshRequest,
    tokens: TokenPairHashes,
    now_ms: i64,
) -> rusqlite::Result<Result<IssuedGrant, GrantRefusal>> {
    let found = connection
        .query_row(
            "SELECT grant_id, parent, refresh_tokens.until_ms, rotated_ms, succeeded, superseded,
                    client, resource, scope, created_ms
             FROM refresh_tokens JOIN grants ON grants.id = grant_id WHERE hash = ?1",
            params![request.token],
            |row| {
                Ok(StoredRefreshToken {
                    grant: row.get(0)?,
                    parent: row.get(1)?,
                    until_ms: row.get(2)?,
                    rotated_ms: row.get(3)?,
                    succeeded: row.get(4)?,
                    superseded: row.get(5)?,
                    client: row.get(6)?,
                    resource: row.get(7)?,
                    scope: row.get(8)?,
                    created_ms: row.get(9)?,
                })
            },
        )
        .optional()?;
    let Some(token) = found else {
        return Ok(Err(GrantRefusal::Unknown));
    };
    if token.client != request.client {
        return Ok(Err(GrantRefusal::OtherClient));
    }
    if token.until_ms <= now_ms {
        return Ok(Err(GrantRefusal::Expired));
    }
    if token.succeeded || token.superseded {
        delete(connection, &token.grant)?;
        return Ok(Err(GrantRefusal::Reused));
    }
    if is_other(request.resource.as_deref(), &token.resource) {
        return Ok(Err(GrantRefusal::OtherResource));
    }
    let requests_writing = request.scope.as_deref().is_some_and(scope::allows_writing);
    if requests_writing && !scope::allows_writing(&token.scope) {
        return Ok(Err(GrantRefusal::WiderScope));
    }
    token.record_use(connection, &request.token, now_ms)?;
    insert_tokens(
        connection,
        &token.grant,
        token.created_ms,
        Some(&request.token),
        tokens,
        now_ms,
    )?;
    Ok(Ok(IssuedGrant {
        grant: token.grant,
        scope: token.scope,
    }))
}

/// The row of a refresh token, joined with its grant.
struct StoredRefreshToken {
    grant: String,
    parent: Option<TokenHash>,
    until_ms: i64,
    /// When it was first used.
    rotated_ms: Option<i64>,
    /// Whether a replacement was used.
    succeeded: bool,
    /// Whether a later replacement invalidated it before it was used.
    superseded: bool,
    client: String,
    resource: String,
    scope: String,
    created_ms: i64,
}

impl StoredRefreshToken {
    /// Records a use.
    fn record_use(
        &self,
        connection: &Connection,
        hash: &TokenHash,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        match self.rotated_ms {
            None => {
                connection.execute(
                    "UPDATE refresh_tokens SET rotated_ms = ?2 WHERE hash = ?1",
                    params![hash, now_ms],
                )?;
                // The client has the replacement, so the predecessor becomes invalid.
                connection.execute(
                    "UPDATE refresh_tokens SET succeeded = 1 WHERE hash = ?1",
                    params![self.parent],
                )?;
            }
            Some(first) if now_ms.saturating_sub(first) > RACE_WINDOW_MS => {
                connection.execute(
                    "UPDATE refresh_tokens SET superseded = 1 WHERE parent = ?1",
                    params![hash],
                )?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// Whether a requested value differs from the stored one.
fn is_other(requested: Option<&str>, stored: &str) -> bool {
    requested.is_some_and(|requested| requested != stored)
}

fn insert_tokens(
    connection: &Connection,
    grant: &str,
    created_ms: i64,
    parent: Option<&TokenHash>,
    tokens: TokenPairHashes,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let end_of_grant = created_ms.saturating_add(GRANT_LIFETIME_MS);
    let access_until = now_ms
        .saturating_add(ACCESS_TOKEN_LIFETIME_SECONDS * 1_000)
        .min(end_of_grant);
    let refresh_until = now_ms
        .saturating_add(REFRESH_TOKEN_LIFETIME_MS)
        .min(end_of_grant);
    connection.execute(
        "INSERT INTO access_tokens (hash, grant_id, until_ms) VALUES (?1, ?2, ?3)",
        params![tokens.access, grant, access_until],
    )?;
    connection.execute(
        "INSERT INTO refresh_tokens (hash, grant_id, parent, until_ms) VALUES (?1, ?2, ?3, ?4)",
        params![tokens.refresh, grant, parent, refresh_until],
    )?;
    connection
        .execute(
            "UPDATE grants SET until_ms = max(until_ms, ?2) WHERE id = ?1",
            params![grant, refresh_until],
        )
        .map(drop)
}

/// The grant of a valid access token.
pub(in crate::oauth) fn find_by_access_token(
    connection: &Connection,
    token: &TokenHash,
    now_ms: i64,
) -> rusqlite::Result<Option<Grant>> {
    connection
        .query_row(
            "SELECT grants.id, client, resource, scope, credential
             FROM access_tokens JOIN grants ON grants.id = grant_id
             WHERE hash = ?1 AND access_tokens.until_ms > ?2",
            params![token, now_ms],
            read_grant,
        )
        .optional()
}

/// A grant by its id.
pub(in crate::oauth) fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Grant>> {
    connection
        .query_row(
            "SELECT id, client, resource, scope, credential FROM grants WHERE id = ?1",
            params![id],
            read_grant,
        )
        .optional()
}

/// Deletes the grant of an access token or a refresh token, and returns its id. `client`, if given, must be
/// the client of the grant.
pub(in crate::oauth) fn revoke(
    connection: &Connection,
    token: &TokenHash,
    client: Option<&str>,
) -> rusqlite::Result<Option<String>> {
    let found: Option<(String, String)> = connection
        .query_row(
            "SELECT id, client FROM grants WHERE id IN (
               SELECT grant_id FROM refresh_tokens WHERE hash = ?1
               UNION SELECT grant_id FROM access_tokens WHERE hash = ?1)",
            params![token],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((grant, owner)) = found else {
        return Ok(None);
    };
    if client.is_some_and(|client| client != owner) {
        return Ok(None);
    }
    delete(connection, &grant)?;
    Ok(Some(grant))
}

/// Deletes a grant with its credential, code and tokens.
fn delete(connection: &Connection, grant: &str) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM grants WHERE id = ?1", params![grant])
        .map(drop)
}

fn read_grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get(0)?,
        client: row.get(1)?,
        resource: row.get(2)?,
        scope: row.get(3)?,
        credential: row.get(4)?,
    })
}

/// Deletes expired tokens and grants.
pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    for table in ["access_tokens", "refresh_tokens", "grants"] {
        let sql = format!("DELETE FROM {table} WHERE until_ms <= ?1");
        connection.execute(&sql, params![now_ms])?;
    }
    Ok(())
}
