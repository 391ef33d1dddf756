//! Where logins are kept: one file for all profiles, readable by its owner alone.
//!
//! The file is `logins.json` (mode 0600) in a folder of its own (0700). It is written aside and
//! renamed, so that a reader sees the old or the new and nothing between, and every change is made
//! under a lock that other processes respect. A file that others could read or put there is not
//! read at all. Where the system has a keyring and this build knows it, the tokens can live there
//! instead; whenever it does not work, they stay in the file and the person is told.

mod keyring;
mod secret_file;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::target::LoginTarget;

const FILE: &str = "logins.json";
const LOCK: &str = "logins.lock";
const VERSION: u32 = 1;

/// How long another process's change is waited for: longer than a renewal takes.
const LOCK_PATIENCE: Duration = Duration::from_secs(45);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A login.
#[derive(Clone)]
pub struct Login {
    /// Where it is good.
    pub target: LoginTarget,
    /// The registration that the tokens were given to.
    pub client_id: String,
    /// The access token.
    pub access: SecretString,
    /// What renews it.
    pub refresh: Option<SecretString>,
    /// When the access token came, by this machine's clock, in milliseconds since the Unix epoch.
    pub issued_at_ms: i64,
    /// When the access token ends, likewise.
    pub expires_at_ms: i64,
    /// The granted scopes, separated by spaces.
    pub scope: String,
    /// The organisation's id, if the answer named it.
    pub org_id: Option<String>,
    /// Its name, cleaned.
    pub org_name: Option<String>,
}

/// Where the tokens of a login are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStorage {
    /// In the file.
    File,
    /// In the system's keyring.
    Keyring,
}

/// What is known of a login without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSummary {
    /// The name of the profile.
    pub name: String,
    /// The target, by [`LoginTarget::key`].
    pub target: String,
    /// The granted scopes.
    pub scope: String,
    /// The organisation: its name, or its id.
    pub org: Option<String>,
    /// When the access token ends, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Where its tokens are.
    pub storage: TokenStorage,
    /// Whether it is the one that counts when nobody names one.
    pub current: bool,
}

/// Why logins cannot be read or kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginStoreError {
    /// The file or its folder.
    #[error("the file of logins {path} cannot be {verb}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// What the system said.
        why: String,
    },
    /// Others could read it, or could have put it there.
    #[error("the file of logins {path} is not used, because {why}", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not ours, or damaged.
    #[error("the file of logins {path} is damaged, or of a newer version", path = .0.display())]
    Damaged(PathBuf),
    /// Another process does not let go of the lock.
    #[error("another process has held the lock {path} for {seconds} seconds", path = path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The tokens are in the keyring, and it does not give them.
    #[error("the system's keyring did not give the login: {0}")]
    Keyring(String),
}

impl LoginStoreError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::File { .. } => {
                "check the folder, or name another one in LLMOBS_MCP_STATE_DIR".to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "if it is yours: chmod 700 {folder} && chmod 600 {path}, then sign in again: whoever read it has the login",
                folder = path.parent().unwrap_or(Path::new(".")).display(),
                path = path.display(),
            ),
            Self::Damaged(path) => format!("remove {} and sign in again", path.display()),
            Self::Locked { .. } => "end the llmobs-mcp process that hangs, then try again".to_owned(),
            Self::Keyring(_) => {
                "unlock the keyring, or sign in again with the tokens in a file: llmobs-mcp login --storage file"
                    .to_owned()
            }
        }
    }
}

/// The file as it stands on disk.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "place")]
    target: String,
    client_id: String,
    issued_at_ms: i64,
    expires_at_ms: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<String>,
    #[serde(rename = "safe")]
    storage: TokenStorage,
    renewable: bool,
    /// Absent when they are in the keyring.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<TokenPair>,
}

/// The secrets of an entry.
#[derive(Clone, Serialize, Deserialize)]
struct TokenPair {
    access: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
}

/// The logins of this user. Its methods block for the time of a small file.
#[derive(Debug, Clone)]
pub struct LoginStore {
    folder: PathBuf,
}

/// Held while logins change; let go when dropped, or when the process ends.
pub struct LoginStoreLock {
    _file: File,
}

