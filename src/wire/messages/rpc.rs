//! One request and its answer on a comm, and then the next.
//!
//! What a peer asks is a [`Request`], read field by field; what begins a stream or comes all the time has a type.
//! What we ask of workers and nannies is an [`Ask`]. An answer is any [`Value`].
//!
//! Source: distributed 2026.8.0, core.py: `Server._handle_comm`, `send_recv`, `error_message`; scheduler.py: `handlers`.

use bytes::Bytes;

use crate::dask::{ClientName, TaskKey, WorkerAddress};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::encode::{Encode, Encoder};
use crate::wire::fields::Entries;
use crate::wire::frame::Message;
use crate::wire::pickle::Object;
use crate::wire::release::{Release, ReleaseError};
use crate::wire::text::exception_text;
use crate::wire::value::Value;

/// What workers, nannies and Clients of the supported releases may ask. Other ops are answered with nil, as stock does.
pub const OPS: &[&str] = &[
    // Joining and leaving.
    "register-worker",
    "register-client",
    "register_nanny",
    "unregister",
    "heartbeat_worker",
    "set_resources",
    "retire_workers",
    "terminate",
    "identity",
    "versions",
    // Keys and data.
    "who_has",
    "has_what",
    "ncores",
    "ncores_running",
    "nbytes",
    "processing",
    "gather",
    "scatter",
    "update_data",
    "retry",
    "replicate",
    "rebalance",
    "restart",
    "restart_workers",
    "publish_put",
    "publish_get",
    "publish_list",
    "publish_delete",
    "publish_wait_flush",
    // Talking to workers through us.
    "broadcast",
    "proxy",
    "run_function",
    "register_worker_plugin",
    "unregister_worker_plugin",
    "register_nanny_plugin",
    "unregister_nanny_plugin",
    "register_scheduler_plugin",
    "unregister_scheduler_plugin",
    // Metadata and events.
    "get_metadata",
    "set_metadata",
    "start_task_metadata",
    "stop_task_metadata",
    "log_event",
    "events",
    // Diagnostics.
    "adaptive_target",
    "amm_handler",
    "benchmark_hardware",
    "call_stack",
    "dump_cluster_state_to_url",
    "feed",
    "get_cluster_state",
    "get_error_cause",
    "get_logs",
    "get_runspec",
    "get_story",
    "get_task_prefix_states",
    "get_task_status",
    "get_task_stream",
    "get_task_stream_index",
    "logs",
    "memory_sampler_start",
    "memory_sampler_stop",
    "performance_report",
    "profile",
    "set_restrictions",
    "subscribe_worker_status",
    "worker_logs",
    "workers_to_close",
    // Coordination.
    "event_clear",
    "event_is_set",
    "event_set",
    "event_wait",
    "multi_lock_acquire",
    "multi_lock_release",
    "queue_create",
    "queue_get",
    "queue_put",
    "queue_qsize",
    "semaphore_acquire",
    "semaphore_close",
    "semaphore_refresh_leases",
    "semaphore_register",
    "semaphore_release",
    "semaphore_value",
    "variable_get",
    "variable_set",
    // P2P shuffles.
    "shuffle_barrier",
    "shuffle_get",
    "shuffle_get_or_create",
    "shuffle_restrict_task",
];

/// What a peer asks, or the registration with which it begins a stream.
#[derive(Clone, Debug)]
pub struct Request {
    message: Message,
    entries: Entries,
    op: String,
    /// Whether the peer waits for an answer.
    pub reply: bool,
    /// Whether the comm ends with the answer.
    pub close: bool,
}

impl Request {
    /// # Errors
    /// When the message is no map with an op.
    pub fn decode(message: Message) -> Result<Self, DocumentError> {
        let (entries, op, reply, close) = {
            let fields = Fields::whole(&message)?;
            let reply = fields.optional_boolean("reply")?.unwrap_or(true);
            let close = fields.optional_boolean("close")?.unwrap_or(false);
            (fields.entries().clone(), fields.op().to_owned(), reply, close)
        };
        Ok(Self { message, entries, op, reply, close })
    }

    pub fn op(&self) -> &str {
        &self.op
    }

