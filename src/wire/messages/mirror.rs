//! The other side's half: reads what we send, writes what workers and Clients send.
//!
//! For whatever stands in for a worker or a Client: tests, simulations, benchmarks. Of a peer's message it writes the
//! fields that we read.

use super::from_worker::{FromWorker, TaskErred};
use super::to_worker::{Replica, ToWorker};
use super::{ComputeTask, FromClient, Inventory, TaskFinished, ToClient, UpdateGraph, head, named_key, named_keys, named_text};
use crate::dask::{Priority, RunSpec, TaskKey, WorkerAddress};
use crate::wire::document::{DocumentError, Fields, Items};
use crate::wire::encode::{Encode, Encoder};
use crate::wire::frame::Message;
use crate::wire::value::Value;

impl ToWorker {
    /// # Errors
    /// When the message is no batch of what we send to workers.
    pub fn decode_batch(message: &Message) -> Result<Vec<Self>, DocumentError> {
        Items::read_all(message, |items| items.fields()?.as_ref().map(Self::read).transpose())
    }

    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let text = |name| fields.text(name).map(str::to_owned);
        let stimulus_id = || text("stimulus_id");
        Ok(match fields.op() {
            "compute-task" => Self::ComputeTask(Box::new(ComputeTask::read(fields)?)),
            "free-keys" => Self::FreeKeys { keys: fields.keys("keys")?, stimulus_id: stimulus_id()? },
            "acquire-replicas" => Self::AcquireReplicas { replicas: replicas(fields)?, stimulus_id: stimulus_id()? },
            "remove-replicas" => Self::RemoveReplicas { keys: fields.keys("keys")?, stimulus_id: stimulus_id()? },
            "cancel-compute" => Self::CancelCompute { key: fields.key("key")?, stimulus_id: stimulus_id()? },
            "steal-request" => Self::StealRequest { key: fields.key("key")?, stimulus_id: stimulus_id()? },
            "refresh-who-has" => Self::RefreshWhoHas { who_has: who_has(fields)?, stimulus_id: stimulus_id()? },
            "remove-worker" => Self::RemoveWorker { worker: fields.address("worker")?, stimulus_id: stimulus_id()? },
            "worker-status-change" => Self::WorkerStatusChange { status: text("status")?, stimulus_id: stimulus_id()? },
            "close" => Self::Close {
                reason: fields.optional_text("reason")?.map(str::to_owned),
                nanny: fields.optional_boolean("nanny")?,
            },
            "close-stream" => Self::CloseStream,
            "shuffle-fail" => Self::ShuffleFail {
                shuffle_id: text("shuffle_id")?,
                run_id: fields.unsigned("run_id")?,
                message: text("message")?,
            },
            op => return Err(DocumentError::UnknownOp { op: op.to_owned() }),
        })
    }
}

impl ComputeTask {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let priority = fields.value("priority")?;
        let numbers: Vec<f64> = priority.as_elements().unwrap_or_default().iter().filter_map(Value::as_number).collect();
        let [user, generation, order] = numbers[..] else {
            return Err(fields.wrong_kind("priority", "three numbers", priority.kind()));
        };
        let run_spec = fields.pickled("run_spec")?;
        let pickle = run_spec.pickle().map_err(|_| fields.wrong_kind("run_spec", "a pickle", "different value"))?;
        Ok(Self {
            key: fields.key("key")?,
            run_id: fields.unsigned("run_id")?,
            dependencies: replicas(fields)?,
            priority: Priority::new(-user, generation, order as i64),
            run_spec: RunSpec::new(pickle),
            resource_restrictions: fields.numbers_by_name("resource_restrictions")?,
            actor: fields.boolean("actor")?,
            annotations: fields.value("annotations")?,
            span_id: fields.optional_text("span_id")?.map(str::to_owned),
            stimulus_id: fields.text("stimulus_id")?.to_owned(),
        })
    }
}

fn who_has(fields: &Fields<'_>) -> Result<Vec<(TaskKey, Vec<WorkerAddress>)>, DocumentError> {
    let entries = fields.by_key("who_has")?;
    let addresses = |value: &Value| {
        let elements = value.as_elements().unwrap_or_default();
        elements.iter().filter_map(Value::as_text).map(WorkerAddress::new).collect()
    };
    Ok(entries.into_iter().map(|(key, workers)| (key, addresses(&workers))).collect())
}

fn replicas(fields: &Fields<'_>) -> Result<Vec<Replica>, DocumentError> {
    let nbytes = fields.by_key("nbytes")?;
    let sizes = nbytes.iter().map(|(_, value)| value.as_integer().unwrap_or_default().unsigned_abs());
    Ok(who_has(fields)?.into_iter().zip(sizes).map(|((key, workers), nbytes)| (key, nbytes, workers)).collect())
}

