//! Copies away what only a closing worker holds.
//!
//! A worker that closes gracefully says so before it goes. Until then others fetch from it what would be lost with it, so
//! that nothing is made again. Actors cannot be copied: they go with their worker.

use std::collections::BTreeMap;

use crate::engine::task::Task;
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{Engine, Instruction, WorkerId, WorkerStatus};

impl Engine {
    /// Has other workers fetch all that only this one holds.
    pub(super) fn copy_away(&mut self, id: WorkerId) {
        let held: Vec<TaskId> = self.workers.get(&id).map_or_else(Vec::new, |worker| worker.holds.iter().collect());
        self.copy_away_from(id, &held);
    }

    /// The same for a result that came after the worker began to close.
    pub(super) fn copy_away_late(&mut self, id: WorkerId, task: TaskId) {
        if self.workers.get(&id).is_some_and(|worker| worker.status == WorkerStatus::ClosingGracefully) {
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
        // Two workers that close may hold the same: then it goes to neither.
        let stays = |holder: &WorkerId| {
            let holder = &self.workers[holder];
            holder.status != WorkerStatus::ClosingGracefully && !holder.is_silent()
        };
        let is_leaving = |task: &&Task| task.holders().contains(&id) && !task.holders().iter().any(stays) && !task.actor;
        for task in tasks.iter().map(|task| &self.tasks[*task]).filter(is_leaving) {
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

    /// How many results would be lost with a worker.
    pub fn held_alone(&self, id: WorkerId) -> usize {
        let held = self.workers.get(&id).map(|worker| worker.holds.iter());
        held.map_or(0, |held| held.filter(|task| self.tasks[*task].holders().len() == 1).count())
    }
}
