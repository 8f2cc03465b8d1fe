//! What can happen in a run.

use std::collections::BTreeMap;

use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::engine::{ClientId, CollectionId, WorkerProfile};

use crate::link::End;
use crate::worker::Value;
use crate::world::LinkId;

/// What happens at some time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Arrives {
        link: LinkId,
        end: End,
    },
    /// One end learns that a link is over.
    Ends {
        link: LinkId,
        end: End,
    },
    Turn {
        server: u32,
    },
    Timeout {
        server: u32,
    },
    ServerStarts,
    WorkerStarts {
        slot: usize,
    },
    Flush {
        worker: WorkerAddress,
    },
    Heartbeat {
        worker: WorkerAddress,
    },
    RunEnds {
        worker: WorkerAddress,
        key: TaskKey,
        number: u64,
    },
    Secedes {
        worker: WorkerAddress,
        key: TaskKey,
        number: u64,
    },
    /// A peer gets a question, and answers with what it has then.
    Asked {
        worker: WorkerAddress,
        peer: WorkerAddress,
        keys: Vec<TaskKey>,
    },
    Answered {
        worker: WorkerAddress,
        peer: WorkerAddress,
        answer: Answer,
    },
    Retries {
        worker: WorkerAddress,
        peer: WorkerAddress,
    },
    /// A worker that was closing has come to its end.
    Closes {
        worker: WorkerAddress,
    },
    Lowered {
        server: u32,
        client: ClientId,
    },
    Built {
        server: u32,
        collection: CollectionId,
        revision: u32,
    },
    Act,
    Calm,
    Look,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Data(BTreeMap<TaskKey, Value>),
    Busy,
    Nothing,
}

/// Who is at the other end of a link.
#[derive(Clone, Debug)]
pub(crate) enum Registration {
    Worker(WorkerProfile),
    Client,
}

/// Where a worker runs, one process after the other.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) nthreads: u32,
    pub(crate) gpus: u64,
    pub(crate) process: Option<WorkerAddress>,
}
