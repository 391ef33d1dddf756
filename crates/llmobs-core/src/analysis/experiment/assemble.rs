//! Events out of spans.
//!
//! An experiment's root span is one event; the spans of its task hang below it and know neither the
//! record nor the tags of it, so whatever they carry is brought to their root. The documented
//! answer does not say the kind of a span: then a span without a parent is an event.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::model::cost::cost_usd;
use crate::model::{
    ExperimentEvent, ExperimentMetric, ExperimentSpan, SpanId, SpanKind, TraceId, Usage,
};

/// All that is known of an experiment's runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExperimentData {
    /// The events, by start, then by span id.
    pub events: Vec<ExperimentEvent>,
    /// Metrics about the whole experiment: the newest of each label and run, by label.
    pub summary_metrics: Vec<ExperimentMetric>,
    /// Spans below the events.
    pub descendant_spans: usize,
    /// Spans that belong to no event: their root is missing.
    pub unassigned_spans: usize,
    /// Metrics on such spans; they are in no statistics.
    pub unassigned_metrics: usize,
    /// Metrics on spans below an event, which count as the event's own.
    pub descendant_metrics: usize,
    /// Metrics that a newer one of the same label on the same span replaces.
    pub duplicate_metrics: usize,
}

type Key = (TraceId, SpanId);

/// Makes events of spans, in any order and with repetitions, as pages that move bring them.
pub fn assemble_events(
    spans: Vec<ExperimentSpan>,
    summary_metrics: Vec<ExperimentMetric>,
) -> ExperimentData {
    let (mut spans, places) = unique(spans);
    let parents: Vec<Option<usize>> = spans
        .iter()
        .map(|span| {
            let parent = span.parent_id.clone()?;
            places.get(&(span.trace_id.clone(), parent)).copied()
        })
        .collect();
    drop(places);
    let is_event: Vec<bool> = spans
        .iter()
        .zip(&parents)
        .map(|(span, parent)| starts_an_event(span, parent.is_some()))
        .collect();
    let roots = roots(&parents, &is_event);
    let usage = usage(&spans, &parents, &is_event, &roots);

    let mut data = ExperimentData::default();
    let mut joined: HashMap<usize, Vec<ExperimentMetric>> = HashMap::new();
    for (at, root) in roots.iter().enumerate() {
        if is_event.get(at) == Some(&true) {
            continue;
        }
        let metrics = spans
            .get_mut(at)
            .map(|span| std::mem::take(&mut span.metrics))
            .unwrap_or_default();
        match root {
            Some(root) => {
                data.descendant_spans += 1;
                data.descendant_metrics += metrics.len();
                joined.entry(*root).or_default().extend(metrics);
            }
            None => {
                data.unassigned_spans += 1;
                data.unassigned_metrics += metrics.len();
            }
        }
    }
    for (at, mut span) in spans.into_iter().enumerate() {
        if is_event.get(at) != Some(&true) {
            continue;
        }
        let (mut metrics, dropped) = newest(std::mem::take(&mut span.metrics), |_| None);
        data.duplicate_metrics += dropped;
        if let Some(below) = joined.remove(&at) {
            // What stands on the root itself is the verdict about the event.
            let below = below
                .into_iter()
                .filter(|one| !metrics.iter().any(|own| own.label == one.label))
                .collect();
            let (below, dropped) = newest(below, |_| None);
            data.duplicate_metrics += dropped;
            metrics.extend(below);
            metrics.sort_by(|a, b| a.label.cmp(&b.label));
        }
        data.events.push(ExperimentEvent {
            usage: usage
                .get(&at)
                .copied()
                .unwrap_or_else(|| of_span(&span).unwrap_or_default()),
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
    let (summary, dropped) = newest(summary_metrics, run_of);
    data.summary_metrics = summary;
    data.duplicate_metrics += dropped;
    data
}

/// Each span once. A span that came twice keeps the metrics of both, and none of them twice.
fn unique(spans: Vec<ExperimentSpan>) -> (Vec<ExperimentSpan>, HashMap<Key, usize>) {
    let mut places: HashMap<Key, usize> = HashMap::with_capacity(spans.len());
    let mut kept: Vec<ExperimentSpan> = Vec::with_capacity(spans.len());
    for span in spans {
        match places.entry((span.trace_id.clone(), span.span_id.clone())) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(span);
            }
            Entry::Occupied(place) => {
                if let Some(known) = kept.get_mut(*place.get()) {
                    for metric in span.metrics {
                        if !known.metrics.contains(&metric) {
                            known.metrics.push(metric);
                        }
                    }
                }
            }
        }
    }
    (kept, places)
}

fn starts_an_event(span: &ExperimentSpan, parent_is_here: bool) -> bool {
    match &span.kind {
        Some(kind) => *kind == SpanKind::Experiment,
        None if span.parent_id.is_none() => true,
        None => !parent_is_here && (span.dataset_record_id.is_some() || !span.metrics.is_empty()),
    }
}

/// The event that each span belongs to; an event belongs to itself. Climbs without recursion, and
/// each span once; a circle has no root.
fn roots(parents: &[Option<usize>], is_event: &[bool]) -> Vec<Option<usize>> {
    let mut roots: Vec<Option<usize>> = vec![None; parents.len()];
    let mut settled: Vec<bool> = vec![false; parents.len()];
    for start in 0..parents.len() {
        let mut path = Vec::new();
        let mut here = Some(start);
        let root = loop {
            let Some(at) = here else { break None };
            if settled.get(at) == Some(&true) {
                break roots.get(at).copied().flatten();
            }
            if is_event.get(at) == Some(&true) {
                path.push(at);
                break Some(at);
            }
            // Settled on the way up, so that a circle ends when it meets itself.
            if let Some(flag) = settled.get_mut(at) {
                *flag = true;
            }
            path.push(at);
            here = parents.get(at).copied().flatten();
        };
        for at in path {
            if let (Some(place), Some(flag)) = (roots.get_mut(at), settled.get_mut(at)) {
                *place = root;
                *flag = true;
            }
        }
    }
    roots
}

/// Tokens and cost below each event. A model call right below another is the same call seen twice.
/// Where the upstream does not say kinds, spans with tokens are taken for model calls.
fn usage(
    spans: &[ExperimentSpan],
    parents: &[Option<usize>],
    is_event: &[bool],
    roots: &[Option<usize>],
) -> HashMap<usize, Usage> {
    let calls_model = |at: usize| {
        is_event.get(at) != Some(&true)
            && spans.get(at).is_some_and(|span| match &span.kind {
                Some(kind) => matches!(kind, SpanKind::Llm | SpanKind::Embedding),
                None => of_span(span).is_some(),
            })
    };
    let mut sums: HashMap<usize, Usage> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        let seen_above = parents.get(at).copied().flatten().is_some_and(calls_model);
        let Some(root) = roots.get(at).copied().flatten() else {
            continue;
        };
        if calls_model(at)
            && !seen_above
            && let Some(used) = of_span(span)
        {
            let sum = sums.entry(root).or_default();
            add(&mut sum.input_tokens, used.input_tokens);
            add(&mut sum.output_tokens, used.output_tokens);
            add(&mut sum.total_tokens, used.total_tokens);
            add(&mut sum.cost_usd, used.cost_usd);
        }
    }
    sums
}

