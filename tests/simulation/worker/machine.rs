//! The state of a stock worker's tasks: events in, instructions out.
//!
//! A model of distributed 2026.8.0, worker_state_machine.py: `WorkerState`. `test_worker_model.py` plays the same events to both
//! and compares what they say. Where the stock worker follows the order of a set, which is any, this one follows the order
//! of keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use indexmap::IndexMap;
use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::wire::messages::{FromWorker, TaskErred, TaskFinished};
use mainstay::wire::opaque::plain_bytes;

use super::event::Instruction;
use super::task::{Finish, Next, Previous, State, Task, Value};

/// The steps that tasks are to take; the last to be added is the first to be taken.
pub(super) type Steps = IndexMap<TaskKey, Finish>;

/// An event that the stock worker would exit of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fatal(pub(crate) String);

pub(super) type Followed = Result<(Steps, Vec<Instruction>), Fatal>;

/// Stands for the pickle of every result's type.
const TYPE_PICKLE: &[u8] = b"int";

/// All that a worker knows.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) address: WorkerAddress,
    pub(super) nthreads: usize,
    pub(super) running: bool,
    pub(super) tasks: BTreeMap<TaskKey, Task>,
    pub(super) data: BTreeMap<TaskKey, Value>,
    pub(super) has_what: BTreeMap<WorkerAddress, BTreeSet<TaskKey>>,
    /// What is to be fetched, by who is said to have it.
    pub(super) data_needed: BTreeMap<WorkerAddress, BTreeSet<TaskKey>>,
    pub(super) in_flight: BTreeMap<WorkerAddress, BTreeSet<TaskKey>>,
    pub(super) busy: BTreeSet<WorkerAddress>,
    pub(super) missing: BTreeSet<TaskKey>,
    pub(super) ready: BTreeSet<TaskKey>,
    pub(super) constrained: BTreeSet<TaskKey>,
    pub(super) executing: BTreeSet<TaskKey>,
    pub(super) long_running: BTreeSet<TaskKey>,
    pub(super) available: BTreeMap<String, f64>,
    /// Of two tasks with the same priority the later one runs first.
    pub(super) generation: f64,
}

impl Machine {
    pub(crate) fn new(address: WorkerAddress, nthreads: usize, resources: BTreeMap<String, f64>) -> Self {
        Self {
            address,
            nthreads,
            running: true,
            tasks: BTreeMap::new(),
            data: BTreeMap::new(),
            has_what: BTreeMap::new(),
            data_needed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            busy: BTreeSet::new(),
            missing: BTreeSet::new(),
            ready: BTreeSet::new(),
            constrained: BTreeSet::new(),
            executing: BTreeSet::new(),
            long_running: BTreeSet::new(),
            available: resources,
            generation: 0.0,
        }
    }

    pub(crate) fn state(&self, key: &TaskKey) -> Option<State> {
        self.tasks.get(key).map(|task| task.state)
    }

    /// The run that an execution that starts now is of.
    pub(crate) fn run_id(&self, key: &TaskKey) -> Option<u64> {
        self.tasks.get(key)?.run_id
    }

    pub(crate) fn data(&self) -> &BTreeMap<TaskKey, Value> {
        &self.data
    }

    pub(crate) fn inputs(&self, key: &TaskKey) -> impl Iterator<Item = &TaskKey> {
        self.tasks.get(key).into_iter().flat_map(|task| &task.dependencies)
    }

    pub(super) fn task(&mut self, key: &TaskKey) -> &mut Task {
        self.tasks.get_mut(key).expect("a step is of a task that is known")
    }

    /// Takes steps until none is left.
    pub(super) fn follow(&mut self, steps: Steps) -> Result<Vec<Instruction>, Fatal> {
        let mut instructions = Vec::new();
        self.take_all(steps, &mut instructions)?;
        let (steps, gathers) = self.ensure_communicating();
        instructions.extend(gathers);
        self.take_all(steps, &mut instructions)?;
        Ok(instructions)
    }

    fn take_all(&mut self, mut steps: Steps, instructions: &mut Vec<Instruction>) -> Result<(), Fatal> {
        while let Some((key, finish)) = steps.pop() {
            if !self.tasks.contains_key(&key) {
                return Err(Fatal(format!("a step of {key}, which was forgotten")));
            }
            let (more, said) = self.transition(&key, finish)?;
            steps.extend(more);
            instructions.extend(said);
        }
        Ok(())
    }

