//! An engine with simulated workers and Clients, moved by random numbers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay::dask::{HeldKey, TaskKey, WorkerAddress};
use mainstay::engine::{
    ClientId, CollectionId, Config, Engine, Graph, Instruction, Inventory, Millis, POLICIES, Past, ReplicaSummary, Requirements,
    Resources, RunId, Stimulus, Summary, WorkerId, WorkerProfile, WorkerSelector, WorkerStatus,
};

use crate::draw::{Draw, KEYS, amount, graph, key, place, requirements};
use crate::language::failure;
use crate::simulated_worker::{Ending, SimulatedWorker, Task, Told};

const COLLECTIONS: usize = 3;
const CLIENTS: u32 = 3;
const WORKERS_MAX: usize = 5;
/// More than a settled world needs.
const ROUNDS_TO_SETTLE: usize = 5_000;

/// What a test does next: which kind of thing, and a number that says which of those that can be done.
pub(crate) type Move = (u8, u32);

/// An engine and all that it talks to.
pub(crate) struct World {
    engine: Engine,
    now: Millis,
    workers: BTreeMap<WorkerId, SimulatedWorker>,
    workers_ever: u32,
    /// Those that have lost their engine and are not back yet.
    absent: Vec<SimulatedWorker>,
    /// What was asked for last, for the next engine.
    built: BTreeMap<CollectionId, (Graph, Vec<TaskKey>, Requirements)>,
    /// The collections whose graphs the present engine has not got yet.
    unbuilt: Vec<CollectionId>,
    config: Config,
    seed: u64,
    silent: BTreeSet<WorkerId>,
    /// What each Client was told last of each key.
    told: BTreeMap<(ClientId, TaskKey), &'static str>,
    /// What each Client wants, as it sees it.
    wants: BTreeSet<(ClientId, TaskKey)>,
    collections: BTreeSet<CollectionId>,
    /// The present collection of each name: one that is made again has another number.
    named: [CollectionId; COLLECTIONS],
    /// Whether the engine may hear several things before it is asked what to do about them.
    puts_off: bool,
    /// How collections stood before the first thing that nothing was done about so far.
    before: Option<BTreeMap<CollectionId, Summary>>,
    pub(crate) trace: Vec<(Instruction, Option<Task>)>,
}

impl World {
    pub(crate) fn new(policy: usize, seed: u64) -> Self {
        // Every graph is large where two tasks are many.
        let intake_tasks_max = if seed.is_multiple_of(2) { 2 } else { usize::MAX };
        let config = Config { placement: POLICIES[policy % POLICIES.len()], intake_tasks_max, ..Config::default() };
        Self {
            engine: Engine::new(config.clone(), seed),
            now: Millis(0),
            workers: BTreeMap::new(),
            workers_ever: 0,
            absent: Vec::new(),
            built: BTreeMap::new(),
            unbuilt: Vec::new(),
            config,
            seed,
            silent: BTreeSet::new(),
            told: BTreeMap::new(),
            wants: BTreeSet::new(),
            collections: BTreeSet::new(),
            named: std::array::from_fn(|index| CollectionId(index as u32)),
            puts_off: seed >= 2,
            before: None,
            trace: Vec::new(),
        }
    }

    fn handle(&mut self, stimulus: Stimulus) {
        self.act();
        self.hear(stimulus);
        self.act();
    }

    /// For what a server does not act on at once: what workers say, and what Clients want.
    fn hear(&mut self, stimulus: Stimulus) {
        if self.before.is_none() {
            self.before = Some(self.summaries());
        }
        self.engine.hear(self.now, stimulus);
        if !self.puts_off {
            self.act();
        }
    }

    fn act(&mut self) {
        let Some(before) = self.before.take() else { return };
        let mut instructions = Vec::new();
        self.engine.act(&mut instructions);
        if !cfg!(debug_assertions) {
            self.engine.check_invariants();
        }
        self.check_changes_are_told(&before, &instructions);
        for instruction in instructions {
            let run = self.carry_out(&instruction);
            self.trace.push((instruction, run));
        }
        self.check_nobody_is_over_committed();
    }

    fn summaries(&self) -> BTreeMap<CollectionId, Summary> {
        self.collections.iter().filter_map(|id| Some((*id, self.engine.summary(*id)?))).collect()
    }

