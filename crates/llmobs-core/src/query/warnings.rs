//! Warnings about valid queries that match nothing, which the caller almost never intends.

use super::facets::is_known_attribute;
use super::{Field, FreeText, Pattern, Query, Term, Wildcard};

/// Maximum number of warnings for a query; further ones repeat the same mistake.
const MAX_WARNINGS: usize = 8;

/// Common mistakes in a facet's name, each with an example of the correct facet.
const SUGGESTIONS: &[(&str, &str)] = &[
    ("duration_ms", "@duration:>500ms"),
    ("duration_ns", "@duration:>500ms"),
    ("start_ms", "timestamp:>=1784000000000"),
    ("start", "timestamp:>=1784000000000"),
    ("span_kind", "@meta.span.kind:llm"),
    ("kind", "@meta.span.kind:llm"),
    ("span_name", "@name:answer"),
    ("model", "@meta.model_name:gpt-4*"),
    ("model_name", "@meta.model_name:gpt-4*"),
    ("model_provider", "@meta.model_provider:openai"),
    ("error", "@status:error"),
    ("error_type", "@meta.error.type:*Timeout*"),
    ("error.type", "@meta.error.type:*Timeout*"),
    ("error.message", "@meta.error.message:*timeout*"),
    ("input", "@meta.input.value:*refund*"),
    ("output", "@meta.output.value:*refund*"),
    ("input.value", "@meta.input.value:*refund*"),
    ("output.value", "@meta.output.value:*refund*"),
    ("metadata", "@meta.metadata.plan:pro"),
    ("input_tokens", "@metrics.input_tokens:>1000"),
    ("output_tokens", "@metrics.output_tokens:>1000"),
    ("total_tokens", "@metrics.total_tokens:>1000"),
];

/// Common mistakes in the family of a facet, each with the correct family.
const FAMILY_SUGGESTIONS: &[(&str, &str)] = &[
    ("metric.", "metrics."),
    ("metadata.", "meta.metadata."),
    ("meta.metrics.", "metrics."),
    ("meta.meta.", "meta."),
    ("traces.", "trace."),
    ("feedbacks.", "feedback."),
];

/// Prefixes of attribute names. A tag's key almost never starts with one.
const ATTRIBUTE_FAMILIES: &[&str] = &[
    "meta.",
    "metrics.",
    "evaluations.",
    "evaluation.",
    "feedback.",
    "trace.",
    "child.",
];

impl Query {
    /// Warnings about terms that match nothing, each with a fix: unknown facets, operators in
    /// lower case, single quotes. At most `MAX_WARNINGS`, without duplicates.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for term in self.root.terms() {
            let Some(warning) = term_warning(term) else {
                continue;
            };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
            if warnings.len() == MAX_WARNINGS {
                break;
            }
        }
        warnings
    }
}

fn term_warning(term: &Term) -> Option<String> {
    match term {
        Term::Text(FreeText::Word(word)) => word_warning(word),
        Term::Text(free) => free.tokens().is_empty().then(|| NO_WORDS.to_owned()),
        Term::Field { field, pattern } => {
            field_warning(field).or_else(|| single_quote_warning(pattern))
        }
        Term::Exists(field) | Term::Missing(field) => field_warning(field),
    }
}

const NO_WORDS: &str = "Free text without letters or digits matches nothing, because it is \
                        compared word by word. Search for a word, such as refund.";

fn word_warning(word: &Wildcard) -> Option<String> {
    let text = word.as_literal();
    if let Some(text) = &text {
        let operator = match text.as_str() {
            "&&" => Some("AND"),
            "||" => Some("OR"),
            "!" => Some("NOT"),
            _ => ["AND", "OR", "NOT"]
                .into_iter()
                .find(|operator| text.eq_ignore_ascii_case(operator) && text != operator),
        };
        if let Some(operator) = operator {
            return Some(format!(
                "`{text}` is searched for as a word. Write {operator} in upper case to use the \
                 operator, or quote the word to avoid this note."
            ));
        }
    }
    let tokens = FreeText::Word(word.clone()).tokens();
    tokens.is_empty().then(|| NO_WORDS.to_owned())
}

