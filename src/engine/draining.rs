//! Copies away what only a closing worker holds.
//!
//! A worker that closes gracefully says so before it goes; of others their pod or node says it. Until then others fetch
//! from it what would be lost with it, so that nothing is made again. Actors cannot be copied: they go with their worker.

use std::collections::BTreeMap;

use crate::engine::task::Task;
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{Engine, Instruction, WorkerId};

impl Engine {
    /// Has other workers fetch all that only this one holds.
    pub(super) fn copy_away(&mut self, id: WorkerId) {
        let held: Vec<TaskId> = self.workers.get(&id).map_or_else(Vec::new, |worker| worker.holds.iter().collect());
        self.copy_away_from(id, &held);
    }

    /// The same for a result that came after the worker began to close.
    pub(super) fn copy_away_late(&mut self, id: WorkerId, task: TaskId) {
        if self.workers.get(&id).is_some_and(Worker::is_closing) {
            self.copy_away_from(id, &[task]);
        }
    }

    fn copy_away_from(&mut self, id: WorkerId, tasks: &[TaskId]) {
        if self.workers.get(&id).is_some_and(Worker::is_silent) {
            // Who fetched from it now would wait for it. It is asked for when it speaks again.
            return;
        }
        // What each other worker will hold: the one with the least is the next to take something.
        let others = self.workers.iter().filter(|(other, worker)| **other != id && worker.takes_tasks());
        let mut nbytes: BTreeMap<WorkerId, u64> = others.map(|(other, worker)| (*other, worker.nbytes)).collect();
        let mut replicas: BTreeMap<WorkerId, Vec<_>> = BTreeMap::new();
        let would_be_lost = |task: &&Task| task.holders().contains(&id) && self.would_be_lost(task);
        for task in tasks.iter().map(|task| &self.tasks[*task]).filter(would_be_lost) {
            let Some((target, planned)) = nbytes.iter_mut().min_by_key(|(other, planned)| (**planned, **other)) else { return };
            *planned += task.nbytes();
            let replica = (task.key.clone(), task.nbytes(), self.addresses(task.holders()));
            replicas.entry(*target).or_default().push(replica);
        }
        for (worker, replicas) in replicas {
            self.send_unsent_frees(worker);
            self.out.push(Instruction::AcquireReplicas { worker, replicas });
        }
    }

    /// Whether nobody holds a result who stays, and somebody could. Two workers that close may hold the same.
    fn would_be_lost(&self, task: &Task) -> bool {
        let stays = |holder: &WorkerId| {
            let holder = &self.workers[holder];
            !holder.is_closing() && !holder.is_silent()
        };
        !task.actor && !task.holders().iter().any(stays)
    }

    /// How many results would be lost if this worker went, and all others that are going.
    pub fn held_for_last(&self, id: WorkerId) -> usize {
        let held = self.workers.get(&id).map(|worker| worker.holds.iter());
        held.map_or(0, |held| held.filter(|task| self.would_be_lost(&self.tasks[*task])).count())
    }

    /// How many results would be lost with a worker.
    pub fn held_alone(&self, id: WorkerId) -> usize {
        let held = self.workers.get(&id).map(|worker| worker.holds.iter());
        held.map_or(0, |held| held.filter(|task| self.tasks[*task].holders().len() == 1).count())
    }
}