    fn transition(&mut self, key: &TaskKey, finish: Finish) -> Followed {
        let start = self.tasks[key].state;
        if is(start, &finish) {
            return Ok(Default::default());
        }
        if self.is_unheard_of(key, start, &finish) {
            return Err(Fatal(format!("{key} from {start:?} to {finish:?} while that cannot be")));
        }
        if let Some(followed) = self.direct(key, start, &finish) {
            return followed;
        }
        if start == State::Released || finish == Finish::Released {
            return Err(Fatal(format!("no transition of {key} from {start:?} to {finish:?}")));
        }
        // By way of `released`.
        let (mut steps, mut instructions) = self.transition(key, Finish::Released)?;
        while let Some(step) = steps.shift_remove(key) {
            if step != Finish::Forgotten {
                let (more, said) = self.transition(key, step)?;
                merge(&mut steps, more)?;
                instructions.extend(said);
            }
        }
        let (more, said) = self.transition(key, finish)?;
        merge(&mut steps, more)?;
        instructions.extend(said);
        Ok((steps, instructions))
    }

    /// What the stock worker asserts to be impossible.
    fn is_unheard_of(&self, key: &TaskKey, start: State, finish: &Finish) -> bool {
        let Task { done, previous, .. } = &self.tasks[key];
        match (start, finish) {
            (State::Flight | State::Resumed, Finish::Released) | (State::Cancelled, Finish::Waiting) => *done,
            (State::Cancelled, Finish::Fetch) => *done && *previous != Some(Previous::Flight),
            (State::Flight, Finish::Missing)
            | (State::Executing | State::LongRunning | State::Resumed, Finish::Rescheduled)
            | (State::Resumed, Finish::Error(..)) => !done,
            _ => false,
        }
    }

    /// The transitions that there are; `None` for others, which lead through `released`.
    fn direct(&mut self, key: &TaskKey, start: State, finish: &Finish) -> Option<Followed> {
        use State::{
            Cancelled, Constrained, Error, Executing, Fetch, Flight, LongRunning, Memory, Missing, Ready, Released, Resumed,
            Waiting,
        };
        Some(Ok(match (start, finish) {
            (Cancelled, Finish::Error(..) | Finish::Memory(..) | Finish::Missing | Finish::Released | Finish::Rescheduled) => {
                self.cancelled_ends(key)
            }
            (Cancelled, Finish::Fetch) => self.cancelled_to_fetch(key),
            (Cancelled, Finish::Waiting) => self.cancelled_to_waiting(key),
            (Cancelled | Resumed, Finish::LongRunning(_)) => self.secedes_unasked(key),
            (Resumed, Finish::Error(..) | Finish::Rescheduled) => self.resumed_ends(key),
            (Resumed, Finish::Fetch) => self.resumed_to_fetch(key),
            (Resumed, Finish::Memory(value, run_id)) => {
                let task = self.task(key);
                let announced = task.previous == Some(Previous::Flight);
                (task.previous, task.next) = (None, None);
                self.enter_memory(key, *value, if announced { Told::Finished(*run_id) } else { Told::Added })
            }
            (Resumed, Finish::Released) => {
                let task = self.task(key);
                (task.state, task.next) = (Cancelled, None);
                Default::default()
            }
            (Executing | LongRunning, Finish::Released) => {
                let task = self.task(key);
                task.previous = Some(if start == Executing { Previous::Executing } else { Previous::LongRunning });
                task.state = Cancelled;
                Default::default()
            }
            (Flight, Finish::Released) => {
                let task = self.task(key);
                (task.state, task.previous, task.next) = (Cancelled, Some(Previous::Flight), None);
                Default::default()
            }
            (Memory, Finish::Released) => {
                let (steps, _) = self.release(key);
                (steps, vec![Instruction::Say(FromWorker::ReleaseWorkerData { key: key.clone() })])
            }
            (Constrained | Error | Fetch | Missing | Ready | Waiting, Finish::Released) => self.release(key),
            (Executing | Flight | LongRunning | Missing | Released, Finish::Error(text, run_id)) => {
                self.enter_error(key, text, *run_id)
            }
            (Executing, Finish::LongRunning(duration)) => self.secedes(key, *duration),
            (Executing | LongRunning, Finish::Memory(value, run_id)) => self.enter_memory(key, *value, Told::Finished(*run_id)),
            (Flight, Finish::Memory(value, _)) => self.enter_memory(key, *value, Told::Added),
            (Released, Finish::Memory(value, _)) => self.enter_memory(key, *value, Told::Nothing),
            (Executing | LongRunning, Finish::Rescheduled) => {
                let (steps, _) = self.release(key);
                (steps, vec![Instruction::Say(FromWorker::Reschedule { key: key.clone() })])
            }
            (Fetch, Finish::Flight(_)) => {
                let task = self.task(key);
                (task.state, task.done) = (Flight, false);
                Default::default()
            }
            (Fetch | Flight | Released, Finish::Missing) => {
                let task = self.task(key);
                (task.state, task.done) = (Missing, false);
                self.missing.insert(key.clone());
                Default::default()
            }
            (Flight, Finish::Fetch) if !self.tasks[key].done => Default::default(),
            (Missing, Finish::Fetch) if self.tasks[key].who_has.is_empty() => Default::default(),
            (Flight | Missing | Released, Finish::Fetch) => self.enter_fetch(key),
            (Missing, Finish::Waiting) => {
                self.purge(key);
                self.enter_waiting(key)
            }
            (Released, Finish::Waiting) => self.enter_waiting(key),
            (Released, Finish::Forgotten) => self.forget(key),
            (Waiting, Finish::Ready) if !self.tasks[key].resources.is_empty() => {
                (Steps::from([(key.clone(), Finish::Constrained)]), Vec::new())
            }
            (Waiting, Finish::Ready) => {
                self.task(key).state = Ready;
                self.ready.insert(key.clone());
                (self.ensure_computing(), Vec::new())
            }
            (Waiting, Finish::Constrained) => {
                self.task(key).state = Constrained;
                self.constrained.insert(key.clone());
                (self.ensure_computing(), Vec::new())
            }
            (Ready | Constrained, Finish::Executing) => {
                self.task(key).state = Executing;
                (Steps::new(), vec![Instruction::Execute(key.clone())])
            }
            _ => return None,
        }))
    }

