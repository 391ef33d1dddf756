//! Arguments, as models really send them.
//!
//! Models write numbers as text, lists as JSON text or with commas, tags as `["k:v"]`, times as
//! bare integers, and `null` for what they leave out. All of it is taken; what cannot be is
//! refused with the argument's name, what was expected and a call that works.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::ToolError;
use crate::render;
use llmobs_core::analysis::candidates::closest;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::time;

/// Reads the arguments of a reading tool. Unknown keys are ignored: skills send a few that only
/// their own helpers know.
pub(super) fn parse<A: DeserializeOwned>(
    tool: &str,
    mut arguments: Map<String, Value>,
) -> Result<A, ToolError> {
    strip_intent(&mut arguments);
    arguments.retain(|_, value| !is_blank(value));
    let id = |key: &str| arguments.get(key).and_then(text_of);
    let (trace_id, experiment_id) = (id("trace_id"), id("experiment_id"));
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        let message = if path == "." {
            format!("the arguments of {tool} cannot be read: {inner}")
        } else {
            format!("argument `{path}` of {tool} cannot be read: {inner}")
        };
        let error = ToolError::arguments(message, "");
        match experiment_id {
            Some(id) => ToolError {
                hint: "mend that argument; get_llmobs_experiment_summary shows the metrics and \
                       dimensions there are"
                    .to_owned(),
                ..error
            }
            .example(
                "get_llmobs_experiment_summary",
                json!({"experiment_id": render::candidate(&id)}),
            ),
            None if ["experiment", "dataset", "project"]
                .into_iter()
                .any(|family| tool.contains(family)) =>
            {
                ToolError {
                    hint: "mend that argument; list_llmobs_projects begins the way to its ids"
                        .to_owned(),
                    ..error
                }
                .example("list_llmobs_projects", json!({}))
            }
            None => call_that_works(error, trace_id.as_deref()),
        }
    })
}

/// Reads the arguments of a writing tool. A key that the tool does not know is refused: what was
/// meant to be written would be lost without a word.
pub(super) fn parse_strict<A: DeserializeOwned + JsonSchema>(
    tool: &str,
    mut arguments: Map<String, Value>,
    example: Value,
) -> Result<A, ToolError> {
    strip_intent(&mut arguments);
    arguments.retain(|_, value| !value.is_null());
    let schema = schema::<A>();
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .filter(|key| *key != "telemetry")
        .collect();
    if let Some(key) = arguments.keys().find(|key| !known.contains(&key.as_str())) {
        let meant = closest(key, known.iter().copied());
        let hint = meant.map_or_else(
            || format!("its arguments are {}", known.join(", ")),
            |meant| {
                format!(
                    "`{meant}` was probably meant; its arguments are {}",
                    known.join(", ")
                )
            },
        );
        let key = render::candidate(key);
        return Err(ToolError::arguments(
            format!("{tool} has no argument `{key}`; nothing was written"),
            hint,
        )
        .example(tool, example));
    }
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        let message = match path.as_str() {
            "." => format!("the arguments of {tool} cannot be read: {inner}; nothing was written"),
            path => {
                format!("argument `{path}` of {tool} cannot be read: {inner}; nothing was written")
            }
        };
        ToolError::arguments(message, "mend that argument and send the call again")
            .example(tool, example)
    })
}

/// What a caller whose arguments cannot be read should call instead: the overview of the trace it
/// asked about, or a search that finds one.
fn call_that_works(error: ToolError, trace_id: Option<&str>) -> ToolError {
    let (hint, tool, arguments) = match trace_id {
        Some(id) => (
            "mend that argument; get_llmobs_trace shows the spans there are",
            "get_llmobs_trace",
            json!({"trace_id": render::candidate(id)}),
        ),
        None => (
            "mend that argument; search_llmobs_spans finds the ids there are",
            "search_llmobs_spans",
            json!({"root_spans_only": true, "from": "now-7d", "limit": 20}),
        ),
    };
    ToolError {
        hint: hint.to_owned(),
        ..error
    }
    .example(tool, arguments)
}

/// Takes out the intent block that clients add to every call; it is never part of a question.
pub(super) fn strip_intent(arguments: &mut Map<String, Value>) {
    arguments.remove("telemetry");
    if arguments.get("intent").is_some_and(Value::is_string) {
        arguments.remove("intent");
    }
}

/// `null` and blank text mean "not given".
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// The JSON Schema of an arguments struct, in the form that every client takes.
pub(super) fn schema<A: JsonSchema>() -> Map<String, Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generated = settings.into_generator().into_root_schema_for::<A>();
    let Value::Object(mut schema) = plain(generated.to_value()) else {
        return Map::new();
    };
    schema.remove("title");
    schema.remove("description");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(
            "telemetry".to_owned(),
            json!({"type": "object", "properties": {"intent": {"type": "string"}}}),
        );
    }
    schema
}

