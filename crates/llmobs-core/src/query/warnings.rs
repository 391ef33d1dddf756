//! What a query will silently not find. Each of these is valid and almost never meant.

use super::facets::is_known_attribute;
use super::{Field, FreeText, Pattern, Query, Term, Wildcard};

/// More than this many are the same mistake over and over.
const MAX_WARNINGS: usize = 8;

/// What callers write for a facet, and the facet.
const MEANT: &[(&str, &str)] = &[
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

/// Families of attributes, which are never the start of a tag's key.
const FAMILIES: &[&str] = &[
    "meta.",
    "metrics.",
    "evaluations.",
    "evaluation.",
    "feedback.",
    "trace.",
    "child.",
];

impl Query {
    /// What will silently not be found, in sentences with a remedy: unknown facets, operators in
    /// lower case, quotes that are none. At most eight, none twice.
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
        Term::Field { field, pattern } => field_warning(field).or_else(|| single_quote(pattern)),
        Term::Exists(field) | Term::Missing(field) => field_warning(field),
    }
}

const NO_WORDS: &str = "A search text without letters or digits matches nothing: free text is \
                        compared word by word.";

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
                "`{text}` is searched for as a word: write {operator} in capitals if it is meant \
                 as an operator, or quote it."
            ));
        }
    }
    let tokens = FreeText::Word(word.clone()).tokens();
    tokens.is_empty().then(|| NO_WORDS.to_owned())
}

fn field_warning(field: &Field) -> Option<String> {
    let name = field.name();
    match field {
        Field::Tag(_) if FAMILIES.iter().any(|family| name.starts_with(family)) => Some(format!(
            "`{name}` without `@` is a tag, which a Datadog site does not find as an attribute: \
             write @{name}."
        )),
        Field::Tag(_) => None,
        _ if is_known_attribute(name) => None,
        _ => Some(match MEANT.iter().find(|(written, _)| *written == name) {
            Some((_, facet)) => format!("`{field}` is no facet of LLM spans: write {facet}."),
            None => format!(
                "`{field}` is no facet of LLM spans, and matches nothing on a Datadog site: write \
                 the name without `@` if it is a tag, or @meta.metadata.… for metadata."
            ),
        }),
    }
}

fn single_quote(pattern: &Pattern) -> Option<String> {
    let quoted = |text: &str| text.starts_with('\'');
    let found = match pattern {
        Pattern::Literal(text) => quoted(text),
        Pattern::AnyOf(patterns) => patterns
            .iter()
            .any(|pattern| matches!(pattern, Pattern::Literal(text) if quoted(text))),
        _ => false,
    };
    found.then(|| {
        "A single quote is an ordinary character and part of the value: write double quotes, as \
         in @ml_app:\"my app\"."
            .to_owned()
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
        "`and` is searched for as a word: write AND"
    )]
    #[case("a Or b", "write OR in capitals")]
    #[case("a || b", "write OR in capitals")]
    #[case("@replay_run_id:7", "`@replay_run_id` is no facet of LLM spans")]
    #[case("-@meta.model:gpt", "`@meta.model` is no facet")]
    #[case("@trace.tokens:>5", "no facet")]
    #[case("@child.@foo:1", "`@child.@foo` is no facet")]
    #[case("@duration_ms:>5", "write @duration:>500ms")]
    #[case("meta.span.kind:llm", "write @meta.span.kind")]
    #[case("\"...\"", "without letters or digits")]
    #[case("@ml_app:'my app'", "double quotes")]
    fn what_will_not_be_found_is_said(#[case] text: &str, #[case] words: &str) {
        let warnings = warnings(text);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(words), "{warnings:?}");
    }

    #[rstest]
    #[case("@ml_app:a AND env:prod OR -\"and\" anda *")]
    #[case("@metrics.anything:>1 @evaluations.custom.x:* @feedback.thumbs.value:up")]
    #[case("replay_run_id:7 session_id:*")]
    fn a_query_that_means_what_it_says_has_no_warnings(#[case] text: &str) {
        assert_eq!(warnings(text), Vec::<String>::new());
    }

    #[test]
    fn warnings_are_few_and_never_repeated() {
        assert_eq!(warnings("a and b and c and d").len(), 1);
        let many: String = (0..100).map(|n| format!("@x{n}:1 ")).collect();
        assert_eq!(warnings(&many).len(), MAX_WARNINGS);
    }

    #[test]
    fn every_facet_that_is_recommended_is_a_known_one() {
        for (_, example) in MEANT {
            assert_eq!(warnings(example), Vec::<String>::new(), "{example}");
        }
    }
}
