//! Selects the spans of a loop.
//!
//! A loop extends from its start through workflows, tasks and steps. It ends at agents, which have
//! their own loops. Below tools, it covers only agents and nested tools: an LLM call inside a tool
//! belongs to the tool.

use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::SpanKind;

/// The spans of an agent loop, in order.
pub(super) struct LoopPlan {
    /// The span that the loop is named after; `None` if the trace is empty.
    pub(super) start: Option<NodeId>,
    /// The sections of the loop.
    pub(super) sections: Vec<Section>,
    /// Agents that other agents of the loop called.
    pub(super) sub_agents: Vec<SubAgentSpan>,
    /// Number of outermost agents that the loop covers.
    pub(super) agents: usize,
    /// Number of LLM calls inside tools of the loop.
    pub(super) llm_in_tools: usize,
    /// Number of LLM calls outside all agents, if the loop covers agents.
    pub(super) llm_outside_agents: usize,
    /// What the loop covers.
    pub(super) coverage: Coverage,
    /// Number of decisions in each subtree.
    pub(super) decisions: DecisionCounts,
}

/// What a loop covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The loop of the start, or of the outermost agents.
    Agents,
    /// All spans, because the trace has no agent span.
    NoAgent,
    /// All spans, because every LLM call is outside the agent spans.
    AgentsWithoutCalls,
}

/// A section of the loop.
pub(super) enum Section {
    /// Decisions and tools of one agent, or of spans without an agent.
    Loop(Scope),
    /// A step or tool without a decision of a model: a separate iteration.
    Standalone {
        /// The step or the tool; the start of the loop if there is neither.
        node: NodeId,
        /// The enclosing agent.
        agent: Option<NodeId>,
        /// The tools of the step, or the tool itself.
        tools: Vec<NodeId>,
    },
}

/// The spans of one loop, each list by start.
#[derive(Default)]
pub(super) struct Scope {
    /// The agent of the loop.
    pub(super) agent: Option<NodeId>,
    /// The nodes where the loop starts.
    pub(super) starts: Vec<NodeId>,
    /// LLM spans whose parent is no LLM span.
    pub(super) decisions: Vec<NodeId>,
    /// Tool spans.
    pub(super) tools: Vec<ToolSpan>,
    /// The nearest descendants that are agents.
    pub(super) sub_agents: Vec<SubAgentSpan>,
    steps: Vec<NodeId>,
    llm_in_tools: usize,
}

/// A tool span of a loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToolSpan {
    pub(super) node: NodeId,
    /// Whether it is a descendant of another tool of the loop.
    pub(super) nested: bool,
    /// The enclosing step.
    step: Option<NodeId>,
}

/// An agent that an agent of the loop called.
#[derive(Debug, Clone, Copy)]
pub(super) struct SubAgentSpan {
    pub(super) node: NodeId,
    /// The tool of the loop that contains it.
    pub(super) tool: Option<NodeId>,
    /// Whether its iterations are part of the loop, because its caller made no decision.
    pub(super) included: bool,
}

/// Number of decisions in each subtree.
pub(super) struct DecisionCounts {
    /// Number of decisions before each node in preorder, then their total number.
    before: Vec<usize>,
}

impl DecisionCounts {
    fn new(tree: &TraceTree) -> Self {
        let mut before = vec![0];
        let mut sum = 0;
        for node in tree.preorder().iter().copied() {
            sum += usize::from(is_decision(tree, node));
            before.push(sum);
        }
        Self { before }
    }

    /// Number of decisions in the subtree of a node, itself included.
    pub(super) fn in_subtree(&self, tree: &TraceTree, node: NodeId) -> usize {
        let from = tree.preorder_index(node);
        let to = from + tree.descendant_count(node) + 1;
        let before = |index: usize| self.before.get(index).copied().unwrap_or_default();
        before(to) - before(from)
    }

    fn total(&self) -> usize {
        self.before.last().copied().unwrap_or_default()
    }
}

