//! Messages from the bodies of error responses.
//!
//! Bodies occur in many formats: `{"errors": ["text"]}`, JSON:API error objects, both mixed, OAuth's
//! `error` and `error_description`, `detail`, `reason`, an error inside `data.attributes`, the HTML
//! page of a proxy, and an empty body.

use serde_json::Value;

use super::super::credential::Credential;
use super::super::{json, text};

/// The maximum length of a message in bytes.
const MAX_MESSAGE_BYTES: usize = 2_048;

/// The message of an error body: one line, without secrets, at most 2 KiB.
pub(crate) fn upstream_message(body: &[u8], credential: &Credential) -> String {
    let message = match json::parse(body) {
        Ok(value) => {
            let mut messages = Vec::new();
            collect_messages(&value, &mut messages);
            if messages.is_empty() && !is_blank(&value) {
                value.to_string()
            } else {
                messages.join("; ")
            }
        }
        Err(json::JsonError::Empty) => String::new(),
        Err(json::JsonError::Html) => html_message(&String::from_utf8_lossy(body)),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // Redacts before it truncates, so that no part of a secret remains.
    text::truncate(
        &text::clean(&credential.redact(&message)),
        MAX_MESSAGE_BYTES,
    )
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn collect_messages(value: &Value, messages: &mut Vec<String>) {
    match value {
        Value::String(text) => push_new(messages, text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_entry(item, messages)),
        Value::Object(map) => {
            match map.get("errors") {
                Some(Value::Array(items)) => {
                    items.iter().for_each(|item| collect_entry(item, messages));
                }
                Some(Value::Null) | None => {}
                Some(other) => collect_entry(other, messages),
            }
            if let Some(error) = map.get("error") {
                collect_entry(error, messages);
            }
            for key in ["error_description", "detail", "reason", "message", "title"] {
                if let Some(text) = map.get(key).and_then(Value::as_str) {
                    push_new(messages, text.to_owned());
                }
            }
            if let Some(error) = value.pointer("/data/attributes/error") {
                collect_entry(error, messages);
            }
        }
        _ => {}
    }
}

/// Collects from one entry of `errors`, or an `error`: text, or an object with the usual members.
fn collect_entry(entry: &Value, messages: &mut Vec<String>) {
    match entry {
        Value::String(text) => push_new(messages, text.clone()),
        Value::Object(map) => {
            let member = |key: &str| map.get(key).and_then(Value::as_str).map(str::trim);
            let parts: Vec<&str> = ["title", "detail", "message", "reason"]
                .into_iter()
                .filter_map(member)
                .filter(|text| !text.is_empty())
                .collect();
            let mut line = if parts.is_empty() {
                ["type", "code", "status"]
                    .into_iter()
                    .find_map(member)
                    .unwrap_or_default()
                    .to_owned()
            } else {
                parts.join(": ")
            };
            let source = entry
                .pointer("/source/pointer")
                .or_else(|| entry.pointer("/source/parameter"))
                .and_then(Value::as_str);
            if let Some(source) = source {
                line.push_str(&format!(" (at {source})"));
            }
            push_new(messages, line);
        }
        _ => {}
    }
}

fn push_new(messages: &mut Vec<String>, line: String) {
    if !line.trim().is_empty() && !messages.contains(&line) {
        messages.push(line);
    }
}

/// The title of an HTML page.
fn html_message(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower
        .find("<title")
        .and_then(|at| page.get(at..))
        .and_then(|rest| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split('<').next())
        .map(text::clean)
        .filter(|title| !title.is_empty());
    match title {
        Some(title) => format!("an HTML page titled \"{}\"", text::truncate(&title, 200)),
        None => "an HTML page".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"{"errors":["Forbidden","Forbidden"]}"#, "Forbidden")]
    #[case(
        r#"{"errors":[{"status":"400","title":"Bad Request","detail":"no such facet","source":{"pointer":"/data"}}, "and text", 7, null]}"#,
        "Bad Request: no such facet (at /data); and text"
    )]
    #[case(r#"{"errors":[{"status":"400"}]}"#, "400")]
    #[case(r#"{"errors":"plain"}"#, "plain")]
    #[case(
        r#"{"error":"invalid_grant","error_description":"expired"}"#,
        "invalid_grant; expired"
    )]
    #[case(r#"{"detail":"trace_id is required"}"#, "trace_id is required")]
    #[case(r#"{"reason":"not enabled"}"#, "not enabled")]
    #[case(
        r#"{"data":{"attributes":{"status":"failed","error":{"message":"model refused"}}}}"#,
        "model refused"
    )]
    #[case(r#"{"foo":1}"#, r#"{"foo":1}"#)]
    #[case("{}", "")]
    #[case("", "")]
    #[case("upstream connect error\u{1b}[0m\n", "upstream connect error [0m")]
    #[case(
        "<html><head><TITLE>502 Bad\nGateway</TITLE></head>",
        "an HTML page titled \"502 Bad Gateway\""
    )]
    #[case("<html>", "an HTML page")]
    #[case(r#"{"errors":["cut"#, r#"{"errors":["cut"#)]
    fn reads_every_format(#[case] body: &str, #[case] message: &str) {
        assert_eq!(
            upstream_message(body.as_bytes(), &Credential::None),
            message
        );
    }

    #[test]
    fn message_is_bounded_and_redacted() {
        let credential = Credential::from_parts(Some("alpha-key"), Some("beta-key"), None).unwrap();
        let body = format!(
            r#"{{"errors":["{} alpha-key bad, beta-\u006bey too"]}}"#,
            "x".repeat(2_030)
        );
        let message = upstream_message(body.as_bytes(), &credential);
        assert!(message.len() <= MAX_MESSAGE_BYTES + 4, "{}", message.len());
        assert!(!message.contains("alpha") && !message.contains("beta"));
    }
}
