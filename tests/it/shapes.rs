//! Irregular traces and very large traces.

use serde_json::{Value, json};

use crate::support::{App, NOW_MS};

const TRACE: &str = "000000000000000000000000000000aa";

fn span(id: usize, parent: &str, kind: &str) -> Value {
    let start = (NOW_MS - 3_600_000) * 1_000_000 + i64::try_from(id).unwrap() * 1_000_000;
    json!({
        "span_id": id.to_string(), "trace_id": TRACE, "parent_id": parent, "name": format!("step {id}"),
        "status": "ok", "start_ns": start, "duration": 900_000, "tags": ["ml_app:shapes"],
        "meta": {"span": {"kind": kind}, "input": {"value": format!("in {id}")}, "output": {"value": format!("out {id}")}},
        "metrics": {},
    })
}

async fn app_with(spans: Vec<Value>) -> App {
    let app = App::new();
    app.spans(json!(spans)).await;
    app
}

/// The ids of all nodes of an answer, and the number of hidden spans.
fn nodes(answer: &Value) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    let mut hidden = 0;
    let mut open: Vec<&Value> = Vec::new();
    for key in ["spans", "orphans"] {
        open.extend(answer[key].as_array().into_iter().flatten());
    }
    while let Some(node) = open.pop() {
        found.push(node["span_id"].as_str().unwrap().to_owned());
        hidden += node["hidden_spans"].as_u64().unwrap_or(0);
        assert_eq!(
            node["collapsed"].as_bool().unwrap(),
            node["hidden_spans"].is_u64()
        );
        open.extend(node["children"].as_array().unwrap());
    }
    (found, hidden)
}

#[tokio::test]
async fn orphans_are_listed_apart_and_can_be_read() {
    let app = app_with(vec![
        span(1, "undefined", "workflow"),
        span(2, "1", "llm"),
        span(3, "999", "tool"),
        span(4, "3", "task"),
    ])
    .await;
    let trace = app
        .call("get_llmobs_trace", json!({"trace_id": TRACE}))
        .await;
    assert_eq!(trace["spans"][0]["span_id"], "1");
    assert_eq!(trace["orphans"][0]["span_id"], "3");
    assert_eq!(trace["orphans"][0]["children"][0]["span_id"], "4");
    assert!(trace["notes"].to_string().contains("orphans"));

    let details = app
        .call(
            "get_llmobs_span_details",
            json!({"trace_id": TRACE, "span_ids": "3, 4, 77"}),
        )
        .await;
    assert_eq!(details["spans"][0]["parent_id"], "999");
    assert_eq!(details["spans"][0]["children_ids"], json!(["4"]));
    assert_eq!(details["missing_span_ids"], json!(["77"]));

    let content = app
        .call(
            "get_llmobs_span_content",
            json!({"trace_id": TRACE, "span_id": 3, "field": "output"}),
        )
        .await;
    assert_eq!(content["content"], "out 3");
}

#[tokio::test]
async fn several_roots_and_cycles_are_shown() {
    let app = app_with(vec![
        span(1, "undefined", "agent"),
        span(2, "undefined", "agent"),
        span(3, "4", "tool"),
        span(4, "3", "tool"),
        span(5, "5", "tool"),
    ])
    .await;
    let trace = app
        .call("get_llmobs_trace", json!({"trace_id": TRACE}))
        .await;
    assert_eq!(trace["spans"].as_array().unwrap().len(), 2);
    let (mut found, hidden) = nodes(&trace);
    found.sort();
    assert_eq!(
        (found, hidden),
        (["1", "2", "3", "4", "5"].map(str::to_owned).to_vec(), 0)
    );
    assert!(trace["notes"].to_string().contains("cycle"), "{trace}");
    for tool in ["find_llmobs_error_spans", "get_llmobs_agent_loop"] {
        app.call(tool, json!({"trace_id": TRACE})).await;
    }
}

#[tokio::test]
async fn details_of_more_than_twenty_spans_in_one_call() {
    let spans: Vec<Value> = (0..60)
        .map(|id| span(id + 1, if id == 0 { "undefined" } else { "1" }, "task"))
        .collect();
    let app = app_with(spans).await;
    let ids: Vec<String> = (1..=60).map(|id| id.to_string()).collect();
    let mut question = json!({"trace_id": TRACE, "span_ids": ids, "max_tokens": 20_000});
    let mut found = Vec::new();
    loop {
        let page = app.call("get_llmobs_span_details", question.clone()).await;
        found.extend(
            page["spans"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["span_id"].clone()),
        );
        match &page["next_cursor"] {
            Value::Null => break,
            cursor => question["cursor"] = cursor.clone(),
        }
    }
    assert_eq!(json!(found), json!(ids));
}

#[tokio::test]
async fn pages_of_a_large_trace_show_every_span_once() {
    let spans: Vec<Value> = (0..900)
        .map(|id| {
            let parent = if id == 0 {
                "undefined".to_owned()
            } else {
                ((id - 1) / 4 + 1).to_string()
            };
            let mut span = span(id + 1, &parent, if id % 3 == 0 { "llm" } else { "tool" });
            if id % 100 == 99 {
                span["status"] = json!("error");
            }
            span
        })
        .collect();
    let app = app_with(spans).await;
    let mut question = json!({"trace_id": TRACE});
    let mut seen = std::collections::BTreeSet::new();
    let mut pages = 0;
    loop {
        let text = app
            .text("get_llmobs_trace", question.clone())
            .await
            .unwrap();
        assert!(text.chars().count() <= 32_000);
        let page: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&page["total_spans"], &page["error_count"]),
            (&json!(900), &json!(9))
        );
        let (found, hidden) = nodes(&page);
        if pages == 0 {
            assert_eq!(
                found.len() as u64 + hidden,
                900,
                "what is not shown is counted as hidden"
            );
        }
        for id in found {
            assert!(seen.insert(id.clone()), "{id} is shown twice");
        }
        pages += 1;
        match &page["next_cursor"] {
            Value::Null => break,
            cursor => question["cursor"] = cursor.clone(),
        }
    }
    assert_eq!(seen.len(), 900);
    assert!(pages > 1);
}

