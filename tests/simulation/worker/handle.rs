//! What each event does to a worker's state.

use std::collections::BTreeSet;

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::wire::messages::FromWorker;

use super::event::{Event, Inputs, Instruction};
use super::machine::{Fatal, Followed, Machine, Steps};
use super::task::{Finish, Previous, State, Task};

/// Of what is fetched for its own sake: after work of the default priority.
const REPLICA_PRIORITY: f64 = 1.0;

impl Machine {
    /// Takes in an event and gives what to do about it, in order.
    ///
    /// # Errors
    /// When the stock worker would exit.
    pub(crate) fn handle(&mut self, event: Event) -> Result<Vec<Instruction>, Fatal> {
        let (steps, mut instructions) = self.take_in(event)?;
        instructions.extend(self.follow(steps)?);
        Ok(instructions)
    }

    fn take_in(&mut self, event: Event) -> Followed {
        Ok(match event {
            Event::ComputeTask { key, run_id, inputs, priority, resources } => {
                let record = self.tasks.entry(key.clone()).or_insert_with(|| Task::new(Vec::new()));
                record.run_id = Some(run_id);
                match record.state {
                    State::Ready | State::Constrained | State::Executing | State::LongRunning | State::Waiting => {
                        Default::default()
                    }
                    State::Memory => (Steps::new(), vec![Instruction::Say(self.finished(&key, run_id))]),
                    State::Released
                    | State::Fetch
                    | State::Flight
                    | State::Missing
                    | State::Cancelled
                    | State::Resumed
                    | State::Error => {
                        let runs_on = matches!(record.state, State::Cancelled | State::Resumed)
                            && record.previous != Some(Previous::Flight);
                        if !runs_on {
                            record.resources = resources;
                        }
                        let priority: Vec<f64> = priority.into_iter().chain([self.generation]).collect();
                        record.priority.clone_from(&priority);
                        self.generation -= 1.0;
                        for (input, nbytes, _) in &inputs {
                            self.know(input, &priority);
                            let record = self.task(input);
                            if record.state != State::Memory {
                                record.nbytes = Some(*nbytes);
                            }
                            record.dependents.insert(key.clone());
                            self.task(&key).dependencies.insert(input.clone());
                        }
                        self.update_who_has(inputs.into_iter().map(|(input, _, holders)| (input, holders)));
                        (Steps::from([(key, Finish::Waiting)]), Vec::new())
                    }
                }
            }
            Event::FreeKeys(keys) => {
                let known = keys.into_iter().filter(|key| self.tasks.contains_key(key));
                (known.map(|key| (key, Finish::Released)).collect(), Vec::new())
            }
            Event::AcquireReplicas(replicas) => (self.acquire(replicas), Vec::new()),
            Event::RemoveReplicas(keys) => (self.remove_replicas(keys)?, Vec::new()),
            Event::StealRequest { key, stimulus_id } => {
                let state = self.state(&key);
                let said =
                    FromWorker::StealResponse { key: key.clone(), state: state.map(|s| s.as_str().to_owned()), stimulus_id };
                let gives = matches!(state, Some(State::Ready | State::Constrained | State::Waiting));
                let steps = if gives { Steps::from([(key, Finish::Released)]) } else { Steps::new() };
                (steps, vec![Instruction::Say(said)])
            }
            Event::RefreshWhoHas(who_has) => (self.refresh(who_has), Vec::new()),
            Event::RemoveWorker(worker) => (self.lose(&worker), Vec::new()),
            Event::Pause => {
                self.running = false;
                Default::default()
            }
            Event::Unpause => {
                self.running = true;
                (self.ensure_computing(), Vec::new())
            }
            Event::RetryBusyWorker(worker) => {
                self.busy.remove(&worker);
                Default::default()
            }
            Event::FindMissing if self.missing.is_empty() => Default::default(),
            Event::FindMissing => {
                let keys = self.missing.iter().cloned().collect();
                (Steps::new(), vec![Instruction::Say(FromWorker::RequestRefreshWhoHas { keys })])
            }
            Event::Gathered { worker, data } => {
                let mut steps = Steps::new();
                for key in self.gather_ends(&worker)? {
                    let task = self.task(&key);
                    if let Some(value) = data.get(&key) {
                        let run_id = task.run_id.unwrap_or_default();
                        steps.insert(key, Finish::Memory(*value, run_id));
                    } else {
                        task.who_has.remove(&worker);
                        self.has_what.entry(worker.clone()).or_default().remove(&key);
                        steps.insert(key, Finish::Fetch);
                    }
                }
                (steps, Vec::new())
            }
            Event::GatherBusy(worker) => self.gather_is_busy(worker)?,
            Event::GatherFailed(worker) => {
                let mut steps: Steps = self.gather_ends(&worker)?.into_iter().map(|key| (key, Finish::Fetch)).collect();
                steps.extend(self.lose(&worker));
                (steps, Vec::new())
            }
            Event::Executed { key, run_id, value, nbytes } => {
                let mut steps = self.execution_ends(&key)?;
                self.task(&key).nbytes = Some(nbytes);
                steps.insert(key, Finish::Memory(value, run_id));
                (steps, Vec::new())
            }
            Event::ExecutionFailed { key, run_id, text } => {
                let mut steps = self.execution_ends(&key)?;
                steps.insert(key, Finish::Error(text, run_id));
                (steps, Vec::new())
            }
            Event::Rescheduled(key) => {
                let mut steps = self.execution_ends(&key)?;
                steps.insert(key, Finish::Rescheduled);
                (steps, Vec::new())
            }
            Event::Seceded(key) => {
                let known = self.tasks.contains_key(&key);
                let steps = known.then_some((key, Finish::LongRunning(Some(1.0))));
                (steps.into_iter().collect(), Vec::new())
            }
        })
    }

