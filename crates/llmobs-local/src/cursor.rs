//! Cursors of the API: page tokens that are bound to a request.

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::response::ApiError;
use crate::store::SpanPosition;
use llmobs_core::model::TimeWindow;
use llmobs_core::page_token::{self, PageTokenError};

/// Writes the cursor of a position in the list that `request` describes.
pub(crate) fn encode<T: Serialize>(position: &T, request: &[&str]) -> Result<String, ApiError> {
    page_token::encode(position, request).map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the cursor of the next page cannot be written: {error}"),
        )
    })
}

/// Reads a cursor that belongs to `request`.
pub(crate) fn decode<T: DeserializeOwned>(text: &str, request: &[&str]) -> Result<T, ApiError> {
    page_token::decode(text, request).map_err(|error| match error {
        PageTokenError::OtherRequest => other_request(),
        PageTokenError::TooLong | PageTokenError::Malformed | PageTokenError::OtherVersion => {
            ApiError::bad_request(format!(
                "the cursor cannot be used: {error}; pass the cursor of the previous page unchanged, or leave it out to start again"
            ))
        }
    })
}

/// The cursor was given with other filters, another order or another window.
pub(crate) fn other_request() -> ApiError {
    ApiError::bad_request(
        "the cursor belongs to another request; repeat the filters, the sort and the time range of the first page, or leave the cursor out to start again",
    )
}

/// Where a search for spans continues.
///
/// It contains the window of the first page, because `now` moves between two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SearchCursor {
    /// The last position that was looked at.
    pub(crate) after: SpanPosition,
    /// The window of the first page.
    pub(crate) window: TimeWindow,
}

impl SearchCursor {
    /// Writes the cursor. `request` has everything that decides which spans are returned and in
    /// which order.
    pub(crate) fn encode(&self, request: &[String]) -> Result<String, ApiError> {
        let position = (
            self.after.start_ns,
            self.after.id,
            self.window.from_ms,
            self.window.to_ms,
        );
        encode(&position, &as_strs(request))
    }

    /// Reads a cursor that belongs to `request`.
    pub(crate) fn decode(text: &str, request: &[String]) -> Result<Self, ApiError> {
        let (start_ns, id, from_ms, to_ms) = decode(text, &as_strs(request))?;
        Ok(Self {
            after: SpanPosition { start_ns, id },
            window: TimeWindow { from_ms, to_ms },
        })
    }
}

fn as_strs(request: &[String]) -> Vec<&str> {
    request.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn search_cursors_decode_for_the_same_request_only(
            start_ns: i64, id: i64, from_ms: i64, to_ms: i64, request: Vec<String>, other: String
        ) {
            let cursor = SearchCursor {
                after: SpanPosition { start_ns, id },
                window: TimeWindow { from_ms, to_ms },
            };
            let text = cursor.encode(&request).unwrap();
            prop_assert_eq!(SearchCursor::decode(&text, &request).unwrap(), cursor);
            let mut longer = request.clone();
            longer.push(other.clone());
            prop_assert!(SearchCursor::decode(&text, &longer).is_err());
            prop_assert!(SearchCursor::decode(&other, &request).is_err());
        }
    }

    #[test]
    fn cursors_of_earlier_versions_ask_to_start_again() {
        // A MessagePack cursor and a cursor of the control plane, as version 0.1.0 wrote them.
        for old in ["lgEBAgMEBQ", "YzEtNw"] {
            let refused = decode::<i64>(old, &[]).unwrap_err();
            assert!(refused.detail.contains("leave it out to start again"));
        }
    }
}
