//! The client's numbers: times, sizes, counts. One place, so that tests can be fast and a reader
//! sees them together.

use std::time::Duration;

/// Settings of a [`Hub`](super::Hub). The defaults suit a Datadog site.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Attempts per request, the first one included. Default: 3.
    pub attempts: u32,
    /// Longest wait after the first failed attempt; doubled for each further one. Default: 500 ms.
    pub backoff_base: Duration,
    /// Longest wait between attempts. Default: 8 s.
    pub backoff_cap: Duration,
    /// Random extra wait after a 429, so that waiting calls do not start together. Default: 1 s.
    pub rate_jitter: Duration,
    /// Time of one attempt. Default: 30 s.
    pub attempt_timeout: Duration,
    /// Time of a whole tool call. Default: 50 s, below the 60 s after which MCP clients give up.
    pub call_deadline: Duration,
    /// Time that filling a gap in a complete answer may take. Default: 10 s.
    pub gap_timeout: Duration,
    /// Requests of one credential in flight at a time. Default: 4.
    pub concurrency: usize,
    /// Size of one decompressed answer, in bytes. Default: 64 MiB.
    pub max_body_bytes: usize,
    /// Spans asked for per page of a trace's structure. Default: 5,000, the API's maximum.
    pub structure_page: usize,
    /// Spans asked for per page of a trace's contents. Default: 1,000.
    pub content_page: usize,
    /// Largest page of a search. Default: 500.
    pub search_page: usize,
    /// Spans read for one aggregation before it counts as a sample. Default: 20,000.
    pub aggregate_rows: usize,
    /// Pages read for one trace. Default: 200.
    pub max_pages: usize,
    /// Bytes read for one trace's structure, or one reading of its contents. Default: 256 MiB.
    pub max_trace_bytes: usize,
    /// How far back a trace is looked for when its id is given. Default: 90 days.
    pub lookback: Duration,
    /// Life of a trace's structure (with its evaluations). Default: 20 s.
    pub structure_life: Duration,
    /// Life of the contents of a young trace. Default: 20 s.
    pub young_content_life: Duration,
    /// Life of the contents of an older trace. Default: 10 min.
    pub content_life: Duration,
    /// Until when a trace is young, after its last span ended. Default: 5 min.
    pub young_age: Duration,
    /// Bytes of all cached traces, estimated by the size of the answers. Default: 256 MiB.
    pub cache_bytes: u64,
    /// Spans asked for per page of an experiment's events. Default: 5,000, the API's maximum.
    pub experiment_page: usize,
    /// Life of an experiment's events: metrics come after it is completed. Default: 30 s.
    pub experiment_life: Duration,
    /// Bytes of all cached experiments, estimated by the size of the answers. Default: 128 MiB.
    pub experiment_cache_bytes: u64,
    /// How long a refused private endpoint is not asked again. Default: 1 min.
    pub refusal_life: Duration,
    /// Traces up to this many spans are read whole when contents are needed. Default: 64.
    pub small_trace: usize,
    /// Span ids named in one query. Default: 200.
    pub ids_per_query: usize,
}

impl Default for HubSettings {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            attempts: 3,
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(8),
            rate_jitter: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(30),
            call_deadline: Duration::from_secs(50),
            gap_timeout: Duration::from_secs(10),
            concurrency: 4,
            max_body_bytes: 64 * MIB,
            structure_page: 5_000,
            content_page: 1_000,
            search_page: 500,
            aggregate_rows: 20_000,
            max_pages: 200,
            max_trace_bytes: 256 * MIB,
            lookback: Duration::from_secs(90 * 24 * 3_600),
            structure_life: Duration::from_secs(20),
            young_content_life: Duration::from_secs(20),
            content_life: Duration::from_secs(600),
            young_age: Duration::from_secs(300),
            cache_bytes: 256 * MIB as u64,
            experiment_page: 5_000,
            experiment_life: Duration::from_secs(30),
            experiment_cache_bytes: 128 * MIB as u64,
            refusal_life: Duration::from_secs(60),
            small_trace: 64,
            ids_per_query: 200,
        }
    }
}
