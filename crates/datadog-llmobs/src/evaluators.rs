//! Evaluators: the documented configuration API, and private endpoints for lists and statistics.
//!
//! Writes use the documented `PUT`, the only endpoint that accepts a complete configuration. Lists come
//! from the private endpoint, which includes the out-of-the-box evaluators; if it rejects the request,
//! the documented list of custom evaluators is returned with a [`Gap`].

use http::Method;
use serde_json::{Map, Value, json};

use super::call::{ApiCall, JSON, JSON_API, Operation};
use super::client::Client;
use super::error::ClientError;
use super::loaded::Gap;
use super::retry::OperationClass;
use super::spans::PrivateError;
use llmobs_core::model::{Evaluator, TimeWindow};

const ROUTE: &str = "/api/unstable/llm-obs/config/evaluators/custom";
const NAMED_ROUTE: &str = "/api/unstable/llm-obs/config/evaluators/custom/{eval_name}";

pub(super) static LIST: Operation = Operation {
    name: "list of custom evaluators",
    class: OperationClass::Read,
    method: Method::GET,
    route: ROUTE,
    media: JSON_API,
};

pub(super) static GET: Operation = Operation {
    name: "evaluator",
    class: OperationClass::Read,
    method: Method::GET,
    route: NAMED_ROUTE,
    media: JSON_API,
};

static PUT: Operation = Operation {
    name: "writing of the evaluator",
    class: OperationClass::Idempotent,
    method: Method::PUT,
    route: NAMED_ROUTE,
    media: JSON_API,
};

static DELETE: Operation = Operation {
    name: "deletion of the evaluator",
    class: OperationClass::Idempotent,
    method: Method::DELETE,
    route: NAMED_ROUTE,
    media: JSON_API,
};

pub(super) static LIST_FOR_ORG: Operation = Operation {
    name: "list of evaluators",
    class: OperationClass::Read,
    method: Method::POST,
    route: "/api/unstable/llm-obs-mcp/v1/eval/list-for-org",
    media: JSON,
};

static LIST_FOR_APP: Operation = Operation {
    route: "/api/unstable/llm-obs-mcp/v1/eval/list",
    name: "list of an application's evaluators",
    class: OperationClass::Read,
    method: Method::POST,
    media: JSON,
};

pub(super) static AGGREGATE_STATS: Operation = Operation {
    route: "/api/unstable/llm-obs-mcp/v1/eval/aggregate-stats",
    name: "evaluation statistics",
    class: OperationClass::Read,
    method: Method::POST,
    media: JSON,
};

/// The message of a site that rejects the format of the output schema.
const WRONG_SCHEMA_FORMAT: &str = "invalid byop output schema";

/// An entry of the list of evaluators.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvaluatorSummary {
    /// The name.
    pub eval_name: String,
    /// The application whose spans it evaluates.
    pub ml_app: Option<String>,
    /// Whether it is enabled.
    pub enabled: Option<bool>,
    /// `custom` or `ootb`.
    pub source: Option<String>,
    /// The type of its evaluations.
    pub metric_type: Option<String>,
    /// When it was created, in RFC 3339.
    pub created_at: Option<String>,
}

/// A list of evaluators.
#[derive(Debug, Clone, Default)]
pub struct EvaluatorList {
    /// The entries, in the order of the site.
    pub rows: Vec<EvaluatorSummary>,
    /// What the list is missing.
    pub gaps: Vec<Gap>,
}

/// The result of writing an evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluatorWriteResult {
    /// Whether the site accepted only the schema without its wrapper.
    pub bare_schema: bool,
}

