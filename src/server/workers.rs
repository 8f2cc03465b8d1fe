//! The workers that registered with one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::comm::Outbox;
use crate::dask::WorkerAddress;
use crate::engine::{ComputeTask, Resources, Stimulus, WorkerId, WorkerProfile, WorkerStatus};
use crate::server::admission::{End, Facts, Verdict};
use crate::server::builder::{Builder, Presence};
use crate::server::certificates;
use crate::server::clock::unix_seconds;
use crate::server::departures::Departing;
use crate::server::event::Arrival;
use crate::server::handle::Refusal;
use crate::server::memory_samples::MemoryReadings;
use crate::server::namespace::Namespace;
use crate::server::plugins::Host;
use crate::server::versions::mismatches;
use crate::translate;
use crate::wire::encode::Batch;
use crate::wire::messages::ToWorker;
use crate::wire::messages::rpc::{self, HeartbeatWorker, Keeper, RegisterWorker};
use crate::wire::value::Value;

/// A registered worker that sends no heartbeat for this long is given up, as in Dask (`distributed.scheduler.worker-ttl`).
const WORKER_TTL: Duration = Duration::from_secs(300);

/// Of all workers together. Each takes some 0.1 ms.
const HEARTBEATS_A_SECOND: f64 = 40.0;
/// As in Dask, of few workers.
const HEARTBEAT_SECONDS_MIN: f64 = 0.5;
/// Far below the time after which a worker is given up.
const HEARTBEAT_SECONDS_MAX: f64 = 15.0;

/// A refused worker is told of for this long: one that keeps coming is refused again within this time.
const REFUSAL_TTL: Duration = Duration::from_secs(600);

/// All workers by number.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) entries: BTreeMap<WorkerId, Worker>,
    by_address: BTreeMap<WorkerAddress, WorkerId>,
    /// Workers that are none of ours any more; their comms stay open until they have closed by themselves.
    let_go: BTreeMap<WorkerId, (WorkerAddress, Outbox)>,
    next: u32,
    /// All workers with messages waiting, and some that have gone.
    unflushed: Vec<WorkerId>,
    /// The last one that was not let in, until it is, or is not heard of for `REFUSAL_TTL`.
    refusal: Option<(Refusal, Instant)>,
}

/// One registration.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) address: WorkerAddress,
    pub(crate) name: String,
    pub(crate) nanny: Option<WorkerAddress>,
    pub(crate) nthreads: u32,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) status: String,
    pub(crate) versions: Value,
    /// What it said of itself and never changes, for `identity`.
    local_directory: String,
    services: Value,
    /// A document, read when somebody asks.
    metrics: Bytes,
    pub(crate) memory: MemoryReadings,
    /// What its own flag says: only these names may go to it on the wire.
    pub(crate) declared: Resources,
    /// The statements that it has been told to run, which import what tasks need.
    imported: BTreeSet<Arc<str>>,
    facts: Facts,
    /// Where its comm comes from.
    pub(crate) peer: IpAddr,
    outbox: Outbox,
    /// What it is told at the end of the turn.
    batch: Batch,
    pub(crate) last_seen: Instant,
    last_seen_unix: f64,
    /// Nothing was heard of it for too long.
    pub(crate) is_silent: bool,
    /// It is silent, and is being called.
    pub(crate) is_called: bool,
    /// For those who wait for its answer.
    pub(crate) presence: watch::Sender<Presence>,
    /// When it was asked last whether it is there.
    pub(crate) asked: Option<Instant>,
    /// How its pod had ended when it registered, or its container before this one.
    pub(crate) end_before: Option<End>,
    /// Its pod or node is going.
    pub(crate) departing: Option<Departing>,
    /// It has said that it closes, or was told to.
    pub(crate) is_leaving: bool,
    /// It outlives its scheduler.
    pub(crate) keeps: bool,
}

impl Workers {
    pub(crate) fn get(&self, worker: WorkerId) -> Option<&Worker> {
        self.entries.get(&worker)
    }

    pub(crate) fn by_address(&self, address: &WorkerAddress) -> Option<WorkerId> {
        self.by_address.get(address).copied()
    }

    /// The field `versions` of each.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &Value> {
        self.entries.values().map(|worker| &worker.versions)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.entries.iter().map(|(id, worker)| (*id, worker))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A worker to make a graph on; one that is patient is not given up for being silent.
    pub(crate) fn builder(&self, worker: WorkerId, is_patient: bool) -> Option<Builder> {
        let worker = self.entries.get(&worker)?;
        Some(Builder { address: worker.address.clone(), presence: worker.presence.subscribe(), is_patient })
    }

