//! One process owns a data folder, and others find it.
//!
//! Who holds the lock on `owner.lock` is the owner; the system releases it when the process ends,
//! however it ends. Beside it stands `owner.json` with the owner's URL and store id: not in the
//! lock file itself, because on Windows a locked file cannot be read. A process that finds the lock
//! taken attaches only if `/info` at that URL shows that store id: the file may be old, and the
//! port may have a new user.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::store::StoreError;
use super::{DataDir, LocalBackend, LocalError, LocalOptions, folder};

/// Where SDKs look for an Agent.
pub const AGENT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8126);

const LOCK_FILE: &str = "owner.lock";
const NAME_FILE: &str = "owner.json";

/// How long an owner that is just starting, or just ending, is waited for.
const PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(300);

/// How long an owner may take to answer `/info`.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// On 127.0.0.1:8126, or on a free port if that is taken.
    Default,
    /// On this address or not at all.
    Exactly(SocketAddr),
}

/// Who has the data.
pub enum Ownership {
    /// This process.
    Owner(Box<Owner>),
    /// Another one, alive at this URL. When it no longer answers, ask for ownership again.
    Attached {
        /// Base URL, for example `http://127.0.0.1:8126`.
        url: String,
        /// The id of its store.
        store_id: String,
    },
}

/// The data, the port, and the lock that keeps others away for as long as this lives.
pub struct Owner {
    /// The backend on the data.
    pub backend: LocalBackend,
    /// Bound and not yet served.
    pub listener: TcpListener,
    /// Base URL of the listener.
    pub url: String,
    /// Something the user should know, for example that 8126 was taken.
    pub note: Option<String>,
    /// Keep it until the process ends.
    pub lock: OwnerLock,
}

