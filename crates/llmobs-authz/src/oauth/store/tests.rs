mod logins;

use std::time::Duration;

use super::clients::Registered;
use super::grants::{self, Exchange, Grant, Issued, NewGrant, Refused, Renewal};
use super::*;
use crate::oauth::clock::Clock;
use crate::oauth::clock::testing::ManualClock;
use crate::oauth::opaque::{Hashed, Opaque, PLAIN};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:5/cb";
const MCP: &str = "https://mcp.example.com/mcp";
const KEY: [u8; 8] = [1; 8];

struct Stage {
    folder: tempfile::TempDir,
    store: Store,
    clock: ManualClock,
}

/// The two tokens of one issue.
struct Pair {
    access: Opaque,
    refresh: Opaque,
}

impl Pair {
    fn new() -> Self {
        Self {
            access: Opaque::new(PLAIN),
            refresh: Opaque::new(PLAIN),
        }
    }

    fn issued(&self) -> Issued {
        Issued {
            access: self.access.hashed(),
            refresh: self.refresh.hashed(),
        }
    }
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(&folder.path().join("state"), KEY).unwrap(),
            folder,
            clock: ManualClock::default(),
        }
    }

    fn do_write<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        let mut connection = locked(&self.store.writer);
        let transaction = connection.transaction().unwrap();
        let result = work(&transaction).unwrap();
        transaction.commit().unwrap();
        result
    }

    fn code(&self) -> Opaque {
        let code = Opaque::new(PLAIN);
        let new = NewGrant {
            grant: Grant {
                id: uuid::Uuid::new_v4().to_string(),
                client: "client-a".into(),
                resource: MCP.into(),
                scope: "llmobs:read".into(),
                credential: vec![1, 2, 3],
            },
            is_login: false,
            code: code.hashed(),
            redirect: CALLBACK.into(),
            challenge: CHALLENGE.into(),
        };
        assert!(self.do_write(|c| grants::add(c, &new, self.clock.now_ms())));
        code
    }

    fn exchange(&self, asked: &Exchange, pair: &Pair) -> Result<(), Refused> {
        let now = self.clock.now_ms();
        self.do_write(|c| grants::exchange(c, asked, pair.issued(), now))
            .map(drop)
    }

    fn refresh(&self, token: &Opaque) -> Result<Pair, Refused> {
        let pair = Pair::new();
        let asked = Renewal {
            token: token.hashed(),
            client: "client-a".into(),
            scope: None,
            resource: None,
        };
        let now = self.clock.now_ms();
        self.do_write(|c| grants::refresh(c, &asked, pair.issued(), now))
            .map(|_| pair)
    }

    fn lives(&self, token: &Opaque) -> bool {
        let now = self.clock.now_ms();
        self.do_write(|c| grants::of_access_token(c, &token.hashed(), now))
            .is_some()
    }

    fn signed_in(&self) -> Pair {
        let pair = Pair::new();
        self.exchange(&asked(&self.code()), &pair).unwrap();
        pair
    }

    fn grants(&self) -> i64 {
        self.do_write(|c| c.query_row("SELECT count(*) FROM grants", [], |row| row.get(0)))
    }
}

fn asked(code: &Opaque) -> Exchange {
    Exchange {
        code: code.hashed(),
        client: "client-a".into(),
        redirect: CALLBACK.into(),
        verifier: VERIFIER.into(),
        resource: None,
    }
}

#[test]
fn a_code_is_good_once_and_its_replay_ends_what_came_of_it() {
    let stage = Stage::new();
    let code = stage.code();
    let pair = Pair::new();
    stage.exchange(&asked(&code), &pair).unwrap();
    assert!(stage.lives(&pair.access));
    let replay = stage.exchange(&asked(&code), &Pair::new());
    assert_eq!(replay, Err(Refused::Reused));
    assert!(!stage.lives(&pair.access));
    assert_eq!(stage.refresh(&pair.refresh).err(), Some(Refused::Unknown));
    assert_eq!(stage.grants(), 0);
}

#[test]
fn a_code_with_anything_wrong_is_refused_and_spent() {
    type Change = fn(&mut Exchange);
    let cases: [(Change, Refused); 4] = [
        (
            |asked| asked.client = "client-b".into(),
            Refused::OtherClient,
        ),
        (
            |asked| asked.redirect = "http://127.0.0.1:6/cb".into(),
            Refused::Mismatch,
        ),
        (|asked| asked.verifier = "x".repeat(43), Refused::Mismatch),
        (
            |asked| asked.resource = Some("https://other.example/mcp".into()),
            Refused::OtherResource,
        ),
    ];
    for (change, expected) in cases {
        let stage = Stage::new();
        let code = stage.code();
        let mut wrong = asked(&code);
        change(&mut wrong);
        assert_eq!(stage.exchange(&wrong, &Pair::new()), Err(expected));
        let again = stage.exchange(&asked(&code), &Pair::new());
        assert_eq!(again, Err(Refused::Unknown), "{expected:?}");
    }
}

