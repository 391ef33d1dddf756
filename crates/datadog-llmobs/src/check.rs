//! Whether a credential opens LLM Observability: asked before it is kept for a user.
//!
//! The documented check of keys (`/api/v1/validate`) looks at the API key alone, so this is one small
//! read of what the tools read: it takes both keys of a pair, or a token, and the permission.

use std::time::Duration;

use super::Deadline;
use super::call::ApiCall;
use super::client::Client;
use super::datasets::PROJECTS;
use super::error::ClientError;

/// Time for it: a person waits.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Client {
    /// Reads at most one project, once.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives: 401 and 403 when the credential is not good or may
    /// not read.
    pub async fn check_access(&self) -> Result<(), ClientError> {
        let call = ApiCall::new(&PROJECTS).query("page[limit]", "1");
        let client = self.with_deadline(Deadline::after(TIMEOUT));
        client.execute_up_to(call, 1).await.map(drop)
    }
}
