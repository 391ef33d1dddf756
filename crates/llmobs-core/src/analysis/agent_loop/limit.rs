//! Truncates long texts of a loop in the middle: the start of a text usually identifies it, and the
//! end holds its outcome.

use std::borrow::Cow;

use serde_json::Value;

use super::AgentLoop;

/// Truncates every text of a loop that is longer than `max_chars`, and puts the number of removed
/// characters in its place. Arguments whose JSON is longer become a truncated text. Returns the
/// number of truncated texts.
pub fn truncate_texts(agent_loop: &mut AgentLoop<'_>, max_chars: usize) -> usize {
    let mut truncated = 0;
    let mut truncate = |text: &mut Cow<'_, str>| {
        if let Some(shorter) = truncate_middle(text, max_chars) {
            *text = Cow::Owned(shorter);
            truncated += 1;
        }
    };
    for iteration in &mut agent_loop.iterations {
        truncate(&mut iteration.content);
        iteration.error_message.as_mut().map(&mut truncate);
        for call in &mut iteration.tool_calls {
            call.result.as_mut().map(&mut truncate);
            call.error.as_mut().map(&mut truncate);
            let mut text = match call.arguments.as_ref() {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                Value::Null | Value::Bool(_) | Value::Number(_) => continue,
                structured => Cow::Owned(structured.to_string()),
            };
            if text.len() > max_chars && text.chars().count() > max_chars {
                truncate(&mut text);
                call.arguments = Cow::Owned(Value::String(text.into_owned()));
            }
        }
    }
    for entry in &mut agent_loop.timeline {
        truncate(&mut entry.content);
    }
    truncated
}

/// The text with its middle replaced by the number of removed characters; `None` if it fits.
fn truncate_middle(text: &str, max_chars: usize) -> Option<String> {
    if text.len() <= max_chars {
        return None;
    }
    let total = text.chars().count();
    if total <= max_chars {
        return None;
    }
    let head = max_chars.div_ceil(2);
    let tail = max_chars - head;
    let start = |at: usize| {
        text.char_indices()
            .nth(at)
            .map_or(text.len(), |(byte, _)| byte)
    };
    let head_text = text.get(..start(head))?;
    let tail_text = text.get(start(total - tail)..)?;
    let removed = total - max_chars;
    Some(format!(
        "{head_text} …[{removed} characters cut]… {tail_text}"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_start_and_end_of_long_text() {
        assert_eq!(
            truncate_middle("ünïcödé text", 6).unwrap(),
            "ünï …[6 characters cut]… ext"
        );
        assert_eq!(truncate_middle("fits", 4), None);
        assert_eq!(truncate_middle("ééé", 3), None);
        assert_eq!(
            truncate_middle("text", 0).unwrap(),
            " …[4 characters cut]… "
        );
    }

    proptest! {
        #[test]
        fn kept_and_removed_characters_add_up(text in "\\PC{0,40}", max in 0..50_usize) {
            let total = text.chars().count();
            match truncate_middle(&text, max) {
                None => prop_assert!(total <= max),
                Some(cut) => {
                    let words = format!(" …[{} characters cut]… ", total - max);
                    prop_assert_eq!(cut.chars().count(), max + words.chars().count());
                }
            }
        }
    }
}
