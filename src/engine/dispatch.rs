//! Gives ready tasks to workers with room.
//!
//! Tasks are placed late: a worker is given about as many as it has threads, the others stay in the queue of their
//! requirement, where a change of priority or a new worker counts at once. So at each moment the most urgent task that
//! fits goes first. The one exception: a task may stand in a short queue on a worker that holds its data, where that is
//! quicker than fetching the data elsewhere; never more than `local_backlog` of them. And what a user gave a lower priority
//! takes no slot from what has a higher one: the worker gets both, and starts the more urgent first.
//!
//! A task that finds no worker with enough of a resource has one kept free for it: otherwise a stream of less urgent tasks
//! that take less would get each amount that becomes free, and it would wait for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::dask::Priority;
use crate::engine::placement::Candidate;
use crate::engine::requirement_table::RequirementId;
use crate::engine::task::{Run, Task, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{Engine, Instruction, RunId, WorkerId};

/// How many of the least loaded workers are compared for a task.
const CANDIDATES_MAX: usize = 20;
/// A result of more tasks than this is made of what comes from everywhere.
const FAMILY_MAX: usize = 32;
/// How many tasks a thread may be given beyond its slots to go before less urgent ones: enough to last until more are sent.
const MORE_URGENT_MAX: u32 = 16;
/// What fetching costs however little it is: a worker that holds the inputs is better than one that does not.
const TRANSFER_LATENCY_US: u64 = 2_000;
/// Longer estimates are as good as this one; sums of a million of them do not overflow.
const TRANSFER_US_MAX: u64 = 1_000_000_000_000;

/// Workers that are kept free for a task that waits for resources, with what it asks.
type Reserved = BTreeMap<WorkerId, RequirementId>;

/// Some of a task's inputs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inputs {
    count: usize,
    nbytes: u64,
}

impl Inputs {
    fn of<'a>(tasks: impl Iterator<Item = &'a Task>) -> Self {
        let mut inputs = Self::default();
        tasks.for_each(|task| inputs.add(task));
        inputs
    }

    fn add(&mut self, task: &Task) {
        self.count += 1;
        self.nbytes += task.nbytes();
    }

    fn without(self, other: Self) -> Self {
        Self { count: self.count - other.count, nbytes: self.nbytes - other.nbytes }
    }
}

impl Engine {
    /// Places ready tasks, the most urgent first, until no worker has room for the first of any queue.
    pub(super) fn dispatch(&mut self) {
        let mut heads: BTreeSet<(Priority, TaskId, RequirementId)> = BTreeSet::new();
        for requirement in self.requirements.ids().filter(|id| self.requirements.has_workers(*id)) {
            heads.extend(self.requirements.most_urgent(requirement).map(|(priority, task)| (priority, task, requirement)));
        }
        let mut reserved = Reserved::new();
        while let Some((_, task, requirement)) = heads.pop_first() {
            // A queue whose first task does not fit anywhere waits: nothing that is placed meanwhile makes room.
            if let Some(worker) = self.choose_worker(task, &reserved) {
                self.assign(task, worker);
                heads.extend(self.requirements.most_urgent(requirement).map(|(priority, task)| (priority, task, requirement)));
            } else if let Some(worker) = self.worker_to_reserve(requirement, &reserved) {
                reserved.insert(worker, requirement);
            }
        }
    }

    /// The worker that comes nearest to having the resources free; none if one has them, and only lacks a thread.
    fn worker_to_reserve(&self, requirement: RequirementId, reserved: &Reserved) -> Option<WorkerId> {
        let resources = &self.requirements.get(requirement).resources;
        let eligible = self.requirements.eligible(requirement);
        if resources.is_empty() || eligible.iter().any(|worker| self.workers[worker].has_free(resources)) {
            return None;
        }
        let free = eligible.iter().filter(|worker| !reserved.contains_key(worker));
        free.copied().min_by_key(|worker| (self.workers[worker].lacks(resources), self.tie_break(*worker)))
    }

