//! The request pipeline: one way for every question to reach the upstream.
//!
//! A [`Hub`] lives as long as the process and holds what calls share: the transport, the limiter,
//! the caches. A [`Client`] is one caller's view of it during one tool call: a credential, a user
//! agent, a deadline. It is cheap to make and to clone.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use serde_json::Value;
use url::form_urlencoded;

use super::cache::Caches;
use super::call::{ApiCall, ApiResponse, Operation};
use super::credential::{Credential, Fingerprint, FingerprintKey};
use super::deadline::Deadline;
use super::error::{ClientError, ErrorResponse, upstream_words};
use super::json;
use super::limiter::{Limiter, Refused};
use super::retry::{Failure, OperationClass, RateHeaders, Verdict, backoff, jitter};
use super::settings::HubSettings;
use super::site::Upstream;
use super::text;
use super::transport::{ResponseLimits, Transport, TransportError};

const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, application/vnd.api+json");

/// Gives a new credential in place of one that the upstream refused.
pub trait RenewCredential: Send + Sync {
    /// The new one; `None` when there is no better one. The error says in words for a person why
    /// there can be none, with the mend.
    fn renew<'a>(
        &'a self,
        refused: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Credential>, String>>;
}

/// What outlives a call: transport, limits, caches. Clones share them.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<HubInner>,
}

pub(crate) struct HubInner {
    pub(crate) upstream: Upstream,
    pub(crate) settings: HubSettings,
    pub(crate) caches: Caches,
    name: String,
    base: String,
    transport: Arc<dyn Transport>,
    fingerprints: FingerprintKey,
    limiter: Limiter,
}

impl Hub {
    /// Sets up everything that calls to one upstream share.
    pub fn new(upstream: Upstream, transport: Arc<dyn Transport>, settings: HubSettings) -> Self {
        let inner = HubInner {
            name: text::excerpt(&upstream.name(), 100),
            base: upstream.api_base().into_owned(),
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

    /// What this hub talks to.
    pub fn upstream(&self) -> &Upstream {
        &self.inner.upstream
    }

    /// What sends requests to it: for those that are no calls of the API.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.inner.transport.clone()
    }

    /// A client for one tool call; the call's time starts now. `caller` goes into the user agent:
    /// how the caller reached us and its name, for example `mcp stdio; client codex`.
    pub fn client(&self, credential: Credential, caller: &str) -> Client {
        Client {
            fingerprint: self.inner.fingerprints.of(&credential, &self.inner.base),
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

/// One caller's way to the API during one tool call.
#[derive(Clone)]
pub struct Client {
    pub(crate) hub: Arc<HubInner>,
    pub(crate) fingerprint: Fingerprint,
    /// One for all clones: what one of them renews, the others send.
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
    /// What this client talks to.
    pub fn upstream(&self) -> &Upstream {
        &self.hub.upstream
    }

    /// The kind of credential it sends, in words.
    pub fn credential_kind(&self) -> &'static str {
        self.credential().kind()
    }

    /// The same client, with somebody who can give a new credential for one that is refused.
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

    /// Takes a new credential in place of one that was refused. Says why there is none, in words
    /// to add to the refusal.
    async fn renew(&self, refused: &Credential) -> Result<bool, String> {
        let Some(renewal) = &self.renewal else {
            return Ok(false);
        };
        let Some(renewed) = renewal.renew(refused).await? else {
            return Ok(false);
        };
        *self
            .credential
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(true)
    }

    /// The answer to a side question that costs requests, worked out at most once a minute for
    /// this credential: polling clients repeat themselves.
    pub async fn cached_for_a_minute(
        &self,
        question: &str,
        answer: impl Future<Output = Value>,
    ) -> Value {
        let key = (self.fingerprint, question.to_owned());
        self.hub.caches.answered.get_with(key, answer).await
    }

    /// The same client for another tool call: its time starts now.
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

    /// The upstream's name in messages.
    pub(crate) fn upstream_name(&self) -> String {
        self.hub.name.clone()
    }

    /// Sends a call, again where its class allows, and reads the JSON it promises.
    ///
    /// # Errors
    /// Everything in [`ClientError`] but the not-found errors. A 2xx answer that is not JSON is an
    /// error.
    pub async fn execute(&self, call: ApiCall) -> Result<ApiResponse, ClientError> {
        let attempts = self.hub.settings.attempts.max(1);
        self.execute_up_to(call, attempts).await
    }

    /// [`Client::execute`] with so many attempts.
    pub(crate) async fn execute_up_to(
        &self,
        call: ApiCall,
        attempts: u32,
    ) -> Result<ApiResponse, ClientError> {
        let sent = self.send(&call, attempts).await?;
        self.read(call.operation, sent, call.may_be_empty).await
    }

    /// [`Client::execute`] for a reading operation whose answer is long: `parse` makes of the body
    /// what is wanted, and gives `None` if it is some other JSON. Gives the size of the body too.
    pub(crate) async fn execute_into<T: Send + 'static>(
        &self,
        call: ApiCall,
        parse: fn(&[u8]) -> Result<Option<T>, json::JsonError>,
        what_else: &'static str,
    ) -> Result<(T, usize), ClientError> {
        let operation = call.operation;
        let sent = self.send(&call, self.hub.settings.attempts.max(1)).await?;
        let response = match sent.outcome {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(operation, error)),
        };
        let status = response.status().as_u16();
        let body = response.into_body();
        let bytes = body.len();
        match json::parse_body(body, parse).await {
            Ok(Some(parsed)) => Ok((parsed, bytes)),
            Ok(None) => Err(self.unreadable(operation, status, what_else.to_owned())),
            Err(error) => Err(self.unreadable(operation, status, error.to_string())),
        }
    }

    /// Sends a call, again if its class allows and the failure suggests it, until it succeeds.
    async fn send(&self, call: &ApiCall, attempts: u32) -> Result<Sent, ClientError> {
        let operation = call.operation;
        let body = call.body.as_ref().map(|body| Bytes::from(body.to_string()));
        let uri = self.uri(call);
        let mut attempt = 1;
        let mut may_renew = self.renewal.is_some();
        loop {
            let credential = self.credential();
            let request = self.request(operation, &uri, body.clone(), &credential)?;
            let sent = self.attempt(operation, request, attempt).await?;
            let failure = match &sent.outcome {
                Ok(response) if response.status().is_success() => {
                    break Ok(sent);
                }
                Ok(response) => Failure::Status(response.status()),
                Err(error) => Failure::Transport(error),
            };
            let too_many = failure == Failure::Status(http::StatusCode::TOO_MANY_REQUESTS);
            if failure == Failure::Status(http::StatusCode::UNAUTHORIZED) && may_renew {
                // Refused unread, so that even a write may be sent again: once.
                may_renew = false;
                match self.renew(&credential).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(why) => {
                        let error = self.failed(operation, sent, Verdict::Failed, &credential);
                        break Err(error.because(&why));
                    }
                }
            }
            let verdict = operation.class.judge(failure);
            if verdict == Verdict::Again && attempt < attempts {
                let settings = &self.hub.settings;
                let mut wait = backoff(settings, attempt);
                if too_many {
                    wait = wait.max(sent.rate.reset.unwrap_or_default());
                    wait += jitter(settings.rate_jitter);
                }
                if wait < self.deadline.remaining() {
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                    continue;
                }
            }
            break Err(self.failed(operation, sent, verdict, &credential));
        }
    }

