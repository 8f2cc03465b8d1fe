//! Decides which worker runs which task, when, and what is kept.
//!
//! Does no I/O, reads no clock and draws no random number of its own: the same stimuli at the same times give the
//! same instructions, always. What arrives from peers cannot make it panic: a stimulus that makes no sense in the
//! present state is counted and ignored.
//!
//! ```text
//! stimulus ─► on_* (workers, tasks, collections, clients)     changes what is known
//!               │ transition                                  the only writer of a task's state and its indexes
//!               ▼
//!             rules: settle                                   each task takes the steps that follow, until none is left
//!               ▼
//!             dispatch ─► placement                           ready tasks go to workers with room, the most urgent first
//!               ▼
//!             stealing, reduction, replication                backlogs and replicas go where they are of use
//!               ▼
//! instructions, summaries                                     `invariants` are checked here, in tests and debug builds
//! ```

// A new state or stimulus has to show every place that must think about it.
#![warn(clippy::wildcard_enum_match_arm)]

mod arrival;
mod brought;
mod collection;
mod compute_task;
mod cycle;
mod departure;
mod dependents;
mod dispatch;
mod draining;
mod generations;
mod graph;
mod instruction;
mod intake;
mod invariants;
mod on_clients;
mod on_collections;
mod on_shuffles;
mod on_tasks;
mod on_workers;
mod overrides;
mod owner;
mod placement;
mod prefix;
mod progress;
mod ready_queue;
mod reduction;
mod replication;
mod requirement_table;
mod requirements;
mod rules;
mod silence;
mod standing;
mod stealing;
mod stimulus;
mod story;
mod summary;
mod task;
mod task_set;
mod task_table;
mod transition;
mod user_priorities;
mod value_types;
mod view;
mod worker;

pub use compute_task::{ComputeTask, Dependency};
pub use graph::{Annotations, Graph, GraphTask, TaskNames};
pub use instruction::Instruction;
pub use overrides::{OVERRIDES_MAX, Override, Overrides, OverridesError};
pub use placement::{LeastLoaded, Locality, POLICIES, Placement};
pub use progress::{CountsByPrefix, Progress};
pub use requirements::{Amount, AmountError, LabelExpression, Operator, Requirements, Resources, WorkerSelector};
pub use stimulus::{
    ClientId, CollectionId, Exception, Failure, Inventory, Millis, Past, RunId, StartedRun, Stimulus, WorkerId, WorkerProfile,
    WorkerStatus,
};
pub use story::{STORY_ENTRIES_MAX, Stats, StoryEntry};
pub use summary::{
    FailureSummary, OutputSummary, ReplicaSummary, RetrySummary, Summary, TaskCounts, UnmatchedOverride, Unrunnable, WorkerShare,
};
pub use view::WorkerView;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::dask::{Priority, ShuffleId, TaskKey};
use arrival::Arrival;
use brought::Brought;
use collection::Collection;
use departure::Departure;
use generations::{Generations, Place};
use prefix::{PrefixId, PrefixTable};
use requirement_table::RequirementTable;
use story::Story;
use task::Run;
use task_set::TaskSet;
use task_table::{TaskId, TaskTable};
use user_priorities::UserPriorities;
use value_types::TypeTable;
use worker::{Rank, Workers};

/// What can be set on an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Grows from one engine of a namespace to the next: whoever takes over says a higher one. Its low bits are a part of
    /// each `RunId`, so that none takes another's for its own.
    pub epoch: u64,
    /// How many runs a worker is given for each of its threads.
    pub worker_saturation: f64,
    /// How many workers may die with a task before the task is held to be the cause.
    pub allowed_failures: u32,
    /// Bytes per second between workers, until they have measured it.
    pub bandwidth: f64,
    /// Further tasks are refused.
    pub tasks_max: usize,
    /// How many tasks of a graph are taken in before something else gets its turn.
    pub intake_tasks_max: usize,
    /// How workers are chosen; one of `POLICIES`.
    pub placement: &'static dyn Placement,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            epoch: 1,
            worker_saturation: 1.1,
            allowed_failures: 3,
            bandwidth: 100e6,
            tasks_max: 10_000_000,
            intake_tasks_max: 2_000,
            placement: &Locality,
        }
    }
}