fn field_warning(field: &Field) -> Option<String> {
    let name = field.name();
    match field {
        Field::Tag(_)
            if ATTRIBUTE_FAMILIES
                .iter()
                .any(|family| name.starts_with(family)) =>
        {
            Some(format!(
                "`{name}` without `@` is a tag, and matches no attribute on a Datadog site. \
                 Write @{name}."
            ))
        }
        Field::Tag(_) => None,
        _ if is_known_attribute(name) => None,
        _ => Some(match suggestion(name) {
            Some(facet) => format!("`{field}` is not a facet of LLM spans. Write {facet}."),
            None => format!(
                "`{field}` is not a facet of LLM spans, and matches nothing on a Datadog site. \
                 Write the name without `@` if it is a tag, or @meta.metadata.<key> if it is \
                 metadata."
            ),
        }),
    }
}

/// The facet that the caller probably means.
fn suggestion(name: &str) -> Option<String> {
    let exact = SUGGESTIONS.iter().find(|(mistake, _)| *mistake == name);
    if let Some((_, facet)) = exact {
        return Some((*facet).to_owned());
    }
    FAMILY_SUGGESTIONS.iter().find_map(|(mistake, family)| {
        let corrected = format!("{family}{}", name.strip_prefix(mistake)?);
        is_known_attribute(&corrected).then(|| Field::Attribute(corrected).to_string())
    })
}

fn single_quote_warning(pattern: &Pattern) -> Option<String> {
    let quoted = |text: &str| text.starts_with('\'');
    let has_single_quote = match pattern {
        Pattern::Literal(text) => quoted(text),
        Pattern::AnyOf(patterns) => patterns
            .iter()
            .any(|pattern| matches!(pattern, Pattern::Literal(text) if quoted(text))),
        _ => false,
    };
    has_single_quote.then(|| {
        "A single quote is part of the value. Use double quotes: @ml_app:\"my app\".".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;
    use rstest::rstest;

    fn warnings(text: &str) -> Vec<String> {
        parse(text).unwrap().warnings()
    }

    #[rstest]
    #[case(
        "@meta.span.kind:llm and @status:error",
        "`and` is searched for as a word. Write AND"
    )]
    #[case("a Or b", "Write OR in upper case")]
    #[case("a || b", "Write OR in upper case")]
    #[case("@replay_run_id:7", "`@replay_run_id` is not a facet of LLM spans")]
    #[case("-@meta.model:gpt", "`@meta.model` is not a facet")]
    #[case("@trace.tokens:>5", "not a facet")]
    #[case("@child.@foo:1", "`@child.@foo` is not a facet")]
    #[case("@duration_ms:>5", "Write @duration:>500ms")]
    #[case("@metric.total_tokens:>5", "Write @metrics.total_tokens.")]
    #[case("@metadata.plan:pro", "Write @meta.metadata.plan.")]
    #[case("meta.span.kind:llm", "Write @meta.span.kind")]
    #[case("\"...\"", "without letters or digits")]
    #[case("@ml_app:'my app'", "double quotes")]
    fn warns_of_terms_that_match_nothing(#[case] text: &str, #[case] words: &str) {
        let warnings = warnings(text);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(words), "{warnings:?}");
    }

    #[rstest]
    #[case("@ml_app:a AND env:prod OR -\"and\" anda *")]
    #[case("@metrics.anything:>1 @evaluations.custom.x:* @feedback.thumbs.value:up")]
    #[case("replay_run_id:7 session_id:*")]
    fn correct_query_has_no_warnings(#[case] text: &str) {
        assert_eq!(warnings(text), Vec::<String>::new());
    }

    #[test]
    fn warnings_are_bounded_and_distinct() {
        assert_eq!(warnings("a and b and c and d").len(), 1);
        let many: String = (0..100).map(|n| format!("@x{n}:1 ")).collect();
        assert_eq!(warnings(&many).len(), MAX_WARNINGS);
    }

    #[test]
    fn every_suggested_facet_is_known() {
        for (_, example) in SUGGESTIONS {
            assert_eq!(warnings(example), Vec::<String>::new(), "{example}");
        }
    }
}
