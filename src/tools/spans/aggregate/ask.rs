//! The arguments of an aggregation, as models really send them, made one question.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Arguments, DEFAULT_LIMIT, MAX_LIMIT, NAME, example};
use crate::tools::ToolError;
use crate::tools::answer::Notes;
use crate::tools::args;
use llmobs_core::analysis::aggregate::{AggregateRequest, Bucket, Dimension, Measure, Unit};
use llmobs_core::query::{self, Field};

const MAX_DIMENSIONS: usize = 3;
const MAX_BUCKETS: usize = 10;
const MAX_MEASURES: usize = 16;
/// Time buckets of one question.
const MAX_TIMES: i64 = 1_000;

/// What callers write for a facet, and the facet.
const MEANT: &[(&str, &str)] = &[
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

/// Names in a list: an array, its JSON text, or text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names(pub(super) Vec<String>);

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Names")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"type": "string"}})
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = listed(Value::deserialize(deserializer)?);
        let names: Option<Vec<String>> = items
            .iter()
            .map(|item| Some(item.as_str()?.trim().to_owned()))
            .collect();
        names.map(Self).ok_or_else(|| {
            D::Error::custom(
                "expected a list of names such as [\"count\", \"duration.p95\", \"cost.sum\"]",
            )
        })
    }
}

/// What to group by: a facet as text, or a bucket as an object; a text that is a query is a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupBy(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
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
        let items = listed(Value::deserialize(deserializer)?);
        let parts: Option<Vec<Part>> = items.iter().map(part).collect();
        parts.map(Self).ok_or_else(|| {
            D::Error::custom(
                "expected a list of facets, tags or buckets such as [\"@meta.model_name\", \"env\", \
                 {\"name\": \"slow\", \"query\": \"@duration:>5s\"}]",
            )
        })
    }
}

/// The items of a list, of its JSON text, of text with commas, or the one value itself.
fn listed(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(read @ (Value::Array(_) | Value::Object(_))) => listed(read),
            // A query may hold commas; a list of names holds no colon.
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

fn part(item: &Value) -> Option<Part> {
    let bucket = |name: &str, query: &str| {
        Part::Bucket(Bucket {
            name: name.to_owned(),
            query: query.to_owned(),
        })
    };
    match item {
        Value::String(text) if text.contains(':') && Field::parse(text).is_err() => {
            Some(bucket(text, text))
        }
        Value::String(text) => Some(Part::Facet(text.trim().to_owned())),
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::trim);
            if let Some(query) = text("query").filter(|query| !query.is_empty()) {
                return Some(bucket(text("name").unwrap_or(query), query));
            }
            ["facet", "tag", "field", "name"]
                .into_iter()
                .find_map(text)
                .map(|name| Part::Facet(name.to_owned()))
        }
        _ => None,
    }
}

/// The question that the arguments ask.
pub(super) fn question(
    arguments: &Arguments,
    now_ms: i64,
    notes: &mut Notes,
) -> Result<AggregateRequest, ToolError> {
    let text = |value: &Option<args::Text>| value.as_ref().map(|text| text.0.clone());
    let window = args::window(
        NAME,
        arguments.from.as_ref(),
        arguments.to.as_ref(),
        "now-1d",
        now_ms,
        example,
    )?;
    let query = text(&arguments.query).filter(|query| query != "*");
    if let Some(query) = &query {
        readable("query", query, notes)?;
    }
    let interval_ms = match text(&arguments.interval) {
        None => None,
        Some(text) => Some(interval(&text, window.to_ms - window.from_ms)?),
    };
    let asked = arguments.limit.map_or(DEFAULT_LIMIT, |count| count.0);
    if asked > MAX_LIMIT {
        notes.add(format!(
            "limit was brought down to {MAX_LIMIT}; next_cursor leads to the rest"
        ));
    }
    Ok(AggregateRequest {
        query,
        ml_app: text(&arguments.ml_app),
        tags: arguments.tags.clone().unwrap_or_default().0,
        window,
        unit: unit(text(&arguments.unit).as_deref())?,
        group_by: match &arguments.group_by {
            Some(parts) => dimensions(parts, notes)?,
            None => Vec::new(),
        },
        measures: measures(arguments.measures.as_ref())?,
        interval_ms,
        offset: 0,
        limit: asked.clamp(1, MAX_LIMIT),
    })
}

