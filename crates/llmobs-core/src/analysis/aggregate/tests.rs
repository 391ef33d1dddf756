//! Against a recount that follows the definitions literally, one figure and one group at a time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Assessment, Evaluation, Span, SpanId, SpanKind, Status, TraceId};

const INTERVAL_MS: i64 = 1_000;
const WINDOW: TimeWindow = TimeWindow {
    from_ms: 500,
    to_ms: 10_000,
};

/// A span, whether it is selected, and the buckets it is in.
#[derive(Debug, Clone)]
struct Drawn {
    span: Span,
    selected: bool,
    buckets: u32,
}

fn metrics() -> impl Strategy<Value = BTreeMap<String, f64>> {
    let value = prop::option::of(0_u32..2_000);
    (value.clone(), value.clone(), value.clone(), value).prop_map(|(input, output, total, cost)| {
        let cost = cost.map(|cost| f64::from(cost) * 1.7e-6);
        [
            ("input_tokens", input.map(f64::from)),
            ("output_tokens", output.map(f64::from)),
            ("total_tokens", total.map(f64::from)),
            ("total_cost", cost),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    })
}

fn evaluations() -> impl Strategy<Value = BTreeMap<String, Evaluation>> {
    let value = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        (0_u8..100).prop_map(|score| json!(f64::from(score) / 100.0)),
        Just(json!("good")),
        Just(Value::Null)
    ];
    let assessment = prop_oneof![
        Just(None),
        Just(Some(Assessment::Pass)),
        Just(Some(Assessment::Fail))
    ];
    prop::option::of((value, assessment)).prop_map(|drawn| {
        let entry = |(value, assessment)| {
            let evaluation = Evaluation {
                value: Some(value),
                assessment,
                ..Evaluation::default()
            };
            ("tone".to_owned(), evaluation)
        };
        drawn.map(entry).into_iter().collect()
    })
}

fn drawn(number: usize) -> impl Strategy<Value = Drawn> {
    let kind = prop_oneof![
        3 => Just(SpanKind::Llm),
        1 => Just(SpanKind::Embedding),
        1 => Just(SpanKind::Agent),
        1 => Just(SpanKind::Tool)
    ];
    (
        (0_u8..4, prop::option::of(0_usize..12), kind, any::<bool>()),
        (500_i64..10_000, 0_i64..5_000_000_000),
        prop::option::of("[ab]"),
        prop::collection::vec("team:[xyz]", 0..3),
        metrics(),
        evaluations(),
        (any::<bool>(), 0_u32..4),
    )
        .prop_map(
            move |((trace, parent, kind, failed), (start, length), model, tags, m, e, (s, b))| {
                Drawn {
                    span: Span {
                        trace_id: TraceId::from(format!("t{trace}")),
                        span_id: SpanId::from(number.to_string()),
                        parent_id: parent.map(|parent| SpanId::from(parent.to_string())),
                        kind,
                        status: if failed { Status::Error } else { Status::Ok },
                        start_ns: start * 1_000_000 + 7,
                        duration_ns: length,
                        model_name: model,
                        tags,
                        metrics: m,
                        evaluations: e,
                        ..Span::default()
                    },
                    selected: s,
                    buckets: b,
                }
            },
        )
}

fn spans() -> impl Strategy<Value = Vec<Drawn>> {
    (0_usize..12).prop_flat_map(|count| (0..count).map(drawn).collect::<Vec<_>>())
}

fn question() -> impl Strategy<Value = AggregateRequest> {
    let dimension = |name: &str| Dimension::Facet(name.to_owned());
    let bucket = |name: &str| Bucket {
        name: name.to_owned(),
        query: "*".to_owned(),
    };
    let all = vec![
        dimension("@meta.model_name"),
        dimension("team"),
        Dimension::Buckets(vec![bucket("one"), bucket("two")]),
    ];
    let group_by = prop::sample::subsequence(all, 0..=3);
    let unit = prop_oneof![Just(Unit::Span), Just(Unit::Trace)];
    (unit, group_by, any::<bool>()).prop_map(|(unit, group_by, timed)| AggregateRequest {
        query: None,
        ml_app: None,
        tags: Vec::new(),
        window: WINDOW,
        unit,
        group_by,
        measures: [
            "error_rate",
            "failure_rate",
            "duration",
            "input_tokens",
            "output_tokens",
            "tokens",
            "cost",
            "cost.per_success",
            "evaluation.tone",
        ]
        .into_iter()
        .flat_map(|name| Measure::family(name).unwrap())
        .collect(),
        interval_ms: timed.then_some(INTERVAL_MS),
        offset: 0,
        limit: 10_000,
    })
}

