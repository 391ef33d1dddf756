//! Reads request bodies within limits.
//!
//! The size is limited twice: as received and as decompressed, because a small body can decompress
//! to any size. Nesting is limited too, so that stored data stays readable for parsers that stop at
//! 128 levels.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

pub(super) use super::response::{ApiError, json_api, json_api_bytes, json_plain};

/// Limits of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum size as received, in bytes. Default 64 MiB: more than a real Agent accepts.
    pub max_encoded_bytes: usize,
    /// Maximum size after decompression, in bytes. Default 128 MiB.
    pub max_decoded_bytes: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max_encoded_bytes: 64 << 20,
            max_decoded_bytes: 128 << 20,
        }
    }
}

/// Deepest nesting of an accepted body.
pub(super) const MAX_DEPTH: usize = 100;

/// Runs blocking work, such as parsing and store access, on a blocking thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed because of a bug in llmobs-mcp; please report it",
        )),
    }
}

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of the body of a read request or a configuration change.
const SMALL_BODY: BodyLimits = BodyLimits {
    max_encoded_bytes: 1 << 20,
    max_decoded_bytes: 1 << 20,
};

/// Reads a small JSON body.
pub(super) async fn read_small_json(body: Body) -> Result<Value, ApiError> {
    parse_json(&read_body(body, SMALL_BODY).await?)
}

/// Reads a complete body, without decompression.
pub(super) async fn read_body(body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    read_body_charged(body, limits, |_| Ok(())).await
}

/// Reads a complete body. Calls `charge` with the size of each frame before it is buffered.
pub(super) async fn read_body_charged(
    body: Body,
    limits: BodyLimits,
    mut charge: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let mut body = Limited::new(body, limits.max_encoded_bytes);
    let mut chunks = Vec::new();
    let receive = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    let Ok(chunk) = frame.into_data() else {
                        continue;
                    };
                    charge(chunk.len())?;
                    chunks.push(chunk);
                }
                Err(error) if error.is::<LengthLimitError>() => {
                    return Err(too_large(limits.max_encoded_bytes, ""));
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
    match tokio::time::timeout(BODY_TIMEOUT, receive).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request body did not arrive in time; send it again",
        )),
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) => Ok(match <[Bytes; 1]>::try_from(chunks) {
            Ok([only]) => only,
            Err(chunks) => Bytes::from(chunks.concat()),
        }),
    }
}

/// Maximum size of a body that is read and discarded, in bytes.
const MAX_DRAINED_BYTES: usize = 16 << 20;

/// How long a body is read and discarded.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and discards a body, so that the connection can be used again.
pub(super) async fn drain(body: Body) {
    let mut body = Limited::new(body, MAX_DRAINED_BYTES);
    let read_to_end = async { while let Some(Ok(_)) = body.frame().await {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, read_to_end)
        .await
        .is_err()
    {
        tracing::debug!("the body of a refused request did not end in time");
    }
}

fn too_large(limit: usize, after: &str) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "the request body is larger than {limit} bytes{after}; send fewer items per request"
        ),
    )
}

/// Decompresses a body as its `Content-Encoding` says.
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
    let max_bytes = limits.max_decoded_bytes;
    let read_limit = max_bytes as u64 + 1;
    let read = match encoding.as_str() {
        "" | "identity" => return Ok(body),
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(body.as_ref())
            .take(read_limit)
            .read_to_end(&mut decoded),
        "deflate" => flate2::read::ZlibDecoder::new(body.as_ref())
            .take(read_limit)
            .read_to_end(&mut decoded),
        "zstd" => zstd::stream::read::Decoder::new(body.as_ref())
            .and_then(|decoder| decoder.take(read_limit).read_to_end(&mut decoded)),
        _ => {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported Content-Encoding; use gzip, deflate, zstd or none",
            ));
        }
    };
    match read {
        Ok(size) if size > max_bytes => Err(too_large(max_bytes, " after decompression")),
        Ok(_) => Ok(Bytes::from(decoded)),
        Err(_) => Err(ApiError::bad_request(format!(
            "the request body is not valid {encoding}"
        ))),
    }
}

/// Parses JSON. The depth limit of serde_json keeps the parser and the drop from overflowing the
/// stack.
pub(super) fn parse_json(body: &[u8]) -> Result<Value, ApiError> {
    parse_json_within(body, MAX_DEPTH)
}

/// Parses JSON with at most `max_depth` levels.
pub(super) fn parse_json_within(body: &[u8], max_depth: usize) -> Result<Value, ApiError> {
    super::values::check_json(body)?;
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the request body is not valid JSON: {error}"))
    })?;
    if depth(&value) > max_depth {
        return Err(ApiError::bad_request(format!(
            "the request body is nested deeper than {max_depth} levels"
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
    fn stops_decompression_at_limit() {
        let limits = BodyLimits {
            max_encoded_bytes: 1 << 20,
            max_decoded_bytes: 1 << 20,
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
    #[case::one_level_too_deep("[".repeat(101) + &"]".repeat(101))]
    fn invalid_json_is_bad_request(#[case] body: String) {
        let refused = parse_json(body.as_bytes()).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.detail.contains("the request body is n"));
    }

    #[test]
    fn invalid_utf_8_is_bad_request() {
        let refused = parse_json(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn refuses_unknown_encoding_and_invalid_gzip() {
        let limits = BodyLimits::default();
        let body = Bytes::from_static(b"[]");
        let refused = decompress(&encoded("br"), body.clone(), limits).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let refused = decompress(&encoded("gzip"), body, limits).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}