/// Takes out what some clients warn about: `null` types, formats of integers, null defaults.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut kept = Map::new();
            for (key, item) in map {
                match (key.as_str(), item) {
                    ("format", Value::String(_)) | ("default", Value::Null) => {}
                    ("type", Value::Array(types)) => {
                        let mut types: Vec<Value> = types
                            .into_iter()
                            .filter(|t| t.as_str() != Some("null"))
                            .collect();
                        let only = if types.len() == 1 { types.pop() } else { None };
                        kept.insert(key, only.unwrap_or(Value::Array(types)));
                    }
                    ("anyOf", Value::Array(options)) => {
                        let mut options: Vec<Value> = options
                            .into_iter()
                            .filter(|o| o.get("type").and_then(Value::as_str) != Some("null"))
                            .map(plain)
                            .collect();
                        match (options.len(), options.pop()) {
                            (1, Some(Value::Object(only))) => kept.extend(only),
                            (_, last) => {
                                options.extend(last);
                                kept.insert(key, Value::Array(options));
                            }
                        }
                    }
                    (_, item) => {
                        kept.insert(key, plain(item));
                    }
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

macro_rules! argument_schema {
    ($type:ty, $name:literal, $($schema:tt)+) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($($schema)+)
            }
        }
    };
}

/// Text, or a number that stands for itself (an id sent as a JSON integer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

argument_schema!(Text, "Text", { "type": "string" });

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        text_of(&value)
            .map(Self)
            .ok_or_else(|| wrong("text", "\"abc\"", &value))
    }
}

/// A list of ids: an array, the JSON text of one, or ids between commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ids(pub(super) Vec<String>);

argument_schema!(Ids, "Ids", { "type": "array", "items": { "type": "string" } });

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).ok()
            }
            Value::String(text) => Some(text.split(',').map(Value::from).collect()),
            Value::Array(items) => Some(items.clone()),
            Value::Number(_) => Some(vec![value.clone()]),
            _ => None,
        };
        let ids: Option<Vec<String>> =
            parsed.and_then(|items: Vec<Value>| items.iter().map(text_of).collect());
        let mut ids = ids.ok_or_else(|| wrong("a list of ids", "[\"17\", \"42\"]", &value))?;
        ids.retain(|id| !id.is_empty());
        if ids.is_empty() {
            return Err(D::Error::custom(
                "the list is empty; expected ids such as [\"17\", \"42\"]",
            ));
        }
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        Ok(Self(ids))
    }
}

/// A yes or no, also as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

argument_schema!(Flag, "Flag", { "type": "boolean" });

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let flag = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => Some(true),
                "false" | "0" | "no" => Some(false),
                _ => None,
            },
            _ => None,
        };
        flag.map(Self)
            .ok_or_else(|| wrong("true or false", "true", &value))
    }
}

/// A whole number, not negative, also as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) usize);

argument_schema!(Count, "Count", { "type": "integer", "minimum": 0 });

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let count = match &value {
            Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        count
            .and_then(|count| usize::try_from(count).ok())
            .map(Self)
            .ok_or_else(|| wrong("a whole number", "20", &value))
    }
}

/// A float that is really a whole number: `20.0`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9e15).contains(&number)).then_some(number as u64)
}

/// Tags: an object, `["key:value"]` (split at the first colon), or `key:value` text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags(pub(super) Vec<(String, String)>);

argument_schema!(Tags, "Tags", {
    "type": "object", "additionalProperties": { "type": "string" }
});

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => serde_json::from_str(text)
                .ok()
                .filter(|value: &Value| value.is_object() || value.is_array())
                .unwrap_or_else(|| text.split(',').map(|tag| Value::from(tag.trim())).collect()),
            other => other.clone(),
        };
        let tags: Option<Vec<(String, String)>> = match &parsed {
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Some((key.clone(), text_of(value)?)))
                .collect(),
            Value::Array(items) => items
                .iter()
                .map(|item| {
                    let (key, value) = item.as_str()?.split_once(':')?;
                    (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
                })
                .collect(),
            _ => None,
        };
        tags.map(Self)
            .ok_or_else(|| wrong("an object of tags", "{\"env\": \"prod\"}", &value))
    }
}

/// A JSON object, also as its text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Object(pub(super) Map<String, Value>);

argument_schema!(Object, "Object", { "type": "object" });

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        };
        match parsed {
            Some(Value::Object(map)) => Ok(Self(map)),
            _ => Err(wrong("an object", "{\"model\": \"gpt-5\"}", &value)),
        }
    }
}

/// A list of objects, also as its text, or one object alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Objects(pub(super) Vec<Map<String, Value>>);

argument_schema!(Objects, "Objects", { "type": "array", "items": { "type": "object" } });

