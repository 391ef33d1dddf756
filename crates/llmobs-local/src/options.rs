//! Options of the backend.

use std::time::Duration;

use crate::data_dir::DataDir;
use crate::http::BodyLimits;
use crate::intake::IntakeLimits;
use crate::listener::ConnectionLimits;
use crate::retention::Retention;

/// Options of the backend.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where `LocalBackend::open` stores the data. `LocalBackend::with_stores` ignores it.
    pub data_dir: DataDir,
    /// Reject spans and evaluations older than this. Datadog's limit is 24 hours. Default: no
    /// limit.
    pub max_span_age: Option<Duration>,
    /// Drop the content of spans whose JSON has at least this size, as Datadog's SDKs do from
    /// 5,000,000 bytes. Default: no limit.
    pub max_span_bytes: Option<usize>,
    /// Limits of request bodies.
    pub body_limits: BodyLimits,
    /// Limits of what the intake holds at once.
    pub intake_limits: IntakeLimits,
    /// Limits of the connections of a listener.
    pub connection_limits: ConnectionLimits,
    /// Time after which a search returns what it has, with `meta.status` `timeout` and a cursor.
    /// Default 20 seconds.
    pub search_budget: Duration,
    /// Largest page of spans in bytes. A larger page is refused with 413. Default 50 MB, as
    /// documented by Datadog.
    pub page_bytes: usize,
    /// What [`retain`](crate::retain) removes. Default: nothing.
    pub retention: Retention,
}

impl LocalOptions {
    /// The default options for a data directory.
    pub fn new(data_dir: DataDir) -> Self {
        Self {
            data_dir,
            max_span_age: None,
            max_span_bytes: None,
            body_limits: BodyLimits::default(),
            intake_limits: IntakeLimits::default(),
            connection_limits: ConnectionLimits::default(),
            search_budget: Duration::from_secs(20),
            page_bytes: 50_000_000,
            retention: Retention::default(),
        }
    }

    /// Adds Datadog's limits: spans and evaluations of the last 24 hours, and content in spans under
    /// 5,000,000 bytes only.
    #[must_use]
    pub fn with_datadog_limits(self) -> Self {
        Self {
            max_span_age: Some(Duration::from_secs(24 * 60 * 60)),
            max_span_bytes: Some(5_000_000),
            ..self
        }
    }
}