/// The units by definition: lists of spans.
fn naive_units<'a>(question: &AggregateRequest, spans: &'a [Drawn]) -> Vec<Vec<&'a Drawn>> {
    if question.unit == Unit::Span {
        let selected = spans.iter().filter(|drawn| drawn.selected);
        return selected.map(|drawn| vec![drawn]).collect();
    }
    let ids: BTreeSet<&str> = spans.iter().map(|d| d.span.trace_id.as_str()).collect();
    let of = |id: &str| -> Vec<&Drawn> {
        let spans = spans.iter();
        spans.filter(|d| d.span.trace_id.as_str() == id).collect()
    };
    let traces = ids.into_iter().map(of);
    traces
        .filter(|trace| trace.iter().any(|drawn| drawn.selected))
        .collect()
}

fn naive_values(dimension: &Dimension, unit: &[&Drawn]) -> BTreeSet<Option<String>> {
    let mut values = BTreeSet::new();
    for drawn in unit {
        match dimension {
            Dimension::Facet(name) if name == "team" => {
                let tags = drawn.span.tags.iter();
                values.extend(tags.map(|tag| tag.strip_prefix("team:").map(str::to_owned)));
            }
            Dimension::Facet(_) => values.extend(drawn.span.model_name.clone().map(Some)),
            Dimension::Buckets(buckets) => {
                for (at, bucket) in buckets.iter().enumerate() {
                    if drawn.buckets >> at & 1 == 1 {
                        values.insert(Some(bucket.name.clone()));
                    }
                }
            }
        }
    }
    if values.is_empty() {
        values.insert(None);
    }
    values
}

fn naive_time(question: &AggregateRequest, unit: &[&Drawn]) -> Option<i64> {
    let start = unit.iter().map(|d| d.span.start_ms()).min().unwrap();
    let interval = question.interval_ms?;
    let mut bucket = question.window.from_ms;
    while bucket + interval <= start {
        bucket += interval;
    }
    Some(bucket)
}

/// Everything that the groups of a question could be: times, and products of values.
fn naive_keys(question: &AggregateRequest, unit: &[&Drawn]) -> BTreeSet<Vec<Option<String>>> {
    let mut keys = BTreeSet::from([Vec::new()]);
    for dimension in &question.group_by {
        let values = naive_values(dimension, unit);
        keys = keys
            .iter()
            .flat_map(|key| {
                values
                    .iter()
                    .map(|value| [key.clone(), vec![value.clone()]].concat())
            })
            .collect();
    }
    keys
}