/// The scheduler of one namespace.
///
/// # Use
/// - `handle_stimulus` takes in what happened and says what to do about it; `next_timeout` says when to call it if
///   nothing happens.
/// - All other methods only look.
///
/// # Guarantees
/// - A task that somebody needs is on its way, in memory or erred, whatever workers and Clients do.
/// - The resources of a worker are never over-committed, not even while a run that was given up still goes on.
/// - Each run that fails is counted once; deaths of workers are counted apart.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    seed: u64,
    now: Millis,
    /// The kind of the stimulus that is being handled, for the story.
    handling: &'static str,

    tasks: TaskTable,
    workers: Workers,
    /// All and only workers that can be given more, the one that can start it first is the first.
    open: BTreeSet<Rank>,
    /// How many threads of open workers have nothing to do.
    free_threads: u32,
    /// All and only workers with more runs than threads.
    backlogged: BTreeSet<WorkerId>,
    /// All and only workers that are silent.
    silent: BTreeSet<WorkerId>,
    requirements: RequirementTable,
    /// Each by itself: the room of a map is often half empty.
    collections: BTreeMap<CollectionId, Box<Collection>>,
    /// What each Client wants; the reverse of `Task::wanted_by`.
    clients: BTreeMap<ClientId, TaskSet>,
    prefixes: PrefixTable,
    /// Of the barriers of shuffles.
    barrier_prefix: PrefixId,
    types: TypeTable,
    generations: Generations,
    /// Of all tasks in `Processing`.
    under_way: UserPriorities,
    /// The place in the order of each collection that was applied.
    places: BTreeMap<CollectionId, Place>,
    /// Bytes per second between workers, averaged over what they report.
    bandwidth: f64,
    runs: u64,
    /// Nothing was worth stealing when this was looked into last, and no worker has run dry since.
    is_balanced: bool,
    /// When to look for work to steal again.
    balance_at: Option<Millis>,
    /// All and only results with more holders than there are to be copies, but for data that was scattered.
    replicated: TaskSet,
    /// When to look for replicas that nobody needs.
    reduce_at: Option<Millis>,
    /// A Client has asked for it that nobody looks.
    keeps_replicas: bool,
    brought: Brought,
    /// Workers may be about to come back with what is needed: no task is started.
    holds: bool,
    /// All and only collections that want more than one copy of their outputs.
    replicating: BTreeSet<CollectionId>,
    /// Results that may have fewer copies than they should, some more than once.
    to_copy: VecDeque<TaskId>,
    /// All outputs of `replicating` are to be looked at.
    reconsiders_copies: bool,
    /// When to look for further ones, if some were left because they were many.
    copies_go_on_at: Option<Millis>,
    /// When the oldest copy that is being fetched is given up, at the earliest.
    copies_expire_at: Option<Millis>,
    /// All and only collections with tasks in `Queued`, the next to be served first.
    standings: BTreeSet<(Priority, CollectionId)>,

    /// Tasks that may have a step to take; empty between stimuli, as all that follow.
    unsettled: VecDeque<TaskId>,
    /// Tasks that nobody needs, to be forgotten by and by; some may be needed again.
    unforgotten: VecDeque<TaskId>,
    /// Workers that have changed since they were put into the indexes.
    unindexed: Vec<WorkerId>,
    frees: BTreeMap<WorkerId, Vec<TaskKey>>,
    /// Runs that were given up after their worker was told of them, with what they take until they are over.
    given_up: Vec<(TaskKey, Run, Resources)>,
    /// Graphs of which only a part was taken in so far.
    arrivals: VecDeque<Arrival>,
    /// What is let go of part by part.
    departures: VecDeque<Departure>,
    changed: BTreeSet<CollectionId>,
    out: Vec<Instruction>,

    story: Story,
    stats: Stats,
}

