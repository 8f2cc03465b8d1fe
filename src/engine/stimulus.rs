//! What can happen to an engine.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::dask::{HeldKey, Serialized, TaskKey, WorkerAddress};
use crate::engine::task_table::TaskId;
use crate::engine::{Graph, Requirements, Resources, WorkerSelector};

/// Milliseconds since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// One registration of a worker. An address that registers again is another worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

/// One connection of a Client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// One `PersistedCollection`; a re-created one of the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub u32);

/// One assignment of a task to a worker. A worker repeats it in its answer, so stale answers are known.
///
/// Carries the task's id, so that the answer leads to the task without its key:
///
/// ```text
/// 0 | epoch, 15 bits | task, 24 bits | number, 24 bits
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl RunId {
    const NUMBER_BITS: u32 = 24;
    const EPOCH_BITS: u32 = 63 - TaskId::BITS - Self::NUMBER_BITS;

    pub(super) fn new(epoch: u64, task: TaskId, number: u64) -> Self {
        let epoch = epoch & low_bits(Self::EPOCH_BITS);
        let number = number & low_bits(Self::NUMBER_BITS);
        Self(((epoch << TaskId::BITS | u64::from(task.bits())) << Self::NUMBER_BITS) | number)
    }

    /// The task that this is a run of, if it is a run of this engine.
    pub(super) fn task(self) -> TaskId {
        TaskId::from_bits((self.0 >> Self::NUMBER_BITS & low_bits(TaskId::BITS)) as u32)
    }

    /// Counts the runs of an engine, until the number of them has more bits than are kept.
    pub fn number(self) -> u64 {
        self.0 & low_bits(Self::NUMBER_BITS)
    }
}

const fn low_bits(count: u32) -> u64 {
    (1 << count) - 1
}

/// What is known of a worker from its registration and its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerProfile {
    pub address: WorkerAddress,
    /// What `--name` says; the pod's name in a cluster.
    pub name: String,
    /// The pod it runs in, in a cluster.
    pub pod: Option<String>,
    /// The node that this runs on, where that is known.
    pub node: Option<String>,
    pub nthreads: u32,
    pub memory_limit: Option<u64>,
    /// All that its tasks may take together.
    pub resources: Resources,
    /// The labels of its pod.
    pub labels: BTreeMap<String, String>,
    /// Reserved for building: takes no tasks.
    pub builder: bool,
}

impl WorkerProfile {
    /// What it shares its fate with: its node, or its host.
    pub fn node(&self) -> &str {
        self.node.as_deref().unwrap_or_else(|| self.address.host())
    }
}

/// What engines before this one counted for a collection. Told when it is built first; later ones change nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    pub retries_used: u64,
    pub worker_lost: u64,
    /// How many runs of a task failed.
    pub failures: Vec<(TaskKey, u32)>,
}

/// Whether a worker takes tasks, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStatus {
    /// Registered, but not yet ready for tasks.
    Init,
    Running,
    /// Above its memory threshold: starts no task and fetches nothing.
    Paused,
    /// Finishes what runs and takes nothing else.
    ClosingGracefully,
    Closing,
}

/// A part of what a worker has that comes from an engine before this one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub held: Vec<HeldKey>,
    pub runs: Vec<StartedRun>,
    pub failures: Vec<(TaskKey, RunId, Failure)>,
}

/// A run that was started and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedRun {
    pub key: TaskKey,
    /// Of the engine that started it.
    pub run_id: RunId,
    /// It has not given its thread back.
    pub has_thread: bool,
    /// It was not given up.
    pub is_wanted: bool,
    pub resources: Resources,
}

/// Why a task failed for good, or once.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub exception: Exception,
    /// One line: `ValueError: bad row 7`. Cut and cleaned where it came in.
    pub exception_text: String,
    pub traceback_text: String,
}

