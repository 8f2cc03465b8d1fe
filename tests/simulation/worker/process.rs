//! A worker's process: its tasks' state, its threads, and what it has to say.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::engine::{Amount, Resources, WorkerProfile};
use mainstay::wire::messages::{FromWorker, ToWorker};

use super::event::{Event, Instruction};
use super::machine::Machine;
use super::task::{State, Value};
use crate::codec::{encoded, framed};
use crate::world::LinkId;

/// What the world does on a worker's behalf.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A thread runs this; what it read is known from the start.
    Runs {
        key: TaskKey,
        number: u64,
    },
    Asks {
        peer: WorkerAddress,
        keys: Vec<TaskKey>,
    },
    RetriesLater {
        peer: WorkerAddress,
    },
}

/// A function that runs.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) number: u64,
    pub(crate) run_id: u64,
    pub(crate) inputs: BTreeMap<TaskKey, Value>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) profile: WorkerProfile,
    pub(crate) link: LinkId,
    pub(crate) machine: Machine,
    pub(crate) status: &'static str,
    pub(crate) runs: BTreeMap<TaskKey, Run>,
    /// Said and not yet written: batches go out every few milliseconds.
    said: Vec<FromWorker>,
    /// Told to exit.
    pub(crate) is_over: bool,
}

impl Process {
    pub(crate) fn new(profile: WorkerProfile, link: LinkId) -> Self {
        let resources = profile.resources.iter().map(|(name, amount)| (name.to_owned(), amount.as_f64())).collect();
        let machine = Machine::new(profile.address.clone(), profile.nthreads as usize, resources);
        Self { profile, link, machine, status: "running", runs: BTreeMap::new(), said: Vec::new(), is_over: false }
    }

    /// Takes in one message of the scheduler.
    pub(crate) fn read(&mut self, bytes: &Bytes, numbers: &mut u64) -> Vec<Effect> {
        let messages = ToWorker::decode_batch(&framed(bytes)).expect("what we say can be read");
        let mut effects = Vec::new();
        for message in messages {
            let event = match message {
                ToWorker::ComputeTask(task) => Event::ComputeTask {
                    key: task.key,
                    run_id: task.run_id,
                    inputs: task.dependencies,
                    priority: [-task.priority.user, task.priority.generation, task.priority.order as f64],
                    resources: task.resource_restrictions.into_iter().collect(),
                },
                ToWorker::FreeKeys { keys, .. } => Event::FreeKeys(keys),
                ToWorker::AcquireReplicas { replicas, .. } => Event::AcquireReplicas(replicas),
                ToWorker::RemoveReplicas { keys, .. } => Event::RemoveReplicas(keys),
                ToWorker::StealRequest { key, stimulus_id } => Event::StealRequest { key, stimulus_id },
                ToWorker::RefreshWhoHas { who_has, .. } => Event::RefreshWhoHas(who_has),
                ToWorker::RemoveWorker { worker, .. } => Event::RemoveWorker(worker),
                ToWorker::Close { .. } => {
                    self.is_over = true;
                    return effects;
                }
                other => panic!("the engine has no use for {other:?}"),
            };
            effects.extend(self.on(event, numbers));
        }
        effects
    }

    /// Takes in an event.
    ///
    /// # Panics
    /// When the stock worker would exit of it: nothing that the scheduler says may do that.
    pub(crate) fn on(&mut self, event: Event, numbers: &mut u64) -> Vec<Effect> {
        let told = format!("{event:?}");
        let instructions = self.machine.handle(event);
        let instructions =
            instructions.unwrap_or_else(|fatal| panic!("{} exits: {}; it was told {told}", self.profile.name, fatal.0));
        let mut effects = Vec::new();
        for instruction in instructions {
            match instruction {
                Instruction::Say(message) => self.said.push(message),
                Instruction::Gather { worker, keys } => {
                    effects.push(Effect::Asks { peer: worker, keys: keys.into_iter().collect() });
                }
                Instruction::RetryBusyWorkerLater(peer) => effects.push(Effect::RetriesLater { peer }),
                Instruction::Execute(key) => {
                    *numbers += 1;
                    let read = |input: &TaskKey| (input.clone(), *self.machine.data().get(input).expect("inputs are there"));
                    let inputs = self.machine.inputs(&key).map(read).collect();
                    let run_id = self.machine.run_id(&key).expect("it was told to run it");
                    self.runs.insert(key.clone(), Run { number: *numbers, run_id, inputs });
                    effects.push(Effect::Runs { key, number: *numbers });
                }
            }
        }
        self.check_resources();
        effects
    }

    /// What it was given that takes resources fits in what it has, whatever the scheduler has given up meanwhile.
    fn check_resources(&self) {
        let mut given: BTreeMap<&str, f64> = BTreeMap::new();
        for task in self.machine.tasks.values() {
            let holds = match task.state {
                State::Waiting | State::Ready | State::Constrained | State::Executing | State::LongRunning => true,
                State::Cancelled | State::Resumed => task.previous != Some(super::task::Previous::Flight),
                State::Released | State::Fetch | State::Flight | State::Missing | State::Memory | State::Error => false,
            };
            for (name, amount) in task.resources.iter().filter(|_| holds) {
                *given.entry(name).or_default() += amount;
            }
        }
        for (name, amount) in given {
            let has = self.profile.resources.get(name).as_f64();
            assert!(amount <= has + 1e-9, "{} was given {amount} of {name} and has {has}", self.profile.name);
        }
    }

    pub(crate) fn say(&mut self, message: FromWorker) {
        self.said.push(message);
    }

    pub(crate) fn become_status(&mut self, status: &'static str, numbers: &mut u64) -> Vec<Effect> {
        self.status = status;
        self.say(FromWorker::WorkerStatusChange { status: status.to_owned() });
        self.on(if status == "running" { Event::Unpause } else { Event::Pause }, numbers)
    }

    /// All that it has to say, as one message.
    pub(crate) fn flush(&mut self) -> Option<Bytes> {
        let said = std::mem::take(&mut self.said);
        (!said.is_empty()).then(|| encoded(&said))
    }

    pub(crate) fn has_said(&self) -> bool {
        !self.said.is_empty()
    }

    /// What heartbeats list.
    pub(crate) fn executing(&self) -> Vec<TaskKey> {
        self.runs.keys().cloned().collect()
    }

    /// Whether nothing will happen here by itself.
    pub(crate) fn is_idle(&self) -> bool {
        let rests = |state: State| matches!(state, State::Memory | State::Released);
        self.said.is_empty() && self.runs.is_empty() && self.machine.tasks.values().all(|task| rests(task.state))
    }
}

pub(crate) fn gpus(count: u64) -> Resources {
    let amount = Amount::from_f64(count as f64).expect("an amount");
    Resources((count > 0).then(|| ("GPU".to_owned(), amount)).into_iter().collect())
}
