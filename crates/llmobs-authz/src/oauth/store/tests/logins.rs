//! Grants with a login at Datadog: leases for its renewal, and its revocation.

use super::super::renewals::{self, Claim};
use super::super::revocations;
use super::*;

impl StoreFixture {
    /// Inserts a grant with a login, and returns its code.
    fn insert_login(&self) -> (String, OpaqueToken) {
        let code = OpaqueToken::generate();
        let id = uuid::Uuid::new_v4().to_string();
        let new = NewGrant {
            grant: Grant {
                id: id.clone(),
                client: "client-a".into(),
                resource: MCP.into(),
                scope: "llmobs:read".into(),
                credential: vec![1, 2, 3],
            },
            is_login: true,
            code: code.hash(),
            redirect: CALLBACK.into(),
            challenge: CHALLENGE.into(),
        };
        assert!(self.write_sync(|c| grants::insert(c, &new, self.clock.now_ms())));
        (id, code)
    }

    fn claim(&self, grant: &str, renewer: &str, seen: &[u8], urgent: bool) -> bool {
        let now = self.clock.now_ms();
        let claim = Claim {
            grant: grant.into(),
            seen: seen.into(),
            renewer: renewer.into(),
            until_ms: now + 60_000,
            urgent,
        };
        self.write_sync(|c| renewals::claim(c, &claim, now))
    }

    fn due_revocations(&self) -> Vec<(String, Vec<u8>)> {
        let now = self.clock.now_ms();
        let mut all = Vec::new();
        while let Some(ended) = self.write_sync(|c| revocations::next_due(c, now, now + 1_000)) {
            assert_eq!(
                (ended.client.as_str(), ended.resource.as_str()),
                ("client-a", MCP)
            );
            all.push((ended.grant, ended.credential));
        }
        all
    }
}

#[test]
fn one_task_at_a_time_renews_a_login() {
    let fixture = StoreFixture::new();
    let (grant, _) = fixture.insert_login();
    assert!(fixture.claim(&grant, "one", &[1, 2, 3], false));
    assert!(!fixture.claim(&grant, "two", &[1, 2, 3], false));
    assert!(
        !fixture.claim(&grant, "two", &[1, 2, 3], true),
        "an urgent claim does not take a held lease"
    );
    // Only the holder of the lease can store a renewed login.
    assert!(!fixture.write_sync(|c| renewals::keep(c, &grant, "two", &[4])));
    assert!(fixture.write_sync(|c| renewals::keep(c, &grant, "one", &[4])));
    // A task that has read the old login cannot take the lease.
    assert!(!fixture.claim(&grant, "two", &[1, 2, 3], true));
    assert!(fixture.claim(&grant, "two", &[4], false));
}

#[test]
fn lease_of_dead_process_expires() {
    let fixture = StoreFixture::new();
    let (grant, _) = fixture.insert_login();
    assert!(fixture.claim(&grant, "one", &[1, 2, 3], false));
    fixture.clock.advance(Duration::from_secs(60));
    assert!(fixture.claim(&grant, "two", &[1, 2, 3], false));
    assert!(!fixture.write_sync(|c| renewals::keep(c, &grant, "one", &[4])));
}

#[test]
fn only_urgent_claims_skip_the_pause_after_a_failure() {
    let fixture = StoreFixture::new();
    let (grant, _) = fixture.insert_login();
    assert!(fixture.claim(&grant, "one", &[1, 2, 3], false));
    let pause = fixture.clock.now_ms() + 10_000;
    fixture.write_sync(|c| renewals::give_up(c, &grant, "one", pause));
    assert!(!fixture.claim(&grant, "two", &[1, 2, 3], false));
    assert!(fixture.claim(&grant, "two", &[1, 2, 3], true));
    let pause = fixture.clock.now_ms() + 10_000;
    fixture.write_sync(|c| renewals::give_up(c, &grant, "two", pause));
    fixture.clock.advance(Duration::from_secs(10));
    assert!(fixture.claim(&grant, "three", &[1, 2, 3], false));
}

#[test]
fn every_end_of_a_grant_queues_its_revocation_once() {
    let fixture = StoreFixture::new();
    fixture.insert_grant();
    let (replayed, code) = fixture.insert_login();
    let (expired, _) = fixture.insert_login();
    fixture
        .exchange(&exchange_request(&code), &TokenPair::new())
        .unwrap();
    assert!(fixture.due_revocations().is_empty());
    let replay = fixture.exchange(&exchange_request(&code), &TokenPair::new());
    assert_eq!(replay, Err(GrantRefusal::Reused));
    assert_eq!(
        fixture.due_revocations(),
        [(replayed.clone(), vec![1, 2, 3])]
    );
    fixture.clock.advance(Duration::from_secs(60));
    let now = fixture.clock.now_ms();
    fixture.write_sync(|c| grants::purge(c, now));
    // The first revocation was not removed, so it is due again.
    let mut due = fixture.due_revocations();
    due.sort();
    let mut expected = [
        (replayed.clone(), vec![1, 2, 3]),
        (expired.clone(), vec![1, 2, 3]),
    ];
    expected.sort();
    assert_eq!(due, expected);
    for grant in [&replayed, &expired] {
        fixture.write_sync(|c| revocations::remove(c, grant));
    }
    fixture.clock.advance(Duration::from_secs(60));
    assert!(fixture.due_revocations().is_empty());
}

#[test]
fn migrates_version_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&format!(
        "{TABLES_V1} PRAGMA application_id = {}; PRAGMA user_version = 1;
         INSERT INTO meta VALUES ('key', x'0101010101010101');
         INSERT INTO grants VALUES ('g', 'client-a', '{MCP}', 'llmobs:read', x'010203', 0, 9);",
        SCHEMA.application_id
    ))
    .unwrap();
    drop(old);
    restrict_to_owner(&path);
    for _ in 0..2 {
        let store = SignInStore::open(directory.path(), KEY).unwrap();
        let grant = store.readers.read(|c| grants::get(c, "g"));
        assert_eq!(grant.unwrap().unwrap().credential, [1, 2, 3]);
    }
    let store = SignInStore::open(directory.path(), KEY).unwrap();
    let writer = lock(&store.writer);
    grants::purge(&writer, 10).unwrap();
    assert!(
        !revocations::are_due(&writer, 10).unwrap(),
        "the grant had no login"
    );
}
