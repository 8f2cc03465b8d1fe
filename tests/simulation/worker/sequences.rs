//! Random events with what the model makes of them, for the comparison with the stock worker's own state machine.

use std::collections::BTreeMap;
use std::io::Write as _;

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::wire::messages::FromWorker;
use serde_json::{Value as Json, json};

use super::event::{Event, Inputs, Instruction};
use super::machine::Machine;
use super::task::{Previous, State};
use crate::random::Random;

const KEYS: u64 = 7;
const PEERS: u64 = 3;
/// Where nobody says how many.
const FEW: u64 = 300;

/// Draws events that make sense where the machine is.
struct Author {
    random: Random,
    machine: Machine,
    runs: BTreeMap<TaskKey, u64>,
    next_run: u64,
}

impl Author {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let resources = BTreeMap::from([("GPU".to_owned(), 2.0)]);
        let nthreads = random.between(1, 3) as usize;
        let machine = Machine::new(WorkerAddress::new("tcp://here:1"), nthreads, resources);
        Self { random, machine, runs: BTreeMap::new(), next_run: 0 }
    }

    fn key(&mut self) -> TaskKey {
        TaskKey::from_text(&format!("k-{}", self.random.below(KEYS)))
    }

    /// Keys with numbers that are lower, so that nothing reads itself.
    fn inputs(&mut self, key: &TaskKey) -> Inputs {
        let mut inputs = Inputs::new();
        for other in (0..KEYS).map(|number| TaskKey::from_text(&format!("k-{number}"))).filter(|other| other < key) {
            if self.random.one_in(4) {
                inputs.push((other, 8, self.peers()));
            }
        }
        // A task reads the same however often it is given.
        let known: Vec<TaskKey> = self.machine.inputs(key).cloned().collect();
        if known.is_empty() || self.machine.state(key).is_none() {
            return inputs;
        }
        known.into_iter().map(|input| (input, 8, self.peers())).collect()
    }

    fn peers(&mut self) -> Vec<WorkerAddress> {
        let mut peers: Vec<WorkerAddress> =
            (0..PEERS).filter(|_| self.random.one_in(2)).map(|peer| WorkerAddress::new(format!("tcp://p{peer}:1"))).collect();
        if peers.is_empty() || self.random.one_in(10) {
            peers.push(if self.random.one_in(3) { self.machine.address.clone() } else { WorkerAddress::new("tcp://p9:1") });
        }
        peers
    }

    fn event(&mut self) -> Event {
        let running: Vec<TaskKey> = self.runs.keys().cloned().collect();
        let asked: Vec<WorkerAddress> = self.machine.in_flight.keys().cloned().collect();
        match self.random.below(24) {
            0..=4 => self.compute_task(),
            5..=7 => Event::FreeKeys((0..self.random.between(1, 3)).map(|_| self.key()).collect()),
            8 => {
                let key = self.key();
                Event::AcquireReplicas(vec![(key, 8, self.peers())])
            }
            9 => Event::RemoveReplicas(vec![self.key()]),
            10 => Event::StealRequest { key: self.key(), stimulus_id: "steal-1".to_owned() },
            11 => {
                let key = self.key();
                let holders = if self.random.one_in(4) { Vec::new() } else { self.peers() };
                Event::RefreshWhoHas(vec![(key, holders)])
            }
            12 if self.random.one_in(3) => {
                Event::RemoveWorker(WorkerAddress::new(format!("tcp://p{}:1", self.random.below(PEERS))))
            }
            13 if self.random.one_in(2) => {
                if self.machine.running {
                    Event::Pause
                } else {
                    Event::Unpause
                }
            }
            14 => Event::FindMissing,
            15 if !self.machine.busy.is_empty() => {
                Event::RetryBusyWorker(self.machine.busy.first().expect("there is one").clone())
            }
            16..=18 if !asked.is_empty() => self.answer(&asked),
            _ if !running.is_empty() => self.run_ends(&running),
            _ if !asked.is_empty() => self.answer(&asked),
            _ => self.compute_task(),
        }
    }

    fn compute_task(&mut self) -> Event {
        let key = self.key();
        self.next_run += 1;
        let inputs = self.inputs(&key);
        let priority = [self.random.below(2) as f64, 1.0, self.random.below(9) as f64];
        let resources = self.random.one_in(4).then(|| ("GPU".to_owned(), self.random.between(1, 2) as f64));
        Event::ComputeTask { key, run_id: self.next_run, inputs, priority, resources: resources.into_iter().collect() }
    }

    fn run_ends(&mut self, running: &[TaskKey]) -> Event {
        let key = self.random.pick(running).expect("something runs");
        if self.random.one_in(6) {
            return Event::Seceded(key);
        }
        let run_id = self.runs.remove(&key).expect("it runs");
        match self.random.below(6) {
            0 => Event::ExecutionFailed { key, run_id, text: "ValueError: 1".to_owned() },
            1 => Event::Rescheduled(key),
            _ => Event::Executed { key, run_id, value: 1, nbytes: 8 },
        }
    }

    fn answer(&mut self, asked: &[WorkerAddress]) -> Event {
        let worker = self.random.pick(asked).expect("somebody was asked");
        match self.random.below(6) {
            0 => Event::GatherBusy(worker),
            1 => Event::GatherFailed(worker),
            _ => {
                let keys = self.machine.in_flight[&worker].clone();
                Event::Gathered {
                    worker,
                    data: keys.into_iter().filter(|_| !self.random.one_in(5)).map(|key| (key, 1)).collect(),
                }
            }
        }
    }

    /// One event with its answers; nothing when the worker would exit of it.
    fn step(&mut self) -> (Json, Option<Vec<Json>>) {
        let event = self.event();
        let line = show_event(&event);
        let Ok(instructions) = self.machine.handle(event) else { return (line, None) };
        for instruction in &instructions {
            if let Instruction::Execute(key) = instruction {
                let run_id = self.machine.run_id(key).expect("it was told to run it");
                self.runs.insert(key.clone(), run_id);
            }
        }
        (line, Some(instructions.iter().map(show_instruction).collect()))
    }

    /// What is told of a task is what the states of both sides have in common.
    fn states(&self) -> BTreeMap<String, String> {
        let show = |task: &super::task::Task| match (task.state, task.previous) {
            (State::Cancelled | State::Resumed, Some(Previous::Flight)) => format!("{}(flight)", task.state.as_str()),
            (state, _) => state.as_str().to_owned(),
        };
        self.machine.tasks.iter().map(|(key, task)| (key.to_string(), show(task))).collect()
    }
}