/// Whether a node is a decision: an LLM span whose parent is no LLM span. An LLM span directly
/// below another one records the same call.
pub(super) fn is_decision(tree: &TraceTree, node: NodeId) -> bool {
    *tree.kind(node) == SpanKind::Llm
        && tree
            .parent(node)
            .is_none_or(|parent| *tree.kind(parent) != SpanKind::Llm)
}

/// Plans the loop of a start, or of the entire trace.
pub(super) fn plan(tree: &TraceTree, start: Option<NodeId>) -> LoopPlan {
    let mut plan = LoopPlan {
        start: None,
        sections: Vec::new(),
        sub_agents: Vec::new(),
        agents: 0,
        llm_in_tools: 0,
        llm_outside_agents: 0,
        coverage: Coverage::Agents,
        decisions: DecisionCounts::new(tree),
    };
    if let Some(start) = start {
        plan.start = Some(start);
        let is_agent = *tree.kind(start) == SpanKind::Agent;
        plan.add(
            tree,
            vec![start],
            is_agent.then_some(start),
            Reach::ToAgents,
        );
    } else {
        plan.cover_trace(tree);
    }
    if plan.sections.is_empty() {
        plan.sections
            .extend(plan.start.map(|node| Section::Standalone {
                node,
                agent: None,
                tools: Vec::new(),
            }));
    }
    plan
}

impl LoopPlan {
    /// Covers the outermost agents of the trace, or all of it if no agent made an LLM call.
    fn cover_trace(&mut self, tree: &TraceTree) {
        let agents = outermost_agents(tree);
        let inside: usize = agents
            .iter()
            .map(|agent| self.decisions.in_subtree(tree, *agent))
            .sum();
        if !agents.is_empty() && (inside > 0 || self.decisions.total() == 0) {
            self.start = agents.first().copied();
            self.agents = agents.len();
            self.llm_outside_agents = self.decisions.total() - inside;
            for agent in agents {
                self.add(tree, vec![agent], Some(agent), Reach::ToAgents);
            }
            return;
        }
        self.coverage = if agents.is_empty() {
            Coverage::NoAgent
        } else {
            Coverage::AgentsWithoutCalls
        };
        let starts: Vec<_> = tree.top_level().collect();
        self.start = starts
            .iter()
            .find(|node| self.decisions.in_subtree(tree, **node) > 0)
            .or(starts.first())
            .copied();
        self.add(tree, starts, None, Reach::EntireTrace);
    }

    /// Adds the loop of some starts. An agent without a decision is replaced by its standalone
    /// spans and its sub-agents.
    fn add(&mut self, tree: &TraceTree, starts: Vec<NodeId>, agent: Option<NodeId>, reach: Reach) {
        enum Pending {
            Scope(Vec<NodeId>, Option<NodeId>),
            Standalone(NodeId, Option<NodeId>, Vec<NodeId>),
        }
        let mut stack = vec![Pending::Scope(starts, agent)];
        while let Some(pending) = stack.pop() {
            let (starts, agent) = match pending {
                Pending::Scope(starts, agent) => (starts, agent),
                Pending::Standalone(node, agent, tools) => {
                    self.sections
                        .push(Section::Standalone { node, agent, tools });
                    continue;
                }
            };
            let mut scope = Scope::collect(tree, starts, agent, reach);
            self.llm_in_tools += scope.llm_in_tools;
            if !scope.decisions.is_empty() {
                self.sub_agents.extend_from_slice(&scope.sub_agents);
                self.sections.push(Section::Loop(scope));
                continue;
            }
            let mut parts: Vec<(NodeId, Pending)> = scope
                .standalone_spans()
                .into_iter()
                .map(|(node, tools)| (node, Pending::Standalone(node, agent, tools)))
                .collect();
            for sub_agent in &mut scope.sub_agents {
                sub_agent.included = true;
                let node = sub_agent.node;
                parts.push((node, Pending::Scope(vec![node], Some(node))));
            }
            self.sub_agents.append(&mut scope.sub_agents);
            parts.sort_by_key(|(node, _)| *node);
            stack.extend(parts.into_iter().rev().map(|(_, pending)| pending));
        }
    }
}

