mod logins;

use std::time::Duration;

use super::clients::RegisteredClient;
use super::grants::{
    self, CodeExchange, Grant, GrantRefusal, NewGrant, RefreshRequest, TokenPairHashes,
};
use super::*;
use crate::oauth::clock::Clock;
use crate::oauth::clock::testing::ManualClock;
use crate::oauth::primitives::{OpaqueToken, TokenHash};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:5/cb";
const MCP: &str = "https://mcp.example.com/mcp";
const KEY: [u8; 8] = [1; 8];

struct StoreFixture {
    directory: tempfile::TempDir,
    store: SignInStore,
    clock: ManualClock,
}

/// An access token and its refresh token.
struct TokenPair {
    access: OpaqueToken,
    refresh: OpaqueToken,
}

impl TokenPair {
    fn new() -> Self {
        Self {
            access: OpaqueToken::generate(),
            refresh: OpaqueToken::generate(),
        }
    }

    fn hashes(&self) -> TokenPairHashes {
        TokenPairHashes {
            access: self.access.hash(),
            refresh: self.refresh.hash(),
        }
    }
}

impl StoreFixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: SignInStore::open(&directory.path().join("state"), KEY).unwrap(),
            directory,
            clock: ManualClock::default(),
        }
    }

    fn write_sync<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        let mut connection = lock(&self.store.writer);
        let transaction = connection.transaction().unwrap();
        let result = work(&transaction).unwrap();
        transaction.commit().unwrap();
        result
    }

    fn insert_grant(&self) -> OpaqueToken {
        let code = OpaqueToken::generate();
        let new = NewGrant {
            grant: Grant {
                id: uuid::Uuid::new_v4().to_string(),
                client: "client-a".into(),
                resource: MCP.into(),
                scope: "llmobs:read".into(),
                credential: vec![1, 2, 3],
            },
            is_login: false,
            code: code.hash(),
            redirect: CALLBACK.into(),
            challenge: CHALLENGE.into(),
        };
        assert!(self.write_sync(|c| grants::insert(c, &new, self.clock.now_ms())));
        code
    }

    fn exchange(&self, request: &CodeExchange, pair: &TokenPair) -> Result<(), GrantRefusal> {
        let now = self.clock.now_ms();
        self.write_sync(|c| grants::exchange_code(c, request, pair.hashes(), now))
            .map(drop)
    }

    fn refresh(&self, token: &OpaqueToken) -> Result<TokenPair, GrantRefusal> {
        let pair = TokenPair::new();
        let request = RefreshRequest {
            token: token.hash(),
            client: "client-a".into(),
            scope: None,
            resource: None,
        };
        let now = self.clock.now_ms();
        self.write_sync(|c| grants::rotate_refresh_token(c, &request, pair.hashes(), now))
            .map(|_| pair)
    }

    fn is_valid(&self, token: &OpaqueToken) -> bool {
        let now = self.clock.now_ms();
        self.write_sync(|c| grants::find_by_access_token(c, &token.hash(), now))
            .is_some()
    }

    fn sign_in(&self) -> TokenPair {
        let pair = TokenPair::new();
        self.exchange(&exchange_request(&self.insert_grant()), &pair)
            .unwrap();
        pair
    }

    fn grants(&self) -> i64 {
        self.write_sync(|c| c.query_row("SELECT count(*) FROM grants", [], |row| row.get(0)))
    }
}

fn exchange_request(code: &OpaqueToken) -> CodeExchange {
    CodeExchange {
        code: code.hash(),
        client: "client-a".into(),
        redirect: CALLBACK.into(),
        verifier: VERIFIER.into(),
        resource: None,
    }
}

