//! What can be seen of an engine from outside.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::dask::{Priority, RunSpec, TaskKey, WorkerAddress};
use crate::engine::collection::Collection;
use crate::engine::requirement_table::{Requirement, RequirementId};
use crate::engine::task::Fault;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{
    CollectionId, Engine, Failure, FailureSummary, OutputSummary, ReplicaSummary, Requirements, Resources, RetrySummary, Stats,
    StoryEntry, Summary, Unrunnable, WorkerId, WorkerProfile, WorkerShare, WorkerStatus,
};

/// How many workers and failures a summary lists.
const SUMMARY_WORKERS_MAX: usize = 16;
const SUMMARY_FAILURES_MAX: usize = 10;
/// How many tasks with failed runs a summary lists. The others count anew after a restart.
const SUMMARY_RETRIED_MAX: usize = 64;

/// A worker as it is.
#[derive(Clone, Copy, Debug)]
pub struct WorkerView<'a> {
    pub id: WorkerId,
    pub profile: &'a WorkerProfile,
    pub status: WorkerStatus,
    /// It runs tasks at all: it does not only make graphs, is heard of, and will stay.
    pub takes_tasks: bool,
    /// The sum of the results that it holds.
    pub nbytes: u64,
    /// What its process takes, by its own account.
    pub memory: u64,
    pub processing: usize,
    /// What its tasks take, those included that it was told to drop and that may still run.
    pub used: &'a Resources,
    /// How long its runs are expected to take.
    pub occupancy_ms: u64,
}

impl Engine {
    /// What there is to say of a collection.
    pub fn summary(&self, id: CollectionId) -> Option<Summary> {
        let collection = self.collections.get(&id)?;
        let mut outputs: Vec<OutputSummary> =
            collection.outputs.iter().map(|output| self.summarise_output(&output.name, &output.keys)).collect();
        let mut tasks = collection.task_counts();
        self.count_arriving(id, &mut tasks, &mut outputs);
        let own = own_requirement(&collection.requirements);
        let running = || self.workers.values().filter(|worker| worker.takes_tasks());
        Some(Summary {
            tasks,
            retries: RetrySummary {
                limit: collection.requirements.retries,
                used: collection.retries_used,
                exhausted: self.runs_exhausted(collection),
                worker_lost: collection.worker_lost,
                tasks: self.summarise_retried(collection),
            },
            user_priority: collection.requirements.priority,
            generation: collection.generation,
            position: self.position(id),
            nbytes: outputs.iter().map(|output| output.nbytes).sum(),
            outputs,
            workers: self.summarise_shares(collection),
            workers_total: collection.shares.len(),
            failures: self.summarise_failures(collection),
            workers_matching: running()
                .filter(|worker| is_selected(&own, worker) && worker.profile.resources.covers(&own.resources))
                .count(),
            workers_running: running().count(),
            workers_silent: self
                .silent
                .iter()
                .take(SUMMARY_WORKERS_MAX)
                .map(|id| self.workers[id].profile.name.clone())
                .collect(),
            unrunnable: self.summarise_unrunnable(id),
            losses: collection.losses,
            replicas: self.summarise_replicas(collection),
            unmatched_overrides: collection.unmatched_overrides.clone(),
        })
    }

    /// How many tasks failed by running, and not because they were refused.
    fn runs_exhausted(&self, collection: &Collection) -> u64 {
        let faults = collection.failed.iter().filter_map(|id| self.tasks[id].blame());
        faults.filter(|blame| blame.fault().attempts > 0).count() as u64
    }

    fn summarise_retried(&self, collection: &Collection) -> Vec<(TaskKey, u32)> {
        let retried = collection.retried.iter().map(|id| (self.tasks[id].key.clone(), self.tasks[id].failures));
        retried.take(SUMMARY_RETRIED_MAX).collect()
    }

    fn summarise_output(&self, name: &str, keys: &[TaskId]) -> OutputSummary {
        let mut summary = OutputSummary { name: name.to_owned(), keys: keys.len() as u64, ..OutputSummary::default() };
        for id in keys {
            let task = &self.tasks[*id];
            summary.erred += u64::from(task.blame().is_some());
            if let Some(replicas) = task.replicas() {
                summary.in_memory += 1;
                summary.nbytes += replicas.nbytes;
            }
        }
        summary
    }