/// Agents without an agent among their ancestors, by start.
fn outermost_agents(tree: &TraceTree) -> Vec<NodeId> {
    let mut outermost = Vec::new();
    let mut end = 0;
    for node in tree.preorder().iter().copied() {
        if tree.preorder_index(node) >= end && *tree.kind(node) == SpanKind::Agent {
            outermost.push(node);
            end = tree.preorder_index(node) + tree.descendant_count(node) + 1;
        }
    }
    outermost.sort_unstable();
    outermost
}

impl Scope {
    /// Collects the spans of the loop of some starts.
    ///
    /// With [`Reach::EntireTrace`], starts count like any other span, and agents do not end the
    /// loop.
    fn collect(tree: &TraceTree, starts: Vec<NodeId>, agent: Option<NodeId>, reach: Reach) -> Self {
        let mut scope = Self {
            agent,
            ..Self::default()
        };
        let mut stack: Vec<Visit> = starts
            .iter()
            .rev()
            .map(|node| Visit {
                node: *node,
                is_start: reach == Reach::ToAgents,
                tool: None,
                step: None,
            })
            .collect();
        while let Some(visit) = stack.pop() {
            if let Some(visit) = scope.visit(tree, visit, reach) {
                let children = tree.children(visit.node).iter().rev();
                stack.extend(children.map(|child| Visit {
                    node: *child,
                    is_start: false,
                    ..visit
                }));
            }
        }
        scope.decisions.sort_unstable();
        scope.tools.sort_by_key(|tool| tool.node);
        scope.steps.sort_unstable();
        scope.sub_agents.sort_by_key(|agent| agent.node);
        scope.starts = starts;
        scope
    }

    /// Adds a span to the loop. Returns the context of its children; `None` if the loop ends here.
    fn visit(&mut self, tree: &TraceTree, mut visit: Visit, reach: Reach) -> Option<Visit> {
        let node = visit.node;
        match tree.kind(node) {
            SpanKind::Agent if !visit.is_start && reach == Reach::ToAgents => {
                self.sub_agents.push(SubAgentSpan {
                    node,
                    tool: visit.tool,
                    included: false,
                });
                return None;
            }
            SpanKind::Tool if !visit.is_start => {
                self.tools.push(ToolSpan {
                    node,
                    nested: visit.tool.is_some(),
                    step: visit.step,
                });
                visit.tool = visit.tool.or(Some(node));
            }
            SpanKind::Llm if visit.is_start || is_decision(tree, node) => {
                if visit.tool.is_none() {
                    self.decisions.push(node);
                } else {
                    self.llm_in_tools += 1;
                }
            }
            SpanKind::Step if visit.tool.is_none() && !visit.is_start => {
                self.steps.push(node);
                visit.step = Some(node);
            }
            _ => {}
        }
        Some(visit)
    }

    /// Steps and tools of a loop without a decision, each with its tools.
    fn standalone_spans(&self) -> Vec<(NodeId, Vec<NodeId>)> {
        let mut units: Vec<(NodeId, Vec<NodeId>)> =
            self.steps.iter().map(|step| (*step, Vec::new())).collect();
        let mut loose = Vec::new();
        for tool in self.tools.iter().filter(|tool| !tool.nested) {
            let unit = tool
                .step
                .and_then(|step| self.steps.binary_search(&step).ok())
                .and_then(|at| units.get_mut(at));
            match unit {
                Some((_, tools)) => tools.push(tool.node),
                None => loose.push((tool.node, vec![tool.node])),
            }
        }
        units.append(&mut loose);
        units.sort_by_key(|(node, _)| *node);
        units
    }
}

/// How far a loop extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Up to the next agents.
    ToAgents,
    /// Through all spans.
    EntireTrace,
}

/// A span to visit, with its context.
#[derive(Debug, Clone, Copy)]
struct Visit {
    node: NodeId,
    /// Whether the loop starts here.
    is_start: bool,
    /// The enclosing tool.
    tool: Option<NodeId>,
    /// The enclosing step.
    step: Option<NodeId>,
}
