//! Makes one JSON value smaller when nothing whole can be left out any more.
//!
//! Long strings lose their middle first, since the start says what a text is and the end how it
//! went; then long arrays and objects lose their middle members. Every cut says how much is gone,
//! and the result is a value again, never half of one.

use serde_json::{Map, Value};

use super::untrusted::json_chars;

/// What a string keeps at the least before arrays and objects are cut too.
const MIN_STRING: usize = 160;

/// Cuts the middle out of a text of more than `max_chars` characters and says how many are gone.
pub fn cut_middle(text: &str, max_chars: usize) -> String {
    let total = text.chars().count();
    if total <= max_chars {
        return text.to_owned();
    }
    // The marker's own length is part of the room; two thirds of the rest go to the start.
    let room = max_chars.saturating_sub(40);
    let head = room - room / 3;
    let tail = room - head;
    let gone = total - head - tail;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(total - tail).collect();
    format!("{start} …[{gone} characters left out]… {end}")
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

/// One string within `max_chars` characters of JSON: escapes make it longer than its characters.
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

/// The greatest string length with which all strings together fit beside the structure.
fn string_limit(value: &Value, max_chars: usize) -> usize {
    let mut lengths = Vec::new();
    collect_lengths(value, &mut lengths);
    let text: usize = lengths.iter().sum();
    let structure = json_chars(value).saturating_sub(text);
    let mut room = max_chars.saturating_sub(structure);
    lengths.sort_unstable();
    let mut left = lengths.len();
    for length in lengths {
        let share = room / left.max(1);
        if length > share {
            return share.max(MIN_STRING);
        }
        room -= length;
        left -= 1;
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

/// Keeps the first and last members of each long array and the first of each long object.
fn cut_members(value: &Value, keep: usize) -> Value {
    match value {
        Value::Array(items) if items.len() > keep + 1 => {
            let head = keep - keep / 2;
            let tail = keep - head;
            let gone = items.len() - head - tail;
            let mut kept: Vec<Value> = items
                .iter()
                .take(head)
                .map(|item| cut_members(item, keep))
                .collect();
            kept.push(Value::String(format!("…[{gone} items left out]…")));
            kept.extend(
                items
                    .iter()
                    .skip(items.len() - tail)
                    .map(|item| cut_members(item, keep)),
            );
            Value::Array(kept)
        }
        Value::Array(items) => items.iter().map(|item| cut_members(item, keep)).collect(),
        Value::Object(map) => {
            let mut kept: Map<String, Value> = map
                .iter()
                .take(keep.max(1))
                .map(|(key, item)| (cut_middle(key, 200), cut_members(item, keep)))
                .collect();
            if map.len() > keep.max(1) {
                let gone = map.len() - keep.max(1);
                kept.insert(
                    "…".to_owned(),
                    Value::String(format!("{gone} keys left out")),
                );
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// Replaces whatever lies below `depth` levels by a note of its size.
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
    fn a_long_text_keeps_both_ends_and_counts_what_is_gone() {
        let text = format!("{}{}", "a".repeat(500), "z".repeat(500));
        let cut = cut_middle(&text, 200);
        assert!(cut.starts_with("aaa") && cut.ends_with("zzz"), "{cut}");
        assert!(cut.contains("…[840 characters left out]…"), "{cut}");
        assert!(cut.chars().count() <= 200);
        assert_eq!(cut_middle("short", 200), "short");
    }

    #[test]
    fn short_strings_stay_whole_while_long_ones_give_way() {
        let value = json!({"role": "user", "content": "x".repeat(10_000), "id": "abc"});
        let (smaller, cut) = squeeze(&value, 1_000);
        assert!(cut);
        assert_eq!(smaller["role"], "user");
        assert_eq!(smaller["id"], "abc");
        assert!(json_chars(&smaller) <= 1_000);
    }

    #[test]
    fn an_array_of_many_numbers_loses_its_middle() {
        let value: Value = (0..10_000).collect::<Vec<_>>().into();
        let (smaller, _) = squeeze(&value, 600);
        assert!(json_chars(&smaller) <= 600, "{smaller}");
        assert_eq!(smaller[0], 0);
        assert_eq!(smaller.as_array().unwrap().last(), Some(&json!(9_999)));
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