    fn know(&mut self, key: &TaskKey, priority: &[f64]) {
        let task = self.tasks.entry(key.clone()).or_insert_with(|| Task::new(Vec::new()));
        if task.priority.is_empty() {
            task.priority = priority.to_vec();
        }
    }

    fn update_who_has(&mut self, who_has: impl IntoIterator<Item = (TaskKey, Vec<WorkerAddress>)>) {
        for (key, holders) in who_has {
            let Some(task) = self.tasks.get_mut(&key) else { continue };
            let holders: BTreeSet<WorkerAddress> = holders.into_iter().filter(|holder| *holder != self.address).collect();
            let is_to_be_fetched = task.state == State::Fetch;
            let former = std::mem::replace(&mut task.who_has, holders.clone());
            for gone in former.difference(&holders) {
                self.has_what.entry(gone.clone()).or_default().remove(&key);
                if is_to_be_fetched {
                    self.data_needed.entry(gone.clone()).or_default().remove(&key);
                }
            }
            for new in holders.difference(&former) {
                self.has_what.entry(new.clone()).or_default().insert(key.clone());
                if is_to_be_fetched {
                    self.data_needed.entry(new.clone()).or_default().insert(key.clone());
                }
            }
        }
    }

    fn acquire(&mut self, replicas: Inputs) -> Steps {
        let mut steps = Steps::new();
        for (key, nbytes, _) in &replicas {
            self.know(key, &[REPLICA_PRIORITY]);
            let task = self.task(key);
            if task.state != State::Memory {
                task.nbytes = Some(*nbytes);
                steps.insert(key.clone(), Finish::Fetch);
            }
        }
        self.update_who_has(replicas.into_iter().map(|(key, _, holders)| (key, holders)));
        steps
    }

    fn remove_replicas(&mut self, keys: Vec<TaskKey>) -> Result<Steps, Fatal> {
        let mut steps = Steps::new();
        for key in keys {
            let Some(task) = self.tasks.get(&key).filter(|task| task.state == State::Memory) else { continue };
            let runs = |reader: &&TaskKey| matches!(self.tasks[*reader].state, State::Executing | State::LongRunning);
            if let Some(reader) = task.dependents.iter().find(runs) {
                return Err(Fatal(format!("told to drop {key} while {reader} runs, which reads it")));
            }
            steps.insert(key, Finish::Released);
        }
        Ok(steps)
    }

    fn refresh(&mut self, who_has: Vec<(TaskKey, Vec<WorkerAddress>)>) -> Steps {
        let keys: Vec<TaskKey> = who_has.iter().map(|(key, _)| key.clone()).collect();
        self.update_who_has(who_has);
        let mut steps = Steps::new();
        for key in keys {
            let Some(task) = self.tasks.get(&key) else { continue };
            match (task.state, task.who_has.is_empty()) {
                (State::Missing, false) => _ = steps.insert(key, Finish::Fetch),
                (State::Fetch, true) => _ = steps.insert(key, Finish::Missing),
                _ => {}
            }
        }
        steps
    }

    /// Forgets all that a peer was said to have.
    fn lose(&mut self, worker: &WorkerAddress) -> Steps {
        let mut steps = Steps::new();
        for key in self.data_needed.remove(worker).unwrap_or_default() {
            if self.tasks[&key].who_has.iter().eq([worker]) {
                steps.insert(key, Finish::Missing);
            }
        }
        for key in self.has_what.remove(worker).unwrap_or_default() {
            self.task(&key).who_has.remove(worker);
        }
        steps
    }

    fn gather_ends(&mut self, worker: &WorkerAddress) -> Result<BTreeSet<TaskKey>, Fatal> {
        let keys = self.in_flight.remove(worker).ok_or_else(|| Fatal(format!("nothing was asked of {worker}")))?;
        for key in &keys {
            self.task(key).done = true;
        }
        Ok(keys)
    }

    fn gather_is_busy(&mut self, worker: WorkerAddress) -> Followed {
        self.busy.insert(worker.clone());
        let keys = self.gather_ends(&worker)?;
        let all_busy = |key: &&TaskKey| self.tasks[*key].who_has.is_subset(&self.busy);
        let unknown: Vec<TaskKey> = keys.iter().filter(all_busy).cloned().collect();
        let mut instructions = vec![Instruction::RetryBusyWorkerLater(worker)];
        if !unknown.is_empty() {
            instructions.push(Instruction::Say(FromWorker::RequestRefreshWhoHas { keys: unknown }));
        }
        Ok((keys.into_iter().map(|key| (key, Finish::Fetch)).collect(), instructions))
    }

    fn execution_ends(&mut self, key: &TaskKey) -> Result<Steps, Fatal> {
        if !self.tasks.contains_key(key) {
            return Err(Fatal(format!("an execution of {key} ended, which is not known")));
        }
        self.task(key).done = true;
        self.give_back(key);
        self.executing.remove(key);
        self.long_running.remove(key);
        Ok(self.ensure_computing())
    }
}
