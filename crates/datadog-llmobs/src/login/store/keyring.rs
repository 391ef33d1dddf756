//! The system's keyring, where there is one and this build knows it (feature `keyring`).
//!
//! A keyring can hang on a question that nobody sees, so every call has a time limit.

#[cfg(feature = "keyring")]
mod system {
    use std::sync::mpsc;
    use std::time::Duration;

    use keyring::v1::Entry;

    const SERVICE: &str = "llmobs-mcp";
    const PATIENCE: Duration = Duration::from_secs(3);

    fn limited<T: Send + 'static>(
        name: &str,
        work: impl FnOnce(&Entry) -> keyring::v1::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let name = name.to_owned();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = Entry::new(SERVICE, &name).and_then(|entry| work(&entry));
            let _ = sender.send(outcome.map_err(|error| error.to_string()));
        });
        receiver
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| Err("it did not answer within 3 seconds".to_owned()))
    }

    pub(in super::super) fn get(name: &str) -> Result<String, String> {
        limited(name, Entry::get_password)
    }

    pub(in super::super) fn set(name: &str, secret: &str) -> Result<(), String> {
        let secret = secret.to_owned();
        limited(name, move |entry| entry.set_password(&secret))
    }

    pub(in super::super) fn delete(name: &str) -> Result<(), String> {
        limited(name, Entry::delete_credential)
    }
}

#[cfg(not(feature = "keyring"))]
mod system {
    const ABSENT: &str = "this program was built without it";

    pub(in super::super) fn get(_name: &str) -> Result<String, String> {
        Err(ABSENT.to_owned())
    }

    pub(in super::super) fn set(_name: &str, _secret: &str) -> Result<(), String> {
        Err(ABSENT.to_owned())
    }

    pub(in super::super) fn delete(_name: &str) -> Result<(), String> {
        Err(ABSENT.to_owned())
    }
}

pub(super) use system::{delete, get, set};
