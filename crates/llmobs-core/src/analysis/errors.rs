//! Which errors began where.
//!
//! One exception raised in a tool marks the tool, its agent and its workflow, each with the same
//! type and message and a stack that grows by the caller's frames. Someone who debugs wants the
//! one span where it began, and for the others, where theirs came from.

mod soft;

use std::cmp::Reverse;

pub use soft::tool_call_ids;
pub use soft::{Evidence, SoftError, soft_errors};

use super::tree::{NodeId, TraceTree};
use crate::model::SpanError;

/// Ancestors listed for one error span before the middle of the path is left out.
const MAX_ANCESTORS: usize = 48;
/// How many failed calls below a span are searched for in its stack.
const MAX_MENTIONS: usize = 64;
/// A message shorter than this may stand in a stack by chance.
const TELLING_CHARS: usize = 8;

/// A span with status `error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorSpan {
    /// The span.
    pub node: NodeId,
    /// Whether the error began here.
    pub is_origin: bool,
    /// The span right below in the chain of errors, from which this one came up.
    pub propagated_from: Option<NodeId>,
    /// The spans above, root first. Of a very long path, the nearest spans and the root's end.
    pub ancestors: Vec<NodeId>,
    /// Number of spans left out of `ancestors`, between its first half and its second.
    pub omitted_ancestors: usize,
}

