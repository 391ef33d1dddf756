//! Checks that a credential may read LLM Observability, before it is stored for a user.
//!
//! Datadog's documented check of keys (`/api/v1/validate`) covers the API key only. Reading one project
//! covers both keys of a pair, or a token, and its permissions.

use std::time::Duration;

use super::Deadline;
use super::call::ApiCall;
use super::client::Client;
use super::datasets::PROJECTS;
use super::error::ClientError;

/// Short, because a person waits for the result.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

impl Client {
    /// Reads at most one project, without retries.
    ///
    /// # Errors
    /// The errors of [`Client::execute`]: 401 or 403 if the credential is invalid or lacks the
    /// permission.
    pub async fn check_access(&self) -> Result<(), ClientError> {
        let call = ApiCall::new(&PROJECTS).query("page[limit]", "1");
        let client = self.with_deadline(Deadline::after(CHECK_TIMEOUT));
        client.execute_with_attempts(call, 1).await.map(drop)
    }
}
