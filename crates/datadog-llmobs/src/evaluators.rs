//! Evaluators: the documented configuration API, and the two private endpoints that know more.
//!
//! Writes go through the documented `PUT`, which alone can carry a whole configuration. Lists come
//! from the private endpoint, which also knows the out-of-the-box evaluators; where it refuses, the
//! documented list of custom ones is given with a [`Gap`].

use http::Method;
use serde_json::{Map, Value, json};

use super::call::{ApiCall, JSON, JSON_API, Operation};
use super::client::Client;
use super::error::ClientError;
use super::retry::OperationClass;
use super::spans::{Gap, PrivateError};
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

/// What a site says of a schema in the spelling that it does not take.
const WRONG_SPELLING: &str = "invalid byop output schema";

/// An evaluator in a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvaluatorSummary {
    /// Its name.
    pub eval_name: String,
    /// The application it judges.
    pub ml_app: Option<String>,
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// `custom` or `ootb`.
    pub source: Option<String>,
    /// The type of its evaluations.
    pub metric_type: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: Option<String>,
}

/// The evaluators that there are.
#[derive(Debug, Clone, Default)]
pub struct EvaluatorList {
    /// As the site orders them.
    pub rows: Vec<EvaluatorSummary>,
    /// What the list lacks.
    pub gaps: Vec<Gap>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluatorWriteResult {
    /// Whether the site took the bare schema only.
    pub bare_schema: bool,
}

impl Client {
    /// The evaluators of the organisation, or of one application.
    ///
    /// # Errors
    /// What [`Client::execute`] gives when both the private and the documented list fail.
    pub async fn evaluators(&self, ml_app: Option<&str>) -> Result<EvaluatorList, ClientError> {
        let asked = match ml_app {
            None => self.private(&LIST_FOR_ORG, Map::new()).await,
            Some(app) => {
                let body = Map::from_iter([("ml_app".to_owned(), json!(app))]);
                self.private(&LIST_FOR_APP, body).await
            }
        };
        let why = match asked {
            Ok(answer) => match answer.get("evaluators").and_then(Value::as_array) {
                Some(rows) => {
                    let rows = rows.iter().filter_map(private_row);
                    return Ok(EvaluatorList {
                        rows: rows.collect(),
                        gaps: Vec::new(),
                    });
                }
                None => format!("{} answered without a list of them", self.upstream_name()),
            },
            Err(PrivateError::NoSuchThing) => return Ok(EvaluatorList::default()),
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
        let answer = self.execute(ApiCall::new(&LIST)).await?;
        let Some(items) = answer.value.get("data").and_then(Value::as_array) else {
            return Err(self.unreadable(&LIST, answer.status, "JSON without data".to_owned()));
        };
        let mut list = EvaluatorList::default();
        for item in items {
            match read(item) {
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
                    why: "its configuration is not of the documented form".to_owned(),
                }),
            }
        }
        Ok(list)
    }

    /// A custom evaluator's configuration; `None` when there is none of that name.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn evaluator(&self, name: &str) -> Result<Option<Evaluator>, ClientError> {
        match self.execute(ApiCall::with_ids(&GET, &[name])?).await {
            Ok(answer) => {
                let item = answer.value.get("data").unwrap_or(&Value::Null);
                match read(item) {
                    Some(evaluator) => Ok(Some(evaluator)),
                    None => {
                        let what = "a configuration of another form".to_owned();
                        Err(self.unreadable(&GET, answer.status, what))
                    }
                }
            }
            Err(ClientError::Status(refusal)) if refusal.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a whole configuration; what was there under its name is replaced.
    ///
    /// The schema goes with its wrapper; a site that surely refused that, as some do, is sent the
    /// bare one, once.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn put_evaluator(
        &self,
        evaluator: &Evaluator,
    ) -> Result<EvaluatorWriteResult, ClientError> {
        match self.put(evaluator).await {
            Ok(()) => Ok(EvaluatorWriteResult { bare_schema: false }),
            Err(error) => {
                let wrong_spelling = matches!(&error, ClientError::Status(refusal)
                    if refusal.status == 400 && refusal.words.to_lowercase().contains(WRONG_SPELLING));
                let schema = evaluator.llm_judge_config.output_schema.as_ref();
                let bare = schema.and_then(|schema| schema.get("schema")).cloned();
                let (true, Some(bare)) = (wrong_spelling, bare) else {
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
        for set_by_the_site in ["created_at", "updated_at", "created_by", "last_updated_by"] {
            attributes.shift_remove(set_by_the_site);
        }
        let body =
            json!({"data": {"id": name, "type": "evaluator_config", "attributes": attributes}});
        let call = ApiCall::with_ids(&PUT, &[name])?.body(body);
        self.execute(call).await.map(|_| ())
    }

    /// Deletes a custom evaluator; `false` when there was none of that name.
    ///
    /// # Errors
    /// Everything that [`Client::execute`] gives.
    pub async fn delete_evaluator(&self, name: &str) -> Result<bool, ClientError> {
        match self.execute(ApiCall::with_ids(&DELETE, &[name])?).await {
            Ok(_) => Ok(true),
            Err(ClientError::Status(refusal)) if refusal.status == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The site's own sums over the evaluations of one name, in the words of the contract.
    ///
    /// # Errors
    /// A [`Gap`] when the private endpoint does not give them; they can then be counted.
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
        match self.private(&AGGREGATE_STATS, body).await {
            Ok(answer) => read_stats(answer)
                .ok_or_else(|| gap(format!("{} answered without counts", self.upstream_name()))),
            Err(PrivateError::NoSuchThing) => {
                Err(gap("it knows no evaluation of that name".to_owned()))
            }
            Err(PrivateError::Failed(why)) => Err(gap(why)),
        }
    }
}

/// An entry of `data`.
fn read(item: &Value) -> Option<Evaluator> {
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

/// Sums under the contract's names. Some answers nest them below `stats` or write other names.
fn read_stats(answer: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut map) = answer else {
        return None;
    };
    if let Some(Value::Object(inner)) = map.shift_remove("stats") {
        map.extend(inner);
    }
    for (theirs, ours) in [("total", "total_count"), ("by_value", "top_values")] {
        if let Some(value) = map.shift_remove(theirs) {
            map.entry(ours).or_insert(value);
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
    fn nested_sums_come_out_under_the_contracts_names() {
        let answer = json!({"eval_name": "e", "stats": {"total": 3, "by_value": {"a": 1, "b": 2}}});
        assert_eq!(
            read_stats(answer).map(Value::Object),
            Some(
                json!({"total_count": 3, "top_values": [{"value": "b", "count": 2}, {"value": "a", "count": 1}]})
            )
        );
        assert_eq!(read_stats(json!({"status": "ok"})), None);
    }
}
