//! Counts the values of a body before it is parsed.
//!
//! A value of one byte takes 70 bytes in memory once parsed. With a limit on bytes alone, a small
//! compressed body could exhaust the memory.

use http::StatusCode;

use crate::response::ApiError;

/// Most values in one body: far more than an SDK sends, at worst a few hundred megabytes in memory.
pub(super) const MAX_VALUES: usize = 4_000_000;

pub(super) fn too_many_values() -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "the request body contains more than {MAX_VALUES} values; send fewer items per request"
        ),
    )
}

/// Refuses JSON text with too many values. Invalid JSON is left to the parser.
pub(super) fn check_json(body: &[u8]) -> Result<(), ApiError> {
    if body.len() < MAX_VALUES {
        return Ok(());
    }
    let (mut values, mut in_text, mut escaped) = (1_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    if values > MAX_VALUES {
        return Err(too_many_values());
    }
    Ok(())
}

/// Refuses MessagePack with too many values. Invalid MessagePack is left to the parser.
pub(super) fn check_msgpack(body: &[u8]) -> Result<(), ApiError> {
    if body.len() < MAX_VALUES {
        return Ok(());
    }
    let (mut rest, mut values) = (body, 0_usize);
    while let Some((marker, after)) = rest.split_first() {
        values += 1;
        if values > MAX_VALUES {
            return Err(too_many_values());
        }
        rest = after.get(payload_len(*marker, after)..).unwrap_or_default();
    }
    Ok(())
}

/// The number of bytes between a marker and the next one: the length field and the bytes that it
/// counts. Items of a list or map have markers of their own.
fn payload_len(marker: u8, after: &[u8]) -> usize {
    let sized = |field_len: usize, type_len: usize| {
        let bytes = after.get(..field_len).unwrap_or_default();
        let length = bytes
            .iter()
            .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        field_len.saturating_add(type_len).saturating_add(length)
    };
    match marker {
        0xa0..=0xbf => usize::from(marker & 0x1f),
        0xc4 | 0xd9 => sized(1, 0),
        0xc5 | 0xda => sized(2, 0),
        0xc6 | 0xdb => sized(4, 0),
        0xc7 => sized(1, 1),
        0xc8 => sized(2, 1),
        0xc9 => sized(4, 1),
        0xcc | 0xd0 => 1,
        0xcd | 0xd1 | 0xdc | 0xde | 0xd4 => 2,
        0xd5 => 3,
        0xca | 0xce | 0xd2 | 0xdd | 0xdf => 4,
        0xd6 => 5,
        0xcb | 0xcf | 0xd3 => 8,
        0xd7 => 9,
        0xd8 => 17,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ignores_commas_within_text() {
        let text = format!("[\"{}\\\"{}\"]", ",".repeat(MAX_VALUES), ",[{");
        assert_eq!(check_json(text.as_bytes()), Ok(()));
        let list = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert_eq!(check_json(list.as_bytes()), Err(too_many_values()));
    }

    #[test]
    fn counts_msgpack_text_once_and_items_of_lists() {
        let mut text = vec![0xdb];
        text.extend((MAX_VALUES as u32).to_be_bytes());
        text.extend(vec![0xc0; MAX_VALUES]);
        assert_eq!(check_msgpack(&text), Ok(()));
        assert_eq!(
            check_msgpack(&vec![0xc0; MAX_VALUES + 1]),
            Err(too_many_values())
        );
    }

    fn any_value() -> impl Strategy<Value = rmpv::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(rmpv::Value::from),
            any::<f64>().prop_map(rmpv::Value::from),
            any::<f32>().prop_map(rmpv::Value::from),
            ".{0,300}".prop_map(rmpv::Value::from),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(rmpv::Value::Binary),
            (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(kind, bytes)| rmpv::Value::Ext(kind, bytes)),
            Just(rmpv::Value::Nil),
        ];
        leaf.prop_recursive(3, 60, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(rmpv::Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..20).prop_map(rmpv::Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn markers_cover_the_body_exactly(value in any_value()) {
            let mut body = Vec::new();
            rmpv::encode::write_value(&mut body, &value).unwrap();
            let mut rest = body.as_slice();
            while let Some((marker, after)) = rest.split_first() {
                let length = payload_len(*marker, after);
                prop_assert!(length <= after.len());
                rest = &after[length..];
            }
        }
    }
}
