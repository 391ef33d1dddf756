//! The times, sizes and counts of the client, in one place so that tests can change them.

use std::time::Duration;

/// Settings of a [`Hub`](super::Hub). The defaults are for a Datadog site.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The maximum number of attempts per request. Default: 3.
    pub attempts: u32,
    /// The maximum wait after the first failed attempt, doubled after each further one. Default: 500 ms.
    pub backoff_base: Duration,
    /// The maximum wait between attempts. Default: 8 s.
    pub backoff_cap: Duration,
    /// The maximum of an additional random wait after a 429, so that waiting calls do not start
    /// together. Default: 1 s.
    pub rate_jitter: Duration,
    /// The timeout of one attempt. Default: 30 s.
    pub attempt_timeout: Duration,
    /// The deadline of a tool call. Default: 50 s, below the 60 s after which MCP clients give up.
    pub call_deadline: Duration,
    /// The timeout of filling a gap. Default: 10 s.
    pub gap_timeout: Duration,
    /// The maximum number of concurrent requests per credential. Default: 4.
    pub concurrency: usize,
    /// The maximum size of one decompressed response, in bytes. Default: 64 MiB.
    pub max_body_bytes: usize,
    /// Spans per page of the structure of a trace. Default: 5,000, the maximum of the API.
    pub structure_page: usize,
    /// Spans per page of the contents of a trace. Default: 1,000.
    pub content_page: usize,
    /// The maximum number of spans per page of a search. Default: 500.
    pub search_page: usize,
    /// The maximum number of spans read for one aggregation. Default: 20,000.
    pub aggregate_rows: usize,
    /// The maximum number of pages read for one trace or experiment. Default: 200.
    pub max_pages: usize,
    /// The maximum size of all pages of one trace or experiment, in bytes. Default: 256 MiB.
    pub max_trace_bytes: usize,
    /// How far back a trace is searched by its id. Default: 90 days.
    pub lookback: Duration,
    /// The lifetime of the cached structure of a trace, with its evaluations. Default: 20 s.
    pub structure_life: Duration,
    /// The lifetime of the cached contents of a young trace. Default: 20 s.
    pub young_content_life: Duration,
    /// The lifetime of the cached contents of an older trace. Default: 10 min.
    pub content_life: Duration,
    /// How long a trace is young after its last span ended. Default: 5 min.
    pub young_age: Duration,
    /// The maximum size of all cached traces in bytes, by the size of the responses. Default: 256 MiB.
    pub cache_bytes: u64,
    /// Spans per page of the events of an experiment. Default: 5,000, the maximum of the API.
    pub experiment_page: usize,
    /// The lifetime of the cached events of an experiment. It is short because metrics are added after
    /// an experiment is completed. Default: 30 s.
    pub experiment_life: Duration,
    /// The maximum size of all cached experiments in bytes, by the size of the responses. Default:
    /// 128 MiB.
    pub experiment_cache_bytes: u64,
    /// How long a private endpoint that rejected a credential is not called again. Default: 1 min.
    pub refusal_life: Duration,
    /// The maximum number of spans of a trace whose contents are read all at once. Default: 64.
    pub small_trace: usize,
    /// The maximum number of span ids in one query. Default: 200.
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
