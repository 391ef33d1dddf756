//! Datadog's own attributes on OpenTelemetry spans.

use super::super::convention::Convention;

pub(super) static CONVENTION: Convention = Convention {
    marks: &["_dd.ml_obs."],
    metadata_objects: &["_dd.ml_obs.metadata"],
    ..Convention::EMPTY
};
