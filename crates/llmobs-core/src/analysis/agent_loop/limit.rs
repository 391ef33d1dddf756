//! Long texts of a loop cut in their middle, where the least is lost: how a text begins tells what
//! it is, how it ends tells what came of it.

use std::borrow::Cow;

use serde_json::Value;

use super::AgentLoop;

/// Cuts every text of a loop that is longer than `max_chars` in its middle, and says there how
/// many characters are gone. Arguments whose JSON is longer become such a text. Returns the number
/// of texts cut.
pub fn truncate_texts(agent_loop: &mut AgentLoop<'_>, max_chars: usize) -> usize {
    let mut cut = 0;
    let mut limit = |text: &mut Cow<'_, str>| {
        if let Some(shorter) = cut_middle(text, max_chars) {
            *text = Cow::Owned(shorter);
            cut += 1;
        }
    };
    for iteration in &mut agent_loop.iterations {
        limit(&mut iteration.content);
        iteration.error_message.as_mut().map(&mut limit);
        for call in &mut iteration.tool_calls {
            call.result.as_mut().map(&mut limit);
            call.error.as_mut().map(&mut limit);
            let mut text = match call.arguments.as_ref() {
                Value::String(text) => Cow::Borrowed(text.as_str()),
                Value::Null | Value::Bool(_) | Value::Number(_) => continue,
                structured => Cow::Owned(structured.to_string()),
            };
            if text.len() > max_chars && text.chars().count() > max_chars {
                limit(&mut text);
                call.arguments = Cow::Owned(Value::String(text.into_owned()));
            }
        }
    }
    for entry in &mut agent_loop.timeline {
        limit(&mut entry.content);
    }
    cut
}

/// The text with its middle replaced by a count of what is gone; `None` when it fits.
fn cut_middle(text: &str, max_chars: usize) -> Option<String> {
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
    let gone = total - max_chars;
    Some(format!("{head_text} …[{gone} characters cut]… {tail_text}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(
            cut_middle("ünïcödé text", 6).unwrap(),
            "ünï …[6 characters cut]… ext"
        );
        assert_eq!(cut_middle("fits", 4), None);
        assert_eq!(cut_middle("ééé", 3), None);
        assert_eq!(cut_middle("gone", 0).unwrap(), " …[4 characters cut]… ");
    }

    proptest! {
        #[test]
        fn what_is_left_and_what_is_gone_add_up(text in "\\PC{0,40}", max in 0..50_usize) {
            let total = text.chars().count();
            match cut_middle(&text, max) {
                None => prop_assert!(total <= max),
                Some(cut) => {
                    let words = format!(" …[{} characters cut]… ", total - max);
                    prop_assert_eq!(cut.chars().count(), max + words.chars().count());
                }
            }
        }
    }
}
