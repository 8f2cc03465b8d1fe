//! What an engine tells of one collection.

use std::fmt;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Resources, WorkerSelector};

/// The state of one collection; bounded in size whatever the graph's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub tasks: TaskCounts,
    pub retries: RetrySummary,
    pub user_priority: f64,
    pub generation: u64,
    /// 1 for the collections that get the next free thread; none for one that waits for no thread.
    pub position: Option<u64>,
    /// All bytes of output keys in memory, one replica each.
    pub nbytes: u64,
    pub outputs: Vec<OutputSummary>,
    /// The workers that hold most of the collection's keys, at most `SUMMARY_WORKERS_MAX`.
    pub workers: Vec<WorkerShare>,
    pub workers_total: usize,
    /// The first failures, at most `SUMMARY_FAILURES_MAX`.
    pub failures: Vec<FailureSummary>,
    /// Workers that satisfy the collection's own selector and resources, and all running workers.
    pub workers_matching: usize,
    pub workers_running: usize,
    /// The names of workers of which nothing is heard, at most `SUMMARY_WORKERS_MAX`.
    pub workers_silent: Vec<String>,
    /// Why tasks are in `no-worker`, for the requirement that holds back most of them.
    pub unrunnable: Option<Unrunnable>,
    /// How often an output key that was in memory was lost.
    pub losses: u64,
    /// How many copies of the outputs there are; none for a collection that wants one of each.
    pub replicas: Option<ReplicaSummary>,
    /// The overrides that match no task, in their order.
    pub unmatched_overrides: Vec<UnmatchedOverride>,
}

/// An override that matches no task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmatchedOverride {
    pub keys: String,
    /// The name of a task, or the prefix of keys, that was perhaps meant.
    pub closest: Option<String>,
}

impl fmt::Display for UnmatchedOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "override `{}` matches no task", self.keys)?;
        self.closest.iter().try_for_each(|closest| write!(f, " (did you mean `{closest}`?)"))
    }
}

/// Tasks by state, as in Dask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    pub total: u64,
    pub released: u64,
    pub waiting: u64,
    pub no_worker: u64,
    pub queued: u64,
    pub processing: u64,
    pub memory: u64,
    pub erred: u64,
    /// Tasks with nothing left to do: in memory, or released because nothing needs them (any more).
    pub done: u64,
}

/// What was run again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetrySummary {
    pub limit: u32,
    /// Runs repeated after an exception.
    pub used: u64,
    /// Tasks that failed with no retry left.
    pub exhausted: u64,
    /// Runs repeated because the worker was lost.
    pub worker_lost: u64,
    /// Tasks with runs that failed and how many, at most `SUMMARY_RETRIED_MAX`.
    pub tasks: Vec<(TaskKey, u32)>,
}

/// How much of one output is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputSummary {
    pub name: String,
    pub keys: u64,
    pub in_memory: u64,
    pub erred: u64,
    pub nbytes: u64,
}

/// How far the outputs of a collection are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSummary {
    pub wanted: u32,
    /// How many an output key in memory has at least, on workers that will stay as far as anybody knows.
    pub least: u32,
    /// Output keys in memory that have fewer than they should.
    pub short: u64,
    /// Workers that may hold copies.
    pub workers: u64,
}

/// What one worker holds of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerShare {
    pub address: WorkerAddress,
    pub name: String,
    pub pod: Option<String>,
    /// Keys in memory and tasks processing there.
    pub tasks: u64,
    pub nbytes: u64,
}

/// A task that failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureSummary {
    pub key: TaskKey,
    pub exception_text: String,
    pub traceback_text: String,
    pub attempts: u32,
    /// The name of the worker it failed on last.
    pub worker: String,
}

/// A requirement that no running worker meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrunnable {
    pub tasks: u64,
    pub example: TaskKey,
    /// Which workers are required; `None` if all are allowed, or these are only preferred.
    pub workers: Option<WorkerSelector>,
    pub resources: Resources,
    /// Running workers that the selector alone allows.
    pub workers_selected: usize,
    /// The resource that is missing, and the worker that has most of it: (resource, worker name, what it has).
    pub nearest: Option<(String, String, crate::engine::Amount)>,
    /// How many running workers there are at all.
    pub workers_running: usize,
}
