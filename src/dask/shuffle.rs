//! Names of peer-to-peer shuffles and of what they make.
//!
//! Source: distributed 2026.8.0, shuffle/_core.py: `ShuffleId`, `barrier_key`, `id_from_key`, `ShuffleSpec`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::dask::TaskKey;

/// What the key of each barrier begins with; what follows is the shuffle's id.
const BARRIER_PREFIX: &str = "shuffle-barrier-";

/// Which shuffle: the same for the same data shuffled in the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShuffleId(Arc<str>);

impl ShuffleId {
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The task that runs when all input is under way: it needs every transfer, and every output needs it.
    pub fn barrier(&self) -> TaskKey {
        TaskKey::from_text(&format!("{BARRIER_PREFIX}{}", self.0))
    }

    /// The shuffle whose barrier has this key.
    pub fn of_barrier(key: &TaskKey) -> Option<Self> {
        key.as_text()?.strip_prefix(BARRIER_PREFIX).map(Self::new)
    }
}

impl fmt::Display for ShuffleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the parts that a shuffle makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    /// Of a dataframe: its number.
    Number(i64),
    /// Of an array: the place of its chunk along each axis.
    Chunk(Vec<i64>),
}

/// What a graph says of a shuffle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShuffleSpec {
    pub id: ShuffleId,
    /// The pickle of the `ShuffleSpec` of distributed, for workers.
    pub pickle: Bytes,
    /// All that it makes, in order.
    pub partitions: Vec<Partition>,
    /// The tasks that take partitions, with the places of these in `partitions`, as far as the graph shows which do.
    pub outputs: Vec<(TaskKey, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_names_its_shuffle() {
        let id = ShuffleId::new("310639dd1963f78986b23c7ea78480b7");
        assert_eq!(ShuffleId::of_barrier(&id.barrier()), Some(id.clone()));
        assert_eq!(id.barrier().prefix(), "shuffle-barrier");
        assert_eq!(ShuffleId::of_barrier(&TaskKey::from_text("sum-1")), None);
    }
}
