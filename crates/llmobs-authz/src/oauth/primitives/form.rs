//! Parameters of a query string or an HTML form.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt as _, Limited};

use super::error::OauthError;

/// The maximum length of a query or a form in bytes.
pub const MAX_FORM_BYTES: usize = 8 * 1024;

/// Named values. A repeated name is refused, because it is ambiguous which value counts.
pub struct Form(HashMap<String, String>);

impl Form {
    /// Parses `application/x-www-form-urlencoded`.
    ///
    /// # Errors
    /// The text is too long, or a name is repeated.
    pub fn parse(text: &[u8]) -> Result<Self, OauthError> {
        if text.len() > MAX_FORM_BYTES {
            return Err(OauthError::invalid_request(
                "the parameters are longer than 8 KiB",
            ));
        }
        let mut values = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if values
                .insert(name.into_owned(), value.into_owned())
                .is_some()
            {
                return Err(OauthError::invalid_request("a parameter is repeated"));
            }
        }
        Ok(Self(values))
    }

    /// Parses the form in the body of a request.
    ///
    /// # Errors
    /// The content type is another one, the body is too long, or a name is repeated.
    pub async fn from_request(request: Request) -> Result<Self, OauthError> {
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
        Self::parse(&read_body(request.into_body()).await?)
    }

    /// The value of a parameter. An empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The value of a required parameter.
    ///
    /// # Errors
    /// The parameter is absent.
    pub fn require(&self, name: &'static str) -> Result<&str, OauthError> {
        self.get(name)
            .ok_or_else(|| OauthError::invalid_request(format!("{name} is missing")))
    }
}

/// Reads a body of at most [`MAX_FORM_BYTES`].
///
/// # Errors
/// The body is longer, or the connection failed.
pub async fn read_body(body: Body) -> Result<Bytes, OauthError> {
    match Limited::new(body, MAX_FORM_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(OauthError::invalid_request(
            "the body is longer than 8 KiB, or incomplete",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn treats_empty_values_as_absent_and_refuses_repeated_names() {
        let form = Form::parse(b"a=1&b=&c=%26x").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), None);
        assert_eq!(form.get("c"), Some("&x"));
        assert_eq!(form.require("b").unwrap_err().description, "b is missing");
        assert!(Form::parse(b"a=1&a=1").is_err());
        assert!(Form::parse(&vec![b'a'; MAX_FORM_BYTES + 1]).is_err());
    }

    #[tokio::test]
    async fn refuses_other_content_types_and_long_bodies() {
        let request = |kind: &str, body: Vec<u8>| {
            Request::post("/")
                .header("content-type", kind)
                .body(Body::from(body))
                .unwrap()
        };
        let form = "application/x-www-form-urlencoded; charset=UTF-8";
        let read = Form::from_request(request(form, b"a=1".to_vec()))
            .await
            .unwrap();
        assert_eq!(read.get("a"), Some("1"));
        assert!(
            Form::from_request(request("text/plain", b"a=1".to_vec()))
                .await
                .is_err()
        );
        let long = vec![b'a'; MAX_FORM_BYTES + 1];
        assert!(Form::from_request(request(form, long)).await.is_err());
    }
}
