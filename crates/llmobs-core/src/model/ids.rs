//! Identifiers of traces and spans.
//!
//! They are text. Span ids are 64-bit decimals, which JSON numbers would round; trace ids are 32
//! hexadecimal digits; data from OpenTelemetry or from scripts may use any other text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of `parent_id` on a root span in every Datadog wire form.
pub const ROOT_PARENT: &str = "undefined";

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id exactly as sent.
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
    /// An LLM Observability trace id: 32 lower-case hexadecimal digits in SDK data. It differs
    /// from the APM trace id, which is generated independently.
    TraceId
}

text_id! {
    /// A span id: a decimal 64-bit number in SDK data. Unique within its trace only.
    SpanId
}

impl SpanId {
    /// Parses a `parent_id` from the wire: missing, empty, `0` and `undefined` mean "no parent".
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
    fn parse_parent_accepts_every_form_of_no_parent() {
        for text in [None, Some(""), Some("0"), Some("undefined"), Some(" ")] {
            assert_eq!(SpanId::parse_parent(text), None, "{text:?}");
        }
        assert_eq!(SpanId::parse_parent(Some("17")), Some(SpanId::from("17")));
    }
}
