//! The stored logins: one file for all profiles, readable by its owner only.
//!
//! The file is `logins.json` (mode 0600) in a directory of its own (0700). It is replaced atomically,
//! so a reader sees the old or the new version, and every change is made under a lock that other
//! processes respect. A file that other users could have read or replaced is ignored. If the system
//! has a keyring and this build supports it, the tokens can be stored there; if the keyring fails,
//! they stay in the file and the user is told.

mod keyring;
mod secret_file;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::super::cause::ErrorCause;
use super::store_error::LoginStoreError;
use super::target::LoginTarget;

const FILE_NAME: &str = "logins.json";
const LOCK_NAME: &str = "logins.lock";
const VERSION: u32 = 1;

/// How long to wait for the lock: longer than a renewal takes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(45);
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A login.
#[derive(Clone)]
pub struct Login {
    /// Where it is valid.
    pub target: LoginTarget,
    /// The client id that the tokens were issued to.
    pub client_id: String,
    /// The access token.
    pub access_token: SecretString,
    /// The refresh token.
    pub refresh_token: Option<SecretString>,
    /// When the access token was received, by this machine's clock, in milliseconds since the Unix
    /// epoch.
    pub issued_at_ms: i64,
    /// When the access token expires, likewise.
    pub expires_at_ms: i64,
    /// The granted scopes, separated by spaces.
    pub scope: String,
    /// The id of the organisation, if the response named it.
    pub org_id: Option<String>,
    /// The name of the organisation, cleaned.
    pub org_name: Option<String>,
}

/// Where the tokens of a login are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStorage {
    /// In the file.
    File,
    /// In the system keyring.
    Keyring,
}

/// A stored login without its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSummary {
    /// The name of the profile.
    pub name: String,
    /// The target, as [`LoginTarget::key`].
    pub target: String,
    /// The granted scopes.
    pub scope: String,
    /// The name of the organisation, or its id.
    pub org: Option<String>,
    /// When the access token expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    /// Whether there is a refresh token.
    pub renewable: bool,
    /// Where the tokens are stored.
    pub storage: TokenStorage,
    /// Whether this is the default profile.
    pub current: bool,
}

/// The contents of the file.
#[derive(Serialize, Deserialize)]
struct LoginFile {
    version: u32,
    #[serde(default)]
    current: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, LoginEntry>,
}

#[derive(Serialize, Deserialize)]
struct LoginEntry {
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
    /// Absent if they are in the keyring.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<TokenPair>,
}

/// The tokens of an entry.
#[derive(Clone, Serialize, Deserialize)]
struct TokenPair {
    access: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<String>,
}

/// The logins of this user. Its methods block for the time of a small file.
#[derive(Debug, Clone)]
pub struct LoginStore {
    directory: PathBuf,
}

/// The lock of the store, released on drop or when the process ends.
pub struct LoginStoreLock {
    _file: File,
}

