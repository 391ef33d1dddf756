//! MessagePack as the JSON tree that all dialects are mapped from.
//!
//! What JSON cannot hold is kept as text: a number that is not finite under its name, bytes as
//! `{"$base64": …}`.

use base64::Engine as _;
use rmpv::ValueRef;
use serde_json::{Map, Number, Value};

use crate::http::{ApiError, MAX_DEPTH};

/// Reads one MessagePack value that fills the body.
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

/// The value as JSON.
pub(super) fn to_json(value: &ValueRef<'_>) -> Result<Value, ApiError> {
    Ok(match value {
        ValueRef::Nil => Value::Null,
        ValueRef::Boolean(flag) => Value::Bool(*flag),
        ValueRef::Integer(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (_, Some(number)) => Value::from(number),
            (None, None) => Value::Null,
        },
        ValueRef::F32(number) => float(f64::from(*number)),
        ValueRef::F64(number) => float(*number),
        ValueRef::String(text) => Value::from(text_of(text)?),
        ValueRef::Binary(bytes) | ValueRef::Ext(_, bytes) => binary(bytes),
        ValueRef::Array(items) => {
            Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?)
        }
        ValueRef::Map(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, value) in entries {
                map.insert(key_of(key)?, to_json(value)?);
            }
            Value::Object(map)
        }
    })
}

/// The text of a map key; keys of other types are written as JSON.
pub(super) fn key_of(key: &ValueRef<'_>) -> Result<String, ApiError> {
    match key {
        ValueRef::String(text) => Ok(text_of(text)?.to_owned()),
        ValueRef::Binary(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => Ok(to_json(other)?.to_string()),
    }
}

fn text_of<'a>(text: &rmpv::Utf8StringRef<'a>) -> Result<&'a str, ApiError> {
    text.into_str()
        .ok_or_else(|| not_msgpack("a string is not valid UTF-8"))
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}

/// Bytes as JSON.
pub(super) fn binary(bytes: &[u8]) -> Value {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Value::Object(Map::from_iter([("$base64".to_owned(), Value::from(text))]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn json_of(bytes: &[u8]) -> Result<Value, ApiError> {
        to_json(&parse(bytes)?)
    }

    #[test]
    fn numbers_stay_exact_and_what_json_cannot_hold_is_kept_as_text() {
        let mut body = vec![0x94, 0xcf];
        body.extend(u64::MAX.to_be_bytes());
        body.push(0xd3);
        body.extend(i64::MIN.to_be_bytes());
        body.push(0xcb);
        body.extend(f64::NAN.to_be_bytes());
        body.extend([0xc4, 2, 0xff, 0x00]);
        assert_eq!(
            json_of(&body),
            Ok(json!([u64::MAX, i64::MIN, "NaN", {"$base64": "/wA="}]))
        );
    }

    #[test]
    fn deep_or_cut_or_trailing_bodies_are_refused() {
        assert!(json_of(&[0x91; 10_000]).is_err());
        assert!(json_of(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(json_of(&[0xc0, 0xc0]).is_err());
        assert!(json_of(&[0xa1, 0xff]).is_err());
        assert!(json_of(&[]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = json_of(&bytes);
        }
    }
}