    fn summarise_replicas(&self, collection: &Collection) -> Option<ReplicaSummary> {
        let wanted = collection.requirements.replicas;
        if wanted <= 1 {
            return None;
        }
        let own = own_requirement(&collection.requirements);
        let may_hold = |worker: &&Worker| worker.takes_tasks() && (own.allow_other_workers || is_selected(&own, worker));
        let workers = self.workers.values().filter(may_hold).count() as u64;
        let mut summary = ReplicaSummary { wanted, least: wanted, short: 0, workers };
        let results = collection.outputs.iter().flat_map(|output| &output.keys).map(|id| &self.tasks[*id]);
        for task in results.filter(|task| task.replicas().is_some() && !task.actor) {
            let copies = task.holders().iter().filter(|holder| self.workers[*holder].lasts()).count() as u32;
            summary.least = summary.least.min(copies);
            summary.short += u64::from(copies < wanted);
        }
        Some(summary)
    }

    fn summarise_shares(&self, collection: &Collection) -> Vec<WorkerShare> {
        let mut shares: Vec<(WorkerId, u64, u64)> =
            collection.shares.iter().map(|(worker, share)| (*worker, share.tasks, share.nbytes)).collect();
        shares.sort_by_key(|(worker, tasks, nbytes)| (std::cmp::Reverse((*tasks, *nbytes)), *worker));
        let listed = shares.into_iter().take(SUMMARY_WORKERS_MAX).filter_map(|(worker, tasks, nbytes)| {
            let profile = &self.workers.get(&worker)?.profile;
            let (address, name, pod) = (profile.address.clone(), profile.name.clone(), profile.pod.clone());
            Some(WorkerShare { address, name, pod, tasks, nbytes })
        });
        listed.collect()
    }

    /// The tasks that failed themselves; if there are none, those of others that failed the outputs.
    fn summarise_failures(&self, collection: &Collection) -> Vec<FailureSummary> {
        let fault = |id: TaskId| Some(&**self.tasks[id].blame()?.fault());
        if !collection.failed.is_empty() {
            return collection.failed.iter().filter_map(fault).map(summarise_failure).take(SUMMARY_FAILURES_MAX).collect();
        }
        let outputs = collection.outputs.iter().flat_map(|output| &output.keys).copied();
        let mut seen = BTreeSet::new();
        let faults = outputs.filter_map(fault).filter(|fault| seen.insert(&fault.key)).map(summarise_failure);
        faults.take(SUMMARY_FAILURES_MAX).collect()
    }

    /// The requirement that holds back most of a collection's tasks.
    fn summarise_unrunnable(&self, collection: CollectionId) -> Option<Unrunnable> {
        let stuck = self.requirements.ids().filter(|id| !self.requirements.has_workers(*id)).filter_map(|id| {
            let mut tasks = self.stuck_tasks(id, collection).peekable();
            let example = *tasks.peek()?;
            Some((id, example, tasks.count() as u64))
        });
        let (id, example, tasks) = stuck.max_by_key(|(id, _, tasks)| (*tasks, std::cmp::Reverse(*id)))?;
        let requirement = self.requirements.get(id);
        let running: Vec<&Worker> = self.workers.values().filter(|worker| worker.takes_tasks()).collect();
        let selected: Vec<&Worker> = running
            .iter()
            .filter(|worker| requirement.allow_other_workers || is_selected(requirement, worker))
            .copied()
            .collect();
        Some(Unrunnable {
            tasks,
            example: self.tasks[example].key.clone(),
            workers: requirement.workers.clone().filter(|_| !requirement.allow_other_workers),
            resources: requirement.resources.clone(),
            workers_selected: selected.len(),
            nearest: nearest(&requirement.resources, if selected.is_empty() { &running } else { &selected }),
            workers_running: running.len(),
        })
    }

    fn stuck_tasks(&self, requirement: RequirementId, collection: CollectionId) -> impl Iterator<Item = TaskId> {
        let ready = self.requirements.ready(requirement).iter();
        ready.filter(move |task| self.tasks[*task].member_of.contains(&collection))
    }

    /// Where the replicas of a key are; those on silent workers only if there are no others.
    pub fn who_has(&self, key: &TaskKey) -> Vec<WorkerAddress> {
        let Some(id) = self.tasks.id(key) else { return Vec::new() };
        let speaking = self.speaking_holders(id);
        self.addresses(if speaking.is_empty() { self.tasks[id].holders() } else { &speaking })
    }

    pub(super) fn addresses(&self, workers: &[WorkerId]) -> Vec<WorkerAddress> {
        workers.iter().filter_map(|worker| Some(self.workers.get(worker)?.profile.address.clone())).collect()
    }

