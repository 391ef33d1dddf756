//! `group_by`: facets, tags and buckets, in each form that models send.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::tools::answer::Notes;
use crate::tools::error::ToolError;
use crate::tools::spans::searching::check_query;
use llmobs_core::analysis::aggregate::{Bucket, Dimension};
use llmobs_core::query::{self, Field};

const MAX_DIMENSIONS: usize = 3;
const MAX_BUCKETS: usize = 10;

/// Names that models send for a facet, and the facet.
const FACET_ALIASES: &[(&str, &str)] = &[
    ("model", "@meta.model_name"),
    ("model_name", "@meta.model_name"),
    ("model_provider", "@meta.model_provider"),
    ("kind", "@meta.span.kind"),
    ("span_kind", "@meta.span.kind"),
    ("span_name", "@name"),
    ("error_type", "@meta.error.type"),
    ("error.type", "@meta.error.type"),
    ("prompt.id", "@meta.input.prompt.id"),
    ("prompt.version", "@meta.input.prompt.version"),
];

/// Facets as text and buckets as objects. Text that is a query is a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupBy(Vec<Grouping>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Grouping {
    Facet(String),
    Bucket(Bucket),
}

impl JsonSchema for GroupBy {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("GroupBy")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"anyOf": [
            {"type": "string"},
            {"type": "object", "properties": {
                "name": {"type": "string"}, "query": {"type": "string"}}}
        ]}})
    }
}

impl<'de> Deserialize<'de> for GroupBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = list_items(Value::deserialize(deserializer)?);
        let groupings: Option<Vec<Grouping>> = items.iter().map(read_grouping).collect();
        groupings.map(Self).ok_or_else(|| {
            D::Error::custom(
                "expected a list of facets, tags or buckets such as [\"@meta.model_name\", \"env\", \
                 {\"name\": \"slow\", \"query\": \"@duration:>5s\"}]",
            )
        })
    }
}

/// The items of an array, of its JSON text, of text with commas, or the single value itself.
pub(super) fn list_items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(parsed @ (Value::Array(_) | Value::Object(_))) => list_items(parsed),
            // A query may contain commas. A list of names contains no colon.
            _ if text.contains(':') => vec![Value::String(text)],
            _ => {
                let names = text.split(',').map(str::trim);
                names
                    .filter(|name| !name.is_empty())
                    .map(Value::from)
                    .collect()
            }
        },
        other => vec![other],
    }
}

fn read_grouping(item: &Value) -> Option<Grouping> {
    let bucket = |name: &str, query: &str| {
        Grouping::Bucket(Bucket {
            name: name.to_owned(),
            query: query.to_owned(),
        })
    };
    match item {
        Value::String(text) if text.contains(':') && Field::parse(text).is_err() => {
            Some(bucket(text, text))
        }
        Value::String(text) => Some(Grouping::Facet(text.trim().to_owned())),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::trim);
            if let Some(query) = text("query").filter(|query| !query.is_empty()) {
                return Some(bucket(text("name").unwrap_or(query), query));
            }
            ["facet", "tag", "field", "name"]
                .into_iter()
                .find_map(text)
                .map(|name| Grouping::Facet(name.to_owned()))
        }
        _ => None,
    }
}

impl GroupBy {
    /// The dimensions: each facet once, and all buckets as one dimension.
    pub(super) fn dimensions(self, notes: &mut Notes) -> Result<Vec<Dimension>, ToolError> {
        let mut dimensions: Vec<Dimension> = Vec::new();
        for grouping in self.0 {
            match grouping {
                Grouping::Facet(name) => {
                    let facet = Dimension::Facet(read_facet(&name, notes)?);
                    if !dimensions.contains(&facet) {
                        dimensions.push(facet);
                    }
                }
                Grouping::Bucket(bucket) => {
                    check_query("the query of a bucket", &bucket.query, notes)?;
                    add_bucket(&mut dimensions, bucket)?;
                }
            }
        }
        let too_many_buckets = dimensions.iter().any(|dimension| {
            matches!(dimension, Dimension::Buckets(buckets) if buckets.len() > MAX_BUCKETS)
        });
        if dimensions.len() > MAX_DIMENSIONS || too_many_buckets {
            return Err(ToolError::arguments(
                format!(
                    "group_by has at most {MAX_DIMENSIONS} facets or tags; up to {MAX_BUCKETS} \
                     buckets count as one"
                ),
                "leave some out, or put them into query as filters",
            ));
        }
        Ok(dimensions)
    }
}