    pub fn fields(&self) -> Fields<'_> {
        Fields::of(&self.message, self.entries.clone(), &self.op)
    }

    /// The release of the peer that registers.
    ///
    /// # Errors
    /// When it is not supported, or not said.
    pub fn release(&self) -> Result<Release, ReleaseError> {
        Release::from_versions(&self.fields().fields("versions")?)
    }
}

/// A worker wants to join; its comm becomes a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisterWorker {
    pub address: WorkerAddress,
    pub status: String,
    /// What `--name` says; a number there is a text here.
    pub name: String,
    pub nthreads: u32,
    pub resources: Vec<(String, f64)>,
    /// In bytes; `None` without limit.
    pub memory_limit: Option<u64>,
    pub nanny: Option<WorkerAddress>,
    pub pid: u64,
    /// Unique for each start of the process.
    pub server_id: String,
    pub local_directory: String,
    pub services: Value,
    /// As those of a heartbeat.
    pub metrics: Bytes,
    /// What preloads add.
    pub extra: Value,
    /// What the keeper says, if it was loaded.
    pub keeper: Option<Keeper>,
    /// The worker's clock, in seconds since 1970.
    pub now: f64,
}

impl RegisterWorker {
    pub const OP: &'static str = "register-worker";

    /// # Errors
    /// When a field is missing or of a wrong type.
    pub fn read(request: &Request) -> Result<Self, DocumentError> {
        let fields = request.fields();
        let name = match fields.value("name")? {
            Value::Text(text) => text,
            Value::Integer(integer) => integer.to_string(),
            Value::Float(float) => float.to_string(),
            other => return Err(fields.wrong_kind("name", "a text or a number", other.kind())),
        };
        Ok(Self {
            address: fields.address("address")?,
            status: fields.text("status")?.to_owned(),
            name,
            nthreads: u32::try_from(fields.unsigned("nthreads")?).unwrap_or(u32::MAX),
            resources: fields.numbers_by_name("resources")?,
            memory_limit: fields.optional_unsigned("memory_limit")?.filter(|limit| *limit > 0),
            nanny: fields.optional_text("nanny")?.map(WorkerAddress::new),
            pid: fields.optional_unsigned("pid")?.unwrap_or_default(),
            server_id: fields.text("server_id")?.to_owned(),
            local_directory: fields.optional_text("local_directory")?.unwrap_or_default().to_owned(),
            services: fields.optional_value("services")?,
            metrics: fields.document("metrics"),
            extra: fields.optional_value("extra")?,
            keeper: Keeper::read(&fields),
            now: fields.optional_number("now")?.unwrap_or_default(),
        })
    }
}

/// What the keeper of a worker says when the worker registers.
///
/// Source: server/keeper.py.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Why it leaves the worker as it is; `None` if it does not.
    pub why_stock: Option<String>,
    /// The epoch of the scheduler that the worker comes from; `None` if this is its first.
    pub epoch: Option<u64>,
}

impl Keeper {
    /// Nothing when there is none. What other preloads add may be anything.
    fn read(fields: &Fields<'_>) -> Option<Self> {
        let keeper = fields.fields("extra").ok()?.fields("mainstay").ok()?;
        let keeps = keeper.optional_boolean("keeps").ok()??;
        let why = keeper.optional_text("why").ok()?.unwrap_or("it does not say why");
        let epoch = keeper.optional_unsigned("epoch").ok()?;
        Some(Self { why_stock: (!keeps).then(|| exception_text(why)), epoch: epoch.filter(|_| keeps) })
    }
}

/// A Client wants to join; its comm becomes a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterClient {
    pub client: ClientName,
}

impl RegisterClient {
    pub const OP: &'static str = "register-client";

    /// # Errors
    /// When a field is missing or of a wrong type.
    pub fn read(request: &Request) -> Result<Self, DocumentError> {
        Ok(Self { client: request.fields().client("client")? })
    }
}

/// A worker is alive.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatWorker {
    pub address: WorkerAddress,
    /// All that it measured, for those who ask: a document of its own, read when somebody does.
    pub metrics: Bytes,
    /// Of these metrics what we need: bytes of memory in use,
    pub memory: u64,
    /// and bytes a second from other workers.
    pub bandwidth: Option<f64>,
    pub executing: Vec<TaskKey>,
}