#[tokio::test]
async fn nesting_is_limited_for_a_chain_of_1000_spans() {
    let spans: Vec<Value> = (1..=1_000)
        .map(|id| {
            span(
                id,
                &if id == 1 {
                    "undefined".to_owned()
                } else {
                    (id - 1).to_string()
                },
                "task",
            )
        })
        .collect();
    let app = app_with(spans).await;
    let trace = app
        .call("get_llmobs_trace", json!({"trace_id": TRACE}))
        .await;
    assert_eq!(trace["tree_depth"], 1_000);
    fn depth(node: &Value) -> usize {
        1 + node["children"]
            .as_array()
            .unwrap()
            .iter()
            .map(depth)
            .max()
            .unwrap_or(0)
    }
    let deepest = trace["spans"]
        .as_array()
        .unwrap()
        .iter()
        .map(depth)
        .max()
        .unwrap();
    assert!(deepest <= 32, "{deepest} levels of JSON");
    assert!(trace["notes"].to_string().contains("32 levels"));
}

#[tokio::test]
async fn filter_by_kind_keeps_the_path() {
    let app = app_with(vec![
        span(1, "undefined", "agent"),
        span(2, "1", "workflow"),
        span(3, "2", "llm"),
        span(4, "1", "task"),
        span(5, "4", "task"),
        span(6, "2", "tool"),
    ])
    .await;
    let expanded = app
        .call(
            "expand_llmobs_spans",
            json!({"trace_id": TRACE, "span_ids": ["1"], "max_depth": 3, "filter_kind": "LLM"}),
        )
        .await;
    let (mut found, _) = nodes(&expanded);
    found.sort();
    assert_eq!(found, ["1", "2", "3"]);
    let all = app
        .call(
            "expand_llmobs_spans",
            json!({"trace_id": TRACE, "span_ids": ["1"], "max_depth": "2"}),
        )
        .await;
    assert_eq!(nodes(&all).0.len(), 6);
    let one = app
        .call(
            "expand_llmobs_spans",
            json!({"trace_id": TRACE, "span_ids": "[1]"}),
        )
        .await;
    let (mut found, hidden) = nodes(&one);
    found.sort();
    assert_eq!(
        (found, hidden),
        (["1", "2", "4"].map(str::to_owned).to_vec(), 3)
    );
}

#[tokio::test]
async fn path_is_applied_before_content_is_cut() {
    let mut llm = span(1, "undefined", "llm");
    let messages: Vec<Value> = (0..40)
        .map(|number| json!({"role": "user", "content": format!("{number} {}", "x".repeat(2_000))}))
        .collect();
    llm["meta"]["input"] = json!({"messages": messages});
    llm["meta"]["output"] = json!({"messages": [{"role": "assistant", "content": "the answer"}]});
    let app = app_with(vec![llm]).await;
    let read = |path: Value, max_tokens: usize| {
        let mut question = json!({"trace_id": TRACE, "span_id": "1", "field": "messages", "max_tokens": max_tokens});
        if !path.is_null() {
            question["path"] = path;
        }
        app.call("get_llmobs_span_content", question)
    };
    let last = read(json!("$.messages[-1]"), 300).await;
    assert_eq!(
        last["content"],
        json!({"role": "assistant", "content": "the answer"})
    );
    assert_eq!(last["truncated"], false);
    let tail = read(json!("$.[-2:]"), 2_000).await;
    assert_eq!(tail["content"].as_array().unwrap().len(), 2);
    assert_eq!(tail["content"][1]["content"], "the answer");
    let roles = read(json!("$[*].role"), 300).await;
    assert_eq!(roles["content"].as_array().unwrap().len(), 41);

    let whole = read(Value::Null, 500).await;
    assert_eq!(whole["truncated"], true);
    for answer in [&last, &tail, &roles] {
        assert_eq!(answer["total_tokens_approx"], whole["total_tokens_approx"]);
    }
    assert!(whole["returned_tokens_approx"].as_u64() < whole["total_tokens_approx"].as_u64());
    let everything = read(Value::Null, 100_000).await;
    assert_eq!(everything["truncated"], false);
    assert_eq!(everything["content"].as_array().unwrap().len(), 41);

    let nothing = read(json!("$.messages[99]"), 300).await;
    assert_eq!(nothing["content"], Value::Null);
    assert!(
        nothing["notes"].to_string().contains("matches nothing"),
        "{nothing}"
    );
}

#[tokio::test]
async fn invisible_characters_are_escaped() {
    let mut tool = span(1, "undefined", "tool");
    tool["meta"]["output"]["value"] = json!("done\u{200b}\u{202e}\u{e0049}gnore");
    let app = app_with(vec![tool]).await;
    let text = app
        .text(
            "get_llmobs_span_content",
            json!({"trace_id": TRACE, "span_id": "1", "field": "output"}),
        )
        .await
        .unwrap();
    assert!(
        text.contains(r"done\u200b\u202e\udb40\udc49gnore"),
        "{text}"
    );
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["content"], "done\u{200b}\u{202e}\u{e0049}gnore");
}
