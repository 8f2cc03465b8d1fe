//! The loop of one namespace: events in, messages out.
//!
//! One task owns the engine and all registries; every turn takes what has arrived, then writes one batch to each
//! worker and Client that has something to be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::comm::{Fence, Pool};
use crate::coordination::Coordination;
use crate::engine::{Engine, Instruction, Millis, Stimulus};
use crate::server::admission::Admission;
use crate::server::clients::Clients;
use crate::server::collections::Collections;
use crate::server::coordination::WaitingCalls;
use crate::server::datasets::Datasets;
use crate::server::documents::Documents;
use crate::server::event::Event;
use crate::server::handle::{Command, Reports};
use crate::server::losses::Losses;
use crate::server::memory_samples::Samplers;
use crate::server::metadata::Metadata;
use crate::server::nannies::StartingNannies;
use crate::server::onlookers::Onlookers;
use crate::server::plugins::Plugins;
use crate::server::restart::Restarts;
use crate::server::retire::Retirements;
use crate::server::reunion::Reunion;
use crate::server::silence::Listening;
use crate::server::task_stream::TaskStream;
use crate::server::topics::Topics;
use crate::server::workers::Workers;
use crate::shuffle::Shuffles;
use crate::wire::text::exception_text;

/// When so many messages were taken in, what is to be done about them is done first: it takes some milliseconds.
const MESSAGES_A_TURN_MAX: usize = 1024;
/// Room for so many instructions is kept from turn to turn.
const INSTRUCTIONS_KEPT_MAX: usize = 4 * MESSAGES_A_TURN_MAX;
/// How often reports are published and silence is noticed.
const TICK: Duration = Duration::from_millis(200);

/// Everything one namespace's server owns.
pub(crate) struct Namespace {
    pub(crate) engine: Engine,
    pub(crate) workers: Workers,
    pub(crate) listening: Listening,
    pub(crate) losses: Losses,
    pub(crate) clients: Clients,
    pub(crate) datasets: Datasets,
    pub(crate) collections: Collections,
    pub(crate) shuffles: Shuffles,
    pub(crate) topics: Topics,
    pub(crate) plugins: Plugins,
    pub(crate) task_stream: TaskStream,
    pub(crate) samplers: Samplers,
    pub(crate) onlookers: Onlookers,
    pub(crate) starting_nannies: StartingNannies,
    pub(crate) restarts: Restarts,
    pub(crate) retirements: Retirements,
    pub(crate) reunion: Reunion,
    pub(crate) documents: Documents,
    pub(crate) coordination: Coordination,
    /// Where the answers go that `coordination` owes.
    pub(crate) waiting_calls: WaitingCalls,
    /// What Clients put there with `set_metadata`.
    pub(crate) metadata: Metadata,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) pool: Arc<Pool>,
    fence: Fence,
    pub(crate) reports: Reports,
    /// Tells which collections have a new report.
    pub(crate) changed: mpsc::UnboundedSender<String>,
    /// For work that is done outside the loop and comes back.
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) identity: Identity,
    /// Ops that nobody knows, by name; bounded by `UNKNOWN_OPS_MAX`.
    pub(crate) unknown_ops: BTreeMap<String, u64>,
    started: Instant,
    /// When what is being handled was taken.
    pub(crate) now: Millis,
    instructions: Vec<Instruction>,
    /// Whether the engine has heard something that nothing was done about so far.
    has_heard: bool,
}

/// Different unknown ops that are counted apart.
pub(crate) const UNKNOWN_OPS_MAX: usize = 64;

/// What we say of ourselves.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) http_port: u16,
    pub(crate) started: f64,
    pub(crate) epoch: u64,
}

/// What a namespace starts with.
pub(crate) struct Start {
    pub(crate) engine: Engine,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) reports: Reports,
    pub(crate) changed: mpsc::UnboundedSender<String>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) identity: Identity,
    /// How workers are called.
    pub(crate) pool: Pool,
    pub(crate) fence: Fence,
    pub(crate) patience: Duration,
}

