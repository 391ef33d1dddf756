//! Parses a tool's arguments from the command line.
//!
//! A value stays a string unless the tool's schema requires another type: `limit=5` is a number,
//! `trace_id=5` is not, because ids lose digits as numbers. A list is JSON, or one key given several
//! times. A value of the wrong type is passed on unchanged: the tool reports it with an example.

use serde_json::{Map, Value};

use llmobs_core::analysis::candidates::closest;

use super::CliError;

const EXAMPLE: &str =
    "for example: llmobs-mcp call search_llmobs_spans ml_app=support-agent limit=5";

/// The arguments, and notes about them for people.
pub(super) struct ParsedArguments {
    pub(super) arguments: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// Parses one JSON object.
pub(super) fn from_json(text: &str) -> Result<Map<String, Value>, CliError> {
    let example = "for example: --json '{\"limit\":5}'";
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CliError::usage("--json requires a JSON object", example)),
        Err(error) => Err(CliError::usage(
            format!("--json is not JSON: {error}"),
            example,
        )),
    }
}

/// Parses `key=value` pairs by the types in the schema.
pub(super) fn from_pairs(
    pairs: &[String],
    schema: &Map<String, Value>,
) -> Result<ParsedArguments, CliError> {
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
        let key = schema_key(key, properties);
        let types = match properties.get(&key) {
            Some(schema) => AcceptedTypes::from_schema(schema),
            None => {
                notes.push(match closest(&key, properties.keys().map(String::as_str)) {
                    Some(near) => format!("the tool has no argument {key}; did you mean {near}?"),
                    None => format!("the tool has no argument {key}"),
                });
                AcceptedTypes::default()
            }
        };
        let value = types.parse(text);
        match arguments.get_mut(&key) {
            None => {
                arguments.insert(key, value);
            }
            Some(Value::Array(list)) if types.array => match value {
                Value::Array(more) => list.extend(more),
                one => list.push(one),
            },
            // `tags=env:prod tags=team:x`: the tools take lists of `key:value` for objects too.
            Some(first) if types.array || types.object => {
                let first = first.take();
                arguments.insert(key, Value::Array(vec![first, value]));
            }
            Some(_) => {
                return Err(CliError::usage(
                    format!("{key} is given twice, but takes one value"),
                    "remove one of them",
                ));
            }
        }
    }
    Ok(ParsedArguments { arguments, notes })
}

/// The key as the schema spells it: dashes may replace underscores.
fn schema_key(key: &str, properties: &Map<String, Value>) -> String {
    let folded = key.replace('-', "_");
    if !properties.contains_key(key) && properties.contains_key(&folded) {
        folded
    } else {
        key.to_owned()
    }
}

/// The JSON types that a schema accepts.
#[derive(Default, Clone, Copy)]
struct AcceptedTypes {
    string: bool,
    number: bool,
    boolean: bool,
    array: bool,
    object: bool,
}

impl AcceptedTypes {
    fn from_schema(schema: &Value) -> Self {
        let mut types = Self::default();
        types.add(schema);
        types
    }

    fn add(&mut self, schema: &Value) {
        match schema.get("type") {
            Some(Value::String(name)) => self.add_type(name),
            Some(Value::Array(names)) => {
                for name in names.iter().filter_map(Value::as_str) {
                    self.add_type(name);
                }
            }
            _ => {}
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for alternative in schema
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                self.add(alternative);
            }
        }
    }

    fn add_type(&mut self, name: &str) {
        match name {
            "string" => self.string = true,
            "integer" | "number" => self.number = true,
            "boolean" => self.boolean = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    /// Parses a text as one of the types, or as a string.
    fn parse(self, text: &str) -> Value {
        let string = Value::String(text.to_owned());
        let Ok(parsed) = serde_json::from_str::<Value>(text.trim()) else {
            return string;
        };
        let fits = match &parsed {
            Value::Array(_) => self.array,
            Value::Object(_) => self.object,
            Value::Number(_) => self.number && !self.string,
            Value::Bool(_) => self.boolean && !self.string,
            Value::String(_) | Value::Null => false,
        };
        if fits { parsed } else { string }
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
    fn pairs_follow_the_types_of_the_schema(#[case] pairs: &[&str], #[case] expected: Value) {
        assert_eq!(read(pairs), expected);
    }

    #[rstest]
    #[case("limit")]
    #[case("=5")]
    #[case("")]
    fn refuses_malformed_pair_with_example(#[case] pair: &str) {
        let error = from_pairs(&[pair.to_owned()], &schema())
            .err()
            .expect("refused");
        assert_eq!(error.code(), 2);
        assert!(error.hint().expect("a hint").contains("limit=5"));
    }

    #[test]
    fn refuses_repeated_scalar() {
        let pairs = ["query=a".to_owned(), "query=b".to_owned()];
        assert!(from_pairs(&pairs, &schema()).is_err());
    }

    #[test]
    fn notes_unknown_key_and_passes_it_on() {
        let parsed = from_pairs(&["qery=x".to_owned()], &schema()).expect("reads");
        assert_eq!(parsed.arguments["qery"], "x");
        assert_eq!(
            parsed.notes,
            ["the tool has no argument qery; did you mean query?"]
        );
    }

    #[rstest]
    #[case("{\"limit\":5}", true)]
    #[case("[1]", false)]
    #[case("{", false)]
    fn accepts_only_a_json_object(#[case] text: &str, #[case] accepted: bool) {
        assert_eq!(from_json(text).is_ok(), accepted);
    }
}
