//! Error origins: in which span an error began, and how it propagated.
//!
//! One exception raised in a tool marks the tool, its agent and its workflow with the same type and
//! message; each stack adds the frames of the caller. This module finds the origin, and for each
//! other error span the descendant that it propagates.

mod soft;

use std::cmp::Reverse;

pub use soft::tool_call_ids;
pub use soft::{Evidence, SoftError, soft_errors};

use super::tree::{NodeId, NodeVec, TraceTree};
use crate::model::SpanError;

/// Ancestors listed for one error span. Longer paths omit the middle.
const MAX_ANCESTORS: usize = 48;
/// Failed descendants whose error is searched for in the message and stack of one span.
const MAX_SEARCHED_DESCENDANTS: usize = 64;
/// Shorter messages may occur in a stack by chance.
const MIN_DISTINCTIVE_CHARS: usize = 8;

/// A span with status `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorSpan {
    /// The span.
    pub node: NodeId,
    /// Whether the error began in this span.
    pub is_origin: bool,
    /// The nearest failed descendant whose error this span propagates.
    pub propagated_from: Option<NodeId>,
    /// The ancestors, top-level node first. For a long path, the top-level node and the nearest
    /// ancestors.
    pub ancestors: Vec<NodeId>,
    /// Number of ancestors omitted after the top-level node.
    pub omitted_ancestors: usize,
}

/// All spans with status `error`, by start.
///
/// An error span **propagates** the error of a failed descendant if
/// 1. both have the same type and message (between parent and child, an absent type or message
///    agrees with any), or
/// 2. its message or stack mentions the error of the descendant as a cause, or
/// 3. its own error has no details and a child failed, which is also Datadog's rule.
///
/// Spans with status `ok` in between do not break the chain if type and message are the same. If
/// several descendants qualify, as after retries, the one that ended last counts. Every other error
/// span is an **origin**, including a span whose children failed with a different error: it handled
/// those before it raised its own.
pub fn error_spans(tree: &TraceTree) -> Vec<ErrorSpan> {
    let failed_descendants = nearest_failed_descendants(tree);
    let top_level: Vec<NodeId> = tree.top_level().collect();
    tree.errors()
        .iter()
        .map(|node| {
            let node = *node;
            let propagated_from = find_cause(tree, node, &failed_descendants[node]);
            let (ancestors, omitted_ancestors) = ancestor_path(tree, &top_level, node);
            ErrorSpan {
                node,
                is_origin: propagated_from.is_none(),
                propagated_from,
                ancestors,
                omitted_ancestors,
            }
        })
        .collect()
}

/// For each error span, its failed descendants without another error span in between.
fn nearest_failed_descendants(tree: &TraceTree) -> NodeVec<Vec<NodeId>> {
    let mut descendants = NodeVec::filled(Vec::new(), tree.len());
    // In preorder, the ancestors of a span come before it.
    let mut errors = tree.errors().to_vec();
    errors.sort_by_key(|node| tree.preorder_index(*node));
    let mut open: Vec<NodeId> = Vec::new();
    for node in errors {
        while open
            .pop_if(|last| !tree.is_descendant(node, *last))
            .is_some()
        {}
        if let Some(ancestor) = open.last() {
            descendants[*ancestor].push(node);
        }
        open.push(node);
    }
    descendants
}

/// The ancestors of a node, top-level node first, and the number of ancestors omitted.
fn ancestor_path(tree: &TraceTree, top_level: &[NodeId], node: NodeId) -> (Vec<NodeId>, usize) {
    let total = tree.depth_of(node).saturating_sub(1);
    if total <= MAX_ANCESTORS {
        let mut path: Vec<_> = tree.ancestors(node).collect();
        path.reverse();
        return (path, 0);
    }
    // Following thousands of nested errors up to the root would take quadratic time.
    let mut path: Vec<_> = tree.ancestors(node).take(MAX_ANCESTORS - 1).collect();
    path.extend(top_level_ancestor(tree, top_level, node));
    path.reverse();
    (path, total - MAX_ANCESTORS)
}

