//! What is asked of the API, and what comes back: an operation is a constant beside the code that
//! asks it, a call is an operation with its arguments.

use std::borrow::Cow;

use http::Method;
use serde_json::Value;

use super::error::ClientError;
use super::retry::OperationClass;

/// What the API's JSON:API routes want.
pub(crate) const JSON_API: &str = "application/vnd.api+json";
/// What the other routes want.
pub(crate) const JSON: &str = "application/json";

/// One thing that can be asked of the API. A constant beside the code that asks it.
#[derive(Debug)]
pub struct Operation {
    /// Its name in messages: a noun, for example `span search`.
    pub name: &'static str,
    /// What repeating it would do.
    pub class: OperationClass,
    /// The HTTP method.
    pub method: Method,
    /// The path, with `{placeholders}` where ids stand: rate limits are per route.
    pub route: &'static str,
    /// The `Content-Type` of its body.
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
    /// A call of an operation whose route has no placeholder.
    pub fn new(operation: &'static Operation) -> Self {
        Self {
            operation,
            path: Cow::Borrowed(operation.route),
            query: Vec::new(),
            body: None,
            may_be_empty: false,
        }
    }

    /// A call of an operation whose route has `{placeholders}`: `ids` in their order. Each id stays
    /// one segment of the path, whatever it holds.
    ///
    /// # Errors
    /// [`ClientError::BadId`] for an id that a path cannot hold: empty, or made of dots, which
    /// everything on the way may take for a step up.
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
            percent_encode(id, &mut path);
        }
        Ok(Self {
            path: Cow::Owned(path),
            ..Self::new(operation)
        })
    }

    /// Takes an answer without a body for a success: its value is `null`.
    #[must_use]
    pub fn may_be_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// Sends a JSON body.
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

/// Writes an id as one segment of a path: all but letters, digits and `-_.~` as `%XX`.
fn percent_encode(id: &str, path: &mut String) {
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub struct ApiResponse {
    /// The HTTP status, 2xx.
    pub status: u16,
    /// The JSON.
    pub value: Value,
    /// Size of the decompressed body in bytes.
    pub bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
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