    fn check_changes_are_told(&self, before: &BTreeMap<CollectionId, Summary>, instructions: &[Instruction]) {
        for (id, summary) in self.summaries() {
            let told = instructions.contains(&Instruction::CollectionChanged { collection: id });
            assert!(
                told || before.get(&id) == Some(&summary),
                "{id:?} changed in silence from {:#?} to {summary:#?}",
                before.get(&id)
            );
        }
    }

    fn check_nobody_is_over_committed(&self) {
        for worker in self.workers.values() {
            assert!(worker.profile.resources.covers(&worker.used()), "{:?} runs more than it can", worker.id);
        }
    }

    /// Gives the run that a worker is told of, if it is told of one.
    fn carry_out(&mut self, instruction: &Instruction) -> Option<Task> {
        match instruction {
            Instruction::ComputeTask { worker, run_id } => {
                let worker = self.workers.get_mut(worker).expect("tasks go to connected workers");
                let task = Task::read(self.engine.compute_task(*run_id).expect("a run that was not given up"));
                assert!(worker.profile.resources.covers(&task.resources));
                assert!(task.dependencies.iter().all(|(_, holders)| !holders.is_empty()), "each input has a holder");
                worker.inbox.push_back(Told::Run(Box::new(task.clone())));
                return Some(task);
            }
            Instruction::FreeKeys { worker, .. }
            | Instruction::AcquireReplicas { worker, .. }
            | Instruction::RemoveReplicas { worker, .. }
            | Instruction::StealRequest { worker, .. }
            | Instruction::RefreshWhoHas { worker, .. }
            | Instruction::RemoveWorker { worker, .. } => {
                let worker = self.workers.get_mut(worker).expect("instructions are for connected workers");
                worker.inbox.push_back(Told::Other(instruction.clone()));
            }
            Instruction::KeyInMemory { client, key, .. } => self.tell(*client, key, "memory"),
            Instruction::TaskErred { client, key, .. } => self.tell(*client, key, "erred"),
            Instruction::TaskRetried { client, key } => self.tell(*client, key, "retried"),
            Instruction::LostData { client, key } => {
                self.tell(*client, key, "lost");
                if key.to_string().starts_with("data") {
                    self.wants.remove(&(*client, key.clone()));
                }
            }
            Instruction::CancelledKeys { client, keys, .. } => {
                for key in keys {
                    self.tell(*client, key, "cancelled");
                    self.wants.remove(&(*client, key.clone()));
                }
            }
            Instruction::CollectionChanged { .. } | Instruction::ShuffleOver { .. } => {}
            Instruction::CollectionReleased { collection } => assert_eq!(self.engine.summary(*collection), None),
        }
        None
    }

    fn tell(&mut self, client: ClientId, key: &TaskKey, what: &'static str) {
        self.told.insert((client, key.clone()), what);
    }

    pub(crate) fn make(&mut self, (kind, number): Move) {
        let mut draw = Draw::new(number);
        self.now.0 += u64::from(draw.below(300));
        // What else somebody does comes after what was heard, as in a server.
        if !matches!(kind % 40, 0..=20 | 24) {
            self.act();
        }
        match kind % 40 {
            0..=6 => self.deliver_to_worker(&mut draw),
            7..=13 => self.deliver_to_engine(&mut draw),
            14..=18 => self.end_a_run(&mut draw),
            19 | 20 => self.fetch(&mut draw),
            21 => self.join(&mut draw, false),
            22 => self.leave(&mut draw),
            23 => self.change_status(&mut draw),
            24 => self.heartbeat(&mut draw),
            25 => self.build(&mut draw),
            26 => self.submit(&mut draw),
            27 => self.change_collection(&mut draw),
            28 => self.change_wishes(&mut draw),
            29 => self.lie(&mut draw),
            30 => self.scatter(&mut draw),
            31 => self.shuffle(&mut draw),
            32 => self.restart(&mut draw),
            33 | 34 => self.come_back(),
            35 => self.rebuild(),
            36 => self.handle(Stimulus::Hold { holds: false }),
            37 => self.fall_silent(&mut draw),
            38 => self.announce_end(&mut draw),
            _ => self.handle(Stimulus::Timeout),
        }
    }

