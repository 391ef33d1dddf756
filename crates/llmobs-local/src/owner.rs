//! Ownership of a data directory: one process owns it, and others find that process.
//!
//! The owner holds the lock on `owner.lock`. The operating system releases the lock when the process
//! ends for any reason. `owner.json` contains the owner's URL and store id; it is a separate file
//! because a locked file cannot be read on Windows. A process that finds the lock held attaches only
//! if `/info` at that URL returns that store id: the file may be outdated, and another program may
//! use the port.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::data_dir::{DataDir, create, directory_error};
use super::error::LocalError;
use super::local_backend::LocalBackend;
use super::options::LocalOptions;

/// The address at which SDKs expect an Agent.
pub const AGENT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8126);

const LOCK_FILE: &str = "owner.lock";
const ADDRESS_FILE: &str = "owner.json";

/// How long to wait for an owner that is starting or ending.
const OWNER_TIMEOUT: Duration = Duration::from_secs(6);

/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(300);

/// Timeout of `/info`.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// The address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// 127.0.0.1:8126, or a free port if that is in use.
    Default,
    /// This address only.
    Exactly(SocketAddr),
}

/// The result of [`own_or_attach`].
pub enum Ownership {
    /// This process is the owner.
    Owner(Box<Owner>),
    /// Another process is the owner and answers at this URL. When it stops answering, call
    /// [`own_or_attach`] again.
    Attached {
        /// Base URL, for example `http://127.0.0.1:8126`.
        url: String,
        /// Id of its store.
        store_id: String,
    },
}

/// The backend, its port, and the lock of the data directory.
pub struct Owner {
    /// The backend.
    pub backend: LocalBackend,
    /// The bound listener, to be passed to `serve`.
    pub listener: TcpListener,
    /// Base URL of the listener.
    pub url: String,
    /// A note for the user, for example that port 8126 is in use.
    pub note: Option<String>,
    /// Keep it until the process ends.
    pub lock: OwnerLock,
}

