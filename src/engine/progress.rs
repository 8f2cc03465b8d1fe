//! How far keys have come, as Dask's progress bars count it.

use std::collections::BTreeMap;

use crate::dask::TaskKey;
use crate::engine::Engine;
use crate::engine::task::TaskState;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;

/// Tasks by the prefix of their key.
pub type CountsByPrefix = BTreeMap<String, u64>;

/// What is left to do for some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that are not in memory and on which a key that is not in memory depends, the key included.
    pub remaining: CountsByPrefix,
    /// A task among them that failed for good.
    pub failed: Option<TaskKey>,
}

impl Engine {
    /// What is left to do for these keys; a key that is not known has nothing left.
    pub fn progress(&self, keys: &[TaskKey]) -> Progress {
        let mut progress = Progress::default();
        self.walk(keys, |id| {
            let task = &self.tasks[id];
            match task.state() {
                TaskState::Memory(_) => return false,
                TaskState::Erred(_) if progress.failed.is_none() => progress.failed = Some(task.key.clone()),
                TaskState::Erred(_)
                | TaskState::Released
                | TaskState::Waiting
                | TaskState::NoWorker
                | TaskState::Queued
                | TaskState::Processing(_) => {}
            }
            *progress.remaining.entry(task.key.prefix().into_owned()).or_default() += 1;
            true
        });
        progress
    }

    /// All tasks that these keys are made of.
    pub fn dependencies_by_prefix(&self, keys: &[TaskKey]) -> CountsByPrefix {
        let mut counts = CountsByPrefix::new();
        self.walk(keys, |id| {
            *counts.entry(self.tasks[id].key.prefix().into_owned()).or_default() += 1;
            true
        });
        counts
    }

    /// Visits tasks and, where the visitor says so, what they depend on; each once.
    fn walk(&self, keys: &[TaskKey], mut goes_on: impl FnMut(TaskId) -> bool) {
        let mut waiting: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        let mut seen = TaskSet::default();
        while let Some(id) = waiting.pop() {
            if seen.insert(id) && goes_on(id) {
                waiting.extend(self.tasks[id].dependencies.iter().copied());
            }
        }
    }
}
