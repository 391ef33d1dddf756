//! Operations, calls and responses of the API.
//!
//! An operation is a constant beside the code that uses it; a call is an operation with arguments.

use std::borrow::Cow;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::error::ClientError;
use super::retry::OperationClass;

/// The media type of the JSON:API routes.
pub(crate) const JSON_API: &str = "application/vnd.api+json";
/// The media type of the other routes.
pub(crate) const JSON: &str = "application/json";

/// The characters of a path segment that are escaped: all but RFC 3986's unreserved ones.
const SEGMENT_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// An operation of the API.
#[derive(Debug)]
pub struct Operation {
    /// Its name in messages, a noun such as `span search`.
    pub name: &'static str,
    /// What repeating it does.
    pub class: OperationClass,
    /// The HTTP method.
    pub method: Method,
    /// The path, with `{placeholders}` for ids. Rate limits apply per route.
    pub route: &'static str,
    /// The `Content-Type` of the body.
    pub media: &'static str,
}

/// An operation with its arguments.
#[derive(Debug)]
pub struct ApiCall {
    pub(super) operation: &'static Operation,
    pub(super) path: Cow<'static, str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) may_be_empty: bool,
}

impl ApiCall {
    /// A call of an operation whose route has no placeholders.
    pub fn new(operation: &'static Operation) -> Self {
        Self {
            operation,
            path: Cow::Borrowed(operation.route),
            query: Vec::new(),
            body: None,
            may_be_empty: false,
        }
    }

    /// A call of an operation whose route has `{placeholders}`, which `ids` replace in order. Each
    /// id is escaped to one path segment.
    ///
    /// # Errors
    /// [`ClientError::BadId`] for an empty id, and for one that consists of dots, because servers and
    /// proxies may resolve it as a parent directory.
    pub fn with_ids(operation: &'static Operation, ids: &[&str]) -> Result<Self, ClientError> {
        let mut ids = ids.iter();
        let mut path = String::new();
        for segment in operation.route.split('/').skip(1) {
            path.push('/');
            if !segment.starts_with('{') {
                path.push_str(segment);
                continue;
            }
            let id = ids.next().map_or("", |id| id.trim());
            if id.chars().all(|c| c == '.') {
                return Err(ClientError::BadId {
                    operation: operation.name,
                });
            }
            path.extend(utf8_percent_encode(id, SEGMENT_ESCAPES));
        }
        Ok(Self {
            path: Cow::Owned(path),
            ..Self::new(operation)
        })
    }

    /// Accepts a success response without a body; its value is `null`.
    #[must_use]
    pub fn may_be_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// Sets the JSON body.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }
}

/// A success response.
#[derive(Debug)]
pub struct ApiResponse {
    /// The HTTP status, 2xx.
    pub status: u16,
    /// The JSON of the body.
    pub value: Value,
    /// The size of the decompressed body in bytes.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_escaped_to_one_path_segment() {
        static EVENTS: Operation = Operation {
            name: "events",
            class: OperationClass::Read,
            method: Method::GET,
            route: "/v3/{project_id}/experiments/{id}/events",
            media: JSON_API,
        };
        let path =
            |ids: &[&str]| ApiCall::with_ids(&EVENTS, ids).map(|call| call.path.into_owned());
        assert_eq!(path(&["p", "e-1"]).unwrap(), "/v3/p/experiments/e-1/events");
        assert_eq!(
            path(&["a/../b", "x?y#z é%2F"]).unwrap(),
            "/v3/a%2F..%2Fb/experiments/x%3Fy%23z%20%C3%A9%252F/events"
        );
        for ids in [["..", "e"], ["p", "."], ["p", " "], ["", "e"]] {
            assert!(path(&ids).is_err(), "{ids:?}");
        }
        assert!(path(&["p"]).is_err());
    }
}
