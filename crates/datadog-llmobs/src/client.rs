//! The request pipeline that every operation goes through.
//!
//! A [`Hub`] lives as long as the process and holds what calls share: the transport, the rate limiter
//! and the caches. A [`Client`] is the view of one caller during one tool call: a credential, a user
//! agent and a deadline. It is cheap to create and to clone.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument;
use url::form_urlencoded;

use super::cache::Caches;
use super::call::{ApiCall, ApiResponse, Operation};
use super::credential::{Credential, Fingerprint, FingerprintKey};
use super::deadline::Deadline;
use super::error::{Attempts, ClientError, ErrorResponse, upstream_message};
use super::json;
use super::limiter::{AdmissionError, Limiter};
use super::retry::{
    AttemptFailure, FailureAction, OperationClass, RateLimitHeaders, backoff, jitter,
};
use super::settings::HubSettings;
use super::site::Upstream;
use super::text;
use super::transport::{ResponseLimits, Transport, TransportError};

const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, application/vnd.api+json");

/// Renews a credential that the upstream rejected.
pub trait RenewCredential: Send + Sync {
    /// A new credential; `None` if there is no better one. The error is a message for the user that
    /// says why the renewal failed and how to fix it.
    fn renew<'a>(
        &'a self,
        rejected: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>>;
}

/// The state that calls to one upstream share: transport, limits and caches. Clones share it too.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<HubInner>,
}

pub(crate) struct HubInner {
    pub(crate) upstream: Upstream,
    pub(crate) settings: HubSettings,
    pub(crate) caches: Caches,
    name: String,
    base_url: String,
    transport: Arc<dyn Transport>,
    fingerprints: FingerprintKey,
    limiter: Limiter,
}

impl Hub {
    /// Creates the shared state for one upstream.
    pub fn new(upstream: Upstream, transport: Arc<dyn Transport>, settings: HubSettings) -> Self {
        let inner = HubInner {
            name: text::excerpt(&upstream.name(), 100),
            base_url: upstream.api_base().into_owned(),
            caches: Caches::new(&settings),
            fingerprints: FingerprintKey::random(),
            limiter: Limiter::new(settings.concurrency, settings.rate_jitter),
            upstream,
            settings,
            transport,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The upstream of this hub.
    pub fn upstream(&self) -> &Upstream {
        &self.inner.upstream
    }

    /// The transport, for requests that are not API calls.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.inner.transport.clone()
    }

    /// A client for one tool call, whose deadline counts from now. `caller` is added to the user
    /// agent: the caller's transport and name, for example `mcp stdio; client codex`.
    pub fn client(&self, credential: Credential, caller: &str) -> Client {
        Client {
            fingerprint: self
                .inner
                .fingerprints
                .fingerprint(&credential, &self.inner.base_url),
            deadline: Deadline::after(self.inner.settings.call_deadline),
            user_agent: user_agent(caller),
            credential: Arc::new(RwLock::new(Arc::new(credential))),
            renewal: None,
            hub: Arc::clone(&self.inner),
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({})", self.inner.name)
    }
}

/// The API as one caller sees it during one tool call.
#[derive(Clone)]
pub struct Client {
    pub(crate) hub: Arc<HubInner>,
    pub(crate) fingerprint: Fingerprint,
    /// Shared by all clones, so that a renewal reaches each of them.
    credential: Arc<RwLock<Arc<Credential>>>,
    renewal: Option<Arc<dyn RenewCredential>>,
    user_agent: HeaderValue,
    pub(crate) deadline: Deadline,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {})", self.hub.name, self.credential())
    }
}

impl Client {
    /// The upstream of this client.
    pub fn upstream(&self) -> &Upstream {
        &self.hub.upstream
    }

