//! The status of a `PersistedCollection`: bounded in size whatever the graph's.

#![expect(unreachable_pub, reason = "KubeSchema derives from a copy of each type inside a function")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Most workers in the status; `workerCount` counts all.
pub const WORKERS_MAX: usize = 16;
/// Most lost workers in the status.
pub const LOST_WORKERS_MAX: usize = 8;
/// Most failures in the status.
pub const FAILURES_MAX: usize = 10;
/// Most tasks with failed runs in the status.
pub const RETRIED_MAX: usize = 64;
/// Most outputs in the status: all of them, since a source may name no more.
pub const OUTPUTS_MAX: usize = super::spec::COLLECTIONS_MAX;
/// Where a task key is cut.
pub const STATUS_KEY_LENGTH_MAX: usize = 253;
/// Where an exception's text is cut.
pub const STATUS_EXCEPTION_LENGTH_MAX: usize = 512;
/// Where a traceback is cut: its end is kept.
pub const STATUS_TRACEBACK_LENGTH_MAX: usize = 2048;
/// Where a condition's message is cut.
pub const STATUS_MESSAGE_LENGTH_MAX: usize = 2048;

/// Where a collection is on its way. For people; programs read the conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Phase {
    #[default]
    Pending,
    Building,
    Running,
    Persisted,
    Degraded,
    Failed,
    Suspended,
    Releasing,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Building => "Building",
            Self::Running => "Running",
            Self::Persisted => "Persisted",
            Self::Degraded => "Degraded",
            Self::Failed => "Failed",
            Self::Suspended => "Suspended",
            Self::Releasing => "Releasing",
        }
    }
}

/// What is going on with the collection, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistedCollectionStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the collection is on its way: Pending (waits for its source or for workers), Building (the graph), Running,
    /// Persisted (all outputs are in memory), Degraded (some were lost and are computed again), Failed, Suspended, Releasing
    /// (it is deleted and its memory is freed). For people; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Ready is what to wait for. Reconciling and Stalled say whether it is being worked on, or cannot go on without you;
    /// SourceResolved, GraphAccepted and WorkersAvailable say how far it came; Replicated, if spec.persistence asks for
    /// copies, whether they are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Share of the tasks that are done, for example "87%". "100%" only when all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub progress: Option<String>,

    /// Tasks of the graph by their state in the scheduler, named as in Dask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TasksStatus>,

    /// What was run again, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesStatus>,

    /// What decides the order in which tasks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityStatus>,

    /// Number of running workers that may take its tasks, by spec.workers and spec.resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matching_workers: Option<i64>,

    /// Number of workers that hold or run something of this collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_count: Option<i64>,

    /// The first 16 of these workers, those with most tasks first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = WORKERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub workers: Vec<WorkerStatus>,

    /// The last 8 workers that went with results or tasks of this collection, the latest last, since the operator started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LOST_WORKERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub lost_workers: Vec<LostWorkerStatus>,

    /// How many copies of the outputs there are, if spec.persistence asks for more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasStatus>,

    /// Memory that the outputs take, in bytes; each key once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbytes: Option<i64>,

    /// The same to read, for example "1.2 GiB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,

    /// What can be read, with client.get_dataset("name/output").
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = OUTPUTS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub outputs: Vec<OutputStatus>,

    /// The first 10 tasks that failed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = FAILURES_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failures: Vec<FailureStatus>,
}

/// Counts of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TasksStatus {
    /// All tasks of the graph.
    pub total: i64,
    /// Not needed at present: done and freed, or not wanted yet.
    pub released: i64,
    /// Wait for tasks that they depend on.
    pub waiting: i64,
    /// Wait for a worker that may take them; WorkersAvailable says what is missing.
    pub no_worker: i64,
    /// Ready, and wait for a free thread.
    pub queued: i64,
    /// Sent to a worker.
    pub processing: i64,
    /// Have their result in the memory of a worker.
    pub memory: i64,
    /// Failed, or depend on one that did.
    pub erred: i64,
}

/// What was run again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriesStatus {
    /// spec.retries, as it is in force.
    pub limit: i64,
    /// Runs repeated after an exception.
    pub used: i64,
    /// Tasks that failed with no retry left.
    pub exhausted: i64,
    /// Runs repeated because the worker was lost; not counted against the limit.
    pub worker_lost: i64,
    /// The first 64 tasks with runs that failed. A new operator counts on from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RETRIED_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tasks: Vec<TaskRetriesStatus>,
}

/// How often one task failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TaskRetriesStatus {
    /// Its key.
    #[schemars(length(max = STATUS_KEY_LENGTH_MAX))]
    pub key: String,
    /// How many of its runs failed; the task fails when there are more than its retries.
    pub failed: i64,
}

/// How far the outputs are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ReplicasStatus {
    /// spec.persistence.replicas, as it is in force.
    pub wanted: i64,
    /// How many copies there are at least of a key that is in memory; those on workers that are closing, or of which nothing
    /// is heard, do not count.
    pub least: i64,
    /// How many keys in memory have fewer copies than wanted.
    pub short: i64,
}

/// What decides the order of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct PriorityStatus {
    /// spec.priority, as it is in force: higher runs first.
    pub user: f64,
    /// Among equal priorities the lower generation runs first; see spec.fifoTimeout.
    pub generation: i64,
    /// The collection's position among those of the namespace that have tasks queued for a thread: 1 is served next.
    /// Equal priority and generation share a position. Absent while none of its tasks is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
}

/// A worker's share of the collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct WorkerStatus {
    /// Its pod, or its name where there are no pods.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Where it listens.
    #[schemars(length(max = 253))]
    pub address: String,
    /// Results that it holds and tasks that it runs.
    pub tasks: i64,
    /// Memory of these results, in bytes.
    pub nbytes: i64,
}

/// A worker that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct LostWorkerStatus {
    /// Its pod, or its name where there are no pods.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Why, as its pod says: OOMKilled, Evicted, Preempted, NodeLost, Deleted, Error and so on; Unknown if it says nothing.
    #[schemars(length(max = 253))]
    pub reason: String,
    /// The same in words.
    #[schemars(length(max = STATUS_EXCEPTION_LENGTH_MAX))]
    pub message: String,
}

/// One output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputStatus {
    /// Its name in spec.collections.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its Python type, for example DataFrame.
    #[serde(rename = "type")]
    #[schemars(length(max = 253))]
    pub type_name: String,
    /// Number of keys: partitions, or blocks.
    pub keys: i64,
    /// How many of them are in memory.
    pub in_memory: i64,
    /// Memory that they take, in bytes.
    pub nbytes: i64,
}

/// A task that failed for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct FailureStatus {
    /// Its key.
    #[schemars(length(max = STATUS_KEY_LENGTH_MAX))]
    pub key: String,
    /// What it raised, for example "ValueError: bad row 7".
    #[schemars(length(max = STATUS_EXCEPTION_LENGTH_MAX))]
    pub exception: String,
    /// How often it ran.
    pub attempts: i64,
    /// The worker that it ran on last.
    #[schemars(length(max = 253))]
    pub worker: String,
    /// The end of its traceback.
    #[schemars(length(max = STATUS_TRACEBACK_LENGTH_MAX))]
    pub traceback: String,
}