    /// Queues a message until the end of the turn.
    pub(crate) fn tell(&mut self, worker: WorkerId, message: &ToWorker) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            if entry.batch.is_empty() {
                self.unflushed.push(worker);
            }
            entry.batch.push(message);
        }
    }

    /// Queues a run until the end of the turn.
    pub(crate) fn tell_run(&mut self, worker: WorkerId, task: ComputeTask<'_>) {
        let Some(entry) = self.entries.get_mut(&worker) else { return };
        if entry.batch.is_empty() {
            self.unflushed.push(worker);
        }
        let mut annotations = Vec::new();
        if let Some(executor) = task.executor() {
            annotations.push(("executor".into(), executor.into()));
        }
        if !task.resources().is_empty() {
            // For its keeper: what the worker itself counts is only what it declared.
            annotations.push(("mainstay-resources".into(), resources_value(task.resources())));
        }
        let annotations = Value::Map(annotations);
        // Running them takes a worker longer than most of what else it does about a task.
        let imports = task.run_spec().imports().filter(|imports| entry.imported.insert(Arc::clone(imports)));
        entry.batch.push(&translate::compute_task(task, imports.map(AsRef::as_ref), &entry.declared, &annotations));
    }

    /// Makes a worker exit, after what was said before.
    pub(crate) fn close(&mut self, worker: WorkerId, reason: &str) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            entry.is_leaving = true;
            entry.batch.push(&ToWorker::Close { reason: Some(reason.to_owned()), nanny: None });
            // At once, since its entry may go before the end of the turn. One that does not take it is gone already.
            let _ = entry.outbox.push(entry.batch.take());
        }
    }

    /// It was told to go: its end is nobody's fault.
    pub(crate) fn expect_to_leave(&mut self, worker: WorkerId) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            entry.is_leaving = true;
        }
    }

    /// Writes one batch to each worker that has messages waiting; gives those that do not take it.
    pub(crate) fn flush(&mut self) -> Vec<WorkerId> {
        let mut lost = Vec::new();
        for id in std::mem::take(&mut self.unflushed) {
            // It may have gone, or have been told in between.
            let Some(worker) = self.entries.get_mut(&id).filter(|worker| !worker.batch.is_empty()) else { continue };
            if worker.outbox.is_backlogged() && !worker.batch.is_full() {
                self.unflushed.push(id);
                continue;
            }
            if worker.outbox.push(worker.batch.take()).is_err() {
                warn!(worker = %worker.name, address = %worker.address, "the worker does not take its messages");
                lost.push(id);
            }
        }
        lost
    }

    /// The worker that was refused last.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref().map(|(refusal, _)| refusal)
    }

    /// Seconds between heartbeats.
    fn heartbeat_interval(&self) -> f64 {
        heartbeat_interval(self.entries.len())
    }
}

/// Seconds between the heartbeats of each of so many peers: so that there are about as many a second however many peers
/// there are. They tell how much memory is used and what runs, and nothing waits for that; that one is gone is told by its
/// connection, and whether one is silent is asked.
pub(crate) fn heartbeat_interval(peers: usize) -> f64 {
    (peers as f64 / HEARTBEATS_A_SECOND).clamp(HEARTBEAT_SECONDS_MIN, HEARTBEAT_SECONDS_MAX)
}

impl Worker {
    /// What Clients see in `scheduler_info`.
    pub(crate) fn identity(&self) -> Value {
        Value::map([
            ("type", "Worker".into()),
            ("id", self.name.as_str().into()),
            ("host", self.address.host().into()),
            ("resources", resources_value(&self.resources())),
            ("local_directory", self.local_directory.as_str().into()),
            ("name", self.name.as_str().into()),
            ("nthreads", u64::from(self.nthreads).into()),
            ("memory_limit", self.memory_limit.unwrap_or_default().into()),
            ("last_seen", self.last_seen_unix.into()),
            ("services", self.services.clone()),
            ("metrics", Value::from_msgpack(&self.metrics).unwrap_or(Value::Nil)),
            ("status", self.status.as_str().into()),
            ("nanny", self.nanny.as_ref().map(WorkerAddress::as_str).into()),
        ])
    }

    /// The pod that it runs in.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.facts.pod.as_deref()
    }

    /// What its tasks may take together: its own word, then its pod's.
    fn resources(&self) -> Resources {
        let mut resources = self.declared.clone();
        resources.0.extend(self.facts.resources.0.clone());
        resources
    }

    fn profile(&self) -> WorkerProfile {
        WorkerProfile {
            address: self.address.clone(),
            name: self.name.clone(),
            pod: self.facts.pod.clone(),
            node: self.facts.node.clone(),
            nthreads: self.nthreads,
            memory_limit: self.memory_limit,
            resources: self.resources(),
            labels: self.facts.labels.clone(),
            builder: self.facts.builder,
        }
    }
}

