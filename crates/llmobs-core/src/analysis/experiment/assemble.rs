//! Assembles the events of an experiment from its spans.
//!
//! The root span of a record's run becomes an event. The descendants of the root carry neither the
//! record nor its tags, so their metrics and usage are added to the event. The documented response
//! does not contain the span kind; without it, a span without a parent becomes an event.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::cost::cost_usd;
use crate::model::{
    ExperimentEvent, ExperimentMetric, ExperimentSpan, SpanId, SpanKind, TraceId, Usage,
};

/// The events and the summary of an experiment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentData {
    /// The events, sorted by start, then by span id.
    pub events: Vec<ExperimentEvent>,
    /// Metrics of the complete experiment: the newest of each label and run, sorted by label.
    pub summary_metrics: Vec<ExperimentMetric>,
    /// Number of descendants of the events.
    pub descendant_spans: usize,
    /// Number of spans that belong to no event because their root span is missing.
    pub unassigned_spans: usize,
    /// Number of metrics on such spans. They are part of no statistics.
    pub unassigned_metrics: usize,
    /// Number of metrics on descendants of events, which are added to the event.
    pub descendant_metrics: usize,
    /// Number of metrics that a newer metric of the same label and span replaces.
    pub duplicate_metrics: usize,
}

/// A span with its position in the forest of an experiment's spans.
struct SpanNode {
    span: ExperimentSpan,
    /// Index of the parent.
    parent: Option<usize>,
    /// Whether the span becomes an event.
    is_event: bool,
    /// Index of the event that the span belongs to; an event belongs to itself.
    event: Option<usize>,
    /// Whether [`assign_events`] has visited the span.
    visited: bool,
}

/// Assembles events from spans in any order. Spans may repeat, because pages can overlap while
/// data arrives.
pub fn assemble_events(
    spans: Vec<ExperimentSpan>,
    summary_metrics: Vec<ExperimentMetric>,
) -> ExperimentData {
    let mut nodes = link_spans(spans);
    assign_events(&mut nodes);
    let mut usage = usage_by_event(&nodes);
    let mut data = ExperimentData::default();
    let mut descendant_metrics = take_descendant_metrics(&mut nodes, &mut data);
    for (index, node) in nodes.into_iter().enumerate() {
        if !node.is_event {
            continue;
        }
        let mut span = node.span;
        let root_metrics = std::mem::take(&mut span.metrics);
        let descendants = descendant_metrics.remove(&index).unwrap_or_default();
        let (metrics, duplicates) = merge_metrics(root_metrics, descendants);
        data.duplicate_metrics += duplicates;
        data.events.push(ExperimentEvent {
            usage: usage
                .remove(&index)
                .or_else(|| span_usage(&span))
                .unwrap_or_default(),
            span,
            metrics,
        });
    }
    data.events.sort_by(|a, b| {
        (a.span.start_ns, &a.span.span_id, &a.span.trace_id).cmp(&(
            b.span.start_ns,
            &b.span.span_id,
            &b.span.trace_id,
        ))
    });
    let (summary, duplicates) = newest_metrics(summary_metrics, run_key);
    data.summary_metrics = summary;
    data.duplicate_metrics += duplicates;
    data
}

/// Removes duplicate spans and resolves parents.
fn link_spans(spans: Vec<ExperimentSpan>) -> Vec<SpanNode> {
    let (spans, indexes) = deduplicate(spans);
    let link = |span: ExperimentSpan| {
        let parent = span.parent_id.clone().and_then(|parent| {
            let key = (span.trace_id.clone(), parent);
            indexes.get(&key).copied()
        });
        SpanNode {
            is_event: is_event(&span, parent.is_some()),
            span,
            parent,
            event: None,
            visited: false,
        }
    };
    spans.into_iter().map(link).collect()
}

type SpanKey = (TraceId, SpanId);

/// The distinct spans, and their indexes. A repeated span gets the distinct metrics of all its
/// copies.
fn deduplicate(spans: Vec<ExperimentSpan>) -> (Vec<ExperimentSpan>, HashMap<SpanKey, usize>) {
    let mut indexes: HashMap<SpanKey, usize> = HashMap::with_capacity(spans.len());
    let mut distinct: Vec<ExperimentSpan> = Vec::with_capacity(spans.len());
    for span in spans {
        match indexes.entry((span.trace_id.clone(), span.span_id.clone())) {
            Entry::Vacant(entry) => {
                entry.insert(distinct.len());
                distinct.push(span);
            }
            Entry::Occupied(entry) => {
                if let Some(first) = distinct.get_mut(*entry.get()) {
                    for metric in span.metrics {
                        if !first.metrics.contains(&metric) {
                            first.metrics.push(metric);
                        }
                    }
                }
            }
        }
    }
    (distinct, indexes)
}

fn is_event(span: &ExperimentSpan, has_parent: bool) -> bool {
    match &span.kind {
        Some(kind) => *kind == SpanKind::Experiment,
        None if span.parent_id.is_none() => true,
        None => !has_parent && (span.dataset_record_id.is_some() || !span.metrics.is_empty()),
    }
}