/// An exception for Clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Exception {
    /// Raised by the task; goes to Clients as the worker sent it.
    Raised { exception: Serialized, traceback: Option<Serialized> },
    /// The workers that ran the task died too often (`distributed.scheduler.KilledWorker`).
    KilledWorker { last_worker: WorkerAddress, allowed_failures: u32 },
    /// The worker that held the actor is gone.
    ActorLost { worker: WorkerAddress },
    /// The graph cannot be run as it is: the text says why.
    Refused { message: String },
    /// It needs what nobody has and nobody can make. Dask says of such tasks that they are cancelled.
    LostDependencies { message: String },
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Stimulus {
    WorkerJoined {
        worker: WorkerId,
        profile: WorkerProfile,
    },
    WorkerStatusChanged {
        worker: WorkerId,
        status: WorkerStatus,
    },
    /// The pod's labels or resources are different now.
    WorkerChanged {
        worker: WorkerId,
        labels: BTreeMap<String, String>,
        resources: Resources,
        builder: bool,
    },
    WorkerHeartbeat {
        worker: WorkerId,
        memory: u64,
        bandwidth: Option<f64>,
        executing: Vec<TaskKey>,
    },
    /// The worker's pod or node is going, or is not after all; the worker itself may not know.
    WorkerLeaving {
        worker: WorkerId,
        leaving: bool,
    },
    /// Nothing was heard of the worker for a while, although others speak; its comm stands.
    WorkerSilent {
        worker: WorkerId,
    },
    /// A silent worker speaks again.
    WorkerHeard {
        worker: WorkerId,
    },
    /// The comm ended. `expected` when the worker had said so or was told to: then no task is blamed. The shuffles with these
    /// barriers have lost data with it.
    WorkerLeft {
        worker: WorkerId,
        expected: bool,
        barriers: Vec<TaskKey>,
    },

    /// The worker comes from an engine before this one, and has this. Only before it says that it runs.
    WorkerInventory {
        worker: WorkerId,
        inventory: Inventory,
    },
    /// From here on no task is started, since others may bring its result; or they are back.
    Hold {
        holds: bool,
    },
    /// All graphs are there that are to come: what was brought and nobody needs is dropped.
    ForgetBrought,

    /// The key and the pickle may share the memory of a message: what is kept of them is copied.
    TaskFinished {
        worker: WorkerId,
        key: TaskKey,
        run_id: RunId,
        nbytes: u64,
        type_pickle: Bytes,
        compute_ms: Option<f64>,
    },
    TaskErred {
        worker: WorkerId,
        key: TaskKey,
        run_id: RunId,
        failure: Failure,
    },
    /// The task raised `Reschedule`, or its worker is closing.
    Reschedule {
        worker: WorkerId,
        key: TaskKey,
    },
    /// The task seceded: it runs on without its thread.
    LongRunning {
        worker: WorkerId,
        key: TaskKey,
        run_id: RunId,
        compute_ms: Option<f64>,
    },
    /// The worker dropped a replica (also the echo of what it was told).
    ReleaseWorkerData {
        worker: WorkerId,
        key: TaskKey,
    },
    /// The worker fetched replicas.
    AddKeys {
        worker: WorkerId,
        keys: Vec<TaskKey>,
    },
    /// From here on replicas that nobody needs stay, or go.
    KeepReplicas {
        keeps: bool,
    },
    /// They go now.
    ReduceReplicas,
    /// Somebody has no use for these replicas any more.
    DropReplicas {
        worker: WorkerId,
        keys: Vec<TaskKey>,
    },
    RequestRefreshWhoHas {
        worker: WorkerId,
        keys: Vec<TaskKey>,
    },
    /// `run_id` is that of the request; `state` is the task's state on the worker, `None` when it does not know the task.
    StealResponse {
        worker: WorkerId,
        key: TaskKey,
        run_id: RunId,
        state: Option<String>,
    },

    /// A shuffle has put on these workers what these tasks take.
    ShufflePlaced {
        outputs: Vec<(TaskKey, WorkerId)>,
    },
    /// The data of a shuffle is no whole, and has to be sent again.
    ShuffleRestarted {
        barrier: TaskKey,
    },

    /// A revision of a collection was asked for, and takes its place in the order although it is not built yet.
    /// `generation` is the one that an engine before this gave it.
    CollectionApplied {
        collection: CollectionId,
        fifo_timeout_ms: u64,
        generation: Option<u64>,
    },
    /// A revision of a collection was built; replaces the one before. Outputs are (name, keys).
    CollectionBuilt {
        collection: CollectionId,
        graph: Graph,
        outputs: Vec<(String, Vec<TaskKey>)>,
        requirements: Requirements,
        past: Past,
    },
    /// Priority, retries, workers or resources are different now.
    CollectionChanged {
        collection: CollectionId,
        requirements: Requirements,
    },
    CollectionRemoved {
        collection: CollectionId,
    },

    /// A Client's `update-graph`, lowered.
    UpdateGraph {
        client: ClientId,
        graph: Graph,
        /// Places in `Graph::keys`.
        wanted: Vec<u32>,
        requirements: Requirements,
        submitting_task: Option<TaskKey>,
    },
    ClientDesiresKeys {
        client: ClientId,
        keys: Vec<TaskKey>,
    },
    ClientReleasesKeys {
        client: ClientId,
        keys: Vec<TaskKey>,
    },
    CancelKeys {
        client: ClientId,
        keys: Vec<TaskKey>,
        force: bool,
    },
    RetryKeys {
        keys: Vec<TaskKey>,
    },
    /// From here on these run on the workers that are named; anywhere without names.
    RestrictTasks {
        tasks: Vec<(TaskKey, Option<WorkerSelector>)>,
    },
    /// Data that a Client or `scatter` put on workers: it has no task and cannot be recomputed.
    DataScattered {
        client: ClientId,
        key: TaskKey,
        nbytes: u64,
        typename: String,
        workers: Vec<WorkerId>,
    },
    ClientLeft {
        client: ClientId,
    },

    /// The time that `next_timeout` named has come.
    Timeout,
}

