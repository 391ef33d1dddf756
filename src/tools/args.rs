//! Arguments of tools, read leniently.
//!
//! Models write numbers as text, lists as JSON text or with commas, tags as `["k:v"]`, times as bare
//! integers, and `null` for absent values. All of these forms are accepted. An error names the
//! argument, what was expected, and a call that works.

mod coerce;
mod lists;
mod schema;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use self::coerce::{coerce, to_text};
pub(super) use self::lists::{IdList, ObjectList, Tags};
pub(super) use self::schema::schema;
use super::error::ToolError;
use crate::render::{Budget, candidate};
use llmobs_core::analysis::candidates::closest;
use llmobs_core::model::TimeWindow;
use llmobs_core::query::time;

/// The arguments that every tool about one trace has at its end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct PageArgs {
    /// Start of the time window; the id is found outside it too.
    pub(super) from: Option<String>,
    /// End of the time window.
    pub(super) to: Option<String>,
    /// Size of the answer in tokens. Default 8000, at most 20000.
    pub(super) max_tokens: Option<usize>,
    /// next_cursor of the previous answer.
    pub(super) cursor: Option<String>,
}

impl PageArgs {
    /// `from` and `to`.
    pub(super) fn window(&self) -> (Option<&str>, Option<&str>) {
        (self.from.as_deref(), self.to.as_deref())
    }

    /// The budget of the answer.
    pub(super) fn budget(&self) -> Budget {
        Budget::of_answer(self.max_tokens)
    }
}

/// Reads the arguments of a tool that reads. Unknown keys are ignored, because skills send keys
/// that only their own helpers use.
pub(super) fn parse<A: DeserializeOwned + JsonSchema + 'static>(
    tool: &str,
    mut arguments: Map<String, Value>,
) -> Result<A, ToolError> {
    arguments.retain(|_, value| !is_blank(value));
    let ids = ["trace_id", "experiment_id"].map(|key| arguments.get(key).and_then(to_text));
    read(tool, arguments).map_err(|error| {
        let [trace_id, experiment_id] = ids;
        let (hint, tool, example) = call_that_works(tool, trace_id, experiment_id);
        ToolError::arguments(error, format!("correct the argument; {hint}")).example(tool, example)
    })
}

/// Reads the arguments of a tool that writes. An unknown key is an error: to ignore it would lose
/// data that the caller meant to write.
pub(super) fn parse_strict<A: DeserializeOwned + JsonSchema + 'static>(
    tool: &str,
    mut arguments: Map<String, Value>,
    example: Value,
) -> Result<A, ToolError> {
    arguments.retain(|_, value| !value.is_null());
    let properties = schema::properties::<A>();
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    if let Err(error) = check_known(tool, &arguments, &known) {
        return Err(ToolError {
            error: format!("{}; nothing was written", error.error),
            ..error
        }
        .example(tool, example));
    }
    read(tool, arguments).map_err(|error| {
        ToolError::arguments(
            format!("{error}; nothing was written"),
            "correct the argument and send the call again",
        )
        .example(tool, example)
    })
}

/// Refuses an argument that the tool does not have.
pub(super) fn check_known(
    tool: &str,
    arguments: &Map<String, Value>,
    known: &[&str],
) -> Result<(), ToolError> {
    let Some(key) = arguments.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let near = closest(key, known.iter().copied());
    let question = near.map_or(String::new(), |near| format!("did you mean `{near}`? "));
    Err(ToolError::arguments(
        format!("{tool} has no argument `{}`", candidate(key)),
        format!("{question}The arguments are {}", known.join(", ")),
    ))
}

/// Names the first key of an object that is not one of `known`, with the nearest that is.
pub(super) fn unknown_key(object: &Map<String, Value>, known: &[&'static str]) -> Option<String> {
    let key = object.keys().find(|key| !known.contains(&key.as_str()))?;
    let near = closest(key, known.iter().copied());
    let question = near.map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
    Some(format!(
        "has the unknown key `{}`{question}",
        candidate(key)
    ))
}

/// Converts and deserialises arguments. The error is a sentence.
fn read<A: DeserializeOwned + JsonSchema + 'static>(
    tool: &str,
    mut arguments: Map<String, Value>,
) -> Result<A, String> {
    coerce(&mut arguments, &schema::properties::<A>()).map_err(|error| {
        format!(
            "invalid argument `{}` of {tool}: {}",
            error.argument, error.reason
        )
    })?;
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.into_inner();
        if path == "." {
            format!("invalid arguments of {tool}: {reason}")
        } else {
            format!("invalid argument `{path}` of {tool}: {reason}")
        }
    })
}

