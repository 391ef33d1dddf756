//! Upload of records as a CSV file in a multipart form.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header;
use serde_json::{Map, Value, json};

use super::call::{Call, CallBody, Reply};
use super::record_csv;
use super::records::{RecordChanges, apply_and_respond};
use crate::Backend;
use crate::http::ApiError;

/// Creates a new version with the records of the file. A record with an existing id is replaced.
pub(super) fn upload(backend: &Backend, call: &Call) -> Result<Reply, ApiError> {
    let CallBody::Bytes(body) = &call.body else {
        return Err(ApiError::bad_request(
            "the body must be a multipart/form-data form with a CSV file in the field `file`",
        ));
    };
    let file = read_file(body, &call.content_type).ok_or_else(|| {
        ApiError::bad_request("the multipart form has no field `file` that can be read")
    })?;
    let text = std::str::from_utf8(&file)
        .map_err(|_| ApiError::bad_request("the CSV file is not valid UTF-8"))?;
    let tags = call.query_values("tags").flat_map(|tags| tags.split(','));
    let changes = RecordChanges {
        insert: records_of(text)?,
        deduplicate: call.query_flag("deduplicate")?.unwrap_or(true),
        new_version: true,
        tags: tags.map(|tag| tag.trim().to_owned()).collect(),
        ..RecordChanges::default()
    };
    apply_and_respond(backend, call, &changes)
}

/// The content of the field `file`, or of the first field that is a file.
///
/// The body is in memory, so reading the form never waits.
fn read_file(body: &Bytes, content_type: &str) -> Option<Bytes> {
    let mut request = Request::builder()
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from(body.clone()))
        .ok()?;
    // The limits of the intake apply to the body.
    DefaultBodyLimit::disable().apply(&mut request);
    let file = async {
        let mut form = Multipart::from_request(request, &()).await.ok()?;
        while let Some(field) = form.next_field().await.ok()? {
            if field.name() == Some("file") || field.file_name().is_some() {
                return field.bytes().await.ok();
            }
        }
        None
    };
    file.now_or_never().flatten()
}

/// The records of a CSV file. A cell with valid JSON becomes its value, any other cell is text.
fn records_of(text: &str) -> Result<Vec<Map<String, Value>>, ApiError> {
    let rows = record_csv::read(text).map_err(|row| {
        ApiError::bad_request(format!(
            "invalid CSV file: row {row} has a quote without an end"
        ))
    })?;
    let mut rows = rows.into_iter();
    let header = rows.next().unwrap_or_default();
    let column = |name: &str| header.iter().position(|cell| cell.trim() == name);
    let Some(input) = column("input") else {
        return Err(ApiError::bad_request(
            "the first row of the CSV file must name the column `input`; id, expected_output, metadata and tags are optional",
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
            // The SDK writes `""` for missing metadata.
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
    fn finds_file_among_other_fields() {
        let body = Bytes::from_static(b"--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\nContent-Type: text/csv\r\n\r\ninput\r\n1\r\n\r\n--b--\r\n");
        let file = read_file(&body, "multipart/form-data; boundary=\"b\"").unwrap();
        assert_eq!(&file[..], b"input\r\n1\r\n");
        let empty = Bytes::from_static(b"--b--");
        assert_eq!(read_file(&empty, "multipart/form-data; boundary=b"), None);
        assert_eq!(read_file(&Bytes::new(), "multipart/form-data"), None);
    }

    #[test]
    fn parses_json_cells() {
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
