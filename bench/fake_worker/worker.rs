//! One worker: it registers, heartbeats, and answers what a stock worker would answer, without doing it.
//!
//! The messages have the fields of distributed 2026.8.0 in their order: worker_state_machine.py, `SendMessageToScheduler`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use rustc_hash::{FxHashSet, FxHasher};
use tokio::time::{Instant, sleep, sleep_until};

use crate::comm::{Comm, Draft};
use crate::msgpack::{Reader, Write as _};
use crate::{Counters, WorkersArgs, now};

/// What `pickle.dumps(int)` gives.
const INT: &[u8] = b"\x80\x05\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.";
const THREAD: u64 = 140_692_243_695_296;
/// Where nobody listens: results are never read.
const PORT_FROM: u32 = 10_000;

pub(crate) struct Worker {
    args: Rc<WorkersArgs>,
    counters: Rc<RefCell<Counters>>,
    name: String,
    address: String,
    from: Option<IpAddr>,
    is_rich: bool,
    /// Hashes of the keys that it has from other workers.
    fetched: FxHashSet<u64>,
    /// Tasks that wait for a thread, where tasks take time: key and run id.
    queue: VecDeque<(Vec<u8>, Vec<u8>)>,
    answers: Answers,
}

impl Worker {
    pub(crate) fn new(index: u32, args: Rc<WorkersArgs>, counters: Rc<RefCell<Counters>>) -> Self {
        let from = args.bind.map(|first| IpAddr::V4((u32::from(first) + index).into()));
        let address = match from {
            Some(ip) => format!("tcp://{ip}:{PORT_FROM}"),
            None => format!("tcp://127.0.0.1:{}", PORT_FROM + index),
        };
        let name = format!("{}{index}", args.name);
        let (fetched, queue, answers) = (FxHashSet::default(), VecDeque::new(), Answers::new());
        Self { args, counters, name, address, from, is_rich: index.is_multiple_of(2), fetched, queue, answers }
    }

    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut comm = Comm::connect(&self.args.scheduler, self.from).await?;
        let mut registration = Draft::new();
        self.registration(&mut registration.0);
        comm.send(registration.finish()).await?;
        let (answer, _) = comm.receive().await?.context("closed at registration")?;
        anyhow::ensure!(status(answer) == Some(&b"OK"[..]), "refused: {}", String::from_utf8_lossy(answer));
        let heartbeats = heartbeats(self.args.scheduler.clone(), self.address.clone(), self.from);
        let heartbeats = tokio::task::spawn_local(heartbeats);
        self.answers.fields(&[("op", "worker-status-change"), ("status", "running"), ("stimulus_id", "worker-status-1")]);
        comm.send(self.answers.finish()).await?;
        let result = if self.args.delay_ms > 0.0 { self.work_slowly(comm).await } else { self.work_at_once(comm).await };
        heartbeats.abort();
        result
    }

    async fn work_at_once(&mut self, mut comm: Comm) -> anyhow::Result<()> {
        while let Some((document, size)) = comm.receive().await? {
            self.read(document, size)?;
            self.flush(&mut comm).await?;
        }
        Ok(())
    }

    /// Each thread takes the same time for each task; all begin and end together.
    async fn work_slowly(&mut self, mut comm: Comm) -> anyhow::Result<()> {
        let delay = Duration::from_secs_f64(self.args.delay_ms / 1e3);
        let mut round: Option<Instant> = None;
        loop {
            let end = round.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                message = comm.receive() => {
                    let Some((document, size)) = message? else { return Ok(()) };
                    self.read(document, size)?;
                }
                () = sleep_until(end) => {
                    for _ in 0..self.args.threads {
                        let Some((key, run_id)) = self.queue.pop_front() else { break };
                        self.answers.task_finished(&key, &run_id, now());
                    }
                    self.counters.borrow_mut().last = Some(now());
                    round = None;
                }
            }
            if round.is_none() && !self.queue.is_empty() {
                round = Some(Instant::now() + delay);
            }
            self.flush(&mut comm).await?;
        }
    }

    async fn flush(&mut self, comm: &mut Comm) -> anyhow::Result<()> {
        if self.answers.count > 0 {
            let bytes = self.answers.finish();
            self.counters.borrow_mut().bytes_out += bytes.len() as u64;
            comm.send(bytes).await?;
        }
        Ok(())
    }

    /// Takes in one batch and prepares the answers.
    fn read(&mut self, document: &[u8], size: usize) -> anyhow::Result<()> {
        let at = now();
        let mut reader = Reader(document);
        let tasks = self.read_batch(&mut reader, at).context("a message that is no msgpack")?;
        let mut counters = self.counters.borrow_mut();
        counters.messages += 1;
        counters.bytes_in += size as u64;
        counters.tasks += tasks;
        if tasks > 0 {
            counters.first.get_or_insert(at);
            counters.last = Some(now());
        }
        Ok(())
    }

    fn read_batch(&mut self, reader: &mut Reader<'_>, at: f64) -> Option<u64> {
        let mut tasks = 0;
        for _ in 0..reader.array()? {
            let told = Told::read(reader)?;
            match told.op {
                b"compute-task" => {
                    tasks += 1;
                    self.fetch(&told)?;
                    if self.args.delay_ms > 0.0 {
                        self.queue.push_back((told.key.to_vec(), told.run_id.to_vec()));
                    } else {
                        self.answers.task_finished(told.key, told.run_id, at);
                    }
                }
                b"acquire-replicas" => self.fetch(&told)?,
                b"free-keys" | b"remove-replicas" => self.free(&told)?,
                b"steal-request" => self.give_back(&told),
                // The scheduler closes its side as well.
                _ => {}
            }
        }
        Some(tasks)
    }

    /// Has the dependencies that are elsewhere, as if it had fetched them.
    fn fetch(&mut self, told: &Told<'_>) -> Option<()> {
        let mut who_has = Reader(told.who_has);
        for _ in 0..who_has.map()? {
            let key = who_has.raw()?;
            let mut is_here = false;
            for _ in 0..who_has.array()? {
                is_here |= who_has.text()? == self.address.as_bytes();
            }
            if !is_here && self.fetched.insert(hash(key)) {
                self.answers.add_keys(key);
            }
        }
        Some(())
    }

    fn free(&mut self, told: &Told<'_>) -> Option<()> {
        let mut keys = Reader(told.keys);
        let count = keys.array()?;
        for _ in 0..count {
            let key = keys.raw()?;
            if !self.fetched.is_empty() {
                self.fetched.remove(&hash(key));
            }
            self.answers.release_worker_data(key, told.stimulus_id);
        }
        self.counters.borrow_mut().frees += count as u64;
        Some(())
    }

    /// A task that waits is given back; else it is in memory, for tasks are answered in the turn in which they come.
    fn give_back(&mut self, told: &Told<'_>) {
        let waiting = self.queue.iter().position(|(key, _)| key == told.key);
        waiting.and_then(|index| self.queue.remove(index));
        self.counters.borrow_mut().steals += 1;
        self.answers.steal_response(told.key, if waiting.is_some() { "ready" } else { "memory" }, told.stimulus_id);
    }

    fn registration(&self, out: &mut Vec<u8>) {
        out.map(18);
        for (name, value) in [
            ("op", "register-worker"),
            ("address", &self.address),
            ("status", "init"),
            ("name", &self.name),
            ("local_directory", "/nowhere"),
            ("stimulus_id", "worker-connect-1"),
            ("server_id", &format!("Worker-{}", self.name)),
        ] {
            out.text(name);
            out.text(value);
        }
        out.text("reply");
        out.push(0xc2);
        out.text("nanny");
        out.push(0xc0);
        out.text("nthreads");
        out.unsigned(self.args.threads.into());
        out.text("now");
        out.float(now());
        out.text("memory_limit");
        out.unsigned(16_000_000_000);
        out.text("pid");
        out.unsigned(1);
        out.text("resources");
        match self.args.resource.as_deref().filter(|_| self.is_rich).and_then(|resource| resource.split_once('=')) {
            Some((name, amount)) => {
                out.map(1);
                out.text(name);
                out.float(amount.parse().unwrap_or_default());
            }
            None => out.map(0),
        }
        for name in ["services", "extra"] {
            out.text(name);
            out.map(0);
        }
        out.text("versions");
        out.map(2);
        out.text("host");
        out.map(0);
        out.text("packages");
        out.map(2);
        for package in ["dask", "distributed"] {
            out.text(package);
            out.text("2026.8.0");
        }
        metrics(out);
    }
}

