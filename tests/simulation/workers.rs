//! Processes of workers start, run, ask one another, and end.

use std::collections::BTreeMap;

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::engine::WorkerProfile;
use mainstay::wire::messages::FromWorker;

use crate::happening::{Answer, Happening, Registration};
use crate::link::End;
use crate::truth::Fate;
use crate::worker::{Effect, Event, Process, gpus};
use crate::world::{LinkId, World};

/// How often a worker says that it is there, and asks for what it misses.
const HEARTBEAT_EVERY: u64 = 1_000;
/// How long after a busy peer is asked again.
const BUSY_PAUSE: u64 = 150;

impl World {
    pub(crate) fn start_worker(&mut self, slot: usize) {
        if self.slots[slot].process.is_some() {
            return;
        }
        self.next += 1;
        let address = WorkerAddress::new(format!("tcp://w{slot}:{}", self.next));
        let (nthreads, free_gpus) = (self.slots[slot].nthreads, self.slots[slot].gpus);
        let profile = WorkerProfile {
            address: address.clone(),
            name: format!("w{slot}"),
            pod: None,
            node: None,
            nthreads,
            memory_limit: None,
            resources: gpus(free_gpus),
            labels: BTreeMap::new(),
            builder: false,
        };
        let link = self.open_link();
        let mut process = Process::new(profile, link);
        let effects = process.become_status("running", &mut self.numbers);
        assert!(effects.is_empty(), "it has nothing to do yet");
        self.registrations.insert(link, Registration::Worker(process.profile.clone()));
        self.processes.insert(address.clone(), process);
        self.slots[slot].process = Some(address.clone());
        if self.server.is_none() {
            // Nobody listens: it tries again.
            self.cut(link, None, Some(100));
        }
        self.flush_worker(&address);
        self.after(HEARTBEAT_EVERY, Happening::Heartbeat { worker: address });
    }