impl Client {
    /// The evaluators of the organisation, or of one application.
    ///
    /// # Errors
    /// The errors of [`Client::execute`] if both the private and the documented list fail.
    pub async fn evaluators(&self, ml_app: Option<&str>) -> Result<EvaluatorList, ClientError> {
        let response = match ml_app {
            None => self.call_private(&LIST_FOR_ORG, Map::new()).await,
            Some(app) => {
                let body = Map::from_iter([("ml_app".to_owned(), json!(app))]);
                self.call_private(&LIST_FOR_APP, body).await
            }
        };
        let why = match response {
            Ok(response) => match response.get("evaluators").and_then(Value::as_array) {
                Some(rows) => {
                    let rows = rows.iter().filter_map(private_row);
                    return Ok(EvaluatorList {
                        rows: rows.collect(),
                        gaps: Vec::new(),
                    });
                }
                None => format!("{} returned no list of them", self.upstream_name()),
            },
            Err(PrivateError::NotFound) => return Ok(EvaluatorList::default()),
            Err(PrivateError::Failed(why)) => why,
        };
        let mut list = self.documented_list().await?;
        if let Some(app) = ml_app {
            list.rows.retain(|row| row.ml_app.as_deref() == Some(app));
        }
        list.gaps.push(Gap {
            what: "out-of-the-box evaluators",
            why,
        });
        Ok(list)
    }

    async fn documented_list(&self) -> Result<EvaluatorList, ClientError> {
        let response = self.execute(ApiCall::new(&LIST)).await?;
        let Some(items) = response.value.get("data").and_then(Value::as_array) else {
            return Err(self.unreadable(&LIST, response.status, "JSON without data".to_owned()));
        };
        let mut list = EvaluatorList::default();
        for item in items {
            match read_evaluator(item) {
                Some(evaluator) => list.rows.push(EvaluatorSummary {
                    metric_type: evaluator.metric_type().map(|kind| kind.as_str().to_owned()),
                    eval_name: evaluator.eval_name,
                    ml_app: Some(evaluator.target.application_name),
                    enabled: Some(evaluator.target.enabled),
                    source: Some("custom".to_owned()),
                    created_at: evaluator.created_at,
                }),
                None => list.gaps.push(Gap {
                    what: "an evaluator",
                    why: "its configuration does not have the documented format".to_owned(),
                }),
            }
        }
        Ok(list)
    }

    /// The configuration of a custom evaluator; `None` if there is none of that name.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn evaluator(&self, name: &str) -> Result<Option<Evaluator>, ClientError> {
        match self.execute(ApiCall::with_ids(&GET, &[name])?).await {
            Ok(response) => {
                let item = response.value.get("data").unwrap_or(&Value::Null);
                match read_evaluator(item) {
                    Some(evaluator) => Ok(Some(evaluator)),
                    None => {
                        let found = "a configuration in another format".to_owned();
                        Err(self.unreadable(&GET, response.status, found))
                    }
                }
            }
            Err(ClientError::Status(response)) if response.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a complete configuration and replaces the previous one of that name.
    ///
    /// The output schema is sent with its wrapper. If the site rejects this format, as some do, the
    /// schema is sent once more without the wrapper.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn put_evaluator(
        &self,
        evaluator: &Evaluator,
    ) -> Result<EvaluatorWriteResult, ClientError> {
        match self.put(evaluator).await {
            Ok(()) => Ok(EvaluatorWriteResult { bare_schema: false }),
            Err(error) => {
                let is_wrong_format = matches!(&error, ClientError::Status(response)
                    if response.status == 400 && response.message.to_lowercase().contains(WRONG_SCHEMA_FORMAT));
                let schema = evaluator.llm_judge_config.output_schema.as_ref();
                let bare = schema.and_then(|schema| schema.get("schema")).cloned();
                let (true, Some(bare)) = (is_wrong_format, bare) else {
                    return Err(error);
                };
                let mut evaluator = evaluator.clone();
                evaluator.llm_judge_config.output_schema = Some(bare);
                self.put(&evaluator).await?;
                Ok(EvaluatorWriteResult { bare_schema: true })
            }
        }
    }

    async fn put(&self, evaluator: &Evaluator) -> Result<(), ClientError> {
        let name = &evaluator.eval_name;
        let mut attributes = evaluator.to_attributes();
        for read_only in ["created_at", "updated_at", "created_by", "last_updated_by"] {
            attributes.shift_remove(read_only);
        }
        let body =
            json!({"data": {"id": name, "type": "evaluator_config", "attributes": attributes}});
        let call = ApiCall::with_ids(&PUT, &[name])?.body(body);
        self.execute(call).await.map(|_| ())
    }

