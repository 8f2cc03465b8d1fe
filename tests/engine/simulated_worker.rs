//! A worker as the engine sees it: takes instructions in order, answers in order, each whenever the test likes.
//!
//! It behaves as the stock worker does where it matters to a scheduler (distributed 2026.8.0, worker_state_machine.py): a
//! run that was told to stop goes on without a word, and a task that is given again meanwhile resumes the first run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mainstay::dask::{HeldKey, Priority, TaskKey, WorkerAddress};
use mainstay::engine::{
    ComputeTask, Instruction, Inventory, Resources, RunId, StartedRun, Stimulus, WorkerId, WorkerProfile, WorkerStatus,
};

use crate::language::failure;

/// How a run ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Result,
    Exception,
    Reschedule,
    /// It does not end, but gives its thread back.
    Secede,
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Run(Box<Task>),
    Other(Instruction),
}

/// A run, as far as a worker has to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Task {
    pub(crate) key: TaskKey,
    pub(crate) run_id: RunId,
    pub(crate) dependencies: Vec<(TaskKey, Vec<WorkerAddress>)>,
    pub(crate) priority: Priority,
    pub(crate) resources: Resources,
}

impl Task {
    pub(crate) fn read(task: ComputeTask<'_>) -> Self {
        let dependencies = task.dependencies().map(|each| (each.key().clone(), each.holders().cloned().collect()));
        Self {
            key: task.key().clone(),
            run_id: task.run_id(),
            dependencies: dependencies.collect(),
            priority: task.priority(),
            resources: task.resources().clone(),
        }
    }
}

/// What a worker knows of a key.
#[derive(Debug)]
enum Held {
    /// Waits for inputs or for a thread.
    Pending(Box<Task>),
    Executing {
        task: Box<Task>,
        cancelled: bool,
        seceded: bool,
    },
    Memory {
        /// To be dropped as soon as nothing here needs it.
        doomed: bool,
    },
    Error(RunId),
}

/// A worker, its connection included.
#[derive(Debug)]
pub(crate) struct SimulatedWorker {
    pub(crate) id: WorkerId,
    pub(crate) profile: WorkerProfile,
    pub(crate) status: WorkerStatus,
    /// Sent by the engine and not yet read.
    pub(crate) inbox: VecDeque<Told>,
    /// Written and not yet read by the engine.
    pub(crate) outbox: VecDeque<Stimulus>,
    keys: BTreeMap<TaskKey, Held>,
    /// What it is to fetch for others' sake, and from whom.
    acquiring: BTreeMap<TaskKey, Vec<WorkerAddress>>,
}

impl SimulatedWorker {
    pub(crate) fn new(id: WorkerId, profile: WorkerProfile) -> Self {
        let (inbox, outbox, keys, acquiring) = Default::default();
        Self { id, profile, status: WorkerStatus::Init, inbox, outbox, keys, acquiring }
    }

    /// Reads one instruction.
    pub(crate) fn read(&mut self) {
        match self.inbox.pop_front() {
            Some(Told::Run(task)) => self.compute(task),
            Some(Told::Other(instruction)) => self.follow(instruction),
            None => {}
        }
        self.start();
    }

