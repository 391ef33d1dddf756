//! What an index keeps of a span.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value};

use super::{
    EVALUATION, EXACT, FEEDBACK, MAX_VALUE, Marker, PRESENT, RESERVED, Side, evaluation_columns,
    is_grouped, keeps_number_text, long_key, number_column, number_key, present_key, text_key,
    text_number_column,
};
use crate::model::{Assessment, Evaluation, Span};
use crate::query::SpanContext;
use crate::query::facets::{self, FacetValue, Sides};
use crate::query::number::decimal;

/// Paths kept of one free-form object.
const MAX_PATHS: usize = 96;

/// Levels of a free-form object that paths lead through.
const MAX_LEVELS: usize = 12;

/// Names of tags kept of one span.
const MAX_TAG_NAMES: usize = 256;

/// Colons of a tag at which its name may end.
const MAX_COLONS: usize = 6;

/// What an index keeps of a span, beside the words of its text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IndexDocument<'a> {
    /// Exact keys.
    pub keys: KeyList,
    /// Numbers by column.
    pub numbers: Vec<(String, f64)>,
    /// Values to group by, by column; each once.
    pub groups: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Exact keys, one behind the other in one text: a span has a hundred of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyList {
    text: String,
    ends: Vec<usize>,
}

impl KeyList {
    fn add(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
        self.ends.push(self.text.len());
    }

    /// The keys; one may come twice.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let bounds = starts.zip(&self.ends);
        bounds.map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }

    /// Whether a key is among them.
    pub fn contains(&self, key: &str) -> bool {
        self.iter().any(|kept| kept == key)
    }
}

/// The facts of a span, with the evaluations that stand on it.
pub fn index_document(span: &Span) -> IndexDocument<'_> {
    let mut collector = Collector {
        context: SpanContext::without_trace(span),
        facts: IndexDocument::default(),
        marked: Vec::new(),
    };
    let mut names: Vec<Cow<'_, str>> = EXACT.iter().copied().map(Cow::Borrowed).collect();
    collector.tag_names(span, &mut names);
    let metrics = span.metrics.keys();
    names.extend(metrics.map(|key| Cow::Owned(["metrics.", key].concat())));
    let metadata = collector.paths(&span.metadata, "meta.metadata.", Marker::Metadata);
    names.extend(metadata.into_iter().map(Cow::Owned));
    let extra = collector.paths(&span.extra, "", Marker::Free);
    for name in extra.into_iter().map(Cow::Owned) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        collector.put_exact(name);
    }
    for name in PRESENT {
        collector.put_present(name);
    }
    collector.put_judgements(&span.evaluations, EVALUATION);
    collector.put_judgements(&span.feedback, FEEDBACK);
    collector.facts
}

struct Collector<'a> {
    context: SpanContext<'a>,
    facts: IndexDocument<'a>,
    /// The markers that are among the keys.
    marked: Vec<Marker>,
}

impl<'a> Collector<'a> {
    fn mark(&mut self, marker: Marker) {
        if !self.marked.contains(&marker) {
            self.marked.push(marker);
            self.facts.keys.add(&[marker.key()]);
        }
    }

    /// Adds the names by which the span's tags may be asked for, each once.
    fn tag_names(&mut self, span: &'a Span, names: &mut Vec<Cow<'a, str>>) {
        for tag in &span.tags {
            for (count, (colon, _)) in tag.match_indices(':').enumerate() {
                let Some(name) = tag.get(..colon).filter(|name| !name.is_empty()) else {
                    continue;
                };
                if count >= MAX_COLONS || names.len() >= MAX_TAG_NAMES {
                    self.mark(Marker::Free);
                    break;
                }
                if names.iter().any(|known| known == name) {
                    continue;
                }
                if RESERVED.iter().any(|family| name.starts_with(family)) {
                    self.mark(Marker::Reserved);
                } else {
                    names.push(Cow::Borrowed(name));
                }
            }
        }
    }

    /// All dotted paths into a free-form object, under a prefix.
    fn paths(&mut self, map: &Map<String, Value>, prefix: &str, marker: Marker) -> Vec<String> {
        let (paths, whole) = paths_of(map, prefix);
        if !whole {
            self.mark(marker);
        }
        paths
    }

    fn put_exact(&mut self, name: Cow<'a, str>) {
        match facets::of_both(&name, &self.context) {
            Sides::Same(values) => self.put_values(Side::Both, name, &values),
            Sides::Different { attribute, tag } => {
                self.put_values(Side::Attribute, name.clone(), &attribute);
                self.put_values(Side::Tag, name, &tag);
            }
        }
    }

