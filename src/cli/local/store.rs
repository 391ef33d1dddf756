//! The store that a `local` subcommand works on, through the private endpoints of its owner: another
//! process, or this one if there is no other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::backend::Backend;
use crate::cli::error::CliError;
use crate::cli::settings::Settings;
use datadog_llmobs::{ResponseLimits, Transport};
use llmobs_local::owner::Listen;
use llmobs_local::{DataDir, LocalOptions, has_store};

/// The header with the id of the store that a request is for.
const STORE_HEADER: &str = "x-llmobs-mcp-store";

/// How long one request may take. The integrity check of the engine reads the entire file.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The largest response. A page of an export holds at least one line, of any size.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// How often a request is retried while the intake is at its limit.
const MAX_RETRIES: u32 = 10;

/// Whether the store must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreRequirement {
    /// It must exist.
    Existing,
    /// It is created if it does not exist.
    MayBeNew,
}

/// The open store of a subcommand.
pub(super) struct Store {
    backend: Backend,
    transport: Arc<dyn Transport>,
    pub(super) id: String,
    directory: String,
}

impl Store {
    pub(super) async fn open(
        settings: &Settings,
        requirement: StoreRequirement,
    ) -> Result<Self, CliError> {
        let directory = &settings.local.data_dir;
        if requirement == StoreRequirement::Existing && !has_store(directory) {
            return Err(CliError::failed(
                format!("{} has no local data", directory.display()),
                "name the data directory with --data-dir DIR, or send spans first: `llmobs-mcp local` receives \
                 them, `llmobs-mcp demo` shows sample data",
            ));
        }
        // A free port, because no SDK should send to a command that is about to end. No retention, because
        // only the command itself may remove data.
        let options = LocalOptions::new(DataDir::Path(directory.clone()));
        let listen = Listen::Exactly(([127, 0, 0, 1], 0).into());
        let backend = Backend::share(options, listen).await?;
        let mut store = Self {
            transport: backend.transport(),
            backend,
            id: String::new(),
            directory: directory.display().to_string(),
        };
        let info = Request::get(format!("{}/info", store.backend.url())).body(Bytes::new());
        let info: Value = store.parse(&store.send(info.map_err(invalid_request)?).await?)?;
        let id = info.pointer("/llmobs_mcp/store_id").and_then(Value::as_str);
        id.unwrap_or_default().clone_into(&mut store.id);
        Ok(store)
    }

    /// The URL of the owner; `None` if it is this process.
    pub(super) fn owner(&self) -> Option<String> {
        self.backend.owned().is_none().then(|| self.backend.url())
    }

    /// Calls a private endpoint with the id of the store.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        name: &str,
        body: Value,
    ) -> Result<T, CliError> {
        let response = self.ask_raw(name, body).await?;
        self.parse(&response)
    }

    /// Like [`Self::ask`], with the response unparsed.
    pub(super) async fn ask_raw(
        &self,
        name: &str,
        mut body: Value,
    ) -> Result<Response<Bytes>, CliError> {
        if let Some(map) = body.as_object_mut() {
            map.insert("store_id".to_owned(), json!(self.id));
        }
        self.post(name, Bytes::from(body.to_string())).await
    }

    /// Sends a body to a private endpoint.
    pub(super) async fn post(&self, name: &str, body: Bytes) -> Result<Response<Bytes>, CliError> {
        for _ in 0..MAX_RETRIES {
            let response = self.send(self.request(name, body.clone())?).await?;
            if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                return self.check_status(response);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let response = self.send(self.request(name, body)?).await?;
        self.check_status(response)
    }

    fn request(&self, name: &str, body: Bytes) -> Result<Request<Bytes>, CliError> {
        let url = self.backend.url();
        Request::post(format!("{url}/api/unstable/llm-obs-mcp/v1/store/{name}"))
            .header("content-type", "application/json")
            .header(STORE_HEADER, &self.id)
            .body(body)
            .map_err(invalid_request)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CliError> {
        let limits = ResponseLimits {
            timeout: REQUEST_TIMEOUT,
            max_body_bytes: MAX_RESPONSE_BYTES,
        };
        self.transport.send(request, limits).await.map_err(|error| {
            CliError::failed(
                format!("{} does not answer: {error}", self.describe()),
                "run the command again",
            )
        })
    }

    /// Returns a successful response, or its error.
    fn check_status(&self, response: Response<Bytes>) -> Result<Response<Bytes>, CliError> {
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == StatusCode::NOT_FOUND {
            return Err(CliError::failed(
                format!(
                    "{} runs another version, which lacks this command",
                    self.describe()
                ),
                "stop that process and run the command again",
            ));
        }
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let detail = body.pointer("/errors/0/detail").and_then(Value::as_str);
        let status = response.status().as_u16();
        Err(match detail {
            Some(detail) => CliError::failed(detail, ""),
            None => CliError::failed(
                format!("{} answered with status {status}", self.describe()),
                "run the command again",
            ),
        })
    }

    fn parse<T: DeserializeOwned>(&self, response: &Response<Bytes>) -> Result<T, CliError> {
        serde_json::from_slice(response.body()).map_err(|_| {
            CliError::failed(
                format!("{} sent an unreadable answer", self.describe()),
                "use the same version of llmobs-mcp for this command and for the owner of the data",
            )
        })
    }

    fn describe(&self) -> String {
        match self.owner() {
            Some(url) => format!("the process at {url}, the owner of {},", self.directory),
            None => format!("the store in {}", self.directory),
        }
    }

    /// Releases the data.
    pub(super) async fn close(self) {
        self.backend.close().await;
    }
}

fn invalid_request(error: http::Error) -> CliError {
    CliError::failed(error, "this is a bug: please report it")
}

/// A progress bar on standard error, if that is a terminal.
pub(super) fn progress(label: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {human_pos}/{human_len} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.with_message(label)
}
