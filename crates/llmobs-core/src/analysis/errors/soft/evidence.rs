//! The evidence of a soft error.

use serde::Serialize;
use serde_json::Value;

use crate::analysis::content::ContentField;

/// Where a span shows a failure, and the value found there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The content field, a dot, and the JSONPath inside it, for example `output.$.isError`.
    pub path: String,
    /// The value, shortened to about 200 characters. If the path leads to a text that holds JSON,
    /// the part of that JSON that shows the failure.
    pub value: Value,
}

pub(super) fn evidence(field: ContentField, path: &str, value: Value) -> Evidence {
    Evidence {
        path: format!("{}.{path}", field.as_str()),
        value,
    }
}
