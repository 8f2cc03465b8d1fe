//! All tasks, and the dense ids that stand for their keys.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::dask::TaskKey;
use crate::engine::task::Task;

/// The place of a task in the `TaskTable`; given again once the task is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u32);

/// Most tasks have few neighbours: four fit without an allocation.
pub(super) type TaskList = SmallVec<[TaskId; 4]>;

/// All tasks, by dense id and by key.
#[derive(Debug, Default)]
pub(super) struct TaskTable {
    slots: Vec<Option<Task>>,
    /// Empty slots, the last freed is the first taken.
    vacant: Vec<TaskId>,
    /// Never iterated: its order would leak into decisions.
    ids: FxHashMap<TaskKey, TaskId>,
}

impl TaskTable {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn id(&self, key: &TaskKey) -> Option<TaskId> {
        self.ids.get(key).copied()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Task> {
        self.slots.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn insert(&mut self, task: Task) -> TaskId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("`tasks_max` is below the number of ids");
            self.slots.push(None);
            TaskId(index)
        });
        self.ids.insert(task.key.clone(), id);
        self.slots[id.0 as usize] = Some(task);
        id
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Task {
        let task = self.slots[id.0 as usize].take().expect("a task that is removed exists");
        self.ids.remove(&task.key);
        self.vacant.push(id);
        task
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((TaskId(index as u32), slot.as_ref()?)))
    }
}

/// For ids that an index of ours holds: those are of tasks that exist.
impl std::ops::Index<TaskId> for TaskTable {
    type Output = Task;

    fn index(&self, id: TaskId) -> &Task {
        self.slots[id.0 as usize].as_ref().expect("an indexed task exists")
    }
}

impl std::ops::IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        self.slots[id.0 as usize].as_mut().expect("an indexed task exists")
    }
}