    /// The keys that a worker holds.
    pub fn has_what(&self, worker: WorkerId) -> Vec<TaskKey> {
        self.keys_of(worker, |worker| worker.holds.iter().collect())
    }

    /// Whether actors live on a worker, or are about to: they cannot be moved.
    pub fn holds_actors(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|worker| {
            worker.holds.iter().any(|task| self.tasks[task].is_actor_on(id))
                || worker.processing.iter().any(|task| self.tasks[*task].actor)
        })
    }

    /// The keys that a worker was given and has not answered.
    pub fn processing(&self, worker: WorkerId) -> Vec<TaskKey> {
        self.keys_of(worker, |worker| worker.processing.iter().copied().collect())
    }

    fn keys_of(&self, worker: WorkerId, list: impl Fn(&Worker) -> Vec<TaskId>) -> Vec<TaskKey> {
        let worker = self.workers.get(&worker);
        worker.map_or_else(Vec::new, |worker| list(worker).iter().map(|id| self.tasks[*id].key.clone()).collect())
    }

    /// The size of a result in memory.
    pub fn nbytes(&self, key: &TaskKey) -> Option<u64> {
        Some(self.tasks[self.tasks.id(key)?].replicas()?.nbytes)
    }

    /// The state of a task, as Dask calls it.
    pub fn task_state(&self, key: &TaskKey) -> Option<&'static str> {
        Some(self.tasks[self.tasks.id(key)?].state_name().as_str())
    }

    /// How urgent a task is.
    pub fn priority(&self, key: &TaskKey) -> Option<Priority> {
        Some(self.tasks[self.tasks.id(key)?].priority)
    }

    /// Whether a task can be run by any worker with a slot.
    pub fn is_plain(&self, key: &TaskKey) -> bool {
        let task = self.tasks.id(key).map(|id| &self.tasks[id]);
        task.is_some_and(|task| !task.data_producer && *self.requirements.get(task.requirement) == Requirement::default())
    }

    pub fn knows(&self, key: &TaskKey) -> bool {
        self.tasks.id(key).is_some()
    }

    /// How to run a task, with what it reads in the order in which that is numbered.
    pub fn how_to_run(&self, key: &TaskKey) -> Option<(&RunSpec, Vec<&TaskKey>)> {
        let task = &self.tasks[self.tasks.id(key)?];
        Some((task.run_spec.as_ref()?, task.dependencies.iter().map(|id| &self.tasks[*id].key).collect()))
    }

    /// The task that failed by itself and so failed this one.
    pub fn blamed(&self, key: &TaskKey) -> Option<&TaskKey> {
        Some(&self.tasks[self.tasks.id(key)?].blame()?.fault().key)
    }

    /// Why a task is erred.
    pub fn failure(&self, key: &TaskKey) -> Option<&Failure> {
        Some(&self.tasks[self.tasks.id(key)?].blame()?.fault().failure)
    }

    /// The pickle of the type of a result in memory.
    pub fn type_pickle(&self, key: &TaskKey) -> Option<Bytes> {
        let replicas = self.tasks[self.tasks.id(key)?].replicas()?;
        Some(self.types.pickle(replicas.value_type))
    }

    /// What happened to a task, oldest first, as far as it is remembered.
    pub fn story(&self, key: &TaskKey) -> Vec<StoryEntry> {
        self.story.of(key, self.tasks.id(key))
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Of how many keys something was brought that nobody has asked for.
    pub fn brought(&self) -> usize {
        self.brought.len()
    }

    /// How many tasks are known.
    pub fn tasks_known(&self) -> usize {
        self.tasks.len()
    }

    /// All keys that are known, in no order that means anything.
    pub fn keys(&self) -> impl Iterator<Item = &TaskKey> {
        self.tasks.iter().map(|(_, task)| &task.key)
    }

    /// The runs that these keys, or what they wait for, are waiting for.
    pub fn runs_below(&self, keys: &[TaskKey]) -> BTreeMap<WorkerId, Vec<TaskKey>> {
        let (mut runs, mut seen) = (BTreeMap::<WorkerId, Vec<TaskKey>>::new(), TaskSet::default());
        let mut pending: Vec<TaskId> = keys.iter().filter_map(|key| self.tasks.id(key)).collect();
        while let Some(id) = pending.pop() {
            if !seen.insert(id) {
                continue;
            }
            let task = &self.tasks[id];
            match task.run() {
                Some(run) => runs.entry(run.worker).or_default().push(task.key.clone()),
                None if task.replicas().is_none() => pending.extend(task.dependencies.iter()),
                None => {}
            }
        }
        runs
    }

    /// Whether replicas that nobody needs stay, as a Client has asked for.
    pub fn keeps_replicas(&self) -> bool {
        self.keeps_replicas
    }

    /// Whether a task is an actor.
    pub fn is_actor(&self, key: &TaskKey) -> bool {
        self.tasks.id(key).is_some_and(|id| self.tasks[id].actor)
    }

    pub fn worker(&self, worker: WorkerId) -> Option<WorkerView<'_>> {
        self.workers.get(&worker).map(|found| view(worker, found))
    }

    /// All workers, in the order they joined.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers.iter().map(|(id, worker)| view(*id, worker))
    }

    /// The collections that have something on a worker.
    pub fn collections_on(&self, worker: WorkerId) -> impl Iterator<Item = CollectionId> {
        self.collections.iter().filter(move |(_, collection)| collection.shares.contains_key(&worker)).map(|(id, _)| *id)
    }

    /// How many workers take tasks.
    pub fn workers_running(&self) -> usize {
        self.workers.values().filter(|worker| worker.takes_tasks()).count()
    }

    /// The worker to build on: one reserved for it, else one where the tasks may run; the least busy of them.
    pub fn choose_builder(&self, requirements: &Requirements) -> Option<WorkerId> {
        self.choose_among(WorkerStatus::Running, requirements)
    }

    /// The worker to lower a Client's graph on. One that takes no tasks for now is better than none: the tasks are known
    /// then, and wait in their order.
    pub fn choose_lowerer(&self) -> Option<WorkerId> {
        let anywhere = Requirements::default();
        self.choose_builder(&anywhere).or_else(|| self.choose_among(WorkerStatus::Paused, &anywhere))
    }

    fn choose_among(&self, status: WorkerStatus, requirements: &Requirements) -> Option<WorkerId> {
        let own = own_requirement(requirements);
        let running =
            self.workers.iter().filter(|(_, worker)| worker.status == status && !worker.is_silent() && !worker.is_leaving);
        let rank = |worker: &Worker| match () {
            () if worker.profile.builder => Some(0),
            () if is_selected(&own, worker) => Some(1),
            () => own.allow_other_workers.then_some(2),
        };
        let ranked = running.filter_map(|(id, worker)| Some((rank(worker)?, worker.load(), self.tie_break(*id), *id)));
        ranked.min().map(|(_, _, _, id)| id)
    }
}

