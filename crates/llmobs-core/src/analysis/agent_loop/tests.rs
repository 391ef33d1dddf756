//! Loops as frameworks nest them, and irregular data.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use support::{agent, call_summaries, from_start, ids, llm, span, tool, tree};

use super::*;
use crate::analysis::captures;
use crate::model::Span;

fn has_note(result: &AgentLoop<'_>, text: &str) -> bool {
    result.notes.iter().any(|note| note.contains(text))
}

#[test]
fn captured_loops() {
    for name in captures::NAMES {
        let traces = captures::traces(name);
        let loops: Vec<AgentLoop<'_>> = traces
            .values()
            .map(|tree| {
                let mut result = agent_loop(tree, None);
                truncate_texts(&mut result, 300);
                result
            })
            .collect();
        insta::assert_json_snapshot!(format!("loops_{name}"), loops);
    }
}

#[test]
fn follows_captured_handoff_only_without_a_start() {
    let tree = captures::trace_with("10-py-auto-openai_agents", "triage");
    let all = agent_loop(&tree, None);
    let agents: Vec<_> = all.iterations.iter().map(|i| i.agent.unwrap()).collect();
    assert_eq!(agents, ["triage", "population_expert", "population_expert"]);
    assert_eq!(all.agent_name, "triage");

    let triage = agent_loop(&tree, all.start);
    assert_eq!(triage.total_iterations, 1);
    let handed_to = triage.iterations[0].tool_calls[0].handoff_to;
    assert_eq!(handed_to, all.iterations[1].agent_span_id);
    assert!(has_note(&triage, "handed off to another agent"));

    let root = agent_loop(&tree, tree.roots().first().copied());
    assert_eq!(root.total_iterations, 3, "a workflow shows all its agents");
    assert!(root.sub_agents.iter().all(|sub| sub.included));
}

#[test]
fn every_captured_span_can_be_the_start() {
    for name in captures::NAMES {
        for tree in captures::traces(name).into_values() {
            for node in tree.nodes() {
                let result = agent_loop(&tree, Some(node));
                assert_eq!(result.span_id, tree.span(node).span_id);
                assert!(!result.iterations.is_empty());
                assert_eq!(result.iterations.len(), result.total_iterations);
            }
        }
    }
}

