//! Takes over what workers bring from an engine before this one.
//!
//! A worker that outlived its scheduler registers again and says what it holds, what it runs and what failed there. The graph
//! that all this belongs to may come before or after that. So it is kept by key until somebody needs the key: then the
//! task is in memory, or under way by its old run, and does not have to run. What others have computed from it is found
//! first, since needs go from results to inputs; so no more is taken over than is of use.
//!
//! Nothing goes for want of knowledge. While the engine holds, since others may be about to come back, it starts no
//! task, and what it has taken over and does not need is left for collections whose graphs are not there yet. What
//! nobody has asked for goes when it is told that nobody will.
//!
//! Shuffles are not taken over: the data that workers have sent one another is in no inventory. Their outputs are.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use smallvec::{SmallVec, smallvec};

use crate::dask::TaskKey;
use crate::engine::on_tasks::{NBYTES_MAX, Outcome};
use crate::engine::requirement_table::Requirement;
use crate::engine::rules::Step;
use crate::engine::stimulus::{Inventory, StartedRun};
use crate::engine::task::{Replicas, Run, StateName, TaskState};
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::value_types::TypeId;
use crate::engine::{Engine, Failure, Resources, RunId, WorkerId, WorkerStatus};

/// What was brought and nobody has asked for yet.
#[derive(Debug, Default)]
pub(super) struct Brought {
    keys: IndexMap<TaskKey, Remains, FxBuildHasher>,
    /// Of tasks that were taken over while the engine holds: all and only those that are to be left for others.
    adopted: TaskSet,
}

/// What is left of one key. Never empty.
#[derive(Debug, Default)]
struct Remains {
    replicas: SmallVec<[Replica; 1]>,
    runs: SmallVec<[OldRun; 1]>,
    failures: Vec<(WorkerId, RunId, Failure)>,
}

#[derive(Clone, Copy, Debug)]
struct Replica {
    worker: WorkerId,
    nbytes: u64,
    value_type: TypeId,
    /// It is an actor, and lives there.
    is_actor: bool,
}

#[derive(Clone, Debug)]
struct OldRun {
    worker: WorkerId,
    run_id: RunId,
    seceded: bool,
    resources: Resources,
}

impl Remains {
    fn is_empty(&self) -> bool {
        self.replicas.is_empty() && self.runs.is_empty() && self.failures.is_empty()
    }

    fn drop_worker(&mut self, worker: WorkerId) {
        self.replicas.retain(|replica| replica.worker != worker);
        self.runs.retain(|run| run.worker != worker);
        self.failures.retain(|(failed_on, ..)| *failed_on != worker);
    }

    fn workers(&self) -> impl Iterator<Item = WorkerId> {
        let replicas = self.replicas.iter().map(|replica| replica.worker);
        let runs = self.runs.iter().map(|run| run.worker);
        replicas.chain(runs).chain(self.failures.iter().map(|(worker, ..)| *worker))
    }
}

impl Brought {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Changes what is left of a key, and forgets the key if that is nothing.
    fn change<T>(&mut self, key: &TaskKey, change: impl FnOnce(&mut Remains) -> T) -> Option<T> {
        let (index, _, remains) = self.keys.get_full_mut(key)?;
        let result = change(remains);
        if remains.is_empty() {
            self.keys.swap_remove_index(index);
        }
        Some(result)
    }

    /// All workers that brought something.
    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.keys.values().flat_map(Remains::workers)
    }
}

impl Engine {
    pub(super) fn on_hold(&mut self, holds: bool) {
        self.holds = holds;
        if !holds {
            self.brought.adopted = TaskSet::default();
        }
    }