#[test]
fn a_code_lives_a_minute() {
    let stage = Stage::new();
    let code = stage.code();
    stage.clock.pass(Duration::from_secs(59));
    stage.exchange(&asked(&code), &Pair::new()).unwrap();
    let code = stage.code();
    stage.clock.pass(Duration::from_secs(60));
    let late = stage.exchange(&asked(&code), &Pair::new());
    assert_eq!(late, Err(Refused::Expired));
}

#[test]
fn an_access_token_lives_an_hour() {
    let stage = Stage::new();
    let pair = stage.signed_in();
    stage.clock.pass(Duration::from_secs(3_599));
    assert!(stage.lives(&pair.access));
    stage.clock.pass(Duration::from_secs(1));
    assert!(!stage.lives(&pair.access));
}

#[test]
fn a_refresh_token_that_was_replaced_and_comes_again_ends_the_grant() {
    let stage = Stage::new();
    let first = stage.signed_in();
    let second = stage.refresh(&first.refresh).unwrap();
    let third = stage.refresh(&second.refresh).unwrap();
    assert_eq!(stage.refresh(&first.refresh).err(), Some(Refused::Reused));
    assert!(!stage.lives(&third.access));
    assert_eq!(stage.refresh(&third.refresh).err(), Some(Refused::Unknown));
}

#[test]
fn a_client_that_lost_the_replacement_may_use_the_old_one_until_a_replacement_is_used() {
    let stage = Stage::new();
    let first = stage.signed_in();
    stage.refresh(&first.refresh).unwrap();
    stage.clock.pass(Duration::from_secs(86_400));
    let again = stage.refresh(&first.refresh).unwrap();
    stage.refresh(&again.refresh).unwrap();
    assert_eq!(stage.refresh(&first.refresh).err(), Some(Refused::Reused));
}

#[test]
fn two_processes_that_refresh_at_once_both_go_on() {
    let stage = Stage::new();
    let first = stage.signed_in();
    let one = stage.refresh(&first.refresh).unwrap();
    stage.clock.pass(Duration::from_secs(60));
    let other = stage.refresh(&first.refresh).unwrap();
    stage.refresh(&one.refresh).unwrap();
    stage.refresh(&other.refresh).unwrap();
}

#[test]
fn a_replacement_put_out_of_force_ends_the_grant_when_it_is_used() {
    let stage = Stage::new();
    let first = stage.signed_in();
    let one = stage.refresh(&first.refresh).unwrap();
    stage.clock.pass(Duration::from_secs(61));
    let other = stage.refresh(&first.refresh).unwrap();
    assert_eq!(stage.refresh(&one.refresh).err(), Some(Refused::Reused));
    assert_eq!(stage.refresh(&other.refresh).err(), Some(Refused::Unknown));
}

#[test]
fn a_refresh_token_is_good_for_its_own_client_and_audience_only() {
    let stage = Stage::new();
    let pair = stage.signed_in();
    let now = stage.clock.now_ms();
    let mut asked = Renewal {
        token: pair.refresh.hashed(),
        client: "client-b".into(),
        scope: None,
        resource: None,
    };
    let issued = Pair::new().issued();
    let refused = stage.do_write(|c| grants::refresh(c, &asked, issued, now));
    assert_eq!(refused, Err(Refused::OtherClient));
    asked.client = "client-a".into();
    asked.resource = Some("https://mcp.example.com/v1/mcp".into());
    let refused = stage.do_write(|c| grants::refresh(c, &asked, issued, now));
    assert_eq!(refused, Err(Refused::OtherResource));
    asked.resource = None;
    asked.scope = Some("llmobs:read llmobs:write".into());
    let refused = stage.do_write(|c| grants::refresh(c, &asked, issued, now));
    assert_eq!(refused, Err(Refused::WiderScope));
    // None of these attempts spent it.
    stage.refresh(&pair.refresh).unwrap();
}

#[test]
fn an_unused_refresh_token_lives_a_month_and_no_grant_lives_longer_than_three() {
    let day = Duration::from_secs(86_400);
    let stage = Stage::new();
    let mut pair = stage.signed_in();
    stage.clock.pass(day * 30);
    assert_eq!(stage.refresh(&pair.refresh).err(), Some(Refused::Expired));
    pair = stage.signed_in();
    for _ in 0..3 {
        stage.clock.pass(day * 29);
        pair = stage.refresh(&pair.refresh).unwrap();
    }
    stage.clock.pass(day * 3);
    assert_eq!(stage.refresh(&pair.refresh).err(), Some(Refused::Expired));
}