fn show_event(event: &Event) -> Json {
    let keys = |keys: &[TaskKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let holders = |holders: &[WorkerAddress]| holders.iter().map(ToString::to_string).collect::<Vec<_>>();
    let inputs =
        |inputs: &Inputs| inputs.iter().map(|(key, n, who)| json!([key.to_string(), n, holders(who)])).collect::<Vec<_>>();
    match event {
        Event::ComputeTask { key, run_id, inputs: reads, priority, resources } => json!({
            "op": "compute-task", "key": key.to_string(), "run_id": run_id, "inputs": inputs(reads), "priority": priority,
            "resources": resources,
        }),
        Event::FreeKeys(freed) => json!({"op": "free-keys", "keys": keys(freed)}),
        Event::AcquireReplicas(replicas) => json!({"op": "acquire-replicas", "inputs": inputs(replicas)}),
        Event::RemoveReplicas(removed) => json!({"op": "remove-replicas", "keys": keys(removed)}),
        Event::StealRequest { key, stimulus_id } => {
            json!({"op": "steal-request", "key": key.to_string(), "stimulus_id": stimulus_id})
        }
        Event::RefreshWhoHas(who_has) => {
            let who_has: BTreeMap<String, Vec<String>> =
                who_has.iter().map(|(key, who)| (key.to_string(), holders(who))).collect();
            json!({"op": "refresh-who-has", "who_has": who_has})
        }
        Event::RemoveWorker(worker) => json!({"op": "remove-worker", "worker": worker.to_string()}),
        Event::Pause => json!({"op": "pause"}),
        Event::Unpause => json!({"op": "unpause"}),
        Event::RetryBusyWorker(worker) => json!({"op": "retry-busy-worker", "worker": worker.to_string()}),
        Event::FindMissing => json!({"op": "find-missing"}),
        Event::Gathered { worker, data } => {
            let data: Vec<String> = data.keys().map(ToString::to_string).collect();
            json!({"op": "gathered", "worker": worker.to_string(), "keys": data})
        }
        Event::GatherBusy(worker) => json!({"op": "gather-busy", "worker": worker.to_string()}),
        Event::GatherFailed(worker) => json!({"op": "gather-failed", "worker": worker.to_string()}),
        Event::Executed { key, run_id, nbytes, .. } => {
            json!({"op": "executed", "key": key.to_string(), "run_id": run_id, "nbytes": nbytes})
        }
        Event::ExecutionFailed { key, run_id, text } => {
            json!({"op": "execution-failed", "key": key.to_string(), "run_id": run_id, "text": text})
        }
        Event::Rescheduled(key) => json!({"op": "rescheduled", "key": key.to_string()}),
        Event::Seceded(key) => json!({"op": "seceded", "key": key.to_string()}),
    }
}

fn show_instruction(instruction: &Instruction) -> Json {
    let message = match instruction {
        Instruction::Execute(key) => return json!(["execute", key.to_string()]),
        Instruction::Gather { worker, keys } => {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            return json!(["gather", worker.to_string(), keys]);
        }
        Instruction::RetryBusyWorkerLater(worker) => return json!(["retry-later", worker.to_string()]),
        Instruction::Say(message) => message,
    };
    let keys = |keys: &[TaskKey]| {
        let mut keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    };
    match message {
        FromWorker::TaskFinished(done) => json!(["task-finished", done.key.to_string(), done.run_id, done.nbytes]),
        FromWorker::TaskErred(erred) => json!(["task-erred", erred.key.to_string(), erred.run_id, erred.exception_text]),
        FromWorker::Reschedule { key } => json!(["reschedule", key.to_string()]),
        FromWorker::LongRunning { key, run_id, compute_duration } => {
            json!(["long-running", key.to_string(), run_id, compute_duration])
        }
        FromWorker::ReleaseWorkerData { key } => json!(["release-worker-data", key.to_string()]),
        FromWorker::AddKeys { keys: added } => json!(["add-keys", keys(added)]),
        FromWorker::RequestRefreshWhoHas { keys: missed } => json!(["request-refresh-who-has", keys(missed)]),
        FromWorker::StealResponse { key, state, stimulus_id } => json!(["steal-response", key.to_string(), state, stimulus_id]),
        other => panic!("the state machine does not say {other:?}"),
    }
}

/// Writes sequences to the file that `SEQUENCES` names, `SEEDS` of them; without one it only sees that they can be drawn.
#[test]
fn sequences_of_events_for_the_stock_worker() {
    let count = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(FEW);
    let mut file = std::env::var_os("SEQUENCES").map(|path| std::io::BufWriter::new(std::fs::File::create(path).unwrap()));
    for seed in 0..count {
        let mut author = Author::new(seed);
        let mut events = Vec::new();
        for _ in 0..author.random.between(5, 80) {
            let (event, answers) = author.step();
            let exits = answers.is_none();
            events.push(json!({"event": event, "answers": answers, "states": author.states()}));
            if exits {
                break;
            }
        }
        let sequence = json!({"seed": seed, "nthreads": author.machine.nthreads, "events": events});
        if let Some(file) = &mut file {
            writeln!(file, "{sequence}").unwrap();
        }
    }
}
