//! The one place that changes a task's state, with every index and counter that hangs on it.
//!
//! A transition has no consequences of its own: it says, by `unsettled`, which tasks may have to move next. What they
//! do is written in `rules`.

use StateName::{Erred, Memory, NoWorker, Processing, Queued, Released, Waiting};

use crate::dask::Priority;
use crate::engine::intake::Conditions;
use crate::engine::requirement_table::Requirement;
use crate::engine::story::Moved;
use crate::engine::task::{Blame, Replicas, Run, StateName, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::worker::Indexed;
use crate::engine::{Engine, WorkerId};

/// All state changes there are.
const LEGAL: [(StateName, StateName); 21] = [
    (Released, Waiting),    // somebody needs it
    (Released, Memory),     // scattered, or brought by a worker that outlived another engine
    (Released, Processing), // such a worker runs it
    (Released, Erred),      // it cannot be run, or a dependency failed
    (Waiting, Released),    // nobody needs it any more
    (Waiting, Queued),      // all dependencies are in memory
    (Waiting, NoWorker),    // likewise, but no worker may run it
    (Waiting, Erred),       // a dependency failed
    (NoWorker, Released),   // nobody needs it any more
    (NoWorker, Waiting),    // a dependency was lost
    (NoWorker, Queued),     // a worker that may run it appeared
    (Queued, Released),     // nobody needs it any more
    (Queued, Waiting),      // a dependency was lost
    (Queued, NoWorker),     // the last worker that may run it went
    (Queued, Processing),   // a worker has room
    (Processing, Released), // nobody needs it any more
    (Processing, Waiting),  // it runs again: retry, reschedule, steal, lost worker, lost dependency
    (Processing, Memory),   // finished
    (Processing, Erred),    // failed for good
    (Memory, Released),     // nobody needs it any more, or the last replica was lost
    (Erred, Released),      // another try
];

/// The same, to be looked up.
const IS_LEGAL: [[bool; StateName::COUNT]; StateName::COUNT] = {
    let mut table = [[false; StateName::COUNT]; StateName::COUNT];
    let mut index = 0;
    while index < LEGAL.len() {
        let (from, to) = LEGAL[index];
        table[from as usize][to as usize] = true;
        index += 1;
    }
    table
};

impl Engine {
    /// Moves a task to another state.
    ///
    /// # Panics
    /// When there is no such transition: then a rule or a handler is wrong.
    pub(super) fn transition(&mut self, id: TaskId, to: TaskState) {
        let (from_name, to_name) = (self.tasks[id].state_name(), to.name());
        assert!(
            IS_LEGAL[from_name as usize][to_name as usize],
            "no transition {from_name:?} → {to_name:?}; story: {:#?}",
            self.story(&self.tasks[id].key)
        );
        let was_within_reach = self.tasks[id].is_within_reach();
        self.leave(id);
        self.count(id, -1);
        let old = self.tasks[id].replace_state(to);
        drop(old);
        if from_name == Memory || to_name == Memory {
            self.index_replicated(id);
        }
        if from_name == Memory {
            self.copies_ended(id);
        }
        self.count(id, 1);
        self.enter(id);
        self.tell_neighbours(id, from_name, to_name, was_within_reach);
        self.unsettled.push_back(id);
        if [Released, Erred].contains(&to_name) && self.tasks[id].prefix == self.barrier_prefix {
            self.end_shuffle(id);
        }
        let task = &self.tasks[id];
        let worker = task.run().map(|run| run.worker).or_else(|| task.holders().first().copied());
        self.stats.transitions += 1;
        self.story.push(id, Moved { at: self.now, because: self.handling, worker, from: from_name, to: to_name });
    }

    /// Takes a task out of the indexes of its state.
    fn leave(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        match task.state() {
            TaskState::Released | TaskState::Waiting | TaskState::Erred(_) => {}
            TaskState::NoWorker | TaskState::Queued => self.requirements.remove_ready(task.requirement, task.priority, id),
            TaskState::Processing(run) => {
                let run = *run;
                self.unbook(id, &run);
            }
            TaskState::Memory(replicas) => {
                let (holders, nbytes) = (replicas.holders.clone(), replicas.nbytes);
                for worker in holders {
                    self.unindex_replica(id, worker, nbytes);
                }
            }
        }
    }

    /// Puts a task into the indexes of its state.
    fn enter(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        match task.state() {
            TaskState::Released | TaskState::Waiting | TaskState::Erred(_) => {}
            TaskState::NoWorker | TaskState::Queued => self.requirements.push_ready(task.requirement, task.priority, id),
            TaskState::Processing(run) => {
                let run = *run;
                self.book(id, &run);
            }
            TaskState::Memory(replicas) => {
                let (holders, nbytes) = (replicas.holders.clone(), replicas.nbytes);
                let out_of_reach = self.are_silent(&holders);
                for worker in holders {
                    self.index_replica(id, worker, nbytes);
                }
                if let Some(replicas) = self.tasks[id].replicas_mut() {
                    replicas.out_of_reach = out_of_reach;
                }
                self.consider_copies(id);
            }
        }
    }

    /// Updates what dependencies and dependents count, and names those that may have to move.
    fn tell_neighbours(&mut self, id: TaskId, from: StateName, to: StateName, was_within_reach: bool) {
        if from.is_live() != to.is_live() {
            for index in 0..self.tasks[id].dependencies.len() {
                let dependency = self.tasks[id].dependencies[index];
                let waiters = &mut self.tasks[dependency].waiters;
                *waiters = if to.is_live() { *waiters + 1 } else { *waiters - 1 };
                self.unsettled.push_back(dependency);
            }
        }
        if [from, to].iter().all(|state| ![Memory, Erred].contains(state)) {
            return;
        }
        let is_within_reach = self.tasks[id].is_within_reach();
        for dependent in self.tasks[id].dependents.to_list() {
            let task = &mut self.tasks[dependent];
            match (was_within_reach, is_within_reach) {
                (false, true) => task.missing -= 1,
                (true, false) => task.missing += 1,
                (false, false) | (true, true) => {}
            }
            match (from == Erred, to == Erred) {
                (false, true) => task.failed += 1,
                (true, false) => task.failed -= 1,
                (false, false) | (true, true) => {}
            }
            if to != Memory || task.missing == 0 {
                self.unsettled.push_back(dependent);
            }
        }
    }

    /// Counts a task in its collections by its present state.
    pub(super) fn count(&mut self, id: TaskId, by: i64) {
        let task = &self.tasks[id];
        for member in &task.member_of {
            if let Some(collection) = self.collections.get_mut(member) {
                collection.count(id, task, by);
                self.changed.insert(*member);
            }
        }
    }

    /// Gives a worker a run: its thread, resources and expected time.
    fn book(&mut self, id: TaskId, run: &Run) {
        self.requirements.retain(run.requirement);
        let requirement = self.requirements.get(run.requirement);
        let worker = self.workers.get_mut(&run.worker).expect("a task is given to a connected worker");
        assert!(worker.has_room_for(requirement), "worker {:?} would be over-committed", run.worker);
        let user = self.tasks[id].priority.user;
        worker.processing.insert(id);
        worker.under_way.add(user);
        self.under_way.add(user);
        worker.take_resources(&requirement.resources);
        worker.occupancy_us += run.expected_us;
        worker.isolated += u32::from(requirement.isolated);
        worker.actors += u32::from(requirement.actor);
        self.share(id, run.worker, 1, 0);
        self.reindex(run.worker);
    }

    fn unbook(&mut self, id: TaskId, run: &Run) {
        let requirement = self.requirements.get(run.requirement);
        let worker = self.workers.get_mut(&run.worker).expect("the worker of a processing task is connected");
        let user = self.tasks[id].priority.user;
        worker.processing.remove(&id);
        if !run.seceded {
            worker.under_way.remove(user);
        }
        self.under_way.remove(user);
        worker.give_back_resources(&requirement.resources);
        worker.occupancy_us -= run.expected_us;
        worker.isolated -= u32::from(requirement.isolated);
        worker.actors -= u32::from(requirement.actor);
        worker.seceded -= u32::from(run.seceded);
        self.requirements.release(run.requirement);
        self.share(id, run.worker, -1, 0);
        self.reindex(run.worker);
    }

    fn index_replica(&mut self, id: TaskId, worker_id: WorkerId, nbytes: u64) {
        let actor = self.tasks[id].actor;
        let worker = self.workers.get_mut(&worker_id).expect("a holder is connected");
        worker.holds.insert(id);
        worker.nbytes += nbytes;
        worker.actors += u32::from(actor);
        self.share(id, worker_id, 1, nbytes as i64);
        self.reindex(worker_id);
    }

    fn unindex_replica(&mut self, id: TaskId, worker_id: WorkerId, nbytes: u64) {
        let actor = self.tasks[id].actor;
        let worker = self.workers.get_mut(&worker_id).expect("a holder is connected");
        worker.holds.remove(id);
        worker.nbytes -= nbytes;
        worker.actors -= u32::from(actor);
        self.share(id, worker_id, -1, -(nbytes as i64));
        self.reindex(worker_id);
    }

    /// Counts what a worker has of each collection.
    fn share(&mut self, id: TaskId, worker: WorkerId, tasks: i64, nbytes: i64) {
        for member in &self.tasks[id].member_of {
            if let Some(collection) = self.collections.get_mut(member) {
                collection.share(worker, tasks, nbytes);
                self.changed.insert(*member);
            }
        }
    }

    /// One more worker holds a result. The task is in `Memory` and the worker no holder.
    pub(super) fn add_replica(&mut self, id: TaskId, worker: WorkerId) {
        let Some(Replicas { holders, nbytes, .. }) = self.tasks[id].replicas_mut() else { return };
        holders.push(worker);
        let nbytes = *nbytes;
        self.index_replica(id, worker, nbytes);
        self.index_replicated(id);
        self.update_reach(id);
    }

    /// A worker no longer holds a result. With the last replica the caller lets the task leave `Memory`.
    pub(super) fn drop_replica(&mut self, id: TaskId, worker: WorkerId) {
        let Some(Replicas { holders, nbytes, .. }) = self.tasks[id].replicas_mut() else { return };
        holders.retain(|holder| *holder != worker);
        let nbytes = *nbytes;
        self.unindex_replica(id, worker, nbytes);
        self.index_replicated(id);
        self.update_reach(id);
        self.consider_copies(id);
    }

    /// Keeps what hangs on whether a result can be fetched, when its holders or their silence changed.
    pub(super) fn update_reach(&mut self, id: TaskId) {
        // With the last replica the task leaves `Memory`, and dependents hear of that.
        let Some(replicas) = self.tasks[id].replicas().filter(|replicas| !replicas.holders.is_empty()) else { return };
        let out_of_reach = self.are_silent(&replicas.holders);
        if replicas.out_of_reach == out_of_reach {
            return;
        }
        if let Some(replicas) = self.tasks[id].replicas_mut() {
            replicas.out_of_reach = out_of_reach;
        }
        for dependent in self.tasks[id].dependents.to_list() {
            let missing = &mut self.tasks[dependent].missing;
            *missing = if out_of_reach { *missing + 1 } else { *missing - 1 };
            self.unsettled.push_back(dependent);
        }
        self.unsettled.push_back(id);
    }

    /// A run gave its thread back: it no longer counts against the worker's slots.
    pub(super) fn secede(&mut self, id: TaskId) {
        let Some(run) = self.tasks[id].run_mut() else { return };
        run.seceded = true;
        run.executing = true;
        let (worker_id, expected_us) = (run.worker, std::mem::take(&mut run.expected_us));
        let user = self.tasks[id].priority.user;
        let worker = self.workers.get_mut(&worker_id).expect("the worker of a processing task is connected");
        worker.seceded += 1;
        worker.under_way.remove(user);
        worker.occupancy_us -= expected_us;
        self.reindex(worker_id);
    }

    /// Has a task ask something else of workers.
    pub(super) fn set_requirement(&mut self, id: TaskId, requirement: &Requirement) {
        let requirement = self.requirements.acquire(requirement, &self.workers);
        let task = &self.tasks[id];
        self.set_conditions(id, Conditions { user_priority: task.priority.user, retries: task.retries, requirement });
    }

    /// Sets the conditions under which a task runs from now on; its present run, if any, keeps its own.
    /// Takes over the caller's use of the requirement.
    pub(super) fn set_conditions(&mut self, id: TaskId, conditions: Conditions) {
        let Conditions { user_priority, retries, requirement } = conditions;
        let task = &mut self.tasks[id];
        let (old_priority, old_requirement) = (task.priority, task.requirement);
        let priority = Priority { user: user_priority, ..old_priority };
        (task.priority, task.retries, task.requirement) = (priority, retries, requirement);
        if let Some(run) = self.tasks[id].run() {
            self.under_way.change(old_priority.user, user_priority);
            if let Some(worker) = self.workers.get_mut(&run.worker).filter(|_| !run.seceded) {
                worker.under_way.change(old_priority.user, user_priority);
            }
        }
        if self.tasks[id].state_name().is_ready() {
            self.requirements.remove_ready(old_requirement, old_priority, id);
            self.requirements.push_ready(requirement, priority, id);
            // The new requirement may have workers where the old one had none, or the reverse.
            self.unsettled.push_back(id);
            self.changed.extend(&self.tasks[id].member_of);
        }
        self.requirements.release(old_requirement);
    }

    /// Notes that a worker's place in the indexes may be another.
    pub(super) fn reindex(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).expect("a worker that changed is connected");
        if !std::mem::replace(&mut worker.is_unindexed, true) {
            self.unindexed.push(id);
        }
    }

    /// Puts the workers that have changed where they belong in the indexes.
    pub(super) fn index_workers(&mut self) {
        while let Some(id) = self.unindexed.pop() {
            let tie_break = self.tie_break(id);
            let worker = self.workers.get_mut(&id).expect("a worker that changed is connected");
            worker.is_being_fed |= worker.runs_low();
            let is_open = worker.is_open();
            let now = Indexed {
                rank: is_open.then(|| worker.rank(id, tie_break)),
                free_threads: if is_open { worker.free_threads() } else { 0 },
                has_backlog: worker.has_backlog(),
            };
            worker.is_unindexed = false;
            let is_being_fed = worker.is_being_fed;
            let before = std::mem::replace(&mut worker.indexed, now);
            if before.rank != now.rank {
                before.rank.map(|rank| self.open.remove(&rank));
                now.rank.map(|rank| self.open.insert(rank));
            }
            let nthreads = worker.profile.nthreads;
            self.is_balanced &= now.free_threads < nthreads || before.free_threads == nthreads;
            self.free_threads = self.free_threads - before.free_threads + now.free_threads;
            match (before.has_backlog, now.has_backlog) {
                (false, true) => _ = self.backlogged.insert(id),
                (true, false) => _ = self.backlogged.remove(&id),
                (true, true) | (false, false) => {}
            }
            if is_being_fed {
                self.send_unsent(id);
            }
        }
    }

    /// Fails a task for good.
    pub(super) fn fail(&mut self, id: TaskId, blame: Blame) {
        self.transition(id, TaskState::Erred(blame));
        self.announce(id);
    }
}