/// Sets the event of each span: its nearest ancestor that is an event, or itself. Iterative, and
/// visits each span once; spans on a cycle belong to no event.
fn assign_events(nodes: &mut [SpanNode]) {
    for start in 0..nodes.len() {
        let mut path = Vec::new();
        let mut next = Some(start);
        let event = loop {
            let Some((index, node)) = next.and_then(|index| Some((index, nodes.get_mut(index)?)))
            else {
                break None;
            };
            // Also ends the loop on a cycle, where the event is still `None`.
            if node.visited {
                break node.event;
            }
            node.visited = true;
            path.push(index);
            if node.is_event {
                break Some(index);
            }
            next = node.parent;
        };
        for index in path {
            if let Some(node) = nodes.get_mut(index) {
                node.event = event;
            }
        }
    }
}

/// Removes the metrics of the descendants and groups them by event.
fn take_descendant_metrics(
    nodes: &mut [SpanNode],
    data: &mut ExperimentData,
) -> HashMap<usize, Vec<ExperimentMetric>> {
    let mut by_event: HashMap<usize, Vec<ExperimentMetric>> = HashMap::new();
    for node in nodes.iter_mut().filter(|node| !node.is_event) {
        let metrics = std::mem::take(&mut node.span.metrics);
        match node.event {
            Some(event) => {
                data.descendant_spans += 1;
                data.descendant_metrics += metrics.len();
                by_event.entry(event).or_default().extend(metrics);
            }
            None => {
                data.unassigned_spans += 1;
                data.unassigned_metrics += metrics.len();
            }
        }
    }
    by_event
}

/// The newest metrics of an event by label, and the number of duplicates. A metric of the root
/// span takes precedence over one of a descendant.
fn merge_metrics(
    root: Vec<ExperimentMetric>,
    descendants: Vec<ExperimentMetric>,
) -> (Vec<ExperimentMetric>, usize) {
    let (mut metrics, root_duplicates) = newest_metrics(root, |_| None);
    let added = descendants
        .into_iter()
        .filter(|added| !metrics.iter().any(|metric| metric.label == added.label))
        .collect();
    let (added, duplicates) = newest_metrics(added, |_| None);
    metrics.extend(added);
    metrics.sort_by(|a, b| a.label.cmp(&b.label));
    (metrics, root_duplicates + duplicates)
}

/// Tokens and cost of the model calls in each event. A model call whose parent is a model call is
/// the same call recorded twice. Without kinds, a span with usage counts as a model call.
fn usage_by_event(nodes: &[SpanNode]) -> HashMap<usize, Usage> {
    let calls_model = |node: &SpanNode| {
        !node.is_event
            && match &node.span.kind {
                Some(kind) => matches!(kind, SpanKind::Llm | SpanKind::Embedding),
                None => span_usage(&node.span).is_some(),
            }
    };
    let mut totals: HashMap<usize, Usage> = HashMap::new();
    for node in nodes {
        let parent = node.parent.and_then(|parent| nodes.get(parent));
        if let Some(event) = node.event
            && calls_model(node)
            && !parent.is_some_and(calls_model)
            && let Some(usage) = span_usage(&node.span)
        {
            let total = totals.entry(event).or_default();
            add(&mut total.input_tokens, usage.input_tokens);
            add(&mut total.output_tokens, usage.output_tokens);
            add(&mut total.total_tokens, usage.total_tokens);
            add(&mut total.cost_usd, usage.cost_usd);
        }
    }
    totals
}

fn add(total: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *total = Some(total.unwrap_or_default() + value);
    }
}

/// The usage that a span reports; `None` if it reports none.
fn span_usage(span: &ExperimentSpan) -> Option<Usage> {
    let metric = |name: &str| span.usage.get(name).copied();
    let (input, output) = (metric("input_tokens"), metric("output_tokens"));
    let both = match (input, output) {
        (None, None) => None,
        (input, output) => Some(input.unwrap_or_default() + output.unwrap_or_default()),
    };
    let usage = Usage {
        input_tokens: input,
        output_tokens: output,
        total_tokens: metric("total_tokens").or(both),
        cost_usd: cost_usd(metric("estimated_total_cost"), metric("total_cost")),
    };
    (usage != Usage::default()).then_some(usage)
}

/// The newest metric of each label (and of each run), by label, and the number of the others. Of
/// two metrics with the same time, the later in the list is newer.
fn newest_metrics(
    mut metrics: Vec<ExperimentMetric>,
    run: impl Fn(&ExperimentMetric) -> Option<String>,
) -> (Vec<ExperimentMetric>, usize) {
    let total = metrics.len();
    metrics.sort_by_cached_key(|metric| (metric.label.clone(), run(metric), metric.timestamp_ms));
    let mut newest: Vec<ExperimentMetric> = Vec::with_capacity(total);
    for metric in metrics {
        match newest.last_mut() {
            Some(last) if last.label == metric.label && run(last) == run(&metric) => {
                *last = metric;
            }
            _ => newest.push(metric),
        }
    }
    let duplicates = total - newest.len();
    (newest, duplicates)
}

