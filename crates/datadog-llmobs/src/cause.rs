//! The cause of an error, in a form that can be cloned and compared.
//!
//! Several callers share the result of one load, so errors must be `Clone`, but errors of I/O and
//! HTTP libraries are not.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why something failed: a message, and the library error behind it where there is one.
///
/// Two causes are equal if their messages are.
#[derive(Clone)]
pub struct ErrorCause {
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ErrorCause {
    /// A cause with a message that describes `source`.
    pub(crate) fn with_message(
        message: String,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            message,
            source: Some(Arc::new(source)),
        }
    }

    /// A cause whose message is that of `source`.
    pub(crate) fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self::with_message(source.to_string(), source)
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for ErrorCause {
    /// Shows the message alone: a library error may quote a body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.message, f)
    }
}

impl Error for ErrorCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl PartialEq for ErrorCause {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for ErrorCause {}

impl From<&str> for ErrorCause {
    fn from(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            source: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_source_of_cause() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let cause = ErrorCause::with_message("refused".to_owned(), io);
        let source = cause.source().unwrap().downcast_ref::<std::io::Error>();
        assert_eq!(
            source.unwrap().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
        assert_eq!(cause, ErrorCause::from("refused"));
        assert!(ErrorCause::from("refused").source().is_none());
    }
}
