//! Parameters of a query or a form.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt as _, Limited};

use super::answer::OauthError;

/// The largest query or form in bytes.
pub(super) const MOST_BYTES: usize = 8 * 1024;

/// Named values. A name that comes twice is refused: whose value would count?
pub(super) struct Form(HashMap<String, String>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// Too long, or a name that comes twice.
    pub(super) fn read(text: &[u8]) -> Result<Self, OauthError> {
        if text.len() > MOST_BYTES {
            return Err(OauthError::invalid_request("the parameters are too long"));
        }
        let mut values = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if values
                .insert(name.into_owned(), value.into_owned())
                .is_some()
            {
                return Err(OauthError::invalid_request("a parameter was given twice"));
            }
        }
        Ok(Self(values))
    }

    /// Reads the form in a request's body. Any other kind of body is refused: a form is what a
    /// browser can be made to send, and the checks here are made for that.
    ///
    /// # Errors
    /// Another content type, too long, or a name that comes twice.
    pub(super) async fn of(request: Request) -> Result<Self, OauthError> {
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| {
                kind.trim()
                    .eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
        if !is_form {
            return Err(OauthError::invalid_request(
                "the body must be application/x-www-form-urlencoded",
            ));
        }
        Self::read(&body_of(request.into_body()).await?)
    }

    /// A value; an empty one is absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// A value that must be there.
    pub(super) fn need(&self, name: &'static str) -> Result<&str, OauthError> {
        self.get(name)
            .ok_or_else(|| OauthError::invalid_request(format!("{name} is missing")))
    }
}

/// A small body, whole.
pub(super) async fn body_of(body: Body) -> Result<Bytes, OauthError> {
    match Limited::new(body, MOST_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(OauthError::invalid_request(
            "the body is too long, or broke off",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_empty_is_absent_and_one_that_comes_twice_refused() {
        let form = Form::read(b"a=1&b=&c=%26x").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), None);
        assert_eq!(form.get("c"), Some("&x"));
        assert_eq!(form.need("b").unwrap_err().words, "b is missing");
        assert!(Form::read(b"a=1&a=1").is_err());
        assert!(Form::read(&vec![b'a'; MOST_BYTES + 1]).is_err());
    }

    #[tokio::test]
    async fn only_a_form_is_read_and_only_a_short_one() {
        let request = |kind: &str, body: Vec<u8>| {
            Request::post("/")
                .header("content-type", kind)
                .body(Body::from(body))
                .unwrap()
        };
        let form = "application/x-www-form-urlencoded; charset=UTF-8";
        let read = Form::of(request(form, b"a=1".to_vec())).await.unwrap();
        assert_eq!(read.get("a"), Some("1"));
        assert!(
            Form::of(request("text/plain", b"a=1".to_vec()))
                .await
                .is_err()
        );
        let long = vec![b'a'; MOST_BYTES + 1];
        assert!(Form::of(request(form, long)).await.is_err());
    }
}