    fn put_values(&mut self, side: Side, name: Cow<'a, str>, values: &[FacetValue<'a>]) {
        if values.is_empty() {
            return;
        }
        let grouped = is_grouped(&name);
        let measured = !keeps_number_text(&name);
        let sided = match side {
            Side::Both => name,
            side => Cow::Owned(side.of(&name).into_owned()),
        };
        self.put_presence(&sided, values);
        let mut seen = HashSet::new();
        for value in values {
            self.put_value(&sided, measured, value);
            if grouped && value.is_present() {
                let text = group_of(value);
                if values.len() == 1 || seen.insert(text.clone()) {
                    self.facts.groups.push((sided.clone(), text));
                }
            }
        }
    }

    /// `measured`: a number is only compared, never looked for as it is written.
    fn put_value(&mut self, sided: &str, measured: bool, value: &FacetValue<'_>) {
        let facts = &mut self.facts;
        match value {
            FacetValue::Text(text) => {
                if text.len() <= MAX_VALUE {
                    facts.keys.add(&text_key(sided, text));
                } else {
                    facts.keys.add(&long_key(sided));
                }
                if let Some(number) = decimal(text) {
                    facts.numbers.push((text_number_column(sided), number));
                }
            }
            FacetValue::Number { number, .. } => {
                if !measured {
                    facts.keys.add(&number_key(sided, &number.to_string()));
                }
                let value = number.value();
                if value.is_finite() {
                    facts.numbers.push((number_column(sided), value));
                }
            }
            FacetValue::Present => {}
        }
    }

    fn put_present(&mut self, name: &str) {
        let presence = |values: &[FacetValue<'_>]| {
            (values.iter().any(FacetValue::is_present), values.is_empty())
        };
        match facets::of_both(name, &self.context) {
            Sides::Same(values) => self.put_presence(&Side::Both.of(name), &values),
            Sides::Different { attribute, tag } if presence(&attribute) == presence(&tag) => {
                self.put_presence(&Side::Both.of(name), &attribute);
            }
            Sides::Different { attribute, tag } => {
                self.put_presence(&Side::Attribute.of(name), &attribute);
                self.put_presence(&Side::Tag.of(name), &tag);
            }
        }
    }

    fn put_presence(&mut self, sided: &str, values: &[FacetValue<'_>]) {
        if values.iter().any(FacetValue::is_present) {
            self.facts.keys.add(&present_key(sided));
        } else if !values.is_empty() {
            // Empty text is no presence, but a value that a pattern may accept.
            self.facts.keys.add(&text_key(sided, ""));
        }
    }

    fn put_judgements(&mut self, judgements: &BTreeMap<String, Evaluation>, family: &str) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (label, judgement) in judgements {
            let [score, passed] = evaluation_columns(judgement.event_kind, label);
            let assessed = judgement
                .assessment
                .map(|verdict| verdict == Assessment::Pass);
            let assessed = assessed.map(|passed| if passed { 1.0 } else { 0.0 });
            let numbers = [(score, judgement.score()), (passed, assessed)];
            let known = numbers
                .into_iter()
                .filter_map(|(column, value)| Some((column, value?)));
            self.facts
                .numbers
                .extend(known.filter(|(_, value)| value.is_finite()));
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
            names.extend(self.paths(&judgement.metadata, &metadata, Marker::Evaluations));
            if let Some(value) = &judgement.value
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
            let values = facets::judgement(&name, judgements);
            let kept = format!("{family}{name}");
            self.put_presence(&kept, &values);
            for value in &values {
                self.put_value(&kept, true, value);
            }
        }
    }
}

/// A value as a group.
fn group_of<'a>(value: &FacetValue<'a>) -> Cow<'a, str> {
    match value {
        FacetValue::Text(text) => text.clone(),
        FacetValue::Number { number, .. } => Cow::Owned(number.to_string()),
        FacetValue::Present => Cow::Borrowed("(present)"),
    }
}

/// All paths by which [`crate::query::json::at_path`] finds something, and whether those are all.
fn paths_of(map: &Map<String, Value>, prefix: &str) -> (Vec<String>, bool) {
    let mut paths = Vec::new();
    let mut whole = true;
    let mut open: Vec<(String, &Value, usize)> = Vec::new();
    for (key, value) in map {
        open.push((format!("{prefix}{key}"), value, 0));
    }
    while let Some((path, value, level)) = open.pop() {
        if level > MAX_LEVELS
            || open.len() + paths.len() > MAX_PATHS * 4
            || paths.len() >= MAX_PATHS
        {
            whole = false;
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
                open.extend(inner.map(|item| (path.clone(), item, level + 1)));
            }
            Value::Object(members) => {
                if !paths.contains(&path) {
                    paths.push(path.clone());
                }
                for (key, value) in members {
                    open.push((format!("{path}.{key}"), value, level + 1));
                }
            }
            _ => {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    (paths, whole)
}