/// A message to a worker, as far as it is of interest: each part as it came.
#[derive(Default)]
struct Told<'a> {
    op: &'a [u8],
    key: &'a [u8],
    keys: &'a [u8],
    run_id: &'a [u8],
    who_has: &'a [u8],
    stimulus_id: &'a [u8],
}

impl<'a> Told<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let mut told = Self { who_has: &[0x80], ..Self::default() };
        for _ in 0..reader.map()? {
            match reader.text()? {
                b"op" => told.op = reader.text()?,
                b"key" => told.key = reader.raw()?,
                b"keys" => told.keys = reader.raw()?,
                b"run_id" => told.run_id = reader.raw()?,
                b"who_has" => told.who_has = reader.raw()?,
                b"stimulus_id" => told.stimulus_id = reader.raw()?,
                _ => {
                    reader.raw()?;
                }
            }
        }
        Some(told)
    }
}

/// One batch of messages to the scheduler.
struct Answers {
    draft: Draft,
    count: u32,
    is_sent: bool,
    /// What stands between the run id and the times of a finished task, and after them.
    finished: (Vec<u8>, Vec<u8>),
}

impl Answers {
    fn new() -> Self {
        let mut before = Vec::new();
        before.text("nbytes");
        before.push(28);
        before.text("type");
        before.extend_from_slice(&[0xc4, INT.len() as u8]);
        before.extend_from_slice(INT);
        before.text("typename");
        before.text("int");
        before.text("metadata");
        before.push(0x80);
        before.text("thread");
        before.unsigned(THREAD);
        before.text("startstops");
        before.extend_from_slice(&[0x91, 0x83]);
        before.text("action");
        before.text("compute");
        let mut after = Vec::new();
        after.text("op");
        after.text("task-finished");
        after.text("stimulus_id");
        after.extend_from_slice(b"\xd9\x20task-finished-1795436965.9627817");
        after.text("status");
        after.text("OK");
        let mut answers = Self { draft: Draft::new(), count: 0, is_sent: true, finished: (before, after) };
        answers.begin();
        answers
    }