fn summarise_failure(fault: &Fault) -> FailureSummary {
    FailureSummary {
        key: fault.key.clone(),
        exception_text: fault.failure.exception_text.clone(),
        traceback_text: fault.failure.traceback_text.clone(),
        attempts: fault.attempts,
        worker: fault.worker.clone(),
    }
}

fn view(id: WorkerId, worker: &Worker) -> WorkerView<'_> {
    WorkerView {
        id,
        profile: &worker.profile,
        status: worker.status,
        takes_tasks: worker.takes_tasks(),
        nbytes: worker.nbytes,
        memory: worker.memory,
        processing: worker.processing.len(),
        used: &worker.used,
        occupancy_ms: worker.occupancy_us / 1000,
    }
}

/// What a collection asks for when a task says nothing of its own.
fn own_requirement(requirements: &Requirements) -> Requirement {
    Requirement {
        workers: requirements.workers.clone(),
        allow_other_workers: requirements.allow_other_workers,
        resources: requirements.resources.clone(),
        ..Requirement::default()
    }
}

fn is_selected(requirement: &Requirement, worker: &Worker) -> bool {
    requirement.workers.as_ref().is_none_or(|selector| selector.matches(&worker.profile))
}

/// The first resource that no worker has enough of, and who has most of it.
fn nearest(needed: &Resources, workers: &[&Worker]) -> Option<(String, String, crate::engine::Amount)> {
    let (name, _) =
        needed.iter().find(|(name, amount)| !workers.iter().any(|worker| worker.profile.resources.get(name) >= *amount))?;
    let amount = |worker: &&&Worker| worker.profile.resources.get(name);
    // Of equals the first that joined.
    let best = workers.iter().rev().max_by_key(amount)?;
    Some((name.to_owned(), best.profile.name.clone(), best.profile.resources.get(name)))
}
