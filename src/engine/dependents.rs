//! Who reads a task.

use smallvec::SmallVec;

use crate::engine::task_set::TaskSet;
use crate::engine::task_table::{TaskId, TaskList};

/// More than this are held as a set, so that none has to be searched for when it goes: a million tasks may read one.
const FEW_MAX: usize = 64;

/// The tasks that depend on one: a few in the order in which they came, many in that of their ids.
#[derive(Debug)]
pub(super) enum Dependents {
    Few(TaskList),
    Many(Box<TaskSet>),
}

impl Dependents {
    pub(super) fn new() -> Self {
        Self::Few(TaskList::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = TaskId> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().copied().chain(many.into_iter().flat_map(|many| many.iter()))
    }

    pub(super) fn first(&self) -> Option<TaskId> {
        self.iter().next()
    }

    /// Adds one, unless it was added last as well: a task may name what it reads twice. Whether it is new.
    pub(super) fn push(&mut self, id: TaskId) -> bool {
        match self {
            Self::Few(few) if few.last() == Some(&id) => false,
            Self::Few(few) if few.len() < FEW_MAX => {
                few.push(id);
                true
            }
            Self::Few(few) => {
                let mut many: TaskSet = few.iter().copied().collect();
                let is_new = many.insert(id);
                *self = Self::Many(many.into());
                is_new
            }
            Self::Many(many) => many.insert(id),
        }
    }

    pub(super) fn remove(&mut self, id: TaskId) {
        match self {
            Self::Few(few) => {
                if let Some(position) = few.iter().position(|other| *other == id) {
                    few.remove(position);
                }
            }
            Self::Many(many) => _ = many.remove(id),
        }
    }

    /// A copy, to be gone through while tasks change.
    pub(super) fn to_list(&self) -> SmallVec<[TaskId; 8]> {
        self.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_lost_and_none_is_there_twice_however_many_there_are() {
        let mut dependents = Dependents::new();
        let ids: Vec<TaskId> = (0..2 * FEW_MAX as u32).map(TaskId::from_bits).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(dependents.push(*id) && !dependents.push(*id));
            assert_eq!(dependents.to_list()[..], ids[..=index]);
        }
        for (index, id) in ids.iter().enumerate() {
            assert_eq!(dependents.first(), Some(*id));
            dependents.remove(*id);
            assert_eq!(dependents.to_list()[..], ids[index + 1..]);
        }
        assert!(dependents.is_empty());
    }
}
