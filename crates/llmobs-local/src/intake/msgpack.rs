//! Converts MessagePack to the JSON tree that all dialects are mapped from.
//!
//! JSON cannot hold some values: NaN and infinities become their names, bytes become
//! `{"$base64": …}`.

use rmpv::ValueRef;
use serde_json::{Map, Value};

use super::json_value::{from_bytes, from_float};
use crate::http::{ApiError, MAX_DEPTH};

/// Parses a body of exactly one MessagePack value.
pub(super) fn parse(mut body: &[u8]) -> Result<ValueRef<'_>, ApiError> {
    let value = rmpv::decode::read_value_ref_with_max_depth(&mut body, MAX_DEPTH)
        .map_err(|error| not_msgpack(&error.to_string()))?;
    if !body.is_empty() {
        return Err(not_msgpack("more bytes follow the value"));
    }
    Ok(value)
}

fn not_msgpack(reason: &str) -> ApiError {
    ApiError::bad_request(format!("the request body is not valid msgpack: {reason}"))
}

/// Converts a value to JSON.
pub(super) fn to_json(value: &ValueRef<'_>) -> Result<Value, ApiError> {
    Ok(match value {
        ValueRef::Nil => Value::Null,
        ValueRef::Boolean(flag) => Value::Bool(*flag),
        ValueRef::Integer(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (_, Some(number)) => Value::from(number),
            (None, None) => Value::Null,
        },
        ValueRef::F32(number) => from_float(f64::from(*number)),
        ValueRef::F64(number) => from_float(*number),
        ValueRef::String(text) => Value::from(valid_utf8(text)?),
        ValueRef::Binary(bytes) | ValueRef::Ext(_, bytes) => from_bytes(bytes),
        ValueRef::Array(items) => {
            Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?)
        }
        ValueRef::Map(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, value) in entries {
                map.insert(key_to_text(key)?, to_json(value)?);
            }
            Value::Object(map)
        }
    })
}

/// The text of a map key; keys of other types become JSON text.
pub(super) fn key_to_text(key: &ValueRef<'_>) -> Result<String, ApiError> {
    match key {
        ValueRef::String(text) => Ok(valid_utf8(text)?.to_owned()),
        ValueRef::Binary(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => Ok(to_json(other)?.to_string()),
    }
}

fn valid_utf8<'a>(text: &rmpv::Utf8StringRef<'a>) -> Result<&'a str, ApiError> {
    text.into_str()
        .ok_or_else(|| not_msgpack("a string is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse_to_json(bytes: &[u8]) -> Result<Value, ApiError> {
        to_json(&parse(bytes)?)
    }

    #[test]
    fn integers_stay_exact_and_nan_becomes_text() {
        let mut body = vec![0x94, 0xcf];
        body.extend(u64::MAX.to_be_bytes());
        body.push(0xd3);
        body.extend(i64::MIN.to_be_bytes());
        body.push(0xcb);
        body.extend(f64::NAN.to_be_bytes());
        body.extend([0xc4, 2, 0xff, 0x00]);
        assert_eq!(
            parse_to_json(&body),
            Ok(json!([u64::MAX, i64::MIN, "NaN", {"$base64": "/wA="}]))
        );
    }

    #[test]
    fn refuses_deep_truncated_and_trailing_bodies() {
        assert!(parse_to_json(&[0x91; 10_000]).is_err());
        assert!(parse_to_json(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(parse_to_json(&[0xc0, 0xc0]).is_err());
        assert!(parse_to_json(&[0xa1, 0xff]).is_err());
        assert!(parse_to_json(&[]).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = parse_to_json(&bytes);
        }
    }
}