/// The top-level node whose subtree holds a node. Top-level nodes are in preorder.
fn top_level_ancestor(tree: &TraceTree, top_level: &[NodeId], node: NodeId) -> Option<NodeId> {
    let index = tree.preorder_index(node);
    let after = top_level.partition_point(|top| tree.preorder_index(*top) <= index);
    top_level.get(after.checked_sub(1)?).copied()
}

/// The evidence that one error caused another, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CauseEvidence {
    /// No detail contradicts it.
    Compatible,
    /// The ancestor's message or stack mentions the descendant's error.
    Mentioned,
    /// Type and message are the same.
    Same,
}

/// The failed descendant whose error a span propagates.
fn find_cause(tree: &TraceTree, node: NodeId, candidates: &[NodeId]) -> Option<NodeId> {
    let no_details = SpanError::default();
    let error = tree.span(node).error.as_ref().unwrap_or(&no_details);
    let mut newest_first = candidates.to_vec();
    newest_first.sort_by_key(|candidate| Reverse((tree.span(*candidate).end_ns(), *candidate)));
    let mut best: Option<(CauseEvidence, NodeId)> = None;
    for (rank, candidate) in newest_first.into_iter().enumerate() {
        let cause = tree.span(candidate).error.as_ref().unwrap_or(&no_details);
        let is_child = tree.parent(candidate) == Some(node);
        let search_text = rank < MAX_SEARCHED_DESCENDANTS;
        let Some(evidence) = cause_evidence(error, cause, is_child, search_text) else {
            continue;
        };
        if best.is_none_or(|(best, _)| evidence > best) {
            best = Some((evidence, candidate));
        }
        if evidence == CauseEvidence::Same {
            break;
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn cause_evidence(
    error: &SpanError,
    cause: &SpanError,
    is_child: bool,
    search_text: bool,
) -> Option<CauseEvidence> {
    let same_type = short_type(&error.error_type) == short_type(&cause.error_type);
    let same_message = error.message.trim() == cause.message.trim();
    if same_type && same_message && !error.message.trim().is_empty() {
        return Some(CauseEvidence::Same);
    }
    if search_text && mentions(error, cause) {
        return Some(CauseEvidence::Mentioned);
    }
    if !is_child {
        return None;
    }
    let type_agrees = same_type || error.error_type.is_empty() || cause.error_type.is_empty();
    let message_agrees =
        same_message || error.message.trim().is_empty() || cause.message.trim().is_empty();
    (type_agrees && message_agrees).then_some(CauseEvidence::Compatible)
}

/// Whether the message or the stack of an error mentions another error as its cause.
fn mentions(error: &SpanError, cause: &SpanError) -> bool {
    let message = cause.message.lines().next().unwrap_or_default().trim();
    let class = short_type(&cause.error_type);
    let contains = |text: &str| error.stack.contains(text) || error.message.contains(text);
    match (message.is_empty(), class.is_empty()) {
        (true, true) => false,
        // A stack always holds the class of its own error, so the same class proves nothing.
        (true, false) => class != short_type(&error.error_type) && error.stack.contains(class),
        (false, _) if message.chars().count() >= MIN_DISTINCTIVE_CHARS => contains(message),
        (false, true) => false,
        (false, false) => contains(&format!("{class}: {message}")),
    }
}

/// The class without its module: a stack prints `KeyError` for `builtins.KeyError`.
fn short_type(error_type: &str) -> &str {
    error_type.rsplit('.').next().unwrap_or(error_type).trim()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::analysis::captures;
    use crate::model::{Span, SpanId, Status};

    /// Id, parent id, and error (type, message, stack) of a span.
    type SpanSpec<'a> = (
        &'a str,
        Option<&'a str>,
        Option<(&'a str, &'a str, &'a str)>,
    );

    /// A tree of spans, given by start.
    fn tree(spans: &[SpanSpec<'_>]) -> TraceTree {
        let spans: Vec<_> = spans
            .iter()
            .enumerate()
            .map(|(at, (id, parent, error))| {
                Arc::new(Span {
                    span_id: (*id).into(),
                    parent_id: parent.map(SpanId::from),
                    name: (*id).to_owned(),
                    start_ns: at as i64,
                    status: error.map_or(Status::Ok, |_| Status::Error),
                    error: error.map(|(error_type, message, stack)| SpanError {
                        error_type: error_type.into(),
                        message: message.into(),
                        stack: stack.into(),
                    }),
                    ..Span::default()
                })
            })
            .collect();
        TraceTree::build(&spans)
    }

    /// The name of each error span, and the span whose error it propagates.
    fn causes(tree: &TraceTree) -> Vec<(String, Option<String>)> {
        error_spans(tree)
            .into_iter()
            .map(|error| {
                assert_eq!(error.is_origin, error.propagated_from.is_none());
                let name = |node: NodeId| tree.span(node).name.clone();
                (name(error.node), error.propagated_from.map(name))
            })
            .collect()
    }

    fn error(name: &str, propagated_from: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), propagated_from.map(str::to_owned))
    }

    #[test]
    fn origin_of_propagated_exception_is_the_deepest_span() {
        let timeout = Some(("net.Timeout", "no answer", ""));
        let tree = tree(&[
            ("flow", None, timeout),
            ("agent", Some("flow"), timeout),
            ("tool", Some("agent"), timeout),
        ]);
        assert_eq!(
            causes(&tree),
            [
                error("flow", Some("agent")),
                error("agent", Some("tool")),
                error("tool", None)
            ]
        );
        assert_eq!(
            error_spans(&tree).pop().unwrap().ancestors,
            tree.nodes().take(2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn propagates_last_of_repeated_failures() {
        let timeout = Some(("Timeout", "no answer", ""));
        let tree = tree(&[
            ("agent", None, timeout),
            ("try1", Some("agent"), timeout),
            ("try2", Some("agent"), timeout),
        ]);
        assert_eq!(causes(&tree).first(), Some(&error("agent", Some("try2"))));
    }

    #[test]
    fn wrapped_error_propagates_its_cause() {
        let tree = tree(&[
            (
                "agent",
                None,
                Some((
                    "AgentError",
                    "gave up",
                    "KeyError: 'x'\nAgentError: gave up",
                )),
            ),
            (
                "other",
                Some("agent"),
                Some(("ValueError", "bad size 17", "")),
            ),
            (
                "tool",
                Some("agent"),
                Some(("builtins.KeyError", "'x'", "")),
            ),
        ]);
        assert_eq!(causes(&tree).first(), Some(&error("agent", Some("tool"))));
    }

    #[test]
    fn unrelated_error_of_parent_is_an_origin() {
        let tree = tree(&[
            (
                "agent",
                None,
                Some(("PolicyError", "refund too high", "PolicyError")),
            ),
            (
                "tool",
                Some("agent"),
                Some(("Timeout", "no answer from shop", "")),
            ),
        ]);
        assert_eq!(causes(&tree), [error("agent", None), error("tool", None)]);
    }

    #[test]
    fn error_without_details_propagates_failed_child() {
        let nothing = Some(("", "", ""));
        let tree = tree(&[
            ("flow", None, nothing),
            ("tool", Some("flow"), Some(("Timeout", "no answer", ""))),
        ]);
        assert_eq!(
            causes(&tree),
            [error("flow", Some("tool")), error("tool", None)]
        );
    }

    #[test]
    fn ok_span_in_between_does_not_break_the_chain() {
        let timeout = Some(("Timeout", "no answer", ""));
        let same = tree(&[
            ("flow", None, timeout),
            ("step", Some("flow"), None),
            ("tool", Some("step"), timeout),
        ]);
        assert_eq!(causes(&same).first(), Some(&error("flow", Some("tool"))));
        let other = tree(&[
            ("flow", None, Some(("Timeout", "", ""))),
            ("step", Some("flow"), None),
            (
                "tool",
                Some("step"),
                Some(("ValueError", "bad size 17", "")),
            ),
        ]);
        assert_eq!(causes(&other).first(), Some(&error("flow", None)));
    }

    #[test]
    fn shortens_paths_of_ten_thousand_nested_errors() {
        let error = Some(("Timeout", "no answer", ""));
        let ids: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let spans: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let parent = n.checked_sub(1).map(|above| ids[above].as_str());
                (id.as_str(), parent, error)
            })
            .collect();
        let tree = tree(&spans);
        let errors = error_spans(&tree);
        assert_eq!(errors.iter().filter(|error| error.is_origin).count(), 1);
        let deepest = errors.last().unwrap();
        assert_eq!(deepest.ancestors.len() + deepest.omitted_ancestors, 9_999);
        assert_eq!(deepest.ancestors.first(), Some(&tree.roots()[0]));
        assert_eq!(
            deepest.ancestors.last().map(|node| node.index()),
            Some(9_998)
        );
    }

    proptest! {
        #[test]
        fn lists_each_error_once_with_a_descendant_as_cause(
            spans in prop::collection::vec(
                (0..20_u8, prop::option::of(0..25_u8), prop::option::of(0..3_usize)), 0..30
            ),
        ) {
            let kinds = [("A", "first failure", ""), ("B", "second failure", "A: first failure"), ("", "", "")];
            let ids: Vec<_> = spans
                .iter()
                .map(|(id, parent, _)| (id.to_string(), parent.map(|p| p.to_string())))
                .collect();
            let spans: Vec<_> = ids
                .iter()
                .zip(&spans)
                .map(|((id, parent), (_, _, error))| {
                    (id.as_str(), parent.as_deref(), error.map(|kind| kinds[kind]))
                })
                .collect();
            let tree = tree(&spans);
            let errors = error_spans(&tree);
            let failed: Vec<_> = tree.nodes().filter(|node| tree.span(*node).is_error()).collect();
            let listed: Vec<_> = errors.iter().map(|error| error.node).collect();
            prop_assert_eq!(&listed, &failed);
            prop_assert_eq!(failed.is_empty(), !errors.iter().any(|error| error.is_origin));
            for error in errors {
                if let Some(source) = error.propagated_from {
                    prop_assert!(tree.is_descendant(source, error.node));
                }
                prop_assert_eq!(error.ancestors.len() + 1, tree.depth_of(error.node));
            }
        }
    }

    #[test]
    fn captured_errors() {
        for name in captures::NAMES {
            let traces: Vec<Value> = captures::traces(name)
                .iter()
                .filter_map(|(id, tree)| {
                    let label = |node: NodeId| {
                        let span = tree.span(node);
                        format!("{} {} ({})", span.kind, span.name, span.span_id)
                    };
                    let errors: Vec<Value> = error_spans(tree)
                        .into_iter()
                        .map(|error| {
                            json!({
                                "span": label(error.node),
                                "type": tree.span(error.node).error.as_ref().map(|e| &e.error_type),
                                "is_origin": error.is_origin,
                                "propagated_from": error.propagated_from.map(label),
                                "ancestors": error.ancestors.into_iter().map(label).collect::<Vec<_>>(),
                            })
                        })
                        .collect();
                    let soft: Vec<Value> = soft_errors(tree)
                        .into_iter()
                        .map(|soft| json!({"span": label(soft.node), "evidence": soft.evidence}))
                        .collect();
                    (!errors.is_empty() || !soft.is_empty())
                        .then(|| json!({"trace_id": id, "errors": errors, "soft_errors": soft}))
                })
                .collect();
            insta::assert_json_snapshot!(format!("errors_{name}"), traces);
        }
    }
}