fn unit(text: Option<&str>) -> Result<Unit, ToolError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("span" | "spans") => Ok(Unit::Span),
        Some("trace" | "traces") => Ok(Unit::Trace),
        Some(_) => Err(wrong("unit is span or trace", "say what is counted")),
    }
}

fn wrong(what: impl Into<String>, hint: &str) -> ToolError {
    ToolError::arguments(what, hint).example(NAME, example())
}

/// Refuses a query that would break out of its place; notes what it will silently not find.
fn readable(argument: &str, query: &str, notes: &mut Notes) -> Result<(), ToolError> {
    query::check_balance(query).map_err(|error| {
        wrong(
            format!("{argument} cannot be sent: {error}"),
            "close every quote and bracket; quote values that hold blanks or colons",
        )
    })?;
    match query::parse(query) {
        Ok(parsed) => notes.extend(parsed.warnings()),
        Err(error) => notes.add(format!(
            "{argument} was sent as it is, though this server cannot read it: {error}"
        )),
    }
    Ok(())
}

fn dimensions(parts: &GroupBy, notes: &mut Notes) -> Result<Vec<Dimension>, ToolError> {
    let mut dimensions: Vec<Dimension> = Vec::new();
    for part in &parts.0 {
        match part {
            Part::Facet(name) => {
                let facet = Dimension::Facet(facet(name, notes)?);
                if !dimensions.contains(&facet) {
                    dimensions.push(facet);
                }
            }
            Part::Bucket(bucket) => {
                readable("a bucket's query", &bucket.query, notes)?;
                let known = dimensions.iter_mut().find_map(|dimension| match dimension {
                    Dimension::Buckets(buckets) => Some(buckets),
                    Dimension::Facet(_) => None,
                });
                match known {
                    Some(buckets) if buckets.iter().any(|other| other.name == bucket.name) => {
                        return Err(wrong(
                            "two buckets have the same name",
                            "give each bucket a name of its own",
                        ));
                    }
                    Some(buckets) => buckets.push(bucket.clone()),
                    None => dimensions.push(Dimension::Buckets(vec![bucket.clone()])),
                }
            }
        }
    }
    let too_many = dimensions
        .iter()
        .any(|dimension| matches!(dimension, Dimension::Buckets(all) if all.len() > MAX_BUCKETS));
    if dimensions.len() > MAX_DIMENSIONS || too_many {
        return Err(wrong(
            format!(
                "group_by takes at most {MAX_DIMENSIONS} facets or tags, of which one may be up to {MAX_BUCKETS} buckets"
            ),
            "leave some out, or put them into query as filters",
        ));
    }
    Ok(dimensions)
}

fn facet(name: &str, notes: &mut Notes) -> Result<String, ToolError> {
    let bare = name.trim_start_matches('@');
    let meant = MEANT.iter().find(|(written, _)| *written == bare);
    let name = match meant {
        Some((_, facet)) => {
            notes.add(format!("group_by {bare} was read as {facet}"));
            (*facet).to_owned()
        }
        None => name.to_owned(),
    };
    let hint = "facets are @meta.model_name, @meta.input.prompt.version, @name, @status; tags are env, version";
    let field = Field::parse(&name)
        .map_err(|error| wrong(format!("group_by cannot be read: {}", error.message), hint))?;
    if matches!(field, Field::Child(_)) || field.name().starts_with("trace.") {
        return Err(wrong(
            "group_by cannot take @child and @trace facets",
            "use unit trace with the facet of the span itself, or a {name, query} bucket such as \
             {\"name\": \"many calls\", \"query\": \"@trace.llm_calls:>5\"}",
        ));
    }
    if let Ok(parsed) = query::parse(&format!("{name}:*")) {
        notes.extend(parsed.warnings());
    }
    Ok(name)
}

fn measures(names: Option<&Names>) -> Result<Vec<Measure>, ToolError> {
    let Some(Names(names)) = names else {
        return Ok(vec![Measure::Count, Measure::ErrorRate]);
    };
    let mut measures: Vec<Measure> = Vec::new();
    for name in names {
        let family = Measure::family(name).map_err(|error| {
            wrong(
                format!("one of the measures is not known: {error}"),
                "name measures as in the example",
            )
        })?;
        for measure in family {
            if !measures.contains(&measure) {
                measures.push(measure);
            }
        }
    }
    if measures.len() > MAX_MEASURES {
        return Err(wrong(
            format!("there are more than {MAX_MEASURES} measures"),
            "ask for fewer at a time",
        ));
    }
    Ok(measures)
}