fn add(sum: &mut Option<f64>, more: Option<f64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or_default() + more);
    }
}

/// What one span says of its own use; `None` if nothing.
fn of_span(span: &ExperimentSpan) -> Option<Usage> {
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

/// The newest metric of each label (and of each `run`), by label, and how many others there were.
/// Of two with the same time the later in the list counts.
fn newest(
    mut metrics: Vec<ExperimentMetric>,
    run: impl Fn(&ExperimentMetric) -> Option<String>,
) -> (Vec<ExperimentMetric>, usize) {
    let total = metrics.len();
    metrics.sort_by_cached_key(|metric| (metric.label.clone(), run(metric), metric.timestamp_ms));
    let mut kept: Vec<ExperimentMetric> = Vec::with_capacity(total);
    for metric in metrics {
        match kept.last_mut() {
            Some(last) if last.label == metric.label && run(last) == run(&metric) => {
                *last = metric;
            }
            _ => kept.push(metric),
        }
    }
    let dropped = total - kept.len();
    (kept, dropped)
}

/// What tells the runs apart that a summary metric may be about.
fn run_of(metric: &ExperimentMetric) -> Option<String> {
    let mut marks: Vec<&str> = metric
        .tags
        .iter()
        .filter(|tag| tag.starts_with("run_iteration:") || tag.starts_with("iteration:"))
        .map(String::as_str)
        .collect();
    marks.sort_unstable();
    (!marks.is_empty()).then(|| marks.join(","))
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
    fn of_equal_labels_the_newest_counts_and_the_others_are_reported() {
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
    fn children_reach_their_root_and_circles_and_orphans_do_not() {
        let llm = |id, parent| span(id, Some(parent), Some(SpanKind::Llm));
        let mut judged = llm("3", "2");
        judged.metrics = vec![metric("toxicity", 0.1, 1)];
        let mut stray = llm("9", "gone");
        stray.metrics = vec![metric("toxicity", 0.9, 1)];
        let data = assemble_events(
            vec![
                tokens(judged, 10.0),
                tokens(llm("4", "3"), 10.0),
                span("2", Some("1"), Some(SpanKind::Agent)),
                span("1", None, Some(SpanKind::Experiment)),
                tokens(stray, 99.0),
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
    fn without_kinds_a_span_without_a_parent_is_an_event() {
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
    fn a_span_that_comes_on_two_pages_is_one_event_with_each_metric_once() {
        let mut first = span("1", None, Some(SpanKind::Experiment));
        first.metrics = vec![metric("a", 1.0, 1)];
        let mut again = first.clone();
        again.metrics.push(metric("b", 2.0, 1));
        let data = assemble_events(vec![first, again], Vec::new());
        assert_eq!((data.events.len(), data.events[0].metrics.len()), (1, 2));
        assert_eq!(data.duplicate_metrics, 0);
    }

    #[test]
    fn summary_metrics_of_two_runs_stand_beside_each_other() {
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
    fn a_chain_of_ten_thousand_spans_is_climbed() {
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