fn add_bucket(dimensions: &mut Vec<Dimension>, bucket: Bucket) -> Result<(), ToolError> {
    let buckets = dimensions.iter_mut().find_map(|dimension| match dimension {
        Dimension::Buckets(buckets) => Some(buckets),
        Dimension::Facet(_) => None,
    });
    match buckets {
        Some(buckets) if buckets.iter().any(|other| other.name == bucket.name) => {
            return Err(ToolError::arguments(
                "two buckets have the same name",
                "give each bucket a unique name",
            ));
        }
        Some(buckets) => buckets.push(bucket),
        None => dimensions.push(Dimension::Buckets(vec![bucket])),
    }
    Ok(())
}

fn read_facet(name: &str, notes: &mut Notes) -> Result<String, ToolError> {
    let bare = name.trim_start_matches('@');
    let name = match FACET_ALIASES.iter().find(|(alias, _)| *alias == bare) {
        Some((_, facet)) => {
            notes.add(format!("group_by {bare} was read as {facet}"));
            (*facet).to_owned()
        }
        None => name.to_owned(),
    };
    let field = Field::parse(&name).map_err(|error| {
        ToolError::arguments(
            format!("group_by is not valid: {}", error.message),
            "facets are @meta.model_name, @meta.input.prompt.version, @name, @status; tags are \
             env, version",
        )
    })?;
    if matches!(field, Field::Child(_)) || field.name().starts_with("trace.") {
        return Err(ToolError::arguments(
            "group_by does not accept @child and @trace facets",
            "use unit trace with the facet of the span itself, or a {name, query} bucket such as \
             {\"name\": \"many calls\", \"query\": \"@trace.llm_calls:>5\"}",
        ));
    }
    if let Ok(parsed) = query::parse(&format!("{name}:*")) {
        notes.extend(parsed.warnings());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!(["@meta.model_name", {"name": "slow", "query": "@duration:>5s"}]))]
    #[case(json!("[\"@meta.model_name\", {\"name\": \"slow\", \"query\": \"@duration:>5s\"}]"))]
    #[case(json!(["model_name", {"query": "@duration:>5s", "name": " slow "}]))]
    fn every_form_of_group_by_reads_the_same(#[case] form: Value) {
        let group_by: GroupBy = serde_json::from_value(form).unwrap();
        let bucket = Bucket {
            name: "slow".into(),
            query: "@duration:>5s".into(),
        };
        assert_eq!(
            group_by.dimensions(&mut Notes::default()).unwrap(),
            [
                Dimension::Facet("@meta.model_name".into()),
                Dimension::Buckets(vec![bucket])
            ]
        );
    }

    #[test]
    fn text_is_a_facet_or_a_query() {
        let read = |value: Value| serde_json::from_value::<GroupBy>(value).unwrap().0;
        let facet = |name: &str| Grouping::Facet(name.into());
        assert_eq!(
            read(json!("env, version")),
            [facet("env"), facet("version")]
        );
        assert_eq!(read(json!({"facet": "@name"})), [facet("@name")]);
        for (value, query) in [
            (json!("@status:error OR a, b"), "@status:error OR a, b"),
            (json!(["@status:error"]), "@status:error"),
        ] {
            let bucket = Bucket {
                name: query.into(),
                query: query.into(),
            };
            assert_eq!(read(value), [Grouping::Bucket(bucket)]);
        }
        assert!(serde_json::from_value::<GroupBy>(json!([17])).is_err());
    }
}