/// What the calls of a unit use: values that count, and calls whose value is not known. `seen` are
/// all spans that the question looks at.
fn naive_usage(usage: Usage, unit: &[&Drawn], seen: &[&Drawn]) -> (Vec<f64>, u64) {
    let value = |span: &Span| match usage {
        Usage::InputTokens => span.metric("input_tokens"),
        Usage::OutputTokens => span.metric("output_tokens"),
        Usage::TotalTokens => span.metric("total_tokens").or_else(|| {
            let (input, output) = (span.metric("input_tokens"), span.metric("output_tokens"));
            (input.is_some() || output.is_some())
                .then(|| input.unwrap_or(0.0) + output.unwrap_or(0.0))
        }),
        Usage::Cost => span.metric("total_cost"),
    };
    let parent = |span: &Span| -> Option<Span> {
        let found = seen.iter().find(|d| {
            d.span.kind == SpanKind::Llm
                && d.span.trace_id == span.trace_id
                && Some(&d.span.span_id) == span.parent_id.as_ref()
        });
        found.map(|d| d.span.clone())
    };
    let wraps = |span: &Span| -> Vec<Span> {
        let mut found: Vec<Span> = Vec::new();
        let mut at = span.clone();
        while at.kind == SpanKind::Llm
            && let Some(up) = parent(&at)
            && !found.iter().any(|other| other.span_id == up.span_id)
        {
            if up.span_id == span.span_id {
                if found.iter().all(|other| span.span_id < other.span_id) {
                    found.clear();
                }
                break;
            }
            found.push(up.clone());
            at = up;
        }
        found
    };
    let (mut values, mut unknown) = (Vec::new(), 0);
    for drawn in unit {
        let span = &drawn.span;
        if !matches!(span.kind, SpanKind::Llm | SpanKind::Embedding) {
            continue;
        }
        let above = wraps(span);
        match value(span) {
            Some(value_of_span) if !above.iter().any(|up| value(up).is_some()) => {
                values.push(value_of_span);
            }
            Some(_) => {}
            None if span.kind == SpanKind::Embedding && usage == Usage::OutputTokens => {}
            None if above.is_empty() => {
                let inside = seen.iter().any(|other| {
                    let around = wraps(&other.span);
                    value(&other.span).is_some()
                        && other.span.trace_id == span.trace_id
                        && around.iter().any(|up| up.span_id == span.span_id)
                });
                unknown += u64::from(!inside);
            }
            None => {}
        }
    }
    (values, unknown)
}