impl<'de> Deserialize<'de> for Objects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::String(text) => serde_json::from_str(text).ok(),
            other => Some(other.clone()),
        };
        let items = match parsed {
            Some(Value::Array(items)) => Some(items),
            Some(object @ Value::Object(_)) => Some(vec![object]),
            _ => None,
        };
        let objects: Option<Vec<Map<String, Value>>> = items.and_then(|items| {
            let object = |item| match item {
                Value::Object(map) => Some(map),
                _ => None,
            };
            items.into_iter().map(object).collect()
        });
        match objects {
            Some(objects) if !objects.is_empty() => Ok(Self(objects)),
            _ => Err(wrong(
                "a list of objects",
                "[{\"input\": {\"question\": \"…\"}}]",
                &value,
            )),
        }
    }
}

/// A moment, as text or as epoch milliseconds; read against the clock later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct When(pub(super) String);

argument_schema!(When, "When", { "type": "string" });

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        text_of(&value).map(Self).ok_or_else(|| {
            wrong(
                "a time",
                "\"now-7d\", \"2026-07-01T10:00:00Z\" or 1784000000000",
                &value,
            )
        })
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn wrong<E: serde::de::Error>(expected: &str, example: &str, got: &Value) -> E {
    let got = match got {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number that does not fit",
        Value::String(_) => "text that does not fit",
        Value::Array(_) => "an array that does not fit",
        Value::Object(_) => "an object",
    };
    E::custom(format!("expected {expected} such as {example}, got {got}"))
}

/// Resolves `from` and `to` against the clock.
pub(super) fn window(
    tool: &str,
    from: Option<&When>,
    to: Option<&When>,
    default_from: &str,
    now_ms: i64,
    example: impl FnOnce() -> Value,
) -> Result<TimeWindow, ToolError> {
    let text = |when: Option<&When>| when.map(|when| when.0.clone());
    time::parse_window(
        text(from).as_deref(),
        text(to).as_deref(),
        default_from,
        now_ms,
    )
    .map_err(|error| {
        let hint = "times are `now-7d`, `15m` (ago), `2026-07-01T10:00:00Z` or epoch milliseconds";
        let mut arguments = example();
        if let Value::Object(map) = &mut arguments {
            map.insert("from".to_owned(), Value::from("now-7d"));
            map.insert("to".to_owned(), Value::from("now"));
        }
        ToolError::arguments(error.to_string(), hint).example(tool, arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        id: Option<Text>,
        span_ids: Option<Ids>,
        flag: Option<Flag>,
        limit: Option<Count>,
        tags: Option<Tags>,
        from: Option<When>,
    }

    fn read(arguments: Value) -> Result<Sample, ToolError> {
        let Value::Object(map) = arguments else {
            panic!("arguments are an object")
        };
        parse("sample_tool", map)
    }

    #[test]
    fn every_spelling_of_a_list_reads_the_same() {
        let expected = Some(Ids(vec!["17".into(), "18446744073709551615".into()]));
        for spelling in [
            json!(["17", "18446744073709551615"]),
            json!("[\"17\", \"18446744073709551615\"]"),
            json!("[17, 18446744073709551615]"),
            json!("17, 18446744073709551615"),
            json!([17, 18_446_744_073_709_551_615_u64, "17"]),
        ] {
            assert_eq!(
                read(json!({"span_ids": spelling})).unwrap().span_ids,
                expected
            );
        }
    }

    #[test]
    fn text_stands_for_numbers_and_booleans_and_blank_for_nothing() {
        let sample = read(
            json!({"id": 17, "flag": "true", "limit": "50", "from": 1_784_000_000_000_i64,
            "tags": ["url:http://a:1"], "telemetry": {"intent": "x"}, "unknown": 1}),
        )
        .unwrap();
        assert_eq!(sample.id, Some(Text("17".into())));
        assert_eq!(sample.flag, Some(Flag(true)));
        assert_eq!(sample.limit, Some(Count(50)));
        assert_eq!(sample.from, Some(When("1784000000000".into())));
        assert_eq!(
            sample.tags,
            Some(Tags(vec![("url".into(), "http://a:1".into())]))
        );
        let blank = read(json!({"id": "", "flag": null, "limit": " "})).unwrap();
        assert_eq!((blank.id, blank.flag, blank.limit), (None, None, None));
    }

    #[test]
    fn a_refusal_names_the_argument_and_shows_a_call_that_works() {
        let error = read(json!({"limit": "many"})).unwrap_err();
        assert_eq!(
            error.error,
            "argument `limit` of sample_tool cannot be read: expected a whole number such as 20, \
             got text that does not fit"
        );
        assert_eq!(
            error.example,
            Some(json!({"tool": "search_llmobs_spans",
                "arguments": {"root_spans_only": true, "from": "now-7d", "limit": 20}}))
        );
        for wrong in [
            json!({"limit": -1}),
            json!({"limit": 1.5}),
            json!({"span_ids": []}),
            json!({"span_ids": {}}),
            json!({"flag": "maybe"}),
            json!({"tags": ["no-colon"]}),
            json!({"from": []}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