    fn choose_worker(&self, id: TaskId, reserved: &Reserved) -> Option<WorkerId> {
        if self.tasks[id].actor {
            return self.choose_worker_of_actor(id, reserved);
        }
        let local = self.local_data(id);
        let total = Inputs::of(self.tasks[id].dependencies.iter().map(|dependency| &self.tasks[*dependency]));
        let siblings = if self.fills_all_threads(id) { self.siblings(id) } else { BTreeMap::new() };
        let holders = local.keys().copied().filter(|worker| self.fits(id, *worker, reserved));
        let open =
            self.open.iter().map(|(_, _, worker)| *worker).filter(|worker| self.fits(id, *worker, reserved)).take(CANDIDATES_MAX);
        let ranked = open.chain(holders).filter_map(|worker_id| {
            let worker = &self.workers[&worker_id];
            if !self.has_slot(worker) && !self.may_queue_on(id, worker) {
                return None;
            }
            let missing = total.without(local.get(&worker_id).copied().unwrap_or_default());
            let candidate =
                Candidate { has_slot: self.has_slot(worker), wait_us: worker.wait_us(), transfer_us: self.transfer_us(missing) };
            let cost = self.config.placement.cost(&candidate)?;
            let related = if worker.in_flight() < worker.profile.nthreads { siblings.get(&worker_id).copied() } else { None };
            let most_siblings = Reverse(related.unwrap_or_default());
            Some((cost, most_siblings, worker.load(), worker.nbytes, self.tie_break(worker_id), worker_id))
        });
        ranked.min().map(|(.., worker)| worker).or_else(|| self.worker_with_less_urgent(id, reserved))
    }

    /// A worker that was given a task of a lower priority of the user's and may not have started it. It gets this one as
    /// well, and starts it first, since workers order what they have.
    fn worker_with_less_urgent(&self, id: TaskId, reserved: &Reserved) -> Option<WorkerId> {
        let user = self.tasks[id].priority.user;
        // Mostly all priorities are the same, and there is nothing to look for.
        if user <= self.lowest_user_priority {
            return None;
        }
        let may_go_first = |worker: &Worker| {
            let runs = || worker.processing.iter().filter_map(|other| Some((&self.tasks[*other], self.tasks[*other].run()?)));
            let ahead = runs().filter(|(other, run)| other.priority.user >= user && !run.seceded).count() as u32;
            let ahead_max = worker.slots(self.config.worker_saturation).saturating_add(MORE_URGENT_MAX * worker.profile.nthreads);
            ahead < ahead_max && runs().any(|(other, run)| other.priority.user < user && !run.executing && !run.seceded)
        };
        let eligible = self.requirements.eligible(self.tasks[id].requirement).iter().copied();
        let found = eligible.filter(|worker| self.fits(id, *worker, reserved) && may_go_first(&self.workers[worker]));
        found.min_by_key(|worker| (self.workers[worker].load(), self.tie_break(*worker)))
    }

    /// Whether the queue of a task has work for every free thread, so that it matters which worker gets which task, but
    /// nobody goes without.
    fn fills_all_threads(&self, id: TaskId) -> bool {
        let open = self.open.iter().take(CANDIDATES_MAX).map(|(_, _, worker)| &self.workers[worker]);
        let free_threads: u32 = open.map(|worker| worker.profile.nthreads.saturating_sub(worker.in_flight())).sum();
        self.requirements.ready(self.tasks[id].requirement).len() >= free_threads as usize
    }

    /// How many tasks that go into the same result as this one each worker runs or holds. Only for a task that reads
    /// nothing: others go where their inputs are.
    fn siblings(&self, id: TaskId) -> BTreeMap<WorkerId, usize> {
        let mut siblings: BTreeMap<WorkerId, usize> = BTreeMap::new();
        let task = &self.tasks[id];
        let reader = task.dependents.first().map(|reader| &self.tasks[*reader].dependencies);
        let Some(family) = reader.filter(|family| task.dependencies.is_empty() && family.len() <= FAMILY_MAX) else {
            return siblings;
        };
        for sibling in family.iter().map(|sibling| &self.tasks[*sibling]) {
            for worker in sibling.run().map(|run| run.worker).iter().chain(sibling.holders()) {
                *siblings.entry(*worker).or_default() += 1;
            }
        }
        siblings
    }

