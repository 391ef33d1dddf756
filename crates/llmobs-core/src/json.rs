//! The size of a value's JSON, measured without building the text.

use std::io;

use serde::Serialize;

/// Counts the bytes and characters of the UTF-8 text written to it, and drops the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextCounter {
    /// Bytes written.
    pub bytes: usize,
    /// Characters (Unicode scalar values) written.
    pub chars: usize,
}

impl io::Write for TextCounter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.bytes += text.len();
        // Every byte except the continuation bytes 0b10xx_xxxx starts a character.
        self.chars += text.iter().filter(|byte| *byte & 0xc0 != 0x80).count();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of a value's compact JSON; 0 when the value has no JSON form.
pub fn json_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    measure(value).bytes
}

/// The characters of a value's compact JSON; 0 when the value has no JSON form.
pub fn json_chars<T: Serialize + ?Sized>(value: &T) -> usize {
    measure(value).chars
}

/// Whether a value's compact JSON is longer than `max` bytes. Stops at the first byte beyond it.
pub fn json_exceeds<T: Serialize + ?Sized>(value: &T, max: usize) -> bool {
    serde_json::to_writer(ByteAllowance(max), value).is_err()
}

/// Accepts a number of bytes and fails at the next one.
struct ByteAllowance(usize);

impl io::Write for ByteAllowance {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(text.len());
        self.0 = left.ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn measure<T: Serialize + ?Sized>(value: &T) -> TextCounter {
    let mut counter = TextCounter::default();
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter,
        Err(_) => TextCounter::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn value_without_json_form_has_size_zero() {
        let keys_are_no_text = std::collections::BTreeMap::from([(vec![1], 2)]);
        assert_eq!(json_bytes(&keys_are_no_text), 0);
    }

    proptest! {
        #[test]
        fn sizes_equal_those_of_the_written_text(texts in prop::collection::vec(any::<String>(), 0..5)) {
            let value: Value = json!({"texts": texts, "count": texts.len()});
            let written = value.to_string();
            prop_assert_eq!(json_bytes(&value), written.len());
            prop_assert_eq!(json_chars(&value), written.chars().count());
            prop_assert!(!json_exceeds(&value, written.len()));
            prop_assert!(json_exceeds(&value, written.len() - 1));
        }
    }
}
