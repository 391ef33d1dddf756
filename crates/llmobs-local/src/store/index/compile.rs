//! Compiles a plan to a tantivy query.

use std::ops::Bound;
use std::sync::Arc;

use tantivy::columnar::{Column, DynamicColumn, NumericalType};
use tantivy::index::SegmentReader;
use tantivy::query::doc_predicate_query::{
    ConstOrVariableSegmentPredicate, DocPredicate, DocPredicateQuery, SegmentDocPredicate,
};
use tantivy::query::{
    AllQuery, AllScorer, BitSetDocSet, BooleanQuery, ConstScorer, EmptyQuery, EnableScoring,
    Explanation, Occur, PhraseQuery, Query, Scorer, TermQuery, Weight,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, Score, Searcher, TantivyError, Term};

use super::schema::{IndexFields, NUMBERS, column_name};
use llmobs_core::query::index::{IndexCondition, NumberTest};
use llmobs_core::query::text::TokenPattern;
use llmobs_core::query::{Wildcard, WildcardElement};

/// The tantivy query of a node of a plan.
pub(super) fn compile(node: &IndexCondition, fields: &IndexFields) -> Box<dyn Query> {
    match node {
        IndexCondition::MatchAll => Box::new(AllQuery),
        IndexCondition::MatchNone => Box::new(EmptyQuery),
        IndexCondition::And(nodes) => conjunction(nodes, fields),
        IndexCondition::Or(nodes) => {
            let alternatives = nodes
                .iter()
                .map(|node| (Occur::Should, compile(node, fields)));
            Box::new(BooleanQuery::new(alternatives.collect()))
        }
        IndexCondition::Not(node) => Box::new(BooleanQuery::new(vec![
            (Occur::Must, Box::new(AllQuery) as Box<dyn Query>),
            (Occur::MustNot, compile(node, fields)),
        ])),
        IndexCondition::Key(key) => term(key_term(fields, key)),
        IndexCondition::KeyMatches { prefix, pattern } => {
            Box::new(LikeQuery::new(fields.keys, prefix, pattern))
        }
        IndexCondition::Number { column, test } => {
            Box::new(DocPredicateQuery::from(NumberPredicate {
                path: format!("{NUMBERS}.{}", column_name(column)),
                test: *test,
            }))
        }
        IndexCondition::Phrase(words) => phrase(words, fields),
    }
}

/// Whether any document has a key; `true` if the index cannot be read.
pub(super) fn occurs(searcher: &Searcher, fields: &IndexFields, key: &str) -> bool {
    searcher
        .doc_freq(&key_term(fields, key))
        .map_or(true, |count| count > 0)
}

fn key_term(fields: &IndexFields, key: &str) -> Term {
    Term::from_field_text(fields.keys, key)
}