    fn any_worker(&self, draw: &mut Draw, fits: impl Fn(&SimulatedWorker) -> bool) -> Option<WorkerId> {
        let ids: Vec<WorkerId> = self.workers.values().filter(|worker| fits(worker)).map(|worker| worker.id).collect();
        draw.pick(&ids)
    }

    /// A pod or node is going, or is not after all.
    fn announce_end(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |_| true) {
            self.handle(Stimulus::WorkerLeaving { worker: id, leaving: !draw.one_in(3) });
        }
    }

    /// For as long as nothing is heard of it: it may go on working all the same.
    fn fall_silent(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |_| true) {
            self.now.0 += u64::from(draw.below(30_000));
            self.silent.insert(id);
            self.handle(Stimulus::WorkerSilent { worker: id });
        }
    }

    fn hear_of(&mut self, id: WorkerId) {
        if self.silent.remove(&id) {
            self.handle(Stimulus::WorkerHeard { worker: id });
        }
    }

    fn deliver_to_worker(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |worker| !worker.inbox.is_empty()) {
            self.workers.get_mut(&id).expect("a worker").read();
        }
    }

    fn deliver_to_engine(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |worker| !worker.outbox.is_empty())
            && let Some(stimulus) = self.workers.get_mut(&id).expect("a worker").outbox.pop_front()
        {
            self.hear_of(id);
            self.say(stimulus);
            if draw.one_in(3) {
                self.act();
            }
        }
    }

    fn say(&mut self, stimulus: Stimulus) {
        match stimulus {
            Stimulus::WorkerStatusChanged { .. } => self.handle(stimulus),
            _ => self.hear(stimulus),
        }
    }

    fn end_a_run(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |worker| !worker.executing().is_empty()) {
            let worker = self.workers.get_mut(&id).expect("a worker");
            let key = draw.pick(&worker.executing()).expect("a run");
            let ending = [Ending::Result, Ending::Result, Ending::Result, Ending::Exception, Ending::Reschedule, Ending::Secede];
            worker.end(&key, draw.pick(&ending).expect("an ending"));
        }
    }

    fn fetch(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |worker| !worker.wanted_inputs().is_empty()) {
            let (key, said) = draw.pick(&self.workers[&id].wanted_inputs()).expect("an input");
            let holds = |worker: &SimulatedWorker| said.contains(&worker.profile.address) && worker.memory().contains(&key);
            let found = self.workers.values().any(holds);
            self.workers.get_mut(&id).expect("a worker").fetched(key, found);
        }
    }

    pub(crate) fn join(&mut self, draw: &mut Draw, adequate: bool) {
        if self.workers.len() >= WORKERS_MAX && !adequate {
            return;
        }
        self.workers_ever += 1;
        let id = WorkerId(self.workers_ever);
        let mut resources = Resources::default();
        if adequate || draw.one_in(2) {
            resources.0.insert("GPU".to_owned(), amount(if adequate { 4 } else { 1 + draw.below(3) }));
        }
        let disk = if adequate || draw.one_in(2) { "nvme" } else { "hdd" };
        let profile = WorkerProfile {
            address: WorkerAddress::new(format!("tcp://w{}:1", self.workers_ever)),
            name: format!("w{}", self.workers_ever),
            pod: None,
            node: None,
            nthreads: 1 + draw.below(3),
            memory_limit: None,
            resources,
            labels: BTreeMap::from([("disk".to_owned(), disk.to_owned())]),
            builder: !adequate && draw.one_in(10),
        };
        let mut worker = SimulatedWorker::new(id, profile.clone());
        worker.become_status(WorkerStatus::Running);
        self.workers.insert(id, worker);
        self.handle(Stimulus::WorkerJoined { worker: id, profile });
    }

    /// The engine dies, and another takes its place. Most workers will come back; Clients have to ask again.
    fn restart(&mut self, draw: &mut Draw) {
        self.before = None;
        self.config.epoch += 1;
        self.engine = Engine::new(self.config.clone(), self.seed);
        self.absent.extend(std::mem::take(&mut self.workers).into_values().filter(|_| !draw.one_in(5)));
        self.silent.clear();
        self.unbuilt = self.built.keys().copied().collect();
        self.collections.clear();
        self.wants.clear();
        self.told.clear();
        self.handle(Stimulus::Hold { holds: true });
    }

    fn come_back(&mut self) {
        let Some(mut worker) = self.absent.pop() else { return };
        self.workers_ever += 1;
        let id = WorkerId(self.workers_ever);
        worker.come_back(id);
        let profile = worker.profile.clone();
        self.workers.insert(id, worker);
        self.handle(Stimulus::WorkerJoined { worker: id, profile });
    }

    fn rebuild(&mut self) {
        let Some(collection) = self.unbuilt.pop() else { return };
        let (graph, wanted, requirements) = self.built[&collection].clone();
        self.collections.insert(collection);
        let outputs = vec![("out".to_owned(), wanted)];
        self.handle(Stimulus::CollectionBuilt { collection, graph, outputs, requirements, past: Past::default() });
    }

    fn leave(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |_| true) {
            self.workers.remove(&id);
            self.silent.remove(&id);
            let barriers = (0..draw.below(3)).map(|_| key(draw.below(KEYS))).collect();
            self.handle(Stimulus::WorkerLeft { worker: id, expected: draw.one_in(3), barriers });
        }
    }

    fn change_status(&mut self, draw: &mut Draw) {
        let statuses = [WorkerStatus::Paused, WorkerStatus::Running, WorkerStatus::Running, WorkerStatus::ClosingGracefully];
        if let Some(id) = self.any_worker(draw, |_| true) {
            self.workers.get_mut(&id).expect("a worker").become_status(draw.pick(&statuses).expect("a status"));
        }
    }

    fn heartbeat(&mut self, draw: &mut Draw) {
        if let Some(id) = self.any_worker(draw, |_| true) {
            self.hear_of(id);
            self.hear(self.workers[&id].heartbeat());
        }
    }

    fn build(&mut self, draw: &mut Draw) {
        let collection = self.named[draw.below(COLLECTIONS as u32) as usize];
        let (graph, wanted) = graph(draw);
        self.collections.insert(collection);
        if draw.one_in(2) {
            let generation = draw.one_in(3).then(|| u64::from(draw.below(9)));
            self.handle(Stimulus::CollectionApplied { collection, fifo_timeout_ms: 1_000, generation });
        }
        let requirements = requirements(draw);
        self.built.insert(collection, (graph.clone(), wanted.clone(), requirements.clone()));
        self.unbuilt.retain(|unbuilt| *unbuilt != collection);
        let outputs = vec![("out".to_owned(), wanted)];
        let failures = if draw.one_in(4) { vec![(key(draw.below(KEYS)), draw.below(3))] } else { Vec::new() };
        let past = Past { retries_used: failures.len() as u64, worker_lost: 0, failures };
        self.handle(Stimulus::CollectionBuilt { collection, graph, outputs, requirements, past });
    }

    fn change_collection(&mut self, draw: &mut Draw) {
        let index = draw.below(COLLECTIONS as u32) as usize;
        let collection = self.named[index];
        if draw.one_in(3) {
            self.collections.remove(&collection);
            self.built.remove(&collection);
            self.unbuilt.retain(|unbuilt| *unbuilt != collection);
            self.named[index] = CollectionId(collection.0 + COLLECTIONS as u32);
            self.handle(Stimulus::CollectionRemoved { collection });
        } else {
            let requirements = requirements(draw);
            if let Some((_, _, built)) = self.built.get_mut(&collection) {
                built.clone_from(&requirements);
            }
            self.handle(Stimulus::CollectionChanged { collection, requirements });
        }
    }

    fn submit(&mut self, draw: &mut Draw) {
        let client = ClientId(draw.below(CLIENTS));
        let (mut graph, wanted) = graph(draw);
        self.wants.extend(wanted.iter().map(|key| (client, key.clone())));
        let wanted = wanted.iter().map(|key| place(&mut graph, key)).collect();
        let submitting_task = draw.one_in(5).then(|| key(draw.below(KEYS)));
        self.handle(Stimulus::UpdateGraph { client, graph, wanted, requirements: requirements(draw), submitting_task });
    }

    fn change_wishes(&mut self, draw: &mut Draw) {
        let client = ClientId(draw.below(CLIENTS));
        let keys: Vec<TaskKey> = (0..1 + draw.below(4)).map(|_| key(draw.below(KEYS))).collect();
        match draw.below(7) {
            0 => {
                self.wants.extend(keys.iter().map(|key| (client, key.clone())));
                self.hear(Stimulus::ClientDesiresKeys { client, keys });
            }
            1 | 2 => {
                self.wants.retain(|(wanting, key)| *wanting != client || !keys.contains(key));
                self.hear(Stimulus::ClientReleasesKeys { client, keys });
            }
            3 => self.handle(Stimulus::CancelKeys { client, keys, force: draw.one_in(2) }),
            4 => self.handle(Stimulus::RetryKeys { keys }),
            5 => {
                let names = self.any_worker(draw, |_| true).map(|worker| vec![format!("w{}", worker.0)]);
                let workers = names.map(|names| WorkerSelector { names, ..WorkerSelector::default() });
                let tasks = keys.into_iter().map(|key| (key, workers.clone().filter(|_| draw.one_in(2)))).collect();
                self.handle(Stimulus::RestrictTasks { tasks });
            }
            _ => {
                self.wants.retain(|(wanting, _)| *wanting != client);
                self.handle(Stimulus::ClientLeft { client });
            }
        }
    }

    /// Any task may be a barrier here.
    fn shuffle(&mut self, draw: &mut Draw) {
        let barrier = key(draw.below(KEYS));
        match draw.below(3) {
            0 => self.handle(Stimulus::ShuffleRestarted { barrier }),
            _ => {
                let Some(worker) = self.any_worker(draw, |_| true) else { return };
                let outputs = (0..KEYS).map(key).filter(|output| self.engine.needs(output, &barrier));
                let outputs = outputs.map(|output| (output, worker)).collect();
                self.handle(Stimulus::ShufflePlaced { outputs });
            }
        }
    }

    fn scatter(&mut self, draw: &mut Draw) {
        let (client, key) = (ClientId(draw.below(CLIENTS)), TaskKey::from_text(&format!("data-{}", draw.below(3))));
        let Some(id) = self.any_worker(draw, |_| true) else { return };
        self.workers.get_mut(&id).expect("a worker").scattered(key.clone());
        self.wants.insert((client, key.clone()));
        self.handle(Stimulus::DataScattered { client, key, nbytes: 8, typename: "int".to_owned(), workers: vec![id] });
    }

    /// Says what makes no sense, or does what a worker may do of itself.
    fn lie(&mut self, draw: &mut Draw) {
        let worker = WorkerId(1 + draw.below(self.workers_ever + 1));
        let (key, run_id) = (key(draw.below(KEYS + 2)), RunId(u64::from(draw.below(50))));
        match draw.below(8) {
            7 => {
                let held = vec![HeldKey { key, nbytes: 1, type_pickle: Bytes::new(), is_actor: false }];
                // Only who has not said yet that it runs is believed.
                if self.workers.get(&worker).is_none_or(|worker| worker.outbox.is_empty()) {
                    self.handle(Stimulus::WorkerInventory { worker, inventory: Inventory { held, ..Inventory::default() } });
                }
            }
            0 => self.handle(Stimulus::TaskErred { worker, key, run_id, failure: failure("KeyError: 1") }),
            1 => self.handle(Stimulus::LongRunning { worker, key, run_id, compute_ms: Some(f64::NAN) }),
            2 => self.handle(Stimulus::StealResponse { worker, key, run_id, state: draw.one_in(2).then(|| "ready".to_owned()) }),
            3 => self.handle(Stimulus::RequestRefreshWhoHas { worker, keys: vec![key] }),
            4 => self.handle(Stimulus::WorkerStatusChanged { worker: WorkerId(10_000), status: WorkerStatus::Running }),
            5 => self.handle(Stimulus::WorkerHeartbeat { worker, memory: 0, bandwidth: Some(-1.0), executing: vec![] }),
            _ => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.lose(&key);
                }
            }
        }
    }

    /// From here on nothing fails, and one worker can run everything.
    pub(crate) fn settle(&mut self) {
        let mut draw = Draw::new(7);
        while !self.absent.is_empty() {
            self.come_back();
        }
        while !self.unbuilt.is_empty() {
            self.rebuild();
        }
        self.handle(Stimulus::Hold { holds: false });
        self.join(&mut draw, true);
        for worker in self.workers.values_mut() {
            worker.become_status(WorkerStatus::Running);
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.handle(Stimulus::WorkerLeaving { worker: id, leaving: false });
        }
        for id in std::mem::take(&mut self.silent) {
            self.handle(Stimulus::WorkerHeard { worker: id });
        }
        // What was restricted to a worker that has gone waits for it for ever, as it was asked to.
        self.handle(Stimulus::RestrictTasks { tasks: (0..KEYS).map(|index| (key(index), None)).collect() });
        // A shuffle that has lost a worker begins anew, so no task waits for that worker.
        for barrier in (0..KEYS).map(key) {
            self.handle(Stimulus::ShuffleRestarted { barrier });
        }
        for round in 0..ROUNDS_TO_SETTLE {
            self.now.0 += 100;
            for id in self.workers.keys().copied().collect::<Vec<_>>() {
                self.work_off(id);
            }
            if round % 5 == 4 {
                for id in self.workers.keys().copied().collect::<Vec<_>>() {
                    self.handle(self.workers[&id].heartbeat());
                }
            }
            while self.engine.next_timeout().is_some_and(|at| at <= self.now) {
                self.handle(Stimulus::Timeout);
            }
            if round == 10 {
                self.handle(Stimulus::ForgetBrought);
            }
            if round > 20 && self.lacking_copies().is_none() && self.workers.values().all(is_idle) {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.workers);
    }

    /// A collection with fewer copies than it could have.
    fn lacking_copies(&self) -> Option<ReplicaSummary> {
        // Copies follow the selectors of tasks: these workers all select.
        let may_hold = |worker: &&SimulatedWorker| !worker.profile.builder && worker.profile.labels["disk"] == "nvme";
        let takers = self.workers.values().filter(may_hold).count() as u32;
        let mut summaries = self.collections.iter().filter_map(|id| self.engine.summary(*id)?.replicas);
        summaries.find(|replicas| replicas.least < replicas.wanted.min(takers))
    }

    fn work_off(&mut self, id: WorkerId) {
        while !self.workers[&id].inbox.is_empty() {
            self.workers.get_mut(&id).expect("a worker").read();
        }
        for (key, said) in self.workers[&id].wanted_inputs() {
            let holds = |worker: &SimulatedWorker| said.contains(&worker.profile.address) && worker.memory().contains(&key);
            let found = self.workers.values().any(holds);
            self.workers.get_mut(&id).expect("a worker").fetched(key, found);
        }
        for key in self.workers[&id].executing() {
            self.workers.get_mut(&id).expect("a worker").end(&key, Ending::Result);
        }
        while let Some(stimulus) = self.workers.get_mut(&id).and_then(|worker| worker.outbox.pop_front()) {
            self.say(stimulus);
        }
        self.act();
    }

    /// Everything that is wanted has settled, and nobody holds what nobody wants.
    pub(crate) fn check_settled(&self) {
        for key in self.engine.keys() {
            let state = self.engine.task_state(key).expect("a known key");
            let is_settled = matches!(state, "memory" | "erred" | "released");
            assert!(is_settled, "{key} is {state}: {:#?}", self.engine.story(key));
        }
        for worker in self.workers.values() {
            let known: BTreeSet<TaskKey> = self.engine.has_what(worker.id).into_iter().collect();
            assert_eq!(known, worker.memory(), "what {:?} holds", worker.id);
        }
        assert_eq!(self.lacking_copies(), None);
        for worker in self.engine.workers() {
            assert!(worker.used.is_empty(), "nothing runs, so nothing is taken: {worker:?}");
        }
        for (client, key) in &self.wants {
            let told = self.told.get(&(*client, key.clone())).copied();
            match self.engine.task_state(key) {
                Some("memory") => assert_eq!(told, Some("memory"), "{client:?} and {key}"),
                Some("erred") => assert_eq!(told, Some("erred"), "{client:?} and {key}"),
                Some(_) | None => assert!(matches!(told, Some("lost" | "cancelled")), "{client:?} and {key}: {told:?}"),
            }
        }
    }
}

fn is_idle(worker: &SimulatedWorker) -> bool {
    worker.inbox.is_empty() && worker.outbox.is_empty() && worker.executing().is_empty() && worker.wanted_inputs().is_empty()
}
