//! Codes, access tokens and refresh tokens, as hashes, with what they stand for.
//!
//! A code is good once and for a minute; a refresh token once. Either of them coming a second time
//! means that somebody else has it, so everything that came of it ends.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Hashed, Table, hashed, random};

/// How access tokens of this machine begin.
pub(super) const ACCESS_PREFIX: &str = "llmobs_local_access_";
const REFRESH_PREFIX: &str = "llmobs_local_refresh_";

const CODE_LIFE: Duration = Duration::from_secs(60);
/// The life of an access token.
pub(super) const ACCESS_LIFE: Duration = Duration::from_secs(3_600);
const MOST: usize = 1_000;

/// What a person agreed to.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) client_id: String,
    pub(super) redirect: String,
    pub(super) challenge: String,
    pub(super) scope: String,
}

struct Code {
    asked: Asked,
    until: Instant,
    /// The grant that came of it.
    used_for: Option<u64>,
}

struct Grant {
    client_id: String,
    scope: String,
}

struct Access {
    grant: u64,
    until: Instant,
}

struct Refresh {
    grant: u64,
    spent: bool,
}

/// What is given out, once.
pub(super) struct Given {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) scope: String,
}

/// All that was granted.
pub(super) struct Grants {
    codes: Table<Hashed, Code>,
    grants: Table<u64, Grant>,
    access: Table<Hashed, Access>,
    refresh: Table<Hashed, Refresh>,
    next: u64,
}

impl Grants {
    pub(super) fn new() -> Self {
        Self {
            codes: Table::of(MOST),
            grants: Table::of(MOST),
            access: Table::of(MOST),
            // Spent ones are kept too, to notice them coming again.
            refresh: Table::of(10 * MOST),
            next: 0,
        }
    }

    /// A code for what was agreed to.
    pub(super) fn code(&mut self, asked: Asked) -> String {
        let code = random();
        let entry = Code {
            asked,
            until: Instant::now() + CODE_LIFE,
            used_for: None,
        };
        self.codes.insert(hashed(&code), entry);
        code
    }

    /// Tokens for a code; `None` if anything about it is wrong.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        client_id: &str,
        redirect: &str,
        verifier: &str,
    ) -> Option<Given> {
        let key = hashed(code);
        let entry = self.codes.get_mut(&key)?;
        if let Some(grant) = entry.used_for {
            self.end(grant);
            return None;
        }
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let right = entry.until > Instant::now()
            && entry.asked.client_id == client_id
            && entry.asked.redirect == redirect
            && (43..=128).contains(&verifier.len())
            && hashed(&challenge) == hashed(&entry.asked.challenge);
        if !right {
            // Whoever guesses guesses once.
            self.codes.remove(&key);
            return None;
        }
        self.next += 1;
        entry.used_for = Some(self.next);
        let grant = Grant {
            client_id: client_id.to_owned(),
            scope: entry.asked.scope.clone(),
        };
        self.grants.insert(self.next, grant);
        self.give(self.next)
    }

    /// New tokens for a refresh token, which is spent by that.
    pub(super) fn renew(&mut self, token: &str, client_id: &str) -> Option<Given> {
        let entry = self.refresh.get_mut(&hashed(token))?;
        let id = entry.grant;
        if entry.spent {
            self.end(id);
            return None;
        }
        if self.grants.get(&id)?.client_id != client_id {
            return None;
        }
        entry.spent = true;
        self.give(id)
    }

    fn give(&mut self, id: u64) -> Option<Given> {
        let scope = self.grants.get(&id)?.scope.clone();
        let access = format!("{ACCESS_PREFIX}{}", random());
        let refresh = format!("{REFRESH_PREFIX}{}", random());
        let until = Instant::now() + ACCESS_LIFE;
        self.access
            .insert(hashed(&access), Access { grant: id, until });
        let entry = Refresh {
            grant: id,
            spent: false,
        };
        self.refresh.insert(hashed(&refresh), entry);
        Some(Given {
            access,
            refresh,
            scope,
        })
    }

    /// Ends what a token stands for: an access token itself, a refresh token its whole grant.
    pub(super) fn revoke(&mut self, token: &str, client_id: &str) {
        let key = hashed(token);
        let grant = self
            .refresh
            .get(&key)
            .map(|entry| entry.grant)
            .or_else(|| self.access.get(&key).map(|entry| entry.grant));
        let Some(id) = grant.filter(|id| {
            self.grants
                .get(id)
                .is_some_and(|grant| grant.client_id == client_id)
        }) else {
            return;
        };
        if self.access.remove(&key).is_none() {
            self.end(id);
        }
    }

    /// Whether an access token is good now.
    pub(super) fn is_live(&self, token: &str) -> bool {
        self.access.get(&hashed(token)).is_some_and(|entry| {
            entry.until > Instant::now() && self.grants.get(&entry.grant).is_some()
        })
    }

    /// Ends a grant: its tokens find it no more.
    fn end(&mut self, id: u64) {
        self.grants.remove(&id);
    }
}
