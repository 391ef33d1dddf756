//! Which spans make up a loop, whatever lies between them.
//!
//! From its start a loop reaches down through workflows, tasks and steps. It stops at agents, who
//! have loops of their own, and looks below tools only for agents and nested tools: an LLM call
//! inside a tool is the tool's business.

use crate::analysis::tree::{NodeId, TraceTree};
use crate::model::SpanKind;

/// What to show, in order.
pub(super) struct Plan {
    /// The span that the loop is named after; `None` only without spans.
    pub(super) start: Option<NodeId>,
    /// The parts of the loop.
    pub(super) blocks: Vec<Block>,
    /// Agents below that are not outermost, with the agents that called them.
    pub(super) sub_agents: Vec<Below>,
    /// Outermost agents that the loop covers.
    pub(super) agents: usize,
    /// LLM calls inside tools, of the scopes shown.
    pub(super) llm_in_tools: usize,
    /// LLM calls that no agent made, where agents are shown.
    pub(super) llm_outside: usize,
    /// Why the loop is not the plain loop of one agent.
    pub(super) shape: Shape,
    /// Decisions below each node.
    pub(super) decisions: Decisions,
}

/// What a reader must know about the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The loop of the start, or of the outermost agents.
    Plain,
    /// The trace has no agent span.
    NoAgent,
    /// There are agent spans, but every LLM call lies outside of them.
    AgentsWithoutCalls,
}

/// A part of the loop.
pub(super) enum Block {
    /// Decisions and tools of one agent, or of what has none.
    Loop(Scope),
    /// A step or tool where no model decided: an iteration of its own.
    Lone {
        /// The step, the tool, or anything when there is neither.
        node: NodeId,
        /// The agent above.
        agent: Option<NodeId>,
        /// The tools of the step, or the tool itself.
        tools: Vec<NodeId>,
    },
}

/// The spans of one loop, each list by start.
#[derive(Default)]
pub(super) struct Scope {
    /// The agent whose loop it is.
    pub(super) agent: Option<NodeId>,
    /// The tops from which it was gathered.
    pub(super) tops: Vec<NodeId>,
    /// Outer LLM spans.
    pub(super) decisions: Vec<NodeId>,
    /// Tool spans.
    pub(super) tools: Vec<ToolSpan>,
    /// Nearest agents below.
    pub(super) sub_agents: Vec<Below>,
    steps: Vec<NodeId>,
    llm_in_tools: usize,
}

/// A tool span of a loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToolSpan {
    pub(super) node: NodeId,
    /// Whether it lies below another tool of the loop.
    pub(super) nested: bool,
    /// The step around it.
    step: Option<NodeId>,
}

/// An agent below a loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Below {
    pub(super) node: NodeId,
    /// The tool of the loop inside which it ran.
    pub(super) tool: Option<NodeId>,
    /// Whether its loop is shown in place of its caller's.
    pub(super) included: bool,
}

/// Number of decisions below each node, itself included.
pub(super) struct Decisions {
    /// Decisions before each place of the walking order.
    before: Vec<usize>,
}

impl Decisions {
    fn of(tree: &TraceTree) -> Self {
        let mut before = vec![0];
        let mut sum = 0;
        for node in tree.preorder().iter().copied() {
            sum += usize::from(is_decision(tree, node));
            before.push(sum);
        }
        Self { before }
    }

    pub(super) fn below(&self, tree: &TraceTree, node: NodeId) -> usize {
        let from = tree.preorder_index(node);
        let to = from + tree.descendant_count(node) + 1;
        let at = |place: usize| self.before.get(place).copied().unwrap_or_default();
        at(to) - at(from)
    }

    fn total(&self) -> usize {
        self.before.last().copied().unwrap_or_default()
    }
}

/// An LLM span directly below an LLM span is the same call seen twice.
pub(super) fn is_decision(tree: &TraceTree, node: NodeId) -> bool {
    *tree.kind(node) == SpanKind::Llm
        && tree
            .parent(node)
            .is_none_or(|parent| *tree.kind(parent) != SpanKind::Llm)
}

