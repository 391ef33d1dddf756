//! The document that an index stores for a span.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::layout::{
    EVALUATION_PREFIX, EXACT_ATTRIBUTES, FEEDBACK_PREFIX, Lookup, MAX_VALUE_BYTES, Marker,
    PRESENCE_ATTRIBUTES, RESERVED_PREFIXES, evaluation_columns, is_grouped, long_key,
    number_column, number_key, present_key, stores_number_text, text_key, text_number_column,
};
use crate::model::{Assessment, Evaluation, Span};
use crate::query::SpanContext;
use crate::query::facets::{self, FacetValue, LookupValues};
use crate::query::number::decimal;

/// Maximum number of paths stored for a free-form object.
const MAX_PATHS: usize = 96;

/// Maximum depth of a path in a free-form object.
const MAX_LEVELS: usize = 12;

/// Maximum number of tag names stored for a span.
const MAX_TAG_NAMES: usize = 256;

/// Maximum number of colons in a tag at which its name may end.
const MAX_COLONS: usize = 6;

/// The data that an index stores for a span, besides the tokens of its text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexDocument<'a> {
    /// Exact keys.
    pub keys: KeyList,
    /// Numbers by column.
    pub numbers: Vec<(String, f64)>,
    /// Distinct values to group by, by column.
    pub groups: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// A list of keys, concatenated in one allocation: a span has about a hundred keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyList {
    text: String,
    ends: Vec<usize>,
}

impl KeyList {
    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
        self.ends.push(self.text.len());
    }

    /// The keys, possibly with duplicates.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let bounds = starts.zip(&self.ends);
        bounds.map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }

    /// Whether the list contains a key.
    pub fn contains(&self, key: &str) -> bool {
        self.iter().any(|stored| stored == key)
    }
}

/// The document of a span, including the evaluations joined to it.
pub fn index_document(span: &Span) -> IndexDocument<'_> {
    let mut builder = DocumentBuilder {
        context: SpanContext::without_trace(span),
        document: IndexDocument::default(),
        markers: Vec::new(),
    };
    let mut names: Vec<Cow<'_, str>> = EXACT_ATTRIBUTES
        .iter()
        .copied()
        .map(Cow::Borrowed)
        .collect();
    builder.add_tag_names(span, &mut names);
    let metrics = span.metrics.keys();
    names.extend(metrics.map(|key| Cow::Owned(["metrics.", key].concat())));
    let metadata = builder.paths(&span.metadata, "meta.metadata.", Marker::Metadata);
    names.extend(metadata.into_iter().map(Cow::Owned));
    let extra = builder.paths(&span.extra, "", Marker::Free);
    for name in extra.into_iter().map(Cow::Owned) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        builder.put_exact_attribute(name);
    }
    for name in PRESENCE_ATTRIBUTES {
        builder.put_presence_attribute(name);
    }
    builder.put_evaluations(&span.evaluations, EVALUATION_PREFIX);
    builder.put_evaluations(&span.feedback, FEEDBACK_PREFIX);
    builder.document
}

struct DocumentBuilder<'a> {
    context: SpanContext<'a>,
    document: IndexDocument<'a>,
    /// The markers that are already among the keys.
    markers: Vec<Marker>,
}

impl<'a> DocumentBuilder<'a> {
    fn mark(&mut self, marker: Marker) {
        if !self.markers.contains(&marker) {
            self.markers.push(marker);
            self.document.keys.push(&[marker.key()]);
        }
    }

    /// Adds the distinct names by which a query can read the span's tags.
    fn add_tag_names(&mut self, span: &'a Span, names: &mut Vec<Cow<'a, str>>) {
        for tag in &span.tags {
            for (count, (colon, _)) in tag.match_indices(':').enumerate() {
                let Some(name) = tag.get(..colon).filter(|name| !name.is_empty()) else {
                    continue;
                };
                if count >= MAX_COLONS || names.len() >= MAX_TAG_NAMES {
                    self.mark(Marker::Free);
                    break;
                }
                if names.iter().any(|added| added == name) {
                    continue;
                }
                if RESERVED_PREFIXES
                    .iter()
                    .any(|family| name.starts_with(family))
                {
                    self.mark(Marker::Reserved);
                } else {
                    names.push(Cow::Borrowed(name));
                }
            }
        }
    }

    /// All dotted paths in a free-form object, with a prefix.
    fn paths(&mut self, map: &Map<String, Value>, prefix: &str, marker: Marker) -> Vec<String> {
        let (paths, complete) = collect_paths(map, prefix);
        if !complete {
            self.mark(marker);
        }
        paths
    }

    fn put_exact_attribute(&mut self, name: Cow<'a, str>) {
        match facets::lookup_both(&name, &self.context) {
            LookupValues::Same(values) => self.put_values(Lookup::Both, name, &values),
            LookupValues::Different { attribute, tag } => {
                self.put_values(Lookup::Attribute, name.clone(), &attribute);
                self.put_values(Lookup::Tag, name, &tag);
            }
        }
    }

