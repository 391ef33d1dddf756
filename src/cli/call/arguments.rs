//! A tool's arguments as a shell can write them.
//!
//! A value stays the string that was typed unless the tool's schema wants something else there:
//! `limit=5` is a number, `trace_id=5` is not, because ids lose digits as numbers. A list may be
//! JSON, or one key given several times. What does not fit is passed on as it is: the tool explains
//! better than we can.

use serde_json::{Map, Value};

use crate::server::closest;

use super::CliError;

const EXAMPLE: &str =
    "for example: llmobs-mcp call search_llmobs_spans ml_app=support-agent limit=5";

/// Arguments, and remarks about them for a person.
pub(super) struct FromPairs {
    pub(super) arguments: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// Reads one JSON object.
pub(super) fn from_json(text: &str) -> Result<Map<String, Value>, CliError> {
    let example = "for example: --json '{\"limit\":5}'";
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CliError::usage("--json wants a JSON object", example)),
        Err(error) => Err(CliError::usage(
            format!("--json is not JSON: {error}"),
            example,
        )),
    }
}

/// Reads `key=value` pairs as the schema wants them.
pub(super) fn from_pairs(
    pairs: &[String],
    schema: &Map<String, Value>,
) -> Result<FromPairs, CliError> {
    let empty = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let mut arguments = Map::new();
    let mut notes = Vec::new();
    for pair in pairs {
        let Some((key, text)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(CliError::usage(
                format!("'{pair}' is not of the form KEY=VALUE"),
                EXAMPLE,
            ));
        };
        let key = known(key, properties);
        let wants = match properties.get(&key) {
            Some(schema) => Wants::of(schema),
            None => {
                notes.push(match closest(&key, properties.keys().map(String::as_str)) {
                    Some(near) => format!("the tool has no argument {key}; did you mean {near}?"),
                    None => format!("the tool has no argument {key}"),
                });
                Wants::default()
            }
        };
        let value = wants.read(text);
        match arguments.get_mut(&key) {
            None => {
                arguments.insert(key, value);
            }
            Some(Value::Array(list)) if wants.array => match value {
                Value::Array(more) => list.extend(more),
                one => list.push(one),
            },
            // `tags=env:prod tags=team:x`: the tools take lists of `key:value` for objects too.
            Some(first) if wants.array || wants.object => {
                let first = first.take();
                arguments.insert(key, Value::Array(vec![first, value]));
            }
            Some(_) => {
                return Err(CliError::usage(
                    format!("{key} is given twice and takes one value"),
                    "give it once",
                ));
            }
        }
    }
    Ok(FromPairs { arguments, notes })
}

/// The schema's spelling of a key: dashes are as good as underscores.
fn known(key: &str, properties: &Map<String, Value>) -> String {
    let folded = key.replace('-', "_");
    if !properties.contains_key(key) && properties.contains_key(&folded) {
        folded
    } else {
        key.to_owned()
    }
}

/// The kinds of value that a schema takes.
#[derive(Default, Clone, Copy)]
struct Wants {
    string: bool,
    number: bool,
    boolean: bool,
    array: bool,
    object: bool,
}

impl Wants {
    fn of(schema: &Value) -> Self {
        let mut wants = Self::default();
        wants.add(schema);
        wants
    }

    fn add(&mut self, schema: &Value) {
        match schema.get("type") {
            Some(Value::String(kind)) => self.add_kind(kind),
            Some(Value::Array(kinds)) => {
                for kind in kinds.iter().filter_map(Value::as_str) {
                    self.add_kind(kind);
                }
            }
            _ => {}
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for part in schema
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                self.add(part);
            }
        }
    }

    fn add_kind(&mut self, kind: &str) {
        match kind {
            "string" => self.string = true,
            "integer" | "number" => self.number = true,
            "boolean" => self.boolean = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    /// The value that a text stands for.
    fn read(self, text: &str) -> Value {
        let typed = Value::String(text.to_owned());
        let Ok(parsed) = serde_json::from_str::<Value>(text.trim()) else {
            return typed;
        };
        let fits = match &parsed {
            Value::Array(_) => self.array,
            Value::Object(_) => self.object,
            Value::Number(_) => self.number && !self.string,
            Value::Bool(_) => self.boolean && !self.string,
            Value::String(_) | Value::Null => false,
        };
        if fits { parsed } else { typed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn schema() -> Map<String, Value> {
        let schema = json!({"properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "ratio": {"type": "number"},
            "root_spans_only": {"type": "boolean"},
            "from": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            "trace_id": {"type": ["string", "integer"]},
            "span_ids": {"type": "array", "items": {"type": "string"}},
            "tags": {"type": "object"},
        }});
        schema.as_object().expect("object").clone()
    }

    fn read(pairs: &[&str]) -> Value {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        Value::Object(from_pairs(&pairs, &schema()).expect("reads").arguments)
    }

    #[rstest]
    #[case(&[], json!({}))]
    #[case(&["limit=5", "ratio=0.5"], json!({"limit": 5, "ratio": 0.5}))]
    #[case(&["limit=many"], json!({"limit": "many"}))]
    #[case(&["root_spans_only=true"], json!({"root_spans_only": true}))]
    #[case(&["query=true"], json!({"query": "true"}))]
    #[case(&["query=a=b \"c\""], json!({"query": "a=b \"c\""}))]
    #[case(&["query="], json!({"query": ""}))]
    #[case(&["trace_id=12345678901234567890123"], json!({"trace_id": "12345678901234567890123"}))]
    #[case(&["from=1753000000000"], json!({"from": "1753000000000"}))]
    #[case(&["span_ids=[\"1\",\"2\"]"], json!({"span_ids": ["1", "2"]}))]
    #[case(&["span_ids=1,2"], json!({"span_ids": "1,2"}))]
    #[case(&["span_ids=1", "span_ids=2", "span_ids=3"], json!({"span_ids": ["1", "2", "3"]}))]
    #[case(&["tags={\"env\":\"prod\"}"], json!({"tags": {"env": "prod"}}))]
    #[case(&["tags=env:prod", "tags=team:x"], json!({"tags": ["env:prod", "team:x"]}))]
    #[case(&["root-spans-only=false"], json!({"root_spans_only": false}))]
    fn pairs_become_what_the_schema_wants(#[case] pairs: &[&str], #[case] expected: Value) {
        assert_eq!(read(pairs), expected);
    }

    #[rstest]
    #[case("limit")]
    #[case("=5")]
    #[case("")]
    fn what_is_no_pair_is_refused_with_an_example(#[case] pair: &str) {
        let error = from_pairs(&[pair.to_owned()], &schema())
            .err()
            .expect("refused");
        assert_eq!(error.code(), 2);
        assert!(error.mend().expect("a mend").contains("limit=5"));
    }

    #[test]
    fn a_single_value_twice_is_refused() {
        let pairs = ["query=a".to_owned(), "query=b".to_owned()];
        assert!(from_pairs(&pairs, &schema()).is_err());
    }

    #[test]
    fn a_mistyped_key_is_passed_on_with_a_remark() {
        let read = from_pairs(&["qery=x".to_owned()], &schema()).expect("reads");
        assert_eq!(read.arguments["qery"], "x");
        assert_eq!(
            read.notes,
            ["the tool has no argument qery; did you mean query?"]
        );
    }

    #[rstest]
    #[case("{\"limit\":5}", true)]
    #[case("[1]", false)]
    #[case("{", false)]
    fn json_must_be_an_object(#[case] text: &str, #[case] good: bool) {
        assert_eq!(from_json(text).is_ok(), good);
    }
}
