//! Codes, access tokens and refresh tokens with the grants they belong to, stored as hashes.
//!
//! A code works once and for one minute, a refresh token once. A second use shows that the code or
//! token was stolen, so it ends the grant.

use std::collections::HashMap;
use std::time::Duration;

use llmobs_authz::oauth::primitives::{OpaqueToken, TokenHash, verify_pkce};
use tokio::time::Instant;

/// The prefix of access tokens.
pub(super) const ACCESS_PREFIX: &str = "llmobs_double_access_";
const REFRESH_PREFIX: &str = "llmobs_double_refresh_";

const CODE_LIFETIME: Duration = Duration::from_secs(60);
/// How long an access token is valid.
pub(super) const ACCESS_LIFETIME: Duration = Duration::from_secs(3_600);

/// What a user consented to.
#[derive(Debug, Clone)]
pub(super) struct AuthorizationRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) code_challenge: String,
    pub(super) scope: String,
}

/// The key of a code or token.
type Key = [u8; 32];

struct IssuedCode {
    request: AuthorizationRequest,
    expires: Instant,
    /// The grant that was made with it.
    grant: Option<u64>,
}

struct Grant {
    client_id: String,
    scope: String,
}

struct AccessToken {
    grant: u64,
    expires: Instant,
}

struct RefreshToken {
    grant: u64,
    used: bool,
}

/// Tokens for a client.
pub(super) struct IssuedTokens {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) scope: String,
}

/// All grants with their codes and tokens.
#[derive(Default)]
pub(super) struct Grants {
    codes: HashMap<Key, IssuedCode>,
    grants: HashMap<u64, Grant>,
    access_tokens: HashMap<Key, AccessToken>,
    /// Used ones stay, to detect a second use.
    refresh_tokens: HashMap<Key, RefreshToken>,
    last_grant: u64,
}

impl Grants {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A code for a request that the user allowed.
    pub(super) fn issue_code(&mut self, request: AuthorizationRequest) -> String {
        let code = OpaqueToken::generate();
        let entry = IssuedCode {
            request,
            expires: Instant::now() + CODE_LIFETIME,
            grant: None,
        };
        self.codes.insert(*code.hash().bytes(), entry);
        code.expose().to_owned()
    }

    /// Tokens for a code; `None` if the code or anything that comes with it is wrong.
    pub(super) fn exchange(
        &mut self,
        code: &str,
        client_id: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Option<IssuedTokens> {
        let key = key_of(code);
        let entry = self.codes.get_mut(&key)?;
        if let Some(grant) = entry.grant {
            self.grants.remove(&grant);
            return None;
        }
        let is_right = entry.expires > Instant::now()
            && entry.request.client_id == client_id
            && entry.request.redirect_uri == redirect_uri
            && verify_pkce(verifier, &entry.request.code_challenge);
        if !is_right {
            // A client has one attempt.
            self.codes.remove(&key);
            return None;
        }
        self.last_grant += 1;
        entry.grant = Some(self.last_grant);
        let grant = Grant {
            client_id: client_id.to_owned(),
            scope: entry.request.scope.clone(),
        };
        self.grants.insert(self.last_grant, grant);
        self.issue_tokens(self.last_grant)
    }

    /// New tokens for a refresh token, which cannot be used again.
    pub(super) fn renew(&mut self, token: &str, client_id: &str) -> Option<IssuedTokens> {
        let entry = self.refresh_tokens.get_mut(&key_of(token))?;
        let id = entry.grant;
        if entry.used {
            self.grants.remove(&id);
            return None;
        }
        if self.grants.get(&id)?.client_id != client_id {
            return None;
        }
        entry.used = true;
        self.issue_tokens(id)
    }

    fn issue_tokens(&mut self, grant: u64) -> Option<IssuedTokens> {
        let scope = self.grants.get(&grant)?.scope.clone();
        let access = OpaqueToken::with_prefix(ACCESS_PREFIX);
        let refresh = OpaqueToken::with_prefix(REFRESH_PREFIX);
        let expires = Instant::now() + ACCESS_LIFETIME;
        self.access_tokens
            .insert(*access.hash().bytes(), AccessToken { grant, expires });
        let entry = RefreshToken { grant, used: false };
        self.refresh_tokens.insert(*refresh.hash().bytes(), entry);
        Some(IssuedTokens {
            access: access.expose().to_owned(),
            refresh: refresh.expose().to_owned(),
            scope,
        })
    }

    /// Revokes an access token, or the grant of a refresh token.
    pub(super) fn revoke(&mut self, token: &str, client_id: &str) {
        let key = key_of(token);
        let grant = self
            .refresh_tokens
            .get(&key)
            .map(|entry| entry.grant)
            .or_else(|| self.access_tokens.get(&key).map(|entry| entry.grant));
        let Some(id) = grant.filter(|id| {
            self.grants
                .get(id)
                .is_some_and(|grant| grant.client_id == client_id)
        }) else {
            return;
        };
        if self.access_tokens.remove(&key).is_none() {
            self.grants.remove(&id);
        }
    }

    /// Whether an access token is valid now.
    pub(super) fn is_valid(&self, token: &str) -> bool {
        self.access_tokens.get(&key_of(token)).is_some_and(|entry| {
            entry.expires > Instant::now() && self.grants.contains_key(&entry.grant)
        })
    }
}

fn key_of(text: &str) -> Key {
    *TokenHash::of(text).bytes()
}
