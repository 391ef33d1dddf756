//! Grants and what stands for them: codes, access tokens, refresh tokens.
//!
//! A code is good once and for a minute. Coming a second time, it ends the grant: somebody else has
//! it. Coming with anything wrong beside it, it is spent all the same: whoever guesses guesses once.
//!
//! A refresh token is replaced at each use. Real clients lose the replacement (a crash before it is
//! saved, two processes that refresh at once), so the old one stays good until a replacement is used
//! for the first time. After that, its coming again means that two parties hold it, and the grant
//! ends. Within a minute, a repetition is a retry or a race, and every replacement given stays good;
//! later, a new replacement puts the unused earlier ones out of force, and using one of those ends
//! the grant too.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::clients;
use crate::oauth::opaque::{Hashed, verifies};
use crate::oauth::scope;

/// Life of a code.
const CODE_LIFE_MS: i64 = 60 * 1_000;
/// Life of an access token, in seconds.
pub(in crate::oauth) const ACCESS_LIFE_SECONDS: i64 = 3_600;
/// Life of a refresh token that nobody uses.
const REFRESH_IDLE_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// Life of a grant: then the user is asked again.
const GRANT_LIFE_MS: i64 = 90 * 24 * 3_600 * 1_000;
/// How long a repeated refresh counts as a retry or a race.
const RACE_MS: i64 = 60 * 1_000;
/// Grants kept at a time.
const MOST: i64 = 100_000;

/// What a user agreed to.
#[derive(Debug, Clone)]
pub(in crate::oauth) struct Grant {
    /// Its id.
    pub(in crate::oauth) id: String,
    /// Who may use it.
    pub(in crate::oauth) client: String,
    /// The audience of its tokens.
    pub(in crate::oauth) resource: String,
    /// What it allows, separated by spaces.
    pub(in crate::oauth) scope: String,
    /// The sealed credential, or login at Datadog.
    pub(in crate::oauth) credential: Vec<u8>,
}

/// A grant that is being made, with its code.
pub(in crate::oauth) struct NewGrant {
    /// The grant.
    pub(in crate::oauth) grant: Grant,
    /// Whether it holds a login, to be revoked at Datadog when the grant ends.
    pub(in crate::oauth) is_login: bool,
    /// Hash of the code.
    pub(in crate::oauth) code: Hashed,
    /// Where the code was sent.
    pub(in crate::oauth) redirect: String,
    /// The challenge that its verifier must fit.
    pub(in crate::oauth) challenge: String,
}

/// Hashes of the two tokens that are given out together.
#[derive(Clone, Copy)]
pub(in crate::oauth) struct Issued {
    /// Of the access token.
    pub(in crate::oauth) access: Hashed,
    /// Of the refresh token.
    pub(in crate::oauth) refresh: Hashed,
}

/// A code on its way back, with what must fit.
pub(in crate::oauth) struct Exchange {
    /// Hash of the code.
    pub(in crate::oauth) code: Hashed,
    /// Who presents it.
    pub(in crate::oauth) client: String,
    /// Where that client says it got it.
    pub(in crate::oauth) redirect: String,
    /// The PKCE verifier.
    pub(in crate::oauth) verifier: String,
    /// The audience asked for; `None` takes that of the grant.
    pub(in crate::oauth) resource: Option<String>,
}

/// What became of a code or a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::oauth) enum Refused {
    /// It is not known, was revoked, or its grant is over.
    Unknown,
    /// Its time is over.
    Expired,
    /// It is another client's.
    OtherClient,
    /// Redirect address or verifier do not fit.
    Mismatch,
    /// The audience is another one.
    OtherResource,
    /// The user did not allow that much.
    WiderScope,
    /// It was used before; the grant was ended.
    Reused,
}

/// Tokens were given for a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::oauth) struct Refreshed {
    /// The grant's id.
    pub(in crate::oauth) grant: String,
    /// What it allows.
    pub(in crate::oauth) scope: String,
}