/// The lock of a data directory. Once it is dropped, another process may become the owner.
pub struct OwnerLock {
    /// `None` for temporary data, which other processes cannot find.
    _file: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct OwnerAddress {
    url: String,
    store_id: String,
}

/// Becomes the owner of the data directory, or finds the owner. Temporary data is always owned.
///
/// # Errors
///
/// [`LocalError`], in particular [`LocalError::OwnerUnreachable`].
pub async fn own_or_attach(options: LocalOptions, listen: Listen) -> Result<Ownership, LocalError> {
    own_or_attach_within(OWNER_TIMEOUT, options, listen).await
}

async fn own_or_attach_within(
    timeout: Duration,
    options: LocalOptions,
    listen: Listen,
) -> Result<Ownership, LocalError> {
    let DataDir::Path(path) = options.data_dir.clone() else {
        return own(options, listen, OwnerLock { _file: None }).await;
    };
    create(&path)?;
    let started = Instant::now();
    loop {
        if let Some(file) = try_lock(&path)? {
            return own(options, listen, OwnerLock { _file: Some(file) }).await;
        }
        match find_owner(&path).await {
            Ok(address) => {
                return Ok(Ownership::Attached {
                    url: address.url,
                    store_id: address.store_id,
                });
            }
            Err(reason) if started.elapsed() >= timeout => {
                return Err(LocalError::OwnerUnreachable {
                    directory: path.display().to_string(),
                    reason,
                });
            }
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

fn try_lock(directory: &Path) -> Result<Option<File>, LocalError> {
    let lock_file = directory.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_file)
        .map_err(|source| directory_error(&lock_file, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(directory_error(&lock_file, source)),
    }
}

async fn own(
    options: LocalOptions,
    listen: Listen,
    lock: OwnerLock,
) -> Result<Ownership, LocalError> {
    let directory = match &options.data_dir {
        DataDir::Path(path) => Some(path.clone()),
        DataDir::Temporary => None,
    };
    let (listener, note) = bind(listen).await?;
    let address = listener.local_addr().map_err(|source| LocalError::System {
        action: "read the address of the local backend",
        source,
    })?;
    let url = format!("http://{address}");
    let opened = tokio::task::spawn_blocking(move || LocalBackend::open(options)).await;
    let backend = opened.map_err(|error| LocalError::System {
        action: "open the store",
        source: error.into(),
    })??;
    if let Some(directory) = directory {
        let address = OwnerAddress {
            url: url.clone(),
            store_id: backend.store_id().to_owned(),
        };
        write_address(&directory, &address)?;
    }
    Ok(Ownership::Owner(Box::new(Owner {
        backend,
        listener,
        url,
        note,
        lock,
    })))
}

/// Writes a new file and renames it, so that readers see either the old or the new content.
fn write_address(directory: &Path, address: &OwnerAddress) -> Result<(), LocalError> {
    let file = directory.join(ADDRESS_FILE);
    let failed = |source: std::io::Error| directory_error(&file, source);
    let text = serde_json::to_string(address).map_err(|error| failed(error.into()))?;
    let new_file = directory.join(format!("{ADDRESS_FILE}.new"));
    std::fs::write(&new_file, text).map_err(failed)?;
    std::fs::rename(&new_file, &file).map_err(failed)
}

/// The owner that `owner.json` names, if it answers; otherwise the reason.
async fn find_owner(directory: &Path) -> Result<OwnerAddress, String> {
    let text = std::fs::read_to_string(directory.join(ADDRESS_FILE))
        .map_err(|_| format!("{ADDRESS_FILE} does not exist yet"))?;
    let address: OwnerAddress =
        serde_json::from_str(&text).map_err(|_| format!("{ADDRESS_FILE} cannot be read"))?;
    let authority = address.url.strip_prefix("http://").unwrap_or_default();
    if !llmobs_authz::host_guard::names_this_machine(authority) {
        return Err(format!(
            "{ADDRESS_FILE} names an address that is not a loopback address"
        ));
    }
    match store_id_at(&address.url).await {
        Some(id) if id == address.store_id => Ok(address),
        Some(_) => Err(format!("another store answers at {}", address.url)),
        None => Err(format!("no local backend answers at {}", address.url)),
    }
}

/// The store id that `/info` at a URL returns.
async fn store_id_at(url: &str) -> Option<String> {
    let client = datadog_llmobs::http_client()
        .timeout(INFO_TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .ok()?;
    let response = client.get(format!("{url}/info")).send().await.ok()?;
    let info: serde_json::Value = response.json().await.ok()?;
    let id = info.get("llmobs_mcp")?.get("store_id")?.as_str()?;
    Some(id.to_owned())
}

/// Binds a listener. Returns a note if SDKs do not find it at its address.
async fn bind(listen: Listen) -> Result<(TcpListener, Option<String>), LocalError> {
    let taken = |address, source| LocalError::PortTaken { address, source };
    match listen {
        Listen::Exactly(address) if !address.ip().is_loopback() => {
            Err(LocalError::NotLoopback(address))
        }
        Listen::Exactly(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok((listener, None)),
            Err(source) => Err(taken(address, source)),
        },
        Listen::Default => {
            if !is_in_use(AGENT_ADDRESS).await
                && let Ok(listener) = TcpListener::bind(AGENT_ADDRESS).await
            {
                return Ok((listener, None));
            }
            let free = SocketAddr::new(AGENT_ADDRESS.ip(), 0);
            let listener = TcpListener::bind(free)
                .await
                .map_err(|source| taken(free, source))?;
            let bound = listener
                .local_addr()
                .map_err(|source| taken(free, source))?;
            Ok((
                listener,
                Some(format!(
                    "{AGENT_ADDRESS} is in use by another program, perhaps a Datadog Agent; the local backend listens on {bound} instead, so point SDKs there: DD_TRACE_AGENT_URL=http://{bound}"
                )),
            ))
        }
    }
}

/// Whether a program listens on an address. Some systems allow binding a loopback port that another
/// program uses on all addresses, which would divert its traffic.
async fn is_in_use(address: SocketAddr) -> bool {
    let connect = move || TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok();
    tokio::task::spawn_blocking(connect).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> LocalOptions {
        LocalOptions::new(DataDir::Path(directory.to_owned()))
    }

    const ANY_PORT: Listen = Listen::Exactly(SocketAddr::new(
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        0,
    ));

    async fn become_owner(directory: &Path) -> Box<Owner> {
        match own_or_attach(options(directory), ANY_PORT).await.unwrap() {
            Ownership::Owner(owner) => owner,
            Ownership::Attached { .. } => panic!("another process owns it"),
        }
    }

    #[tokio::test]
    async fn second_process_attaches_and_becomes_owner_when_the_first_ends() {
        let directory = tempfile::tempdir().unwrap();
        let Owner {
            backend,
            listener,
            url,
            lock,
            ..
        } = *become_owner(directory.path()).await;
        let id = backend.store_id().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(crate::serve(backend, listener, async {
            let _ = stopped.await;
        }));
        match own_or_attach(options(directory.path()), ANY_PORT)
            .await
            .unwrap()
        {
            Ownership::Attached {
                url: owner_url,
                store_id,
            } => assert_eq!((owner_url, store_id), (url, id.clone())),
            Ownership::Owner(_) => panic!("two owners"),
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        drop(lock);
        assert_eq!(become_owner(directory.path()).await.backend.store_id(), id);
    }

    #[tokio::test]
    async fn refuses_an_owner_that_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let _silent = become_owner(directory.path()).await;
        let result =
            own_or_attach_within(Duration::ZERO, options(directory.path()), ANY_PORT).await;
        assert!(matches!(result, Err(LocalError::OwnerUnreachable { .. })));
    }

    #[tokio::test]
    async fn an_explicit_address_is_bound_or_refused() {
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
        let owned = own_or_attach(options, ANY_PORT).await.unwrap();
        assert!(matches!(owned, Ownership::Owner(_)));
    }
}