/// Reads `1h`, `15m`, `1 day`, `hour`: a time bucket in milliseconds.
fn interval(text: &str, window_ms: i64) -> Result<i64, ToolError> {
    let refuse = |what: String| {
        ToolError::arguments(what, "intervals are 15m, 1h, 1d or 1w; a day has 24 hours").example(
            NAME,
            json!({"ml_app": "my-app", "from": "now-7d", "interval": "1d",
                "measures": ["count", "evaluation.correctness.mean"]}),
        )
    };
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (amount, unit) = text
        .split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, ""));
    let unit = unit.trim();
    let unit_ms = match unit.to_ascii_lowercase().as_str() {
        // A month has no length of its own, and is no minute.
        _ if unit == "M" => None,
        "s" | "sec" | "second" | "seconds" => Some(1_000),
        "m" | "min" | "minute" | "minutes" => Some(60_000),
        "h" | "hr" | "hour" | "hours" => Some(3_600_000),
        "d" | "day" | "days" => Some(86_400_000),
        "w" | "week" | "weeks" => Some(604_800_000_i64),
        _ => None,
    };
    let amount = if amount.is_empty() {
        Ok(1)
    } else {
        amount.parse()
    };
    let length = match (amount, unit_ms) {
        (Ok(amount @ 1_i64..), Some(unit_ms)) => amount.checked_mul(unit_ms),
        _ => None,
    };
    let length = length.ok_or_else(|| refuse("interval cannot be read".to_owned()))?;
    if window_ms / length >= MAX_TIMES {
        return Err(refuse(format!(
            "interval makes more than {MAX_TIMES} time buckets of this window"
        )));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1h", Some(3_600_000))]
    #[case("15m", Some(900_000))]
    #[case("30s", Some(30_000))]
    #[case(" 1 day ", Some(86_400_000))]
    #[case("hour", Some(3_600_000))]
    #[case("2W", Some(1_209_600_000))]
    #[case("", None)]
    #[case("0h", None)]
    #[case("5", None)]
    #[case("1M", None)]
    #[case("99999999999999999999d", None)]
    #[case("é", None)]
    fn an_interval_is_an_amount_of_time(#[case] text: &str, #[case] expected: Option<i64>) {
        assert_eq!(interval(text, 3_600_000).ok(), expected);
    }

    #[rstest]
    #[case(json!(["@meta.model_name", {"name": "slow", "query": "@duration:>5s"}]))]
    #[case(json!("[\"@meta.model_name\", {\"name\": \"slow\", \"query\": \"@duration:>5s\"}]"))]
    #[case(json!(["model_name", {"query": "@duration:>5s", "name": " slow "}]))]
    fn every_spelling_of_groups_reads_the_same(#[case] spelling: Value) {
        let parts: GroupBy = serde_json::from_value(spelling).unwrap();
        let bucket = Bucket {
            name: "slow".into(),
            query: "@duration:>5s".into(),
        };
        assert_eq!(
            dimensions(&parts, &mut Notes::default()).unwrap(),
            [
                Dimension::Facet("@meta.model_name".into()),
                Dimension::Buckets(vec![bucket])
            ]
        );
    }

    #[test]
    fn texts_are_facets_or_queries() {
        let read = |value: Value| serde_json::from_value::<GroupBy>(value).unwrap().0;
        assert_eq!(
            read(json!("env, version")),
            [Part::Facet("env".into()), Part::Facet("version".into())]
        );
        assert_eq!(
            read(json!({"facet": "@name"})),
            [Part::Facet("@name".into())]
        );
        let Part::Bucket(bucket) = &read(json!("@status:error OR a, b"))[0] else {
            panic!("a query is a bucket");
        };
        assert_eq!(bucket.query, "@status:error OR a, b");
        let Part::Bucket(bucket) = &read(json!(["@status:error"]))[0] else {
            panic!("a term is a bucket");
        };
        assert_eq!(
            (&*bucket.name, &*bucket.query),
            ("@status:error", "@status:error")
        );
        assert!(serde_json::from_value::<GroupBy>(json!([17])).is_err());
    }
}
