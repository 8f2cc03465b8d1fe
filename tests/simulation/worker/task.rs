//! What a worker knows of a task.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::dask::{TaskKey, WorkerAddress};

/// A result: equal ones came of the same work on equal inputs.
pub(crate) type Value = u64;

/// As the worker names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Released,
    Waiting,
    Fetch,
    Flight,
    Missing,
    Ready,
    Constrained,
    Executing,
    LongRunning,
    /// What was under way is of no use any more, but cannot be stopped.
    Cancelled,
    /// What is under way is not what was asked for last.
    Resumed,
    Memory,
    Error,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::Fetch => "fetch",
            Self::Flight => "flight",
            Self::Missing => "missing",
            Self::Ready => "ready",
            Self::Constrained => "constrained",
            Self::Executing => "executing",
            Self::LongRunning => "long-running",
            Self::Cancelled => "cancelled",
            Self::Resumed => "resumed",
            Self::Memory => "memory",
            Self::Error => "error",
        }
    }

    /// Not to be let go of because nothing waits for it.
    pub(super) fn is_needed_itself(self) -> bool {
        matches!(self, Self::Waiting | Self::Ready | Self::Constrained | Self::Executing | Self::LongRunning | Self::Memory)
    }
}

/// Where a task is to go, with what only that step needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finish {
    Released,
    Forgotten,
    Waiting,
    Fetch,
    Flight(WorkerAddress),
    Missing,
    Ready,
    Constrained,
    Executing,
    LongRunning(Option<f64>),
    Memory(Value, u64),
    Error(String, u64),
    Rescheduled,
}

/// What was under way when a task was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Previous {
    Executing,
    LongRunning,
    Flight,
}

/// What a resumed task is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Fetch,
    Waiting,
}

/// One task's record.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) state: State,
    pub(super) previous: Option<Previous>,
    pub(super) next: Option<Next>,
    /// Whether what was under way has ended.
    pub(super) done: bool,
    pub(super) run_id: Option<u64>,
    pub(super) priority: Vec<f64>,
    pub(super) resources: BTreeMap<String, f64>,
    pub(super) dependencies: BTreeSet<TaskKey>,
    pub(super) dependents: BTreeSet<TaskKey>,
    pub(super) waiting_for_data: BTreeSet<TaskKey>,
    pub(super) waiters: BTreeSet<TaskKey>,
    pub(super) who_has: BTreeSet<WorkerAddress>,
    pub(super) nbytes: Option<u64>,
}

impl Task {
    pub(super) fn new(priority: Vec<f64>) -> Self {
        Self {
            state: State::Released,
            previous: None,
            next: None,
            done: false,
            run_id: None,
            priority,
            resources: BTreeMap::new(),
            dependencies: BTreeSet::new(),
            dependents: BTreeSet::new(),
            waiting_for_data: BTreeSet::new(),
            waiters: BTreeSet::new(),
            who_has: BTreeSet::new(),
            nbytes: None,
        }
    }
}