impl HeartbeatWorker {
    pub const OP: &'static str = "heartbeat_worker";

    /// # Errors
    /// When a field is missing or of a wrong type.
    pub fn read(request: &Request) -> Result<Self, DocumentError> {
        let fields = request.fields();
        let executing = if fields.has("executing") { fields.by_key("executing")? } else { Vec::new() };
        // Whatever a worker measures, it is alive.
        let metrics = fields.fields("metrics").ok();
        let memory = metrics.as_ref().and_then(|metrics| metrics.unsigned("memory").ok());
        let bandwidth = metrics.as_ref().and_then(|metrics| metrics.fields("bandwidth").ok()?.number("total").ok());
        Ok(Self {
            address: fields.address("address")?,
            metrics: fields.document("metrics"),
            memory: memory.unwrap_or_default(),
            bandwidth,
            executing: executing.into_iter().map(|(key, _)| key).collect(),
        })
    }
}

/// What we ask of a worker or a nanny.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    op: &'static str,
    reply: bool,
    fields: Vec<(&'static str, Value)>,
}

impl Ask {
    pub fn new(op: &'static str) -> Self {
        Self { op, reply: true, fields: Vec::new() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Wants no answer.
    #[must_use]
    pub fn without_reply(mut self) -> Self {
        self.reply = false;
        self
    }

    pub fn op(&self) -> &'static str {
        self.op
    }
}

impl Encode for Ask {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(2 + self.fields.len());
        encoder.text("op");
        encoder.text(self.op);
        encoder.text("reply");
        encoder.boolean(self.reply);
        for (name, value) in &self.fields {
            encoder.text(name);
            encoder.value(value);
        }
    }
}

/// The chunks of the bare "OK" that is due after an answer to `get_data`.
///
/// Source: distributed 2026.8.0, worker.py: `get_data_from_worker`.
pub fn acknowledgement() -> Vec<Bytes> {
    Value::from("OK").encode()
}

/// The answer to `register-worker`. Times are in seconds; plugins are pickles by name. Only the keeper reads the epoch.
pub fn registered(now: f64, heartbeat_interval: f64, worker_plugins: &[(String, Bytes)], warning: String, epoch: u64) -> Value {
    Value::map([
        ("status", "OK".into()),
        ("time", now.into()),
        ("heartbeat-interval", heartbeat_interval.into()),
        ("worker-plugins", plugins_value(worker_plugins)),
        ("warning", Value::Text(warning)),
        ("epoch", epoch.into()),
    ])
}

/// The answer to `register_nanny`; plugins as above.
pub fn nanny_registered(nanny_plugins: &[(String, Bytes)]) -> Value {
    Value::map([("status", "OK".into()), ("nanny-plugins", plugins_value(nanny_plugins))])
}

fn plugins_value(plugins: &[(String, Bytes)]) -> Value {
    Value::Map(plugins.iter().map(|(name, pickle)| (name.as_str().into(), Value::Binary(pickle.clone()))).collect())
}

/// The answer to `register-worker` after which the worker exits.
pub fn refused(now: f64, message: &str) -> Value {
    Value::map([("status", "error".into()), ("message", message.into()), ("time", now.into())])
}

/// The answer to `heartbeat_worker`. Times are in seconds.
pub fn alive(now: f64, heartbeat_interval: f64) -> Value {
    Value::map([("status", "OK".into()), ("time", now.into()), ("heartbeat-interval", heartbeat_interval.into())])
}

/// The answer to `heartbeat_worker` after which the worker exits.
pub fn missing() -> Value {
    Value::map([("status", "missing".into())])
}

/// The answer that makes the caller raise.
pub fn failed(exception: &Object, text: &str) -> Value {
    failed_with(exception.dumps(), text)
}

/// The same with the pickle of an exception.
pub fn failed_with(exception: Bytes, text: &str) -> Value {
    Value::map([
        ("status", "uncaught-error".into()),
        ("exception", exception.into()),
        ("traceback", Value::Nil),
        ("exception_text", exception_text(text).into()),
        ("traceback_text", "".into()),
    ])
}
