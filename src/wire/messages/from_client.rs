//! What a Client says on its stream.
//!
//! Source: distributed 2026.8.0, scheduler.py: `stream_handlers`; client.py; publish.py; variable.py; queues.py.

use crate::dask::{ClientName, Serialized, TaskKey};
use crate::wire::document::{DocumentError, Fields, Items};
use crate::wire::encoded_keys::EncodedKeys;
use crate::wire::frame::Message;
use crate::wire::value::Value;

/// A message of a Client's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum FromClient {
    UpdateGraph(Box<UpdateGraph>),
    /// `client` is given where the Client speaks for another, as `fire-and-forget`. The keys share the memory of the message.
    ClientDesiresKeys {
        keys: Vec<TaskKey>,
        client: Option<ClientName>,
    },
    ClientReleasesKeys {
        keys: Vec<TaskKey>,
        client: Option<ClientName>,
    },
    /// Say again what state this key is in.
    ReportKey {
        key: TaskKey,
    },
    CancelKeys {
        keys: Vec<TaskKey>,
        force: bool,
        reason: Option<String>,
        msg: Option<String>,
    },
    HeartbeatClient,
    CloseClient,
    CloseStream,
    SubscribeTopic {
        topic: String,
    },
    UnsubscribeTopic {
        topic: String,
    },
    /// All that this Client said before its RPC `publish_put` of the same `uid` has arrived.
    PublishFlushBatchedSend {
        uid: String,
    },
    LogEvent {
        topics: Vec<String>,
        msg: Value,
    },
    VariableDelete {
        name: TaskKey,
    },
    VariableFutureReceivedConfirm {
        name: TaskKey,
        key: TaskKey,
        token: String,
    },
    QueueRelease {
        name: TaskKey,
    },
    QueueFutureRelease {
        name: TaskKey,
        key: TaskKey,
    },
    /// No op that we know. Nothing follows from it.
    Unknown {
        op: String,
    },
}

impl FromClient {
    /// Whether it says what the Client wants computed or kept.
    pub fn is_about_keys(&self) -> bool {
        matches!(
            self,
            Self::UpdateGraph(_)
                | Self::ClientDesiresKeys { .. }
                | Self::ClientReleasesKeys { .. }
                | Self::ReportKey { .. }
                | Self::CancelKeys { .. }
        )
    }
}

/// A graph to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateGraph {
    /// Pickle of a `dask._expr.Expr`. Only the builder looks inside.
    pub expr_ser: Serialized,
    /// The keys that the Client wants. None at all where it only looks up a task.
    pub keys: EncodedKeys,
    /// Key to order, where the Client ordered the graph itself.
    pub internal_priority: Value,
    /// The task in which the Client runs.
    pub submitting_task: Option<TaskKey>,
    /// Text or number: `60s`, `100 ms`.
    pub fifo_timeout: Value,
    /// Nil, a boolean, or an array of keys.
    pub actors: Value,
    /// Pickle of the source lines that led here.
    pub code: Value,
    /// Pickle of a dict: workers, retries, priority, resources, `allow_other_workers` and what the user adds.
    pub annotations: Value,
    pub span_metadata: Value,
}

impl FromClient {
    /// All ops that are not `Unknown`.
    pub const OPS: [&'static str; 16] = [
        "update-graph",
        "client-desires-keys",
        "client-releases-keys",
        "report-key",
        "cancel-keys",
        "heartbeat-client",
        "close-client",
        "close-stream",
        "subscribe-topic",
        "unsubscribe-topic",
        "publish_flush_batched_send",
        "log-event",
        "variable_delete",
        "variable-future-received-confirm",
        "queue_release",
        "queue-future-release",
    ];

    /// # Errors
    /// When the message is no batch, or a field of a known op is missing or of a wrong type.
    pub fn decode_batch(message: &Message) -> Result<Vec<Self>, DocumentError> {
        Items::read_all(message, |items| items.fields()?.as_ref().map(Self::read).transpose())
    }

    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let client = || Ok::<_, DocumentError>(fields.optional_text("client")?.map(ClientName::new));
        let optional = |name| Ok::<_, DocumentError>(fields.optional_text(name)?.map(str::to_owned));
        let text = |name| fields.text(name).map(str::to_owned);
        Ok(match fields.op() {
            "update-graph" => Self::UpdateGraph(Box::new(UpdateGraph::read(fields)?)),
            "client-desires-keys" => Self::ClientDesiresKeys { keys: fields.shared_keys("keys")?, client: client()? },
            "client-releases-keys" => Self::ClientReleasesKeys { keys: fields.shared_keys("keys")?, client: client()? },
            "report-key" => Self::ReportKey { key: fields.key("key")? },
            "cancel-keys" => Self::CancelKeys {
                keys: fields.keys("keys")?,
                force: fields.optional_boolean("force")?.unwrap_or_default(),
                reason: optional("reason")?,
                msg: optional("msg")?,
            },
            "heartbeat-client" => Self::HeartbeatClient,
            "close-client" => Self::CloseClient,
            "close-stream" => Self::CloseStream,
            "subscribe-topic" => Self::SubscribeTopic { topic: text("topic")? },
            "unsubscribe-topic" => Self::UnsubscribeTopic { topic: text("topic")? },
            "publish_flush_batched_send" => Self::PublishFlushBatchedSend { uid: text("uid")? },
            "log-event" => Self::LogEvent { topics: fields.topics()?, msg: fields.value("msg")? },
            "variable_delete" => Self::VariableDelete { name: fields.key("name")? },
            "variable-future-received-confirm" => {
                Self::VariableFutureReceivedConfirm { name: fields.key("name")?, key: fields.key("key")?, token: text("token")? }
            }
            "queue_release" => Self::QueueRelease { name: fields.key("name")? },
            "queue-future-release" => Self::QueueFutureRelease { name: fields.key("name")?, key: fields.key("key")? },
            op => Self::Unknown { op: op.to_owned() },
        })
    }
}

impl UpdateGraph {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(Self {
            expr_ser: fields.serialized("expr_ser")?,
            keys: fields.encoded_keys("keys")?,
            internal_priority: fields.optional_value("internal_priority")?,
            submitting_task: fields.optional_key("submitting_task")?,
            fifo_timeout: fields.optional_value("fifo_timeout")?,
            actors: fields.optional_value("actors")?,
            code: fields.optional_value("code")?,
            annotations: fields.optional_value("annotations")?,
            span_metadata: fields.optional_value("span_metadata")?,
        })
    }
}