    /// The kind of its credential, for messages.
    pub fn credential_kind(&self) -> &'static str {
        self.credential().kind()
    }

    /// The same client, with a renewal of rejected credentials.
    #[must_use]
    pub fn with_renewal(self, renewal: Arc<dyn RenewCredential>) -> Self {
        Self {
            renewal: Some(renewal),
            ..self
        }
    }

    fn credential(&self) -> Arc<Credential> {
        self.credential
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces a rejected credential. Returns whether there is a new one; the error is the reason
    /// to add to the upstream's message.
    async fn renew(&self, rejected: &Credential) -> Result<bool, String> {
        let Some(renewal) = &self.renewal else {
            return Ok(false);
        };
        let Some(renewed) = renewal.renew(rejected).await? else {
            return Ok(false);
        };
        *self
            .credential
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(true)
    }

    /// The result of a computation that costs requests, computed at most once a minute per key and
    /// credential, because polling clients repeat themselves.
    pub async fn cached_for_a_minute(
        &self,
        key: &str,
        compute: impl Future<Output = Value>,
    ) -> Value {
        let key = (self.fingerprint, key.to_owned());
        self.hub.caches.computed.get_with(key, compute).await
    }

    /// The same client for another tool call, whose deadline counts from now.
    #[must_use]
    pub fn for_call(&self) -> Self {
        self.with_deadline(Deadline::after(self.hub.settings.call_deadline))
    }

    /// The same client with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Deadline) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// The name of the upstream in messages.
    pub(crate) fn upstream_name(&self) -> String {
        self.hub.name.clone()
    }

    /// Executes a call, with retries where its class allows them, and reads the JSON response.
    ///
    /// # Errors
    /// Every [`ClientError`] except the not-found errors. A success response that is not JSON is an
    /// error.
    pub async fn execute(&self, call: ApiCall) -> Result<ApiResponse, ClientError> {
        let max_attempts = self.hub.settings.attempts.max(1);
        self.execute_with_attempts(call, max_attempts).await
    }

    /// [`Client::execute`] with another limit on the attempts.
    pub(crate) async fn execute_with_attempts(
        &self,
        call: ApiCall,
        max_attempts: u32,
    ) -> Result<ApiResponse, ClientError> {
        let response = self.send(&call, max_attempts).await?;
        self.read(call.operation, response, call.may_be_empty).await
    }

    /// [`Client::execute`] for a long response, which `parse` reads without building a tree. Also
    /// returns the size of the body.
    pub(crate) async fn execute_into<T: Send + 'static>(
        &self,
        call: ApiCall,
        parse: fn(&[u8]) -> Result<T, json::JsonError>,
    ) -> Result<(T, usize), ClientError> {
        let operation = call.operation;
        let response = self.send(&call, self.hub.settings.attempts.max(1)).await?;
        let status = response.status().as_u16();
        let body = response.into_body();
        let bytes = body.len();
        match json::parse_body(body, parse).await {
            Ok(parsed) => Ok((parsed, bytes)),
            Err(error) => Err(self.unreadable(operation, status, error.to_string())),
        }
    }

    /// Sends a call until it succeeds, as often as its class and the failures allow. Returns the
    /// success response.
    async fn send(
        &self,
        call: &ApiCall,
        max_attempts: u32,
    ) -> Result<Response<Bytes>, ClientError> {
        let operation = call.operation;
        let body = call.body.as_ref().map(|body| Bytes::from(body.to_string()));
        let uri = self.uri(call);
        let started = Instant::now();
        let mut attempt = 1;
        let mut may_renew = self.renewal.is_some();
        loop {
            let attempts = || Attempts {
                count: attempt,
                elapsed: started.elapsed(),
            };
            let credential = self.credential();
            let request = self.request(operation, &uri, body.clone(), &credential)?;
            let result = self.attempt(operation, request, attempt, started).await?;
            let failure = match result.response {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => AttemptFailure::Status(response),
                Err(error) => AttemptFailure::Transport(error),
            };
            if failure.status() == Some(StatusCode::UNAUTHORIZED) && may_renew {
                // The request was rejected before it was executed, so even a write is sent again,
                // once.
                may_renew = false;
                match self.renew(&credential).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(reason) => {
                        let error =
                            self.failure(operation, failure, &result.rate, &credential, attempts());
                        return Err(error.with_reason(&reason));
                    }
                }
            }
            let action = operation.class.action_after(&failure);
            if action == FailureAction::Retry && attempt < max_attempts {
                let wait = self.retry_wait(attempt, &failure, &result.rate);
                if wait < self.deadline.remaining() {
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                    continue;
                }
            }
            let error = self.failure(operation, failure, &result.rate, &credential, attempts());
            return Err(match action {
                FailureAction::OutcomeUnknown => outcome_unknown(operation, error),
                FailureAction::Retry | FailureAction::Fail => error,
            });
        }
    }

    /// The wait before the next attempt.
    fn retry_wait(
        &self,
        attempt: u32,
        failure: &AttemptFailure,
        rate: &RateLimitHeaders,
    ) -> Duration {
        let settings = &self.hub.settings;
        let wait = backoff(settings, attempt);
        if failure.status() == Some(StatusCode::TOO_MANY_REQUESTS) {
            wait.max(rate.reset.unwrap_or_default()) + jitter(settings.rate_jitter)
        } else {
            wait
        }
    }

    fn uri(&self, call: &ApiCall) -> String {
        let mut uri = format!("{}{}", self.hub.base_url, call.path);
        if !call.query.is_empty() {
            uri.push('?');
            let mut query = form_urlencoded::Serializer::new(String::new());
            for (key, value) in &call.query {
                query.append_pair(key, value);
            }
            uri.push_str(&query.finish());
        }
        uri
    }

    fn request(
        &self,
        operation: &'static Operation,
        uri: &str,
        body: Option<Bytes>,
        credential: &Credential,
    ) -> Result<Request<Bytes>, ClientError> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = operation.method.clone();
        *request.uri_mut() = uri.parse().map_err(|_| ClientError::Transport {
            operation: operation.name,
            upstream: self.upstream_name(),
            source: TransportError::NotSent("its address is not a URL"),
            attempts: Attempts {
                count: 1,
                elapsed: Duration::ZERO,
            },
        })?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, ACCEPT);
        headers.insert(header::USER_AGENT, self.user_agent.clone());
        credential.apply(headers);
        if let Some(body) = body {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(operation.media),
            );
            *request.body_mut() = body;
        }
        Ok(request)
    }

    /// Makes one attempt: waits for the limiter, sends, and reports the response to the limiter.
    async fn attempt(
        &self,
        operation: &'static Operation,
        request: Request<Bytes>,
        attempt: u32,
        started: Instant,
    ) -> Result<AttemptResult, ClientError> {
        let hub = &self.hub;
        let permit = hub
            .limiter
            .acquire(self.fingerprint, operation.route, &self.deadline)
            .await
            .map_err(|error| match error {
                AdmissionError::RateLimited(wait) => ClientError::RateLimited {
                    operation: operation.name,
                    upstream: self.upstream_name(),
                    retry_after_seconds: Some(whole_seconds(wait)),
                    message: String::new(),
                    attempts: Attempts {
                        count: attempt - 1,
                        elapsed: started.elapsed(),
                    },
                },
                AdmissionError::OutOfTime => self.out_of_time(operation),
            })?;
        let timeout = hub.settings.attempt_timeout.min(self.deadline.remaining());
        if timeout.is_zero() {
            return Err(self.out_of_time(operation));
        }
        let limits = ResponseLimits {
            timeout,
            max_body_bytes: hub.settings.max_body_bytes,
        };
        let response = send_traced(&*hub.transport, operation, request, limits, attempt).await;
        drop(permit);
        let mut rate = RateLimitHeaders::default();
        if let Ok(response) = &response {
            rate = RateLimitHeaders::read(response.headers(), SystemTime::now());
            let is_limited = response.status() == StatusCode::TOO_MANY_REQUESTS;
            hub.limiter
                .observe(self.fingerprint, operation.route, &rate, is_limited)
                .await;
        }
        Ok(AttemptResult { response, rate })
    }

    fn out_of_time(&self, operation: &'static Operation) -> ClientError {
        ClientError::Deadline {
            operation: operation.name,
            seconds: self.deadline.total_seconds(),
        }
    }

    async fn read(
        &self,
        operation: &'static Operation,
        response: Response<Bytes>,
        may_be_empty: bool,
    ) -> Result<ApiResponse, ClientError> {
        let status = response.status().as_u16();
        let body = response.into_body();
        let bytes = body.len();
        let value = if may_be_empty && body.trim_ascii().is_empty() {
            Value::Null
        } else {
            match json::parse_body(body, json::parse).await {
                Ok(value) => value,
                // A write may be confirmed by its status alone.
                Err(json::JsonError::Empty) if operation.class != OperationClass::Read => {
                    Value::Null
                }
                Err(error) => return Err(self.unreadable(operation, status, error.to_string())),
            }
        };
        Ok(ApiResponse {
            status,
            value,
            bytes,
        })
    }

    /// The error for a success status with an unexpected body. A write was probably executed.
    pub(crate) fn unreadable(
        &self,
        operation: &'static Operation,
        status: u16,
        found: String,
    ) -> ClientError {
        let error = ClientError::Unreadable {
            operation: operation.name,
            upstream: self.upstream_name(),
            status,
            found,
        };
        match operation.class {
            OperationClass::Read => error,
            _ => outcome_unknown(operation, error),
        }
    }

    fn failure(
        &self,
        operation: &'static Operation,
        failure: AttemptFailure,
        rate: &RateLimitHeaders,
        credential: &Credential,
        attempts: Attempts,
    ) -> ClientError {
        let response = match failure {
            AttemptFailure::Transport(source) => {
                let out_of_time = matches!(source, TransportError::Timeout(_))
                    && operation.class == OperationClass::Read
                    && self.deadline.remaining().is_zero();
                if out_of_time {
                    return self.out_of_time(operation);
                }
                return ClientError::Transport {
                    operation: operation.name,
                    upstream: self.upstream_name(),
                    source,
                    attempts,
                };
            }
            AttemptFailure::Status(response) => response,
        };
        let message = upstream_message(response.body(), credential);
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return ClientError::RateLimited {
                operation: operation.name,
                upstream: self.upstream_name(),
                retry_after_seconds: rate.reset.map(whole_seconds),
                message,
                attempts,
            };
        }
        ClientError::Status(Box::new(ErrorResponse {
            status: response.status().as_u16(),
            operation: operation.name,
            upstream: self.upstream_name(),
            message,
            request_id: request_id(response.headers(), credential),
            credential: credential.kind(),
            attempts,
        }))
    }
}

