//! What workers say of tasks.

use bytes::Bytes;
use smallvec::smallvec;

use crate::dask::TaskKey;
use crate::engine::task::{Blame, Fault, Replicas, Task, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::{Engine, Failure, Instruction, RunId, WorkerId};

/// Larger results are a worker's mistake; sums of a million of these do not overflow.
pub(super) const NBYTES_MAX: u64 = 1 << 42;

/// What a worker says of a result.
pub(super) struct Outcome {
    pub(super) nbytes: u64,
    pub(super) type_pickle: Bytes,
    pub(super) compute_ms: Option<f64>,
}

/// How an answer relates to what its worker was told.
enum Answer {
    /// To the run under way.
    Current(TaskId),
    /// To an earlier run on a worker that has the task again.
    ///
    /// A worker that is told to drop a task and then to run it while the first run still goes on resumes the first: no
    /// other answer will come, and this one is of a run that was given up.
    Resumed(TaskId),
    /// The task is known, but not under way on this worker.
    Stale(TaskId),
    Unknown,
}

impl Engine {
    fn classify(&self, worker: WorkerId, key: &TaskKey, run_id: RunId) -> Answer {
        let id = run_id.task();
        let run = self.tasks.get(id).and_then(Task::run);
        if run.is_some_and(|run| run.worker == worker && run.run_id == run_id) {
            return Answer::Current(id);
        }
        let Some(id) = self.tasks.id(key) else { return Answer::Unknown };
        match self.tasks[id].run() {
            // Of another engine, and taken over.
            Some(run) if run.worker == worker && run.run_id == run_id => Answer::Current(id),
            Some(run) if run.worker == worker => Answer::Resumed(id),
            Some(_) | None => Answer::Stale(id),
        }
    }

    pub(super) fn on_task_finished(&mut self, worker_id: WorkerId, key: &TaskKey, run_id: RunId, outcome: Outcome) {
        let Some(worker) = self.workers.get_mut(&worker_id) else { return self.ignore() };
        let was_given_up = worker.run_ended(run_id);
        if was_given_up {
            self.reindex(worker_id);
        }
        if self.brought_run_finished(worker_id, key, run_id, &outcome) {
            return;
        }
        match self.classify(worker_id, key, run_id) {
            Answer::Current(id) => {
                self.prefixes.observe(self.tasks[id].prefix, outcome.compute_ms);
                let value_type = self.types.intern(&outcome.type_pickle);
                let nbytes = outcome.nbytes.min(NBYTES_MAX);
                self.tasks[id].was_taken = false;
                self.transition(id, TaskState::Memory(Replicas::new(smallvec![worker_id], nbytes, value_type)));
                self.announce(id);
                self.copy_away_late(worker_id, id);
            }
            Answer::Resumed(id) => self.run_again(id),
            Answer::Stale(id) if self.tasks[id].holders().contains(&worker_id) => self.ignore(),
            // It is told to drop the result already. By now it may be fetching the same for another task, which would wait
            // for ever if it were told once more.
            Answer::Stale(_) | Answer::Unknown if was_given_up => self.ignore(),
            Answer::Stale(_) | Answer::Unknown => {
                self.ignore();
                self.free(worker_id, key.clone());
            }
        }
    }

    pub(super) fn on_task_erred(&mut self, worker_id: WorkerId, key: &TaskKey, run_id: RunId, failure: Failure) {
        let Some(worker) = self.workers.get_mut(&worker_id) else { return self.ignore() };
        if worker.run_ended(run_id) {
            self.reindex(worker_id);
        }
        if self.brought_run_failed(worker_id, key, run_id, &failure) {
            return;
        }
        match self.classify(worker_id, key, run_id) {
            Answer::Current(id) => self.run_failed(id, worker_id, failure),
            Answer::Resumed(id) => self.run_again(id),
            Answer::Stale(_) | Answer::Unknown => self.ignore(),
        }
    }

    /// The worker holds on to a failed run until it is told otherwise, and would not run the task again.
    pub(super) fn run_failed(&mut self, id: TaskId, worker: WorkerId, failure: Failure) {
        self.free(worker, self.tasks[id].key.clone());
        let task = &mut self.tasks[id];
        task.failures = task.failures.saturating_add(1);
        let is_retried = task.failures <= task.retries;
        self.count_in_collections(id, |collection| {
            collection.retried.insert(id);
            collection.retries_used += u64::from(is_retried);
        });
        if is_retried {
            self.transition(id, TaskState::Waiting);
            return;
        }
        let attempts = self.tasks[id].failures;
        let worker = self.workers[&worker].profile.name.clone();
        let key = self.tasks[id].key.clone();
        self.fail(id, Blame::Own(Fault { key, failure, attempts, worker }.into()));
    }

    /// Takes a run back without counting anything.
    fn run_again(&mut self, id: TaskId) {
        self.give_up_run(id);
        self.transition(id, TaskState::Waiting);
    }

    pub(super) fn on_reschedule(&mut self, worker: WorkerId, key: &TaskKey) {
        match self.tasks.id(key).filter(|id| self.tasks[*id].is_processing_on(worker)) {
            Some(id) => {
                // The worker has ended the run, so nothing of it lingers.
                self.free(worker, key.clone());
                self.transition(id, TaskState::Waiting);
            }
            None => {
                self.brought_is_gone(worker, Some(key));
                self.ignore();
            }
        }
    }

    pub(super) fn on_long_running(&mut self, worker: WorkerId, key: &TaskKey, run_id: RunId, compute_ms: Option<f64>) {
        if self.brought_run_seceded(worker, key, run_id) {
            return;
        }
        match self.classify(worker, key, run_id) {
            Answer::Current(id) if self.tasks[id].run().is_some_and(|run| !run.seceded) => {
                self.prefixes.observe(self.tasks[id].prefix, compute_ms);
                self.secede(id);
            }
            Answer::Current(_) | Answer::Resumed(_) | Answer::Stale(_) | Answer::Unknown => self.ignore(),
        }
    }

    /// Also comes as an echo of what the worker was told to free: then there is nothing left to do.
    pub(super) fn on_release_worker_data(&mut self, worker: WorkerId, key: &TaskKey) {
        self.brought_is_gone(worker, Some(key));
        let Some(id) = self.tasks.id(key) else { return };
        if self.tasks[id].holders().contains(&worker) {
            if self.tasks[id].run_spec.is_none() {
                // Scattered data comes by another connection: this may be the echo of an earlier free that it overtook.
                self.free(worker, key.clone());
            }
            self.drop_replica(id, worker);
            self.replica_was_dropped(id, worker);
        }
    }

    pub(super) fn on_add_keys(&mut self, worker: WorkerId, keys: Vec<TaskKey>) {
        if !self.workers.contains_key(&worker) {
            return self.ignore();
        }
        for key in keys {
            if let Some(id) = self.tasks.id(&key) {
                self.copy_ended(id, worker);
            }
            match self.tasks.id(&key) {
                Some(id) if self.tasks[id].replicas().is_some() => {
                    if !self.tasks[id].holders().contains(&worker) {
                        self.add_replica(id, worker);
                    }
                }
                // To free it would end the run; the run's answer will come, and says the same.
                Some(id) if self.tasks[id].is_processing_on(worker) => {}
                Some(_) | None => {
                    self.ignore();
                    self.free(worker, key);
                }
            }
        }
    }

    /// A key that nobody can fetch is in no run's way, since its dependents went back to waiting: the worker may forget it.
    pub(super) fn on_request_refresh_who_has(&mut self, worker: WorkerId, keys: Vec<TaskKey>) {
        if !self.workers.contains_key(&worker) {
            return self.ignore();
        }
        let mut who_has = Vec::new();
        for key in keys {
            match self.tasks.id(&key) {
                Some(id) if self.tasks[id].is_within_reach() => {
                    let holders = self.addresses(&self.speaking_holders(id));
                    who_has.push((key, holders));
                }
                Some(id) if self.tasks[id].is_processing_on(worker) => {}
                Some(id) => {
                    self.copy_ended(id, worker);
                    self.free(worker, key);
                }
                None => self.free(worker, key),
            }
        }
        if !who_has.is_empty() {
            self.out.push(Instruction::RefreshWhoHas { worker, who_has });
        }
    }
}
