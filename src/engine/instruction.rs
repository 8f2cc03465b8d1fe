//! What an engine wants done.

use bytes::Bytes;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{ClientId, CollectionId, Exception, RunId, WorkerId};

/// One thing to do; a list of them answers each stimulus, to be carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    /// Run a task: [`Engine::compute_task`](crate::engine::Engine::compute_task) says what is to be told of it.
    ComputeTask {
        worker: WorkerId,
        run_id: RunId,
    },
    FreeKeys {
        worker: WorkerId,
        keys: Vec<TaskKey>,
    },
    /// Fetch these from the workers named.
    AcquireReplicas {
        worker: WorkerId,
        replicas: Vec<(TaskKey, u64, Vec<WorkerAddress>)>,
    },
    RemoveReplicas {
        worker: WorkerId,
        keys: Vec<TaskKey>,
    },
    /// Give back a run that has not started, or say what became of it. The answer has to name the run.
    StealRequest {
        worker: WorkerId,
        key: TaskKey,
        run_id: RunId,
    },
    RefreshWhoHas {
        worker: WorkerId,
        who_has: Vec<(TaskKey, Vec<WorkerAddress>)>,
    },
    /// Another worker is gone: forget its replicas.
    RemoveWorker {
        worker: WorkerId,
        gone: WorkerAddress,
    },

    /// `type_pickle` is empty when the type is not known.
    KeyInMemory {
        client: ClientId,
        key: TaskKey,
        type_pickle: Bytes,
    },
    TaskErred {
        client: ClientId,
        key: TaskKey,
        exception: Exception,
    },
    LostData {
        client: ClientId,
        key: TaskKey,
    },
    CancelledKeys {
        client: ClientId,
        keys: Vec<TaskKey>,
        reason: String,
    },
    TaskRetried {
        client: ClientId,
        key: TaskKey,
    },

    /// A barrier of a shuffle is released or erred: what workers have of the shuffle is of no use any more.
    ShuffleOver {
        barrier: TaskKey,
    },

    /// The summary of this collection is different now; at most once a stimulus.
    CollectionChanged {
        collection: CollectionId,
    },
    /// Nothing holds keys of this removed collection any more.
    CollectionReleased {
        collection: CollectionId,
    },
}
