//! Tasks that can run, the most urgent first.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::dask::Priority;
use crate::engine::task_table::TaskId;

/// A queue in the order of priorities, and of ids where these are equal.
///
/// Most tasks of a queue differ in their order alone, so what else there is of a priority is held, and compared, once.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    /// None of them is empty.
    classes: BTreeMap<Class, BTreeSet<(i64, TaskId)>>,
    len: usize,
}

/// A priority without its order.
#[derive(Clone, Copy, Debug)]
struct Class(Priority);

impl Class {
    fn of(priority: Priority) -> Self {
        Self(Priority { order: 0, ..priority })
    }

    fn priority(self, order: i64) -> Priority {
        Priority { order, ..self.0 }
    }
}

impl Ord for Class {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Class {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Class {}

impl ReadyQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<(Priority, TaskId)> {
        let (class, tasks) = self.classes.first_key_value()?;
        tasks.first().map(|(order, id)| (class.priority(*order), *id))
    }

    /// Whether the task was not there yet.
    pub(super) fn insert(&mut self, priority: Priority, id: TaskId) -> bool {
        let is_new = self.classes.entry(Class::of(priority)).or_default().insert((priority.order, id));
        self.len += usize::from(is_new);
        is_new
    }

    /// Whether the task was there.
    pub(super) fn remove(&mut self, priority: Priority, id: TaskId) -> bool {
        let class = Class::of(priority);
        let Some(tasks) = self.classes.get_mut(&class) else { return false };
        let was_there = tasks.remove(&(priority.order, id));
        if tasks.is_empty() {
            self.classes.remove(&class);
        }
        self.len -= usize::from(was_there);
        was_there
    }

    pub(super) fn contains(&self, priority: Priority, id: TaskId) -> bool {
        self.classes.get(&Class::of(priority)).is_some_and(|tasks| tasks.contains(&(priority.order, id)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> {
        self.classes.values().flatten().map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_is_the_first_whatever_came_first() {
        let mut queue = ReadyQueue::default();
        let urgent =
            [Priority::new(1.0, 9.0, 9), Priority::new(0.0, 0.5, 7), Priority::new(-0.0, 0.5, -1), Priority::new(0.0, 2.0, -8)];
        let mut inserted: Vec<(Priority, TaskId)> = Vec::new();
        for (number, priority) in urgent.into_iter().rev().enumerate() {
            for id in [number as u32 + 10, number as u32].map(TaskId::from_bits) {
                assert!(queue.insert(priority, id) && !queue.insert(priority, id));
                inserted.push((priority, id));
            }
        }
        inserted.sort();
        assert_eq!(queue.len(), inserted.len());
        for (priority, id) in inserted {
            assert!(queue.contains(priority, id));
            assert_eq!(queue.first(), Some((priority, id)));
            assert!(queue.remove(priority, id) && !queue.remove(priority, id));
        }
        assert!(queue.is_empty() && queue.iter().next().is_none());
    }
}
