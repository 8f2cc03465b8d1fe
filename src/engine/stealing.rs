//! Takes tasks back from workers that have not started them.
//!
//! Three reasons: another worker ran dry while this one has a backlog, this one takes nothing any more, or priorities are
//! different now and a worker does not change those it was told. In each case the worker is asked first, since only it knows what it has started; once it has given the task up, the task is placed
//! like any other. A task that was started stays.
//!
//! The same question tells what became of a run that was given up: its answer comes after the worker has heard of both.

use smallvec::SmallVec;

use crate::dask::{Priority, TaskKey};
use crate::engine::task::{Run, Task, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::{CollectionId, Engine, Instruction, Millis, RunId, WorkerId};

/// How often to look again while a worker is dry and others have a backlog.
const BALANCE_EVERY_MS: u64 = 1_000;
/// What it takes to ask for a task and to send it elsewhere.
const STEAL_US: u64 = 10_000;
/// For how many dry workers to look at a time.
const THIEVES_MAX: usize = 8;

impl Engine {
    /// Asks for work on behalf of workers that have none.
    pub(super) fn balance(&mut self) {
        let is_due = self.balance_at.is_some_and(|at| at <= self.now);
        if self.is_balanced && !is_due {
            return;
        }
        // The index starts with those that have nothing to do.
        let dry = self.open.iter().map(|rank| rank.worker).take_while(|id| self.workers[id].is_dry());
        let thieves: SmallVec<[WorkerId; THIEVES_MAX]> =
            if self.backlogged.is_empty() { SmallVec::new() } else { dry.take(THIEVES_MAX).collect() };
        self.is_balanced = true;
        if thieves.is_empty() {
            self.balance_at = None;
            return;
        }
        let has_long_backlog = |id: &&WorkerId| is_due || self.workers[*id].wait_us() > STEAL_US;
        let victims: Vec<WorkerId> = self.backlogged.iter().filter(has_long_backlog).copied().collect();
        if !victims.is_empty() {
            for thief in thieves {
                self.steal_for(thief, &victims);
            }
        }
        if is_due || self.balance_at.is_none() {
            // What is not worth it now may be when the victim's runs take longer than expected.
            self.balance_at = Some(Millis(self.now.0 + BALANCE_EVERY_MS));
        }
    }

    fn steal_for(&mut self, thief: WorkerId, victims: &[WorkerId]) {
        let wanted = self.workers[&thief].profile.nthreads as usize;
        for _ in self.steals_for(thief)..wanted {
            let Some((victim, task)) = self.worth_stealing(thief, victims) else { return };
            let Some(run_id) = self.tasks[task].run().map(|run| run.run_id) else { return };
            self.request_steal(victim, self.tasks[task].key.clone(), run_id, Some(thief));
            self.is_balanced = false;
        }
    }

    /// The least urgent task that the thief would start sooner than the worker that has it.
    fn worth_stealing(&self, thief: WorkerId, victims: &[WorkerId]) -> Option<(WorkerId, TaskId)> {
        let tasks = victims.iter().flat_map(|id| self.workers[id].processing.iter().map(move |task| (*id, *task)));
        tasks
            .filter(|(victim, task)| self.is_stealable(*victim, *task, thief))
            .max_by_key(|(_, task)| (self.tasks[*task].priority, *task))
    }

    fn is_stealable(&self, victim_id: WorkerId, id: TaskId, thief: WorkerId) -> bool {
        let task = &self.tasks[id];
        let victim = &self.workers[&victim_id];
        let Some(run) = task.run() else { return false };
        let requirement = self.requirements.get(run.requirement);
        let may_move = may_not_have_started(task, run) && requirement.resources.is_empty() && !requirement.isolated;
        if !may_move || victim.steals.contains_key(&run.run_id) || !self.requirements.eligible(task.requirement).contains(&thief)
        {
            return false;
        }
        let waited_us = (self.now.0 - run.since.0) * 1000;
        let wait_us = victim.ahead_us().saturating_sub(run.expected_us) / u64::from(victim.profile.nthreads);
        self.transfer_us(self.missing_data(id, thief)) + STEAL_US < wait_us.max(waited_us)
    }

    fn steals_for(&self, thief: WorkerId) -> usize {
        self.workers.values().flat_map(|worker| worker.steals.values()).filter(|on_behalf| **on_behalf == Some(thief)).count()
    }

    /// Asks a worker that starts nothing any more for all that it may not have started.
    pub(super) fn evacuate(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let runs = worker.processing.iter().filter_map(|task| Some((*task, self.tasks[*task].run()?)));
        let may_move =
            runs.filter(|(task, run)| may_not_have_started(&self.tasks[*task], run) && !worker.steals.contains_key(&run.run_id));
        let evacuated = may_move.map(|(task, run)| (id, task, run.run_id)).collect();
        self.take_back(evacuated);
    }

    /// Asks for what was sent before priorities changed and may not have started: what belongs to the collection, since
    /// workers order it as it was, and what is less urgent than something that waits.
    pub(super) fn recall(&mut self, changed: CollectionId) {
        let mut recalled = Vec::new();
        for worker_id in &self.backlogged {
            let worker = &self.workers[worker_id];
            let most_urgent = self.most_urgent_for(*worker_id);
            for id in &worker.processing {
                let task = &self.tasks[*id];
                let Some(run) = task.run() else { continue };
                let is_out_of_order =
                    task.member_of.contains(&changed) || most_urgent.is_some_and(|urgent| urgent < task.priority);
                if is_out_of_order && may_not_have_started(task, run) && !worker.steals.contains_key(&run.run_id) {
                    recalled.push((*worker_id, *id, run.run_id));
                }
            }
        }
        self.take_back(recalled);
    }

    /// Takes runs back before the next dispatch: at once those that their worker was not told of yet, the others when it
    /// says that it has not started them.
    pub(super) fn take_back(&mut self, mut runs: Vec<(WorkerId, TaskId, RunId)>) {
        runs.retain(|(worker, id, run_id)| {
            let unsent = &mut self.workers[worker].unsent;
            let place = unsent.iter().position(|other| other == run_id);
            if let Some(place) = place {
                unsent.remove(place);
                self.transition(*id, TaskState::Waiting);
            }
            place.is_none()
        });
        for (worker, id, run_id) in runs {
            self.request_steal(worker, self.tasks[id].key.clone(), run_id, None);
        }
    }

    fn most_urgent_for(&self, worker: WorkerId) -> Option<Priority> {
        let ids = self.requirements.ids().filter(|id| self.requirements.eligible(*id).contains(&worker));
        ids.filter_map(|id| self.requirements.most_urgent(id)).map(|(priority, _)| priority).min()
    }

    pub(super) fn request_steal(&mut self, victim: WorkerId, key: TaskKey, run_id: RunId, thief: Option<WorkerId>) {
        if let Some(worker) = self.workers.get_mut(&victim) {
            worker.steals.insert(run_id, thief);
            // It may not have been told of this one yet.
            self.send_unsent(victim);
            self.out.push(Instruction::StealRequest { worker: victim, key, run_id });
        }
    }

    /// Follows up on what a worker says about a task it was asked for.
    ///
    /// Source of the states: distributed 2026.8.0, stealing.py: `_WORKER_STATE_CONFIRM` and the sets beside it.
    pub(super) fn on_steal_response(&mut self, worker_id: WorkerId, key: &TaskKey, run_id: RunId, state: Option<&str>) {
        let Some(worker) = self.workers.get_mut(&worker_id) else { return self.ignore() };
        if worker.steals.remove(&run_id).is_none() {
            return self.ignore();
        }
        self.reindex(worker_id);
        let worker = &mut self.workers[&worker_id];
        let is_running = matches!(state, Some("executing" | "long-running" | "cancelled" | "resumed"));
        if is_running {
            worker.run_goes_on(run_id);
        } else {
            worker.run_ended(run_id);
        }
        let under_way = self.tasks.id(key).filter(|id| {
            let run = self.tasks[*id].run();
            run.is_some_and(|run| run.worker == worker_id && run.run_id == run_id)
        });
        // Otherwise the run was given up or has ended meanwhile, and what it was is settled elsewhere.
        let Some(id) = under_way else { return };
        match state {
            // The worker has dropped it.
            Some("ready" | "constrained" | "waiting") => self.transition(id, TaskState::Waiting),
            // It does not know the task, so no answer to the run will come.
            None | Some("released") => {
                self.free(worker_id, key.clone());
                self.transition(id, TaskState::Waiting);
            }
            // It has started, or has said already how it ended.
            Some(_) => {
                if let Some(run) = self.tasks[id].run_mut() {
                    run.executing |= is_running;
                }
            }
        }
    }
}

fn may_not_have_started(task: &Task, run: &Run) -> bool {
    !run.executing && !run.seceded && !task.actor
}