/// Keeps a grant and its code; `false` if there is no room.
pub(in crate::oauth) fn add(
    connection: &Connection,
    new: &NewGrant,
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let count: i64 = connection.query_row("SELECT count(*) FROM grants", [], |row| row.get(0))?;
    if count >= MOST {
        return Ok(false);
    }
    let grant = &new.grant;
    // Until the code comes back, the grant lives no longer than the code.
    let until = now_ms.saturating_add(CODE_LIFE_MS);
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
    clients::used(connection, &grant.client, now_ms)?;
    Ok(true)
}

/// Tokens for a code.
pub(in crate::oauth) fn exchange(
    connection: &Connection,
    asked: &Exchange,
    issued: Issued,
    now_ms: i64,
) -> rusqlite::Result<Result<Refreshed, Refused>> {
    let found = connection
        .query_row(
            "SELECT grant_id, codes.redirect, challenge, codes.until_ms, used_ms, client, resource,
                    scope, created_ms
             FROM codes JOIN grants ON grants.id = grant_id WHERE hash = ?1",
            params![asked.code],
            |row| {
                Ok(Code {
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
        return Ok(Err(Refused::Unknown));
    };
    if let Some(refused) = code.refuses(asked, now_ms) {
        end(connection, &code.grant)?;
        return Ok(Err(refused));
    }
    connection.execute(
        "UPDATE codes SET used_ms = ?2 WHERE hash = ?1",
        params![asked.code, now_ms],
    )?;
    give(
        connection,
        &code.grant,
        code.created_ms,
        None,
        issued,
        now_ms,
    )?;
    Ok(Ok(Refreshed {
        grant: code.grant,
        scope: code.scope,
    }))
}

/// A code as it is kept, with its grant's part.
struct Code {
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

impl Code {
    fn refuses(&self, asked: &Exchange, now_ms: i64) -> Option<Refused> {
        let other = |wanted: &Option<String>, had: &str| {
            wanted.as_deref().is_some_and(|wanted| wanted != had)
        };
        if self.used_ms.is_some() {
            Some(Refused::Reused)
        } else if self.client != asked.client {
            Some(Refused::OtherClient)
        } else if self.until_ms <= now_ms {
            Some(Refused::Expired)
        } else if self.redirect != asked.redirect || !verifies(&asked.verifier, &self.challenge) {
            Some(Refused::Mismatch)
        } else if other(&asked.resource, &self.resource) {
            Some(Refused::OtherResource)
        } else {
            None
        }
    }
}

/// A refresh token on its way back.
pub(in crate::oauth) struct Renewal {
    /// Hash of the refresh token.
    pub(in crate::oauth) token: Hashed,
    /// Who presents it.
    pub(in crate::oauth) client: String,
    /// The scope asked for; `None` takes that of the grant.
    pub(in crate::oauth) scope: Option<String>,
    /// The audience asked for; `None` takes that of the grant.
    pub(in crate::oauth) resource: Option<String>,
}

/// New tokens for a refresh token.
pub(in crate::oauth) fn refresh(
    connection: &Connection,
    asked: &Renewal,
    issued: Issued,
    now_ms: i64,
) -> rusqlite::Result<Result<Refreshed, Refused>> {
    let found = connection
        .query_row(
            "SELECT grant_id, parent, refresh_tokens.until_ms, rotated_ms, succeeded, superseded,
                    client, resource, scope, created_ms
             FROM refresh_tokens JOIN grants ON grants.id = grant_id WHERE hash = ?1",
            params![asked.token],
            |row| {
                Ok(Refresh {
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
        return Ok(Err(Refused::Unknown));
    };
    if token.client != asked.client {
        return Ok(Err(Refused::OtherClient));
    }
    if token.until_ms <= now_ms {
        return Ok(Err(Refused::Expired));
    }
    if token.succeeded || token.superseded {
        end(connection, &token.grant)?;
        return Ok(Err(Refused::Reused));
    }
    if asked
        .resource
        .as_deref()
        .is_some_and(|wanted| wanted != token.resource)
    {
        return Ok(Err(Refused::OtherResource));
    }
    if asked.scope.as_deref().is_some_and(scope::writes) && !scope::writes(&token.scope) {
        return Ok(Err(Refused::WiderScope));
    }
    token.rotate(connection, &asked.token, now_ms)?;
    give(
        connection,
        &token.grant,
        token.created_ms,
        Some(&asked.token),
        issued,
        now_ms,
    )?;
    Ok(Ok(Refreshed {
        grant: token.grant,
        scope: token.scope,
    }))
}

/// A refresh token as it is kept, with its grant's part.
struct Refresh {
    grant: String,
    parent: Option<Hashed>,
    until_ms: i64,
    /// When it was first used.
    rotated_ms: Option<i64>,
    /// Whether a replacement was used.
    succeeded: bool,
    /// Whether a later replacement took its place before it was used.
    superseded: bool,
    client: String,
    resource: String,
    scope: String,
    created_ms: i64,
}

impl Refresh {
    /// Notes a use, the first one or a repetition within the grace.
    fn rotate(&self, connection: &Connection, hash: &Hashed, now_ms: i64) -> rusqlite::Result<()> {
        match self.rotated_ms {
            None => {
                connection.execute(
                    "UPDATE refresh_tokens SET rotated_ms = ?2 WHERE hash = ?1",
                    params![hash, now_ms],
                )?;
                // The client has its replacement: the predecessor's grace is over.
                connection.execute(
                    "UPDATE refresh_tokens SET succeeded = 1 WHERE hash = ?1",
                    params![self.parent],
                )?;
            }
            Some(first) if now_ms.saturating_sub(first) > RACE_MS => {
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

fn give(
    connection: &Connection,
    grant: &str,
    created_ms: i64,
    parent: Option<&Hashed>,
    issued: Issued,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let end_of_grant = created_ms.saturating_add(GRANT_LIFE_MS);
    let access_until = now_ms
        .saturating_add(ACCESS_LIFE_SECONDS * 1_000)
        .min(end_of_grant);
    let refresh_until = now_ms.saturating_add(REFRESH_IDLE_MS).min(end_of_grant);
    connection.execute(
        "INSERT INTO access_tokens (hash, grant_id, until_ms) VALUES (?1, ?2, ?3)",
        params![issued.access, grant, access_until],
    )?;
    connection.execute(
        "INSERT INTO refresh_tokens (hash, grant_id, parent, until_ms) VALUES (?1, ?2, ?3, ?4)",
        params![issued.refresh, grant, parent, refresh_until],
    )?;
    connection
        .execute(
            "UPDATE grants SET until_ms = max(until_ms, ?2) WHERE id = ?1",
            params![grant, refresh_until],
        )
        .map(drop)
}

/// The grant that a live access token stands for.
pub(in crate::oauth) fn of_access_token(
    connection: &Connection,
    token: &Hashed,
    now_ms: i64,
) -> rusqlite::Result<Option<Grant>> {
    connection
        .query_row(
            "SELECT grants.id, client, resource, scope, credential
             FROM access_tokens JOIN grants ON grants.id = grant_id
             WHERE hash = ?1 AND access_tokens.until_ms > ?2",
            params![token, now_ms],
            grant_of,
        )
        .optional()
}

/// A grant by its id.
pub(in crate::oauth) fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Grant>> {
    connection
        .query_row(
            "SELECT id, client, resource, scope, credential FROM grants WHERE id = ?1",
            params![id],
            grant_of,
        )
        .optional()
}

/// Ends the grant that a token stands for, whichever kind the token is. `client`, if given, must be
/// the grant's. The id of what was ended.
pub(in crate::oauth) fn revoke(
    connection: &Connection,
    token: &Hashed,
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
    end(connection, &grant)?;
    Ok(Some(grant))
}

/// Deletes a grant with its credential, code and tokens.
fn end(connection: &Connection, grant: &str) -> rusqlite::Result<()> {
    connection
        .execute("DELETE FROM grants WHERE id = ?1", params![grant])
        .map(drop)
}

fn grant_of(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        id: row.get(0)?,
        client: row.get(1)?,
        resource: row.get(2)?,
        scope: row.get(3)?,
        credential: row.get(4)?,
    })
}

pub(super) fn purge(connection: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    for table in ["access_tokens", "refresh_tokens", "grants"] {
        let sql = format!("DELETE FROM {table} WHERE until_ms <= ?1");
        connection.execute(&sql, params![now_ms])?;
    }
    Ok(())
}
