//! What happens to a worker's state, and what it wants done.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::wire::messages::FromWorker;

use super::task::Value;

/// Who holds a task's inputs, and how large they are.
pub(crate) type Inputs = Vec<(TaskKey, u64, Vec<WorkerAddress>)>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    ComputeTask {
        key: TaskKey,
        run_id: u64,
        inputs: Inputs,
        priority: [f64; 3],
        resources: BTreeMap<String, f64>,
    },
    FreeKeys(Vec<TaskKey>),
    AcquireReplicas(Inputs),
    RemoveReplicas(Vec<TaskKey>),
    StealRequest {
        key: TaskKey,
        stimulus_id: String,
    },
    RefreshWhoHas(Vec<(TaskKey, Vec<WorkerAddress>)>),
    RemoveWorker(WorkerAddress),
    Pause,
    Unpause,
    /// A peer that was busy may be asked again.
    RetryBusyWorker(WorkerAddress),
    /// It is time to ask for what nobody is known to have.
    FindMissing,
    /// A peer has answered, with some of what it was asked for.
    Gathered {
        worker: WorkerAddress,
        data: BTreeMap<TaskKey, Value>,
    },
    GatherBusy(WorkerAddress),
    GatherFailed(WorkerAddress),
    Executed {
        key: TaskKey,
        run_id: u64,
        value: Value,
        nbytes: u64,
    },
    ExecutionFailed {
        key: TaskKey,
        run_id: u64,
        text: String,
    },
    Rescheduled(TaskKey),
    Seceded(TaskKey),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instruction {
    Execute(TaskKey),
    Gather { worker: WorkerAddress, keys: BTreeSet<TaskKey> },
    RetryBusyWorkerLater(WorkerAddress),
    Say(FromWorker),
}
