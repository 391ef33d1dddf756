//! A column of a segment that is read for all documents in order.

use tantivy::columnar::{Column, ColumnIndex};

/// A decoded column with at most one value per document. Reading it in document order is several
/// times faster than looking up each document.
pub(super) struct SequentialColumn<T> {
    /// The documents that have a value; `None` for all.
    documents: Option<Vec<u32>>,
    values: Vec<T>,
    /// Index of the next value.
    next: usize,
}

impl<T: Copy + Default + PartialOrd + std::fmt::Debug + Send + Sync + 'static> SequentialColumn<T> {
    /// Decodes a column. `None` when documents may have several values.
    pub(super) fn decode(column: &Column<T>) -> Option<Self> {
        let documents = match &column.index {
            ColumnIndex::Full => None,
            ColumnIndex::Empty { .. } => Some(Vec::new()),
            ColumnIndex::Optional(index) => Some(index.iter_non_null_docs().collect()),
            ColumnIndex::Multivalued(_) => return None,
        };
        let mut values = vec![T::default(); column.values.num_vals() as usize];
        column.values.get_range(0, &mut values);
        Some(Self {
            documents,
            values,
            next: 0,
        })
    }

    /// The value of a document. Call it with increasing documents.
    pub(super) fn value(&mut self, document: u32) -> Option<T> {
        let Some(documents) = &self.documents else {
            return self.values.get(document as usize).copied();
        };
        let rest = documents.get(self.next..)?;
        self.next += rest.iter().take_while(|other| **other < document).count();
        if documents.get(self.next) == Some(&document) {
            self.values.get(self.next).copied()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use tantivy::schema::{NumericOptions, Schema};
    use tantivy::{Index, TantivyDocument};

    /// A column in which document `n` has `counts[n]` values.
    fn column(counts: &[u64]) -> Column<u64> {
        let mut schema = Schema::builder();
        let field = schema.add_u64_field("n", NumericOptions::default().set_fast());
        let index = Index::create_in_ram(schema.build());
        let mut writer = index.writer_with_num_threads(1, 15_000_000).unwrap();
        for (doc, count) in (0..).zip(counts) {
            let mut document = TantivyDocument::new();
            (0..*count).for_each(|n| document.add_u64(field, doc * 10 + n));
            writer.add_document(document).unwrap();
        }
        writer.commit().unwrap();
        let searcher = index.reader().unwrap().searcher();
        searcher.segment_reader(0).fast_fields().u64("n").unwrap()
    }

    #[rstest]
    #[case(&[1, 1, 1, 1])]
    #[case(&[0, 1, 0, 0, 1, 1, 0])]
    #[case(&[1, 0])]
    #[case(&[0, 0, 1])]
    #[case(&[0, 0])]
    fn values_equal_those_of_the_column(#[case] counts: &[u64]) {
        let column = column(counts);
        let mut all = SequentialColumn::decode(&column).unwrap();
        let mut every_other = SequentialColumn::decode(&column).unwrap();
        for doc in 0..u32::try_from(counts.len()).unwrap() {
            assert_eq!(all.value(doc), column.first(doc), "{doc}");
            if doc % 2 == 0 {
                assert_eq!(
                    every_other.value(doc),
                    column.first(doc),
                    "{doc}, reading every other"
                );
            }
        }
    }

    #[test]
    fn columns_with_several_values_are_not_decoded() {
        assert!(SequentialColumn::decode(&column(&[1, 2, 0])).is_none());
    }
}
