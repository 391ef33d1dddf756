//! CSV of dataset records, as RFC 4180 defines it. Any line ending is accepted.

use csv::{ReaderBuilder, Terminator, WriterBuilder};

/// The columns of an upload and an export.
pub(super) const COLUMNS: [&str; 5] = ["id", "input", "expected_output", "metadata", "tags"];

/// A last row, by which [`read`] detects a quote without an end.
const SENTINEL: &str = "end-of-file";

/// Writes rows, with quotes where they are required.
pub(super) fn write(rows: &[Vec<String>]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .flexible(true)
        .from_writer(Vec::new());
    for row in rows {
        writer.write_record(row)?;
    }
    let written = writer.into_inner();
    written.map_err(|error| csv::Error::from(error.into_error()))
}

/// Reads rows without empty lines. The error is the number of the row whose quote has no end.
pub(super) fn read(text: &str) -> Result<Vec<Vec<String>>, usize> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = format!("{text}\n{SENTINEL}");
    let mut rows: Vec<Vec<String>> = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
        .into_records()
        // Text is valid UTF-8 and rows may differ in length, so no record fails.
        .filter_map(Result::ok)
        .map(|record| record.iter().map(str::to_owned).collect())
        .collect();
    match rows.pop() {
        Some(last) if last == [SENTINEL] => Ok(rows),
        _ => Err(rows.len() + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_quotes_commas_and_line_endings() {
        let rows = read("a,b\r\n\"x \"\"y\"\", z\",\"l1\nl2\"\n\n,\"\"\n").unwrap();
        assert_eq!(
            rows,
            [vec!["a", "b"], vec!["x \"y\", z", "l1\nl2"], vec!["", ""]]
        );
        assert_eq!(read("a\n\"b"), Err(2));
        assert_eq!(read("\""), Err(1));
        assert_eq!(read("\u{feff}a\r\"\"").unwrap(), [["a"], [""]]);
    }

    proptest! {
        #[test]
        fn written_rows_are_read(rows in prop::collection::vec(prop::collection::vec("[ -~\r\n\"ü]{0,6}", 2..4), 0..5)) {
            let text = String::from_utf8(write(&rows).unwrap()).unwrap();
            prop_assert_eq!(read(&text).unwrap(), rows);
        }
    }
}