#[test]
fn replayed_code_ends_its_grant() {
    let fixture = StoreFixture::new();
    let code = fixture.insert_grant();
    let pair = TokenPair::new();
    fixture.exchange(&exchange_request(&code), &pair).unwrap();
    assert!(fixture.is_valid(&pair.access));
    let replay = fixture.exchange(&exchange_request(&code), &TokenPair::new());
    assert_eq!(replay, Err(GrantRefusal::Reused));
    assert!(!fixture.is_valid(&pair.access));
    assert_eq!(
        fixture.refresh(&pair.refresh).err(),
        Some(GrantRefusal::Unknown)
    );
    assert_eq!(fixture.grants(), 0);
}

#[test]
fn mismatched_exchange_consumes_code() {
    type Change = fn(&mut CodeExchange);
    let cases: [(Change, GrantRefusal); 4] = [
        (
            |request| request.client = "client-b".into(),
            GrantRefusal::OtherClient,
        ),
        (
            |request| request.redirect = "http://127.0.0.1:6/cb".into(),
            GrantRefusal::Mismatch,
        ),
        (
            |request| request.verifier = "x".repeat(43),
            GrantRefusal::Mismatch,
        ),
        (
            |request| request.resource = Some("https://other.example/mcp".into()),
            GrantRefusal::OtherResource,
        ),
    ];
    for (change, expected) in cases {
        let fixture = StoreFixture::new();
        let code = fixture.insert_grant();
        let mut wrong = exchange_request(&code);
        change(&mut wrong);
        assert_eq!(fixture.exchange(&wrong, &TokenPair::new()), Err(expected));
        let again = fixture.exchange(&exchange_request(&code), &TokenPair::new());
        assert_eq!(again, Err(GrantRefusal::Unknown), "{expected:?}");
    }
}

#[test]
fn code_expires_after_a_minute() {
    let fixture = StoreFixture::new();
    let code = fixture.insert_grant();
    fixture.clock.advance(Duration::from_secs(59));
    fixture
        .exchange(&exchange_request(&code), &TokenPair::new())
        .unwrap();
    let code = fixture.insert_grant();
    fixture.clock.advance(Duration::from_secs(60));
    let late = fixture.exchange(&exchange_request(&code), &TokenPair::new());
    assert_eq!(late, Err(GrantRefusal::Expired));
}

#[test]
fn access_token_expires_after_an_hour() {
    let fixture = StoreFixture::new();
    let pair = fixture.sign_in();
    fixture.clock.advance(Duration::from_secs(3_599));
    assert!(fixture.is_valid(&pair.access));
    fixture.clock.advance(Duration::from_secs(1));
    assert!(!fixture.is_valid(&pair.access));
}

#[test]
fn reused_refresh_token_ends_its_grant() {
    let fixture = StoreFixture::new();
    let first = fixture.sign_in();
    let second = fixture.refresh(&first.refresh).unwrap();
    let third = fixture.refresh(&second.refresh).unwrap();
    assert_eq!(
        fixture.refresh(&first.refresh).err(),
        Some(GrantRefusal::Reused)
    );
    assert!(!fixture.is_valid(&third.access));
    assert_eq!(
        fixture.refresh(&third.refresh).err(),
        Some(GrantRefusal::Unknown)
    );
}

#[test]
fn old_refresh_token_is_valid_until_a_replacement_is_used() {
    let fixture = StoreFixture::new();
    let first = fixture.sign_in();
    fixture.refresh(&first.refresh).unwrap();
    fixture.clock.advance(Duration::from_secs(86_400));
    let again = fixture.refresh(&first.refresh).unwrap();
    fixture.refresh(&again.refresh).unwrap();
    assert_eq!(
        fixture.refresh(&first.refresh).err(),
        Some(GrantRefusal::Reused)
    );
}

#[test]
fn concurrent_refreshes_both_succeed() {
    let fixture = StoreFixture::new();
    let first = fixture.sign_in();
    let one = fixture.refresh(&first.refresh).unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    let other = fixture.refresh(&first.refresh).unwrap();
    fixture.refresh(&one.refresh).unwrap();
    fixture.refresh(&other.refresh).unwrap();
}

