//! What a worker says on its stream.
//!
//! Source: distributed 2026.8.0, worker_state_machine.py: subclasses of `SendMessageToScheduler`; worker.py.

use super::inventory::Inventory;
use super::quick;
use super::task_finished::TaskFinished;
use crate::dask::{Serialized, TaskKey};
use crate::wire::document::{DocumentError, Fields, Items};
use crate::wire::frame::Message;
use crate::wire::text::{exception_text, traceback_text};
use crate::wire::value::Value;

/// A message of a worker's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    TaskFinished(TaskFinished),
    TaskErred(Box<TaskErred>),
    /// The task raised `Reschedule`, or its worker is closing.
    Reschedule {
        key: TaskKey,
    },
    /// The task seceded: it runs on without its thread. The duration is in seconds.
    LongRunning {
        key: TaskKey,
        run_id: u64,
        compute_duration: Option<f64>,
    },
    /// A replica was dropped, also because we said so. The key may share the memory of the message.
    ReleaseWorkerData {
        key: TaskKey,
    },
    /// The worker holds these replicas. The keys share the memory of the message.
    AddKeys {
        keys: Vec<TaskKey>,
    },
    /// The worker cannot get these from where we said.
    RequestRefreshWhoHas {
        keys: Vec<TaskKey>,
    },
    /// `state` is the task's state on the worker; `None` when it does not know the task. `stimulus_id` is that of the request.
    StealResponse {
        key: TaskKey,
        state: Option<String>,
        stimulus_id: String,
    },
    WorkerStatusChange {
        status: String,
    },
    LogEvent {
        topics: Vec<String>,
        msg: Value,
    },
    /// A part of what a worker has that registered again.
    Inventory(Inventory),
    /// What failed there, and was not dropped since.
    InventoryErred(Box<TaskErred>),
    /// The documents that were laid down there.
    InventoryDocuments {
        names: Vec<String>,
    },
    KeepAlive,
    CloseStream,
    /// No op that we know. Nothing follows from it.
    Unknown {
        op: String,
    },
}

/// A task raised.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskErred {
    pub key: TaskKey,
    pub run_id: u64,
    pub exception: Serialized,
    pub traceback: Option<Serialized>,
    /// Cut and without control characters.
    pub exception_text: String,
    /// Cut and without control characters.
    pub traceback_text: String,
}

impl FromWorker {
    /// All ops that are not `Unknown`.
    pub const OPS: [&'static str; 15] = [
        "task-finished",
        "task-erred",
        "reschedule",
        "long-running",
        "release-worker-data",
        "add-keys",
        "request-refresh-who-has",
        "steal-response",
        "worker-status-change",
        "log-event",
        Inventory::OP,
        "mainstay-erred",
        "mainstay-documents",
        "keep-alive",
        "close-stream",
    ];

    /// # Errors
    /// When the message is no batch, or a field of a known op is missing or of a wrong type.
    pub fn decode_batch(message: &Message) -> Result<Vec<Self>, DocumentError> {
        Items::read_all(message, |items| match items.try_next(quick::read) {
            Some(read) => Ok(Some(read)),
            None => items.fields()?.as_ref().map(Self::read).transpose(),
        })
    }

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(match fields.op() {
            "task-finished" => Self::TaskFinished(TaskFinished::read(fields)?),
            "task-erred" => Self::TaskErred(Box::new(TaskErred::read(fields)?)),
            "reschedule" => Self::Reschedule { key: fields.key("key")? },
            "long-running" => Self::LongRunning {
                key: fields.key("key")?,
                run_id: fields.unsigned("run_id")?,
                compute_duration: fields.optional_number("compute_duration")?,
            },
            "release-worker-data" => Self::ReleaseWorkerData { key: fields.key("key")? },
            "add-keys" => Self::AddKeys { keys: fields.shared_keys("keys")? },
            "request-refresh-who-has" => Self::RequestRefreshWhoHas { keys: fields.keys("keys")? },
            "steal-response" => Self::StealResponse {
                key: fields.key("key")?,
                state: fields.optional_text("state")?.map(str::to_owned),
                stimulus_id: fields.optional_text("stimulus_id")?.unwrap_or_default().to_owned(),
            },
            "worker-status-change" => Self::WorkerStatusChange { status: fields.text("status")?.to_owned() },
            "log-event" => Self::LogEvent { topics: fields.topics()?, msg: fields.value("msg")? },
            Inventory::OP => Self::Inventory(Inventory::read(fields)?),
            "mainstay-erred" => Self::InventoryErred(Box::new(TaskErred::read(fields)?)),
            "mainstay-documents" => Self::InventoryDocuments { names: fields.texts("names")? },
            "keep-alive" => Self::KeepAlive,
            "close-stream" => Self::CloseStream,
            op => Self::Unknown { op: op.to_owned() },
        })
    }
}

impl TaskErred {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(Self {
            key: fields.key("key")?,
            run_id: fields.unsigned("run_id")?,
            exception: fields.serialized("exception")?,
            traceback: fields.optional_serialized("traceback")?,
            exception_text: exception_text(fields.optional_text("exception_text")?.unwrap_or_default()),
            traceback_text: traceback_text(fields.optional_text("traceback_text")?.unwrap_or_default()),
        })
    }
}