impl ToClient {
    /// # Errors
    /// When the message is no batch of what we send to Clients.
    pub fn decode_batch(message: &Message) -> Result<Vec<Self>, DocumentError> {
        Items::read_all(message, |items| items.fields()?.as_ref().map(Self::read).transpose())
    }

    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let optional = |name| Ok::<_, DocumentError>(fields.optional_text(name)?.map(str::to_owned));
        Ok(match fields.op() {
            "stream-start" => Self::StreamStart {
                warning: optional("warning")?.unwrap_or_default(),
                error: optional("error")?.unwrap_or_default(),
            },
            "key-in-memory" => {
                let type_pickle = if fields.has("type") { Some(fields.binary("type")?) } else { None };
                Self::KeyInMemory { key: fields.key("key")?, type_pickle }
            }
            "task-erred" => Self::TaskErred {
                key: fields.key("key")?,
                exception: fields.value("exception")?,
                traceback: fields.value("traceback")?,
            },
            "lost-data" => Self::LostData { key: fields.key("key")? },
            "cancelled-keys" => {
                Self::CancelledKeys { keys: fields.keys("keys")?, reason: optional("reason")?, msg: optional("msg")? }
            }
            "task-retried" => Self::TaskRetried { key: fields.key("key")? },
            "event" => {
                let event = fields.value("event")?;
                let Some([time, msg]) = event.as_elements() else {
                    return Err(fields.wrong_kind("event", "a time and a message", event.kind()));
                };
                let time = time.as_number().ok_or_else(|| fields.wrong_kind("event", "a time", time.kind()))?;
                Self::Event { topic: fields.text("topic")?.to_owned(), time, msg: msg.clone() }
            }
            "adjust-heartbeat-interval" => Self::AdjustHeartbeatInterval { interval: fields.number("interval")? },
            "restart" => Self::Restart,
            "error" => Self::Error { exception: fields.value("exception")? },
            "stream-closed" => Self::StreamClosed,
            op => return Err(DocumentError::UnknownOp { op: op.to_owned() }),
        })
    }
}

impl FromWorker {
    pub fn op(&self) -> &str {
        match self {
            Self::TaskFinished(_) => "task-finished",
            Self::TaskErred(_) => "task-erred",
            Self::Reschedule { .. } => "reschedule",
            Self::LongRunning { .. } => "long-running",
            Self::ReleaseWorkerData { .. } => "release-worker-data",
            Self::AddKeys { .. } => "add-keys",
            Self::RequestRefreshWhoHas { .. } => "request-refresh-who-has",
            Self::StealResponse { .. } => "steal-response",
            Self::WorkerStatusChange { .. } => "worker-status-change",
            Self::LogEvent { .. } => "log-event",
            Self::Inventory(_) => Inventory::OP,
            Self::InventoryErred(_) => "mainstay-erred",
            Self::InventoryDocuments { .. } => "mainstay-documents",
            Self::KeepAlive => "keep-alive",
            Self::CloseStream => "close-stream",
            Self::Unknown { op } => op,
        }
    }
}