    pub(crate) fn tell_worker(&mut self, worker: &WorkerAddress, event: Event) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let effects = process.on(event, &mut self.numbers);
        self.carry_out(worker, effects);
    }

    pub(crate) fn set_status(&mut self, worker: &WorkerAddress, status: &'static str) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let effects = process.become_status(status, &mut self.numbers);
        self.carry_out(worker, effects);
    }

    pub(crate) fn carry_out(&mut self, worker: &WorkerAddress, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Runs { key, number } => {
                    let task = self.truth.of(&key);
                    let (duration, fate) = (task.duration_ms, task.fate);
                    let duration = duration / 2 + self.random.below(duration) + 1;
                    if fate == Fate::Secedes {
                        let (worker, key) = (worker.clone(), key.clone());
                        self.after(duration / 2, Happening::Secedes { worker, key, number });
                    }
                    self.after(duration, Happening::RunEnds { worker: worker.clone(), key, number });
                }
                Effect::Asks { peer, keys } => {
                    self.gathers += 1;
                    let delay = self.weather.delay(&mut self.random);
                    self.after(delay, Happening::Asked { worker: worker.clone(), peer, keys });
                }
                Effect::RetriesLater { peer } => self.after(BUSY_PAUSE, Happening::Retries { worker: worker.clone(), peer }),
            }
        }
        if self.processes.get(worker).is_some_and(Process::has_said) {
            self.after(2, Happening::Flush { worker: worker.clone() });
        }
    }

    pub(crate) fn flush_worker(&mut self, worker: &WorkerAddress) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        let link = process.link;
        if let Some(bytes) = process.flush() {
            self.write(link, End::Server, bytes);
        }
    }

    pub(crate) fn on_heartbeat(&mut self, worker: WorkerAddress) {
        let Some(process) = self.processes.get(&worker) else { return };
        let (profile, executing) = (process.profile.clone(), process.executing());
        if self.is_calm || !self.random.one_in(self.weather.heartbeats_lost_one_in) {
            self.with_server(|server| server.on_heartbeat(&profile, executing));
        }
        self.tell_worker(&worker, Event::FindMissing);
        self.after(HEARTBEAT_EVERY, Happening::Heartbeat { worker });
    }

    pub(crate) fn runs(&self, worker: &WorkerAddress, key: &TaskKey, number: u64) -> bool {
        let run = self.processes.get(worker).and_then(|process| process.runs.get(key));
        run.is_some_and(|run| run.number == number)
    }

    pub(crate) fn on_run_ends(&mut self, worker: &WorkerAddress, key: &TaskKey, number: u64) {
        if !self.runs(worker, key, number) {
            return;
        }
        let attempts = self.attempts.entry(key.clone()).or_default();
        *attempts += 1;
        let (attempt, task) = (*attempts, self.truth.of(key));
        if task.fate == Fate::Deadly {
            return self.kill(worker);
        }
        let Some(run) = self.processes.get_mut(worker).and_then(|process| process.runs.remove(key)) else { return };
        let failed = |text: &str| Event::ExecutionFailed { key: key.clone(), run_id: run.run_id, text: text.to_owned() };
        let event = match task.fate {
            Fate::Fails(times) if attempt <= times => failed("ValueError: not yet"),
            Fate::AlwaysFails => failed("ValueError: never"),
            Fate::Reschedules if attempt == 1 => Event::Rescheduled(key.clone()),
            Fate::Fails(_) | Fate::Reschedules | Fate::Secedes | Fate::Deadly => {
                let value = self.truth.compute(key, &run.inputs).expect("a task is given all that it reads");
                assert_eq!(value, task.value, "{key} was computed of wrong inputs");
                Event::Executed { key: key.clone(), run_id: run.run_id, value, nbytes: task.nbytes }
            }
        };
        self.tell_worker(worker, event);
    }

    pub(crate) fn on_asked(&mut self, worker: WorkerAddress, peer: WorkerAddress, keys: &[TaskKey]) {
        let answer = match self.processes.get(&peer) {
            None => Answer::Nothing,
            Some(_) if !self.is_calm && self.random.one_in(self.weather.peers_fail_one_in) => Answer::Nothing,
            Some(_) if !self.is_calm && self.random.one_in(self.weather.peers_busy_one_in) => Answer::Busy,
            Some(process) => {
                let data = process.machine.data();
                Answer::Data(keys.iter().filter_map(|key| Some((key.clone(), *data.get(key)?))).collect())
            }
        };
        let delay = self.weather.delay(&mut self.random);
        self.after(delay, Happening::Answered { worker, peer, answer });
    }

    pub(crate) fn on_answered(&mut self, worker: &WorkerAddress, peer: WorkerAddress, answer: Answer) {
        self.gathers -= 1;
        let event = match answer {
            Answer::Data(data) => Event::Gathered { worker: peer, data },
            Answer::Busy => Event::GatherBusy(peer),
            Answer::Nothing => Event::GatherFailed(peer),
        };
        self.tell_worker(worker, event);
    }

    /// A peer learns that its link to the server is over.
    pub(crate) fn on_link_lost(&mut self, link: LinkId) {
        if let Some(worker) = self.worker_at(link) {
            return self.end_process(&worker);
        }
        let client = self.clients.iter().find(|(_, client)| client.link == link).map(|(number, _)| *number);
        if let Some(number) = client {
            self.clients.remove(&number);
        }
    }

    /// A process is gone, with all that it holds; its slot gets another.
    pub(crate) fn kill(&mut self, worker: &WorkerAddress) {
        let Some(process) = self.processes.get(worker) else { return };
        let link = process.link;
        self.end_process(worker);
        let delay = self.weather.delay(&mut self.random);
        self.cut(link, Some(delay), None);
    }

    pub(crate) fn on_closes(&mut self, worker: &WorkerAddress) {
        let Some(process) = self.processes.get_mut(worker) else { return };
        process.say(FromWorker::CloseStream);
        self.flush_worker(worker);
        self.end_process(worker);
    }

    pub(crate) fn end_process(&mut self, worker: &WorkerAddress) {
        let Some(process) = self.processes.remove(worker) else { return };
        self.close(process.link, End::Server);
        if let Some(slot) = self.slots.iter().position(|slot| slot.process.as_ref() == Some(worker)) {
            self.slots[slot].process = None;
            let delay = self.random.between(50, 4_000);
            self.after(delay, Happening::WorkerStarts { slot });
        }
    }
}
