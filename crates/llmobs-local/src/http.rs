//! What all routes share: errors in Datadog's shape, and bodies read within bounds.
//!
//! A body is bounded twice: as it arrives, and as it decompresses, because a small body can
//! decompress to any size. Nesting is bounded too: what is taken in must be readable again, by us
//! and by others whose parsers stop at 128 levels.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::store::{CursorError, StoreError};

/// Bounds of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Most bytes on the wire. Default 64 MiB: more than a real Agent takes.
    pub wire: usize,
    /// Most bytes once decompressed. Default 128 MiB.
    pub decoded: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            wire: 64 << 20,
            decoded: 128 << 20,
        }
    }
}

/// Deepest nesting of a body that is taken in.
pub(super) const MAX_DEPTH: usize = 100;

/// A refusal in the shape that Datadog's API gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) detail: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// Tells the caller when to come again, if that helps.
    pub(super) fn add_retry_after(&self, headers: &mut HeaderMap) {
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"errors": [{"title": "Generic Error", "detail": self.detail}]});
        let mut answer = json_api(self.status, &body);
        self.add_retry_after(answer.headers_mut());
        answer
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::NotWritable(_) | StoreError::Unavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            StoreError::Damaged { .. } | StoreError::Newer { .. } | StoreError::Folder(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<CursorError> for ApiError {
    fn from(error: CursorError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// A JSON answer under JSON:API's content type.
pub(super) fn json_api(status: StatusCode, body: &Value) -> Response {
    json_bytes(status, body.to_string().into_bytes())
}

/// The same for JSON that is written already.
pub(super) fn json_bytes(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/vnd.api+json");
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// A plain JSON answer, as the Agent and the private endpoints give it.
pub(super) fn json_plain(status: StatusCode, body: &Value) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    let body = body.to_string();
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// Runs what blocks (parsing, the store) where blocking is fine.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request could not be worked on because of a fault in llmobs-mcp; please report it",
        )),
    }
}

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A question or a setting: small, so that many at once are still little.
const QUESTION: BodyLimits = BodyLimits {
    wire: 1 << 20,
    decoded: 1 << 20,
};

/// Reads the body of a question, which is JSON.
pub(super) async fn read_question(body: Body) -> Result<Value, ApiError> {
    parse_json(&read_body(body, QUESTION).await?)
}

/// Reads a whole body as it is on the wire.
pub(super) async fn read_body(body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    read_body_counted(body, limits, |_| Ok(())).await
}

/// The same, asking `may` before each part whether so many bytes more may be kept.
pub(super) async fn read_body_counted(
    body: Body,
    limits: BodyLimits,
    mut may: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let mut body = Limited::new(body, limits.wire);
    let mut parts = Vec::new();
    let arrive = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let Ok(part) = frame.into_data() else {
                        continue;
                    };
                    may(part.len())?;
                    parts.push(part);
                }
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(too_large(limits.wire, ""));
                }
                Err(_) => {
                    return Err(ApiError::bad_request(
                        "the request body ended before it was complete; send it again",
                    ));
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_TIMEOUT, arrive).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request body did not arrive in time; send it again",
        )),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Ok(match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => Bytes::from(parts.concat()),
        }),
    }
}

/// Most bytes read to nowhere, and how long that may take.
const DRAINED: (usize, Duration) = (16 << 20, Duration::from_secs(10));

/// Reads a body to nowhere, so that the connection can be used again.
pub(super) async fn drain(body: Body) {
    let mut body = Limited::new(body, DRAINED.0);
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    if tokio::time::timeout(DRAINED.1, all).await.is_err() {
        tracing::debug!("a request body that nobody wants did not end in time");
    }
}

fn too_large(limit: usize, once: &str) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "the request body is larger than {limit} bytes{once}; send fewer items per request"
        ),
    )
}

