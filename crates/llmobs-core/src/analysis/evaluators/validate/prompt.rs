//! Validation of an evaluator's prompt.

use serde_json::{Value, json};

use crate::analysis::evaluators::placeholders::PromptTemplate;
use crate::analysis::evaluators::problem::FieldProblem;
use crate::analysis::evaluators::prompt::message_texts;
use crate::model::{EvalScope, Evaluator};

const ROLES: [&str; 3] = ["system", "user", "assistant"];

pub(super) fn check_prompt(evaluator: &Evaluator) -> Option<FieldProblem> {
    let scope = evaluator.target.eval_scope;
    let reason = check_messages(&evaluator.llm_judge_config.prompt_template, scope).err()?;
    let user = match scope {
        EvalScope::Span => "Question: {{span_input}}\nAnswer: {{span_output}}",
        EvalScope::Trace => "The trace: {{spans[*].name}}\n{{spans[0].meta.input.value}}",
        EvalScope::Session => "The conversation: {{traces[*].spans[0].meta.input.value}}",
    };
    let suggestion = json!([{"role": "user", "content": user}]);
    Some(FieldProblem::new(
        "prompt_template",
        reason,
        Some(suggestion),
    ))
}

/// Checks all messages. The error is the reason of the first problem.
fn check_messages(messages: &[Value], scope: EvalScope) -> Result<(), String> {
    let mut has_user_message = false;
    for (number, message) in messages.iter().enumerate() {
        let role = message.get("role").and_then(Value::as_str);
        let Some(role) = role.filter(|role| ROLES.contains(role)) else {
            return Err(format!(
                "needs a `role` of system, user or assistant in message {number}"
            ));
        };
        let has_content = message.get("content").is_some_and(Value::is_string);
        if !has_content && !message.get("contents").is_some_and(Value::is_array) {
            return Err(format!("needs `content` as text in message {number}"));
        }
        let only_known_keys = message.as_object().is_some_and(|map| {
            map.keys()
                .all(|key| ["role", "content", "contents"].contains(&key.as_str()))
        });
        if !only_known_keys {
            return Err(format!(
                "may contain only `role`, `content` and `contents` in message {number}"
            ));
        }
        if role == "user" {
            has_user_message = true;
            for text in message_texts(message) {
                check_placeholders(text, number, scope)?;
            }
        }
    }
    if has_user_message {
        Ok(())
    } else {
        Err(
            "needs a user message, because placeholders are filled in user messages only"
                .to_owned(),
        )
    }
}

/// Checks the syntax of placeholders and that they have a value in the scope.
fn check_placeholders(text: &str, number: usize, scope: EvalScope) -> Result<(), String> {
    let template = PromptTemplate::parse(text)
        .map_err(|error| format!("is invalid in message {number}: {error}"))?;
    for name in template.first_names() {
        let misplaced = match name {
            "span_input" | "span_output" => scope != EvalScope::Span,
            "spans" => scope != EvalScope::Trace,
            "traces" => scope != EvalScope::Session,
            _ => false,
        };
        if misplaced {
            let available = match scope {
                EvalScope::Span => "{{span_input}}, {{span_output}} or a path of the span",
                EvalScope::Trace => "{{spans…}}",
                EvalScope::Session => "{{traces…}} or {{session_id}}",
            };
            return Err(format!(
                "uses {{{{{name}…}}}}, which has no value when eval_scope is {}; use {available}",
                scope.as_str()
            ));
        }
    }
    Ok(())
}