impl LoginStore {
    /// The logins in this directory, which need not exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// All logins without their tokens, by name.
    ///
    /// # Errors
    /// The file cannot be read, or is ignored.
    pub fn list(&self) -> Result<Vec<LoginSummary>, LoginStoreError> {
        let file = self.read()?;
        let current = file.current;
        Ok(file
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

    /// A login with its tokens, and where they are stored.
    ///
    /// # Errors
    /// The file cannot be read or is ignored, or the keyring does not return the tokens.
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
        let login = Login {
            target: LoginTarget::from_key(&entry.target).ok_or_else(damaged)?,
            client_id: entry.client_id,
            access_token: tokens.access.into(),
            refresh_token: tokens.refresh.map(Into::into),
            issued_at_ms: entry.issued_at_ms,
            expires_at_ms: entry.expires_at_ms,
            scope: entry.scope,
            org_id: entry.org_id,
            org_name: entry.org_name,
        };
        Ok(Some((login, entry.storage)))
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`LoginStoreError::Locked`] after a timeout, or a directory that cannot be used.
    pub async fn lock(&self) -> Result<LoginStoreLock, LoginStoreError> {
        secret_file::create_directory(&self.directory)?;
        let path = self.directory.join(LOCK_NAME);
        let lock_error = |error: std::io::Error| LoginStoreError::File {
            path: path.clone(),
            verb: "locked",
            source: ErrorCause::new(error),
        };
        let file = secret_file::open_lock(&path).map_err(lock_error)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(LoginStoreLock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(lock_error(error)),
                Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_TIMEOUT => {
                    return Err(LoginStoreError::Locked {
                        path,
                        seconds: LOCK_TIMEOUT.as_secs(),
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL_INTERVAL).await,
            }
        }
    }

    /// Stores a login under a name and replaces the previous one. `current` makes it the default
    /// profile. If the keyring was requested and fails, the tokens are stored in the file and the
    /// returned note says why.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(
        &self,
        _lock: &LoginStoreLock,
        name: &str,
        login: &Login,
        storage: TokenStorage,
        current: bool,
    ) -> Result<Option<String>, LoginStoreError> {
        let mut file = self.read()?;
        let tokens = TokenPair {
            access: login.access_token.expose_secret().to_owned(),
            refresh: login
                .refresh_token
                .as_ref()
                .map(|token| token.expose_secret().to_owned()),
        };
        let keyring_error = match storage {
            TokenStorage::File => None,
            TokenStorage::Keyring => serde_json::to_string(&tokens)
                .map_err(|error| error.to_string())
                .and_then(|text| keyring::set(name, &text))
                .err(),
        };
        let in_file = storage == TokenStorage::File || keyring_error.is_some();
        if current || file.current.is_none() {
            file.current = Some(name.to_owned());
        }
        let entry = LoginEntry {
            target: login.target.key(),
            client_id: login.client_id.clone(),
            issued_at_ms: login.issued_at_ms,
            expires_at_ms: login.expires_at_ms,
            scope: login.scope.clone(),
            org_id: login.org_id.clone(),
            org_name: login.org_name.clone(),
            storage: if in_file {
                TokenStorage::File
            } else {
                TokenStorage::Keyring
            },
            renewable: tokens.refresh.is_some(),
            tokens: in_file.then_some(tokens),
        };
        let previous = file.profiles.insert(name.to_owned(), entry);
        self.write(&file)?;
        if in_file && previous.is_some_and(|previous| previous.storage == TokenStorage::Keyring) {
            // Removes the old tokens. Fails where there is no keyring, and thus nothing to remove.
            let _ = keyring::delete(name);
        }
        Ok(keyring_error.map(|error| {
            format!(
                "the system keyring cannot be used ({error}); the tokens are in the file {} instead, which only you can read",
                self.path().display()
            )
        }))
    }

    /// Removes a login. Returns whether it existed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remove(&self, _lock: &LoginStoreLock, name: &str) -> Result<bool, LoginStoreError> {
        let mut file = self.read()?;
        let Some(entry) = file.profiles.remove(name) else {
            return Ok(false);
        };
        if entry.storage == TokenStorage::Keyring
            && let Err(error) = keyring::delete(name)
        {
            tracing::warn!("the system keyring still holds the login: {error}");
        }
        if file.current.as_deref() == Some(name) {
            file.current = file.profiles.keys().next().cloned();
        }
        self.write(&file)?;
        Ok(true)
    }

    fn read(&self) -> Result<LoginFile, LoginStoreError> {
        let Some(text) = secret_file::read(&self.path())? else {
            return Ok(LoginFile {
                version: VERSION,
                current: None,
                profiles: BTreeMap::new(),
            });
        };
        // The error of the JSON library is dropped: it could quote a token.
        match serde_json::from_str::<LoginFile>(&text) {
            Ok(file) if file.version == VERSION => Ok(file),
            _ => Err(LoginStoreError::Damaged(self.path())),
        }
    }

