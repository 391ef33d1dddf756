//! Grants that hold a login at Datadog: who renews it, and what is left when it ends.

use super::super::renewals::{self, Claim};
use super::super::revocations;
use super::*;

impl Stage {
    /// A grant that holds a login, with its code.
    fn with_login(&self) -> (String, Opaque) {
        let code = Opaque::new(PLAIN);
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
            code: code.hashed(),
            redirect: CALLBACK.into(),
            challenge: CHALLENGE.into(),
        };
        assert!(self.do_write(|c| grants::add(c, &new, self.clock.now_ms())));
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
        self.do_write(|c| renewals::claim(c, &claim, now))
    }

    fn to_revoke(&self) -> Vec<(String, Vec<u8>)> {
        let now = self.clock.now_ms();
        let mut all = Vec::new();
        while let Some(ended) = self.do_write(|c| revocations::next(c, now, now + 1_000)) {
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
fn a_login_is_renewed_by_one_at_a_time() {
    let stage = Stage::new();
    let (grant, _) = stage.with_login();
    assert!(stage.claim(&grant, "one", &[1, 2, 3], false));
    assert!(!stage.claim(&grant, "two", &[1, 2, 3], false));
    assert!(
        !stage.claim(&grant, "two", &[1, 2, 3], true),
        "however urgent"
    );
    // Nobody but whose turn it is ends it.
    assert!(!stage.do_write(|c| renewals::keep(c, &grant, "two", &[4])));
    assert!(stage.do_write(|c| renewals::keep(c, &grant, "one", &[4])));
    // Who has read the old contents comes too late.
    assert!(!stage.claim(&grant, "two", &[1, 2, 3], true));
    assert!(stage.claim(&grant, "two", &[4], false));
}

#[test]
fn a_turn_whose_process_died_ends_by_itself() {
    let stage = Stage::new();
    let (grant, _) = stage.with_login();
    assert!(stage.claim(&grant, "one", &[1, 2, 3], false));
    stage.clock.pass(Duration::from_secs(60));
    assert!(stage.claim(&grant, "two", &[1, 2, 3], false));
    assert!(!stage.do_write(|c| renewals::keep(c, &grant, "one", &[4])));
}

#[test]
fn after_a_failure_only_those_try_again_who_must() {
    let stage = Stage::new();
    let (grant, _) = stage.with_login();
    assert!(stage.claim(&grant, "one", &[1, 2, 3], false));
    let pause = stage.clock.now_ms() + 10_000;
    stage.do_write(|c| renewals::give_up(c, &grant, "one", pause));
    assert!(!stage.claim(&grant, "two", &[1, 2, 3], false));
    assert!(stage.claim(&grant, "two", &[1, 2, 3], true));
    let pause = stage.clock.now_ms() + 10_000;
    stage.do_write(|c| renewals::give_up(c, &grant, "two", pause));
    stage.clock.pass(Duration::from_secs(10));
    assert!(stage.claim(&grant, "three", &[1, 2, 3], false));
}

#[test]
fn however_a_grant_ends_its_login_is_noted_once_and_other_grants_leave_nothing() {
    let stage = Stage::new();
    stage.code();
    let (replayed, code) = stage.with_login();
    let (over, _) = stage.with_login();
    stage.exchange(&asked(&code), &Pair::new()).unwrap();
    assert!(stage.to_revoke().is_empty());
    let again = stage.exchange(&asked(&code), &Pair::new());
    assert_eq!(again, Err(Refused::Reused));
    assert_eq!(stage.to_revoke(), [(replayed.clone(), vec![1, 2, 3])]);
    stage.clock.pass(Duration::from_secs(60));
    let now = stage.clock.now_ms();
    stage.do_write(|c| grants::purge(c, now));
    // The first one was not done, so it is due again.
    let mut due = stage.to_revoke();
    due.sort();
    let mut expected = [
        (replayed.clone(), vec![1, 2, 3]),
        (over.clone(), vec![1, 2, 3]),
    ];
    expected.sort();
    assert_eq!(due, expected);
    for grant in [&replayed, &over] {
        stage.do_write(|c| revocations::done(c, grant));
    }
    stage.clock.pass(Duration::from_secs(60));
    assert!(stage.to_revoke().is_empty());
}

#[test]
fn a_file_of_the_first_version_is_taken_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&format!(
        "{TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;
         INSERT INTO meta VALUES ('key', x'0101010101010101');
         INSERT INTO grants VALUES ('g', 'client-a', '{MCP}', 'llmobs:read', x'010203', 0, 9);"
    ))
    .unwrap();
    drop(old);
    private(&path);
    for _ in 0..2 {
        let store = Store::open(folder.path(), KEY).unwrap();
        let kept = grants::get(&locked(&store.reader), "g").unwrap().unwrap();
        assert_eq!(kept.credential, [1, 2, 3]);
    }
    let store = Store::open(folder.path(), KEY).unwrap();
    let writer = locked(&store.writer);
    grants::purge(&writer, 10).unwrap();
    assert!(
        !revocations::are_due(&writer, 10).unwrap(),
        "it was no login"
    );
}
