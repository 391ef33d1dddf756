//! A test double of a Datadog site: the local backend, changed where a site differs from it.
//!
//! Three things can be switched on, alone or together:
//!
//! - **documented attributes only** ([`DoubleOptions::documented_only`]): search responses lose the
//!   attributes that Datadog does not document, and endpoints of ours answer 404. Clients have to
//!   fill the gaps as they would on a site.
//! - **sign-in** ([`DoubleOptions::sign_in`]): Datadog's OAuth endpoints, with a consent page.
//! - **faults** ([`Faults`]): refusals, overload, incomplete, slow and HTML responses on request,
//!   from the test or over HTTP at [`FAULTS_PATH`].
//!
//! Every request is counted ([`RequestCounts`]), so that a test can assert how little a client asks.
//! The double is a test program. It is not part of any release.

mod documented;
mod faults;
mod requests;
mod sign_in;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use llmobs_authz::HostGuard;
use llmobs_local::LocalBackend;

pub use faults::{FAULTS_PATH, Fault, FaultBody, Faults};
pub use requests::RequestCounts;

use requests::RequestLog;
use sign_in::SignIn;

/// Where the double differs from the local backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoubleOptions {
    /// Answer with documented attributes only.
    pub documented_only: bool,
    /// Serve Datadog's sign-in, and refuse its access tokens once they are no longer valid.
    pub sign_in: bool,
}

/// A double over a local backend. Clones share faults, counts and sign-ins.
#[derive(Clone)]
pub struct DatadogDouble {
    backend: LocalBackend,
    options: DoubleOptions,
    faults: Faults,
    requests: Arc<RequestLog>,
    sign_in: Arc<SignIn>,
}

impl DatadogDouble {
    /// A double that reads and writes the data of `backend`.
    pub fn new(backend: LocalBackend, options: DoubleOptions) -> Self {
        let sign_in = Arc::new(SignIn::new(backend.store_id()));
        Self {
            backend,
            options,
            faults: Faults::default(),
            requests: Arc::default(),
            sign_in,
        }
    }

    /// All routes of the backend with the changes of this double.
    pub fn router(&self) -> Router {
        let mut routes = self.backend.router();
        if self.options.documented_only {
            routes = routes.layer(from_fn(documented::remove_undocumented));
        }
        if self.options.sign_in {
            routes = routes
                .layer(from_fn_with_state(
                    self.sign_in.clone(),
                    sign_in::check_bearer,
                ))
                .merge(sign_in::routes(&self.sign_in));
        }
        routes
            .layer(from_fn_with_state(
                self.requests.clone(),
                requests::count_request,
            ))
            .layer(from_fn_with_state(self.faults.clone(), faults::inject))
            .merge(faults::routes(&self.faults))
            .layer(from_fn(check_host))
    }

    /// The faults of the next requests.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The requests since the start.
    pub fn request_counts(&self) -> RequestCounts {
        self.requests.snapshot()
    }

    /// The backend behind the double.
    pub fn backend(&self) -> &LocalBackend {
        &self.backend
    }
}

/// Refuses requests of foreign web pages on all routes, as the backend does on its own.
async fn check_host(request: Request, next: Next) -> Response {
    let guard = HostGuard::for_in_process_requests();
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(_) => StatusCode::FORBIDDEN.into_response(),
    }
}
