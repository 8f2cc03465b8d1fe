//! What each task has to do next.
//!
//! `next_step` looks at one task and its counters and names the step it must take, if any; `settle` lets all tasks that
//! may be concerned take their steps until none is left. So no task can be forgotten half-way: "no task has a step left"
//! is checked after every stimulus (`invariants`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::dask::TaskKey;
use crate::engine::intake::Conditions;
use crate::engine::owner::Owner;
use crate::engine::requirement_table::Requirement;
use crate::engine::task::{Blame, Fault, StateName, TaskState};
use crate::engine::task_table::TaskId;
use crate::engine::{Engine, Exception, Failure, Instruction, WorkerId};

/// A result of so many bytes takes so little memory that dropping it can wait for a moment.
const SMALL_NBYTES: u64 = 65_536;

/// Room for so many tasks that may have a step to take is kept; only a graph that is taken in at once needs more.
const UNSETTLED_KEPT_MAX: usize = 65_536;

/// One step of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is needed now: wait for the dependencies.
    Wait,
    /// It is ready: stand in the queue.
    Queue,
    /// It is ready, but no worker may run it.
    LackWorker,
    /// A dependency failed.
    FailByDependency,
    /// It is needed but nobody can say how to run it: scattered data that was lost.
    FailAsLost,
    /// What waits for it has waited long enough for the silent workers that hold it: make it again.
    Remake,
    /// Nobody needs it: let go of what is held or under way.
    Release,
    /// Nobody knows of it any more.
    Forget,
}

impl Engine {
    /// The step that a task must take as things are.
    pub(super) fn next_step(&self, id: TaskId) -> Option<Step> {
        let task = &self.tasks[id];
        let needed = task.is_needed();
        let forgettable = !needed && task.member_of.is_empty() && task.dependents.is_empty();
        match task.state() {
            TaskState::Released if forgettable => Some(Step::Forget),
            TaskState::Released if !needed => None,
            TaskState::Released if task.failed > 0 => Some(Step::FailByDependency),
            TaskState::Released if task.run_spec.is_none() => Some(Step::FailAsLost),
            TaskState::Released => Some(Step::Wait),

            TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Processing(_) if !needed => {
                Some(Step::Release)
            }
            TaskState::Waiting if task.failed > 0 => Some(Step::FailByDependency),
            TaskState::Waiting if task.missing > 0 => None,
            TaskState::Waiting if self.requirements.has_workers(task.requirement) => Some(Step::Queue),
            TaskState::Waiting => Some(Step::LackWorker),

            TaskState::NoWorker | TaskState::Queued if task.missing > 0 => Some(Step::Wait),
            TaskState::Processing(run) if task.missing > 0 => (!self.has_inputs_in_silence(task, run)).then_some(Step::Wait),
            TaskState::NoWorker => self.requirements.has_workers(task.requirement).then_some(Step::Queue),
            TaskState::Queued => (!self.requirements.has_workers(task.requirement)).then_some(Step::LackWorker),
            TaskState::Processing(_) => None,

            TaskState::Memory(_) if !needed => Some(Step::Release),
            TaskState::Memory(_) => self.is_to_be_made_again(task).then_some(Step::Remake),

            TaskState::Erred(_) if forgettable => Some(Step::Forget),
            // What failed it was given another try.
            TaskState::Erred(Blame::Dependency(_)) => (task.failed == 0).then_some(Step::Release),
            TaskState::Erred(Blame::Own(_)) => None,
        }
    }

    /// Lets all tasks take the steps that follow from what was changed. When many are to be forgotten, as those of a large
    /// graph are with the last of its results, some have to wait until other things have had their turn.
    pub(super) fn settle(&mut self) {
        self.settle_but(self.config.intake_tasks_max);
    }

    /// The same, where so many tasks are forgotten at once.
    fn settle_but(&mut self, forgotten_max: usize) {
        let mut forgotten = 0;
        while let Some(id) = self.unsettled.pop_front() {
            // An id may come from a task that was forgotten since; whoever has it now has no step left, or takes it.
            while self.tasks.get(id).is_some() {
                let Some(step) = self.next_step(id) else { break };
                if step == Step::Forget {
                    if forgotten >= forgotten_max {
                        self.unforgotten.push_back(id);
                        break;
                    }
                    forgotten += 1;
                }
                self.take(id, step);
            }
        }
        if self.unsettled.capacity() > UNSETTLED_KEPT_MAX {
            self.unsettled = VecDeque::new();
        }
    }

    /// Forgets at once all that is to be forgotten, before somebody names it anew.
    pub(super) fn forget_all(&mut self) {
        self.unsettled.append(&mut self.unforgotten);
        self.settle_but(usize::MAX);
    }

    /// Forgets some of what is to be forgotten.
    pub(super) fn continue_forgetting(&mut self) {
        let count = self.unforgotten.len().min(self.config.intake_tasks_max);
        self.unsettled.extend(self.unforgotten.drain(..count));
    }

    pub(super) fn take(&mut self, id: TaskId, step: Step) {
        match step {
            Step::Wait if self.tasks[id].state_name() == StateName::Released && self.adopt(id) => {}
            Step::Wait => {
                self.give_up_run(id);
                self.transition(id, TaskState::Waiting);
            }
            Step::Queue => self.transition(id, TaskState::Queued),
            Step::LackWorker => self.transition(id, TaskState::NoWorker),
            Step::FailByDependency => {
                let fault = self.fault_of_dependencies(id);
                self.fail(id, Blame::Dependency(fault));
            }
            Step::FailAsLost => {
                let message =
                    format!("the data of `{}` was lost, and it was scattered: no task can make it again", self.tasks[id].key);
                let fault = refusal(self.tasks[id].key.clone(), Exception::LostDependencies { message });
                self.fail(id, Blame::Own(fault));
            }
            Step::Remake => self.give_up_replicas(id),
            Step::Release => self.release(id),
            Step::Forget => self.forget(id),
        }
    }

