//! Node ids, and lists indexed by them.

use std::ops::{Index, IndexMut};

/// A node of a [`TraceTree`](super::TraceTree): the position of its span in order of start time,
/// then span id. Valid only for the tree that returned it, and for copies of that tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// The position of the node, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// One value for each node of a tree, indexed by [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVec<T>(Vec<T>);

impl<T> NodeVec<T> {
    /// A list that holds the same value for each of `len` nodes.
    pub fn filled(value: T, len: usize) -> Self
    where
        T: Clone,
    {
        Self(vec![value; len])
    }

    /// An empty list with room for `capacity` nodes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Appends the value of the next node, and returns that node.
    pub fn push(&mut self, value: T) -> NodeId {
        self.0.push(value);
        NodeId(self.0.len() - 1)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<T> {
        (0..self.0.len()).map(NodeId)
    }

    /// All nodes with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &T)> {
        let values = self.0.iter().enumerate();
        values.map(|(index, value)| (NodeId(index), value))
    }

    /// All values, in order of their nodes.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T> Default for NodeVec<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for NodeVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// # Panics
///
/// If the node belongs to a tree with more nodes. That is a bug of the caller: a default value
/// would hide it.
impl<T> Index<NodeId> for NodeVec<T> {
    type Output = T;

    #[expect(
        clippy::indexing_slicing,
        reason = "trees return ids of their own nodes only; another id is a bug that must show"
    )]
    fn index(&self, node: NodeId) -> &T {
        &self.0[node.0]
    }
}

impl<T> IndexMut<NodeId> for NodeVec<T> {
    #[expect(
        clippy::indexing_slicing,
        reason = "trees return ids of their own nodes only; another id is a bug that must show"
    )]
    fn index_mut(&mut self, node: NodeId) -> &mut T {
        &mut self.0[node.0]
    }
}