    fn enter_fetch(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        self.missing.remove(key);
        let task = self.task(key);
        if task.who_has.is_empty() {
            return (Steps::from([(key.clone(), Finish::Missing)]), Vec::new());
        }
        (task.state, task.done) = (State::Fetch, false);
        for worker in task.who_has.clone() {
            self.data_needed.entry(worker).or_default().insert(key.clone());
        }
        Default::default()
    }

    fn enter_waiting(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let mut steps = Steps::new();
        let absent: BTreeSet<TaskKey> =
            self.tasks[key].dependencies.iter().filter(|input| self.tasks[*input].state != State::Memory).cloned().collect();
        for input in &absent {
            self.task(input).waiters.insert(key.clone());
            steps.insert(input.clone(), Finish::Fetch);
        }
        if absent.is_empty() {
            steps.insert(key.clone(), Finish::Ready);
        }
        let task = self.task(key);
        (task.waiting_for_data, task.state) = (absent, State::Waiting);
        (steps, Vec::new())
    }

    fn enter_error(&mut self, key: &TaskKey, text: &str, run_id: u64) -> (Steps, Vec<Instruction>) {
        self.task(key).state = State::Error;
        let erred = TaskErred {
            key: key.clone(),
            run_id,
            exception: plain_bytes(Bytes::new()),
            traceback: None,
            exception_text: text.to_owned(),
            traceback_text: String::new(),
        };
        (Steps::new(), vec![Instruction::Say(FromWorker::TaskErred(Box::new(erred)))])
    }

    fn enter_memory(&mut self, key: &TaskKey, value: Value, told: Told) -> (Steps, Vec<Instruction>) {
        self.data.insert(key.clone(), value);
        let task = self.task(key);
        task.state = State::Memory;
        task.nbytes = Some(task.nbytes.unwrap_or(8));
        let dependents = task.dependents.clone();
        let mut steps = Steps::new();
        for dependent in dependents {
            let reader = self.task(&dependent);
            reader.waiting_for_data.remove(key);
            if reader.waiting_for_data.is_empty() && reader.state == State::Waiting {
                steps.insert(dependent, Finish::Ready);
            }
        }
        let said = match told {
            Told::Nothing => None,
            Told::Added => Some(FromWorker::AddKeys { keys: vec![key.clone()] }),
            Told::Finished(run_id) => Some(self.finished(key, run_id)),
        };
        (steps, said.map(Instruction::Say).into_iter().collect())
    }

    pub(super) fn finished(&self, key: &TaskKey, run_id: u64) -> FromWorker {
        FromWorker::TaskFinished(TaskFinished {
            key: key.clone(),
            run_id,
            nbytes: self.tasks[key].nbytes.unwrap_or_default(),
            type_pickle: Bytes::from_static(TYPE_PICKLE),
            compute_seconds: None,
        })
    }

    fn cancelled_ends(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        if !task.done {
            return Default::default();
        }
        (task.previous, task.done) = (None, false);
        self.release(key)
    }

    fn cancelled_to_fetch(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        match (task.previous, task.done) {
            // The transfer of something that was let go of has ended.
            (Some(Previous::Flight), true) => return (Steps::from([(key.clone(), Finish::Released)]), Vec::new()),
            (Some(Previous::Flight), false) => (task.state, task.previous) = (State::Flight, None),
            _ => (task.state, task.next) = (State::Resumed, Some(Next::Fetch)),
        }
        Default::default()
    }