fn request_id(headers: &HeaderMap, credential: &Credential) -> Option<String> {
    ["x-request-id", "dd-request-id", "x-amzn-requestid"]
        .into_iter()
        .find_map(|name| headers.get(name)?.to_str().ok())
        .map(|id| text::excerpt(&credential.redact(id), 80))
        .filter(|id| !id.is_empty())
}

/// Sends a request within a tracing span.
async fn send_traced(
    transport: &dyn Transport,
    operation: &'static Operation,
    request: Request<Bytes>,
    limits: ResponseLimits,
    attempt: u32,
) -> Result<Response<Bytes>, TransportError> {
    let span = tracing::info_span!(
        "upstream_request",
        operation = operation.name,
        attempt,
        status = tracing::field::Empty,
        elapsed_ms = tracing::field::Empty,
    );
    let sent_at = Instant::now();
    let response = transport
        .send(request, limits)
        .instrument(span.clone())
        .await;
    let elapsed_ms = u64::try_from(sent_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.record("elapsed_ms", elapsed_ms);
    match &response {
        Ok(response) => {
            span.record("status", response.status().as_u16());
            let bytes = response.body().len();
            span.in_scope(|| tracing::debug!(bytes, "received response"));
        }
        Err(error) => span.in_scope(|| tracing::debug!(%error, "no response")),
    }
    response
}

/// The result of one attempt.
struct AttemptResult {
    response: Result<Response<Bytes>, TransportError>,
    rate: RateLimitHeaders,
}

fn outcome_unknown(operation: &'static Operation, source: ClientError) -> ClientError {
    ClientError::OutcomeUnknown {
        operation: operation.name,
        source: Box::new(source),
        safe_to_repeat: operation.class == OperationClass::Idempotent,
    }
}

/// Seconds, rounded up.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// `llmobs-mcp/1.2.3 (rust; linux; x86_64; mcp stdio; client codex)`. The caller's own
/// text is truncated and reduced to characters that are valid there.
fn user_agent(caller: &str) -> HeaderValue {
    let caller: String = caller
        .chars()
        .take(100)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' | '.' | '_' | '-' | '/' | ';' | '+' => c,
            _ => '_',
        })
        .collect();
    let caller = caller.trim_matches([' ', ';']);
    let separator = if caller.is_empty() { "" } else { "; " };
    let agent = format!(
        "llmobs-mcp/{} (rust; {}; {}{separator}{caller})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    );
    HeaderValue::from_str(&agent).unwrap_or(HeaderValue::from_static("llmobs-mcp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agent_contains_sanitized_caller() {
        let agent = user_agent("mcp stdio; client claude-code/2.1");
        let agent = agent.to_str().unwrap();
        assert!(agent.starts_with("llmobs-mcp/"));
        assert!(agent.ends_with("; mcp stdio; client claude-code/2.1)"));
        let sanitized = user_agent("a(b)\r\nX: é\u{202e}");
        assert!(sanitized.to_str().unwrap().ends_with("; a_b___X_ __)"));
        assert!(user_agent(&"x".repeat(9_999)).len() < 200);
        assert!(user_agent("  ").to_str().unwrap().ends_with(')'));
    }
}