#[test]
fn revoking_either_token_ends_the_grant_and_a_stranger_cannot() {
    let stage = Stage::new();
    let revoke = |token: &Opaque, client: Option<&str>| {
        stage.do_write(|c| grants::revoke(c, &token.hashed(), client))
    };
    let pair = stage.signed_in();
    assert!(revoke(&pair.refresh, Some("client-b")).is_none());
    assert!(stage.lives(&pair.access));
    assert!(revoke(&pair.refresh, Some("client-a")).is_some());
    assert!(!stage.lives(&pair.access));
    let pair = stage.signed_in();
    assert!(revoke(&pair.access, None).is_some());
    assert_eq!(stage.refresh(&pair.refresh).err(), Some(Refused::Unknown));
    assert!(revoke(&pair.access, None).is_none());
}

#[tokio::test]
async fn what_is_over_is_deleted_with_its_credential() {
    let Stage {
        folder: _folder,
        store,
        clock,
    } = Stage::new();
    let stage = Stage {
        folder: tempfile::tempdir().unwrap(),
        store,
        clock,
    };
    stage.code();
    stage.signed_in();
    stage.clock.pass(Duration::from_secs(61));
    let now = stage.clock.now_ms();
    let Stage {
        store,
        clock,
        folder,
    } = stage;
    let store = Arc::new(store);
    store.purge(now).await.unwrap();
    let count = |store: &Store, table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        locked(&store.reader)
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(&store, "grants"), 1, "the code that nobody fetched");
    clock.pass(Duration::from_secs(31 * 86_400));
    store.purge(clock.now_ms()).await.unwrap();
    for table in ["grants", "codes", "access_tokens", "refresh_tokens"] {
        assert_eq!(count(&store, table), 0, "{table}");
    }
    drop(folder);
}

#[test]
fn registrations_are_bounded_and_the_oldest_unused_makes_room() {
    let stage = Stage::new();
    let client = |id: String| Registered {
        id,
        name: "n".into(),
        redirects: vec![CALLBACK.into()],
    };
    stage.do_write(|c| {
        for n in 0..10_000 {
            assert!(clients::add(c, &client(format!("c{n}")), n)?);
        }
        clients::used(c, "c0", 1)?;
        assert!(clients::add(c, &client("new".into()), 10_000)?);
        assert!(clients::get(c, "c0")?.is_some());
        assert!(clients::get(c, "c1")?.is_none());
        assert_eq!(clients::get(c, "new")?, Some(client("new".into())));
        Ok(())
    });
}

#[test]
fn a_registration_without_a_sign_in_goes_after_a_day() {
    let stage = Stage::new();
    let day = 86_400_000;
    stage.do_write(|c| {
        for id in ["unused", "used", "granted"] {
            let client = Registered {
                id: id.into(),
                name: "n".into(),
                redirects: vec![],
            };
            clients::add(c, &client, 0)?;
        }
        clients::used(c, "used", 1)?;
        clients::purge(c, day + 1)?;
        assert!(!clients::exists(c, "unused")?);
        assert!(clients::exists(c, "used")?);
        clients::purge(c, 90 * day + 2)?;
        assert!(!clients::exists(c, "used")?);
        Ok(())
    });
}

#[test]
fn a_store_is_found_again_and_tells_a_wrong_key() {
    let stage = Stage::new();
    let pair = stage.signed_in();
    let folder = stage.folder.path().join("state");
    let again = Store::open(&folder, KEY).unwrap();
    let found = grants::of_access_token(
        &locked(&again.reader),
        &pair.access.hashed(),
        stage.clock.now_ms(),
    );
    assert!(found.unwrap().is_some());
    let error = Store::open(&folder, [2; 8]).err().unwrap();
    assert!(matches!(error, StoreError::OtherKey(_)), "{error}");
}

#[test]
fn a_file_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    private(&path);
    let error = Store::open(folder.path(), KEY).err().unwrap();
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    std::fs::write(
        &path,
        "no database at all, but long enough to be looked at as one",
    )
    .unwrap();
    let error = Store::open(folder.path(), KEY).err().unwrap();
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
}

fn private(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new();
    stage.signed_in();
    let folder = stage.folder.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        seen += 1;
    }
    assert!(seen >= 1);
    for (path, mode) in [(folder.join(FILE_NAME), 0o644), (folder.clone(), 0o720)] {
        let before = std::fs::metadata(&path).unwrap().permissions();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(&folder, KEY).err().unwrap();
        assert!(
            matches!(&error, StoreError::Exposed(named) if *named == path),
            "{error}"
        );
        std::fs::set_permissions(&path, before).unwrap();
    }
    Store::open(&folder, KEY).unwrap();
}

#[test]
fn the_file_holds_no_token() {
    let stage = Stage::new();
    let pair = stage.signed_in();
    let folder = stage.folder.path().join("state");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [pair.access.expose(), pair.refresh.expose()] {
            let held = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!held, "a token stands in the store");
        }
    }
    let hash = pair.access.hashed();
    assert!(hash.is(&Hashed::of(pair.access.expose())));
}