    fn cancelled_to_waiting(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        match task.previous {
            Some(Previous::Executing) => (task.state, task.previous) = (State::Executing, None),
            Some(Previous::LongRunning) => {
                (task.state, task.previous) = (State::LongRunning, None);
                let run_id = task.run_id.unwrap_or_default();
                let said = FromWorker::LongRunning { key: key.clone(), run_id, compute_duration: None };
                return (Steps::new(), vec![Instruction::Say(said)]);
            }
            _ => (task.state, task.next) = (State::Resumed, Some(Next::Waiting)),
        }
        Default::default()
    }

    /// What was under way failed: what was asked for last begins, and nobody is told.
    fn resumed_ends(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        let next = if task.previous == Some(Previous::Flight) { Finish::Waiting } else { Finish::Fetch };
        (task.state, task.done, task.previous, task.next) = (State::Released, false, None, None);
        (Steps::from([(key.clone(), next)]), Vec::new())
    }

    fn resumed_to_fetch(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        if task.previous != Some(Previous::Flight) {
            return Default::default();
        }
        if task.done {
            return self.resumed_ends(key);
        }
        (task.state, task.previous, task.next) = (State::Flight, None, None);
        Default::default()
    }

    fn secedes(&mut self, key: &TaskKey, duration: Option<f64>) -> (Steps, Vec<Instruction>) {
        let task = self.task(key);
        task.state = State::LongRunning;
        let run_id = task.run_id.unwrap_or_default();
        self.executing.remove(key);
        self.long_running.insert(key.clone());
        let said = FromWorker::LongRunning { key: key.clone(), run_id, compute_duration: duration };
        (self.ensure_computing(), vec![Instruction::Say(said)])
    }

    fn secedes_unasked(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        self.task(key).previous = Some(Previous::LongRunning);
        self.executing.remove(key);
        self.long_running.insert(key.clone());
        (self.ensure_computing(), Vec::new())
    }

    fn release(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        self.purge(key);
        let mut steps = Steps::new();
        for input in &self.tasks[key].dependencies {
            let input_task = &self.tasks[input];
            if input_task.waiters.is_empty() && !input_task.state.is_needed_itself() {
                steps.insert(input.clone(), Finish::Released);
            }
        }
        let task = self.task(key);
        task.state = State::Released;
        if task.dependents.is_empty() {
            steps.insert(key.clone(), Finish::Forgotten);
        }
        (steps, Vec::new())
    }

    fn forget(&mut self, key: &TaskKey) -> (Steps, Vec<Instruction>) {
        let mut steps = Steps::new();
        for input in self.tasks[key].dependencies.clone() {
            let task = self.task(&input);
            task.dependents.remove(key);
            if task.state == State::Released && task.dependents.is_empty() {
                steps.insert(input, Finish::Forgotten);
            }
        }
        self.purge(key);
        self.tasks.remove(key);
        (steps, Vec::new())
    }

    /// Takes a task out of all that hangs on its state.
    fn purge(&mut self, key: &TaskKey) {
        self.data.remove(key);
        let task = self.task(key);
        let (holders, inputs) = (std::mem::take(&mut task.who_has), task.dependencies.clone());
        task.waiting_for_data.clear();
        (task.nbytes, task.previous, task.next, task.done) = (None, None, None, false);
        for holder in holders {
            self.has_what.entry(holder.clone()).or_default().remove(key);
            self.data_needed.entry(holder).or_default().remove(key);
        }
        for input in inputs {
            self.task(&input).waiters.remove(key);
        }
        for set in [&mut self.missing, &mut self.ready, &mut self.constrained, &mut self.executing, &mut self.long_running] {
            set.remove(key);
        }
    }
}

/// What the scheduler is told of a result.
enum Told {
    Nothing,
    Added,
    Finished(u64),
}

fn is(state: State, finish: &Finish) -> bool {
    matches!(
        (state, finish),
        (State::Released, Finish::Released)
            | (State::Waiting, Finish::Waiting)
            | (State::Fetch, Finish::Fetch)
            | (State::Flight, Finish::Flight(_))
            | (State::Missing, Finish::Missing)
            | (State::Ready, Finish::Ready)
            | (State::Constrained, Finish::Constrained)
            | (State::Executing, Finish::Executing)
            | (State::LongRunning, Finish::LongRunning(_))
            | (State::Memory, Finish::Memory(..))
            | (State::Error, Finish::Error(..))
    )
}

fn merge(steps: &mut Steps, more: Steps) -> Result<(), Fatal> {
    for (key, finish) in more {
        if steps.get(&key).is_some_and(|known| *known != finish) {
            return Err(Fatal(format!("two different steps for {key}")));
        }
        steps.insert(key, finish);
    }
    Ok(())
}
