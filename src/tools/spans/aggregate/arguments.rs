//! The arguments of an aggregation, and the request that they describe.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::group_by::{GroupBy, list_items};
use crate::tools::answer::Notes;
use crate::tools::args::{self, Tags};
use crate::tools::error::ToolError;
use crate::tools::spans::searching::check_query;
use llmobs_core::analysis::aggregate::{AggregateRequest, Measure, Unit};

pub(super) const NAME: &str = "aggregate_llmobs_spans";
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
const MAX_MEASURES: usize = 16;
const MAX_TIME_BUCKETS: i64 = 1_000;

#[expect(
    rustdoc::invalid_html_tags,
    reason = "the comments are text for models"
)]
#[derive(Deserialize, JsonSchema)]
pub(super) struct Arguments {
    /// Span query as in search_llmobs_spans. With unit trace: traces with a span that matches.
    query: Option<String>,
    /// Exact application name.
    ml_app: Option<String>,
    /// Tags that must all match.
    tags: Option<Tags>,
    /// Start: now-7d, RFC 3339 or epoch ms. Default now-1d.
    from: Option<String>,
    /// End. Default now.
    to: Option<String>,
    /// Up to 3 facets or tags; all {name, query} buckets together count as one.
    group_by: Option<GroupBy>,
    /// count, error_rate, failure_rate (root failed), duration.p50|p95|p99 (ms),
    /// input_tokens|output_tokens|total_tokens|cost .sum|.mean, cost.per_success,
    /// evaluation.<label>.mean|pass_rate. Default count, error_rate.
    measures: Option<MeasureNames>,
    /// Length of time buckets, which start at `from`: 1h, 1d.
    interval: Option<String>,
    /// span (default) or trace.
    unit: Option<String>,
    /// Groups per page. Default 50.
    limit: Option<usize>,
    /// next_cursor of the previous answer.
    pub(super) cursor: Option<String>,
    /// Size of the answer in tokens. Default 8000.
    pub(super) max_tokens: Option<usize>,
}

/// Names of measures: an array, its JSON text, or text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MeasureNames(Vec<String>);

impl JsonSchema for MeasureNames {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("MeasureNames")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"type": "string"}})
    }
}

impl<'de> Deserialize<'de> for MeasureNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = list_items(Value::deserialize(deserializer)?);
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

/// Arguments that work.
pub(super) fn example() -> Value {
    json!({"ml_app": "my-app", "from": "now-7d", "unit": "trace",
        "group_by": ["@meta.model_name", {"name": "timeout", "query": "@meta.error.type:*Timeout*"}],
        "measures": ["count", "duration.p95", "cost.sum"]})
}

impl Arguments {
    /// The request for the first page.
    pub(super) fn request(
        self,
        now_ms: i64,
        notes: &mut Notes,
    ) -> Result<AggregateRequest, ToolError> {
        let window = (self.from.as_deref(), self.to.as_deref());
        let window = args::window(NAME, window, "now-1d", now_ms, example)?;
        let query = self.query.filter(|query| query != "*");
        if let Some(query) = &query {
            check_query("query", query, notes).map_err(|error| error.example(NAME, example()))?;
        }
        let interval_ms = match self.interval {
            None => None,
            Some(text) => Some(read_interval(&text, window.to_ms - window.from_ms)?),
        };
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        notes.add_reduced_limit(limit, MAX_LIMIT);
        let group_by = match self.group_by {
            Some(group_by) => group_by
                .dimensions(notes)
                .map_err(|error| error.example(NAME, example()))?,
            None => Vec::new(),
        };
        Ok(AggregateRequest {
            query,
            ml_app: self.ml_app,
            tags: self.tags.unwrap_or_default().0,
            window,
            unit: read_unit(self.unit.as_deref())?,
            group_by,
            measures: read_measures(self.measures)?,
            interval_ms,
            offset: 0,
            limit: limit.clamp(1, MAX_LIMIT),
        })
    }
}

fn invalid(error: impl Into<String>, hint: &str) -> ToolError {
    ToolError::arguments(error, hint).example(NAME, example())
}

fn read_unit(text: Option<&str>) -> Result<Unit, ToolError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("span" | "spans") => Ok(Unit::Span),
        Some("trace" | "traces") => Ok(Unit::Trace),
        Some(_) => Err(invalid(
            "unit must be span or trace",
            "set `unit` to span to count spans, or to trace to count traces",
        )),
    }
}

fn read_measures(names: Option<MeasureNames>) -> Result<Vec<Measure>, ToolError> {
    let Some(MeasureNames(names)) = names else {
        return Ok(vec![Measure::Count, Measure::ErrorRate]);
    };
    let mut measures: Vec<Measure> = Vec::new();
    for name in names {
        let family = Measure::family(&name).map_err(|error| {
            invalid(
                format!("unknown measure: {error}"),
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
        return Err(invalid(
            format!("more than {MAX_MEASURES} measures"),
            "send fewer measures per call",
        ));
    }
    Ok(measures)
}

/// The length of a time bucket in milliseconds, from `1h`, `15m`, `1 day` or `hour`.
fn read_interval(text: &str, window_ms: i64) -> Result<i64, ToolError> {
    let invalid = |error: String| {
        ToolError::arguments(error, "intervals are 15m, 1h, 1d or 1w; a day has 24 hours").example(
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
        // A month has no fixed length, and `M` must not be read as minutes.
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
    let length = length.ok_or_else(|| invalid("interval is not a length of time".to_owned()))?;
    if window_ms / length >= MAX_TIME_BUCKETS {
        return Err(invalid(format!(
            "interval divides the time window into more than {MAX_TIME_BUCKETS} buckets"
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
    fn interval_is_an_amount_and_a_unit(#[case] text: &str, #[case] expected: Option<i64>) {
        assert_eq!(read_interval(text, 3_600_000).ok(), expected);
    }
}