    /// A part of what a worker has that has not said yet that it runs.
    pub(super) fn on_worker_inventory(&mut self, id: WorkerId, inventory: Inventory) {
        if self.workers.get(&id).is_none_or(|worker| worker.status != WorkerStatus::Init) {
            return self.ignore();
        }
        let Inventory { held, runs, failures } = inventory;
        for held in held {
            let value_type = self.types.intern(&held.type_pickle);
            let replica = Replica { worker: id, nbytes: held.nbytes.min(NBYTES_MAX), value_type, is_actor: held.is_actor };
            self.bring(held.key, |remains| remains.replicas.push(replica));
        }
        for run in runs {
            self.bring_run(id, run);
        }
        for (key, run_id, failure) in failures {
            self.bring(key, |remains| remains.failures.push((id, run_id, failure)));
        }
        self.reindex(id);
    }

    /// Notes a run that goes on, with what it takes. One that was given up is only waited for.
    fn bring_run(&mut self, worker_id: WorkerId, run: StartedRun) {
        let StartedRun { key, run_id, has_thread, is_wanted, resources } = run;
        let worker = &mut self.workers[&worker_id];
        if !worker.has_free(&resources) {
            // It says that it runs more than it can.
            self.ignore();
            return self.free(worker_id, key);
        }
        worker.linger_on(key.clone(), run_id, resources.clone(), has_thread);
        if is_wanted {
            let run = OldRun { worker: worker_id, run_id, seceded: !has_thread, resources };
            self.bring(key, |remains| remains.runs.push(run));
        }
    }

    fn bring(&mut self, key: TaskKey, add: impl FnOnce(&mut Remains)) {
        add(self.brought.keys.entry(key.clone()).or_default());
        if let Some(id) = self.tasks.id(&key) {
            self.reconsider(id);
        }
    }

    /// Something was brought of a task that is known: it may be of more use than what is under way.
    fn reconsider(&mut self, id: TaskId) {
        match self.tasks[id].state_name() {
            StateName::Waiting | StateName::NoWorker | StateName::Queued => self.look_again(id),
            StateName::Processing if self.has_brought_replica(id) => {
                self.give_up_run(id);
                self.look_again(id);
            }
            StateName::Memory => self.add_brought_replicas(id),
            // Whoever needs it next will see.
            StateName::Processing | StateName::Released | StateName::Erred => {}
        }
    }

    /// Lets a task that is needed take the step from the start.
    fn look_again(&mut self, id: TaskId) {
        self.transition(id, TaskState::Released);
        if self.next_step(id) == Some(Step::Wait) {
            self.take(id, Step::Wait);
        }
    }

    fn has_brought_replica(&self, id: TaskId) -> bool {
        self.brought.keys.get(&self.tasks[id].key).is_some_and(|remains| !remains.replicas.is_empty())
    }

    /// Of a result that is known to be elsewhere there are more.
    fn add_brought_replicas(&mut self, id: TaskId) {
        if self.tasks[id].actor || self.is_inner_to_shuffle(id) {
            return;
        }
        let key = self.tasks[id].key.clone();
        let replicas = self.brought.change(&key, |remains| std::mem::take(&mut remains.replicas)).unwrap_or_default();
        for replica in replicas {
            if !self.tasks[id].holders().contains(&replica.worker) {
                self.add_replica(id, replica.worker);
            }
        }
    }

    /// Takes over what was brought of a task that is needed and was not started here; whether there was anything.
    pub(super) fn adopt(&mut self, id: TaskId) -> bool {
        if self.brought.is_empty() || self.is_inner_to_shuffle(id) {
            return false;
        }
        self.adopt_result(id) || self.adopt_run(id) || self.adopt_failure(id)
    }

    fn adopt_result(&mut self, id: TaskId) -> bool {
        let (key, is_actor) = (self.tasks[id].key.clone(), self.tasks[id].actor);
        let Some(remains) = self.brought.keys.get_mut(&key) else { return false };
        let mut replicas = remains.replicas.clone();
        // An actor is where it lives; elsewhere are proxies, of no use without it.
        replicas.sort_by_key(|replica| !replica.is_actor);
        let Some(first) = replicas.first().copied().filter(|first| first.is_actor || !is_actor) else { return false };
        remains.replicas.clear();
        self.drop_remains(&key);
        let mut holders: SmallVec<[WorkerId; 4]> = smallvec![];
        for replica in replicas {
            if !holders.contains(&replica.worker) {
                holders.push(replica.worker);
            }
        }
        self.transition(id, TaskState::Memory(Replicas::new(holders, first.nbytes, first.value_type)));
        self.announce(id);
        self.note_adopted(id);
        self.stats.adopted_results += 1;
        true
    }

