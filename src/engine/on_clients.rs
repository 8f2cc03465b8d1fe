//! Clients ask for keys and let go of them.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::dask::TaskKey;
use crate::engine::arrival::Wishes;
use crate::engine::departure::Departing;
use crate::engine::intake::Intake;
use crate::engine::on_tasks::NBYTES_MAX;
use crate::engine::owner::Owner;
use crate::engine::requirement_table::Requirement;
use crate::engine::task::{Blame, Replicas, StateName, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::{ClientId, Engine, Graph, Instruction, Requirements, WorkerId, WorkerSelector};

/// A graph that a task submits runs before others of its parent's priority.
const SUBMITTED_BY_TASK: f64 = 0.01;

impl Engine {
    pub(super) fn on_update_graph(
        &mut self,
        client: ClientId,
        graph: Graph,
        wanted: &[u32],
        requirements: Requirements,
        submitting_task: Option<&TaskKey>,
    ) {
        self.complete_arrivals_of(Owner::Client(client));
        self.forget_all();
        let parent = submitting_task.and_then(|key| self.tasks.id(key));
        let generation = match parent {
            // Sic: the first element of the parent's priority, which is the user's. Source: distributed 2026.8.0,
            // scheduler.py: `_set_priorities`.
            Some(parent) => -self.tasks[parent].priority.user - SUBMITTED_BY_TASK,
            None => {
                let place = self.generations.take_place(self.now, requirements.fifo_timeout_ms);
                self.generations.number(place) as f64
            }
        };
        let intake = Intake::new(Owner::Client(client), requirements, generation, graph);
        self.complete_arrivals_before(&intake);
        let by_parts = self.is_large(&intake);
        let wishes = Wishes::of_client(client, wanted, &intake);
        self.arrive(intake, wishes, by_parts);
    }

    pub(super) fn on_client_desires_keys(&mut self, client: ClientId, keys: &[TaskKey]) {
        self.complete_arrivals_of(Owner::Client(client));
        self.desire_keys(client, keys);
    }

    pub(super) fn desire_keys(&mut self, client: ClientId, keys: &[TaskKey]) {
        self.complete_arrivals_with(keys);
        let mut unknown = Vec::new();
        for key in keys {
            match self.tasks.id(key) {
                Some(id) => {
                    self.want(id, Owner::Client(client));
                    self.announce_to(id, client);
                }
                None => unknown.push(key.clone()),
            }
        }
        if !unknown.is_empty() {
            let reason = "lost dependencies: the scheduler does not know these keys".to_owned();
            self.out.push(Instruction::CancelledKeys { client, keys: unknown, reason });
        }
    }

    pub(super) fn on_client_releases_keys(&mut self, client: ClientId, keys: Vec<TaskKey>) {
        self.complete_arrivals_of(Owner::Client(client));
        self.depart(client, Departing::Keys(keys.into_iter()));
    }

    pub(super) fn on_client_left(&mut self, client: ClientId) {
        self.complete_arrivals_of(Owner::Client(client));
        self.depart(client, Departing::All);
    }

    /// Cancels keys and what depends on them, for this Client where others want them too, with `force` for all Clients.
    /// A collection's wishes stay.
    pub(super) fn on_cancel_keys(&mut self, client: ClientId, keys: &[TaskKey], force: bool) {
        // What is wanted of a graph is not kept until all of it is there: here others may let go of it.
        self.complete_arrivals();
        let mut seen = BTreeSet::new();
        let mut pending: Vec<TaskId> = keys.iter().rev().filter_map(|key| self.tasks.id(key)).collect();
        let mut cancelled: BTreeMap<ClientId, Vec<TaskKey>> = BTreeMap::new();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            pending.extend(self.tasks[id].dependents.to_list().into_iter().rev());
            let clients = self.clients_that_want(id);
            let is_alone = self.tasks[id].wanted_by.iter().all(|owner| *owner == Owner::Client(client));
            for wanting in clients {
                if force || (wanting == client && is_alone) {
                    cancelled.entry(wanting).or_default().push(self.tasks[id].key.clone());
                    self.unwant(id, Owner::Client(wanting));
                }
            }
        }
        for (client, keys) in cancelled {
            self.out.push(Instruction::CancelledKeys { client, keys, reason: "cancelled by a client".to_owned() });
        }
    }

    /// Gives failed tasks another try: what failed by itself at the root of each key, and then all that it had failed.
    pub(super) fn on_retry_keys(&mut self, keys: &[TaskKey]) {
        self.complete_arrivals_with(keys);
        let mut seen = BTreeSet::new();
        let mut pending: Vec<TaskId> = keys.iter().rev().filter_map(|key| self.tasks.id(key)).collect();
        while let Some(id) = pending.pop() {
            if seen.insert(id) && self.tasks[id].blame().is_some() {
                pending.extend(self.tasks[id].dependencies.iter().rev());
                self.retry(id);
            }
        }
    }

    /// Another try for a task that failed itself and can be run; what it had failed follows by the rules.
    pub(super) fn retry(&mut self, id: TaskId) {
        if let Some(Blame::Own(_)) = self.tasks[id].blame()
            && self.tasks[id].run_spec.is_some()
        {
            self.tasks[id].worker_deaths = 0;
            self.release(id);
        }
    }

    /// Another try, with all retries.
    pub(super) fn retry_afresh(&mut self, id: TaskId) {
        if self.tasks[id].blame().is_some() {
            self.tasks[id].failures = 0;
            self.count_in_collections(id, |collection| _ = collection.retried.remove(id));
            self.retry(id);
        }
    }

    /// Has tasks run on these workers alone from here on; what runs already goes on. Of those that are declared, it is
    /// declared where they run.
    pub(super) fn on_restrict_tasks(&mut self, tasks: Vec<(TaskKey, Option<WorkerSelector>)>) {
        for (key, workers) in tasks {
            let Some(id) = self.tasks.id(&key).filter(|id| self.tasks[*id].member_of.is_empty()) else {
                self.ignore();
                continue;
            };
            let old = self.requirements.get(self.tasks[id].requirement);
            let restricted = Requirement { workers, ..old.clone() };
            self.set_requirement(id, &restricted);
        }
    }

    pub(super) fn on_data_scattered(&mut self, client: ClientId, key: &TaskKey, nbytes: u64, workers: &[WorkerId]) {
        self.complete_arrivals_of(Owner::Client(client));
        let holders: SmallVec<[WorkerId; 4]> = workers.iter().copied().filter(|id| self.workers.contains_key(id)).collect();
        if holders.is_empty() {
            self.ignore();
            return self.cancel_lost(client, key.clone());
        }
        let Some(id) = self.record_scattered(key, client) else { return self.ignore() };
        match self.tasks[id].state() {
            TaskState::Memory(_) => {
                for holder in holders {
                    if !self.tasks[id].holders().contains(&holder) {
                        self.add_replica(id, holder);
                    }
                }
            }
            // The run under way will say what the value is.
            TaskState::Processing(run) => {
                let runs_on = run.worker;
                for holder in holders.into_iter().filter(|holder| *holder != runs_on) {
                    self.free(holder, key.clone());
                }
            }
            TaskState::Released | TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Erred(_) => {
                if self.tasks[id].state_name() != StateName::Released {
                    self.release(id);
                }
                let value_type = self.types.intern(&[]);
                let nbytes = nbytes.min(NBYTES_MAX);
                self.transition(id, TaskState::Memory(Replicas::new(holders, nbytes, value_type)));
            }
        }
        self.want(id, Owner::Client(client));
        self.announce(id);
    }

    /// Notes that somebody wants the result of a task itself.
    pub(super) fn want(&mut self, id: TaskId, owner: Owner) {
        let task = &mut self.tasks[id];
        if !task.wanted_by.contains(&owner) {
            task.wanted_by.push(owner);
            self.unsettled.push_back(id);
        }
        match owner {
            Owner::Client(client) => _ = self.clients.entry(client).or_default().insert(id),
            Owner::Collection(_) => {
                self.index_replicated(id);
                self.consider_copies(id);
            }
        }
    }

    pub(super) fn unwant(&mut self, id: TaskId, owner: Owner) {
        let task = &mut self.tasks[id];
        task.wanted_by.retain(|wanting| *wanting != owner);
        self.unsettled.push_back(id);
        match owner {
            Owner::Client(client) => {
                if let Some(wants) = self.clients.get_mut(&client) {
                    wants.remove(id);
                }
            }
            Owner::Collection(_) => self.index_replicated(id),
        }
    }

    pub(super) fn clients_that_want(&self, id: TaskId) -> Vec<ClientId> {
        let clients = self.tasks[id].wanted_by.iter().filter_map(|owner| match owner {
            Owner::Client(client) => Some(*client),
            Owner::Collection(_) => None,
        });
        clients.collect()
    }
}