/// The tags that identify the run of a summary metric.
fn run_key(metric: &ExperimentMetric) -> Option<String> {
    let mut tags: Vec<&str> = metric
        .tags
        .iter()
        .filter(|tag| tag.starts_with("run_iteration:") || tag.starts_with("iteration:"))
        .map(String::as_str)
        .collect();
    tags.sort_unstable();
    (!tags.is_empty()).then(|| tags.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(id: &str, parent: Option<&str>, kind: Option<SpanKind>) -> ExperimentSpan {
        ExperimentSpan {
            trace_id: "t".into(),
            span_id: id.into(),
            parent_id: parent.map(SpanId::from),
            kind,
            ..ExperimentSpan::default()
        }
    }

    fn metric(label: &str, value: f64, timestamp_ms: i64) -> ExperimentMetric {
        ExperimentMetric {
            label: label.into(),
            value: Some(json!(value)),
            timestamp_ms,
            ..ExperimentMetric::default()
        }
    }

    fn tokens(mut span: ExperimentSpan, input: f64) -> ExperimentSpan {
        span.usage.insert("input_tokens".into(), input);
        span
    }

    #[test]
    fn uses_newest_metric_of_each_label() {
        let mut root = span("1", None, Some(SpanKind::Experiment));
        root.metrics = vec![
            metric("b", 1.0, 5),
            metric("a", 1.0, 9),
            metric("a", 2.0, 8),
            metric("b", 2.0, 5),
        ];
        let data = assemble_events(vec![root], Vec::new());
        let values: Vec<_> = data.events[0]
            .metrics
            .iter()
            .map(|m| (m.label.as_str(), m.value.clone().unwrap()))
            .collect();
        assert_eq!(values, [("a", json!(1.0)), ("b", json!(2.0))]);
        assert_eq!(data.duplicate_metrics, 2);
    }

    #[test]
    fn descendants_belong_to_their_event_and_cycles_do_not() {
        let llm = |id, parent| span(id, Some(parent), Some(SpanKind::Llm));
        let mut evaluated = llm("3", "2");
        evaluated.metrics = vec![metric("toxicity", 0.1, 1)];
        let mut orphan = llm("9", "missing");
        orphan.metrics = vec![metric("toxicity", 0.9, 1)];
        let data = assemble_events(
            vec![
                tokens(evaluated, 10.0),
                tokens(llm("4", "3"), 10.0),
                span("2", Some("1"), Some(SpanKind::Agent)),
                span("1", None, Some(SpanKind::Experiment)),
                tokens(orphan, 99.0),
                llm("c1", "c2"),
                llm("c2", "c1"),
            ],
            Vec::new(),
        );
        assert_eq!(data.events.len(), 1);
        assert_eq!((data.descendant_spans, data.unassigned_spans), (3, 3));
        assert_eq!((data.descendant_metrics, data.unassigned_metrics), (1, 1));
        assert!(data.events[0].metric("toxicity").is_some());
        assert_eq!(data.events[0].usage.input_tokens, Some(10.0));
    }

    #[test]
    fn span_without_kind_and_parent_is_an_event() {
        let data = assemble_events(
            vec![
                tokens(span("2", Some("1"), None), 7.0),
                span("1", None, None),
                tokens(span("5", None, None), 3.0),
            ],
            Vec::new(),
        );
        let used: Vec<_> = data.events.iter().map(|e| e.usage.input_tokens).collect();
        assert_eq!(used, [Some(7.0), Some(3.0)]);
    }

    #[test]
    fn repeated_span_is_one_event_with_distinct_metrics() {
        let mut first = span("1", None, Some(SpanKind::Experiment));
        first.metrics = vec![metric("a", 1.0, 1)];
        let mut again = first.clone();
        again.metrics.push(metric("b", 2.0, 1));
        let data = assemble_events(vec![first, again], Vec::new());
        assert_eq!((data.events.len(), data.events[0].metrics.len()), (1, 2));
        assert_eq!(data.duplicate_metrics, 0);
    }

    #[test]
    fn keeps_summary_metrics_of_each_run() {
        let run = |run: &str, value, time| ExperimentMetric {
            tags: vec![format!("run_iteration:{run}"), format!("run_id:{value}")],
            ..metric("accuracy", value, time)
        };
        let data = assemble_events(
            Vec::new(),
            vec![run("2", 0.5, 1), run("1", 0.25, 9), run("1", 0.75, 3)],
        );
        let values: Vec<_> = data
            .summary_metrics
            .iter()
            .map(|m| m.value.clone().unwrap())
            .collect();
        assert_eq!(values, [json!(0.25), json!(0.5)]);
        assert_eq!(data.duplicate_metrics, 1);
    }

    #[test]
    fn handles_chain_of_10_000_spans() {
        let mut spans = vec![span("0", None, Some(SpanKind::Experiment))];
        for id in 1..10_000 {
            let parent = (id - 1).to_string();
            spans.push(span(&id.to_string(), Some(&parent), Some(SpanKind::Task)));
        }
        spans.reverse();
        let data = assemble_events(spans, Vec::new());
        assert_eq!((data.descendant_spans, data.unassigned_spans), (9_999, 0));
    }
}
