//! Compares the aggregators with a naive implementation of the definitions.

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

/// A random span, whether it is selected, and the buckets that it matches.
#[derive(Debug, Clone)]
struct TestSpan {
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
    prop::option::of((value, assessment)).prop_map(|sample| {
        let entry = |(value, assessment)| {
            let evaluation = Evaluation {
                value: Some(value),
                assessment,
                ..Evaluation::default()
            };
            ("tone".to_owned(), evaluation)
        };
        sample.map(entry).into_iter().collect()
    })
}

fn test_span(number: usize) -> impl Strategy<Value = TestSpan> {
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
                TestSpan {
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

fn spans() -> impl Strategy<Value = Vec<TestSpan>> {
    (0_usize..12).prop_flat_map(|count| (0..count).map(test_span).collect::<Vec<_>>())
}

fn request() -> impl Strategy<Value = AggregateRequest> {
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

/// The units, as lists of spans.
fn naive_units<'a>(request: &AggregateRequest, spans: &'a [TestSpan]) -> Vec<Vec<&'a TestSpan>> {
    if request.unit == Unit::Span {
        let selected = spans.iter().filter(|sample| sample.selected);
        return selected.map(|sample| vec![sample]).collect();
    }
    let ids: BTreeSet<&str> = spans.iter().map(|d| d.span.trace_id.as_str()).collect();
    let of = |id: &str| -> Vec<&TestSpan> {
        let spans = spans.iter();
        spans.filter(|d| d.span.trace_id.as_str() == id).collect()
    };
    let traces = ids.into_iter().map(of);
    traces
        .filter(|trace| trace.iter().any(|sample| sample.selected))
        .collect()
}

fn naive_values(dimension: &Dimension, unit: &[&TestSpan]) -> BTreeSet<Option<String>> {
    let mut values = BTreeSet::new();
    for sample in unit {
        match dimension {
            Dimension::Facet(name) if name == "team" => {
                let tags = sample.span.tags.iter();
                values.extend(tags.map(|tag| tag.strip_prefix("team:").map(str::to_owned)));
            }
            Dimension::Facet(_) => values.extend(sample.span.model_name.clone().map(Some)),
            Dimension::Buckets(buckets) => {
                for (index, bucket) in buckets.iter().enumerate() {
                    if sample.buckets >> index & 1 == 1 {
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

fn naive_time(request: &AggregateRequest, unit: &[&TestSpan]) -> Option<i64> {
    let start = unit.iter().map(|d| d.span.start_ms()).min().unwrap();
    let interval = request.interval_ms?;
    let mut bucket = request.window.from_ms;
    while bucket + interval <= start {
        bucket += interval;
    }
    Some(bucket)
}

/// The keys of a unit: every combination of its values.
fn naive_keys(request: &AggregateRequest, unit: &[&TestSpan]) -> BTreeSet<Vec<Option<String>>> {
    let mut keys = BTreeSet::from([Vec::new()]);
    for dimension in &request.group_by {
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

/// The usage of the model calls of a unit: values that count, and the number of calls without a
/// value. `scope` holds all spans in scope.
fn naive_usage(usage: Usage, unit: &[&TestSpan], scope: &[&TestSpan]) -> (Vec<f64>, u64) {
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
        let found = scope.iter().find(|d| {
            d.span.kind == SpanKind::Llm
                && d.span.trace_id == span.trace_id
                && Some(&d.span.span_id) == span.parent_id.as_ref()
        });
        found.map(|d| d.span.clone())
    };
    let enclosing_spans = |span: &Span| -> Vec<Span> {
        let mut found: Vec<Span> = Vec::new();
        let mut inner = span.clone();
        while inner.kind == SpanKind::Llm
            && let Some(outer) = parent(&inner)
            && !found.iter().any(|other| other.span_id == outer.span_id)
        {
            if outer.span_id == span.span_id {
                if found.iter().all(|other| span.span_id < other.span_id) {
                    found.clear();
                }
                break;
            }
            found.push(outer.clone());
            inner = outer;
        }
        found
    };
    let (mut values, mut unknown) = (Vec::new(), 0);
    for sample in unit {
        let span = &sample.span;
        if !matches!(span.kind, SpanKind::Llm | SpanKind::Embedding) {
            continue;
        }
        let enclosing = enclosing_spans(span);
        match value(span) {
            Some(value_of_span) if !enclosing.iter().any(|outer| value(outer).is_some()) => {
                values.push(value_of_span);
            }
            Some(_) => {}
            None if span.kind == SpanKind::Embedding && usage == Usage::OutputTokens => {}
            None if enclosing.is_empty() => {
                let inside = scope.iter().any(|other| {
                    let around = enclosing_spans(&other.span);
                    value(&other.span).is_some()
                        && other.span.trace_id == span.trace_id
                        && around.iter().any(|outer| outer.span_id == span.span_id)
                });
                unknown += u64::from(!inside);
            }
            None => {}
        }
    }
    (values, unknown)
}

fn naive_measure(measure: &Measure, units: &[&Vec<&TestSpan>], scope: &[&TestSpan]) -> Option<f64> {
    let count = units.len() as f64;
    let failed = |unit: &Vec<&TestSpan>| {
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
    let rate = |test: &dyn Fn(&Vec<&TestSpan>) -> bool| {
        (count > 0.0).then(|| units.iter().filter(|unit| test(unit)).count() as f64 / count)
    };
    let sum = |usage| {
        let parts: Vec<_> = units
            .iter()
            .map(|unit| naive_usage(usage, unit, scope))
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
            let lasts = |unit: &&Vec<&TestSpan>| {
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
            let sums = units.iter().map(|unit| naive_usage(*usage, unit, scope).0);
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
            let evaluations = |unit: &Vec<&TestSpan>| -> Vec<Evaluation> {
                let all = unit.iter().filter_map(|d| d.span.evaluations.get(label));
                all.cloned().collect()
            };
            let values: Vec<f64> = units
                .iter()
                .filter_map(|unit| match stat {
                    EvaluationStat::Mean => {
                        let scores =
                            evaluations(unit)
                                .into_iter()
                                .filter_map(|e| match e.value? {
                                    Value::Bool(truth) => Some(if truth { 1.0 } else { 0.0 }),
                                    value => value.as_f64(),
                                });
                        mean(&scores.collect::<Vec<_>>())
                    }
                    EvaluationStat::PassRate => {
                        let all = evaluations(unit);
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

fn nearly_equal(result: &Value, expected: Option<f64>) -> bool {
    match (result.as_f64(), expected) {
        (None, None) => true,
        (Some(result), Some(expected)) => (result - expected).abs() <= 1e-9 + expected.abs() * 1e-5,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_naive_implementation(spans in spans(), request in request()) {
        let mut aggregator = SpanAggregator::new(&request).unwrap();
        for sample in &spans {
            aggregator.add(ScannedSpan { span: &sample.span, selected: sample.selected, buckets: sample.buckets });
        }
        let result = aggregator.finish(spans.len() as u64, false);
        let units = naive_units(&request, &spans);
        let scope: Vec<&TestSpan> = spans
            .iter()
            .filter(|sample| request.unit == Unit::Trace || sample.selected)
            .collect();
        prop_assert_eq!(result.total.count, units.len() as u64);
        let grouped = !request.group_by.is_empty() || request.interval_ms.is_some();
        let mut expected: BTreeMap<_, Vec<&Vec<&TestSpan>>> = BTreeMap::new();
        for unit in units.iter().filter(|_| grouped) {
            for key in naive_keys(&request, unit) {
                expected.entry((naive_time(&request, unit), key)).or_default().push(unit);
            }
        }
        prop_assert_eq!(result.total_groups, expected.len());
        prop_assert_eq!(result.groups.len(), expected.len());
        for group in &result.groups {
            let members = &expected[&(group.time_ms, group.key.clone())];
            prop_assert_eq!(group.measured.count, members.len() as u64);
            for measure in &request.measures {
                let value = &group.measured.values[&measure.to_string()];
                let expected_total = naive_measure(measure, members, &scope);
                prop_assert!(nearly_equal(value, expected_total), "{measure}: {value} is not {expected_total:?}");
            }
            if let Some((_, prefix)) = group.key.split_last() {
                let same_prefix = units.iter().filter(|unit| {
                    naive_time(&request, unit) == group.time_ms
                        && naive_keys(&request, unit).iter().any(|key| key.starts_with(prefix))
                });
                let share = members.len() as f64 / same_prefix.count() as f64;
                prop_assert!(nearly_equal(&json!(group.share), Some(share)));
            }
        }
        let all: Vec<&Vec<&TestSpan>> = units.iter().collect();
        for measure in &request.measures {
            let expected_total = naive_measure(measure, &all, &scope);
            let value = &result.total.values[&measure.to_string()];
            prop_assert!(nearly_equal(value, expected_total), "{measure} of all: {value} is not {expected_total:?}");
        }
    }

    #[test]
    fn result_does_not_depend_on_span_order(
        (spans, shuffled) in spans().prop_flat_map(|spans| (Just(spans.clone()), Just(spans).prop_shuffle())),
        request in request(),
    ) {
        let answer = |spans: &[TestSpan]| {
            let mut aggregator = SpanAggregator::new(&request).unwrap();
            for TestSpan { span, selected, buckets } in spans {
                aggregator.add(ScannedSpan { span, selected: *selected, buckets: *buckets });
            }
            aggregator.finish(0, false)
        };
        prop_assert_eq!(answer(&spans), answer(&shuffled));
    }

    #[test]
    fn partitions_add_up_to_single_threaded_result(
        spans in proptest::collection::vec((spans(), 0_usize..4), 1..5),
        request in request(),
    ) {
        let Some(mut serial) = ColumnAggregator::new(&request).unwrap() else {
            return Ok(());
        };
        let mut parallel = serial.single_threaded();
        prop_assert!(parallel.partitions(3).is_empty());
        parallel = ColumnAggregator::new(&request).unwrap().unwrap();
        let mut partitions = parallel.partitions(3);
        for (spans, partition) in &spans {
            for TestSpan { span, selected, buckets } in spans {
                let scanned = || ScannedSpan { span, selected: *selected, buckets: *buckets };
                serial.add_span(scanned());
                if let Some(partition) = partitions.get_mut(*partition) {
                    partition.add_span(scanned());
                }
            }
        }
        // Adding partitions keeps the earlier ones.
        prop_assert_eq!(parallel.partitions(1).len(), 1);
        // Spans of no partition are added at the end, like spans that an index does not hold.
        let late = spans.iter().filter(|(_, partition)| *partition == 3);
        for TestSpan { span, selected, buckets } in late.flat_map(|(spans, _)| spans) {
            parallel.add_span(ScannedSpan { span, selected: *selected, buckets: *buckets });
        }
        prop_assert!(!parallel.overflowed_in_partitions());
        prop_assert_eq!(parallel.finish(), serial.finish());
    }
}

#[test]
fn detects_groups_omitted_in_partitions() {
    let request = AggregateRequest {
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
    // Each span has `each` consecutive values.
    let answer = |values: [std::ops::Range<usize>; 2], each: usize| {
        let mut aggregator = ColumnAggregator::new(&request).unwrap().unwrap();
        for (partition, values) in aggregator.partitions(2).into_iter().zip(values) {
            for value in values {
                let span = Span {
                    tags: (value..value + each).map(|n| format!("n:{n}")).collect(),
                    ..Span::default()
                };
                partition.add_span(ScannedSpan {
                    span: &span,
                    selected: true,
                    buckets: 0,
                });
            }
        }
        (aggregator.overflowed_in_partitions(), aggregator.finish())
    };
    let most = compiled::MAX_GROUPS;
    assert!(answer([0..most + 1, 0..1], 1).0);
    let (overflowed_in_partitions, _) = answer([0..most - 2, most..most + 2], 2);
    assert!(
        overflowed_in_partitions,
        "omitted groups count some spans twice"
    );
    let (overflowed_in_partitions, together) = answer([0..most - 1, most - 1..most + 1], 1);
    assert!(!overflowed_in_partitions, "no group is incomplete");
    assert_eq!(together.total_groups, most);
    assert_eq!(together.total.count, most as u64 + 1);
    assert_eq!(together.notes, [compiled::LIMIT_NOTE]);
}

#[test]
fn request_round_trips_and_offset_selects_page() {
    let request = AggregateRequest {
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
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(
        serde_json::from_str::<AggregateRequest>(&text).unwrap(),
        request
    );
    assert_eq!(
        request.selection_query().unwrap(),
        "(@status:ok) AND env:\"prod\""
    );

    let mut aggregator = SpanAggregator::new(&AggregateRequest {
        interval_ms: None,
        ..request
    })
    .unwrap();
    for team in 0..5 {
        let span = Span {
            trace_id: TraceId::from(format!("t{team}")),
            tags: vec![format!("team:{team}")],
            ..Span::default()
        };
        aggregator.add(ScannedSpan {
            span: &span,
            selected: true,
            buckets: 0,
        });
    }
    let result = aggregator.finish(5, false);
    let teams: Vec<_> = result.groups.iter().map(|group| &group.key[0]).collect();
    assert_eq!(teams, [&Some("1".to_owned()), &Some("2".to_owned())]);
    assert_eq!((result.total_groups, result.total.count), (5, 5));
}
