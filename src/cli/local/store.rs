//! The data that a `local` command works on, through the private endpoints of whoever owns them:
//! this process, when nobody else does.

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

/// The header that names the store that an import means.
pub(super) const STORE: &str = "x-llmobs-mcp-store";

/// How long one request may take: the engine's own check reads the whole file.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// A page of an export holds at least one line, whatever its size.
const MAX_ANSWER: usize = 256 << 20;

/// How often a request is sent again that came when too much was being taken in.
const RETRIES: u32 = 10;

/// Whether the command may begin with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// There must be data.
    Data,
    /// They are made if there are none.
    Nothing,
}

/// The data, for as long as a command works on them.
pub(super) struct Store {
    backend: Backend,
    transport: Arc<dyn Transport>,
    pub(super) id: String,
    folder: String,
}

impl Store {
    pub(super) async fn open(settings: &Settings, needs: Needs) -> Result<Self, CliError> {
        let folder = &settings.local.data_dir;
        if needs == Needs::Data && !has_store(folder) {
            return Err(CliError::failed(
                format!("there are no data in {}", folder.display()),
                "name the folder that holds them, for example --data-dir ~/.local/share/llmobs-mcp",
            ));
        }
        // A port of its own: nobody should begin to send to a command that is about to end. And what
        // the command does not remove stays, whatever the retention of servers is.
        let options = LocalOptions::new(DataDir::Folder(folder.clone()));
        let listen = Listen::Exactly(([127, 0, 0, 1], 0).into());
        let backend = Backend::share(options, listen).await?;
        let mut store = Self {
            transport: backend.transport(),
            backend,
            id: String::new(),
            folder: folder.display().to_string(),
        };
        let info = Request::get(format!("{}/info", store.backend.url())).body(Bytes::new());
        let info: Value = store.read(&store.send(info.map_err(broken)?).await?)?;
        let id = info.pointer("/llmobs_mcp/store_id").and_then(Value::as_str);
        id.unwrap_or_default().clone_into(&mut store.id);
        Ok(store)
    }

    /// Who holds the data, for people; `None` when it is this command.
    pub(super) fn holder(&self) -> Option<String> {
        self.backend.owned().is_none().then(|| self.backend.url())
    }

    /// Asks the endpoint of a name, with the store named.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        name: &str,
        more: Value,
    ) -> Result<T, CliError> {
        let answer = self.ask_raw(name, more).await?;
        self.read(&answer)
    }

    /// The same, with the answer as it is.
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

    /// Sends a body to the endpoint of a name.
    pub(super) async fn post(&self, name: &str, body: Bytes) -> Result<Response<Bytes>, CliError> {
        for _ in 0..RETRIES {
            let answer = self.send(self.request(name, body.clone())?).await?;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                return self.accepted(answer);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let answer = self.send(self.request(name, body)?).await?;
        self.accepted(answer)
    }

    fn request(&self, name: &str, body: Bytes) -> Result<Request<Bytes>, CliError> {
        let url = self.backend.url();
        Request::post(format!("{url}/api/unstable/llm-obs-mcp/v1/store/{name}"))
            .header("content-type", "application/json")
            .header(STORE, &self.id)
            .body(body)
            .map_err(broken)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CliError> {
        let limits = ResponseLimits {
            timeout: TIMEOUT,
            max_body_bytes: MAX_ANSWER,
        };
        self.transport.send(request, limits).await.map_err(|error| {
            CliError::failed(
                format!("{} does not answer: {error}", self.named()),
                "run the command again",
            )
        })
    }

    /// An answer that is a success, or the error that it tells.
    fn accepted(&self, answer: Response<Bytes>) -> Result<Response<Bytes>, CliError> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(CliError::failed(
                format!("{} is of a version that cannot do this", self.named()),
                "stop that process and run the command again",
            ));
        }
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let detail = body.pointer("/errors/0/detail").and_then(Value::as_str);
        let status = answer.status().as_u16();
        Err(match detail {
            Some(detail) => CliError::failed(detail, ""),
            None => CliError::failed(
                format!("{} answered with status {status}", self.named()),
                "run the command again",
            ),
        })
    }

    fn read<T: DeserializeOwned>(&self, answer: &Response<Bytes>) -> Result<T, CliError> {
        serde_json::from_slice(answer.body()).map_err(|_| {
            CliError::failed(
                format!("{} gave an answer that cannot be read", self.named()),
                "use the same version of llmobs-mcp for this command and for the process that holds the data",
            )
        })
    }

    fn named(&self) -> String {
        match self.holder() {
            Some(url) => format!("the process at {url}, which holds {},", self.folder),
            None => format!("the store in {}", self.folder),
        }
    }

    /// Lets go of the data.
    pub(super) async fn close(self) {
        self.backend.close().await;
    }
}

fn broken(error: http::Error) -> CliError {
    CliError::failed(error, "this is a bug: please report it")
}

/// A bar on standard error, if that is a terminal.
pub(super) fn progress(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {human_pos}/{human_len} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.with_message(what)
}