    /// Goes on with a run by its old id, so that its answer is known.
    fn adopt_run(&mut self, id: TaskId) -> bool {
        let key = self.tasks[id].key.clone();
        let Some(remains) = self.brought.keys.get_mut(&key) else { return false };
        if remains.runs.is_empty() || self.tasks[id].dependencies.iter().any(|input| self.is_barrier(*input)) {
            return false;
        }
        // What it reads is where it runs.
        for dependency in self.tasks[id].dependencies.clone() {
            if self.tasks[dependency].state_name() == StateName::Released {
                self.adopt_result(dependency);
            }
            if !self.tasks[dependency].is_within_reach() {
                return false;
            }
        }
        let Some(run) = self.brought.change(&key, |remains| remains.runs.remove(0)) else { return false };
        self.drop_remains(&key);
        let OldRun { worker: worker_id, run_id, seceded, resources } = run;
        let worker = &mut self.workers[&worker_id];
        worker.run_ended(run_id);
        if !worker.has_free(&resources) {
            // It has ended meanwhile, by the worker's own account, and another has what it took.
            self.free(worker_id, key);
            return false;
        }
        let requirement = Requirement { resources, actor: self.tasks[id].actor, ..Requirement::default() };
        let requirement = self.requirements.acquire(&requirement, &self.workers);
        let expected_us = self.prefixes.expected_us(self.tasks[id].prefix);
        let run = Run { worker: worker_id, run_id, since: self.now, expected_us, requirement, seceded: false, executing: true };
        self.transition(id, TaskState::Processing(run));
        self.requirements.release(requirement);
        if seceded {
            self.secede(id);
        }
        self.note_adopted(id);
        self.stats.adopted_runs += 1;
        true
    }

    /// Counts a failure that the engine before may not have heard of: it would have had it dropped.
    fn adopt_failure(&mut self, id: TaskId) -> bool {
        let key = self.tasks[id].key.clone();
        let Some((worker, _, failure)) = self.brought.keys.get_mut(&key).and_then(|remains| remains.failures.pop()) else {
            return false;
        };
        self.drop_remains(&key);
        self.run_failed(id, worker, failure);
        true
    }

    /// Has workers drop what is left of a key.
    fn drop_remains(&mut self, key: &TaskKey) {
        let Some(remains) = self.brought.keys.swap_remove(key) else { return };
        let holders = self.tasks.id(key).map_or_else(Vec::new, |id| self.tasks[id].holders().to_vec());
        for worker in remains.workers().filter(|worker| !holders.contains(worker)) {
            self.free(worker, key.clone());
        }
    }

    fn note_adopted(&mut self, id: TaskId) {
        if self.holds {
            self.brought.adopted.insert(id);
        }
    }

    /// Puts what was taken over and is not needed back to where it came from: a graph that is not there yet may need it.
    /// Whether it was that.
    pub(super) fn leave_for_others(&mut self, id: TaskId) -> bool {
        if !self.brought.adopted.remove(id) {
            return false;
        }
        let key = self.tasks[id].key.clone();
        let mut remains = Remains::default();
        match self.tasks[id].state().clone() {
            TaskState::Memory(Replicas { holders, nbytes, value_type, .. }) => {
                let replica = |worker| Replica { worker, nbytes, value_type, is_actor: self.tasks[id].is_actor_on(worker) };
                remains.replicas = holders.iter().copied().map(replica).collect();
            }
            TaskState::Processing(run) => {
                let resources = self.requirements.get(run.requirement).resources.clone();
                let Run { worker, run_id, seceded, .. } = run;
                remains.runs = smallvec![OldRun { worker, run_id, seceded, resources }];
            }
            TaskState::Released | TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Erred(_) => {
                return false;
            }
        }
        let runs = remains.runs.clone();
        self.brought.keys.insert(key.clone(), remains);
        self.transition(id, TaskState::Released);
        for OldRun { worker, run_id, seceded, resources } in runs {
            self.workers[&worker].linger_on(key.clone(), run_id, resources, !seceded);
            self.reindex(worker);
        }
        true
    }