    /// Deletes a custom evaluator; `false` if there was none of that name.
    ///
    /// # Errors
    /// The errors of [`Client::execute`].
    pub async fn delete_evaluator(&self, name: &str) -> Result<bool, ClientError> {
        match self.execute(ApiCall::with_ids(&DELETE, &[name])?).await {
            Ok(_) => Ok(true),
            Err(ClientError::Status(response)) if response.status == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The statistics that the site computes over the evaluations of one name, under the keys of our
    /// answers.
    ///
    /// # Errors
    /// A [`Gap`] if the private endpoint does not return them; the caller can then count evaluations
    /// itself.
    pub async fn evaluation_stats(
        &self,
        name: &str,
        ml_app: Option<&str>,
        window: TimeWindow,
    ) -> Result<Map<String, Value>, Gap> {
        let mut body = Map::from_iter([
            ("eval_name".to_owned(), json!(name)),
            ("from".to_owned(), json!(window.from_ms.to_string())),
            ("to".to_owned(), json!(window.to_ms.to_string())),
        ]);
        if let Some(app) = ml_app {
            body.insert("ml_app".to_owned(), json!(app));
        }
        let gap = |why| Gap {
            what: "the site's own statistics",
            why,
        };
        match self.call_private(&AGGREGATE_STATS, body).await {
            Ok(response) => read_stats(response)
                .ok_or_else(|| gap(format!("{} returned no counts", self.upstream_name()))),
            Err(PrivateError::NotFound) => {
                Err(gap("there is no evaluation of that name".to_owned()))
            }
            Err(PrivateError::Failed(why)) => Err(gap(why)),
        }
    }
}

/// Reads an entry of `data`.
fn read_evaluator(item: &Value) -> Option<Evaluator> {
    let mut evaluator = Evaluator::from_attributes(item.get("attributes")?.clone()).ok()?;
    if evaluator.eval_name.is_empty() {
        evaluator.eval_name = item.get("id")?.as_str()?.to_owned();
    }
    Some(evaluator)
}

fn private_row(row: &Value) -> Option<EvaluatorSummary> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(EvaluatorSummary {
        eval_name: text("eval_name")?,
        ml_app: text("ml_app").or_else(|| text("application_name")),
        enabled: row.get("enabled").and_then(Value::as_bool),
        source: text("source"),
        metric_type: text("type"),
        created_at: text("created_at"),
    })
}

/// Statistics under the keys of our answers. Some responses nest them below `stats` or use other keys.
fn read_stats(response: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut map) = response else {
        return None;
    };
    if let Some(Value::Object(inner)) = map.shift_remove("stats") {
        map.extend(inner);
    }
    for (upstream_key, key) in [("total", "total_count"), ("by_value", "top_values")] {
        if let Some(value) = map.shift_remove(upstream_key) {
            map.entry(key).or_insert(value);
        }
    }
    if let Some(Value::Object(counts)) = map.get("top_values") {
        let mut rows: Vec<Value> = counts
            .iter()
            .map(|(value, count)| json!({"value": value, "count": count}))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.get("count").and_then(Value::as_u64)));
        map.insert("top_values".to_owned(), Value::Array(rows));
    }
    for echoed in ["eval_name", "ml_app"] {
        map.shift_remove(echoed);
    }
    map.contains_key("total_count").then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_nested_statistics() {
        let response =
            json!({"eval_name": "e", "stats": {"total": 3, "by_value": {"a": 1, "b": 2}}});
        assert_eq!(
            read_stats(response).map(Value::Object),
            Some(
                json!({"total_count": 3, "top_values": [{"value": "b", "count": 2}, {"value": "a", "count": 1}]})
            )
        );
        assert_eq!(read_stats(json!({"status": "ok"})), None);
    }
}
