//! Sets of tasks.

use std::fmt;

use roaring::RoaringBitmap;

use crate::engine::task_table::TaskId;

/// Any number of tasks in little memory, in the order of their ids.
#[derive(Clone, Default, PartialEq)]
pub(super) struct TaskSet(RoaringBitmap);

impl TaskSet {
    /// Whether the task was not there yet.
    pub(super) fn insert(&mut self, id: TaskId) -> bool {
        self.0.insert(id.bits())
    }

    pub(super) fn extend(&mut self, tasks: &[TaskId]) {
        self.0.extend(tasks.iter().map(|id| id.bits()));
    }

    /// Takes the first task out.
    pub(super) fn pop_first(&mut self) -> Option<TaskId> {
        let first = self.0.min()?;
        self.0.remove(first);
        Some(TaskId::from_bits(first))
    }

    /// Whether the task was there.
    pub(super) fn remove(&mut self, id: TaskId) -> bool {
        self.0.remove(id.bits())
    }

    pub(super) fn contains(&self, id: TaskId) -> bool {
        self.0.contains(id.bits())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> {
        self.0.iter().map(TaskId::from_bits)
    }

    /// The tasks that are in both.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// The tasks that the other lacks.
    pub(super) fn difference(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }
}

impl FromIterator<TaskId> for TaskSet {
    fn from_iter<T: IntoIterator<Item = TaskId>>(tasks: T) -> Self {
        Self(tasks.into_iter().map(TaskId::bits).collect())
    }
}

impl fmt::Debug for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