impl Encode for FromWorker {
    fn encode(&self, encoder: &mut Encoder) {
        let op = self.op();
        match self {
            Self::TaskFinished(task) => task.encode(encoder),
            Self::TaskErred(task) | Self::InventoryErred(task) => task.write(op, encoder),
            Self::Reschedule { key } | Self::ReleaseWorkerData { key } => {
                head(encoder, op, 1);
                named_key(encoder, key);
            }
            Self::LongRunning { key, run_id, compute_duration } => {
                head(encoder, op, 3);
                named_key(encoder, key);
                named(encoder, "run_id", *run_id);
                named(encoder, "compute_duration", *compute_duration);
            }
            Self::AddKeys { keys } | Self::RequestRefreshWhoHas { keys } => {
                head(encoder, op, 1);
                named_keys(encoder, keys);
            }
            Self::StealResponse { key, state, stimulus_id } => {
                head(encoder, op, 3);
                named_key(encoder, key);
                named(encoder, "state", state.as_deref());
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::WorkerStatusChange { status } => {
                head(encoder, op, 1);
                named_text(encoder, "status", status);
            }
            Self::LogEvent { topics, msg } => log_event(encoder, topics, msg),
            Self::Inventory(inventory) => inventory.write(encoder),
            Self::InventoryDocuments { names } => {
                head(encoder, op, 1);
                named(encoder, "names", names.clone());
            }
            Self::KeepAlive | Self::CloseStream | Self::Unknown { .. } => head(encoder, op, 0),
        }
    }
}

impl Encode for TaskFinished {
    fn encode(&self, encoder: &mut Encoder) {
        head(encoder, "task-finished", 5);
        named_key(encoder, &self.key);
        named(encoder, "run_id", self.run_id);
        named(encoder, "nbytes", self.nbytes);
        named(encoder, "type", self.type_pickle.clone());
        encoder.text("startstops");
        encoder.array(usize::from(self.compute_seconds.is_some()));
        if let Some(seconds) = self.compute_seconds {
            encoder.map(3);
            named_text(encoder, "action", "compute");
            named(encoder, "start", 0.0);
            named(encoder, "stop", seconds);
        }
    }
}

impl TaskErred {
    fn write(&self, op: &str, encoder: &mut Encoder) {
        head(encoder, op, 6);
        named_key(encoder, &self.key);
        named(encoder, "run_id", self.run_id);
        named(encoder, "exception", self.exception.clone());
        named(encoder, "traceback", self.traceback.clone());
        named_text(encoder, "exception_text", &self.exception_text);
        named_text(encoder, "traceback_text", &self.traceback_text);
    }
}

impl FromClient {
    pub fn op(&self) -> &str {
        match self {
            Self::UpdateGraph(_) => "update-graph",
            Self::ClientDesiresKeys { .. } => "client-desires-keys",
            Self::ClientReleasesKeys { .. } => "client-releases-keys",
            Self::ReportKey { .. } => "report-key",
            Self::CancelKeys { .. } => "cancel-keys",
            Self::HeartbeatClient => "heartbeat-client",
            Self::CloseClient => "close-client",
            Self::CloseStream => "close-stream",
            Self::SubscribeTopic { .. } => "subscribe-topic",
            Self::UnsubscribeTopic { .. } => "unsubscribe-topic",
            Self::PublishFlushBatchedSend { .. } => "publish_flush_batched_send",
            Self::LogEvent { .. } => "log-event",
            Self::VariableDelete { .. } => "variable_delete",
            Self::VariableFutureReceivedConfirm { .. } => "variable-future-received-confirm",
            Self::QueueRelease { .. } => "queue_release",
            Self::QueueFutureRelease { .. } => "queue-future-release",
            Self::Unknown { op } => op,
        }
    }
}

impl Encode for FromClient {
    fn encode(&self, encoder: &mut Encoder) {
        let op = self.op();
        match self {
            Self::UpdateGraph(graph) => graph.encode(encoder),
            Self::ClientDesiresKeys { keys, client } | Self::ClientReleasesKeys { keys, client } => {
                head(encoder, op, 2);
                named_keys(encoder, keys);
                named(encoder, "client", client.as_ref().map(|client| client.as_str()));
            }
            Self::ReportKey { key } => {
                head(encoder, op, 1);
                named_key(encoder, key);
            }
            Self::CancelKeys { keys, force, reason, msg } => {
                head(encoder, op, 4);
                named_keys(encoder, keys);
                named(encoder, "force", *force);
                named(encoder, "reason", reason.as_deref());
                named(encoder, "msg", msg.as_deref());
            }
            Self::HeartbeatClient | Self::CloseClient | Self::CloseStream | Self::Unknown { .. } => head(encoder, op, 0),
            Self::SubscribeTopic { topic } | Self::UnsubscribeTopic { topic } => {
                head(encoder, op, 1);
                named_text(encoder, "topic", topic);
            }
            Self::PublishFlushBatchedSend { uid } => {
                head(encoder, op, 1);
                named_text(encoder, "uid", uid);
            }
            Self::LogEvent { topics, msg } => log_event(encoder, topics, msg),
            Self::VariableDelete { name } | Self::QueueRelease { name } => {
                head(encoder, op, 1);
                named(encoder, "name", name);
            }
            Self::VariableFutureReceivedConfirm { name, key, token } => {
                head(encoder, op, 3);
                named(encoder, "name", name);
                named_key(encoder, key);
                named_text(encoder, "token", token);
            }
            Self::QueueFutureRelease { name, key } => {
                head(encoder, op, 2);
                named(encoder, "name", name);
                named_key(encoder, key);
            }
        }
    }
}

impl Encode for UpdateGraph {
    fn encode(&self, encoder: &mut Encoder) {
        head(encoder, "update-graph", 9);
        named(encoder, "expr_ser", self.expr_ser.clone());
        named(encoder, "keys", Value::Set(self.keys.keys().iter().map(Value::from).collect()));
        named(encoder, "internal_priority", self.internal_priority.clone());
        named(encoder, "submitting_task", self.submitting_task.as_ref().map(Value::from));
        named(encoder, "fifo_timeout", self.fifo_timeout.clone());
        named(encoder, "actors", self.actors.clone());
        named(encoder, "code", self.code.clone());
        named(encoder, "annotations", self.annotations.clone());
        named(encoder, "span_metadata", self.span_metadata.clone());
    }
}

fn log_event(encoder: &mut Encoder, topics: &[String], msg: &Value) {
    head(encoder, "log-event", 2);
    named(encoder, "topic", topics.to_vec());
    named(encoder, "msg", msg.clone());
}

fn named(encoder: &mut Encoder, name: &str, value: impl Into<Value>) {
    encoder.text(name);
    encoder.value(&value.into());
}
