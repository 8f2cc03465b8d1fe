//! What a worker says on its stream.
//!
//! Source: distributed 2026.8.0, worker_state_machine.py: subclasses of `SendMessageToScheduler`; worker.py.

use bytes::Bytes;

use crate::dask::{Serialized, TaskKey};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::frame::Message;
use crate::wire::text::{exception_text, traceback_text};
use crate::wire::value::Value;

/// A message of a worker's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    TaskFinished(Box<TaskFinished>),
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
    /// A replica was dropped, also because we said so.
    ReleaseWorkerData {
        key: TaskKey,
    },
    /// The worker holds these replicas.
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
    KeepAlive,
    CloseStream,
    /// No op that we know. Nothing follows from it.
    Unknown {
        op: String,
    },
}

/// A task's result is in the worker's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFinished {
    pub key: TaskKey,
    pub run_id: u64,
    pub nbytes: u64,
    /// Pickle of the result's class, or of its name.
    pub type_pickle: Bytes,
    pub typename: String,
    pub metadata: Value,
    pub thread: Option<u64>,
    pub startstops: Vec<StartStop>,
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
    pub thread: Option<u64>,
    pub startstops: Vec<StartStop>,
}

/// Something a task did, in seconds since 1970 by the worker's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct StartStop {
    /// `compute`, `transfer`, `disk-read`, `disk-write` or `deserialize`.
    pub action: String,
    pub start: f64,
    pub stop: f64,
    /// From which worker, for `transfer`.
    pub source: Option<String>,
}

impl FromWorker {
    /// All ops that are not `Unknown`.
    pub const OPS: [&'static str; 12] = [
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
        "keep-alive",
        "close-stream",
    ];

    /// # Errors
    /// When the message is no batch, or a field of a known op is missing or of a wrong type.
    pub fn decode_batch(message: &Message) -> Result<Vec<Self>, DocumentError> {
        Fields::batch(message)?.iter().map(Self::read).collect()
    }

    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(match fields.op() {
            "task-finished" => Self::TaskFinished(Box::new(TaskFinished::read(fields)?)),
            "task-erred" => Self::TaskErred(Box::new(TaskErred::read(fields)?)),
            "reschedule" => Self::Reschedule { key: fields.key("key")? },
            "long-running" => Self::LongRunning {
                key: fields.key("key")?,
                run_id: fields.unsigned("run_id")?,
                compute_duration: fields.optional_number("compute_duration")?,
            },
            "release-worker-data" => Self::ReleaseWorkerData { key: fields.key("key")? },
            "add-keys" => Self::AddKeys { keys: fields.keys("keys")? },
            "request-refresh-who-has" => Self::RequestRefreshWhoHas { keys: fields.keys("keys")? },
            "steal-response" => Self::StealResponse {
                key: fields.key("key")?,
                state: fields.optional_text("state")?.map(str::to_owned),
                stimulus_id: fields.optional_text("stimulus_id")?.unwrap_or_default().to_owned(),
            },
            "worker-status-change" => Self::WorkerStatusChange { status: fields.text("status")?.to_owned() },
            "log-event" => Self::LogEvent { topics: fields.topics()?, msg: fields.value("msg")? },
            "keep-alive" => Self::KeepAlive,
            "close-stream" => Self::CloseStream,
            op => Self::Unknown { op: op.to_owned() },
        })
    }
}

impl TaskFinished {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(Self {
            key: fields.key("key")?,
            run_id: fields.unsigned("run_id")?,
            nbytes: fields.unsigned("nbytes")?,
            type_pickle: fields.binary("type")?,
            typename: fields.text("typename")?.to_owned(),
            metadata: fields.optional_value("metadata")?,
            thread: fields.optional_unsigned("thread")?,
            startstops: startstops(fields)?,
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
            thread: fields.optional_unsigned("thread")?,
            startstops: startstops(fields)?,
        })
    }
}

fn startstops(fields: &Fields<'_>) -> Result<Vec<StartStop>, DocumentError> {
    if !fields.has("startstops") {
        return Ok(Vec::new());
    }
    let read = |each: &Fields<'_>| {
        Ok(StartStop {
            action: each.text("action")?.to_owned(),
            start: each.number("start")?,
            stop: each.number("stop")?,
            source: each.optional_text("source")?.map(str::to_owned),
        })
    };
    fields.array_of_fields("startstops")?.iter().map(read).collect()
}
