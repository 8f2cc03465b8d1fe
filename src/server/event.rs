//! What reaches a namespace's server from its comms and from work it started.

use std::net::IpAddr;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::comm::{Outbox, Pool};
use crate::coordination::CallId;
use crate::dask::{ClientName, TaskKey, WorkerAddress};
use crate::engine::{ClientId, CollectionId, WorkerId};
use crate::server::admission::Facts;
use crate::server::build_document::BuildDocument;
use crate::server::builder::BuildFailure;
use crate::server::copies::{Copied, Errand};
use crate::server::feed::{Counted, Watch};
use crate::server::handle::Refusal;
use crate::server::restart::Restart;
use crate::server::shuffles::Flushed;
use crate::wire::messages::rpc::RegisterWorker;
use crate::wire::messages::{FromClient, FromWorker, Request};
use crate::wire::value::Value;

/// Where the answer of a request goes.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) call: CallId,
    pub(crate) sender: oneshot::Sender<Vec<Bytes>>,
}

impl Answer {
    /// Gives the chunks back when the caller has gone.
    pub(crate) fn send(self, chunks: Vec<Bytes>) -> Result<(), Vec<Bytes>> {
        self.sender.send(chunks)
    }

    /// Whether the caller has gone.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.sender.is_closed()
    }
}

/// One thing that happened outside the loop.
#[derive(Debug)]
pub(crate) enum Event {
    WorkerRegisters {
        arrival: Box<Arrival>,
        answer: oneshot::Sender<Option<WorkerId>>,
    },
    WorkerRefused(Refusal),
    /// A worker that wants to register has this name and address: who else has one of them?
    Claims {
        name: String,
        address: WorkerAddress,
        answer: oneshot::Sender<Vec<(WorkerId, WorkerAddress)>>,
    },
    WorkerSays {
        worker: WorkerId,
        messages: Vec<FromWorker>,
        /// What of it ended runs, for the task stream.
        records: Vec<Value>,
    },
    WorkerGone {
        worker: WorkerId,
    },
    ClientRegisters {
        name: ClientName,
        /// The field `versions`.
        versions: Value,
        outbox: Outbox,
        answer: oneshot::Sender<ClientId>,
    },
    ClientSays {
        client: ClientId,
        messages: Vec<FromClient>,
    },
    ClientGone {
        client: ClientId,
    },
    Asked {
        request: Box<Request>,
        peer: IpAddr,
        answer: Answer,
    },
    /// Who asked closed its comm before it was answered.
    CallerGone {
        call: CallId,
    },
    Built {
        collection: CollectionId,
        attempt: u64,
        result: Result<Box<BuildDocument>, BuildFailure>,
        /// The document as it came, if it was not laid down before.
        raw: Option<Bytes>,
    },
    /// A document is with these workers.
    DocumentKept {
        name: String,
        kept_by: Vec<WorkerId>,
    },
    /// A graph cannot be had from this worker's copy.
    DocumentMissing {
        collection: CollectionId,
        attempt: u64,
        name: String,
        holder: WorkerId,
    },
    Lowered {
        client: ClientId,
        result: Result<Box<BuildDocument>, BuildFailure>,
    },
    Scattered {
        client: ClientId,
        scattered: Vec<Scattered>,
        answer: Answer,
    },
    /// Which worker may look into a pickle that a Client sent.
    WhoBuilds {
        answer: oneshot::Sender<Option<(Arc<Pool>, WorkerAddress)>>,
    },
    /// How far the keys of a progress bar have come.
    Count {
        watch: Watch,
        with_all: bool,
        answer: oneshot::Sender<Counted>,
    },
    /// A silent worker was called.
    Called {
        worker: WorkerId,
        answers: bool,
    },
    /// Nannies have ended their workers; some did not in time.
    Killed {
        restart: Restart,
        alive: Vec<WorkerId>,
    },
    Copied {
        errand: Errand,
        copied: Copied,
    },
    Flushed(Flushed),
    /// Somebody wants to be told which workers come and go.
    Onlooker {
        outbox: Outbox,
    },
    /// A nanny is about to start its worker; then it has, or has failed to.
    NannyStarts {
        answer: oneshot::Sender<Vec<Bytes>>,
    },
    NannyStarted,
}

impl Event {
    /// How many messages it stands for, at least one.
    pub(crate) fn messages(&self) -> usize {
        match self {
            Self::WorkerSays { messages, .. } => messages.len(),
            Self::ClientSays { messages, .. } => messages.len(),
            _ => 1,
        }
        .max(1)
    }
}

/// A worker that was admitted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) registration: RegisterWorker,
    /// The field `versions`, for those who ask.
    pub(crate) versions: Value,
    pub(crate) facts: Facts,
    pub(crate) outbox: Outbox,
    /// Where its comm comes from; all of its requests must come from there.
    pub(crate) peer: IpAddr,
}

/// A value that a Client put on workers.
#[derive(Debug)]
pub(crate) struct Scattered {
    pub(crate) key: TaskKey,
    pub(crate) nbytes: u64,
    pub(crate) workers: Vec<WorkerId>,
}