#[test]
fn superseded_refresh_token_ends_its_grant() {
    let fixture = StoreFixture::new();
    let first = fixture.sign_in();
    let one = fixture.refresh(&first.refresh).unwrap();
    fixture.clock.advance(Duration::from_secs(61));
    let other = fixture.refresh(&first.refresh).unwrap();
    assert_eq!(
        fixture.refresh(&one.refresh).err(),
        Some(GrantRefusal::Reused)
    );
    assert_eq!(
        fixture.refresh(&other.refresh).err(),
        Some(GrantRefusal::Unknown)
    );
}

#[test]
fn refresh_checks_client_audience_and_scope() {
    let fixture = StoreFixture::new();
    let pair = fixture.sign_in();
    let now = fixture.clock.now_ms();
    let mut request = RefreshRequest {
        token: pair.refresh.hash(),
        client: "client-b".into(),
        scope: None,
        resource: None,
    };
    let issued = TokenPair::new().hashes();
    let refused = fixture.write_sync(|c| grants::rotate_refresh_token(c, &request, issued, now));
    assert_eq!(refused, Err(GrantRefusal::OtherClient));
    request.client = "client-a".into();
    request.resource = Some("https://mcp.example.com/v1/mcp".into());
    let refused = fixture.write_sync(|c| grants::rotate_refresh_token(c, &request, issued, now));
    assert_eq!(refused, Err(GrantRefusal::OtherResource));
    request.resource = None;
    request.scope = Some("llmobs:read llmobs:write".into());
    let refused = fixture.write_sync(|c| grants::rotate_refresh_token(c, &request, issued, now));
    assert_eq!(refused, Err(GrantRefusal::WiderScope));
    // These attempts did not consume the token.
    fixture.refresh(&pair.refresh).unwrap();
}

#[test]
fn refresh_token_and_grant_expire() {
    let day = Duration::from_secs(86_400);
    let fixture = StoreFixture::new();
    let mut pair = fixture.sign_in();
    fixture.clock.advance(day * 30);
    assert_eq!(
        fixture.refresh(&pair.refresh).err(),
        Some(GrantRefusal::Expired)
    );
    pair = fixture.sign_in();
    for _ in 0..3 {
        fixture.clock.advance(day * 29);
        pair = fixture.refresh(&pair.refresh).unwrap();
    }
    fixture.clock.advance(day * 3);
    assert_eq!(
        fixture.refresh(&pair.refresh).err(),
        Some(GrantRefusal::Expired)
    );
}

#[test]
fn client_revokes_its_own_grant_only() {
    let fixture = StoreFixture::new();
    let revoke = |token: &OpaqueToken, client: Option<&str>| {
        fixture.write_sync(|c| grants::revoke(c, &token.hash(), client))
    };
    let pair = fixture.sign_in();
    assert!(revoke(&pair.refresh, Some("client-b")).is_none());
    assert!(fixture.is_valid(&pair.access));
    assert!(revoke(&pair.refresh, Some("client-a")).is_some());
    assert!(!fixture.is_valid(&pair.access));
    let pair = fixture.sign_in();
    assert!(revoke(&pair.access, None).is_some());
    assert_eq!(
        fixture.refresh(&pair.refresh).err(),
        Some(GrantRefusal::Unknown)
    );
    assert!(revoke(&pair.access, None).is_none());
}

#[tokio::test]
async fn purge_deletes_expired_grants() {
    let StoreFixture {
        directory,
        store,
        clock,
    } = {
        let fixture = StoreFixture::new();
        fixture.insert_grant();
        fixture.sign_in();
        fixture
    };
    let store = Arc::new(store);
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: rusqlite::Result<i64> = store
            .readers
            .read(|c| c.query_row(&sql, [], |row| row.get(0)));
        count.unwrap()
    };
    clock.advance(Duration::from_secs(61));
    store.purge(clock.now_ms()).await.unwrap();
    assert_eq!(
        count("grants"),
        1,
        "the grant without an exchange is deleted"
    );
    clock.advance(Duration::from_secs(31 * 86_400));
    store.purge(clock.now_ms()).await.unwrap();
    for table in ["grants", "codes", "access_tokens", "refresh_tokens"] {
        assert_eq!(count(table), 0, "{table}");
    }
    drop(directory);
}

