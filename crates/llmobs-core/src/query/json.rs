//! Looking into JSON that somebody else sent: dotted paths and plain text.
//!
//! Neither walk recurses: a hostile span may nest as deep as its size allows.

use serde_json::{Map, Value};

/// The values at a dotted path. Keys may hold dots themselves, so `a.b` finds `{"a":{"b":…}}` and
/// `{"a.b":…}`; arrays are looked through, so every element counts.
pub(super) fn at_path<'a>(map: &'a Map<String, Value>, path: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    step(map, path, &mut open);
    while let Some((value, rest)) = open.pop() {
        match (value, rest) {
            (Value::Array(items), _) => open.extend(items.iter().rev().map(|item| (item, rest))),
            (value, None) => found.push(value),
            (Value::Object(map), Some(rest)) => step(map, rest, &mut open),
            _ => {}
        }
    }
    found
}

/// The values at a dotted path inside of any value; an empty path is the value itself.
pub(super) fn inside<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter().rev()),
            value if path.is_empty() => found.push(value),
            Value::Object(map) => found.extend(at_path(map, path)),
            _ => {}
        }
    }
    found
}

/// Every member of `map` that a beginning of `path` names, with what is left of the path.
fn step<'a, 'p>(
    map: &'a Map<String, Value>,
    path: &'p str,
    open: &mut Vec<(&'a Value, Option<&'p str>)>,
) {
    for (dot, _) in path.match_indices('.') {
        if let Some((key, rest)) = path.split_at_checked(dot)
            && let Some(value) = map.get(key)
        {
            open.push((value, rest.strip_prefix('.')));
        }
    }
    if let Some(value) = map.get(path) {
        open.push((value, None));
    }
}

/// The keys and values of a JSON value in the order sent, parted by blanks, up to about
/// `max_chars` characters. JSON's own escapes (`\n`, `\u00e9`) would be words of their own in the
/// serialised form.
pub(super) fn plain_text(value: &Value, max_chars: usize) -> String {
    enum Part<'a> {
        Key(&'a str),
        Value(&'a Value),
    }
    let mut text = String::new();
    let mut length = 0;
    let mut open = vec![Part::Value(value)];
    while let Some(part) = open.pop() {
        if length >= max_chars {
            break;
        }
        let before = text.len();
        match part {
            Part::Key(key) => text.push_str(key),
            Part::Value(Value::String(leaf)) => text.push_str(leaf),
            Part::Value(Value::Number(number)) => text.push_str(&number.to_string()),
            Part::Value(Value::Bool(true)) => text.push_str("true"),
            Part::Value(Value::Bool(false)) => text.push_str("false"),
            Part::Value(Value::Null) => {}
            Part::Value(Value::Array(items)) => open.extend(items.iter().rev().map(Part::Value)),
            Part::Value(Value::Object(map)) => {
                for (key, value) in map.iter().rev() {
                    open.push(Part::Value(value));
                    open.push(Part::Key(key));
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
    fn a_path_finds_dotted_keys_nested_keys_and_array_elements() {
        let value = json!({"a": {"b.c": 1, "b": {"c": 2}}, "a.b": {"c": 3},
            "list": [{"n": 4}, [{"n": 5}]], "a.b.c": 6});
        let map = value.as_object().unwrap();
        let mut found = at_path(map, "a.b.c");
        found.sort_by_key(|value| value.as_i64());
        assert_eq!(found, [&json!(1), &json!(2), &json!(3), &json!(6)]);
        assert_eq!(at_path(map, "list.n"), [&json!(4), &json!(5)]);
        assert_eq!(at_path(map, "list.n.x"), Vec::<&Value>::new());
        assert_eq!(inside(&value, "list.n"), [&json!(4), &json!(5)]);
        assert_eq!(inside(&json!([1, [2]]), ""), [&json!(1), &json!(2)]);
    }

    #[test]
    fn plain_text_has_keys_and_values_without_json_escapes() {
        let value = json!({"city": "S\u{e3}o\nPaulo", "n": [1, true, null]});
        assert_eq!(plain_text(&value, 100), "city S\u{e3}o\nPaulo n 1 true");
        assert_eq!(plain_text(&json!(["ab", "cd", "ef"]), 4), "ab cd");
    }

    #[test]
    fn deep_values_are_walked_without_recursion() {
        let mut deep = json!("leaf");
        for _ in 0..1_000 {
            // Not by `json!`, which recurses.
            deep = Value::Object(Map::from_iter([("a".to_owned(), Value::Array(vec![deep]))]));
        }
        let path = vec!["a"; 1_000].join(".");
        assert_eq!(inside(&deep, &path), [&json!("leaf")]);
        assert!(plain_text(&deep, 10_000).ends_with("leaf"));
    }
}
