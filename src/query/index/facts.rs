//! What an index keeps of a span.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    EVALUATION, EXACT, FEEDBACK, MAX_VALUE, Marker, PRESENT, RESERVED, Side, is_grouped,
    keeps_number_text, long_key, number_column, number_key, present_key, text_key,
    text_number_column, verdict_columns,
};
use crate::model::{Assessment, Evaluation, Span};
use crate::query::SpanContext;
use crate::query::facets::{self, FacetValue};
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
pub struct Facts {
    /// Exact keys, each once.
    pub keys: BTreeSet<String>,
    /// Numbers by column.
    pub numbers: Vec<(String, f64)>,
    /// Values to group by, by column; each once.
    pub groups: Vec<(String, String)>,
}

/// The facts of a span, with the evaluations that stand on it.
pub fn facts(span: &Span) -> Facts {
    let mut collector = Collector {
        context: SpanContext::of(span),
        facts: Facts::default(),
    };
    let mut names: BTreeSet<&str> = EXACT.iter().copied().collect();
    collector.tag_names(span, &mut names);
    let metrics: Vec<String> = span
        .metrics
        .keys()
        .map(|key| format!("metrics.{key}"))
        .collect();
    names.extend(metrics.iter().map(String::as_str));
    let metadata = collector.paths(&span.metadata, "meta.metadata.", Marker::Metadata);
    names.extend(metadata.iter().map(String::as_str));
    let extra = collector.paths(&span.extra, "", Marker::Free);
    names.extend(extra.iter().map(String::as_str));
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
    facts: Facts,
}

impl<'a> Collector<'a> {
    fn mark(&mut self, marker: Marker) {
        self.facts.keys.insert(marker.key().to_owned());
    }

    /// The names by which the span's tags may be asked for.
    fn tag_names(&mut self, span: &'a Span, names: &mut BTreeSet<&'a str>) {
        for tag in &span.tags {
            for (count, (colon, _)) in tag.match_indices(':').enumerate() {
                let Some(name) = tag.get(..colon).filter(|name| !name.is_empty()) else {
                    continue;
                };
                if count >= MAX_COLONS || names.len() >= MAX_TAG_NAMES {
                    self.mark(Marker::Free);
                    break;
                }
                if RESERVED.iter().any(|family| name.starts_with(family)) && !EXACT.contains(&name)
                {
                    self.mark(Marker::Reserved);
                } else {
                    names.insert(name);
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

    fn put_exact(&mut self, name: &str) {
        let attribute = facets::of_attribute(name, &self.context);
        let tag = facets::of_tag(name, &self.context);
        if attribute == tag {
            self.put_values(Side::Both, name, &attribute);
        } else {
            self.put_values(Side::Attribute, name, &attribute);
            self.put_values(Side::Tag, name, &tag);
        }
    }

    fn put_values(&mut self, side: Side, name: &str, values: &[FacetValue<'_>]) {
        let sided = side.of(name);
        let grouped = is_grouped(name);
        for value in values {
            self.put_value(&sided, name, value);
            if grouped && value.is_present() {
                self.put_group(&sided, value);
            }
        }
    }

    fn put_value(&mut self, sided: &str, name: &str, value: &FacetValue<'_>) {
        let facts = &mut self.facts;
        if value.is_present() {
            facts.keys.insert(present_key(sided));
        }
        match value {
            FacetValue::Text(text) => {
                if text.len() <= MAX_VALUE {
                    facts.keys.insert(text_key(sided, text));
                } else {
                    facts.keys.insert(long_key(sided));
                }
                if let Some(number) = decimal(text) {
                    facts.numbers.push((text_number_column(sided), number));
                }
            }
            FacetValue::Number { text, value, .. } => {
                if keeps_number_text(name) {
                    facts.keys.insert(number_key(sided, text));
                }
                if value.is_finite() {
                    facts.numbers.push((number_column(sided), *value));
                }
            }
            FacetValue::Present => {}
        }
    }

    fn put_group(&mut self, sided: &str, value: &FacetValue<'_>) {
        let text = match value {
            FacetValue::Text(text) => text.as_ref(),
            FacetValue::Number { text, .. } => text.as_str(),
            FacetValue::Present => "(present)",
        };
        let groups = &mut self.facts.groups;
        if !groups
            .iter()
            .any(|(by, value)| by == sided && value == text)
        {
            groups.push((sided.to_owned(), text.to_owned()));
        }
    }

    fn put_present(&mut self, name: &str) {
        let sides = [
            (Side::Attribute, facets::of_attribute(name, &self.context)),
            (Side::Tag, facets::of_tag(name, &self.context)),
        ];
        let presence = |values: &[FacetValue<'_>]| {
            (values.iter().any(FacetValue::is_present), values.is_empty())
        };
        let [(_, attribute), (_, tag)] = &sides;
        if presence(attribute) == presence(tag) {
            self.put_presence(&Side::Both.of(name), attribute);
        } else {
            for (side, values) in &sides {
                self.put_presence(&side.of(name), values);
            }
        }
    }

    fn put_presence(&mut self, sided: &str, values: &[FacetValue<'_>]) {
        if values.iter().any(FacetValue::is_present) {
            self.facts.keys.insert(present_key(sided));
        } else if !values.is_empty() {
            // Empty text is no presence, but a value that a pattern may accept.
            self.facts.keys.insert(text_key(sided, ""));
        }
    }

    fn put_judgements(&mut self, judgements: &BTreeMap<String, Evaluation>, family: &str) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (label, judgement) in judgements {
            let [score, passed] = verdict_columns(judgement.event_kind, label);
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
            for value in &values {
                self.put_value(&kept, &kept, value);
            }
        }
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
