//! CSV as RFC 4180 has it, read with forgiveness for line ends.

/// The columns of an upload and an export.
pub(super) const COLUMNS: [&str; 5] = ["id", "input", "expected_output", "metadata", "tags"];

/// Writes rows; a cell is quoted where it has to be.
pub(super) fn write(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Reads rows, or says at which row a quote never ends. Empty lines are left out.
pub(super) fn read(text: &str) -> Result<Vec<Vec<String>>, usize> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut inside = false;
    let mut quoted = false;
    let mut chars = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .chars()
        .peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if inside => inside = false,
            '"' if cell.is_empty() && !quoted => (inside, quoted) = (true, true),
            ',' if !inside => {
                row.push(std::mem::take(&mut cell));
                quoted = false;
            }
            '\r' if !inside && chars.peek() == Some(&'\n') => {}
            '\n' | '\r' if !inside => {
                end_row(&mut rows, &mut row, &mut cell, quoted);
                quoted = false;
            }
            other => cell.push(other),
        }
    }
    if inside {
        return Err(rows.len() + 1);
    }
    end_row(&mut rows, &mut row, &mut cell, quoted);
    Ok(rows)
}

fn end_row(rows: &mut Vec<Vec<String>>, row: &mut Vec<String>, cell: &mut String, quoted: bool) {
    if row.is_empty() && cell.is_empty() && !quoted {
        return;
    }
    row.push(std::mem::take(cell));
    rows.push(std::mem::take(row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_commas_and_line_ends_are_read() {
        let rows = read("a,b\r\n\"x \"\"y\"\", z\",\"l1\nl2\"\n\n,\"\"\n").unwrap();
        assert_eq!(
            rows,
            [vec!["a", "b"], vec!["x \"y\", z", "l1\nl2"], vec!["", ""]]
        );
        assert_eq!(read("a\n\"b"), Err(2));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in prop::collection::vec(prop::collection::vec("[ -~\r\n\"ü]{0,6}", 2..4), 0..5)) {
            prop_assert_eq!(read(&write(&rows)).unwrap(), rows);
        }
    }
}