#[test]
fn full_client_table_drops_oldest_unused_client() {
    let fixture = StoreFixture::new();
    let client = |id: String| RegisteredClient {
        id,
        name: "n".into(),
        redirects: vec![CALLBACK.into()],
    };
    fixture.write_sync(|c| {
        for n in 0..10_000 {
            assert!(clients::insert(c, &client(format!("c{n}")), n)?);
        }
        clients::mark_used(c, "c0", 1)?;
        assert!(clients::insert(c, &client("new".into()), 10_000)?);
        assert!(clients::get(c, "c0")?.is_some());
        assert!(clients::get(c, "c1")?.is_none());
        assert_eq!(clients::get(c, "new")?, Some(client("new".into())));
        Ok(())
    });
}

#[test]
fn purge_deletes_unused_clients() {
    let fixture = StoreFixture::new();
    let day = 86_400_000;
    fixture.write_sync(|c| {
        for id in ["unused", "used", "granted"] {
            let client = RegisteredClient {
                id: id.into(),
                name: "n".into(),
                redirects: vec![],
            };
            clients::insert(c, &client, 0)?;
        }
        clients::mark_used(c, "used", 1)?;
        clients::purge(c, day + 1)?;
        assert!(!clients::exists(c, "unused")?);
        assert!(clients::exists(c, "used")?);
        clients::purge(c, 90 * day + 2)?;
        assert!(!clients::exists(c, "used")?);
        Ok(())
    });
}

#[test]
fn reopens_store_and_refuses_other_key() {
    let fixture = StoreFixture::new();
    let pair = fixture.sign_in();
    let directory = fixture.directory.path().join("state");
    let again = SignInStore::open(&directory, KEY).unwrap();
    let (token, now) = (pair.access.hash(), fixture.clock.now_ms());
    let grant = again
        .readers
        .read(|c| grants::find_by_access_token(c, &token, now));
    assert!(grant.unwrap().is_some());
    let error = SignInStore::open(&directory, [2; 8]).err().unwrap();
    assert!(matches!(error, SignInStoreError::OtherKey(_)), "{error}");
}

#[test]
fn refuses_files_of_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE foreign_table (x)")
        .unwrap();
    drop(other);
    restrict_to_owner(&path);
    let error = SignInStore::open(directory.path(), KEY).err().unwrap();
    assert!(matches!(error, SignInStoreError::Foreign(_)), "{error}");
    std::fs::write(
        &path,
        "not a database, but long enough to be read as a header of one",
    )
    .unwrap();
    let error = SignInStore::open(directory.path(), KEY).err().unwrap();
    assert!(matches!(error, SignInStoreError::Foreign(_)), "{error}");
}

fn restrict_to_owner(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn files_are_accessible_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = StoreFixture::new();
    fixture.sign_in();
    let directory = fixture.directory.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert!(files >= 1);
    for (path, mode) in [
        (directory.join(FILE_NAME), 0o644),
        (directory.clone(), 0o720),
    ] {
        let before = std::fs::metadata(&path).unwrap().permissions();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = SignInStore::open(&directory, KEY).err().unwrap();
        assert!(
            matches!(&error, SignInStoreError::Exposed(named) if *named == path),
            "{error}"
        );
        std::fs::set_permissions(&path, before).unwrap();
    }
    SignInStore::open(&directory, KEY).unwrap();
}

#[test]
fn files_contain_no_tokens() {
    let fixture = StoreFixture::new();
    let pair = fixture.sign_in();
    let directory = fixture.directory.path().join("state");
    for entry in std::fs::read_dir(&directory).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [pair.access.expose(), pair.refresh.expose()] {
            let is_contained = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!is_contained, "the store contains a token");
        }
    }
    let hash = pair.access.hash();
    assert!(hash.matches(&TokenHash::of(pair.access.expose())));
}