impl Stimulus {
    /// Its name in stories and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WorkerJoined { .. } => "worker-joined",
            Self::WorkerStatusChanged { .. } => "worker-status-changed",
            Self::WorkerChanged { .. } => "worker-changed",
            Self::WorkerHeartbeat { .. } => "worker-heartbeat",
            Self::WorkerLeaving { .. } => "worker-leaving",
            Self::WorkerSilent { .. } => "worker-silent",
            Self::WorkerHeard { .. } => "worker-heard",
            Self::WorkerLeft { .. } => "worker-left",
            Self::WorkerInventory { .. } => "worker-inventory",
            Self::Hold { .. } => "hold",
            Self::ForgetBrought => "forget-brought",
            Self::TaskFinished { .. } => "task-finished",
            Self::TaskErred { .. } => "task-erred",
            Self::Reschedule { .. } => "reschedule",
            Self::LongRunning { .. } => "long-running",
            Self::ReleaseWorkerData { .. } => "release-worker-data",
            Self::AddKeys { .. } => "add-keys",
            Self::KeepReplicas { .. } => "keep-replicas",
            Self::ReduceReplicas => "reduce-replicas",
            Self::DropReplicas { .. } => "drop-replicas",
            Self::RequestRefreshWhoHas { .. } => "request-refresh-who-has",
            Self::StealResponse { .. } => "steal-response",
            Self::ShufflePlaced { .. } => "shuffle-placed",
            Self::ShuffleRestarted { .. } => "shuffle-restarted",
            Self::CollectionApplied { .. } => "collection-applied",
            Self::CollectionBuilt { .. } => "collection-built",
            Self::CollectionChanged { .. } => "collection-changed",
            Self::CollectionRemoved { .. } => "collection-removed",
            Self::UpdateGraph { .. } => "update-graph",
            Self::ClientDesiresKeys { .. } => "client-desires-keys",
            Self::ClientReleasesKeys { .. } => "client-releases-keys",
            Self::CancelKeys { .. } => "cancel-keys",
            Self::RetryKeys { .. } => "retry-keys",
            Self::RestrictTasks { .. } => "restrict-tasks",
            Self::DataScattered { .. } => "data-scattered",
            Self::ClientLeft { .. } => "client-left",
            Self::Timeout => "timeout",
        }
    }
}
