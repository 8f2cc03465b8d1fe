//! Drops replicas that nobody needs.
//!
//! Workers keep what they fetched for a task. Once the tasks that read it are done, one replica is enough; the others
//! only take memory. As the stock scheduler does (distributed 2026.8.0, active_memory_manager.py: `ReduceReplicas`), but
//! data that a Client scattered is left where the Client put it.

use std::collections::{BTreeMap, BTreeSet};

use crate::dask::TaskKey;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::{Engine, Instruction, Millis, WorkerId, WorkerStatus};

/// How often to look.
const REDUCE_EVERY_MS: u64 = 2_000;

impl Engine {
    /// Has workers drop what is elsewhere as well and not needed there, when it is time.
    pub(super) fn reduce_replicas(&mut self) {
        let is_due = self.reduce_at.is_some_and(|at| at <= self.now);
        if is_due && !self.keeps_replicas {
            self.reduce_now();
        }
        if self.replicated.is_empty() {
            self.reduce_at = None;
        } else if is_due || self.reduce_at.is_none() {
            self.reduce_at = Some(Millis(self.now.0 + REDUCE_EVERY_MS));
        }
    }

    pub(super) fn reduce_now(&mut self) {
        let mut removed: BTreeMap<WorkerId, Vec<_>> = BTreeMap::new();
        let read: BTreeMap<WorkerId, TaskSet> = self.workers.keys().map(|worker| (*worker, self.read_on(*worker))).collect();
        for id in self.replicated.iter().collect::<Vec<_>>() {
            for worker in self.superfluous_holders(id, &read) {
                self.drop_replica(id, worker);
                removed.entry(worker).or_default().push(self.tasks[id].key.clone());
            }
        }
        for (worker, keys) in removed {
            // It says so with an `add-keys` should it need one of them after all.
            self.out.push(Instruction::RemoveReplicas { worker, keys });
        }
    }

    /// Has a worker drop what is elsewhere as well; the last replica stays, and an actor.
    pub(super) fn on_drop_replicas(&mut self, worker: WorkerId, keys: &[TaskKey]) {
        let mut removed = Vec::new();
        for id in keys.iter().filter_map(|key| self.tasks.id(key)).collect::<Vec<_>>() {
            let task = &self.tasks[id];
            if task.holders().contains(&worker) && task.holders().len() > 1 && !task.actor {
                removed.push(task.key.clone());
                self.drop_replica(id, worker);
            }
        }
        if !removed.is_empty() {
            self.out.push(Instruction::RemoveReplicas { worker, keys: removed });
        }
    }

    /// The workers that may drop a result, the fullest first. As many replicas stay as there are tasks that will read it, or
    /// as its collection wants, and then on as many nodes.
    fn superfluous_holders(&self, id: TaskId, read: &BTreeMap<WorkerId, TaskSet>) -> Vec<WorkerId> {
        let task = &self.tasks[id];
        let mut holders: Vec<WorkerId> = task.holders().iter().filter(|id| self.workers[*id].lasts()).copied().collect();
        let copies = self.copies_wanted(task);
        let superfluous = holders.len().saturating_sub((task.waiters as usize).max(copies));
        if superfluous == 0 || task.actor {
            return Vec::new();
        }
        let is_read = |worker: &WorkerId| read.get(worker).is_some_and(|read| read.contains(id));
        let node = |worker: &WorkerId| self.workers[worker].profile.node();
        let mut dropping = Vec::new();
        for _ in 0..superfluous {
            let nodes: BTreeSet<&str> = holders.iter().map(node).collect();
            let is_alone = |worker: &WorkerId| holders.iter().filter(|other| node(other) == node(worker)).count() == 1;
            let may_drop = |worker: &&WorkerId| !is_read(worker) && (nodes.len() > copies || copies == 1 || !is_alone(worker));
            let dropped = holders.iter().filter(may_drop).copied().max_by_key(|id| {
                let worker = &self.workers[id];
                (copies > 1 && !is_alone(id), worker.status == WorkerStatus::Paused, worker.nbytes, self.tie_break(*id))
            });
            let Some(dropped) = dropped else { break };
            holders.retain(|holder| *holder != dropped);
            dropping.push(dropped);
        }
        dropping
    }

    /// What the tasks that a worker was given read.
    fn read_on(&self, worker: WorkerId) -> TaskSet {
        self.workers[&worker].processing.iter().flat_map(|reader| self.tasks[*reader].dependencies.iter().copied()).collect()
    }

    /// Keeps the index of replicated results, when the holders of one changed, or how many there are to be.
    pub(super) fn index_replicated(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        if task.holders().len() > self.copies_wanted(task) && task.run_spec.is_some() {
            self.replicated.insert(id);
        } else {
            self.replicated.remove(id);
        }
    }
}