    fn follow(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::FreeKeys { keys, .. } => keys.iter().for_each(|key| self.free(key)),
            Instruction::StealRequest { key, run_id, .. } => self.give_back(key, run_id),
            Instruction::RefreshWhoHas { who_has, .. } => self.refresh(&who_has),
            Instruction::RemoveReplicas { keys, .. } => keys.iter().for_each(|key| self.remove_replica(key)),
            Instruction::AcquireReplicas { replicas, .. } => {
                self.acquiring.extend(replicas.into_iter().map(|(key, _, holders)| (key, holders)));
            }
            _ => {}
        }
    }

    fn compute(&mut self, task: Box<Task>) {
        match self.keys.get_mut(&task.key) {
            // The first run is resumed, and will answer as the first run.
            Some(Held::Executing { cancelled, .. }) => *cancelled = false,
            Some(Held::Memory { doomed }) => {
                *doomed = false;
                self.say_finished(&task.key.clone(), task.run_id);
            }
            Some(Held::Pending(_) | Held::Error(_)) | None => {
                self.keys.insert(task.key.clone(), Held::Pending(task));
            }
        }
    }

    fn free(&mut self, key: &TaskKey) {
        self.acquiring.remove(key);
        match self.keys.get_mut(key) {
            Some(Held::Executing { cancelled, .. }) => *cancelled = true,
            Some(Held::Memory { doomed }) => *doomed = true,
            Some(Held::Pending(_) | Held::Error(_)) => {
                self.keys.remove(key);
            }
            None => {}
        }
        self.drop_doomed();
    }

    fn drop_doomed(&mut self) {
        let inputs: BTreeSet<TaskKey> =
            self.tasks().flat_map(|task| task.dependencies.iter().map(|input| input.0.clone())).collect();
        let is_doomed = |key: &TaskKey, held: &Held| matches!(held, Held::Memory { doomed: true }) && !inputs.contains(key);
        let doomed: Vec<TaskKey> =
            self.keys.iter().filter(|(key, held)| is_doomed(key, held)).map(|(key, _)| key.clone()).collect();
        for key in doomed {
            self.lose(&key);
        }
    }

    /// Drops a replica.
    pub(crate) fn lose(&mut self, key: &TaskKey) {
        if let Some(Held::Memory { .. }) = self.keys.get(key) {
            self.keys.remove(key);
            self.outbox.push_back(Stimulus::ReleaseWorkerData { worker: self.id, key: key.clone() });
        }
    }

    /// Drops a replica unless something here needs it.
    fn remove_replica(&mut self, key: &TaskKey) {
        if self.tasks().any(|task| task.dependencies.iter().any(|(input, _)| input == key)) {
            self.outbox.push_back(Stimulus::AddKeys { worker: self.id, keys: vec![key.clone()] });
        } else {
            self.lose(key);
        }
    }

    fn give_back(&mut self, key: TaskKey, run_id: RunId) {
        let state = self.keys.get(&key).map(|held| match held {
            Held::Pending(_) => "ready",
            Held::Executing { cancelled: true, .. } => "cancelled",
            Held::Executing { .. } => "executing",
            Held::Memory { .. } => "memory",
            Held::Error(_) => "error",
        });
        if state == Some("ready") {
            self.keys.remove(&key);
            self.drop_doomed();
        }
        self.outbox.push_back(Stimulus::StealResponse { worker: self.id, key, run_id, state: state.map(str::to_owned) });
    }

    fn refresh(&mut self, who_has: &[(TaskKey, Vec<WorkerAddress>)]) {
        for (key, holders) in who_has {
            assert!(!holders.is_empty(), "nobody is told that nobody has {key}");
            self.acquiring.entry(key.clone()).and_modify(|known| known.clone_from(holders));
        }
        for held in self.keys.values_mut() {
            if let Held::Pending(task) = held {
                for (key, holders) in &mut task.dependencies {
                    if let Some((_, fresh)) = who_has.iter().find(|(fresh, _)| fresh == key) {
                        holders.clone_from(fresh);
                    }
                }
            }
        }
    }

    /// Starts what has its inputs, the most urgent first, as long as there are threads.
    fn start(&mut self) {
        if self.status != WorkerStatus::Running {
            return;
        }
        let busy = self.keys.values().filter(|held| matches!(held, Held::Executing { seceded: false, .. })).count();
        let has = |key: &TaskKey| matches!(self.keys.get(key), Some(Held::Memory { .. }));
        let mut ready: Vec<_> = self
            .keys
            .values()
            .filter_map(|held| match held {
                Held::Pending(task) if task.dependencies.iter().all(|(key, ..)| has(key)) => {
                    Some((task.priority, task.key.clone()))
                }
                Held::Pending(_) | Held::Executing { .. } | Held::Memory { .. } | Held::Error(_) => None,
            })
            .collect();
        ready.sort();
        for (_, key) in ready.into_iter().take((self.profile.nthreads as usize).saturating_sub(busy)) {
            if let Some(Held::Pending(task)) = self.keys.remove(&key) {
                self.keys.insert(key, Held::Executing { task, cancelled: false, seceded: false });
            }
        }
    }

    /// The inputs that it has to fetch, with who is said to have them.
    pub(crate) fn wanted_inputs(&self) -> Vec<(TaskKey, Vec<WorkerAddress>)> {
        let pending = self.keys.values().filter_map(|held| if let Held::Pending(task) = held { Some(task) } else { None });
        let inputs = pending.flat_map(|task| &task.dependencies).map(|(key, holders)| (key, holders));
        let missing = inputs.chain(&self.acquiring).filter(|(key, _)| !self.keys.contains_key(*key));
        missing.map(|(key, holders)| (key.clone(), holders.clone())).collect()
    }

    /// An input arrived, or nobody has it.
    pub(crate) fn fetched(&mut self, key: TaskKey, found: bool) {
        if found {
            self.acquiring.remove(&key);
            self.keys.insert(key.clone(), Held::Memory { doomed: false });
            self.outbox.push_back(Stimulus::AddKeys { worker: self.id, keys: vec![key] });
            self.start();
        } else {
            self.outbox.push_back(Stimulus::RequestRefreshWhoHas { worker: self.id, keys: vec![key] });
        }
    }

    pub(crate) fn executing(&self) -> Vec<TaskKey> {
        self.keys.iter().filter(|(_, held)| matches!(held, Held::Executing { .. })).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn memory(&self) -> BTreeSet<TaskKey> {
        self.keys.iter().filter(|(_, held)| matches!(held, Held::Memory { .. })).map(|(key, _)| key.clone()).collect()
    }

    /// What all its runs take that are going on, whatever the engine thinks of them.
    pub(crate) fn used(&self) -> Resources {
        let mut used = Resources::default();
        for held in self.keys.values() {
            if let Held::Executing { task, .. } = held {
                for (name, amount) in task.resources.iter() {
                    let entry = used.0.entry(name.to_owned()).or_default();
                    *entry = entry.saturating_add(amount);
                }
            }
        }
        used
    }

    fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.keys.values().filter_map(|held| match held {
            Held::Pending(task) | Held::Executing { task, .. } => Some(&**task),
            Held::Memory { .. } | Held::Error(_) => None,
        })
    }

    /// Ends the run of a key, or lets it secede.
    pub(crate) fn end(&mut self, key: &TaskKey, ending: Ending) {
        let Some(Held::Executing { task, cancelled, seceded }) = self.keys.remove(key) else { return };
        let run_id = task.run_id;
        match ending {
            Ending::Secede if seceded || cancelled => {
                self.keys.insert(key.clone(), Held::Executing { task, cancelled, seceded });
            }
            Ending::Secede => {
                self.keys.insert(key.clone(), Held::Executing { task, cancelled, seceded: true });
                let compute_ms = Some(1.0);
                self.outbox.push_back(Stimulus::LongRunning { worker: self.id, key: key.clone(), run_id, compute_ms });
            }
            // Nobody wants to know.
            Ending::Result | Ending::Exception | Ending::Reschedule if cancelled => {}
            Ending::Result => {
                self.keys.insert(key.clone(), Held::Memory { doomed: false });
                self.say_finished(key, run_id);
            }
            Ending::Exception => {
                self.keys.insert(key.clone(), Held::Error(run_id));
                let failure = failure("ValueError: bad row");
                self.outbox.push_back(Stimulus::TaskErred { worker: self.id, key: key.clone(), run_id, failure });
            }
            Ending::Reschedule => self.outbox.push_back(Stimulus::Reschedule { worker: self.id, key: key.clone() }),
        }
        self.drop_doomed();
        self.start();
    }

    fn say_finished(&mut self, key: &TaskKey, run_id: RunId) {
        self.outbox.push_back(Stimulus::TaskFinished {
            worker: self.id,
            key: key.clone(),
            run_id,
            nbytes: 8,
            type_pickle: Bytes::from_static(b"int"),
            compute_ms: Some(3.0),
        });
    }

    pub(crate) fn scattered(&mut self, key: TaskKey) {
        self.keys.entry(key).or_insert(Held::Memory { doomed: false });
    }

    /// Says that its status is another.
    pub(crate) fn become_status(&mut self, status: WorkerStatus) {
        self.status = status;
        self.outbox.push_back(Stimulus::WorkerStatusChanged { worker: self.id, status });
        self.start();
    }

    /// Registers with another engine: what has not started is dropped, all else is said before anything else is.
    pub(crate) fn come_back(&mut self, id: WorkerId) {
        self.id = id;
        self.inbox.clear();
        self.outbox.clear();
        self.acquiring.clear();
        self.keys.retain(|_, held| !matches!(held, Held::Pending(_)));
        let mut parts = Vec::new();
        for (key, held) in &mut self.keys {
            let mut part = Inventory::default();
            match held {
                Held::Memory { doomed } => {
                    *doomed = false;
                    let type_pickle = Bytes::from_static(b"int");
                    part.held.push(HeldKey { key: key.clone(), nbytes: 8, type_pickle, is_actor: true });
                }
                Held::Executing { task, cancelled, seceded } => part.runs.push(StartedRun {
                    key: key.clone(),
                    run_id: task.run_id,
                    has_thread: !*seceded,
                    is_wanted: !*cancelled,
                    resources: task.resources.clone(),
                }),
                Held::Error(run_id) => part.failures.push((key.clone(), *run_id, failure("ValueError: bad row"))),
                Held::Pending(_) => {}
            }
            parts.push(part);
        }
        // Data before the runs that read it.
        parts.sort_by_key(|part| part.held.is_empty());
        self.outbox.extend(parts.into_iter().map(|inventory| Stimulus::WorkerInventory { worker: id, inventory }));
        self.outbox.push_back(Stimulus::WorkerStatusChanged { worker: id, status: self.status });
    }

    pub(crate) fn heartbeat(&self) -> Stimulus {
        Stimulus::WorkerHeartbeat { worker: self.id, memory: 1, bandwidth: None, executing: self.executing() }
    }
}
