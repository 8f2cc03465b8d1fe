//! What users do and what goes wrong, drawn from the seed: each run has a few kinds of trouble, and as often as it likes.

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::engine::{CollectionId, Requirements};

use crate::client::Client;
use crate::happening::{Happening, Registration};
use crate::link::End;
use crate::random::Random;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Declare,
    Revise,
    Require,
    Withdraw,
    Connect,
    Submit,
    Desire,
    LetGo,
    Cancel,
    Bye,
    KillWorker,
    CutWorker,
    CutClient,
    Stall,
    Pause,
    Resume,
    CloseGracefully,
    CrashServer,
}

/// What users do in every run.
const USE: [Act; 4] = [Act::Declare, Act::Declare, Act::Revise, Act::Require];
/// What may come on top.
const MORE: [&[Act]; 10] = [
    &[Act::Withdraw],
    &[Act::Connect, Act::Submit, Act::Submit, Act::LetGo],
    &[Act::Connect, Act::Submit, Act::Desire, Act::Cancel, Act::Bye],
    &[Act::KillWorker],
    &[Act::CutWorker],
    &[Act::CutClient],
    &[Act::Stall],
    &[Act::Pause, Act::Resume],
    &[Act::CloseGracefully],
    &[Act::CrashServer],
];

#[derive(Clone, Debug)]
pub(crate) struct Weather {
    acts: Vec<Act>,
    pause_ms: u64,
    pub(crate) lasts_ms: u64,
    delay_ms: u64,
    /// One message in so many takes a hundred times as long.
    slow_one_in: u64,
    pub(crate) heartbeats_lost_one_in: u64,
    pub(crate) peers_fail_one_in: u64,
    pub(crate) peers_busy_one_in: u64,
}

impl Weather {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut acts = USE.to_vec();
        for more in MORE {
            if random.one_in(3) {
                let times = random.between(1, 3);
                (0..times).for_each(|_| acts.extend(more));
            }
        }
        let rare = |random: &mut Random| if random.one_in(2) { u64::MAX } else { random.between(2, 20) };
        Self {
            acts,
            pause_ms: *[20, 200, 1_000].get(random.below(3) as usize).expect("a pause"),
            lasts_ms: random.between(500, 20_000),
            delay_ms: *[0, 2, 30].get(random.below(3) as usize).expect("a delay"),
            slow_one_in: rare(random),
            heartbeats_lost_one_in: rare(random),
            peers_fail_one_in: rare(random),
            peers_busy_one_in: rare(random),
        }
    }

    /// How long a message takes.
    pub(crate) fn delay(&self, random: &mut Random) -> u64 {
        let slow = if random.one_in(self.slow_one_in) { 100 } else { 1 };
        1 + random.below(self.delay_ms + 1) * slow
    }
}