    fn write(&self, file: &LoginFile) -> Result<(), LoginStoreError> {
        let text = serde_json::to_string_pretty(file)
            .map_err(|_| LoginStoreError::Damaged(self.path()))?;
        secret_file::write(&self.path(), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Site, Upstream};
    use std::path::Path;

    fn login(site: &str, token: &str) -> Login {
        Login {
            target: LoginTarget::from_upstream(&Upstream::Site(Site::parse(site).unwrap()))
                .unwrap(),
            client_id: "c".into(),
            access_token: token.into(),
            refresh_token: Some(format!("{token}-r").into()),
            issued_at_ms: 1,
            expires_at_ms: 2,
            scope: "llm_observability_read".into(),
            org_id: None,
            org_name: Some("Acme".into()),
        }
    }

    #[tokio::test]
    async fn lists_profiles_by_name_and_marks_last_sign_in_current() {
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path().join("state"));
        assert_eq!(store.list().unwrap(), []);
        let lock = store.lock().await.unwrap();
        for (name, site) in [("default", "us1"), ("work", "eu")] {
            let note = store
                .put(&lock, name, &login(site, name), TokenStorage::File, true)
                .unwrap();
            assert_eq!(note, None);
        }
        let listed = store.list().unwrap();
        let line =
            |login: &LoginSummary| format!("{} {} {}", login.name, login.target, login.current);
        let lines: Vec<String> = listed.iter().map(line).collect();
        assert_eq!(
            lines,
            ["default datadoghq.com false", "work datadoghq.eu true"]
        );
        let (work, storage) = store.get("work").unwrap().unwrap();
        assert_eq!(work.access_token.expose_secret(), "work");
        assert_eq!(storage, TokenStorage::File);
        assert!(store.remove(&lock, "work").unwrap());
        assert!(!store.remove(&lock, "work").unwrap());
        assert!(store.get("work").unwrap().is_none());
        assert!(store.list().unwrap().first().unwrap().current);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn file_is_private_and_exposed_file_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path().join("state"));
        let lock = store.lock().await.unwrap();
        let put = || {
            store.put(
                &lock,
                "default",
                &login("eu", "t"),
                TokenStorage::File,
                true,
            )
        };
        put().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path()), 0o600);
        assert_eq!(mode(&store.directory), 0o700);
        assert_eq!(mode(&store.directory.join(LOCK_NAME)), 0o600);
        let remaining: Vec<_> = std::fs::read_dir(&store.directory).unwrap().collect();
        assert_eq!(remaining.len(), 2, "only the file and the lock remain");

        let set = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&store.path(), 0o640);
        let error = store.get("default").err().unwrap();
        assert!(matches!(error, LoginStoreError::Exposed { .. }), "{error}");
        assert!(error.hint().contains("chmod 600"));
        assert!(put().is_err(), "an exposed file is not overwritten");
        set(&store.path(), 0o600);
        set(&store.directory, 0o777);
        assert!(matches!(store.list(), Err(LoginStoreError::Exposed { .. })));
        set(&store.directory, 0o700);

        let planted = directory.path().join("planted.json");
        std::fs::rename(store.path(), &planted).unwrap();
        std::os::unix::fs::symlink(&planted, store.path()).unwrap();
        let error = store.list().err().unwrap();
        assert!(error.to_string().contains("a link"), "{error}");
    }

    #[tokio::test]
    async fn damaged_file_is_reported_without_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path().join("state"));
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

    /// Set in the process that the test kills while it writes.
    const WRITER_DIRECTORY: &str = "LLMOBS_MCP_TEST_WRITES_LOGINS_TO";

    #[tokio::test]
    async fn killed_writer_leaves_complete_file() {
        if let Some(directory) = std::env::var_os(WRITER_DIRECTORY) {
            let store = LoginStore::new(directory);
            let lock = store.lock().await.unwrap();
            for round in 0.. {
                // A long token makes a write take longer.
                let token = format!("{round}-{}", "t".repeat(200_000));
                let login = login("eu", &token);
                store
                    .put(&lock, "default", &login, TokenStorage::File, true)
                    .unwrap();
            }
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path().join("state"));
        let mut before = None;
        for round in 0..12 {
            let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--nocapture"])
                .env(WRITER_DIRECTORY, &store.directory)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let access = |store: &LoginStore| {
                let (stored, _) = store.get("default").unwrap()?;
                let access = stored.access_token.expose_secret().to_owned();
                assert_eq!(
                    stored.refresh_token.unwrap().expose_secret(),
                    format!("{access}-r")
                );
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
        // The lock of the killed process is free, and its temporary file is removed.
        let lock = store.lock().await.unwrap();
        std::fs::write(store.path().with_extension("json.new"), "half of a file").unwrap();
        assert!(store.get("default").unwrap().is_some());
        store
            .put(
                &lock,
                "default",
                &login("eu", "t"),
                TokenStorage::File,
                true,
            )
            .unwrap();
        let remaining: Vec<_> = std::fs::read_dir(&store.directory).unwrap().collect();
        assert_eq!(remaining.len(), 2, "the file and the lock: {remaining:?}");
    }

    #[tokio::test]
    async fn lock_is_exclusive() {
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path());
        let first = store.lock().await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(200), store.lock()).await;
        assert!(second.is_err());
        drop(first);
        store.lock().await.unwrap();
    }

    #[tokio::test]
    async fn broken_keyring_falls_back_to_file_with_note() {
        let directory = tempfile::tempdir().unwrap();
        let store = LoginStore::new(directory.path().join("state"));
        let lock = store.lock().await.unwrap();
        // Skipped where the build and the session have a working keyring.
        if keyring::set("llmobs-mcp-test", "x").is_ok() {
            let _ = keyring::delete("llmobs-mcp-test");
            return;
        }
        let note = store
            .put(
                &lock,
                "default",
                &login("eu", "t"),
                TokenStorage::Keyring,
                true,
            )
            .unwrap()
            .expect("a note");
        assert!(note.contains("keyring cannot be used"), "{note}");
        assert!(note.contains("logins.json"), "{note}");
        let (stored, storage) = store.get("default").unwrap().unwrap();
        assert_eq!(
            (stored.access_token.expose_secret(), storage),
            ("t", TokenStorage::File)
        );
    }
}
