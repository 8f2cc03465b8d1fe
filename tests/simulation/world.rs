//! One clock, one heap of what happens: a server, workers, Clients and what is between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{Hash as _, Hasher as _};

use bytes::Bytes;
use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::engine::{ClientId, Config, POLICIES, Stimulus};
use rustc_hash::FxHasher;

use crate::client::Client;
use crate::collections::Collections;
use crate::happening::{Happening, Registration, Slot};
use crate::link::{End, Link};
use crate::random::Random;
use crate::server::{Output, Server};
use crate::truth::Truth;
use crate::weather::Weather;
use crate::worker::{Event, Process};

/// One connection, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u32);

/// So many looks in a row have to find that nothing happens.
const QUIET_LOOKS: u32 = 6;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u64)>>,
    pub(crate) happenings: BTreeMap<u64, Happening>,
    pub(crate) next: u64,
    pub(crate) truth: Truth,
    pub(crate) weather: Weather,
    config: Config,
    seed: u64,
    pub(crate) server: Option<Server>,
    pub(crate) servers_ever: u32,
    has_turn: bool,
    pub(crate) inbox: VecDeque<LinkId>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    /// What the first message of a link says, which the server has not read yet.
    pub(crate) registrations: BTreeMap<LinkId, Registration>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) processes: BTreeMap<WorkerAddress, Process>,
    pub(crate) numbers: u64,
    pub(crate) gathers: u32,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) collections: Collections,
    /// How often each task ended by itself, anywhere.
    pub(crate) attempts: BTreeMap<TaskKey, u32>,
    pub(crate) is_calm: bool,
    pub(crate) calm_since: u64,
    pub(crate) quiet_looks: u32,
    trace: FxHasher,
    pub(crate) events: u64,
    is_told: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let truth = Truth::draw(&mut random);
        let weather = Weather::draw(&mut random);
        let slots = (0..random.between(1, 4)).map(|_| Slot {
            nthreads: random.between(1, 3) as u32,
            gpus: random.below(4),
            process: None,
        });
        let slots = slots.collect();
        let config = Config {
            placement: POLICIES[random.below(POLICIES.len() as u64) as usize],
            intake_tasks_max: if random.one_in(3) { 2 } else { 2_000 },
            worker_saturation: if random.one_in(4) { 1.0 } else { 1.1 },
            ..Config::default()
        };
        let mut world = Self {
            now: 0,
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            truth,
            weather,
            config,
            seed,
            server: None,
            servers_ever: 0,
            has_turn: false,
            inbox: VecDeque::new(),
            links: BTreeMap::new(),
            registrations: BTreeMap::new(),
            slots,
            processes: BTreeMap::new(),
            numbers: 0,
            gathers: 0,
            clients: BTreeMap::new(),
            collections: Collections::default(),
            attempts: BTreeMap::new(),
            is_calm: false,
            calm_since: 0,
            quiet_looks: 0,
            trace: FxHasher::default(),
            events: 0,
            is_told: std::env::var_os("TRACE").is_some(),
            random,
        };
        world.after(0, Happening::ServerStarts);
        for slot in 0..world.slots.len() {
            let delay = world.random.below(2_000);
            world.after(delay, Happening::WorkerStarts { slot });
        }
        world.after(1, Happening::Act);
        let calm = world.weather.lasts_ms;
        world.after(calm, Happening::Calm);
        world
    }

    /// Runs until nothing happens any more, and gives the trace's hash.
    ///
    /// # Panics
    /// When something is not as promised.
    pub(crate) fn run(&mut self) -> u64 {
        while self.quiet_looks < QUIET_LOOKS {
            self.step();
        }
        self.check_settled();
        self.trace.finish()
    }

    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.next += 1;
        let tie_break = self.random.next();
        self.heap.push(Reverse((self.now + delay, tie_break, self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn step(&mut self) {
        let Reverse((at, _, number)) = self.heap.pop().expect("looks go on");
        let happening = self.happenings.remove(&number).expect("it was put there");
        self.now = at;
        self.events += 1;
        self.note(&happening);
        match happening {
            Happening::Arrives { link, end } => self.on_arrival(link, end),
            Happening::Ends { link, end: End::Server } => self.with_server(|server| server.on_gone(link)),
            Happening::Ends { link, end: End::Peer } => self.on_link_lost(link),
            Happening::Turn { server } => self.on_turn(server),
            Happening::Timeout { server } => self.on_timeout(server),
            Happening::ServerStarts => self.start_server(),
            Happening::WorkerStarts { slot } => self.start_worker(slot),
            Happening::Flush { worker } => self.flush_worker(&worker),
            Happening::Heartbeat { worker } => self.on_heartbeat(worker),
            Happening::RunEnds { worker, key, number } => self.on_run_ends(&worker, &key, number),
            Happening::Secedes { worker, key, number } => {
                if self.runs(&worker, &key, number) {
                    self.tell_worker(&worker, Event::Seceded(key));
                }
            }
            Happening::Asked { worker, peer, keys } => self.on_asked(worker, peer, &keys),
            Happening::Answered { worker, peer, answer } => self.on_answered(&worker, peer, answer),
            Happening::Retries { worker, peer } => self.tell_worker(&worker, Event::RetryBusyWorker(peer)),
            Happening::Closes { worker } => self.on_closes(&worker),
            Happening::Lowered { server, client } => self.on_lowered(server, client),
            Happening::Built { server, collection, revision } => self.on_built(server, collection, revision),
            Happening::Act => self.on_act(),
            Happening::Calm => self.on_calm(),
            Happening::Look => self.on_look(),
        }
    }

    #[expect(clippy::print_stderr, reason = "what a failing run is looked into by")]
    fn note(&mut self, happening: &Happening) {
        self.now.hash(&mut self.trace);
        std::mem::discriminant(happening).hash(&mut self.trace);
        if self.is_told {
            eprintln!("{:>7} {happening:?}", self.now);
        }
    }

    #[expect(clippy::print_stderr, reason = "what a failing run is looked into by")]
    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:>7} {}", self.now, text());
        }
    }

    // What is between them.

    pub(crate) fn write(&mut self, link: LinkId, end: End, bytes: Bytes) {
        bytes.hash(&mut self.trace);
        let delay = self.weather.delay(&mut self.random);
        let now = self.now;
        let Some(lanes) = self.links.get_mut(&link) else { return };
        if let Some(at) = lanes.write(end, now, delay, bytes) {
            self.after(at - now, Happening::Arrives { link, end });
        }
    }

    fn on_arrival(&mut self, link: LinkId, end: End) {
        match end {
            End::Server => {
                self.inbox.push_back(link);
                self.call_turn();
            }
            End::Peer => {
                let Some(bytes) = self.links.get_mut(&link).and_then(|lanes| lanes.read(End::Peer, self.now)) else { return };
                if let Some(client) = self.clients.values_mut().find(|client| client.link == link) {
                    client.read(&bytes);
                } else if let Some(worker) = self.worker_at(link) {
                    let process = self.processes.get_mut(&worker).expect("it was found");
                    let effects = process.read(&bytes, &mut self.numbers);
                    let is_over = process.is_over;
                    self.carry_out(&worker, effects);
                    if is_over {
                        self.end_process(&worker);
                    }
                }
            }
        }
    }

    pub(crate) fn worker_at(&self, link: LinkId) -> Option<WorkerAddress> {
        self.processes.iter().find(|(_, process)| process.link == link).map(|(address, _)| address.clone())
    }

    pub(crate) fn open_link(&mut self) -> LinkId {
        let link = LinkId(self.links.keys().next_back().map_or(0, |last| last.0) + 1);
        self.links.insert(link, Link::default());
        link
    }

    /// Ends a link; each end learns of it by itself, unless it is the one that ended it.
    pub(crate) fn cut(&mut self, link: LinkId, server_learns: Option<u64>, peer_learns: Option<u64>) {
        if let Some(lanes) = self.links.get_mut(&link) {
            lanes.cut(End::Server);
            lanes.cut(End::Peer);
        }
        for (end, learns) in [(End::Server, server_learns), (End::Peer, peer_learns)] {
            if let Some(delay) = learns {
                self.after(delay, Happening::Ends { link, end });
            }
        }
    }

    /// The same in an orderly way: what was written before arrives.
    pub(crate) fn close(&mut self, link: LinkId, end: End) {
        let now = self.now;
        let Some(lanes) = self.links.get_mut(&link) else { return };
        if let Some(at) = lanes.write(end, now, 0, Bytes::new()) {
            self.after(at - now, Happening::Arrives { link, end });
        }
    }

    // The server.

    fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.servers_ever += 1;
        self.server = Some(Server::new(self.servers_ever, self.now, self.config.clone(), self.seed));
        self.inbox.clear();
        self.apply_all();
        self.call_turn();
    }

    pub(crate) fn with_server(&mut self, act: impl FnOnce(&mut Server)) {
        if let Some(server) = &mut self.server {
            server.look_at_the_clock(self.now);
            act(server);
            self.call_turn();
        }
    }

    pub(crate) fn call_turn(&mut self) {
        if let Some(server) = &self.server
            && !std::mem::replace(&mut self.has_turn, true)
        {
            let (server, delay) = (server.number, self.random.below(3));
            self.after(delay, Happening::Turn { server });
        }
    }

    fn on_turn(&mut self, number: u32) {
        self.has_turn = false;
        let Some(server) = self.server.as_mut().filter(|server| server.number == number) else { return self.call_turn() };
        server.look_at_the_clock(self.now);
        for link in std::mem::take(&mut self.inbox) {
            let Some(bytes) = self.links.get_mut(&link).and_then(|lanes| lanes.read(End::Server, self.now)) else { continue };
            if bytes.is_empty() {
                server.on_gone(link);
                continue;
            }
            if !server.knows(link) {
                match self.registrations.remove(&link) {
                    Some(Registration::Worker(profile)) if server.on_worker_registers(link, profile.clone()) => {}
                    Some(Registration::Client) => server.on_client_registers(link),
                    Some(Registration::Worker(_)) | None => continue,
                }
            }
            server.on_says(link, &bytes);
        }
        self.end_turn();
    }

    fn on_timeout(&mut self, number: u32) {
        let Some(server) = self.server.as_mut().filter(|server| server.number == number) else { return };
        server.look_at_the_clock(self.now);
        if server.next_timeout().is_some_and(|at| at <= self.now) {
            server.stimulate(Stimulus::Timeout);
            self.end_turn();
        }
    }

    fn end_turn(&mut self) {
        let Some(server) = &mut self.server else { return };
        server.end_turn();
        let (number, outputs, timeout) = (server.number, std::mem::take(&mut server.outputs), server.next_timeout());
        for output in outputs {
            match output {
                Output::Write { link, bytes } => self.write(link, End::Peer, bytes),
                Output::Close { link } => self.cut(link, None, Some(1)),
                Output::Lower { client } => {
                    let delay = self.random.between(1, 300);
                    self.after(delay, Happening::Lowered { server: number, client });
                }
            }
        }
        if let Some(at) = timeout {
            self.after(at.saturating_sub(self.now).max(1), Happening::Timeout { server: number });
        }
        self.note_released();
        self.start_builds();
    }

    fn on_lowered(&mut self, number: u32, client: ClientId) {
        let Some(server) = self.server.as_mut().filter(|server| server.number == number) else { return };
        let Some(wanted) = server.lowering(client).map(<[TaskKey]>::to_vec) else { return };
        let graph = self.truth.graph(&wanted);
        let place = |key| graph.keys.iter().position(|other| other == key).expect("a graph has what it was made for") as u32;
        let wanted = wanted.iter().map(place).collect();
        let requirements = mainstay::engine::Requirements { fifo_timeout_ms: 100, ..Default::default() };
        let stimulus = Stimulus::UpdateGraph { client, graph, wanted, requirements, submitting_task: None };
        self.with_server(|server| server.on_lowered(client, stimulus));
    }
}
