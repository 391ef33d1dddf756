//! Records uploaded as a CSV file in a multipart form.

use serde_json::{Map, Value, json};

use super::call::{Body, Call, Reply};
use super::csv;
use super::records::{Changes, changed};
use crate::Backend;
use crate::http::ApiError;

/// The records of the file become a new version. A record whose id is known is replaced.
pub(super) fn upload(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let Body::Bytes(body) = &call.body else {
        return Err(ApiError::bad_request(
            "the body must be a multipart/form-data form with a CSV file in the field `file`",
        ));
    };
    let file = file_of(body, &call.content_type).ok_or_else(|| {
        ApiError::bad_request("the multipart form has no field `file` that can be read")
    })?;
    let text = std::str::from_utf8(file)
        .map_err(|_| ApiError::bad_request("the CSV file is not valid UTF-8"))?;
    let tags = call.asked_all("tags").flat_map(|tags| tags.split(','));
    let changes = Changes {
        insert: records_of(text)?,
        deduplicate: call.asked_flag("deduplicate")?.unwrap_or(true),
        new_version: true,
        tags: tags.map(|tag| tag.trim().to_owned()).collect(),
        ..Changes::default()
    };
    changed(backend, call, &changes)
}

/// The content of the field `file`, or of the only part that is a file.
fn file_of<'a>(body: &'a [u8], content_type: &str) -> Option<&'a [u8]> {
    let boundary = content_type
        .split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))?;
    let mark = format!("--{}", boundary.trim_matches('"'));
    let mut at = find(body, mark.as_bytes())? + mark.len();
    loop {
        let part = body.get(at..)?.strip_prefix(b"\r\n")?;
        let start = body.len() - part.len();
        let length = find(part, format!("\r\n{mark}").as_bytes())?;
        let part = part.get(..length)?;
        let head_end = find(part, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(part.get(..head_end)?).to_ascii_lowercase();
        if head.contains("name=\"file\"") || head.contains("filename=") {
            return part.get(head_end + 4..);
        }
        at = start + length + 2 + mark.len();
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

/// The records of a CSV file. A cell that is JSON is its value; other text is itself.
fn records_of(text: &str) -> Result<Vec<Map<String, Value>>, ApiError> {
    let rows = csv::read(text).map_err(|row| {
        ApiError::bad_request(format!(
            "the CSV file cannot be read: row {row} has a quote that never ends"
        ))
    })?;
    let mut rows = rows.into_iter();
    let header = rows.next().unwrap_or_default();
    let column = |name: &str| header.iter().position(|cell| cell.trim() == name);
    let Some(input) = column("input") else {
        return Err(ApiError::bad_request(
            "the CSV file needs a first row with the column `input`; id, expected_output, metadata and tags are optional",
        ));
    };
    let [id, expected, metadata, tags] = ["id", "expected_output", "metadata", "tags"].map(column);
    let mut records = Vec::new();
    for (number, row) in rows.enumerate() {
        let cell = |at: Option<usize>| {
            at.and_then(|at| row.get(at))
                .filter(|cell| !cell.is_empty())
        };
        let mut record = Map::new();
        let input = cell(Some(input)).map_or(json!(""), |cell| value_of(cell));
        record.insert("input".to_owned(), input);
        if let Some(cell) = cell(expected) {
            record.insert("expected_output".to_owned(), value_of(cell));
        }
        if let Some(cell) = cell(id) {
            record.insert("id".to_owned(), json!(cell));
        }
        match cell(metadata).map(|cell| value_of(cell)) {
            // The SDK writes `""` for a record without metadata.
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(metadata @ Value::Object(_)) => {
                record.insert("metadata".to_owned(), metadata);
            }
            Some(_) => {
                return Err(ApiError::bad_request(format!(
                    "row {} of the CSV file: `metadata` must be a JSON object",
                    number + 2
                )));
            }
        }
        if let Some(cell) = cell(tags) {
            let tags = match value_of(cell) {
                list @ Value::Array(_) => list,
                _ => cell.split(',').map(str::trim).collect(),
            };
            record.insert("tags".to_owned(), tags);
        }
        records.push(record);
    }
    Ok(records)
}

fn value_of(cell: &str) -> Value {
    serde_json::from_str(cell).unwrap_or_else(|_| json!(cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_among_other_parts() {
        let body = b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\nContent-Type: text/csv\r\n\r\ninput\r\n1\r\n\r\n--b--\r\n";
        let file = file_of(body, "multipart/form-data; boundary=\"b\"").unwrap();
        assert_eq!(file, b"input\r\n1\r\n");
        assert_eq!(file_of(b"--b--", "multipart/form-data; boundary=b"), None);
        assert_eq!(file_of(b"", "multipart/form-data"), None);
    }

    #[test]
    fn cells_are_json_where_they_are_json() {
        let text = "input,expected_output,metadata,id,tags\n\"{\"\"q\"\": 1}\",Paris,\"\"\"\"\"\",r1,\"a:1, b:2\"\n\"\"\"text\"\"\",,\"{\"\"k\"\": 1}\",r2,\"[\"\"c:3\"\"]\"\n";
        let records = records_of(text).unwrap();
        assert_eq!(
            json!(records),
            json!([
                {"input": {"q": 1}, "expected_output": "Paris", "id": "r1", "tags": ["a:1", "b:2"]},
                {"input": "text", "id": "r2", "metadata": {"k": 1}, "tags": ["c:3"]},
            ])
        );
        assert!(
            records_of("question\nx\n")
                .unwrap_err()
                .detail
                .contains("`input`")
        );
    }
}