impl Engine {
    /// An engine without workers, tasks or clients. Of workers that are equally good, `seed` decides.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut prefixes = PrefixTable::default();
        let barrier_prefix = prefixes.intern(&ShuffleId::new("0").barrier());
        Self {
            bandwidth: config.bandwidth,
            config,
            seed,
            now: Millis(0),
            handling: "",
            tasks: TaskTable::default(),
            workers: Workers::default(),
            open: BTreeSet::new(),
            free_threads: 0,
            backlogged: BTreeSet::new(),
            silent: BTreeSet::new(),
            requirements: RequirementTable::default(),
            collections: BTreeMap::new(),
            clients: BTreeMap::new(),
            prefixes,
            barrier_prefix,
            types: TypeTable::default(),
            generations: Generations::default(),
            under_way: UserPriorities::default(),
            places: BTreeMap::new(),
            runs: 0,
            is_balanced: true,
            balance_at: None,
            replicated: TaskSet::default(),
            reduce_at: None,
            keeps_replicas: false,
            brought: Brought::default(),
            holds: false,
            replicating: BTreeSet::new(),
            to_copy: VecDeque::new(),
            reconsiders_copies: false,
            copies_go_on_at: None,
            copies_expire_at: None,
            standings: BTreeSet::new(),
            unsettled: VecDeque::new(),
            unforgotten: VecDeque::new(),
            unindexed: Vec::new(),
            frees: BTreeMap::new(),
            given_up: Vec::new(),
            arrivals: VecDeque::new(),
            departures: VecDeque::new(),
            changed: BTreeSet::new(),
            out: Vec::new(),
            story: Story::default(),
            stats: Stats::default(),
        }
    }

    /// Takes in what happened and appends what to do about it, in order.
    ///
    /// The same stimuli at the same times give the same instructions, always. A time before that of the last stimulus
    /// counts as that time.
    pub fn handle_stimulus(&mut self, now: Millis, stimulus: Stimulus, instructions: &mut Vec<Instruction>) {
        self.hear(now, stimulus);
        self.act(instructions);
    }

    /// Takes in what happened; `act` says later what to do about it and all else that was heard. So what many peers say at
    /// once costs one look at who may get what.
    pub fn hear(&mut self, now: Millis, stimulus: Stimulus) {
        self.now = self.now.max(now);
        self.stats.stimuli += 1;
        self.handling = stimulus.kind();
        self.take_in(stimulus);
        self.settle();
    }

    /// Appends what to do about what was heard, in order.
    pub fn act(&mut self, instructions: &mut Vec<Instruction>) {
        self.send_frees();
        self.dispatch();
        self.balance();
        self.reduce_replicas();
        self.replicate();
        // No step follows from an assignment, but it left neighbours to be looked at.
        self.settle();
        self.index_workers();
        self.update_standings();
        for collection in std::mem::take(&mut self.changed) {
            self.out.push(Instruction::CollectionChanged { collection });
        }
        if instructions.is_empty() {
            std::mem::swap(instructions, &mut self.out);
        } else {
            instructions.append(&mut self.out);
        }
        if cfg!(debug_assertions) && self.invariants_are_due() {
            self.check_invariants();
        }
    }

    /// When to call `handle_stimulus` with `Stimulus::Timeout` if nothing else happens first.
    pub fn next_timeout(&self) -> Option<Millis> {
        let goes_on = !self.arrivals.is_empty() || !self.departures.is_empty() || !self.unforgotten.is_empty();
        let goes_on_at = goes_on.then_some(self.now);
        let due_at = [self.silence_due_at(), self.copies_due_at()];
        [goes_on_at, self.balance_at, self.reduce_at].into_iter().chain(due_at).flatten().min()
    }

    fn take_in(&mut self, stimulus: Stimulus) {
        match stimulus {
            Stimulus::WorkerJoined { worker, profile } => self.on_worker_joined(worker, profile),
            Stimulus::WorkerStatusChanged { worker, status } => self.on_worker_status_changed(worker, status),
            Stimulus::WorkerChanged { worker, labels, resources, builder } => {
                self.on_worker_changed(worker, labels, resources, builder);
            }
            Stimulus::WorkerHeartbeat { worker, memory, bandwidth, executing } => {
                self.on_worker_heartbeat(worker, memory, bandwidth, &executing);
            }
            Stimulus::WorkerLeaving { worker, leaving } => self.on_worker_leaving(worker, leaving),
            Stimulus::WorkerSilent { worker } => self.on_worker_silent(worker),
            Stimulus::WorkerHeard { worker } => self.on_worker_heard(worker),
            Stimulus::WorkerLeft { worker, expected, barriers } => {
                self.on_worker_left(worker, expected);
                barriers.iter().for_each(|barrier| self.on_shuffle_restarted(barrier));
            }

            Stimulus::WorkerInventory { worker, inventory } => self.on_worker_inventory(worker, inventory),
            Stimulus::Hold { holds } => self.on_hold(holds),
            Stimulus::ForgetBrought => self.on_forget_brought(),

            Stimulus::TaskFinished { worker, key, run_id, nbytes, type_pickle, compute_ms } => {
                self.on_task_finished(worker, &key, run_id, on_tasks::Outcome { nbytes, type_pickle, compute_ms });
            }
            Stimulus::TaskErred { worker, key, run_id, failure } => self.on_task_erred(worker, &key, run_id, failure),
            Stimulus::Reschedule { worker, key } => self.on_reschedule(worker, &key),
            Stimulus::LongRunning { worker, key, run_id, compute_ms } => self.on_long_running(worker, &key, run_id, compute_ms),
            Stimulus::ReleaseWorkerData { worker, key } => self.on_release_worker_data(worker, &key),
            Stimulus::AddKeys { worker, keys } => self.on_add_keys(worker, keys),
            Stimulus::KeepReplicas { keeps } => self.keeps_replicas = keeps,
            Stimulus::ReduceReplicas => self.reduce_now(),
            Stimulus::DropReplicas { worker, keys } => self.on_drop_replicas(worker, &keys),
            Stimulus::RequestRefreshWhoHas { worker, keys } => self.on_request_refresh_who_has(worker, keys),
            Stimulus::StealResponse { worker, key, run_id, state } => {
                self.on_steal_response(worker, &key, run_id, state.as_deref());
            }

            Stimulus::ShufflePlaced { outputs } => self.on_shuffle_placed(&outputs),
            Stimulus::ShuffleRestarted { barrier } => self.on_shuffle_restarted(&barrier),

            Stimulus::CollectionApplied { collection, fifo_timeout_ms, generation } => {
                self.on_collection_applied(collection, fifo_timeout_ms, generation);
            }
            Stimulus::CollectionBuilt { collection, graph, outputs, requirements, past } => {
                self.on_collection_built(collection, graph, outputs, requirements, &past);
            }
            Stimulus::CollectionChanged { collection, requirements } => self.on_collection_changed(collection, requirements),
            Stimulus::CollectionRemoved { collection } => self.on_collection_removed(collection),

            Stimulus::UpdateGraph { client, graph, wanted, requirements, submitting_task } => {
                self.on_update_graph(client, graph, &wanted, requirements, submitting_task.as_ref());
            }
            Stimulus::ClientDesiresKeys { client, keys } => self.on_client_desires_keys(client, &keys),
            Stimulus::ClientReleasesKeys { client, keys } => self.on_client_releases_keys(client, keys),
            Stimulus::CancelKeys { client, keys, force } => self.on_cancel_keys(client, &keys, force),
            Stimulus::RetryKeys { keys } => self.on_retry_keys(&keys),
            Stimulus::RestrictTasks { tasks } => self.on_restrict_tasks(tasks),
            Stimulus::DataScattered { client, key, nbytes, typename: _, workers } => {
                self.on_data_scattered(client, &key, nbytes, &workers);
            }
            Stimulus::ClientLeft { client } => self.on_client_left(client),

            // Dispatch and balance follow every stimulus.
            Stimulus::Timeout => {
                self.continue_arrivals();
                self.continue_departures();
                self.continue_forgetting();
                self.lose_patience();
            }
        }
    }

    /// Counts what made no sense in the state it met.
    fn ignore(&mut self) {
        *self.stats.ignored_stimuli.entry(self.handling).or_default() += 1;
    }

    /// Sends what workers have to drop, and asks what became of the runs that were given up.
    fn send_frees(&mut self) {
        for (id, keys) in std::mem::take(&mut self.frees) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.unsent_frees.extend(keys);
                self.send_unsent_frees(id);
            }
        }
        for (key, run, resources) in std::mem::take(&mut self.given_up) {
            if let Some(worker) = self.workers.get_mut(&run.worker) {
                worker.linger(key.clone(), &run, resources);
                self.reindex(run.worker);
                self.request_steal(run.worker, key, run.run_id, None);
            }
        }
    }

    /// Orders workers that are equally good; a permutation of their ids by the seed.
    fn tie_break(&self, worker: WorkerId) -> u64 {
        u64::from(worker.0) ^ self.seed
    }
}