    /// Lets go of what a task holds or has under way.
    pub(super) fn release(&mut self, id: TaskId) {
        if self.leave_for_others(id) {
            return;
        }
        if self.tasks[id].blame().is_some() {
            self.announce_retry(id);
        }
        self.give_up_run(id);
        let holders: Vec<WorkerId> = self.tasks[id].holders().to_vec();
        let (key, is_small) = (self.tasks[id].key.clone(), self.tasks[id].nbytes() <= SMALL_NBYTES);
        for worker in holders {
            match self.workers.get_mut(&worker).filter(|worker| is_small && worker.is_told_soon()) {
                Some(worker) => worker.unsent_frees.push(key.clone()),
                None => self.free(worker, key.clone()),
            }
        }
        self.transition(id, TaskState::Released);
    }

    /// Tells the worker of a processing task to drop it. It may be running already, and runs on then without a word: what
    /// it takes is held until the worker has said that it is over.
    pub(super) fn give_up_run(&mut self, id: TaskId) {
        let Some(run) = self.tasks[id].run().copied() else { return };
        let key = self.tasks[id].key.clone();
        let resources = self.requirements.get(run.requirement).resources.clone();
        self.free(run.worker, key.clone());
        if !self.workers[&run.worker].unsent.contains(&run.run_id) {
            // Taken again before the next dispatch, so nobody gets them in between.
            self.given_up.push((key, run, resources));
        }
    }

    /// Has a worker drop what it holds of a key. Sent before any run that the stimulus leads to.
    pub(super) fn free(&mut self, worker: WorkerId, key: TaskKey) {
        self.frees.entry(worker).or_default().push(key);
    }

    fn fault_of_dependencies(&self, id: TaskId) -> Arc<Fault> {
        let failed = self.tasks[id].dependencies.iter().find_map(|dependency| self.tasks[*dependency].blame());
        Arc::clone(failed.expect("a counted failure has a fault").fault())
    }

    /// Removes the record of a task; its dependencies may follow.
    fn forget(&mut self, id: TaskId) {
        let task = self.tasks.remove(id);
        self.story.push_forgotten(id, &task.key);
        self.requirements.release(task.requirement);
        for dependency in task.dependencies {
            self.remove_dependent(dependency, id);
        }
    }

    /// Takes an edge away.
    pub(super) fn remove_dependent(&mut self, dependency: TaskId, dependent: TaskId) {
        self.tasks[dependency].dependents.remove(dependent);
        self.unsettled.push_back(dependency);
    }

    /// Tells all Clients that want a task how it ended.
    pub(super) fn announce(&mut self, id: TaskId) {
        for index in 0..self.tasks[id].wanted_by.len() {
            if let Owner::Client(client) = self.tasks[id].wanted_by[index] {
                self.announce_to(id, client);
            }
        }
    }

    /// Tells one Client how a task ended, if it did.
    pub(super) fn announce_to(&mut self, id: TaskId, client: crate::engine::ClientId) {
        let task = &self.tasks[id];
        match task.state() {
            TaskState::Memory(replicas) => {
                let key = task.key.clone();
                let type_pickle = self.types.pickle(replicas.value_type);
                self.out.push(Instruction::KeyInMemory { client, key, type_pickle });
            }
            TaskState::Erred(blame) => {
                let key = task.key.clone();
                let exception = blame.fault().failure.exception.clone();
                self.out.push(Instruction::TaskErred { client, key, exception });
            }
            TaskState::Released | TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Processing(_) => {}
        }
    }

    fn announce_retry(&mut self, id: TaskId) {
        let task = &self.tasks[id];
        for owner in &task.wanted_by {
            if let Owner::Client(client) = *owner {
                self.out.push(Instruction::TaskRetried { client, key: task.key.clone() });
            }
        }
    }

    /// The same requirement, but with other such tasks kept off its worker.
    pub(super) fn isolate(&mut self, id: TaskId) {
        let old = self.tasks[id].requirement;
        if !self.requirements.get(old).isolated {
            let isolated = Requirement { isolated: true, ..self.requirements.get(old).clone() };
            let requirement = self.requirements.acquire(&isolated, &self.workers);
            let task = &self.tasks[id];
            let conditions = Conditions { user_priority: task.priority.user, retries: task.retries, requirement };
            self.set_conditions(id, conditions);
        }
    }
}

/// A failure that no worker reported, of a task that was never run.
pub(super) fn refusal(key: TaskKey, why: Exception) -> Arc<Fault> {
    let text = match &why {
        Exception::Refused { message } | Exception::LostDependencies { message } => message.clone(),
        Exception::Raised { .. } | Exception::KilledWorker { .. } | Exception::ActorLost { .. } => String::new(),
    };
    fault_without_run(key, why, text)
}

pub(super) fn fault_without_run(key: TaskKey, exception: Exception, exception_text: String) -> Arc<Fault> {
    let failure = Failure { exception, exception_text, traceback_text: String::new() };
    Arc::new(Fault { key, failure, attempts: 0, worker: String::new() })
}
