//! The scheduler of the namespace: an engine, and between it and the links the same messages as in the real server.
//!
//! Mirrors `server/worker_messages.rs`, `carry_out.rs` and `clients.rs`, without their sockets; what they translate, it has
//! translated as they do.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay::dask::TaskKey;
use mainstay::engine::{
    ClientId, CollectionId, Config, Engine, Exception, Instruction, Millis, RunId, Stimulus, WorkerId, WorkerProfile,
    WorkerStatus,
};
use mainstay::translate;
use mainstay::wire::encode::Batch;
use mainstay::wire::messages::{FromClient, FromWorker, ToClient};
use mainstay::wire::value::Value;

use crate::codec::{framed, joined};
use crate::oracles;
use crate::world::LinkId;

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Worker(WorkerId),
    Client(ClientId),
}

struct WorkerEntry {
    link: LinkId,
    profile: WorkerProfile,
    batch: Batch,
    is_leaving: bool,
    last_seen: u64,
}

struct ClientEntry {
    link: LinkId,
    batch: Batch,
    /// The keys of a graph that is being lowered.
    lowering: Option<(Vec<TaskKey>, bool)>,
    later: VecDeque<FromClient>,
}

/// What the world does on the server's behalf.
#[derive(Debug)]
pub(crate) enum Output {
    Write {
        link: LinkId,
        bytes: Bytes,
    },
    Close {
        link: LinkId,
    },
    /// A worker makes a graph of what a Client sent.
    Lower {
        client: ClientId,
    },
}

pub(crate) struct Server {
    pub(crate) number: u32,
    born: u64,
    now: u64,
    pub(crate) engine: Engine,
    workers: BTreeMap<WorkerId, WorkerEntry>,
    clients: BTreeMap<ClientId, ClientEntry>,
    by_link: BTreeMap<LinkId, Who>,
    next: u32,
    has_heard: bool,
    /// How many workers were lost, unexpectedly, that had been given each task.
    pub(crate) deaths: BTreeMap<TaskKey, u32>,
    /// Removed collections of which nothing is held any more.
    pub(crate) released: Vec<CollectionId>,
    pub(crate) outputs: Vec<Output>,
}

/// As in the real server.
const WORKER_TTL: u64 = 300_000;

impl Server {
    pub(crate) fn new(number: u32, now: u64, config: Config, seed: u64) -> Self {
        Self {
            number,
            born: now,
            now,
            engine: Engine::new(Config { epoch: u64::from(number), ..config }, seed),
            workers: BTreeMap::new(),
            clients: BTreeMap::new(),
            by_link: BTreeMap::new(),
            next: 1,
            has_heard: false,
            deaths: BTreeMap::new(),
            released: Vec::new(),
            outputs: Vec::new(),
        }
    }

    pub(crate) fn look_at_the_clock(&mut self, now: u64) {
        self.now = now;
    }