    /// Begins a batch, unless one is under way. The length of its array is not known yet.
    fn begin(&mut self) {
        if std::mem::take(&mut self.is_sent) {
            self.draft.0.truncate(Draft::new().0.len());
            self.draft.0.extend_from_slice(&[0xdd, 0, 0, 0, 0]);
        }
    }

    fn message(&mut self, fields: u8) -> &mut Vec<u8> {
        self.begin();
        self.count += 1;
        self.draft.0.push(0x80 | fields);
        &mut self.draft.0
    }

    fn finish(&mut self) -> &[u8] {
        let length = Draft::new().0.len();
        self.draft.0[length + 1..length + 5].copy_from_slice(&self.count.to_be_bytes());
        self.count = 0;
        self.is_sent = true;
        self.draft.finish()
    }

    fn fields(&mut self, fields: &[(&str, &str)]) {
        let out = self.message(fields.len() as u8);
        for (name, value) in fields {
            out.text(name);
            out.text(value);
        }
    }

    fn task_finished(&mut self, key: &[u8], run_id: &[u8], at: f64) {
        self.message(11);
        let out = &mut self.draft.0;
        out.text("key");
        out.extend_from_slice(key);
        out.text("run_id");
        out.extend_from_slice(run_id);
        out.extend_from_slice(&self.finished.0);
        out.text("start");
        out.float(at);
        out.text("stop");
        out.float(at + 1e-5);
        out.extend_from_slice(&self.finished.1);
    }