pub(crate) fn resources_value(resources: &Resources) -> Value {
    Value::Map(resources.iter().map(|(name, amount)| (name.into(), amount.as_f64().into())).collect())
}

impl Namespace {
    /// Takes a worker in; `None` when it is refused.
    pub(crate) fn on_worker_registers(&mut self, arrival: Arrival) -> Option<WorkerId> {
        let Arrival { registration, versions, facts, mut outbox, peer } = arrival;
        let former_epoch = registration.keeper.as_ref().and_then(|keeper| keeper.epoch);
        if let Some(epoch) = former_epoch {
            // First, so that nothing is done again that it brings.
            self.on_return(epoch);
        }
        if let Some(old) = self.workers.by_address(&registration.address) {
            // It is itself, or proven gone (`rivals`), though its comm does not know yet.
            self.on_worker_gone(old);
        }
        if let Some(reason) = self.name_taken(&registration) {
            warn!(worker = %registration.name, address = %registration.address, %reason, "refused a worker");
            // The worker reads it or is gone.
            let _ = outbox.push(rpc::refused(unix_seconds(), &reason).encode());
            self.on_worker_refused(Refusal { worker: registration.name, reason });
            return None;
        }
        let id = WorkerId(self.workers.next);
        self.workers.next += 1;
        let plugins = self.plugins.of(Host::Worker);
        let warning = mismatches("This worker", &versions, self.workers.versions());
        let interval = self.workers.heartbeat_interval();
        let answer = rpc::registered(unix_seconds(), interval, plugins, warning, self.identity.epoch);
        if outbox.push(answer.encode()).is_err() {
            return None;
        }
        let RegisterWorker { address, name, nthreads, resources, memory_limit, nanny, .. } = registration;
        let keeps = registration.keeper.as_ref().is_some_and(|keeper| keeper.why_stock.is_none());
        match &registration.keeper {
            Some(Keeper { why_stock: Some(why), .. }) => {
                warn!(worker = %name, %address, %why, "a worker joined whose data would not outlive this scheduler");
            }
            Some(Keeper { epoch: Some(epoch), .. }) => info!(worker = %name, %address, epoch, "a worker came back"),
            Some(_) | None => info!(worker = %name, %address, nthreads, keeps, "a worker joined"),
        }
        if self.workers.refusal().is_some_and(|refusal| refusal.worker == name) {
            self.set_refusal(None);
        }
        let end_before = facts.pod.as_deref().and_then(|pod| self.admission.end(pod));
        let mut memory = MemoryReadings::default();
        memory.take_in(&registration.metrics, 0, Instant::now());
        let worker = Worker {
            address: address.clone(),
            name,
            nanny,
            nthreads,
            memory_limit,
            status: registration.status,
            versions,
            local_directory: registration.local_directory,
            services: registration.services,
            metrics: registration.metrics,
            memory,
            declared: translate::declared(&resources),
            imported: BTreeSet::new(),
            facts,
            peer,
            outbox,
            batch: Batch::default(),
            last_seen: Instant::now(),
            last_seen_unix: unix_seconds(),
            is_silent: false,
            is_called: false,
            presence: watch::Sender::new(Presence::There),
            asked: None,
            end_before,
            departing: None,
            is_leaving: false,
            keeps,
        };
        let profile = worker.profile();
        let first_status = translate::status(&worker.status);
        self.workers.entries.insert(id, worker);
        self.workers.by_address.insert(address, id);
        self.stimulate(Stimulus::WorkerJoined { worker: id, profile });
        if former_epoch.is_some() {
            self.await_inventory(id);
            self.take_back_loss(id);
        }
        self.tell_of_new_worker(id);
        self.note_new_worker(id);
        self.have_certificates_followed(id);
        if first_status != WorkerStatus::Init {
            self.stimulate(Stimulus::WorkerStatusChanged { worker: id, status: first_status });
        }
        self.look_at_departures();
        Some(id)
    }

    fn have_certificates_followed(&self, worker: WorkerId) {
        if let Some(worker) = self.workers.get(worker).filter(|_| self.pool.is_encrypted()) {
            certificates::follow(&self.pool, worker.address.clone(), worker.nanny.clone());
        }
    }

    /// Remembers why, for the collections that wait for a worker.
    pub(crate) fn on_worker_refused(&mut self, refusal: Refusal) {
        self.set_refusal(Some((refusal, Instant::now())));
    }

    pub(crate) fn forget_refusal(&mut self) {
        if self.workers.refusal.as_ref().is_some_and(|(_, since)| since.elapsed() > REFUSAL_TTL) {
            self.set_refusal(None);
        }
    }

    fn set_refusal(&mut self, refusal: Option<(Refusal, Instant)>) {
        self.workers.refusal = refusal;
        self.collections.all_changed();
    }

