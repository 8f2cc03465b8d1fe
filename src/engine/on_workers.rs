//! Workers join, change and go.

use std::collections::BTreeMap;

use crate::dask::{Priority, TaskKey};
use crate::engine::owner::Owner;
use crate::engine::requirement_table::RequirementId;
use crate::engine::rules::fault_without_run;
use crate::engine::task::{Blame, Fault, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{ClientId, Engine, Exception, Failure, Instruction, Resources, WorkerId, WorkerProfile, WorkerStatus};

/// Half of the average is the latest report.
const BANDWIDTH_WEIGHT: f64 = 0.5;
/// Reports outside of this are a worker's mistake.
const BANDWIDTH_RANGE: std::ops::RangeInclusive<f64> = 1e3..=1e12;

impl Engine {
    pub(super) fn on_worker_joined(&mut self, id: WorkerId, profile: WorkerProfile) {
        if self.workers.contains_key(&id) {
            return self.ignore();
        }
        // The process behind an address is another one: what the old one held is gone.
        let former = self.workers.iter().find(|(_, worker)| worker.profile.address == profile.address);
        if let Some(former) = former.map(|(former, _)| *former) {
            self.on_worker_left(former, false);
        }
        self.workers.insert(id, Worker::new(profile, self.config.worker_saturation));
        self.worker_capacity_changed(id);
    }

    pub(super) fn on_worker_status_changed(&mut self, id: WorkerId, status: WorkerStatus) {
        let Some(worker) = self.workers.get_mut(&id) else { return self.ignore() };
        worker.status = status;
        self.worker_capacity_changed(id);
        match status {
            WorkerStatus::Init | WorkerStatus::Running => {}
            // It starts nothing any more: what it has not started can start elsewhere.
            WorkerStatus::Paused | WorkerStatus::Closing => self.evacuate(id),
            WorkerStatus::ClosingGracefully => {
                self.evacuate(id);
                self.copy_away(id);
            }
        }
    }

    /// It is treated like one that says itself that it closes. Told again, it has others fetch again what they have not.
    pub(super) fn on_worker_leaving(&mut self, id: WorkerId, leaving: bool) {
        let Some(worker) = self.workers.get_mut(&id) else { return self.ignore() };
        let is_news = std::mem::replace(&mut worker.is_leaving, leaving) != leaving;
        if is_news {
            self.worker_capacity_changed(id);
        }
        if leaving {
            self.evacuate(id);
            self.copy_away(id);
        }
    }

    pub(super) fn on_worker_changed(
        &mut self,
        id: WorkerId,
        labels: BTreeMap<String, String>,
        resources: Resources,
        builder: bool,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else { return self.ignore() };
        worker.profile.labels = labels;
        worker.profile.resources = resources;
        worker.profile.builder = builder;
        self.worker_capacity_changed(id);
    }

    pub(super) fn on_worker_heartbeat(&mut self, id: WorkerId, memory: u64, bandwidth: Option<f64>, executing: &[TaskKey]) {
        let Some(worker) = self.workers.get_mut(&id) else { return self.ignore() };
        worker.memory = memory;
        if worker.heard_executing(executing) {
            self.reindex(id);
        }
        for key in executing {
            let Some(task) = self.tasks.id(key) else { continue };
            if let Some(run) = self.tasks[task].run_mut().filter(|run| run.worker == id) {
                run.executing = true;
            }
        }
        if let Some(reported) = bandwidth.filter(|reported| BANDWIDTH_RANGE.contains(reported)) {
            self.bandwidth = self.bandwidth * (1.0 - BANDWIDTH_WEIGHT) + reported * BANDWIDTH_WEIGHT;
        }
    }

    /// All that was there is elsewhere or lost: runs start again, results that are needed are made again.
    pub(super) fn on_worker_left(&mut self, id: WorkerId, expected: bool) {
        let Some(worker) = self.workers.get(&id) else { return self.ignore() };
        let address = worker.profile.address.clone();
        let started = self.may_have_started(worker);
        let processing: Vec<TaskId> = worker.processing.iter().copied().collect();
        let held: Vec<TaskId> = worker.holds.iter().collect();
        self.brought_is_gone(id, None);
        self.close_to_tasks(id);
        for task in processing {
            let has_started = started.contains(&task);
            self.rerun_elsewhere(task, has_started, has_started && !expected);
        }
        for task in held {
            if self.tasks[task].is_actor_on(id) {
                self.drop_proxies(task, id);
            }
            self.drop_replica(task, id);
            self.replica_was_dropped(task, id);
        }
        // It is indexed a last time, and is not told what it was to hear by and by.
        self.workers[&id].unsent_frees.clear();
        self.index_workers();
        self.workers.shift_remove(&id);
        self.silent.remove(&id);
        for other in self.workers.keys() {
            self.out.push(Instruction::RemoveWorker { worker: *other, gone: address.clone() });
        }
    }

    /// Frees what other workers have of an actor: proxies, which are of no use without it.
    fn drop_proxies(&mut self, id: TaskId, home: WorkerId) {
        for holder in self.tasks[id].holders().to_vec().into_iter().filter(|holder| *holder != home) {
            self.drop_replica(id, holder);
            self.free(holder, self.tasks[id].key.clone());
        }
    }

    /// What a worker may have been running when it was last heard of.
    ///
    /// Heartbeats name what runs, but the last one is up to seconds old, and a task that kills its worker may never be
    /// in one. So the threads that no named run occupies are taken to run the most urgent of the others: that is what
    /// the worker does with its queue. Runs that seceded have no thread but go on.
    pub(super) fn may_have_started(&self, worker: &Worker) -> Vec<TaskId> {
        let mut started = Vec::new();
        let mut others: Vec<(Priority, TaskId)> = Vec::new();
        let mut free_threads = worker.profile.nthreads as usize;
        for id in &worker.processing {
            let task = &self.tasks[*id];
            match task.run() {
                Some(run) if run.seceded => started.push(*id),
                Some(run) if run.executing => {
                    free_threads = free_threads.saturating_sub(1);
                    started.push(*id);
                }
                Some(run) if worker.unsent.contains(&run.run_id) => {}
                Some(_) | None => others.push((task.priority, *id)),
            }
        }
        others.sort_unstable();
        started.extend(others.into_iter().take(free_threads).map(|(_, id)| id));
        started
    }

    /// Takes a run from a worker that is gone.
    fn rerun_elsewhere(&mut self, id: TaskId, has_started: bool, blamed: bool) {
        if has_started {
            self.count_in_collections(id, |collection| collection.worker_lost += 1);
        }
        let task = &mut self.tasks[id];
        let Some(run) = task.run().copied() else { return };
        task.worker_deaths = task.worker_deaths.saturating_add(u16::from(blamed));
        if blamed && u32::from(task.worker_deaths) > self.config.allowed_failures {
            let fault = self.killed_worker(id, run.worker);
            self.fail(id, Blame::Own(fault.into()));
            return;
        }
        self.transition(id, TaskState::Waiting);
        if blamed {
            self.isolate(id);
        }
    }

    fn killed_worker(&self, id: TaskId, worker: WorkerId) -> Fault {
        let task = &self.tasks[id];
        let profile = &self.workers[&worker].profile;
        let exception_text = format!(
            "KilledWorker: {} workers died while they may have been running `{}`, the last of them {}; \
             look at what that worker wrote, and at its memory limit",
            task.worker_deaths, task.key, profile.name
        );
        let exception =
            Exception::KilledWorker { last_worker: profile.address.clone(), allowed_failures: self.config.allowed_failures };
        Fault {
            key: self.tasks[id].key.clone(),
            failure: Failure { exception, exception_text, traceback_text: String::new() },
            attempts: task.failures + u32::from(task.worker_deaths),
            worker: profile.name.clone(),
        }
    }

    /// Follows up on a replica that `worker` no longer has: with the last one the result is lost.
    pub(super) fn replica_was_dropped(&mut self, id: TaskId, worker: WorkerId) {
        let task = &self.tasks[id];
        if !task.holders().is_empty() {
            return;
        }
        let (actor, needed, scattered) = (task.actor, task.is_needed(), task.run_spec.is_none());
        self.count_loss(id);
        self.transition(id, TaskState::Released);
        if actor && needed {
            // Its state is gone with it, so running it again would not bring back the same.
            let profile = &self.workers[&worker].profile;
            let text = format!(
                "the actor was lost with its worker {}, and what it knew cannot be computed again; an edit of the collection's \
                 source or Client.retry makes a new one",
                profile.name
            );
            let key = self.tasks[id].key.clone();
            let fault = fault_without_run(key, Exception::ActorLost { worker: profile.address.clone() }, text);
            return self.fail(id, Blame::Own(fault));
        }
        if scattered {
            // Nothing can be done for their futures.
            for client in self.clients_that_want(id) {
                self.cancel_lost(client, self.tasks[id].key.clone());
                self.unwant(id, Owner::Client(client));
            }
        }
        self.announce_loss(id);
    }

    /// Tells of scattered data that is on no worker any more.
    pub(super) fn cancel_lost(&mut self, client: ClientId, key: TaskKey) {
        let reason = "it was scattered, and its workers are gone".to_owned();
        self.out.push(Instruction::CancelledKeys { client, keys: vec![key], reason });
    }

    pub(super) fn announce_loss(&mut self, id: TaskId) {
        for client in self.clients_that_want(id) {
            self.out.push(Instruction::LostData { client, key: self.tasks[id].key.clone() });
        }
    }

    fn count_loss(&mut self, id: TaskId) {
        for owner in self.tasks[id].wanted_by.clone() {
            if let Owner::Collection(collection) = owner
                && let Some(collection) = self.collections.get_mut(&collection)
            {
                collection.losses += 1;
            }
        }
    }

    /// Follows up on what a worker can take having changed.
    pub(super) fn worker_capacity_changed(&mut self, id: WorkerId) {
        let flipped = self.requirements.worker_changed(id, &self.workers[&id]);
        self.reindex(id);
        self.unsettle_queues(&flipped);
        self.consider_all_copies();
        self.changed.extend(self.collections.keys());
    }

    /// Before a worker goes: nothing may be placed there any more.
    fn close_to_tasks(&mut self, id: WorkerId) {
        let flipped = self.requirements.worker_left(id);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.status = WorkerStatus::Closing;
        }
        self.reindex(id);
        self.unsettle_queues(&flipped);
        self.consider_all_copies();
        self.changed.extend(self.collections.keys());
    }

    /// Tasks in these queues have workers now and had none, or the reverse.
    fn unsettle_queues(&mut self, flipped: &[RequirementId]) {
        for requirement in flipped {
            self.unsettled.extend(self.requirements.ready(*requirement).iter());
        }
    }
}
