//! "Did you mean": the known name closest to a mistyped one.
//!
//! Only names that we wrote ourselves are ever suggested, so a suggestion can stand inside a
//! message without carrying a caller's text.

/// The known name nearest to `wrong`, if one is near enough to be what was meant.
///
/// Near enough is at most a third of the longer name's length in edits (insert, delete, replace),
/// or one name being a part, and at least half, of the other.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = fold(wrong);
    if wrong.len() > 128 {
        return None;
    }
    known
        .into_iter()
        .filter_map(|name| {
            let folded = fold(name);
            let (short, long) = (wrong.len().min(folded.len()), wrong.len().max(folded.len()));
            let contained =
                2 * short >= long && (folded.contains(&wrong) || wrong.contains(&folded));
            let edits = distance(&wrong, &folded);
            (contained || edits <= long / 3).then_some((edits, name))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// All known names, the nearest to `wrong` first; those that are equally near keep their order.
pub fn ranked<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong: String = fold(wrong).chars().take(128).collect();
    let mut names: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| {
            let folded: String = fold(name).chars().take(128).collect();
            let contained = folded.contains(&wrong) || wrong.contains(&folded);
            let edits = distance(&wrong, &folded);
            (if contained { edits / 2 } else { edits }, name)
        })
        .collect();
    names.sort_by_key(|(edits, _)| *edits);
    names.into_iter().map(|(_, name)| name).collect()
}

/// Case and the choice between dash and underscore do not make a name another one.
fn fold(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('-', "_")
}

/// The Levenshtein distance in bytes, by one row of the usual table.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
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
    fn a_typo_finds_the_name_that_was_meant() {
        assert_eq!(
            nearest("serch_llmobs_span", TOOLS),
            Some("search_llmobs_spans")
        );
        assert_eq!(nearest("get-llmobs-trace", TOOLS), Some("get_llmobs_trace"));
        assert_eq!(
            nearest("span_content", TOOLS),
            Some("get_llmobs_span_content")
        );
    }

    #[test]
    fn a_name_like_none_of_them_gets_no_suggestion() {
        assert_eq!(nearest("list_dashboards", TOOLS), None);
        assert_eq!(nearest("", TOOLS), None);
        assert_eq!(nearest(&"x".repeat(100_000), TOOLS), None);
    }

    #[test]
    fn names_are_ranked_by_how_near_they_are() {
        let labels = ["verdict", "exact_match", "match"];
        assert_eq!(
            ranked("exact-mach", labels),
            ["exact_match", "match", "verdict"]
        );
        assert_eq!(ranked("", labels).len(), 3);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