/// All spans with status `error`, by start.
///
/// An error span **propagates** the error of a failed span below it when
/// 1. both have the same type and message (what is unknown on one side agrees with anything, but
///    only between parent and child), or
/// 2. its message or stack mentions the other's error as a cause, or
/// 3. nothing is known of its own error and a child failed: the hosted product's rule.
///
/// Spans with status `ok` in between do not break the chain if type and message are the same.
/// Where several spans below qualify, as after retries, the one that ended last counts. Every
/// other error span is an **origin**; so is one whose children failed in some other way, which
/// it handled before it raised its own error.
pub fn error_spans(tree: &TraceTree) -> Vec<ErrorSpan> {
    let failed_below = nearest_failures(tree);
    let tops: Vec<NodeId> = tree.top_level().collect();
    let errors = tree.errors().iter().zip(&failed_below);
    errors
        .map(|(node, candidates)| {
            let node = *node;
            let propagated_from = cause(tree, node, candidates);
            let (ancestors, omitted_ancestors) = path_to(tree, &tops, node);
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

/// For each error span, in their order, the nearest error spans below it.
fn nearest_failures(tree: &TraceTree) -> Vec<Vec<NodeId>> {
    let errors = tree.errors();
    let mut below = vec![Vec::new(); errors.len()];
    // In walking order, what encloses an error span is among those met before it.
    let mut walked: Vec<usize> = (0..errors.len()).collect();
    walked.sort_by_key(|at| errors.get(*at).map(|node| tree.preorder_index(*node)));
    let mut open: Vec<(usize, NodeId)> = Vec::new();
    for at in walked {
        let Some(node) = errors.get(at).copied() else {
            continue;
        };
        while open
            .last()
            .is_some_and(|(_, above)| !tree.is_descendant(node, *above))
        {
            open.pop();
        }
        if let Some(list) = open.last().and_then(|(above, _)| below.get_mut(*above)) {
            list.push(node);
        }
        open.push((at, node));
    }
    below
}

/// Root first; a path that is too long loses its middle.
fn path_to(tree: &TraceTree, tops: &[NodeId], node: NodeId) -> (Vec<NodeId>, usize) {
    let total = tree.depth_of(node).saturating_sub(1);
    if total <= MAX_ANCESTORS {
        let mut path: Vec<_> = tree.ancestors(node).collect();
        path.reverse();
        return (path, 0);
    }
    // Walking to the root from each of thousands of nested errors would be quadratic, so the
    // upper end is the root alone.
    let mut path: Vec<_> = tree.ancestors(node).take(MAX_ANCESTORS - 1).collect();
    path.extend(top_of(tree, tops, node));
    path.reverse();
    (path, total - MAX_ANCESTORS)
}

/// The top that a node lies below: tops stand in walking order.
fn top_of(tree: &TraceTree, tops: &[NodeId], node: NodeId) -> Option<NodeId> {
    let at = tree.preorder_index(node);
    let after = tops.partition_point(|top| tree.preorder_index(*top) <= at);
    tops.get(after.checked_sub(1)?).copied()
}

/// How surely one error came from another, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bond {
    /// Nothing tells them apart, for want of details.
    Unknown,
    /// The upper error names the lower one.
    Mentioned,
    /// The same type and message.
    Same,
}

fn cause(tree: &TraceTree, node: NodeId, candidates: &[NodeId]) -> Option<NodeId> {
    let nothing = SpanError::default();
    let own = tree.span(node).error.as_ref().unwrap_or(&nothing);
    let mut newest_first = candidates.to_vec();
    newest_first.sort_by_key(|below| Reverse((tree.span(*below).end_ns(), *below)));
    let mut best: Option<(Bond, NodeId)> = None;
    for (rank, below) in newest_first.into_iter().enumerate() {
        let theirs = tree.span(below).error.as_ref().unwrap_or(&nothing);
        let is_child = tree.parent(below) == Some(node);
        let Some(bond) = bond(own, theirs, is_child, rank < MAX_MENTIONS) else {
            continue;
        };
        if best.is_none_or(|(known, _)| bond > known) {
            best = Some((bond, below));
        }
        if bond == Bond::Same {
            break;
        }
    }
    best.map(|(_, below)| below)
}

fn bond(own: &SpanError, theirs: &SpanError, is_child: bool, search: bool) -> Option<Bond> {
    let same_type = short_type(&own.error_type) == short_type(&theirs.error_type);
    let same_message = own.message.trim() == theirs.message.trim();
    if same_type && same_message && !own.message.trim().is_empty() {
        return Some(Bond::Same);
    }
    if search && mentions(own, theirs) {
        return Some(Bond::Mentioned);
    }
    if !is_child {
        return None;
    }
    let type_agrees = same_type || own.error_type.is_empty() || theirs.error_type.is_empty();
    let message_agrees =
        same_message || own.message.trim().is_empty() || theirs.message.trim().is_empty();
    (type_agrees && message_agrees).then_some(Bond::Unknown)
}

/// Whether the message or the stack of one error names the other as a cause.
fn mentions(own: &SpanError, theirs: &SpanError) -> bool {
    let message = theirs.message.lines().next().unwrap_or_default().trim();
    let class = short_type(&theirs.error_type);
    let in_own = |text: &str| own.stack.contains(text) || own.message.contains(text);
    match (message.is_empty(), class.is_empty()) {
        (true, true) => false,
        // The upper error's own class stands in its stack anyway, so that proves nothing.
        (true, false) => class != short_type(&own.error_type) && own.stack.contains(class),
        (false, _) if message.chars().count() >= TELLING_CHARS => in_own(message),
        (false, true) => false,
        (false, false) => in_own(&format!("{class}: {message}")),
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

    /// An id, a parent, and an error as type, message and stack.
    type Row<'a> = (
        &'a str,
        Option<&'a str>,
        Option<(&'a str, &'a str, &'a str)>,
    );

    /// Spans in the order of their start.
    fn tree(spans: &[Row<'_>]) -> TraceTree {
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

    /// Each error span's name and where its error came from.
    fn sources(tree: &TraceTree) -> Vec<(String, Option<String>)> {
        error_spans(tree)
            .into_iter()
            .map(|error| {
                assert_eq!(error.is_origin, error.propagated_from.is_none());
                let name = |node: NodeId| tree.span(node).name.clone();
                (name(error.node), error.propagated_from.map(name))
            })
            .collect()
    }

    fn from(name: &str, source: Option<&str>) -> (String, Option<String>) {
        (name.to_owned(), source.map(str::to_owned))
    }

    #[test]
    fn one_exception_that_climbs_began_in_the_deepest_span() {
        let timeout = Some(("net.Timeout", "no answer", ""));
        let tree = tree(&[
            ("flow", None, timeout),
            ("agent", Some("flow"), timeout),
            ("tool", Some("agent"), timeout),
        ]);
        assert_eq!(
            sources(&tree),
            [
                from("flow", Some("agent")),
                from("agent", Some("tool")),
                from("tool", None)
            ]
        );
        assert_eq!(
            error_spans(&tree).pop().unwrap().ancestors,
            tree.nodes().take(2).collect::<Vec<_>>()
        );
    }

    #[test]
    fn after_retries_with_the_same_error_the_last_one_climbed() {
        let timeout = Some(("Timeout", "no answer", ""));
        let tree = tree(&[
            ("agent", None, timeout),
            ("try1", Some("agent"), timeout),
            ("try2", Some("agent"), timeout),
        ]);
        assert_eq!(sources(&tree).first(), Some(&from("agent", Some("try2"))));
    }

    #[test]
    fn a_wrapped_error_points_to_its_cause() {
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
        assert_eq!(sources(&tree).first(), Some(&from("agent", Some("tool"))));
    }

    #[test]
    fn a_parent_that_handled_a_failure_and_raised_anew_is_its_own_origin() {
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
        assert_eq!(sources(&tree), [from("agent", None), from("tool", None)]);
    }

    #[test]
    fn without_details_a_failed_child_is_the_source() {
        let nothing = Some(("", "", ""));
        let tree = tree(&[
            ("flow", None, nothing),
            ("tool", Some("flow"), Some(("Timeout", "no answer", ""))),
        ]);
        assert_eq!(
            sources(&tree),
            [from("flow", Some("tool")), from("tool", None)]
        );
    }

    #[test]
    fn a_wrapper_that_closed_with_ok_does_not_break_the_chain() {
        let timeout = Some(("Timeout", "no answer", ""));
        let same = tree(&[
            ("flow", None, timeout),
            ("step", Some("flow"), None),
            ("tool", Some("step"), timeout),
        ]);
        assert_eq!(sources(&same).first(), Some(&from("flow", Some("tool"))));
        let other = tree(&[
            ("flow", None, Some(("Timeout", "", ""))),
            ("step", Some("flow"), None),
            (
                "tool",
                Some("step"),
                Some(("ValueError", "bad size 17", "")),
            ),
        ]);
        assert_eq!(sources(&other).first(), Some(&from("flow", None)));
    }

    #[test]
    fn ten_thousand_nested_errors_name_their_sources_and_keep_short_paths() {
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
        fn in_any_tree_each_error_is_listed_once_and_comes_from_below(
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
    fn the_captured_errors() {
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