#[test]
fn nested_llm_spans_are_one_decision_with_content_of_the_inner_span() {
    let mut outer = llm("outer", "a", 1, 5);
    outer.0.metrics.clear();
    let tree = tree(vec![
        agent("a", "", 0, 20),
        outer,
        llm("inner", "outer", 2, 4)
            .input(json!([{"role": "user", "content": "q"}]))
            .requests(&[("find", json!({"q": 1}), "c1")]),
        tool("t", "find", "a", 6, 7).output(json!("found")),
        llm("outer2", "a", 8, 12).text_output("done"),
        llm("inner2", "outer2", 9, 11).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(ids(&result), ["outer", "outer2"]);
    assert_eq!(call_summaries(&result), [vec!["t = found"], vec![]]);
    assert_eq!(
        (result.totals.input_tokens, result.totals.llm_calls),
        (20, 2)
    );
    assert_eq!(result.timeline[0].content, "q");
}

#[test]
fn pairs_parallel_calls_by_id() {
    let tree = tree(vec![
        agent("a", "", 0, 20),
        llm("l1", "a", 1, 2).requests(&[
            ("find", json!({"q": 1}), "c1"),
            ("find", json!({"q": 1}), "c2"),
        ]),
        tool("second", "find", "a", 3, 4)
            .meta("tool_id", "c2")
            .output(json!("two")),
        tool("first", "find", "a", 5, 6)
            .input(json!(
                r#"{"args": {"q": 1}, "id": "c1", "name": "find", "type": "tool_call"}"#
            ))
            .output(json!("one")),
        llm("l2", "a", 7, 8).text_output("done"),
    ]);
    assert_eq!(
        call_summaries(&agent_loop(&tree, None))[0],
        ["first = one", "second = two"]
    );
}

#[test]
fn pairs_calls_without_ids_by_arguments_then_by_name() {
    let tree = tree(vec![
        agent("a", "", 0, 20),
        llm("l1", "a", 1, 2).requests(&[
            ("find", json!({"q": 1, "r": 2}), ""),
            ("find", json!(r#"{"q": 2}"#), ""),
            ("mcp__shop__Get-Order", json!({"id": 7}), ""),
            ("odd", json!({"x": 1}), ""),
        ]),
        tool("f2", "find", "a", 3, 4)
            .input(json!(r#"{"q": 2}"#))
            .output(json!("2")),
        tool("f1", "find", "a", 4, 5)
            .input(json!(r#"{"r": 2, "q": 1}"#))
            .output(json!("1")),
        tool("g", "execute_tool get_order", "a", 5, 6).output(json!("order")),
        tool("o", "ToolExecutor", "a", 6, 7)
            .input(json!(r#"{"x": 1}"#))
            .output(json!("odd")),
        llm("l2", "a", 9, 10).text_output("done"),
    ]);
    assert_eq!(
        call_summaries(&agent_loop(&tree, None))[0],
        ["f1 = 1", "f2 = 2", "g = order", "o = odd"]
    );
}

#[test]
fn pairs_reused_ids_with_the_next_result() {
    let input = |results: &[&str]| {
        let results = results.iter();
        let messages: Vec<Value> = results
            .map(|result| {
                json!({"role": "tool", "content": "",
                "tool_results": [{"tool_id": "call_0", "result": result}]})
            })
            .collect();
        Value::Array(messages)
    };
    let request = |n: i64| [("find", json!({"n": n}), "call_0")];
    let tree = tree(vec![
        agent("a", "", 0, 20),
        llm("l1", "a", 1, 2).requests(&request(1)),
        llm("l2", "a", 3, 4)
            .input(input(&["one"]))
            .requests(&request(2)),
        llm("l3", "a", 5, 6)
            .input(input(&["one", "two"]))
            .text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(
        call_summaries(&result),
        [vec!["- = one"], vec!["- = two"], vec![]]
    );
}

#[test]
fn tool_without_span_has_the_result_that_the_model_received() {
    // CrewAI runs its tools inside a task.
    let tree = tree(vec![
        span("crew", "", SpanKind::Workflow, 0, 30),
        span("task", "crew", SpanKind::Task, 0, 30),
        agent("a", "task", 0, 30),
        span("exec", "a", SpanKind::Workflow, 0, 30),
        llm("l1", "exec", 1, 2)
            .requests(&[("find", json!({}), "c1"), ("missing", json!({}), "c2")]),
        span("execute_native_tool", "exec", SpanKind::Task, 3, 4),
        llm("l2", "exec", 5, 6)
            .input(json!([{"role": "tool", "content": "found", "tool_call_id": "c1"}]))
            .text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(result.agent_name, "a");
    assert_eq!(call_summaries(&result)[0], ["- = found", "- = -"]);
    assert!(has_note(&result, "1 tool call(s) have neither"));
}

#[test]
fn lists_tool_without_request_in_the_iteration_that_it_follows() {
    let tree = tree(vec![
        agent("a", "", 0, 20),
        tool("warmup", "warmup", "a", 0, 1).output(json!("w")),
        llm("l1", "a", 2, 3).text_output("hm"),
        tool("log", "log", "a", 4, 5)
            .input(json!(r#"{"line": 1}"#))
            .output(json!("l")),
        llm("l2", "a", 6, 7).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(
        call_summaries(&result),
        [
            vec!["warmup = w unrequested", "log = l unrequested"],
            vec![]
        ]
    );
    assert_eq!(
        *result.iterations[0].tool_calls[1].arguments,
        json!({"line": 1})
    );
}

#[test]
fn reports_errors_of_tools_and_decisions() {
    let tree = tree(vec![
        agent("a", "", 0, 20),
        llm("l1", "a", 1, 2).requests(&[("find", json!({}), "c1")]),
        tool("t", "find", "a", 3, 4).fails("no network"),
        llm("l2", "a", 5, 6).fails("overloaded"),
    ]);
    let result = agent_loop(&tree, None);
    let call = &result.iterations[0].tool_calls[0];
    assert_eq!(
        (call.status, call.error.as_deref()),
        (Some(Status::Error), Some("no network"))
    );
    assert_eq!(
        result.iterations[1].error_message.as_deref(),
        Some("overloaded")
    );
    let last = result.timeline.last().unwrap();
    assert_eq!(
        (last.content.as_ref(), last.status),
        ("overloaded", Some(Status::Error))
    );
}

#[test]
fn excludes_decisions_of_sub_agents() {
    // A coding agent: agent > step > llm and tools, a sub-agent inside a tool.
    let tree = tree(vec![
        agent("main", "", 0, 40)
            .tokens(999.0)
            .input(json!("fix it")),
        span("inference-1", "main", SpanKind::Step, 1, 20),
        llm("l1", "inference-1", 2, 3).requests(&[("Task", json!({"p": "look"}), "c1")]),
        tool("task", "Task", "inference-1", 4, 15)
            .meta("tool_id", "c1")
            .output(json!("seen")),
        agent("scout", "task", 5, 14).tokens(500.0),
        llm("s1", "scout", 6, 7).text_output("hm"),
        llm("s2", "scout", 8, 9).text_output("seen"),
        span("inference-2", "main", SpanKind::Step, 21, 30),
        llm("l2", "inference-2", 22, 23).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(ids(&result), ["l1", "l2"]);
    assert_eq!(result.totals.input_tokens, 20);
    let sub = &result.sub_agents[0];
    assert_eq!(
        (sub.name, sub.iteration, sub.llm_calls),
        ("scout", Some(1), 2)
    );
    assert!(has_note(&result, "1 sub-agent(s) made 2 LLM call(s)"));
    // Decisions added later by a coding agent have no input, so the agent's input is shown.
    assert_eq!(
        (result.timeline[0].role, result.timeline[0].content.as_ref()),
        ("user", "fix it")
    );
    assert_eq!(ids(&from_start(&tree, "scout")), ["s1", "s2"]);
    assert_eq!(ids(&from_start(&tree, "task")), ["s1", "s2"]);
}

#[test]
fn agent_without_decisions_shows_its_tools_and_sub_agents_in_order() {
    let tree = tree(vec![
        agent("boss", "", 0, 40),
        tool("load", "load", "boss", 1, 2).output(json!("loaded")),
        agent("writer", "boss", 3, 10),
        llm("w1", "writer", 4, 5).text_output("text"),
        tool("check", "check", "boss", 11, 12).output(json!("ok")),
        agent("editor", "boss", 13, 20),
        agent("inner", "editor", 14, 19),
        llm("e1", "inner", 15, 16).text_output("better"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(ids(&result), ["load", "w1", "check", "e1"]);
    let agents: Vec<_> = result.iterations.iter().map(|i| i.agent.unwrap()).collect();
    assert_eq!(agents, ["boss", "writer", "boss", "inner"]);
    let sub_agents: Vec<_> = result
        .sub_agents
        .iter()
        .map(|s| (s.name, s.iteration))
        .collect();
    assert_eq!(
        sub_agents,
        [("writer", Some(2)), ("editor", None), ("inner", Some(4))]
    );
    assert!((result.totals.duration_ms - 40.0).abs() < 1e-9);
}

#[test]
fn lists_parallel_decisions_with_their_tools() {
    let tree = tree(vec![
        agent("a", "", 0, 40),
        llm("p1", "a", 1, 10).requests(&[("find", json!({"n": 1}), "")]),
        llm("p2", "a", 2, 9).requests(&[("find", json!({"n": 2}), "")]),
        tool("t2", "find", "a", 11, 12)
            .input(json!(r#"{"n": 2}"#))
            .output(json!("2")),
        tool("t1", "find", "a", 12, 13)
            .input(json!(r#"{"n": 1}"#))
            .output(json!("1")),
        llm("end", "a", 20, 21).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(
        call_summaries(&result),
        [vec!["t1 = 1"], vec!["t2 = 2"], vec![]]
    );
    assert!(result.iterations[1].overlaps_previous && !result.iterations[2].overlaps_previous);
}

#[test]
fn counts_repeated_calls() {
    let mut spans = vec![agent("a", "", 0, 100)];
    for n in 0..4 {
        let arguments = [("build", json!({"target": "all"}), "")];
        spans.push(llm(&format!("l{n}"), "a", 10 * n + 1, 10 * n + 2).requests(&arguments));
        spans.push(tool(&format!("t{n}"), "build", "a", 10 * n + 3, 10 * n + 4).fails("no rule"));
    }
    let tree = tree(spans);
    let result = agent_loop(&tree, None);
    let repeat = &result.repeated_calls[0];
    assert_eq!((repeat.name, repeat.count), ("build", 4));
    assert_eq!(repeat.iterations, [1, 2, 3, 4]);
    assert_eq!(repeat.span_ids.len(), 4);
}

#[test]
fn shows_later_user_message_before_the_decision_that_received_it() {
    let tree = tree(vec![
        agent("a", "", 0, 40),
        llm("l1", "a", 1, 2)
            .input(json!([{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]))
            .text_output("first"),
        llm("l2", "a", 3, 4)
            .input(json!([
                {"role": "system", "content": "s"}, {"role": "user", "content": "one"},
                {"role": "assistant", "content": "first"}, {"role": "user", "content": "two"},
            ]))
            .text_output("second"),
    ]);
    let timeline: Vec<_> = agent_loop(&tree, None)
        .timeline
        .into_iter()
        .map(|entry| {
            (
                entry.iteration,
                entry.role.to_owned(),
                entry.content.into_owned(),
            )
        })
        .collect();
    let expected = [
        (0, "system", "s"),
        (0, "user", "one"),
        (1, "assistant", "first"),
        (1, "user", "two"),
        (2, "assistant", "second"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(n, role, text)| (*n, (*role).to_owned(), (*text).to_owned()))
        .collect();
    assert_eq!(timeline, expected);
}

#[test]
fn orphans_of_an_unfinished_agent_form_a_loop() {
    let tree = tree(vec![
        llm("l1", "unsent", 1, 2).requests(&[("find", json!({}), "c1")]),
        tool("t", "find", "unsent", 3, 4).output(json!("found")),
        llm("l2", "unsent", 5, 6).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(call_summaries(&result), [vec!["t = found"], vec![]]);
}

#[test]
fn decisions_outside_agents_are_noted_or_form_the_loop() {
    let beside = tree(vec![
        span("flow", "", SpanKind::Workflow, 0, 40),
        llm("route", "flow", 1, 2).text_output("a"),
        agent("a", "flow", 3, 10),
        llm("l1", "a", 4, 5).text_output("done"),
    ]);
    let result = agent_loop(&beside, None);
    assert_eq!(ids(&result), ["l1"]);
    assert!(has_note(&result, "1 LLM call(s) are outside"));
    let root = from_start(&beside, "flow");
    assert_eq!(ids(&root), ["route"]);
    assert_eq!(root.sub_agents[0].llm_calls, 1);

    let hollow = tree(vec![
        span("flow", "", SpanKind::Workflow, 0, 40),
        agent("a", "flow", 0, 10),
        tool("t", "find", "a", 3, 4).output(json!("found")),
        llm("l1", "flow", 1, 2).requests(&[("find", json!({}), "")]),
    ]);
    let result = agent_loop(&hollow, None);
    assert_eq!(call_summaries(&result), [vec!["t = found"]]);
    assert!(has_note(&result, "outside its agent spans"));
}

#[test]
fn steps_without_decisions_are_iterations() {
    let tree = tree(vec![
        agent("a", "", 0, 40),
        span("step", "a", SpanKind::Step, 1, 10).output(json!("thought")),
        tool("t", "find", "step", 2, 3).output(json!("found")),
        tool("loose", "end", "a", 12, 13).output(json!("bye")),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(ids(&result), ["step", "loose"]);
    assert_eq!(result.iterations[0].content, "thought");
    assert_eq!(
        call_summaries(&result),
        [
            vec!["t = found unrequested"],
            vec!["loose = bye unrequested"]
        ]
    );
    assert!(has_note(&result, "No LLM call is recorded"));
}

#[test]
fn excludes_llm_calls_inside_tools() {
    let tree = tree(vec![
        agent("a", "", 0, 40),
        llm("l1", "a", 1, 2).requests(&[("sum", json!({}), "")]),
        tool("t", "sum", "a", 3, 9).output(json!("short")),
        llm("in_tool", "t", 4, 5).text_output("short"),
        llm("l2", "a", 10, 11).text_output("done"),
    ]);
    let result = agent_loop(&tree, None);
    assert_eq!(ids(&result), ["l1", "l2"]);
    assert!(has_note(&result, "1 LLM call(s) were made inside tools"));
    assert_eq!(ids(&from_start(&tree, "t")), ["in_tool"]);
}

#[test]
fn empty_trace_has_empty_loop() {
    let tree = TraceTree::build(&[]);
    let result = agent_loop(&tree, None);
    assert!(result.iterations.is_empty() && result.timeline.is_empty());
}

#[test]
fn truncates_and_counts_texts_and_arguments() {
    let tree = tree(vec![
        agent("a", "", 0, 40),
        llm("l1", "a", 1, 2)
            .input(json!([{"role": "user", "content": "q".repeat(50)}]))
            .requests(&[("find", json!({"long": "x".repeat(50)}), "")]),
        tool("t", "find", "a", 3, 4).output(json!("r".repeat(50))),
    ]);
    let mut result = agent_loop(&tree, None);
    assert_eq!(truncate_texts(&mut result, 20), 4);
    let call = &result.iterations[0].tool_calls[0];
    assert_eq!(
        *call.arguments,
        json!("{\"long\":\"x …[41 characters cut]… xxxxxxxx\"}")
    );
    assert_eq!(truncate_texts(&mut result, 1_000), 0);
}

#[test]
fn handles_thousands_of_nested_or_sequential_decisions() {
    let mut chain = vec![agent("root", "", 0, 100_000)];
    let mut row = vec![agent("root", "", 0, 100_000)];
    let mut parent = "root".to_owned();
    for n in 0..5_000 {
        let (id, task) = (format!("l{n}"), format!("k{n}"));
        chain.push(span(&task, &parent, SpanKind::Task, n, 90_000));
        chain.push(llm(&id, &task, n, n + 1).text_output("x"));
        parent = task;
        row.push(llm(&id, "root", n, 90_000).requests(&[("find", json!({"n": n}), "")]));
        let tool_span = tool(&format!("t{n}"), "find", "root", n + 1, n + 2);
        row.push(tool_span.input(json!({"n": n})));
    }
    assert_eq!(agent_loop(&tree(chain), None).total_iterations, 5_000);
    let row = tree(row);
    let row = agent_loop(&row, None);
    assert_eq!(row.totals.tool_calls, 5_000);
    assert!(
        row.iterations
            .iter()
            .all(|i| i.tool_calls[0].arguments["n"] == i.start_ms)
    );
}

fn any_kind() -> impl Strategy<Value = SpanKind> {
    prop::sample::select(vec![
        SpanKind::Agent,
        SpanKind::Llm,
        SpanKind::Llm,
        SpanKind::Tool,
        SpanKind::Task,
        SpanKind::Step,
    ])
}

proptest! {
    #[test]
    fn lists_each_decision_and_each_tool_once(
        spans in prop::collection::vec(
            (0..30_u8, prop::option::of(0..35_u8), any_kind(), 0..20_i64, 0..10_i64, 0..3_usize), 1..30
        ),
    ) {
        // Ids repeat, and parents are missing or form cycles. Names identify the spans.
        let spans: Vec<_> = spans
            .into_iter()
            .enumerate()
            .map(|(at, (id, parent, kind, start, length, call_count))| {
                let parent = parent.map(|parent| parent.to_string()).unwrap_or_default();
                let calls: Vec<_> = (0..call_count).map(|n| ("find", json!({"n": n}), "")).collect();
                let build = span(&id.to_string(), &parent, kind, start, start + length);
                Arc::new(build.name(&format!("{at}")).tokens(1.0).requests(&calls).0)
            })
            .collect();
        let tree = TraceTree::build(&spans);
        for start in tree.nodes().map(Some).chain([None]) {
            let result = agent_loop(&tree, start);
            prop_assert!(!result.iterations.is_empty());
            let mut names: Vec<_> = result.iterations.iter().map(|i| &i.name).collect();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), result.total_iterations);
            let calls = || result.iterations.iter().flat_map(|i| &i.tool_calls);
            prop_assert_eq!(calls().count(), result.totals.tool_calls);
            let unrequested: Vec<_> = calls().filter(|c| !c.asked_by_model).map(|c| &c.name).collect();
            let mut once = unrequested.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), unrequested.len());
            let numbers = result.iterations.iter().map(|i| i.iteration);
            prop_assert!(numbers.eq(1..=result.total_iterations));
        }
    }
}