    fn put_values(&mut self, lookup: Lookup, name: Cow<'a, str>, values: &[FacetValue<'a>]) {
        if values.is_empty() {
            return;
        }
        let grouped = is_grouped(&name);
        let number_text = stores_number_text(&name);
        let stored = match lookup {
            Lookup::Both => name,
            lookup => Cow::Owned(lookup.stored_name(&name).into_owned()),
        };
        self.put_presence(&stored, values);
        let mut seen = HashSet::new();
        for value in values {
            self.put_value(&stored, number_text, value);
            if grouped && value.is_present() {
                let text = group_text(value);
                if values.len() == 1 || seen.insert(text.clone()) {
                    self.document.groups.push((stored.clone(), text));
                }
            }
        }
    }

    /// Adds a value. `number_text`: whether to add the text of a number too, for wildcards.
    fn put_value(&mut self, stored: &str, number_text: bool, value: &FacetValue<'_>) {
        let document = &mut self.document;
        match value {
            FacetValue::Text(text) => {
                if text.len() <= MAX_VALUE_BYTES {
                    document.keys.push(&text_key(stored, text));
                } else {
                    document.keys.push(&long_key(stored));
                }
                if let Some(number) = decimal(text) {
                    document.numbers.push((text_number_column(stored), number));
                }
            }
            FacetValue::Number { number, .. } => {
                if number_text {
                    document.keys.push(&number_key(stored, &number.to_string()));
                }
                let value = number.value();
                if value.is_finite() {
                    document.numbers.push((number_column(stored), value));
                }
            }
            FacetValue::Present => {}
        }
    }

    fn put_presence_attribute(&mut self, name: &str) {
        let presence = |values: &[FacetValue<'_>]| {
            (values.iter().any(FacetValue::is_present), values.is_empty())
        };
        match facets::lookup_both(name, &self.context) {
            LookupValues::Same(values) => {
                self.put_presence(&Lookup::Both.stored_name(name), &values);
            }
            LookupValues::Different { attribute, tag }
                if presence(&attribute) == presence(&tag) =>
            {
                self.put_presence(&Lookup::Both.stored_name(name), &attribute);
            }
            LookupValues::Different { attribute, tag } => {
                self.put_presence(&Lookup::Attribute.stored_name(name), &attribute);
                self.put_presence(&Lookup::Tag.stored_name(name), &tag);
            }
        }
    }

    fn put_presence(&mut self, stored: &str, values: &[FacetValue<'_>]) {
        if values.iter().any(FacetValue::is_present) {
            self.document.keys.push(&present_key(stored));
        } else if !values.is_empty() {
            // Empty text does not count as present, but a pattern can match it.
            self.document.keys.push(&text_key(stored, ""));
        }
    }

    fn put_evaluations(&mut self, evaluations: &BTreeMap<String, Evaluation>, family: &str) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (label, evaluation) in evaluations {
            let [score, passed] = evaluation_columns(evaluation.event_kind, label);
            let assessment = evaluation
                .assessment
                .map(|assessment| f64::from(u8::from(assessment == Assessment::Pass)));
            let numbers = [(score, evaluation.score()), (passed, assessment)];
            let present = numbers
                .into_iter()
                .filter_map(|(column, value)| Some((column, value?)));
            self.document
                .numbers
                .extend(present.filter(|(_, value)| value.is_finite()));
            names.insert(label.clone());
            for key in [
                "value",
                "assessment",
                "reasoning",
                "status",
                "eval_metric_type",
                "metric_type",
                "tags",
            ] {
                names.insert(format!("{label}.{key}"));
            }
            let metadata = format!("{label}.metadata.");
            names.extend(self.paths(&evaluation.metadata, &metadata, Marker::Evaluations));
            if let Some(value) = &evaluation.value
                && (value.is_object() || value.is_array())
            {
                let outer = Map::from_iter([("value".to_owned(), value.clone())]);
                for path in self.paths(&outer, "", Marker::Evaluations) {
                    names.insert(format!("{label}.{path}"));
                    if let Some(inner) = path.strip_prefix("value.") {
                        names.insert(format!("{label}.{inner}"));
                    }
                }
            }
        }
        for name in names {
            let values = facets::evaluation_values(&name, evaluations);
            let stored = format!("{family}{name}");
            self.put_presence(&stored, &values);
            for value in &values {
                self.put_value(&stored, false, value);
            }
        }
    }
}

/// The text of a value as a group.
fn group_text<'a>(value: &FacetValue<'a>) -> Cow<'a, str> {
    match value {
        FacetValue::Text(text) => text.clone(),
        FacetValue::Number { number, .. } => Cow::Owned(number.to_string()),
        FacetValue::Present => Cow::Borrowed("(present)"),
    }
}

/// The paths with values in [`crate::query::json::values_at_path`], and whether they are complete.
fn collect_paths(map: &Map<String, Value>, prefix: &str) -> (Vec<String>, bool) {
    let mut paths = Vec::new();
    let mut complete = true;
    let mut stack: Vec<(String, &Value, usize)> = Vec::new();
    for (key, value) in map {
        stack.push((format!("{prefix}{key}"), value, 0));
    }
    while let Some((path, value, level)) = stack.pop() {
        if level > MAX_LEVELS
            || stack.len() + paths.len() > MAX_PATHS * 4
            || paths.len() >= MAX_PATHS
        {
            complete = false;
            break;
        }
        match value {
            Value::Array(items) => {
                if items
                    .iter()
                    .any(|item| !item.is_object() && !item.is_array())
                    && !paths.contains(&path)
                {
                    paths.push(path.clone());
                }
                let inner = items
                    .iter()
                    .filter(|item| item.is_object() || item.is_array());
                stack.extend(inner.map(|item| (path.clone(), item, level + 1)));
            }
            Value::Object(members) => {
                if !paths.contains(&path) {
                    paths.push(path.clone());
                }
                for (key, value) in members {
                    stack.push((format!("{path}.{key}"), value, level + 1));
                }
            }
            _ => {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    (paths, complete)
}