    fn uri(&self, call: &ApiCall) -> String {
        let mut uri = format!("{}{}", self.hub.base, call.path);
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
            error: TransportError::NotSent("its address is not a URL"),
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

    /// One attempt: waits for its turn, sends, and lets the limiter see the answer.
    async fn attempt(
        &self,
        operation: &'static Operation,
        request: Request<Bytes>,
        attempt: u32,
    ) -> Result<Sent, ClientError> {
        let hub = &self.hub;
        let slot = hub
            .limiter
            .enter(self.fingerprint, operation.route, &self.deadline)
            .await
            .map_err(|refused| match refused {
                Refused::Closed(wait) => ClientError::RateLimited {
                    operation: operation.name,
                    upstream: self.upstream_name(),
                    retry_after_seconds: Some(whole_seconds(wait)),
                    words: String::new(),
                },
                Refused::OutOfTime => self.out_of_time(operation),
            })?;
        let timeout = hub.settings.attempt_timeout.min(self.deadline.remaining());
        if timeout.is_zero() {
            return Err(self.out_of_time(operation));
        }
        let limits = ResponseLimits {
            timeout,
            max_body_bytes: hub.settings.max_body_bytes,
        };
        let start = tokio::time::Instant::now();
        let outcome = hub.transport.send(request, limits).await;
        drop(slot);
        let elapsed_ms = start.elapsed().as_millis();
        let mut rate = RateHeaders::default();
        match &outcome {
            Ok(response) => {
                let status = response.status();
                tracing::debug!(
                    operation = operation.name,
                    attempt,
                    status = status.as_u16(),
                    bytes = response.body().len(),
                    elapsed_ms,
                    "answered"
                );
                rate = RateHeaders::read(response.headers(), SystemTime::now());
                let too_many = status == http::StatusCode::TOO_MANY_REQUESTS;
                hub.limiter
                    .observe(self.fingerprint, operation.route, &rate, too_many)
                    .await;
            }
            Err(error) => {
                tracing::debug!(operation = operation.name, attempt, elapsed_ms, %error, "no answer");
            }
        }
        Ok(Sent { outcome, rate })
    }

    fn out_of_time(&self, operation: &'static Operation) -> ClientError {
        ClientError::Deadline {
            operation: operation.name,
            seconds: self.deadline.seconds(),
        }
    }

    async fn read(
        &self,
        operation: &'static Operation,
        sent: Sent,
        may_be_empty: bool,
    ) -> Result<ApiResponse, ClientError> {
        let response = match sent.outcome {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(operation, error)),
        };
        let status = response.status().as_u16();
        let body = response.into_body();
        let bytes = body.len();
        if may_be_empty && body.trim_ascii().is_empty() {
            return Ok(ApiResponse {
                status,
                value: Value::Null,
                bytes,
            });
        }
        match json::parse_body(body, json::parse).await {
            Ok(value) => Ok(ApiResponse {
                status,
                value,
                bytes,
            }),
            // A write may be answered by its status alone.
            Err(json::JsonError::Empty) if operation.class != OperationClass::Read => {
                Ok(ApiResponse {
                    status,
                    value: Value::Null,
                    bytes,
                })
            }
            Err(error) => Err(self.unreadable(operation, status, error.to_string())),
        }
    }