    /// Actors stay for good, so they are spread, and wait for no slot.
    fn choose_worker_of_actor(&self, id: TaskId, reserved: &Reserved) -> Option<WorkerId> {
        let eligible = self.requirements.eligible(self.tasks[id].requirement).iter().copied();
        eligible.filter(|worker| self.fits(id, *worker, reserved)).min_by_key(|worker_id| {
            let worker = &self.workers[worker_id];
            (worker.actors, worker.load(), self.tie_break(*worker_id))
        })
    }

    /// Whether a worker may run a task, and has what the task takes apart from a slot.
    fn fits(&self, id: TaskId, worker: WorkerId, reserved: &Reserved) -> bool {
        let eligible = self.requirements.eligible(self.tasks[id].requirement);
        let requirement = self.requirements.get(self.tasks[id].requirement);
        let kept_for = reserved.get(&worker).map(|head| &self.requirements.get(*head).resources);
        eligible.contains(&worker)
            && self.workers[&worker].has_room_for(requirement)
            && kept_for.is_none_or(|kept| !kept.overlaps(&requirement.resources))
    }

    fn has_slot(&self, worker: &Worker) -> bool {
        worker.in_flight() < worker.slots(self.config.worker_saturation)
    }

    /// Whether a task may wait on a worker that holds its data. What reads data in waits here: on a worker it would only
    /// be ahead of more urgent work to come.
    fn may_queue_on(&self, id: TaskId, worker: &Worker) -> bool {
        let local_backlog = worker.profile.nthreads;
        let task = &self.tasks[id];
        !task.data_producer
            && !task.dependencies.is_empty()
            && worker.in_flight() < worker.slots(self.config.worker_saturation).saturating_add(local_backlog)
    }

    /// How long a worker fetches what it does not hold.
    pub(super) fn transfer_us(&self, missing: Inputs) -> u64 {
        let latency_us = if missing.count == 0 { 0 } else { TRANSFER_LATENCY_US };
        let transfer_us = (missing.nbytes as f64 * 1e6 / self.bandwidth) as u64;
        latency_us + transfer_us.min(TRANSFER_US_MAX)
    }

    /// What each worker holds of a task's dependencies.
    fn local_data(&self, id: TaskId) -> BTreeMap<WorkerId, Inputs> {
        let mut local: BTreeMap<WorkerId, Inputs> = BTreeMap::new();
        for dependency in &self.tasks[id].dependencies {
            let task = &self.tasks[*dependency];
            for holder in task.holders() {
                local.entry(*holder).or_default().add(task);
            }
        }
        local
    }

    /// What a worker would have to fetch for a task.
    pub(super) fn missing_data(&self, id: TaskId, worker: WorkerId) -> Inputs {
        let dependencies = self.tasks[id].dependencies.iter().map(|dependency| &self.tasks[*dependency]);
        Inputs::of(dependencies.filter(|dependency| !dependency.holders().contains(&worker)))
    }

    fn assign(&mut self, id: TaskId, worker: WorkerId) {
        self.runs += 1;
        let run_id = RunId((u64::from(self.config.epoch) << 32) + self.runs);
        let task = &self.tasks[id];
        let expected_us = self.prefixes.expected_us(task.prefix) + self.transfer_us(self.missing_data(id, worker));
        let run =
            Run { worker, run_id, since: self.now, expected_us, requirement: task.requirement, seceded: false, executing: false };
        self.transition(id, TaskState::Processing(run));
        self.out.push(Instruction::ComputeTask { worker, task: id, run_id });
    }
}