impl Namespace {
    pub(crate) fn new(start: Start) -> Self {
        let Start { engine, admission, reports, changed, events, identity, pool, fence, patience } = start;
        Self {
            engine,
            workers: Workers::default(),
            listening: Listening::default(),
            losses: Losses::default(),
            clients: Clients::default(),
            datasets: Datasets::default(),
            collections: Collections::default(),
            shuffles: Shuffles::of_epoch(identity.epoch),
            topics: Topics::default(),
            plugins: Plugins::default(),
            task_stream: TaskStream::default(),
            samplers: Samplers::default(),
            onlookers: Onlookers::default(),
            starting_nannies: StartingNannies::default(),
            restarts: Restarts::default(),
            retirements: Retirements::default(),
            reunion: Reunion::new(patience),
            documents: Documents::default(),
            coordination: Coordination::default(),
            waiting_calls: WaitingCalls::default(),
            metadata: Metadata::default(),
            admission,
            pool: Arc::new(pool),
            fence,
            reports,
            changed,
            events,
            identity,
            unknown_ops: BTreeMap::new(),
            started: Instant::now(),
            now: Millis(0),
            instructions: Vec::new(),
            has_heard: false,
        }
    }

    /// Runs until the last handle is dropped or the fence is closed. What is `asked` is answered in any turn, however many events are waiting:
    /// somebody waits for it, and mostly it is soon done.
    pub(crate) async fn run(
        mut self,
        mut asked: mpsc::Receiver<Event>,
        mut events: mpsc::Receiver<Event>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        self.await_workers();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // No turn is taken while another server may have taken over.
        while self.fence.is_open() || self.fence.opened().await {
            let timeout = self.engine.next_timeout().map(|at| self.instant(at));
            let patience = self.coordination.next_timeout().map(|at| self.instant(at));
            let sampling = self.samplers.next_due().map(tokio::time::Instant::from);
            let look = self.collections.next_look().filter(|_| !self.reunion.holds()).map(tokio::time::Instant::from);
            tokio::select! {
                Some(event) = asked.recv() => self.take_turn(event, &mut asked),
                Some(event) = events.recv() => self.take_turn(event, &mut events),
                command = commands.recv() => {
                    self.look_at_the_clock();
                    match command {
                        Some(command) => self.on_command(command),
                        None => return,
                    }
                }
                () = sleep_until(timeout.unwrap_or_else(tokio::time::Instant::now)), if timeout.is_some() => {
                    self.look_at_the_clock();
                    self.stimulate(Stimulus::Timeout);
                }
                () = sleep_until(look.unwrap_or_else(tokio::time::Instant::now)), if look.is_some() => {
                    self.look_at_the_clock();
                }
                () = sleep_until(patience.unwrap_or_else(tokio::time::Instant::now)), if patience.is_some() => {
                    self.look_at_the_clock();
                }
                () = sleep_until(sampling.unwrap_or_else(tokio::time::Instant::now)), if sampling.is_some() => {
                    self.look_at_the_clock();
                }
                _ = tick.tick() => {
                    self.look_at_the_clock();
                    self.on_tick();
                }
            }
            if let Ok(event) = asked.try_recv() {
                self.take_turn(event, &mut asked);
            }
            self.act();
            self.look_if_due();
            self.sample_memory_if_due();
            self.coordinate_if_due();
            self.flush();
            if !events.is_empty() {
                // Readers have their turn too, however much there is to be done here.
                yield_now().await;
            }
        }
    }

