//! The system keyring, if this build supports it (feature `keyring`) and the system has one.
//!
//! A keyring can block on a prompt that the user does not see, so every call has a timeout.

#[cfg(feature = "keyring")]
mod system {
    use std::sync::mpsc;
    use std::time::Duration;

    use keyring::v1::Entry;

    const SERVICE: &str = "llmobs-mcp";
    const TIMEOUT: Duration = Duration::from_secs(3);

    fn with_timeout<T: Send + 'static>(
        name: &str,
        operation: impl FnOnce(&Entry) -> keyring::v1::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let name = name.to_owned();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let result = Entry::new(SERVICE, &name).and_then(|entry| operation(&entry));
            let _ = sender.send(result.map_err(|error| error.to_string()));
        });
        receiver
            .recv_timeout(TIMEOUT)
            .unwrap_or_else(|_| Err("it did not respond within 3 seconds".to_owned()))
    }

    pub(in super::super) fn get(name: &str) -> Result<String, String> {
        with_timeout(name, Entry::get_password)
    }

    pub(in super::super) fn set(name: &str, secret: &str) -> Result<(), String> {
        let secret = secret.to_owned();
        with_timeout(name, move |entry| entry.set_password(&secret))
    }

    pub(in super::super) fn delete(name: &str) -> Result<(), String> {
        with_timeout(name, Entry::delete_credential)
    }
}

#[cfg(not(feature = "keyring"))]
mod system {
    const UNSUPPORTED: &str = "this program was built without keyring support";

    pub(in super::super) fn get(_name: &str) -> Result<String, String> {
        Err(UNSUPPORTED.to_owned())
    }

    pub(in super::super) fn set(_name: &str, _secret: &str) -> Result<(), String> {
        Err(UNSUPPORTED.to_owned())
    }

    pub(in super::super) fn delete(_name: &str) -> Result<(), String> {
        Err(UNSUPPORTED.to_owned())
    }
}

pub(super) use system::{delete, get, set};