/// Holds the data folder; others may take it over once it is dropped.
pub struct OwnerLock {
    /// `None` for temporary data, which nobody else can find.
    _file: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Name {
    url: String,
    store_id: String,
}

/// Becomes the owner of the data, or finds the one who is.
///
/// `options.data_dir` decides: temporary data is always owned.
pub async fn own_or_attach(options: LocalOptions, listen: Listen) -> Result<Ownership, LocalError> {
    own_or_attach_within(PATIENCE, options, listen).await
}

async fn own_or_attach_within(
    patience: Duration,
    options: LocalOptions,
    listen: Listen,
) -> Result<Ownership, LocalError> {
    let DataDir::Folder(path) = options.data_dir.clone() else {
        return own(options, listen, OwnerLock { _file: None }).await;
    };
    folder::create(&path)?;
    let started = Instant::now();
    loop {
        if let Some(file) = try_lock(&path)? {
            return own(options, listen, OwnerLock { _file: Some(file) }).await;
        }
        match find_owner(&path).await {
            Ok(name) => {
                return Ok(Ownership::Attached {
                    url: name.url,
                    store_id: name.store_id,
                });
            }
            Err(reason) if started.elapsed() >= patience => {
                return Err(LocalError::OwnerUnreachable {
                    folder: path.display().to_string(),
                    reason,
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn try_lock(folder: &Path) -> Result<Option<File>, LocalError> {
    let failed = |error: &std::io::Error| {
        let lock = folder.join(LOCK_FILE);
        let reason = format!("{} cannot be written: {error}", lock.display());
        LocalError::Store(StoreError::Folder(reason))
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK_FILE))
        .map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

async fn own(
    options: LocalOptions,
    listen: Listen,
    lock: OwnerLock,
) -> Result<Ownership, LocalError> {
    let folder = match &options.data_dir {
        DataDir::Folder(path) => Some(path.clone()),
        DataDir::Temporary => None,
    };
    let (listener, note) = bind(listen).await?;
    let address = listener.local_addr().map_err(|error| LocalError::System {
        what: "the address of the local backend cannot be read",
        reason: error.to_string(),
    })?;
    let url = format!("http://{address}");
    let opened = tokio::task::spawn_blocking(move || LocalBackend::open(options)).await;
    let backend = opened.map_err(|error| LocalError::System {
        what: "the store could not be opened",
        reason: error.to_string(),
    })??;
    if let Some(folder) = folder {
        let name = Name {
            url: url.clone(),
            store_id: backend.store_id().to_owned(),
        };
        write_name(&folder, &name)?;
    }
    Ok(Ownership::Owner(Box::new(Owner {
        backend,
        listener,
        url,
        note,
        lock,
    })))
}

/// Written aside and renamed, so that a reader sees the old or the new and nothing between.
fn write_name(folder: &Path, name: &Name) -> Result<(), LocalError> {
    let failed = |error: std::io::Error| LocalError::System {
        what: "the owner's address cannot be written to the data folder",
        reason: error.to_string(),
    };
    let text = serde_json::to_string(name).map_err(|error| failed(error.into()))?;
    let aside: PathBuf = folder.join(format!("{NAME_FILE}.new"));
    std::fs::write(&aside, text).map_err(failed)?;
    std::fs::rename(&aside, folder.join(NAME_FILE)).map_err(failed)
}

/// The owner named in the folder, if it really is one; otherwise in words why not.
async fn find_owner(folder: &Path) -> Result<Name, String> {
    let text = std::fs::read_to_string(folder.join(NAME_FILE))
        .map_err(|_| format!("{NAME_FILE} is not there yet"))?;
    let name: Name =
        serde_json::from_str(&text).map_err(|_| format!("{NAME_FILE} cannot be read"))?;
    let authority = name.url.strip_prefix("http://").unwrap_or_default();
    if !llmobs_authz::host_guard::names_this_machine(authority) {
        return Err(format!("{NAME_FILE} names an address that is not loopback"));
    }
    match store_id_at(&name.url).await {
        Some(id) if id == name.store_id => Ok(name),
        Some(_) => Err(format!("another store answers at {}", name.url)),
        None => Err(format!("no local backend answers at {}", name.url)),
    }
}

/// The store id that `/info` at a URL shows.
async fn store_id_at(url: &str) -> Option<String> {
    let client = datadog_llmobs::http_client()
        .timeout(INFO_TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let answer = client.get(format!("{url}/info")).send().await.ok()?;
    let info: serde_json::Value = answer.json().await.ok()?;
    let id = info.get("llmobs_mcp")?.get("store_id")?.as_str()?;
    Some(id.to_owned())
}

/// Binds, and says so when it is not where SDKs look.
async fn bind(listen: Listen) -> Result<(TcpListener, Option<String>), LocalError> {
    let taken = |address: SocketAddr, error: &std::io::Error| LocalError::PortTaken {
        address,
        reason: error.to_string(),
    };
    match listen {
        Listen::Exactly(address) if !address.ip().is_loopback() => {
            Err(LocalError::NotLoopback(address))
        }
        Listen::Exactly(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok((listener, None)),
            Err(error) => Err(taken(address, &error)),
        },
        Listen::Default => {
            if !answers(AGENT_ADDRESS).await
                && let Ok(listener) = TcpListener::bind(AGENT_ADDRESS).await
            {
                return Ok((listener, None));
            }
            let free = SocketAddr::new(AGENT_ADDRESS.ip(), 0);
            let listener = TcpListener::bind(free)
                .await
                .map_err(|error| taken(free, &error))?;
            let at = listener.local_addr().map_err(|error| taken(free, &error))?;
            Ok((
                listener,
                Some(format!(
                    "{AGENT_ADDRESS} is taken by another program, perhaps a Datadog Agent; the local backend listens on {at} instead, so point SDKs there: DD_TRACE_AGENT_URL=http://{at}"
                )),
            ))
        }
    }
}

/// Whether somebody listens. On some systems a port can be bound beside another program that has
/// it on all addresses, which would take its traffic away.
async fn answers(address: SocketAddr) -> bool {
    let connect = move || TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok();
    tokio::task::spawn_blocking(connect).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(folder: &Path) -> LocalOptions {
        LocalOptions::new(DataDir::Folder(folder.to_owned()))
    }

    const FREE: Listen = Listen::Exactly(SocketAddr::new(
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        0,
    ));

    async fn owner(folder: &Path) -> Box<Owner> {
        match own_or_attach(options(folder), FREE).await.unwrap() {
            Ownership::Owner(owner) => owner,
            Ownership::Attached { .. } => panic!("somebody else owns it"),
        }
    }

    #[tokio::test]
    async fn the_second_attaches_and_takes_over_when_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let Owner {
            backend,
            listener,
            url,
            lock,
            ..
        } = *owner(folder.path()).await;
        let id = backend.store_id().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(super::super::serve(backend, listener, async {
            let _ = stopped.await;
        }));
        match own_or_attach(options(folder.path()), FREE).await.unwrap() {
            Ownership::Attached {
                url: found,
                store_id,
            } => assert_eq!((found, store_id), (url, id.clone())),
            Ownership::Owner(_) => panic!("two owners"),
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        drop(lock);
        assert_eq!(owner(folder.path()).await.backend.store_id(), id);
    }

    #[tokio::test]
    async fn an_owner_that_does_not_answer_is_not_attached_to() {
        let folder = tempfile::tempdir().unwrap();
        let _silent = owner(folder.path()).await;
        let stranger = own_or_attach_within(Duration::ZERO, options(folder.path()), FREE).await;
        assert!(matches!(stranger, Err(LocalError::OwnerUnreachable { .. })));
    }

    #[tokio::test]
    async fn a_port_that_was_named_is_taken_or_refused_never_replaced() {
        let used = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = used.local_addr().unwrap();
        let refused = bind(Listen::Exactly(address)).await.unwrap_err();
        assert!(matches!(refused, LocalError::PortTaken { .. }));
        let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let refused = bind(Listen::Exactly(open)).await.unwrap_err();
        assert!(refused.to_string().contains("--listen 127.0.0.1:8126"));
    }

    #[tokio::test]
    async fn temporary_data_is_always_owned() {
        let options = LocalOptions::new(DataDir::Temporary);
        let owned = own_or_attach(options, FREE).await.unwrap();
        assert!(matches!(owned, Ownership::Owner(_)));
    }
}
