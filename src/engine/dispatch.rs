//! Gives ready tasks to workers with room.
//!
//! Tasks are placed late: a worker is given about as many as it has threads, the others stay in the queue of their
//! requirement, where a change of priority or a new worker counts at once. So at each moment the most urgent task that
//! fits goes first. The one exception: a task may stand in a short queue on a worker that holds its data, where that is
//! quicker than fetching the data elsewhere; never more than `local_backlog` of them. And what a user gave a lower priority
//! takes no slot from what has a higher one: the worker gets both, and starts the more urgent first.
//!
//! Short tasks are placed ahead, as many as take a few milliseconds. Each message costs a worker more than a task in it, so it
//! is told in batches: when it runs low of what it was told of, not each time that a run ends.
//!
//! A task that finds no worker with enough of a resource has one kept free for it: otherwise a stream of less urgent tasks
//! that take less would get each amount that becomes free, and it would wait for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use smallvec::SmallVec;

use crate::dask::Priority;
use crate::engine::placement::Candidate;
use crate::engine::requirement_table::{RequirementId, RequirementTable};
use crate::engine::task::{Run, Task, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::worker::{Rank, Worker};
use crate::engine::{Engine, Instruction, RunId, WorkerId};

/// With so many times fewer workers than are open, those that a task may run on are looked at instead of the open ones.
const SELECTIVE: usize = 4;
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

/// Something of each of a few workers.
type ByWorker<T> = SmallVec<[(WorkerId, T); 8]>;

fn entry<T: Default>(by_worker: &mut ByWorker<T>, worker: WorkerId) -> &mut T {
    let place = by_worker.iter().position(|(other, _)| *other == worker).unwrap_or_else(|| {
        by_worker.push((worker, T::default()));
        by_worker.len() - 1
    });
    &mut by_worker[place].1
}

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
        self.index_workers();
        if self.holds {
            return;
        }
        let head = |requirements: &RequirementTable, id| {
            requirements.most_urgent(id).map(|(priority, task)| Reverse((priority, task, id)))
        };
        let mut heads: BinaryHeap<Reverse<(Priority, TaskId, RequirementId)>> = BinaryHeap::new();
        for requirement in self.requirements.with_ready().filter(|id| self.requirements.has_workers(*id)) {
            heads.extend(head(&self.requirements, requirement));
        }
        let (mut reserved, mut given) = (Reserved::new(), SmallVec::<[WorkerId; 8]>::new());
        while let Some(Reverse((_, task, requirement))) = heads.pop() {
            // A queue whose first task does not fit anywhere waits: nothing that is placed meanwhile makes room.
            if let Some(worker) = self.choose_worker(task, &reserved) {
                self.assign(task, worker);
                self.index_workers();
                if given.last() != Some(&worker) {
                    given.push(worker);
                }
                heads.extend(head(&self.requirements, requirement));
            } else if let Some(worker) = self.worker_to_reserve(requirement, &reserved) {
                reserved.insert(worker, requirement);
            }
        }
        given.into_iter().for_each(|worker| self.end_feeding(worker));
    }

    /// A worker was given what there was; unless that is little, what is ready later waits until it runs low again.
    fn end_feeding(&mut self, id: WorkerId) {
        let worker = &mut self.workers[&id];
        if worker.is_being_fed && !worker.runs_low() {
            worker.is_being_fed = false;
            self.reindex(id);
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
        let task = &self.tasks[id];
        if task.actor {
            return self.choose_worker_of_actor(id, reserved);
        }
        let first = self.first_open(id, reserved);
        let chosen = if !task.dependencies.is_empty() {
            self.nearest(id, first, reserved)
        } else if self.fills_all_threads(task.requirement) {
            self.beside_siblings(id, first, reserved)
        } else {
            first
        };
        chosen.map(|rank| rank.worker).or_else(|| self.worker_with_less_urgent(id, reserved))
    }

    /// The open worker that can start a task first, if inputs do not count.
    fn first_open(&self, id: TaskId, reserved: &Reserved) -> Option<Rank> {
        let task = &self.tasks[id];
        let eligible = self.requirements.eligible(task.requirement);
        if eligible.len() * SELECTIVE < self.open.len() {
            let open = eligible.iter().filter_map(|worker| self.workers[worker].indexed.rank);
            return open.filter(|rank| self.fits(id, rank.worker, reserved)).min();
        }
        self.open.iter().find(|rank| self.fits(id, rank.worker, reserved)).copied()
    }

    /// The worker that can start a task first when what it reads has been fetched: one that holds some of that, or the
    /// first of the others.
    fn nearest(&self, id: TaskId, first: Option<Rank>, reserved: &Reserved) -> Option<Rank> {
        let (local, total) = self.local_data(id);
        let cost = |rank: Rank, held: Inputs| {
            let has_slot = self.workers[&rank.worker].indexed.rank.is_some();
            let transfer_us = self.transfer_us(total.without(held));
            let cost = self.config.placement.cost(&Candidate { has_slot, wait_us: rank.wait_us, transfer_us })?;
            Some((cost, rank))
        };
        let holders = local.iter().filter(|(worker, _)| self.fits(id, *worker, reserved)).filter_map(|(worker_id, held)| {
            let worker = &self.workers[worker_id];
            let is_taken = worker.indexed.rank.is_some() || self.may_queue_on(id, worker);
            if is_taken { cost(worker.rank(*worker_id, self.tie_break(*worker_id)), *held) } else { None }
        });
        let other = first.filter(|rank| local.iter().all(|(holder, _)| *holder != rank.worker));
        let other = other.and_then(|rank| cost(rank, Inputs::default()));
        holders.chain(other).min().map(|(_, rank)| rank)
    }

    /// The first open worker, or one that runs or holds what goes into the same result and can start it hardly later: so
    /// less has to be fetched for that result. Only for tasks that read nothing: others go where their inputs are.
    fn beside_siblings(&self, id: TaskId, first: Option<Rank>, reserved: &Reserved) -> Option<Rank> {
        let first = first?;
        let latest_us = first.wait_us + TRANSFER_LATENCY_US;
        let siblings = self.siblings(id);
        let related = siblings.iter().filter_map(|(worker, count)| {
            let rank = self.workers[worker].indexed.rank.filter(|rank| rank.wait_us <= latest_us)?;
            self.fits(id, *worker, reserved).then_some((Reverse(*count), rank))
        });
        related.min().map(|(_, rank)| rank).or(Some(first))
    }

    /// A worker that was given a task of a lower priority of the user's and may not have started it. It gets this one as
    /// well, and starts it first, since workers order what they have.
    fn worker_with_less_urgent(&self, id: TaskId, reserved: &Reserved) -> Option<WorkerId> {
        let user = self.tasks[id].priority.user;
        // Mostly there is nothing to look for.
        if !self.under_way.has_below(user) {
            return None;
        }
        let may_go_first = |worker: &Worker| {
            let ahead_max = worker.slots.saturating_add(MORE_URGENT_MAX * worker.profile.nthreads) as usize;
            let goes_back = |other: &TaskId| {
                let run = self.tasks[*other].run();
                self.tasks[*other].priority.user < user && run.is_some_and(|run| !run.executing && !run.seceded)
            };
            worker.under_way.has_below(user)
                && worker.under_way.count_from(user) < ahead_max
                && worker.processing.iter().any(goes_back)
        };
        let eligible = self.requirements.eligible(self.tasks[id].requirement).iter().copied();
        let found = eligible.filter(|worker| self.fits(id, *worker, reserved) && may_go_first(&self.workers[worker]));
        found.min_by_key(|worker| (self.workers[worker].load(), self.tie_break(*worker)))
    }

    /// Whether a queue has work for every free thread, so that it matters which worker gets which task, but nobody goes
    /// without.
    fn fills_all_threads(&self, requirement: RequirementId) -> bool {
        self.requirements.ready(requirement).len() >= self.free_threads as usize
    }

    /// How many tasks that go into the same result as this one each worker runs or holds.
    fn siblings(&self, id: TaskId) -> ByWorker<usize> {
        let mut siblings = ByWorker::<usize>::new();
        let reader = self.tasks[id].dependents.first().map(|reader| &self.tasks[reader].dependencies);
        for sibling in reader.filter(|family| family.len() <= FAMILY_MAX).into_iter().flatten() {
            let sibling = &self.tasks[*sibling];
            for worker in sibling.run().map(|run| run.worker).iter().chain(sibling.holders()) {
                *entry(&mut siblings, *worker) += 1;
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

    /// Whether a worker may run a task, and has what the task takes.
    fn fits(&self, id: TaskId, worker_id: WorkerId, reserved: &Reserved) -> bool {
        let task = &self.tasks[id];
        let requirement = self.requirements.get(task.requirement);
        let worker = &self.workers[&worker_id];
        let kept_for = reserved.get(&worker_id).map(|head| &self.requirements.get(*head).resources);
        self.requirements.eligible(task.requirement).contains(&worker_id)
            && worker.has_room_for(requirement)
            && kept_for.is_none_or(|kept| !kept.overlaps(&requirement.resources))
            // What reads data in would only be ahead of more urgent work to come.
            && (!task.data_producer || worker.has_slot())
    }

    /// Whether a task may wait on a worker that holds its data.
    fn may_queue_on(&self, id: TaskId, worker: &Worker) -> bool {
        let local_backlog = worker.profile.nthreads;
        !self.tasks[id].data_producer && (worker.can_be_fed() || worker.in_flight() < worker.slots.saturating_add(local_backlog))
    }

    /// How long a worker fetches what it does not hold.
    pub(super) fn transfer_us(&self, missing: Inputs) -> u64 {
        let latency_us = if missing.count == 0 { 0 } else { TRANSFER_LATENCY_US };
        let transfer_us = (missing.nbytes as f64 * 1e6 / self.bandwidth) as u64;
        latency_us + transfer_us.min(TRANSFER_US_MAX)
    }

    /// What each worker holds of a task's dependencies, and all of them.
    fn local_data(&self, id: TaskId) -> (ByWorker<Inputs>, Inputs) {
        let (mut local, mut total) = (ByWorker::<Inputs>::new(), Inputs::default());
        for dependency in &self.tasks[id].dependencies {
            let task = &self.tasks[*dependency];
            total.add(task);
            for holder in task.holders() {
                entry(&mut local, *holder).add(task);
            }
        }
        (local, total)
    }

    /// What a worker would have to fetch for a task.
    pub(super) fn missing_data(&self, id: TaskId, worker: WorkerId) -> Inputs {
        let dependencies = self.tasks[id].dependencies.iter().map(|dependency| &self.tasks[*dependency]);
        Inputs::of(dependencies.filter(|dependency| !dependency.holders().contains(&worker)))
    }

    fn assign(&mut self, id: TaskId, worker: WorkerId) {
        self.runs += 1;
        let run_id = RunId::new(self.config.epoch, id, self.runs);
        let task = &self.tasks[id];
        let expected_us = self.prefixes.expected_us(task.prefix) + self.transfer_us(self.missing_data(id, worker));
        let run =
            Run { worker, run_id, since: self.now, expected_us, requirement: task.requirement, seceded: false, executing: false };
        self.transition(id, TaskState::Processing(run));
        // Workers order what they have, but only what they have.
        let goes_first = self.under_way.has_below(self.tasks[id].priority.user);
        let record = &mut self.workers[&worker];
        if record.is_being_fed {
            return self.out.push(Instruction::ComputeTask { worker, run_id });
        }
        record.unsent.push(run_id);
        if goes_first {
            self.send_unsent(worker);
        }
    }

    /// Tells a worker of all that it was not told of yet, but for runs that were given up since.
    pub(super) fn send_unsent(&mut self, id: WorkerId) {
        self.send_unsent_frees(id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let mut unsent = std::mem::take(&mut worker.unsent);
        for run_id in unsent.drain(..) {
            if self.compute_task(run_id).is_some() {
                self.out.push(Instruction::ComputeTask { worker: id, run_id });
            }
        }
        self.workers[&id].unsent = unsent;
    }

    /// Tells a worker of all that it is to drop; always before runs that it is given later.
    pub(super) fn send_unsent_frees(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.unsent_frees.is_empty()) {
            let keys = std::mem::take(&mut worker.unsent_frees);
            self.out.push(Instruction::FreeKeys { worker: id, keys });
        }
    }
}