fn term(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn conjunction(nodes: &[IndexCondition], fields: &IndexFields) -> Box<dyn Query> {
    let mut parts: Vec<(Occur, Box<dyn Query>)> = nodes
        .iter()
        .map(|node| match node {
            IndexCondition::Not(inner) => (Occur::MustNot, compile(inner, fields)),
            node => (Occur::Must, compile(node, fields)),
        })
        .collect();
    if parts.iter().all(|(occur, _)| *occur == Occur::MustNot) {
        parts.push((Occur::Must, Box::new(AllQuery)));
    }
    Box::new(BooleanQuery::new(parts))
}

fn phrase(words: &[TokenPattern], fields: &IndexFields) -> Box<dyn Query> {
    let exact: Option<Vec<Term>> = words
        .iter()
        .map(|word| match word {
            TokenPattern::Exact(text) => Some(Term::from_field_text(fields.words, text)),
            TokenPattern::Wildcard(_) => None,
        })
        .collect();
    match (exact, words) {
        (Some(mut terms), _) => match (terms.pop(), terms.is_empty()) {
            (Some(only), true) => term(only),
            (Some(last), false) => {
                terms.push(last);
                Box::new(PhraseQuery::new(terms))
            }
            (None, _) => Box::new(EmptyQuery),
        },
        (None, [TokenPattern::Wildcard(like)]) => Box::new(LikeQuery::new(fields.words, "", like)),
        // A plan has at most one pattern per node.
        (None, _) => Box::new(AllQuery),
    }
}

/// Matches documents with a term that starts with a prefix and continues like a pattern.
#[derive(Debug, Clone)]
struct LikeQuery {
    field: Field,
    prefix: Arc<str>,
    rest: Arc<Wildcard>,
    /// The literal start of all such terms.
    literal: Arc<str>,
}

impl LikeQuery {
    fn new(field: Field, prefix: &str, rest: &Wildcard) -> Self {
        let start = rest.elements().iter().map_while(|element| match element {
            WildcardElement::Char(c) => Some(*c),
            WildcardElement::AnyChar | WildcardElement::AnyRun => None,
        });
        let literal: String = prefix.chars().chain(start).collect();
        Self {
            field,
            prefix: prefix.into(),
            rest: Arc::new(rest.clone()),
            literal: literal.into(),
        }
    }
}

impl Query for LikeQuery {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for LikeQuery {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut found = BitSet::with_max_value(reader.max_doc());
        let inverted = reader.inverted_index(self.field)?;
        let mut range = inverted.terms().range().ge(self.literal.as_bytes());
        if let Bound::Excluded(end) = end_of_prefix(self.literal.as_bytes()) {
            range = range.lt(end);
        }
        let mut terms = range.into_stream()?;
        while let Some((key, info)) = terms.next() {
            let matches = std::str::from_utf8(key)
                .ok()
                .and_then(|key| key.strip_prefix(&*self.prefix))
                .is_some_and(|rest| self.rest.matches(rest));
            if !matches {
                continue;
            }
            let mut postings =
                inverted.read_block_postings_from_terminfo(info, IndexRecordOption::Basic)?;
            while !postings.docs().is_empty() {
                for doc in postings.docs() {
                    found.insert(*doc);
                }
                postings.advance();
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(found), boost)))
    }

    fn explain(&self, _: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        Err(TantivyError::InvalidArgument(format!(
            "document {doc} has no score"
        )))
    }
}

/// The first byte string after all that start with a prefix.
fn end_of_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

/// Matches documents with a number in a column that passes a test.
#[derive(Debug)]
struct NumberPredicate {
    path: String,
    test: NumberTest,
}

struct SegmentNumbers {
    columns: Vec<Column<f64>>,
    test: NumberTest,
}

impl DocPredicate for NumberPredicate {
    type SegmentDocPredicate = SegmentNumbers;

    fn doc_predicate(
        &self,
        reader: &SegmentReader,
    ) -> tantivy::Result<ConstOrVariableSegmentPredicate<SegmentNumbers>> {
        let columns = number_columns(reader, &self.path)?;
        if columns.is_empty() {
            return Ok(ConstOrVariableSegmentPredicate::Const(false));
        }
        Ok(ConstOrVariableSegmentPredicate::Variable {
            predicate: SegmentNumbers {
                columns,
                test: self.test,
            },
            necessary_condition: Box::new(AllScorer::new(reader.max_doc())),
        })
    }
}

impl SegmentDocPredicate for SegmentNumbers {
    fn eval(&mut self, doc: DocId) -> bool {
        let test = self.test;
        self.columns
            .iter()
            .any(|column| column.values_for_doc(doc).any(|value| test.passes(value)))
    }
}

/// The numeric columns of a path as floats. A segment chooses the number type of a column.
pub(super) fn number_columns(
    reader: &SegmentReader,
    path: &str,
) -> tantivy::Result<Vec<Column<f64>>> {
    let mut columns = Vec::new();
    for handle in reader.fast_fields().dynamic_column_handles(path)? {
        let column = handle.open()?.coerce_numerical(NumericalType::F64);
        if let Some(DynamicColumn::F64(column)) = column {
            columns.push(column);
        }
    }
    Ok(columns)
}