fn naive_figure(measure: &Measure, units: &[&Vec<&Drawn>], seen: &[&Drawn]) -> Option<f64> {
    let count = units.len() as f64;
    let failed = |unit: &Vec<&Drawn>| {
        let roots: Vec<_> = unit.iter().filter(|d| d.span.is_root()).collect();
        if roots.is_empty() {
            unit.iter().any(|d| d.span.is_error())
        } else {
            roots.iter().any(|d| d.span.is_error())
        }
    };
    let mean = |values: &[f64]| {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let rate = |test: &dyn Fn(&Vec<&Drawn>) -> bool| {
        (count > 0.0).then(|| units.iter().filter(|unit| test(unit)).count() as f64 / count)
    };
    let sum = |usage| {
        let parts: Vec<_> = units
            .iter()
            .map(|unit| naive_usage(usage, unit, seen))
            .collect();
        let known: usize = parts.iter().map(|(values, _)| values.len()).sum();
        let unknown: u64 = parts.iter().map(|(_, unknown)| unknown).sum();
        let sum = parts.iter().flat_map(|(values, _)| values).sum::<f64>();
        (known > 0 || unknown == 0).then_some(sum)
    };
    match measure {
        Measure::Count => None,
        Measure::ErrorRate => rate(&|unit| unit.iter().any(|d| d.span.is_error())),
        Measure::FailureRate => rate(&failed),
        Measure::Duration(percent) => {
            let lasts = |unit: &&Vec<&Drawn>| {
                let start = unit.iter().map(|d| d.span.start_ns).min().unwrap();
                unit.iter().map(|d| d.span.end_ns()).max().unwrap() - start
            };
            let all: Vec<i64> = units.iter().map(lasts).collect();
            let reaches = |value: &&i64| {
                let below = all.iter().filter(|other| other <= value).count();
                below * 100 >= usize::from(*percent) * all.len()
            };
            all.iter().filter(reaches).min().map(|ns| *ns as f64 / 1e6)
        }
        Measure::Usage(usage, UsageStat::Sum) => sum(*usage),
        Measure::Usage(usage, UsageStat::Mean) => {
            let sums = units.iter().map(|unit| naive_usage(*usage, unit, seen).0);
            let sums: Vec<f64> = sums
                .filter(|values| !values.is_empty())
                .map(|values| values.iter().sum())
                .collect();
            mean(&sums)
        }
        Measure::CostPerSuccess => {
            let successes = units.iter().filter(|unit| !failed(unit)).count();
            sum(Usage::Cost)
                .filter(|_| successes > 0)
                .map(|sum| sum / successes as f64)
        }
        Measure::Evaluation(_, label, stat) => {
            let judged = |unit: &Vec<&Drawn>| -> Vec<Evaluation> {
                let all = unit.iter().filter_map(|d| d.span.evaluations.get(label));
                all.cloned().collect()
            };
            let values: Vec<f64> = units
                .iter()
                .filter_map(|unit| match stat {
                    EvaluationStat::Mean => {
                        let scores = judged(unit).into_iter().filter_map(|e| match e.value? {
                            Value::Bool(truth) => Some(if truth { 1.0 } else { 0.0 }),
                            value => value.as_f64(),
                        });
                        mean(&scores.collect::<Vec<_>>())
                    }
                    EvaluationStat::PassRate => {
                        let all = judged(unit);
                        let assessed: Vec<_> = all.iter().filter_map(|e| e.assessment).collect();
                        let passed = assessed.iter().all(|a| *a == Assessment::Pass);
                        (!assessed.is_empty()).then_some(if passed { 1.0 } else { 0.0 })
                    }
                })
                .collect();
            mean(&values)
        }
    }
}

fn same(found: &Value, expected: Option<f64>) -> bool {
    match (found.as_f64(), expected) {
        (None, None) => true,
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 + expected.abs() * 1e-5,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_a_recount(spans in spans(), question in question()) {
        let mut tally = SpanAggregator::new(&question).unwrap();
        for drawn in &spans {
            tally.add(ScannedSpan { span: &drawn.span, selected: drawn.selected, buckets: drawn.buckets });
        }
        let found = tally.finish(spans.len() as u64, false);
        let units = naive_units(&question, &spans);
        let seen: Vec<&Drawn> = spans
            .iter()
            .filter(|drawn| question.unit == Unit::Trace || drawn.selected)
            .collect();
        prop_assert_eq!(found.total.count, units.len() as u64);
        let grouped = !question.group_by.is_empty() || question.interval_ms.is_some();
        let mut expected: BTreeMap<_, Vec<&Vec<&Drawn>>> = BTreeMap::new();
        for unit in units.iter().filter(|_| grouped) {
            for key in naive_keys(&question, unit) {
                expected.entry((naive_time(&question, unit), key)).or_default().push(unit);
            }
        }
        prop_assert_eq!(found.total_groups, expected.len());
        prop_assert_eq!(found.groups.len(), expected.len());
        for group in &found.groups {
            let members = &expected[&(group.time_ms, group.key.clone())];
            prop_assert_eq!(group.figures.count, members.len() as u64);
            for measure in &question.measures {
                let value = &group.figures.values[&measure.to_string()];
                let recount = naive_figure(measure, members, &seen);
                prop_assert!(same(value, recount), "{measure}: {value} is not {recount:?}");
            }
            if let Some((_, before)) = group.key.split_last() {
                let whole = units.iter().filter(|unit| {
                    naive_time(&question, unit) == group.time_ms
                        && naive_keys(&question, unit).iter().any(|key| key.starts_with(before))
                });
                let share = members.len() as f64 / whole.count() as f64;
                prop_assert!(same(&json!(group.share), Some(share)));
            }
        }
        let all: Vec<&Vec<&Drawn>> = units.iter().collect();
        for measure in &question.measures {
            let recount = naive_figure(measure, &all, &seen);
            let value = &found.total.values[&measure.to_string()];
            prop_assert!(same(value, recount), "{measure} of all: {value} is not {recount:?}");
        }
    }

    #[test]
    fn the_order_of_spans_changes_nothing(
        (spans, shuffled) in spans().prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle())),
        question in question(),
    ) {
        let answer = |spans: &[Drawn]| {
            let mut tally = SpanAggregator::new(&question).unwrap();
            for Drawn { span, selected, buckets } in spans {
                tally.add(ScannedSpan { span, selected: *selected, buckets: *buckets });
            }
            tally.finish(0, false)
        };
        prop_assert_eq!(answer(&spans), answer(&shuffled));
    }

    #[test]
    fn shares_add_up_to_the_whole(
        spans in proptest::collection::vec((spans(), 0_usize..4), 1..5),
        question in question(),
    ) {
        let Some(mut alone) = ColumnAggregator::new(&question).unwrap() else {
            return Ok(());
        };
        let mut shared = alone.single_threaded();
        prop_assert!(shared.partitions(3).is_empty());
        shared = ColumnAggregator::new(&question).unwrap().unwrap();
        let mut shares = shared.partitions(3);
        for (spans, share) in &spans {
            for Drawn { span, selected, buckets } in spans {
                let seen = || ScannedSpan { span, selected: *selected, buckets: *buckets };
                alone.add_span(seen());
                if let Some(share) = shares.get_mut(*share) {
                    share.add_span(seen());
                }
            }
        }
        // More of them take nothing from the first.
        prop_assert_eq!(shared.partitions(1).len(), 1);
        // What no share took comes later, as what an index lacks does.
        let late = spans.iter().filter(|(_, share)| *share == 3);
        for Drawn { span, selected, buckets } in late.flat_map(|(spans, _)| spans) {
            shared.add_span(ScannedSpan { span, selected: *selected, buckets: *buckets });
        }
        prop_assert!(!shared.overflowed_in_partitions());
        prop_assert_eq!(shared.finish(), alone.finish());
    }
}