    /// When to come back if nothing else happens.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.engine.next_timeout().map(|at| self.born + at.0)
    }

    pub(crate) fn stimulate(&mut self, stimulus: Stimulus) {
        self.act();
        self.hear(stimulus);
        self.act();
    }

    fn hear(&mut self, stimulus: Stimulus) {
        self.engine.hear(Millis(self.now - self.born), stimulus);
        self.has_heard = true;
    }

    fn act(&mut self) {
        if !std::mem::take(&mut self.has_heard) {
            return;
        }
        let before = oracles::Before::of(&self.engine);
        let mut instructions = Vec::new();
        self.engine.act(&mut instructions);
        if !cfg!(debug_assertions) {
            self.engine.check_invariants();
        }
        before.check_order(&self.engine, &instructions);
        for instruction in instructions {
            self.carry_out(instruction);
        }
    }

    pub(crate) fn knows(&self, link: LinkId) -> bool {
        self.by_link.contains_key(&link)
    }

    /// Whether a worker was let in.
    pub(crate) fn on_worker_registers(&mut self, link: LinkId, profile: WorkerProfile) -> bool {
        let same_address = self.workers.iter().find(|(_, worker)| worker.profile.address == profile.address);
        if let Some(old) = same_address.map(|(id, _)| *id) {
            self.on_worker_gone(old);
        }
        if self.workers.values().any(|worker| worker.profile.name == profile.name) {
            self.outputs.push(Output::Close { link });
            return false;
        }
        let worker = WorkerId(self.number());
        let entry =
            WorkerEntry { link, profile: profile.clone(), batch: Batch::default(), is_leaving: false, last_seen: self.now };
        self.workers.insert(worker, entry);
        self.by_link.insert(link, Who::Worker(worker));
        self.stimulate(Stimulus::WorkerJoined { worker, profile });
        true
    }

    pub(crate) fn on_client_registers(&mut self, link: LinkId) {
        let client = ClientId(self.number());
        let entry = ClientEntry { link, batch: Batch::default(), lowering: None, later: VecDeque::new() };
        self.clients.insert(client, entry);
        self.by_link.insert(link, Who::Client(client));
        self.tell_client(client, &ToClient::StreamStart { warning: String::new(), error: String::new() });
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// One message of a peer.
    pub(crate) fn on_says(&mut self, link: LinkId, bytes: &Bytes) {
        match self.by_link.get(&link) {
            Some(Who::Worker(worker)) => {
                let worker = *worker;
                for message in FromWorker::decode_batch(&framed(bytes)).expect("workers say what can be read") {
                    self.on_worker_message(worker, message);
                }
            }
            Some(Who::Client(client)) => {
                let client = *client;
                let messages = FromClient::decode_batch(&framed(bytes)).expect("Clients say what can be read");
                if let Some(entry) = self.clients.get_mut(&client) {
                    entry.later.extend(messages);
                }
                self.take_in_turn(client);
            }
            None => {}
        }
    }

    fn on_worker_message(&mut self, worker: WorkerId, message: FromWorker) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.last_seen = self.now;
        match message {
            FromWorker::WorkerStatusChange { status } => {
                let status = translate::status(&status);
                entry.is_leaving = matches!(status, WorkerStatus::Closing | WorkerStatus::ClosingGracefully);
                self.stimulate(Stimulus::WorkerStatusChanged { worker, status });
                self.start_lowering();
            }
            FromWorker::CloseStream => {
                entry.is_leaving = true;
                self.on_worker_gone(worker);
            }
            said => {
                let stimulus = translate::stimulus(worker, said).expect("what workers here say is a stimulus");
                self.hear(stimulus);
            }
        }
    }

    pub(crate) fn on_heartbeat(&mut self, profile: &WorkerProfile, executing: Vec<TaskKey>) {
        let found = self.workers.iter_mut().find(|(_, worker)| worker.profile.address == profile.address);
        let Some((worker, entry)) = found else { return };
        entry.last_seen = self.now;
        let worker = *worker;
        self.hear(Stimulus::WorkerHeartbeat { worker, memory: 1, bandwidth: None, executing });
    }

    /// A link is over, as far as the server sees.
    pub(crate) fn on_gone(&mut self, link: LinkId) {
        match self.by_link.get(&link) {
            Some(Who::Worker(worker)) => self.on_worker_gone(*worker),
            Some(Who::Client(client)) => self.on_client_gone(*client),
            None => {}
        }
    }

    fn on_worker_gone(&mut self, worker: WorkerId) {
        let Some(entry) = self.workers.remove(&worker) else { return };
        self.by_link.remove(&entry.link);
        self.outputs.push(Output::Close { link: entry.link });
        self.act();
        for key in self.engine.processing(worker).into_iter().filter(|_| !entry.is_leaving) {
            *self.deaths.entry(key).or_default() += 1;
        }
        self.stimulate(Stimulus::WorkerLeft { worker, expected: entry.is_leaving, barriers: Vec::new() });
    }

    fn on_client_gone(&mut self, client: ClientId) {
        let Some(entry) = self.clients.remove(&client) else { return };
        self.by_link.remove(&entry.link);
        self.outputs.push(Output::Close { link: entry.link });
        self.stimulate(Stimulus::ClientLeft { client });
    }

    fn take_in_turn(&mut self, client: ClientId) {
        loop {
            let Some(entry) = self.clients.get_mut(&client).filter(|entry| entry.lowering.is_none()) else { return };
            let Some(message) = entry.later.pop_front() else { return };
            match message {
                FromClient::UpdateGraph(graph) => {
                    entry.lowering = Some((graph.keys.keys(), false));
                    self.start_lowering();
                }
                FromClient::ClientDesiresKeys { keys, .. } => self.hear(Stimulus::ClientDesiresKeys { client, keys }),
                FromClient::ClientReleasesKeys { keys, .. } => self.hear(Stimulus::ClientReleasesKeys { client, keys }),
                FromClient::CancelKeys { keys, force, .. } => self.stimulate(Stimulus::CancelKeys { client, keys, force }),
                FromClient::CloseClient | FromClient::CloseStream => self.on_client_gone(client),
                other => panic!("no Client here says {other:?}"),
            }
        }
    }

    fn start_lowering(&mut self) {
        if self.engine.choose_lowerer().is_none() {
            return;
        }
        for (client, entry) in &mut self.clients {
            if let Some((_, is_under_way @ false)) = &mut entry.lowering {
                *is_under_way = true;
                self.outputs.push(Output::Lower { client: *client });
            }
        }
    }

    /// What the graph was made of that a Client waits for.
    pub(crate) fn lowering(&self, client: ClientId) -> Option<&[TaskKey]> {
        self.clients.get(&client)?.lowering.as_ref().map(|(keys, _)| &keys[..])
    }

    pub(crate) fn on_lowered(&mut self, client: ClientId, stimulus: Stimulus) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.lowering = None;
        }
        self.stimulate(stimulus);
        self.take_in_turn(client);
    }

    fn carry_out(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::ComputeTask { worker, run_id } => self.tell_run(worker, run_id),
            Instruction::KeyInMemory { client, key, type_pickle } => {
                self.tell_client(client, &ToClient::KeyInMemory { key, type_pickle: Some(type_pickle) });
            }
            Instruction::TaskErred { client, key, exception: Exception::LostDependencies { message } } => {
                let cancelled = ToClient::CancelledKeys { keys: vec![key.clone()], reason: Some(message), msg: None };
                self.tell_client(client, &cancelled);
                self.stimulate(Stimulus::ClientReleasesKeys { client, keys: vec![key] });
            }
            Instruction::TaskErred { client, key, .. } => {
                self.tell_client(client, &ToClient::TaskErred { key, exception: Value::Nil, traceback: Value::Nil });
            }
            Instruction::LostData { client, key } => self.tell_client(client, &ToClient::LostData { key }),
            Instruction::CancelledKeys { client, keys, reason } => {
                self.tell_client(client, &ToClient::CancelledKeys { keys, reason: Some(reason), msg: None });
            }
            Instruction::TaskRetried { client, key } => self.tell_client(client, &ToClient::TaskRetried { key }),
            Instruction::CollectionReleased { collection } => self.released.push(collection),
            Instruction::CollectionChanged { .. } | Instruction::ShuffleOver { .. } => {}
            other => {
                let (worker, message) = translate::to_worker(other).expect("all others are for workers");
                // One that has just gone is not told.
                if let Some(entry) = self.workers.get_mut(&worker) {
                    entry.batch.push(&message);
                }
            }
        }
    }

    fn tell_run(&mut self, worker: WorkerId, run_id: RunId) {
        let Some(task) = self.engine.compute_task(run_id) else { return };
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let annotations = Value::Map(Vec::new());
        entry.batch.push(&translate::compute_task(task, None, &entry.profile.resources, &annotations));
    }

    fn tell_client(&mut self, client: ClientId, message: &ToClient) {
        if let Some(entry) = self.clients.get_mut(&client) {
            entry.batch.push(message);
        }
    }

    /// Ends a turn: acts on what was heard, and writes one batch to each peer.
    pub(crate) fn end_turn(&mut self) {
        self.act();
        let silent = |worker: &WorkerEntry| self.now - worker.last_seen > WORKER_TTL;
        let lost: Vec<WorkerId> = self.workers.iter().filter(|(_, worker)| silent(worker)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|worker| self.on_worker_gone(worker));
        let workers = self.workers.values_mut().map(|entry| (entry.link, &mut entry.batch));
        let clients = self.clients.values_mut().map(|entry| (entry.link, &mut entry.batch));
        for (link, batch) in workers.chain(clients).filter(|(_, batch)| !batch.is_empty()) {
            self.outputs.push(Output::Write { link, bytes: joined(batch.take()) });
        }
    }

    pub(crate) fn worker_at(&self, link: LinkId) -> Option<WorkerId> {
        match self.by_link.get(&link) {
            Some(Who::Worker(worker)) => Some(*worker),
            Some(Who::Client(_)) | None => None,
        }
    }
}
