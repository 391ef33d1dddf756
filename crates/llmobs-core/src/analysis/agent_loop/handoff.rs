//! Handoffs: tool calls that pass the conversation to another agent.

use std::collections::HashMap;

use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::{SpanId, SpanKind};

/// Prefixes of the tools that frameworks create for handoffs, before the name of the agent.
const HANDOFF_PREFIXES: [&str; 4] = [
    "transfer_to_",
    "handoff_to_",
    "hand_off_to_",
    "transfer_back_to_",
];

/// Agents by normalized name.
pub(super) struct AgentIndex {
    by_name: HashMap<String, Vec<NodeId>>,
}

impl AgentIndex {
    pub(super) fn new(tree: &TraceTree) -> Self {
        let mut by_name: HashMap<String, Vec<NodeId>> = HashMap::new();
        for node in tree.nodes() {
            if *tree.kind(node) == SpanKind::Agent {
                let name = normalize(&tree.span(node).name);
                by_name.entry(name).or_default().push(node);
            }
        }
        Self { by_name }
    }

    /// The agent that a call such as `transfer_to_billing` hands the conversation off to: the first
    /// agent of that name that starts after the tool.
    pub(super) fn handoff_target<'t>(
        &self,
        tree: &'t TraceTree,
        tool: &str,
        span: Option<NodeId>,
    ) -> Option<&'t SpanId> {
        let tool_name = normalize(tool);
        let agent = HANDOFF_PREFIXES
            .into_iter()
            .find_map(|prefix| tool_name.strip_prefix(prefix))?;
        let nodes = self.by_name.get(agent)?;
        let started = span.map_or(i64::MIN, |node| tree.start_ns(node));
        let next = nodes.partition_point(|node| tree.start_ns(*node) < started);
        nodes.get(next).map(|node| &tree.span(*node).span_id)
    }
}

/// A name in lower case, with underscores between words.
fn normalize(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_alphanumeric() { c } else { '_' })
        .flat_map(char::to_lowercase)
        .collect()
}
