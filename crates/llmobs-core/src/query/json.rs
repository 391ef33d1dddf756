//! Reading untrusted JSON: values at dotted paths, and plain text.
//!
//! Nothing here recurses: a hostile span may nest as deep as its size allows.

use serde_json::{Map, Value};

/// The values at a dotted path. Keys may contain dots, so `a.b` finds `{"a":{"b":…}}` and
/// `{"a.b":…}`. A path continues into every element of an array.
pub(super) fn values_at_path<'a>(map: &'a Map<String, Value>, path: &str) -> Vec<&'a Value> {
    let mut values = Vec::new();
    let mut stack = Vec::new();
    push_members(map, path, &mut stack);
    while let Some((value, rest)) = stack.pop() {
        match (value, rest) {
            (Value::Array(items), _) => stack.extend(items.iter().rev().map(|item| (item, rest))),
            (value, None) => values.push(value),
            (Value::Object(map), Some(rest)) => push_members(map, rest, &mut stack),
            _ => {}
        }
    }
    values
}

/// The values at a dotted path in any value; an empty path is the value itself.
pub(super) fn values_in<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut values = Vec::new();
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        match value {
            Value::Array(items) => stack.extend(items.iter().rev()),
            value if path.is_empty() => values.push(value),
            Value::Object(map) => values.extend(values_at_path(map, path)),
            _ => {}
        }
    }
    values
}

/// Pushes every member of `map` whose key is a prefix of `path`, with the rest of the path.
fn push_members<'a, 'p>(
    map: &'a Map<String, Value>,
    path: &'p str,
    stack: &mut Vec<(&'a Value, Option<&'p str>)>,
) {
    for (dot, _) in path.match_indices('.') {
        if let Some((key, rest)) = path.split_at_checked(dot)
            && let Some(value) = map.get(key)
        {
            stack.push((value, rest.strip_prefix('.')));
        }
    }
    if let Some(value) = map.get(path) {
        stack.push((value, None));
    }
}

/// The keys and values of a JSON value in their order, separated by spaces, up to about
/// `max_chars` characters. Serialized JSON is not used because its escapes (`\n`, `\u00e9`) would
/// count as words.
pub(super) fn plain_text(value: &Value, max_chars: usize) -> String {
    enum TextPart<'a> {
        Key(&'a str),
        Value(&'a Value),
    }
    let mut text = String::new();
    let mut length = 0;
    let mut stack = vec![TextPart::Value(value)];
    while let Some(part) = stack.pop() {
        if length >= max_chars {
            break;
        }
        let before = text.len();
        match part {
            TextPart::Key(key) => text.push_str(key),
            TextPart::Value(Value::String(leaf)) => text.push_str(leaf),
            TextPart::Value(Value::Number(number)) => text.push_str(&number.to_string()),
            TextPart::Value(Value::Bool(true)) => text.push_str("true"),
            TextPart::Value(Value::Bool(false)) => text.push_str("false"),
            TextPart::Value(Value::Null) => {}
            TextPart::Value(Value::Array(items)) => {
                stack.extend(items.iter().rev().map(TextPart::Value));
            }
            TextPart::Value(Value::Object(map)) => {
                for (key, value) in map.iter().rev() {
                    stack.push(TextPart::Value(value));
                    stack.push(TextPart::Key(key));
                }
            }
        }
        if text.len() > before {
            text.push(' ');
            length += text.get(before..).unwrap_or_default().chars().count();
        }
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn path_finds_dotted_keys_nested_keys_and_array_elements() {
        let value = json!({"a": {"b.c": 1, "b": {"c": 2}}, "a.b": {"c": 3},
            "list": [{"n": 4}, [{"n": 5}]], "a.b.c": 6});
        let map = value.as_object().unwrap();
        let mut values = values_at_path(map, "a.b.c");
        values.sort_by_key(|value| value.as_i64());
        assert_eq!(values, [&json!(1), &json!(2), &json!(3), &json!(6)]);
        assert_eq!(values_at_path(map, "list.n"), [&json!(4), &json!(5)]);
        assert_eq!(values_at_path(map, "list.n.x"), Vec::<&Value>::new());
        assert_eq!(values_in(&value, "list.n"), [&json!(4), &json!(5)]);
        assert_eq!(values_in(&json!([1, [2]]), ""), [&json!(1), &json!(2)]);
    }

    #[test]
    fn plain_text_has_keys_and_values_without_json_escapes() {
        let value = json!({"city": "S\u{e3}o\nPaulo", "n": [1, true, null]});
        assert_eq!(plain_text(&value, 100), "city S\u{e3}o\nPaulo n 1 true");
        assert_eq!(plain_text(&json!(["ab", "cd", "ef"]), 4), "ab cd");
    }

    #[test]
    fn reads_deep_values_without_recursion() {
        let mut deep = json!("leaf");
        for _ in 0..1_000 {
            // `json!` would recurse here.
            deep = Value::Object(Map::from_iter([("a".to_owned(), Value::Array(vec![deep]))]));
        }
        let path = vec!["a"; 1_000].join(".");
        assert_eq!(values_in(&deep, &path), [&json!("leaf")]);
        assert!(plain_text(&deep, 10_000).ends_with("leaf"));
    }
}