impl LoginStore {
    /// The logins in this folder, which need not be there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// All logins without their tokens, by name.
    ///
    /// # Errors
    /// A file that cannot be read or must not be.
    pub fn list(&self) -> Result<Vec<LoginSummary>, LoginStoreError> {
        let document = self.read()?;
        let current = document.current;
        Ok(document
            .profiles
            .into_iter()
            .map(|(name, entry)| LoginSummary {
                current: current.as_ref() == Some(&name),
                target: entry.target,
                scope: entry.scope,
                org: entry.org_name.or(entry.org_id),
                expires_at_ms: entry.expires_at_ms,
                renewable: entry.renewable,
                storage: entry.storage,
                name,
            })
            .collect())
    }

    /// A login with its tokens, and where they are.
    ///
    /// # Errors
    /// A file that cannot be read or must not be, or a keyring that does not give them.
    pub fn get(&self, name: &str) -> Result<Option<(Login, TokenStorage)>, LoginStoreError> {
        let Some(entry) = self.read()?.profiles.remove(name) else {
            return Ok(None);
        };
        let damaged = || LoginStoreError::Damaged(self.path());
        let tokens = match (entry.storage, entry.tokens) {
            (TokenStorage::File, Some(tokens)) => tokens,
            (TokenStorage::File, None) => return Err(damaged()),
            (TokenStorage::Keyring, _) => {
                let text = keyring::get(name).map_err(LoginStoreError::Keyring)?;
                serde_json::from_str(&text).map_err(|_| damaged())?
            }
        };
        let profile = Login {
            target: LoginTarget::from_key(&entry.target).ok_or_else(damaged)?,
            client_id: entry.client_id,
            access: tokens.access.into(),
            refresh: tokens.refresh.map(Into::into),
            issued_at_ms: entry.issued_at_ms,
            expires_at_ms: entry.expires_at_ms,
            scope: entry.scope,
            org_id: entry.org_id,
            org_name: entry.org_name,
        };
        Ok(Some((profile, entry.storage)))
    }