impl World {
    pub(crate) fn on_act(&mut self) {
        if self.is_calm {
            return;
        }
        let act = self.random.pick(&self.weather.acts.clone()).expect("something is done in every run");
        self.tell(|| format!("{act:?}"));
        self.act(act);
        let pause = self.random.below(2 * self.weather.pause_ms) + 1;
        self.after(pause, Happening::Act);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Declare if self.collections.declared.len() < 4 => {
                let (outputs, requirements) = (self.some_keys(4), self.some_requirements());
                self.declare(outputs, requirements);
            }
            Act::Declare => {}
            Act::Revise => {
                if let Some(id) = self.some_collection() {
                    let outputs = self.some_keys(4);
                    self.revise(id, outputs);
                }
            }
            Act::Require => {
                if let Some(id) = self.some_collection() {
                    let requirements = self.some_requirements();
                    self.require(id, requirements);
                }
            }
            Act::Withdraw => {
                if let Some(id) = self.some_collection() {
                    self.withdraw(id);
                }
            }
            Act::Connect => self.connect(),
            Act::Submit => {
                let keys = self.some_keys(3);
                self.say_as_client(|client| client.submit(keys));
            }
            Act::Desire => {
                let keys = self.some_keys(2);
                self.say_as_client(|client| client.desire(keys));
            }
            Act::LetGo => {
                let keys = self.some_keys(3);
                self.say_as_client(|client| client.let_go(keys));
            }
            Act::Cancel => {
                let (keys, force) = (self.some_keys(2), self.random.one_in(2));
                self.say_as_client(|client| client.cancel(keys, force));
            }
            Act::Bye => self.say_goodbye(),
            Act::KillWorker => {
                if let Some(worker) = self.some_worker() {
                    self.kill(&worker);
                }
            }
            Act::CutWorker => {
                if let Some(worker) = self.some_worker() {
                    let link = self.processes[&worker].link;
                    let (server_learns, peer_learns) = (self.random.below(20_000), self.random.below(20_000));
                    self.cut(link, Some(server_learns), Some(peer_learns));
                }
            }
            Act::CutClient => {
                let links: Vec<_> = self.clients.values().map(|client| client.link).collect();
                if let Some(link) = self.random.pick(&links) {
                    self.cut(link, Some(10), Some(10));
                }
            }
            Act::Stall => {
                let links: Vec<_> = self.links.keys().copied().collect();
                if let Some(link) = self.random.pick(&links) {
                    let end = if self.random.one_in(2) { End::Server } else { End::Peer };
                    let until = self.now + self.random.below(10_000);
                    self.links.get_mut(&link).expect("a link").stall(end, until);
                }
            }
            Act::Pause => _ = self.change_status("running", "paused"),
            Act::Resume => _ = self.change_status("paused", "running"),
            Act::CloseGracefully => {
                if let Some(worker) = self.change_status("running", "closing_gracefully") {
                    let delay = self.random.below(10_000);
                    self.after(delay, Happening::Closes { worker });
                }
            }
            Act::CrashServer => self.crash_server(),
        }
    }

    /// All that the server knows is gone; peers learn of it, sooner or later.
    pub(crate) fn crash_server(&mut self) {
        if self.server.take().is_none() {
            return;
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let learns = self.random.below(2_000);
            self.cut(link, None, Some(learns));
        }
        let delay = self.random.between(10, 5_000);
        self.after(delay, Happening::ServerStarts);
    }

    fn connect(&mut self) {
        if self.clients.len() >= 3 || self.server.is_none() {
            return;
        }
        let link = self.open_link();
        self.registrations.insert(link, Registration::Client);
        self.clients.insert(link.0, Client::new(link));
        let keys = self.some_keys(3);
        self.say_as(link.0, |client| client.submit(keys));
    }

    fn say_as_client(&mut self, say: impl FnOnce(&mut Client)) {
        let numbers: Vec<u32> = self.clients.keys().copied().collect();
        if let Some(number) = self.random.pick(&numbers) {
            self.say_as(number, say);
        }
    }

    fn say_as(&mut self, number: u32, say: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        say(client);
        let link = client.link;
        if let Some(bytes) = client.flush() {
            self.write(link, End::Server, bytes);
        }
    }

    fn say_goodbye(&mut self) {
        let numbers: Vec<u32> = self.clients.keys().copied().collect();
        if let Some(number) = self.random.pick(&numbers) {
            self.say_as(number, Client::close);
            self.clients.remove(&number);
        }
    }

    fn change_status(&mut self, from: &str, to: &'static str) -> Option<WorkerAddress> {
        let fitting: Vec<WorkerAddress> =
            self.processes.iter().filter(|(_, process)| process.status == from).map(|(address, _)| address.clone()).collect();
        let worker = self.random.pick(&fitting)?;
        self.set_status(&worker, to);
        Some(worker)
    }

    fn some_worker(&mut self) -> Option<WorkerAddress> {
        let workers: Vec<WorkerAddress> = self.processes.keys().cloned().collect();
        self.random.pick(&workers)
    }

    fn some_collection(&mut self) -> Option<CollectionId> {
        let ids: Vec<CollectionId> = self.collections.declared.keys().copied().collect();
        self.random.pick(&ids)
    }

    fn some_keys(&mut self, most: u64) -> Vec<TaskKey> {
        let count = self.random.between(1, most);
        let places = self.truth.tasks.len() as u64;
        let mut keys: Vec<TaskKey> =
            (0..count).map(|_| self.truth.tasks[self.random.below(places) as usize].key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn some_requirements(&mut self) -> Requirements {
        Requirements {
            retries: self.random.below(3) as u32,
            priority: self.random.below(3) as f64,
            fifo_timeout_ms: 500,
            ..Requirements::default()
        }
    }
}