    fn name_taken(&self, registration: &RegisterWorker) -> Option<String> {
        let holder = self.workers.entries.values().find(|worker| worker.name == registration.name)?;
        Some(format!("name taken, {}: {} has it", registration.name, holder.address))
    }

    /// A retired worker is none of ours from here on. It is still busy with its end, which a comm that ends would disturb.
    pub(crate) fn let_go(&mut self, worker: WorkerId) {
        self.workers.expect_to_leave(worker);
        if let Some(mut entry) = self.lose_worker(worker) {
            if !entry.batch.is_empty() {
                // One that does not take it is gone already.
                let _ = entry.outbox.push(entry.batch.take());
            }
            self.workers.let_go.insert(worker, (entry.address, entry.outbox));
        }
    }

    /// A worker's comm has ended, or is given up.
    pub(crate) fn on_worker_gone(&mut self, worker: WorkerId) {
        self.workers.let_go.remove(&worker);
        self.lose_worker(worker);
    }

    fn lose_worker(&mut self, worker: WorkerId) -> Option<Worker> {
        self.note_loss(worker);
        let entry = self.workers.entries.remove(&worker)?;
        self.workers.by_address.remove(&entry.address);
        self.pool.forget(&entry.address);
        let is_going = entry.is_leaving || entry.departing.is_some();
        let expected = is_going || entry.facts.pod.as_deref().is_some_and(|pod| self.admission.is_ending(pod));
        info!(worker = %entry.name, address = %entry.address, expected, "a worker left");
        self.tell_of_lost_worker(entry.address.as_str());
        let gone = [("worker", entry.address.as_str().into()), ("expected", expected.into())];
        self.note(&["all", entry.address.as_str()], "remove-worker", gone);
        let barriers = self.give_up_shuffles_of(&entry.address);
        self.stimulate(Stimulus::WorkerLeft { worker, expected, barriers });
        self.on_all_said(worker);
        self.on_documents_lost(worker);
        // What waits to be built may wait for another reason now.
        self.start_builds();
        Some(entry)
    }

    pub(crate) fn on_heartbeat(&mut self, heartbeat: HeartbeatWorker, peer: IpAddr) -> Value {
        let answer = rpc::alive(unix_seconds(), self.workers.heartbeat_interval());
        let Some(worker) = self.worker_of(peer, &heartbeat.address) else {
            let is_let_go = self.workers.let_go.values().any(|(address, _)| *address == heartbeat.address);
            // One that is not registered yet is told what others are: "missing" makes a worker exit.
            return if is_let_go { rpc::missing() } else { answer };
        };
        self.heard_of(worker);
        let Some(entry) = self.workers.entries.get_mut(&worker) else { return answer };
        entry.last_seen_unix = unix_seconds();
        let HeartbeatWorker { metrics, memory, bandwidth, executing, .. } = heartbeat;
        let nbytes = self.engine.worker(worker).map_or(0, |worker| worker.nbytes);
        entry.memory.take_in(&metrics, nbytes, entry.last_seen);
        entry.metrics = metrics;
        self.hear(Stimulus::WorkerHeartbeat { worker, memory, bandwidth, executing });
        answer
    }

    /// The pods of workers may have other labels or resources now.
    pub(crate) fn on_workers_changed(&mut self) {
        let mut changed = Vec::new();
        for (id, worker) in &mut self.workers.entries {
            let verdict = self.admission.admit(worker.peer, &worker.name, worker.address.host());
            let Verdict::Admitted(facts) = verdict else { continue };
            if worker.facts != facts {
                worker.facts = facts;
                changed.push((*id, worker.profile()));
            }
        }
        for (worker, profile) in changed {
            let WorkerProfile { labels, resources, builder, .. } = profile;
            self.stimulate(Stimulus::WorkerChanged { worker, labels, resources, builder });
        }
        self.look_at_departures();
        self.settle_losses();
        self.start_builds();
        self.start_lowering();
    }

    pub(crate) fn set_resources(&mut self, worker: WorkerId, resources: &[(String, f64)]) {
        let Some(entry) = self.workers.entries.get_mut(&worker) else { return };
        entry.declared = translate::declared(resources);
        let WorkerProfile { labels, resources, builder, .. } = entry.profile();
        self.stimulate(Stimulus::WorkerChanged { worker, labels, resources, builder });
    }

    /// Gives up workers that have been silent for too long.
    pub(crate) fn drop_silent_workers(&mut self) {
        let silent = |worker: &Worker| worker.last_seen.elapsed() > WORKER_TTL;
        let lost: Vec<WorkerId> = self.workers.entries.iter().filter(|(_, worker)| silent(worker)).map(|(id, _)| *id).collect();
        for worker in lost {
            warn!(?worker, "no heartbeat for {} s", WORKER_TTL.as_secs());
            self.on_worker_gone(worker);
        }
    }
}