/// Undoes the `Content-Encoding`.
pub(super) fn decompress(
    headers: &HeaderMap,
    body: Bytes,
    limits: BodyLimits,
) -> Result<Bytes, ApiError> {
    let encoding = headers
        .get(header::CONTENT_ENCODING)
        .map_or(Ok("identity"), HeaderValue::to_str)
        .unwrap_or("unreadable")
        .trim()
        .to_ascii_lowercase();
    let mut decoded = Vec::new();
    let most = limits.decoded as u64 + 1;
    let read = match encoding.as_str() {
        "" | "identity" => return Ok(body),
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(body.as_ref())
            .take(most)
            .read_to_end(&mut decoded),
        "deflate" => flate2::read::ZlibDecoder::new(body.as_ref())
            .take(most)
            .read_to_end(&mut decoded),
        "zstd" => zstd::stream::read::Decoder::new(body.as_ref())
            .and_then(|decoder| decoder.take(most).read_to_end(&mut decoded)),
        _ => {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the Content-Encoding is not known; use gzip, deflate, zstd or none",
            ));
        }
    };
    match read {
        Ok(size) if size > limits.decoded => Err(too_large(limits.decoded, " once decompressed")),
        Ok(_) => Ok(Bytes::from(decoded)),
        Err(_) => Err(ApiError::bad_request(format!(
            "the request body is not valid {encoding}"
        ))),
    }
}

/// Parses JSON. serde_json's own depth limit keeps the parser and the drop from overflowing.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    parse_json_within(body, MAX_DEPTH)
}

/// The same, nested no deeper than so many levels.
pub(super) fn parse_json_within(body: &[u8], most: usize) -> Result<Value, ApiError> {
    super::values::check_json(body)?;
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the request body is not valid JSON: {error}"))
    })?;
    if depth(&value) > most {
        return Err(ApiError::bad_request(format!(
            "the request body is nested deeper than {most} levels"
        )));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::io::Write as _;

    fn encoded(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let limits = BodyLimits {
            wire: 1 << 20,
            decoded: 1 << 20,
        };
        let bomb = vec![0u8; 5 << 20];
        let zstd = Bytes::from(zstd::encode_all(bomb.as_slice(), 3).unwrap());
        for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd)] {
            let refused = decompress(&encoded(encoding), body, limits).unwrap_err();
            assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
        let fits = decompress(&encoded("GZIP"), gzip(b"[]"), limits);
        assert_eq!(fits, Ok(Bytes::from_static(b"[]")));
    }

    #[rstest]
    #[case::nesting("[".repeat(10_000) + &"]".repeat(10_000))]
    #[case::objects("{\"a\":".repeat(10_000))]
    #[case::not_a_number("{\"a\":NaN}".to_owned())]
    #[case::cut("{\"a\":".to_owned())]
    #[case::empty(String::new())]
    #[case::nested_just_too_deep("[".repeat(101) + &"]".repeat(101))]
    fn what_is_not_json_is_a_clear_400(#[case] body: String) {
        let refused = parse_json(body.as_bytes()).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.detail.contains("the request body is n"));
    }

    #[test]
    fn invalid_utf_8_is_a_clear_400() {
        let refused = parse_json(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }

    #[rstest]
    #[case(StoreError::Full, 507)]
    #[case(StoreError::NotWritable("read only".into()), 503)]
    #[case(StoreError::Unavailable("busy".into()), 503)]
    #[case(StoreError::Newer { found: 2, known: 1 }, 500)]
    fn what_the_store_refuses_is_the_servers_fault(#[case] error: StoreError, #[case] status: u16) {
        assert_eq!(ApiError::from(error).status.as_u16(), status);
    }

    #[test]
    fn an_unknown_encoding_or_broken_gzip_is_refused() {
        let limits = BodyLimits::default();
        let body = Bytes::from_static(b"[]");
        let refused = decompress(&encoded("br"), body.clone(), limits).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let refused = decompress(&encoded("gzip"), body, limits).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}