#[test]
fn shares_that_left_groups_out_are_told() {
    let question = AggregateRequest {
        query: None,
        ml_app: None,
        tags: Vec::new(),
        window: WINDOW,
        unit: Unit::Span,
        group_by: vec![Dimension::Facet("n".into())],
        measures: Vec::new(),
        interval_ms: None,
        offset: 0,
        limit: 1,
    };
    // Each span has so many values in a row.
    let answer = |values: [std::ops::Range<usize>; 2], each: usize| {
        let mut gatherer = ColumnAggregator::new(&question).unwrap().unwrap();
        for (share, values) in gatherer.partitions(2).into_iter().zip(values) {
            for value in values {
                let span = Span {
                    tags: (value..value + each).map(|n| format!("n:{n}")).collect(),
                    ..Span::default()
                };
                share.add_span(ScannedSpan {
                    span: &span,
                    selected: true,
                    buckets: 0,
                });
            }
        }
        (gatherer.overflowed_in_partitions(), gatherer.finish())
    };
    let most = tally::MAX_GROUPS;
    assert!(answer([0..most + 1, 0..1], 1).0);
    let (overflowed_in_partitions, _) = answer([0..most - 2, most..most + 2], 2);
    assert!(
        overflowed_in_partitions,
        "what was counted twice is of groups that are left out"
    );
    let (overflowed_in_partitions, together) = answer([0..most - 1, most - 1..most + 1], 1);
    assert!(
        !overflowed_in_partitions,
        "no figure of a group lacks anything"
    );
    assert_eq!(together.total_groups, most);
    assert_eq!(together.total.count, most as u64 + 1);
    assert_eq!(together.notes, [tally::CLIPPED]);
}

#[test]
fn a_question_reads_back_as_itself_and_pages_meet() {
    let question = AggregateRequest {
        query: Some("@status:ok".into()),
        ml_app: Some("shop".into()),
        tags: vec![("env".into(), "prod".into())],
        window: WINDOW,
        unit: Unit::Trace,
        group_by: vec![Dimension::Facet("team".into())],
        measures: Measure::family("cost").unwrap(),
        interval_ms: Some(5),
        offset: 1,
        limit: 2,
    };
    let text = serde_json::to_string(&question).unwrap();
    assert_eq!(
        serde_json::from_str::<AggregateRequest>(&text).unwrap(),
        question
    );
    assert_eq!(
        question.selection_query().unwrap(),
        "(@status:ok) AND env:\"prod\""
    );

    let mut tally = SpanAggregator::new(&AggregateRequest {
        interval_ms: None,
        ..question
    })
    .unwrap();
    for team in 0..5 {
        let span = Span {
            trace_id: TraceId::from(format!("t{team}")),
            tags: vec![format!("team:{team}")],
            ..Span::default()
        };
        tally.add(ScannedSpan {
            span: &span,
            selected: true,
            buckets: 0,
        });
    }
    let found = tally.finish(5, false);
    let teams: Vec<_> = found.groups.iter().map(|group| &group.key[0]).collect();
    assert_eq!(teams, [&Some("1".to_owned()), &Some("2".to_owned())]);
    assert_eq!((found.total_groups, found.total.count), (5, 5));
}
