//! "Did you mean": known names that are similar to a mistyped one.
//!
//! A result is always one of the known names, so a message can show it without repeating the
//! caller's text.

/// Longest name that is compared, in characters.
const MAX_CHARS: usize = 128;

/// The known name that is most similar to `wrong`, if one is similar enough.
///
/// A name is similar enough if the edit distance (insert, delete, replace) is at most a third of
/// the longer name, or if one name contains the other and is at most twice as long.
pub fn closest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = normalize(wrong);
    let wrong_chars = wrong.chars().count();
    if wrong_chars > MAX_CHARS {
        return None;
    }
    known
        .into_iter()
        .filter_map(|name| {
            let candidate = normalize(name);
            let chars = candidate.chars().count();
            let (short, long) = (wrong_chars.min(chars), wrong_chars.max(chars));
            let contained =
                2 * short >= long && (candidate.contains(&wrong) || wrong.contains(&candidate));
            let edits = strsim::levenshtein(&wrong, &candidate);
            (contained || edits <= long / 3).then_some((edits, name))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// All known names, most similar to `wrong` first. Equally similar names keep their order.
pub fn rank<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong: String = normalize(wrong).chars().take(MAX_CHARS).collect();
    let mut names: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| {
            let candidate: String = normalize(name).chars().take(MAX_CHARS).collect();
            let contained = candidate.contains(&wrong) || wrong.contains(&candidate);
            let edits = strsim::levenshtein(&wrong, &candidate);
            (if contained { edits / 2 } else { edits }, name)
        })
        .collect();
    names.sort_by_key(|(edits, _)| *edits);
    names.into_iter().map(|(_, name)| name).collect()
}

/// Removes differences that do not distinguish names: case, and dash or underscore.
fn normalize(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: [&str; 3] = [
        "search_llmobs_spans",
        "get_llmobs_trace",
        "get_llmobs_span_content",
    ];

    #[test]
    fn finds_mistyped_and_shortened_names() {
        assert_eq!(
            closest("serch_llmobs_span", TOOLS),
            Some("search_llmobs_spans")
        );
        assert_eq!(closest("get-llmobs-trace", TOOLS), Some("get_llmobs_trace"));
        assert_eq!(
            closest("span_content", TOOLS),
            Some("get_llmobs_span_content")
        );
    }

    #[test]
    fn rejects_names_that_are_not_similar() {
        assert_eq!(closest("list_dashboards", TOOLS), None);
        assert_eq!(closest("", TOOLS), None);
        assert_eq!(closest(&"x".repeat(100_000), TOOLS), None);
    }

    #[test]
    fn ranks_names_by_similarity() {
        let labels = ["verdict", "exact_match", "match"];
        assert_eq!(
            rank("exact-mach", labels),
            ["exact_match", "match", "verdict"]
        );
        assert_eq!(rank("", labels).len(), 3);
    }
}
