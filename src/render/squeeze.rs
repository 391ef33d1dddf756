//! Shortens a JSON value whose parts cannot be left out as a whole.
//!
//! Long strings lose their middle first, because the start of a text shows its kind and the end its
//! outcome. Then long arrays and objects lose members. Every cut names the amount removed, and the
//! result is always valid JSON.

use serde_json::{Map, Value};

use super::untrusted::json_chars;

/// Characters that every string keeps before arrays and objects are cut too.
const MIN_STRING_CHARS: usize = 160;

/// Replaces the middle of a text of more than `max_chars` characters by the number of characters
/// removed.
pub fn cut_middle(text: &str, max_chars: usize) -> String {
    let total = text.chars().count();
    if total <= max_chars {
        return text.to_owned();
    }
    // 40 characters are for the marker; two thirds of the rest go to the start.
    let room = max_chars.saturating_sub(40);
    let head = room - room / 3;
    let tail = room - head;
    let removed = total - head - tail;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(total - tail).collect();
    format!("{start} …[{removed} characters left out]… {end}")
}

/// The first `max_chars` characters of a text, with an ellipsis if there are more.
pub fn cut_end(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// The value within about `max_chars` characters of JSON, and whether anything was cut.
pub fn squeeze(value: &Value, max_chars: usize) -> (Value, bool) {
    if json_chars(value) <= max_chars {
        return (value.clone(), false);
    }
    if let Value::String(text) = value {
        return (Value::String(fit_string(text, max_chars)), true);
    }
    let mut smaller = cut_strings(value, string_limit(value, max_chars));
    let mut members = 64;
    while json_chars(&smaller) > max_chars && members > 0 {
        smaller = cut_members(&smaller, members);
        members /= 2;
    }
    let mut depth = 6;
    while json_chars(&smaller) > max_chars {
        smaller = fold_below(&smaller, depth);
        if depth == 0 {
            break;
        }
        depth -= 1;
    }
    (smaller, true)
}

/// A string within `max_chars` characters of JSON. Escapes make the JSON longer than the text.
fn fit_string(text: &str, max_chars: usize) -> String {
    let mut limit = max_chars;
    loop {
        let cut = cut_middle(text, limit);
        let written = json_chars(&Value::String(cut.clone()));
        if written <= max_chars || limit <= 48 {
            return cut;
        }
        limit = (limit * max_chars / written).min(limit - 1).max(48);
    }
}

/// The greatest string length at which all strings together fit beside the structure.
fn string_limit(value: &Value, max_chars: usize) -> usize {
    let mut lengths = Vec::new();
    collect_lengths(value, &mut lengths);
    let text: usize = lengths.iter().sum();
    let structure = json_chars(value).saturating_sub(text);
    let mut room = max_chars.saturating_sub(structure);
    lengths.sort_unstable();
    let mut remaining = lengths.len();
    for length in lengths {
        let share = room / remaining.max(1);
        if length > share {
            return share.max(MIN_STRING_CHARS);
        }
        room -= length;
        remaining -= 1;
    }
    usize::MAX
}

fn collect_lengths(value: &Value, lengths: &mut Vec<usize>) {
    match value {
        Value::String(_) => lengths.push(json_chars(value).saturating_sub(2)),
        Value::Array(items) => items.iter().for_each(|item| collect_lengths(item, lengths)),
        Value::Object(map) => map.values().for_each(|item| collect_lengths(item, lengths)),
        _ => {}
    }
}

fn cut_strings(value: &Value, limit: usize) -> Value {
    match value {
        Value::String(text) if text.chars().count() > limit => {
            Value::String(fit_string(text, limit))
        }
        Value::Array(items) => items.iter().map(|item| cut_strings(item, limit)).collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, item)| (key.clone(), cut_strings(item, limit)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Keeps the first and last items of each long array, and the first members of each long object.
fn cut_members(value: &Value, keep: usize) -> Value {
    match value {
        Value::Array(items) if items.len() > keep + 1 => {
            let head = keep - keep / 2;
            let tail = keep - head;
            let removed = items.len() - head - tail;
            let mut result: Vec<Value> = items
                .iter()
                .take(head)
                .map(|item| cut_members(item, keep))
                .collect();
            result.push(Value::String(format!("…[{removed} items left out]…")));
            result.extend(
                items
                    .iter()
                    .skip(items.len() - tail)
                    .map(|item| cut_members(item, keep)),
            );
            Value::Array(result)
        }
        Value::Array(items) => items.iter().map(|item| cut_members(item, keep)).collect(),
        Value::Object(map) => {
            let mut result: Map<String, Value> = map
                .iter()
                .take(keep.max(1))
                .map(|(key, item)| (cut_middle(key, 200), cut_members(item, keep)))
                .collect();
            if map.len() > keep.max(1) {
                let removed = map.len() - keep.max(1);
                result.insert(
                    "…".to_owned(),
                    Value::String(format!("{removed} keys left out")),
                );
            }
            Value::Object(result)
        }
        other => other.clone(),
    }
}

/// Replaces arrays and objects deeper than `depth` levels by their size.
fn fold_below(value: &Value, depth: usize) -> Value {
    match value {
        Value::Array(items) if depth == 0 => {
            Value::String(format!("…[{} items left out]…", items.len()))
        }
        Value::Object(map) if depth == 0 => {
            Value::String(format!("…[{} keys left out]…", map.len()))
        }
        Value::Array(items) => items
            .iter()
            .map(|item| fold_below(item, depth - 1))
            .collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, item)| (key.clone(), fold_below(item, depth - 1)))
                .collect(),
        ),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn long_text_keeps_both_ends_and_the_number_removed() {
        let text = format!("{}{}", "a".repeat(500), "z".repeat(500));
        let cut = cut_middle(&text, 200);
        assert!(cut.starts_with("aaa") && cut.ends_with("zzz"), "{cut}");
        assert!(cut.contains("…[840 characters left out]…"), "{cut}");
        assert!(cut.chars().count() <= 200);
        assert_eq!(cut_middle("short", 200), "short");
    }

    #[test]
    fn long_strings_are_cut_before_short_ones() {
        let value = json!({"role": "user", "content": "x".repeat(10_000), "id": "abc"});
        let (smaller, cut) = squeeze(&value, 1_000);
        assert!(cut);
        assert_eq!(smaller["role"], "user");
        assert_eq!(smaller["id"], "abc");
        assert!(json_chars(&smaller) <= 1_000);
    }

    #[test]
    fn long_array_loses_its_middle() {
        let value: Value = (0..10_000).collect::<Vec<_>>().into();
        let (smaller, _) = squeeze(&value, 600);
        assert!(json_chars(&smaller) <= 600, "{smaller}");
        assert_eq!(smaller[0], 0);
        assert_eq!(smaller.as_array().unwrap().last(), Some(&json!(9_999)));
    }

    #[test]
    fn end_of_a_text_is_cut_at_a_character() {
        assert_eq!(cut_end("Zoë", 3), "Zoë");
        assert_eq!(cut_end("Zoë 你好", 3), "Zoë…");
    }

    proptest! {
        #[test]
        fn any_value_fits(
            texts in prop::collection::vec(".{0,400}", 0..40),
            keys in prop::collection::vec(".{0,60}", 0..40),
        ) {
            let object: Map<String, Value> =
                keys.into_iter().zip(texts.iter().map(|t| json!([t, {"n": t}]))).collect();
            let value = json!({"rows": texts, "object": object});
            let (smaller, _) = squeeze(&value, 900);
            prop_assert!(json_chars(&smaller) <= 900, "{}", json_chars(&smaller));
        }
    }
}
