//! The bodies of failed requests, in every shape that has been seen: `{"errors": ["text"]}`,
//! JSON:API error objects, both mixed, OAuth's `error` and `error_description`, `detail`,
//! `reason`, an error inside `data.attributes`, HTML of a proxy, and nothing at all.

use serde_json::Value;

use super::super::credential::Credential;
use super::super::{json, text};

/// Length of the upstream's words that are kept, in bytes.
const MAX_WORDS: usize = 2_048;

/// What a failed request's body says: one line, without secrets, at most 2 KiB.
pub(crate) fn upstream_words(body: &[u8], credential: &Credential) -> String {
    let words = match json::parse(body) {
        Ok(value) => {
            let mut found = Vec::new();
            collect(&value, &mut found);
            if found.is_empty() && !is_blank(&value) {
                value.to_string()
            } else {
                found.join("; ")
            }
        }
        Err(json::JsonError::Empty) => String::new(),
        Err(json::JsonError::Html) => html_words(&String::from_utf8_lossy(body)),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // Secrets go before anything is cut, or half of one could stay.
    text::cut(&text::clean(&credential.redact(&words)), MAX_WORDS)
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => push(found, text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_entry(item, found)),
        Value::Object(map) => {
            match map.get("errors") {
                Some(Value::Array(items)) => {
                    items.iter().for_each(|item| collect_entry(item, found));
                }
                Some(Value::Null) | None => {}
                Some(other) => collect_entry(other, found),
            }
            if let Some(error) = map.get("error") {
                collect_entry(error, found);
            }
            for key in ["error_description", "detail", "reason", "message", "title"] {
                if let Some(text) = map.get(key).and_then(Value::as_str) {
                    push(found, text.to_owned());
                }
            }
            if let Some(error) = value.pointer("/data/attributes/error") {
                collect_entry(error, found);
            }
        }
        _ => {}
    }
}

/// One entry of `errors`, or an `error`: text, or an object with any of the usual members.
fn collect_entry(entry: &Value, found: &mut Vec<String>) {
    match entry {
        Value::String(text) => push(found, text.clone()),
        Value::Object(map) => {
            let word = |key: &str| map.get(key).and_then(Value::as_str).map(str::trim);
            let parts: Vec<&str> = ["title", "detail", "message", "reason"]
                .into_iter()
                .filter_map(word)
                .filter(|word| !word.is_empty())
                .collect();
            let mut line = if parts.is_empty() {
                ["type", "code", "status"]
                    .into_iter()
                    .find_map(word)
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
            push(found, line);
        }
        _ => {}
    }
}

fn push(found: &mut Vec<String>, line: String) {
    if !line.trim().is_empty() && !found.contains(&line) {
        found.push(line);
    }
}

/// An HTML page is named by its title.
fn html_words(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower
        .find("<title")
        .and_then(|at| page.get(at..))
        .and_then(|rest| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split('<').next())
        .map(text::clean)
        .filter(|title| !title.is_empty());
    match title {
        Some(title) => format!("an HTML page titled \"{}\"", text::cut(&title, 200)),
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
    fn every_shape_is_read(#[case] body: &str, #[case] words: &str) {
        assert_eq!(upstream_words(body.as_bytes(), &Credential::None), words);
    }

    #[test]
    fn words_are_bounded_and_hold_no_secret() {
        let credential = Credential::from_parts(Some("alpha-key"), Some("beta-key"), None).unwrap();
        let body = format!(
            r#"{{"errors":["{} alpha-key bad, beta-\u006bey too"]}}"#,
            "x".repeat(2_030)
        );
        let words = upstream_words(body.as_bytes(), &credential);
        assert!(words.len() <= MAX_WORDS + 4, "{}", words.len());
        assert!(!words.contains("alpha") && !words.contains("beta"));
    }
}