    fn add_keys(&mut self, key: &[u8]) {
        let out = self.message(3);
        out.text("keys");
        out.push(0x91);
        out.extend_from_slice(key);
        out.text("op");
        out.text("add-keys");
        out.text("stimulus_id");
        out.text("gather-dep-success-1795436966.01");
    }

    fn release_worker_data(&mut self, key: &[u8], stimulus_id: &[u8]) {
        let out = self.message(3);
        out.text("key");
        out.extend_from_slice(key);
        out.text("op");
        out.text("release-worker-data");
        out.text("stimulus_id");
        out.extend_from_slice(stimulus_id);
    }

    fn steal_response(&mut self, key: &[u8], state: &str, stimulus_id: &[u8]) {
        let out = self.message(4);
        out.text("key");
        out.extend_from_slice(key);
        out.text("state");
        out.text(state);
        out.text("op");
        out.text("steal-response");
        out.text("stimulus_id");
        out.extend_from_slice(stimulus_id);
    }
}

fn hash(key: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

fn status(answer: &[u8]) -> Option<&[u8]> {
    find(answer, b"status")?.text()
}

/// The value of a field of a map.
fn find<'a>(document: &'a [u8], name: &[u8]) -> Option<Reader<'a>> {
    let mut reader = Reader(document);
    for _ in 0..reader.map()? {
        if reader.text()? == name {
            return Some(reader);
        }
        reader.raw()?;
    }
    None
}

/// A heartbeat, as an RPC.
pub(crate) fn heartbeat(address: &str) -> Draft {
    let mut draft = Draft::new();
    let out = &mut draft.0;
    out.map(7);
    out.text("op");
    out.text("heartbeat_worker");
    out.text("reply");
    out.push(0xc3);
    out.text("address");
    out.text(address);
    out.text("now");
    out.float(now());
    metrics(out);
    out.text("executing");
    out.map(0);
    out.text("extensions");
    out.map(0);
    draft
}

/// The field with a worker's metrics.
fn metrics(out: &mut Vec<u8>) {
    out.text("metrics");
    out.map(11);
    for name in ["task_counts", "digests_total_since_heartbeat"] {
        out.text(name);
        out.map(0);
    }
    out.text("bandwidth");
    out.map(3);
    out.text("total");
    out.float(1e8);
    for name in ["workers", "types"] {
        out.text(name);
        out.map(0);
    }
    out.text("spilled_bytes");
    out.map(2);
    for name in ["memory", "disk"] {
        out.text(name);
        out.unsigned(0);
    }
    out.text("transfer");
    out.map(3);
    for name in ["incoming_bytes", "incoming_count", "outgoing_bytes"] {
        out.text(name);
        out.unsigned(0);
    }
    for (name, number) in [("managed_bytes", 0), ("memory", 100_000_000), ("num_fds", 10)] {
        out.text(name);
        out.unsigned(number);
    }
    for (name, number) in [("event_loop_interval", 0.02), ("cpu", 1.0), ("time", now())] {
        out.text(name);
        out.float(number);
    }
}

/// Tells the scheduler again and again that the worker lives, as often as it wants to hear it.
async fn heartbeats(scheduler: String, address: String, from: Option<IpAddr>) {
    let Ok(mut comm) = Comm::connect(&scheduler, from).await else { return };
    loop {
        if comm.send(heartbeat(&address).finish()).await.is_err() {
            return;
        }
        let Ok(Some((answer, _))) = comm.receive().await else { return };
        let interval = find(answer, b"heartbeat-interval").and_then(|mut value| value.float()).unwrap_or(1.0);
        sleep(Duration::from_secs_f64(interval)).await;
    }
}
