//! Identifiers. They are text: span ids are 64-bit decimals that JSON numbers would round, trace
//! ids 32 hexadecimal digits, and OpenTelemetry or hand-made data may use any other text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `parent_id` holds on a root span, everywhere on Datadog's wire.
pub const ROOT_PARENT: &str = "undefined";

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id exactly as it came.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// The LLM Observability trace id: 32 lower-case hexadecimal digits in SDK data. Not the APM
    /// trace id, which is drawn independently.
    TraceId
}

text_id! {
    /// A span id: the decimal text of 64 bits in SDK data. Unique within its trace only.
    SpanId
}

impl SpanId {
    /// Reads a wire `parent_id`: missing, empty, `0` and `undefined` all mean "no parent".
    pub fn parse_parent(text: Option<&str>) -> Option<Self> {
        match text.map(str::trim) {
            None | Some("" | "0") => None,
            Some(text) if text == ROOT_PARENT => None,
            Some(text) => Some(Self::from(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_no_parent_is_a_root() {
        for text in [None, Some(""), Some("0"), Some("undefined"), Some(" ")] {
            assert_eq!(SpanId::parse_parent(text), None, "{text:?}");
        }
        assert_eq!(SpanId::parse_parent(Some("17")), Some(SpanId::from("17")));
    }
}