/// A call to suggest when the arguments are invalid: the hint, the tool name and its arguments.
fn call_that_works(
    tool: &str,
    trace_id: Option<String>,
    experiment_id: Option<String>,
) -> (&'static str, &'static str, Value) {
    if tool.contains("_eval") {
        return (
            "list_llmobs_evals lists the evaluators",
            "list_llmobs_evals",
            json!({}),
        );
    }
    if let Some(id) = experiment_id {
        return (
            "get_llmobs_experiment_summary lists the metrics and dimensions of the experiment",
            "get_llmobs_experiment_summary",
            json!({"experiment_id": candidate(&id)}),
        );
    }
    let families = ["experiment", "dataset", "project"];
    if families.iter().any(|family| tool.contains(family)) {
        return (
            "list_llmobs_projects lists the projects, whose ids the other tools need",
            "list_llmobs_projects",
            json!({}),
        );
    }
    match trace_id {
        Some(id) => (
            "get_llmobs_trace shows the spans of the trace",
            "get_llmobs_trace",
            json!({"trace_id": candidate(&id)}),
        ),
        None => (
            "search_llmobs_spans finds ids of traces and spans",
            "search_llmobs_spans",
            json!({"root_spans_only": true, "from": "now-7d", "limit": 20}),
        ),
    }
}

/// Whether the value means that the argument is absent: `null` or blank text.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// The time window from `from` to `to`. `example` are arguments that work without a window.
pub(super) fn window(
    tool: &str,
    (from, to): (Option<&str>, Option<&str>),
    default_from: &str,
    now_ms: i64,
    example: impl FnOnce() -> Value,
) -> Result<TimeWindow, ToolError> {
    time::parse_window(from, to, default_from, now_ms).map_err(|error| {
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

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Sample {
        id: Option<String>,
        span_ids: Option<IdList>,
        flag: Option<bool>,
        limit: Option<usize>,
        tags: Option<Tags>,
        from: Option<String>,
        config: Option<Map<String, Value>>,
    }

    fn sample(arguments: Value) -> Result<Sample, ToolError> {
        let Value::Object(map) = arguments else {
            panic!("arguments are an object")
        };
        parse("sample_tool", map)
    }

    #[test]
    fn every_form_of_a_list_reads_the_same() {
        let expected = Some(IdList(vec!["17".into(), "18446744073709551615".into()]));
        for form in [
            json!(["17", "18446744073709551615"]),
            json!("[\"17\", \"18446744073709551615\"]"),
            json!("[17, 18446744073709551615]"),
            json!("17, 18446744073709551615"),
            json!([17, 18_446_744_073_709_551_615_u64, "17"]),
        ] {
            let read = sample(json!({"span_ids": form})).unwrap();
            assert_eq!(read.span_ids, expected);
        }
    }

    #[test]
    fn values_are_converted_to_the_type_of_the_argument() {
        let read = sample(json!({"id": 17, "flag": "true", "limit": "50",
            "from": 1_784_000_000_000_i64, "tags": ["url:http://a:1"], "config": "{\"a\": 1}",
            "telemetry": {"intent": "x"}, "unknown": 1}))
        .unwrap();
        assert_eq!(read.id.as_deref(), Some("17"));
        assert_eq!((read.flag, read.limit), (Some(true), Some(50)));
        assert_eq!(read.from.as_deref(), Some("1784000000000"));
        assert_eq!(read.tags.unwrap().texts(), ["url:http://a:1"]);
        assert_eq!(json!(read.config), json!({"a": 1}));
        let blank = sample(json!({"id": "", "flag": null, "limit": " "})).unwrap();
        assert_eq!((blank.id, blank.flag, blank.limit), (None, None, None));
        assert_eq!(sample(json!({"limit": 20.0})).unwrap().limit, Some(20));
    }

    #[test]
    fn error_names_the_argument_and_shows_a_call_that_works() {
        let error = sample(json!({"limit": "many"})).unwrap_err();
        assert_eq!(
            error.error,
            "invalid argument `limit` of sample_tool: expected a whole number such as 20, got \"many\""
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
            json!({"config": "[]"}),
        ] {
            assert!(sample(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