    /// Takes in what has arrived, up to as much as one turn may take.
    fn take_turn(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let (mut next, mut messages) = (Some(first), 0);
        while let Some(event) = next {
            messages += event.messages();
            self.look_at_the_clock();
            self.on_event(event);
            next = if messages < MESSAGES_A_TURN_MAX { events.try_recv().ok() } else { None };
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::WorkerRegisters { arrival, answer } => {
                // The comm's reader has gone away with its comm when nobody takes the number.
                let _ = answer.send(self.on_worker_registers(*arrival));
            }
            Event::Claims { name, address, answer } => {
                // It has gone away when nobody takes them.
                let _ = answer.send(self.rivals(&name, &address));
            }
            Event::WorkerRefused(refusal) => self.on_worker_refused(refusal),
            Event::WorkerSays { worker, messages, records } => {
                self.on_records(worker, &records);
                self.on_worker_says(worker, messages);
            }
            Event::WorkerGone { worker } => self.on_worker_gone(worker),
            Event::ClientRegisters { name, versions, outbox, answer } => {
                let _ = answer.send(self.on_client_registers(name, &versions, outbox));
            }
            Event::ClientSays { client, messages } => self.on_client_says(client, messages),
            Event::ClientGone { client } => self.on_client_gone(client),
            Event::Asked { request, peer, answer } => self.on_asked(&request, peer, answer),
            Event::CallerGone { call } => self.on_caller_gone(call),
            Event::Built { collection, attempt, result, raw } => self.on_built(collection, attempt, result, raw),
            Event::DocumentKept { name, kept_by } => self.on_document_kept(name, kept_by),
            Event::DocumentMissing { collection, attempt, name, holder } => {
                self.on_document_missing(collection, attempt, &name, holder);
            }
            Event::Lowered { client, result } => self.on_lowered(client, result),
            Event::Scattered { client, scattered, answer } => self.on_scattered(client, scattered, answer),
            Event::WhoBuilds { answer } => {
                // The Client may have looked away.
                let _ = answer.send(self.who_builds());
            }
            Event::Count { watch, with_all, answer } => {
                let _ = answer.send(self.count(&watch, with_all));
            }
            Event::Copied { errand, copied } => self.on_copied(errand, copied),
            Event::Called { worker, answers } => self.on_called(worker, answers),
            Event::Killed { restart, alive } => self.on_killed(restart, &alive),
            Event::Flushed(flushed) => self.on_flushed(flushed),
            Event::Onlooker { outbox } => self.on_onlooker(outbox),
            Event::NannyStarts { answer } => {
                // It has gone again when nobody takes it; that it has is told apart.
                let _ = answer.send(self.on_nanny_starts().encode());
            }
            Event::NannyStarted => self.on_nanny_started(),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Apply(request) => self.apply(request),
            Command::Remove { uid } => self.remove(&uid),
            Command::WorkersChanged => self.on_workers_changed(),
            Command::AllApplied => self.on_all_applied(),
        }
    }

    fn on_tick(&mut self) {
        self.watch_for_silence();
        self.drop_silent_workers();
        self.go_on_reuniting();
        self.forget_refusal();
        self.end_restarts();
        self.go_on_retiring();
        self.go_on_departing();
        self.settle_losses();
        self.forget_shuffles();
        self.publish_reports();
    }

    fn instant(&self, at: Millis) -> tokio::time::Instant {
        (self.started + Duration::from_millis(at.0)).into()
    }

    fn look_at_the_clock(&mut self) {
        self.now = Millis(self.started.elapsed().as_millis() as u64);
    }

    /// Tells the engine, and does what it wants done at once.
    pub(crate) fn stimulate(&mut self, stimulus: Stimulus) {
        self.act();
        self.hear(stimulus);
        self.act();
    }

    /// Tells the engine; what it wants done is done before anything else is told it, at the end of the turn at the latest.
    pub(crate) fn hear(&mut self, stimulus: Stimulus) {
        self.engine.hear(self.now, stimulus);
        self.has_heard = true;
    }

    /// Does what the engine wants done about what it heard.
    fn act(&mut self) {
        if !std::mem::take(&mut self.has_heard) {
            return;
        }
        let mut instructions = std::mem::take(&mut self.instructions);
        self.engine.act(&mut instructions);
        for instruction in instructions.drain(..) {
            self.carry_out(instruction);
        }
        // Carrying out may stimulate in turn and leave a buffer behind: the larger one is kept, if it is none that only a
        // large graph fills.
        if (self.instructions.capacity()..=INSTRUCTIONS_KEPT_MAX).contains(&instructions.capacity()) {
            self.instructions = instructions;
        }
    }

    /// Counts an op that is not known.
    pub(crate) fn count_unknown_op(&mut self, op: &str) {
        let op = exception_text(op);
        if let Some(count) = self.unknown_ops.get_mut(&op) {
            *count += 1;
        } else if self.unknown_ops.len() < UNKNOWN_OPS_MAX {
            tracing::warn!(op, "dropped a message of an unknown op; further ones are only counted");
            self.unknown_ops.insert(op, 1);
        }
    }

    fn flush(&mut self) {
        for worker in self.workers.flush() {
            self.on_worker_gone(worker);
        }
        for client in self.clients.flush() {
            self.on_client_gone(client);
        }
    }
}
