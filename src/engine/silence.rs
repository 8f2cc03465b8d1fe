//! Goes on without workers that have fallen silent.
//!
//! A worker whose comm stands but that says nothing may be stopped or cut off, or a task keeps its interpreter to itself.
//! Nobody can tell, and it may come back with all that it has. So nothing is given up that can wait:
//!
//! ```text
//! silent ─► at once: it gets nothing new, what it has not started runs elsewhere, and nobody fetches from it
//!        ─► RUNS_AFTER_MS: what it was running runs elsewhere as well, but for what reads data that only it has
//!        ─► DATA_AFTER_MS: what only it holds is made again, as far as tasks wait for it
//! heard  ─► it is a worker like others; its answers to runs that were taken from it are stale
//! ```
//!
//! No task is blamed for a silence. The resources of its runs stay taken until it says that they are over.

use smallvec::SmallVec;

use crate::engine::task::{Run, Task, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::{Engine, Instruction, Millis, WorkerId};

/// How long a silent worker keeps what it runs: functions that hold the interpreter's lock for seconds are no rarity.
const RUNS_AFTER_MS: u64 = 4_000;
/// How long what waits for its data goes on waiting: networks that are cut are mostly mended in less.
const DATA_AFTER_MS: u64 = 31_000;

/// How long a worker is silent, and what was given up of it so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    since: Millis,
    given_up: GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GivenUp {
    NotStarted,
    Runs,
    Data,
}

impl Silence {
    /// When to give up more.
    fn due_at(&self) -> Option<Millis> {
        match self.given_up {
            GivenUp::NotStarted => Some(Millis(self.since.0 + RUNS_AFTER_MS)),
            GivenUp::Runs => Some(Millis(self.since.0 + DATA_AFTER_MS)),
            GivenUp::Data => None,
        }
    }
}

impl Engine {
    pub(super) fn on_worker_silent(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.is_silent()) else { return self.ignore() };
        worker.silence = Some(Silence { since: self.now, given_up: GivenUp::NotStarted });
        // It does not answer for them, and who ran dry may ask others.
        worker.steals.values_mut().for_each(|thief| *thief = None);
        let gone = worker.profile.address.clone();
        self.silent.insert(id);
        self.worker_capacity_changed(id);
        self.update_reach_of(id);
        for other in self.workers.keys().copied().filter(|other| *other != id) {
            // What they have yet to fetch from it they fetch from others, or ask for again.
            self.out.push(Instruction::RemoveWorker { worker: other, gone: gone.clone() });
        }
        let started = self.may_have_started(&self.workers[&id]);
        let is_idle = |task: &TaskId| !started.contains(task) && self.may_run_elsewhere(*task);
        let idle: Vec<TaskId> = self.workers[&id].processing.iter().copied().filter(is_idle).collect();
        for task in idle {
            self.take_from_silent(task);
        }
        self.take_back_what_fetches_from(id);
    }

    pub(super) fn on_worker_heard(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_silent()) else { return self.ignore() };
        worker.silence = None;
        self.silent.remove(&id);
        self.worker_capacity_changed(id);
        self.update_reach_of(id);
        if self.workers[&id].is_closing() {
            self.copy_away(id);
        }
    }

    /// When patience with the next silent worker ends.
    pub(super) fn silence_due_at(&self) -> Option<Millis> {
        self.silent.iter().filter_map(|id| self.workers[id].silence?.due_at()).min()
    }

    /// Gives up more of the workers that are silent for so long.
    pub(super) fn lose_patience(&mut self) {
        for id in self.silent.iter().copied().collect::<Vec<_>>() {
            while let Some(silence) = &mut self.workers[&id].silence
                && silence.due_at().is_some_and(|at| at <= self.now)
            {
                match silence.given_up {
                    GivenUp::NotStarted => {
                        silence.given_up = GivenUp::Runs;
                        self.take_runs_of(id);
                    }
                    GivenUp::Runs | GivenUp::Data => {
                        silence.given_up = GivenUp::Data;
                        self.unsettled.extend(self.workers[&id].holds.iter());
                    }
                }
            }
        }
    }

    /// What it runs runs elsewhere, each once: a function that silences one worker silences the next.
    fn take_runs_of(&mut self, id: WorkerId) {
        let may_move = |task: &TaskId| self.may_run_elsewhere(*task) && !self.tasks[*task].was_taken;
        let running: Vec<TaskId> = self.workers[&id].processing.iter().copied().filter(may_move).collect();
        for task in running {
            self.tasks[task].was_taken = true;
            self.count_in_collections(task, |collection| collection.worker_lost += 1);
            self.take_from_silent(task);
        }
    }

    /// Not an actor, of which there would be two, and not what reads data that others cannot fetch.
    fn may_run_elsewhere(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        !task.actor && task.missing == 0
    }

    /// Whether a run has its inputs although nobody else can fetch them: its own worker is silent, and has them.
    pub(super) fn has_inputs_in_silence(&self, task: &Task, run: &Run) -> bool {
        self.silent.contains(&run.worker)
            && !self.workers[&run.worker].unsent.contains(&run.run_id)
            && task.dependencies.iter().all(|input| self.tasks[*input].replicas().is_some())
    }

    /// Its worker hears that it has to drop the run when it hears again, and says then what became of it.
    fn take_from_silent(&mut self, id: TaskId) {
        self.give_up_run(id);
        self.transition(id, TaskState::Waiting);
    }

    /// Asks other workers for the runs whose inputs they may be waiting for without end: a fetch from a stopped worker
    /// neither fails nor ends. Those that wait for what nobody else has were taken back already.
    fn take_back_what_fetches_from(&mut self, silent: WorkerId) {
        let mut waiting = Vec::new();
        for (id, worker) in self.workers.iter().filter(|(id, _)| **id != silent) {
            for task in &worker.processing {
                let fetches = |input: &TaskId| {
                    let holders = self.tasks[*input].holders();
                    holders.contains(&silent) && !holders.contains(id)
                };
                let Some(run) = self.tasks[*task].run().filter(|run| !run.executing && !run.seceded) else { continue };
                if self.tasks[*task].dependencies.iter().any(fetches) && !worker.steals.contains_key(&run.run_id) {
                    waiting.push((*id, *task, run.run_id));
                }
            }
        }
        self.take_back(waiting);
    }

    fn update_reach_of(&mut self, id: WorkerId) {
        for task in self.workers[&id].holds.iter().collect::<Vec<_>>() {
            self.update_reach(task);
        }
    }

    /// Those of the workers that are not silent.
    pub(super) fn speaking(&self, workers: &[WorkerId]) -> SmallVec<[WorkerId; 4]> {
        if self.silent.is_empty() {
            return SmallVec::from_slice(workers);
        }
        workers.iter().copied().filter(|worker| !self.silent.contains(worker)).collect()
    }

    pub(super) fn speaking_holders(&self, id: TaskId) -> SmallVec<[WorkerId; 4]> {
        self.speaking(self.tasks[id].holders())
    }

    pub(super) fn are_silent(&self, workers: &[WorkerId]) -> bool {
        !self.silent.is_empty() && workers.iter().all(|worker| self.silent.contains(worker))
    }

    /// Whether a result is only where nobody can fetch it, tasks wait for it, and it does not come back in time.
    pub(super) fn is_to_be_made_again(&self, task: &Task) -> bool {
        let is_given_up =
            |holder: &WorkerId| self.workers[holder].silence.is_some_and(|silence| silence.given_up == GivenUp::Data);
        task.replicas().is_some_and(|replicas| replicas.out_of_reach)
            && task.waiters > 0
            && task.run_spec.is_some()
            && !task.actor
            && task.holders().iter().all(is_given_up)
    }

    /// Has a result made again; the silent workers that hold it drop it when they hear again.
    pub(super) fn give_up_replicas(&mut self, id: TaskId) {
        for holder in self.tasks[id].holders().to_vec() {
            self.free(holder, self.tasks[id].key.clone());
            self.drop_replica(id, holder);
            self.replica_was_dropped(id, holder);
        }
    }
}