    /// Waits until no other process changes logins.
    ///
    /// # Errors
    /// [`LoginStoreError::Locked`] after a long time, and a folder that cannot be used.
    pub async fn lock(&self) -> Result<LoginStoreLock, LoginStoreError> {
        secret_file::create_folder(&self.folder)?;
        let path = self.folder.join(LOCK);
        let failed = |error: std::io::Error| LoginStoreError::File {
            path: path.clone(),
            verb: "locked",
            why: error.to_string(),
        };
        let lock = secret_file::open_lock(&path).map_err(failed)?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(LoginStoreLock { _file: lock }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_PATIENCE => {
                    return Err(LoginStoreError::Locked {
                        path,
                        seconds: LOCK_PATIENCE.as_secs(),
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    /// Keeps a login under a name, in target of the one that had it. `current` makes it the one that
    /// counts when nobody names one. If the keyring was wished for and does not work, the tokens go
    /// into the file and the answer says why.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn put(
        &self,
        _lock: &LoginStoreLock,
        name: &str,
        profile: &Login,
        storage: TokenStorage,
        current: bool,
    ) -> Result<Option<String>, LoginStoreError> {
        let mut document = self.read()?;
        let pair = TokenPair {
            access: profile.access.expose_secret().to_owned(),
            refresh: profile
                .refresh
                .as_ref()
                .map(|token| token.expose_secret().to_owned()),
        };
        let refused = match storage {
            TokenStorage::File => None,
            TokenStorage::Keyring => serde_json::to_string(&pair)
                .map_err(|error| error.to_string())
                .and_then(|text| keyring::set(name, &text))
                .err(),
        };
        let in_file = storage == TokenStorage::File || refused.is_some();
        if current || document.current.is_none() {
            document.current = Some(name.to_owned());
        }
        let entry = Entry {
            target: profile.target.key(),
            client_id: profile.client_id.clone(),
            issued_at_ms: profile.issued_at_ms,
            expires_at_ms: profile.expires_at_ms,
            scope: profile.scope.clone(),
            org_id: profile.org_id.clone(),
            org_name: profile.org_name.clone(),
            storage: if in_file {
                TokenStorage::File
            } else {
                TokenStorage::Keyring
            },
            renewable: pair.refresh.is_some(),
            tokens: in_file.then_some(pair),
        };
        let before = document.profiles.insert(name.to_owned(), entry);
        self.write(&document)?;
        if in_file && before.is_some_and(|before| before.storage == TokenStorage::Keyring) {
            // Old tokens must not stay behind; where there is no keyring, there are none.
            let _ = keyring::delete(name);
        }
        Ok(refused.map(|why| {
            format!(
                "the system's keyring cannot be used ({why}); the tokens are in the file {} instead, readable by you alone",
                self.path().display()
            )
        }))
    }

    /// Forgets a login. Says whether there was one.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn remove(&self, _lock: &LoginStoreLock, name: &str) -> Result<bool, LoginStoreError> {
        let mut document = self.read()?;
        let Some(entry) = document.profiles.remove(name) else {
            return Ok(false);
        };
        if entry.storage == TokenStorage::Keyring
            && let Err(why) = keyring::delete(name)
        {
            tracing::warn!("the system's keyring still holds the login: {why}");
        }
        if document.current.as_deref() == Some(name) {
            document.current = document.profiles.keys().next().cloned();
        }
        self.write(&document)?;
        Ok(true)
    }

    fn read(&self) -> Result<Document, LoginStoreError> {
        let Some(text) = secret_file::read(&self.path())? else {
            return Ok(Document {
                version: VERSION,
                current: None,
                profiles: BTreeMap::new(),
            });
        };
        // The library's own error could quote a token.
        match serde_json::from_str::<Document>(&text) {
            Ok(document) if document.version == VERSION => Ok(document),
            _ => Err(LoginStoreError::Damaged(self.path())),
        }
    }

    fn write(&self, document: &Document) -> Result<(), LoginStoreError> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|_| LoginStoreError::Damaged(self.path()))?;
        secret_file::write(&self.path(), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Site, Upstream};

    fn profile(site: &str, token: &str) -> Login {
        Login {
            target: LoginTarget::from_upstream(&Upstream::Site(Site::parse(site).unwrap()))
                .unwrap(),
            client_id: "c".into(),
            access: token.into(),
            refresh: Some(format!("{token}-r").into()),
            issued_at_ms: 1,
            expires_at_ms: 2,
            scope: "llm_observability_read".into(),
            org_id: None,
            org_name: Some("Acme".into()),
        }
    }

    #[tokio::test]
    async fn profiles_are_kept_by_name_and_the_last_sign_in_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path().join("state"));
        assert_eq!(store.list().unwrap(), []);
        let lock = store.lock().await.unwrap();
        for (name, site) in [("default", "us1"), ("work", "eu")] {
            let note = store
                .put(&lock, name, &profile(site, name), TokenStorage::File, true)
                .unwrap();
            assert_eq!(note, None);
        }
        let listed = store.list().unwrap();
        let line = |kept: &LoginSummary| format!("{} {} {}", kept.name, kept.target, kept.current);
        let lines: Vec<String> = listed.iter().map(line).collect();
        assert_eq!(
            lines,
            ["default datadoghq.com false", "work datadoghq.eu true"]
        );
        let (work, storage) = store.get("work").unwrap().unwrap();
        assert_eq!(work.access.expose_secret(), "work");
        assert_eq!(storage, TokenStorage::File);
        assert!(store.remove(&lock, "work").unwrap());
        assert!(!store.remove(&lock, "work").unwrap());
        assert!(store.get("work").unwrap().is_none());
        assert!(store.list().unwrap().first().unwrap().current);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_file_is_its_owners_alone_and_one_that_is_not_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path().join("state"));
        let lock = store.lock().await.unwrap();
        let put = || {
            store.put(
                &lock,
                "default",
                &profile("eu", "t"),
                TokenStorage::File,
                true,
            )
        };
        put().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path()), 0o600);
        assert_eq!(mode(&store.folder), 0o700);
        assert_eq!(mode(&store.folder.join(LOCK)), 0o600);
        let left: Vec<_> = std::fs::read_dir(&store.folder).unwrap().collect();
        assert_eq!(
            left.len(),
            2,
            "nothing is left beside the file and the lock"
        );

        let set = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&store.path(), 0o640);
        let error = store.get("default").err().unwrap();
        assert!(matches!(error, LoginStoreError::Exposed { .. }), "{error}");
        assert!(error.hint().contains("chmod 600"));
        assert!(put().is_err(), "nor is it written over unseen");
        set(&store.path(), 0o600);
        set(&store.folder, 0o777);
        assert!(matches!(store.list(), Err(LoginStoreError::Exposed { .. })));
        set(&store.folder, 0o700);

        let elsewhere = folder.path().join("planted.json");
        std::fs::rename(store.path(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, store.path()).unwrap();
        let error = store.list().err().unwrap();
        assert!(error.to_string().contains("a link"), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_file_is_said_without_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path().join("state"));
        let _lock = store.lock().await.unwrap();
        for text in [
            "{\"version\":1,\"profiles\":{\"x\":\"hunter2\"}}",
            "{\"version\":2}",
            "",
        ] {
            secret_file::write(&store.path(), text).unwrap();
            let error = store.list().err().unwrap();
            assert_eq!(error, LoginStoreError::Damaged(store.path()));
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    /// Set in the process that is killed while it writes.
    const WRITES: &str = "LLMOBS_MCP_TEST_WRITES_LOGINS_TO";

    #[tokio::test]
    async fn a_process_that_is_killed_while_it_writes_leaves_a_whole_file() {
        if let Some(folder) = std::env::var_os(WRITES) {
            let store = LoginStore::new(folder);
            let lock = store.lock().await.unwrap();
            for round in 0.. {
                // Long, so that a write takes a while.
                let token = format!("{round}-{}", "t".repeat(200_000));
                let profile = profile("eu", &token);
                store
                    .put(&lock, "default", &profile, TokenStorage::File, true)
                    .unwrap();
            }
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path().join("state"));
        let mut before = None;
        for round in 0..12 {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--nocapture"])
                .env(WRITES, &store.folder)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let access = |store: &LoginStore| {
                let (kept, _) = store.get("default").unwrap()?;
                let access = kept.access.expose_secret().to_owned();
                assert_eq!(kept.refresh.unwrap().expose_secret(), format!("{access}-r"));
                Some(access)
            };
            while access(&store) == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
            writer.kill().unwrap();
            writer.wait().unwrap();
            before = access(&store);
        }
        // The lock of the killed is free, and nothing of theirs stays.
        let lock = store.lock().await.unwrap();
        std::fs::write(store.path().with_extension("json.new"), "half of a file").unwrap();
        assert!(store.get("default").unwrap().is_some());
        store
            .put(
                &lock,
                "default",
                &profile("eu", "t"),
                TokenStorage::File,
                true,
            )
            .unwrap();
        let left: Vec<_> = std::fs::read_dir(&store.folder).unwrap().collect();
        assert_eq!(left.len(), 2, "the file and the lock: {left:?}");
    }

    #[tokio::test]
    async fn one_holds_the_lock_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path());
        let first = store.lock().await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(200), store.lock()).await;
        assert!(second.is_err());
        drop(first);
        store.lock().await.unwrap();
    }

    #[tokio::test]
    async fn a_keyring_that_does_not_work_is_said_loudly_and_the_file_takes_the_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let store = LoginStore::new(folder.path().join("state"));
        let lock = store.lock().await.unwrap();
        // Without a keyring in the build, or without a session that has one.
        if keyring::set("llmobs-mcp-test", "x").is_ok() {
            let _ = keyring::delete("llmobs-mcp-test");
            return;
        }
        let note = store
            .put(
                &lock,
                "default",
                &profile("eu", "t"),
                TokenStorage::Keyring,
                true,
            )
            .unwrap()
            .expect("it is said");
        assert!(note.contains("keyring cannot be used"), "{note}");
        assert!(note.contains("logins.json"), "{note}");
        let (kept, storage) = store.get("default").unwrap().unwrap();
        assert_eq!(
            (kept.access.expose_secret(), storage),
            ("t", TokenStorage::File)
        );
    }
}
