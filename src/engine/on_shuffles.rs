//! What peer-to-peer shuffles ask of the engine: outputs run where their data is, and all begins anew when some of it is lost.
//!
//! The tasks of a shuffle are its barrier with what it reads, the transfers, and with what reads it, the outputs. Their
//! results are small, and say nothing of the data that workers have sent one another: the engine knows nothing of that.

use crate::dask::TaskKey;
use crate::engine::requirement_table::Requirement;
use crate::engine::rules::Step;
use crate::engine::task::StateName;
use crate::engine::task_table::TaskId;
use crate::engine::{Engine, Instruction, WorkerId};

impl Engine {
    /// Has tasks run where a shuffle has put what they take, and nowhere else until it is over.
    pub(super) fn on_shuffle_placed(&mut self, outputs: &[(TaskKey, WorkerId)]) {
        for (key, worker) in outputs {
            match self.tasks.id(key) {
                Some(id) if self.workers.contains_key(worker) => self.pin(id, Some(*worker)),
                Some(_) | None => self.ignore(),
            }
        }
    }

    /// Has a shuffle done again from its transfers on, with all outputs: those that are there are of a run that was given
    /// up. Unless one of its tasks has failed: then the others fail with it.
    pub(super) fn on_shuffle_restarted(&mut self, barrier: &TaskKey) {
        let Some(barrier) = self.tasks.id(barrier) else { return };
        let (transfers, outputs) = (self.tasks[barrier].dependencies.clone(), self.tasks[barrier].dependents.to_list());
        self.unpin_outputs(barrier);
        // What is waited for is not let go of in between, as long as those that wait are the first.
        let order: Vec<TaskId> = outputs.into_iter().chain([barrier]).chain(transfers).collect();
        if order.iter().any(|id| self.tasks[*id].blame().is_some()) {
            return;
        }
        for id in order {
            self.start_over(id);
        }
    }

    /// Forgets what came of a task or is under way of it. Data that no task can make again stays.
    fn start_over(&mut self, id: TaskId) {
        if self.tasks[id].run_spec.is_none() || self.tasks[id].actor {
            return;
        }
        match self.tasks[id].state_name() {
            StateName::Memory => {
                self.announce_loss(id);
                self.release(id);
            }
            StateName::Processing | StateName::Queued | StateName::NoWorker => self.take(id, Step::Wait),
            StateName::Released | StateName::Waiting | StateName::Erred => {}
        }
        if self.next_step(id) == Some(Step::Wait) {
            self.take(id, Step::Wait);
        }
    }

    /// Restricts a task to one worker, on top of what else it asks, or lifts that.
    pub(super) fn pin(&mut self, id: TaskId, worker: Option<WorkerId>) {
        let old = self.requirements.get(self.tasks[id].requirement);
        if old.pinned_to == worker {
            return;
        }
        let pinned = Requirement { pinned_to: worker, ..old.clone() };
        self.set_requirement(id, &pinned);
    }

    fn unpin_outputs(&mut self, barrier: TaskId) {
        for output in self.tasks[barrier].dependents.to_list() {
            self.pin(output, None);
        }
    }

    /// A barrier is released or erred: its shuffle is over, and what takes part of it may run anywhere again.
    pub(super) fn end_shuffle(&mut self, barrier: TaskId) {
        self.unpin_outputs(barrier);
        self.out.push(Instruction::ShuffleOver { barrier: self.tasks[barrier].key.clone() });
    }

    /// The workers that may run all outputs of a shuffle; if there are none, those that may run its barrier.
    pub fn workers_for_shuffle(&self, barrier: &TaskKey) -> Vec<WorkerId> {
        let Some(barrier) = self.tasks.id(barrier).map(|id| &self.tasks[id]) else { return Vec::new() };
        let mut requirements: Vec<_> = barrier.dependents.iter().map(|output| self.tasks[output].requirement).collect();
        requirements.sort_unstable();
        requirements.dedup();
        let may_run_all = |worker: &WorkerId| {
            let profile = &self.workers[worker];
            profile.takes_tasks() && requirements.iter().all(|id| self.requirements.may_run(*id, *worker))
        };
        let chosen: Vec<WorkerId> = self.workers.keys().copied().filter(may_run_all).collect();
        if chosen.is_empty() { self.requirements.eligible(barrier.requirement).iter().copied().collect() } else { chosen }
    }

    /// What else the tasks need that need a task.
    pub fn needed_beside(&self, key: &TaskKey) -> Vec<TaskKey> {
        let Some(id) = self.tasks.id(key) else { return Vec::new() };
        let mut beside: Vec<TaskId> = Vec::new();
        for dependent in self.tasks[id].dependents.iter() {
            beside.extend(self.tasks[dependent].dependencies.iter().filter(|other| **other != id));
        }
        beside.sort_unstable();
        beside.dedup();
        beside.into_iter().map(|other| self.tasks[other].key.clone()).collect()
    }

    /// Whether a task needs another directly.
    pub fn needs(&self, key: &TaskKey, dependency: &TaskKey) -> bool {
        let ids = self.tasks.id(key).zip(self.tasks.id(dependency));
        ids.is_some_and(|(id, dependency)| self.tasks[id].dependencies.contains(&dependency))
    }

    /// Whether all graphs have arrived as a whole.
    pub fn has_arrived(&self) -> bool {
        self.arrivals.is_empty()
    }
}