    /// Nobody will ask for what nobody has asked for.
    pub(super) fn on_forget_brought(&mut self) {
        while let Some((key, _)) = self.brought.keys.last() {
            let key = key.clone();
            self.drop_remains(&key);
        }
    }

    /// An old run whose key nobody has asked for has given a result; whether it was that.
    pub(super) fn brought_run_finished(&mut self, worker: WorkerId, key: &TaskKey, run_id: RunId, outcome: &Outcome) -> bool {
        if !self.take_old_run(worker, key, run_id) {
            return false;
        }
        let value_type = self.types.intern(&outcome.type_pickle);
        let is_actor = self.tasks.id(key).is_some_and(|id| self.tasks[id].actor);
        let replica = Replica { worker, nbytes: outcome.nbytes.min(NBYTES_MAX), value_type, is_actor };
        self.bring(key.clone(), |remains| remains.replicas.push(replica));
        true
    }

    /// The same for one that failed.
    pub(super) fn brought_run_failed(&mut self, worker: WorkerId, key: &TaskKey, run_id: RunId, failure: &Failure) -> bool {
        if !self.take_old_run(worker, key, run_id) {
            return false;
        }
        self.bring(key.clone(), |remains| remains.failures.push((worker, run_id, failure.clone())));
        true
    }

    /// The same for one that gave its thread back.
    pub(super) fn brought_run_seceded(&mut self, worker_id: WorkerId, key: &TaskKey, run_id: RunId) -> bool {
        let Some((runs, place)) = self.old_run(worker_id, key, run_id) else { return false };
        runs[place].seceded = true;
        let resources = runs[place].resources.clone();
        let worker = &mut self.workers[&worker_id];
        worker.run_ended(run_id);
        worker.linger_on(key.clone(), run_id, resources, false);
        self.reindex(worker_id);
        true
    }

    /// Whether there was such a run. Something else takes its place at once.
    fn take_old_run(&mut self, worker: WorkerId, key: &TaskKey, run_id: RunId) -> bool {
        self.old_run(worker, key, run_id).map(|(runs, place)| runs.remove(place)).is_some()
    }

    /// The runs that are left of a key, and where one of them is.
    fn old_run(&mut self, worker: WorkerId, key: &TaskKey, run_id: RunId) -> Option<(&mut SmallVec<[OldRun; 1]>, usize)> {
        let runs = &mut self.brought.keys.get_mut(key)?.runs;
        let place = runs.iter().position(|run| run.worker == worker && run.run_id == run_id)?;
        Some((runs, place))
    }

    /// A worker has dropped what it brought of a key, or has gone with all that it brought.
    pub(super) fn brought_is_gone(&mut self, worker: WorkerId, key: Option<&TaskKey>) {
        match key {
            Some(key) => _ = self.brought.change(key, |remains| remains.drop_worker(worker)),
            None => self.brought.keys.retain(|_, remains| {
                remains.drop_worker(worker);
                !remains.is_empty()
            }),
        }
    }

    /// A barrier or a transfer.
    fn is_inner_to_shuffle(&self, id: TaskId) -> bool {
        self.is_barrier(id) || self.tasks[id].dependents.iter().any(|dependent| self.is_barrier(dependent))
    }

    fn is_barrier(&self, id: TaskId) -> bool {
        self.tasks[id].prefix == self.barrier_prefix
    }
}