/// Decides what the loop of a start, or of the whole trace, consists of.
pub(super) fn plan(tree: &TraceTree, start: Option<NodeId>) -> Plan {
    let mut plan = Plan {
        start: None,
        blocks: Vec::new(),
        sub_agents: Vec::new(),
        agents: 0,
        llm_in_tools: 0,
        llm_outside: 0,
        shape: Shape::Plain,
        decisions: Decisions::of(tree),
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
    if plan.blocks.is_empty() {
        plan.blocks.extend(plan.start.map(|node| Block::Lone {
            node,
            agent: None,
            tools: Vec::new(),
        }));
    }
    plan
}

impl Plan {
    fn cover_trace(&mut self, tree: &TraceTree) {
        let agents = outermost_agents(tree);
        let inside: usize = agents
            .iter()
            .map(|agent| self.decisions.below(tree, *agent))
            .sum();
        if !agents.is_empty() && (inside > 0 || self.decisions.total() == 0) {
            self.start = agents.first().copied();
            self.agents = agents.len();
            self.llm_outside = self.decisions.total() - inside;
            for agent in agents {
                self.add(tree, vec![agent], Some(agent), Reach::ToAgents);
            }
            return;
        }
        self.shape = if agents.is_empty() {
            Shape::NoAgent
        } else {
            Shape::AgentsWithoutCalls
        };
        let tops: Vec<_> = tree.top_level().collect();
        self.start = tops
            .iter()
            .find(|top| self.decisions.below(tree, **top) > 0)
            .or(tops.first())
            .copied();
        self.add(tree, tops, None, Reach::WholeTrace);
    }

    /// Adds the loop below some tops; in place of an agent that decided nothing, what ran below it.
    fn add(&mut self, tree: &TraceTree, tops: Vec<NodeId>, agent: Option<NodeId>, reach: Reach) {
        enum Next {
            Scope(Vec<NodeId>, Option<NodeId>),
            Lone(NodeId, Option<NodeId>, Vec<NodeId>),
        }
        let mut stack = vec![Next::Scope(tops, agent)];
        while let Some(next) = stack.pop() {
            let (tops, agent) = match next {
                Next::Scope(tops, agent) => (tops, agent),
                Next::Lone(node, agent, tools) => {
                    self.blocks.push(Block::Lone { node, agent, tools });
                    continue;
                }
            };
            let mut scope = Scope::gather(tree, tops, agent, reach);
            self.llm_in_tools += scope.llm_in_tools;
            if !scope.decisions.is_empty() {
                self.sub_agents.extend_from_slice(&scope.sub_agents);
                self.blocks.push(Block::Loop(scope));
                continue;
            }
            let mut parts: Vec<(NodeId, Next)> = scope
                .lone_units()
                .into_iter()
                .map(|(node, tools)| (node, Next::Lone(node, agent, tools)))
                .collect();
            for below in &mut scope.sub_agents {
                below.included = true;
                let next = Next::Scope(vec![below.node], Some(below.node));
                parts.push((below.node, next));
            }
            self.sub_agents.append(&mut scope.sub_agents);
            parts.sort_by_key(|(node, _)| *node);
            stack.extend(parts.into_iter().rev().map(|(_, next)| next));
        }
    }
}

/// Agents that no agent encloses, by start.
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
    /// Gathers what lies below some tops. In the whole trace, tops are spans like any other and
    /// agents hide nothing; else the tops are where the loop starts, and agents are walls.
    fn gather(tree: &TraceTree, tops: Vec<NodeId>, agent: Option<NodeId>, reach: Reach) -> Self {
        let mut scope = Self {
            agent,
            ..Self::default()
        };
        let mut stack: Vec<Visit> = tops
            .iter()
            .rev()
            .map(|top| Visit {
                node: *top,
                start: reach == Reach::ToAgents,
                tool: None,
                step: None,
            })
            .collect();
        while let Some(mut visit) = stack.pop() {
            let node = visit.node;
            match tree.kind(node) {
                SpanKind::Agent if !visit.start && reach == Reach::ToAgents => {
                    scope.sub_agents.push(Below {
                        node,
                        tool: visit.tool,
                        included: false,
                    });
                    continue;
                }
                SpanKind::Tool if !visit.start => {
                    scope.tools.push(ToolSpan {
                        node,
                        nested: visit.tool.is_some(),
                        step: visit.step,
                    });
                    visit.tool = visit.tool.or(Some(node));
                }
                SpanKind::Llm if visit.start || is_decision(tree, node) => {
                    if visit.tool.is_none() {
                        scope.decisions.push(node);
                    } else {
                        scope.llm_in_tools += 1;
                    }
                }
                SpanKind::Step if visit.tool.is_none() && !visit.start => {
                    scope.steps.push(node);
                    visit.step = Some(node);
                }
                _ => {}
            }
            stack.extend(tree.children(node).iter().rev().map(|child| Visit {
                node: *child,
                start: false,
                ..visit
            }));
        }
        scope.decisions.sort_unstable();
        scope.tools.sort_by_key(|tool| tool.node);
        scope.steps.sort_unstable();
        scope.sub_agents.sort_by_key(|below| below.node);
        scope.tops = tops;
        scope
    }

    /// Steps and tools where no model decided, each with its tools.
    fn lone_units(&self) -> Vec<(NodeId, Vec<NodeId>)> {
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

/// How far a loop reaches down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To the next agents.
    ToAgents,
    /// Through everything.
    WholeTrace,
}

/// A span on the way down.
#[derive(Debug, Clone, Copy)]
struct Visit {
    node: NodeId,
    /// Whether the loop starts here.
    start: bool,
    /// The tool around it.
    tool: Option<NodeId>,
    /// The step around it.
    step: Option<NodeId>,
}