    /// A success status with the wrong content. A write has then most likely happened.
    pub(crate) fn unreadable(
        &self,
        operation: &'static Operation,
        status: u16,
        what: String,
    ) -> ClientError {
        let error = ClientError::Unreadable {
            operation: operation.name,
            upstream: self.upstream_name(),
            status,
            what,
        };
        match operation.class {
            OperationClass::Read => error,
            _ => unknown(operation, error),
        }
    }

    fn unanswered(&self, operation: &'static Operation, error: TransportError) -> ClientError {
        if matches!(error, TransportError::Timeout(_))
            && operation.class == OperationClass::Read
            && self.deadline.remaining().is_zero()
        {
            return self.out_of_time(operation);
        }
        ClientError::Transport {
            operation: operation.name,
            upstream: self.upstream_name(),
            error,
        }
    }

    fn failed(
        &self,
        operation: &'static Operation,
        sent: Sent,
        verdict: Verdict,
        credential: &Credential,
    ) -> ClientError {
        let error = match sent.outcome {
            Err(error) => self.unanswered(operation, error),
            Ok(response) => {
                let words = upstream_words(response.body(), credential);
                match response.status().as_u16() {
                    429 => ClientError::RateLimited {
                        operation: operation.name,
                        upstream: self.upstream_name(),
                        retry_after_seconds: sent.rate.reset.map(whole_seconds),
                        words,
                    },
                    status => ClientError::Status(Box::new(ErrorResponse {
                        status,
                        operation: operation.name,
                        upstream: self.upstream_name(),
                        words,
                        request_id: request_id(response.headers(), credential),
                        credential: credential.kind(),
                    })),
                }
            }
        };
        match verdict {
            Verdict::Unknown => unknown(operation, error),
            Verdict::Again | Verdict::Failed => error,
        }
    }
}

fn request_id(headers: &HeaderMap, credential: &Credential) -> Option<String> {
    ["x-request-id", "dd-request-id", "x-amzn-requestid"]
        .into_iter()
        .find_map(|name| headers.get(name)?.to_str().ok())
        .map(|id| text::excerpt(&credential.redact(id), 80))
        .filter(|id| !id.is_empty())
}

/// What became of one attempt.
struct Sent {
    outcome: Result<Response<Bytes>, TransportError>,
    rate: RateHeaders,
}

fn unknown(operation: &'static Operation, cause: ClientError) -> ClientError {
    ClientError::OutcomeUnknown {
        operation: operation.name,
        cause: Box::new(cause),
        safe_to_repeat: operation.class == OperationClass::Idempotent,
    }
}

/// Seconds, rounded up: who waits that long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1_000)
        .try_into()
        .unwrap_or(u64::MAX)
}

/// `llmobs-mcp/1.2.3 (rust; linux; x86_64; mcp stdio; client codex)`. What a caller says of itself
/// is cut to what may stand there.
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
    fn the_user_agent_holds_what_the_caller_says_made_harmless() {
        let agent = user_agent("mcp stdio; client claude-code/2.1");
        let agent = agent.to_str().unwrap();
        assert!(agent.starts_with("llmobs-mcp/"));
        assert!(agent.ends_with("; mcp stdio; client claude-code/2.1)"));
        let odd = user_agent("a(b)\r\nX: é\u{202e}");
        assert!(odd.to_str().unwrap().ends_with("; a_b___X_ __)"));
        assert!(user_agent(&"x".repeat(9_999)).len() < 200);
        assert!(user_agent("  ").to_str().unwrap().ends_with(')'));
    }
}
