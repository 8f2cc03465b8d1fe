//! What we say on a Client's stream.
//!
//! A `status` with "error" in it makes a Client raise, whatever the op: none of these has that field.
//!
//! Source: distributed 2026.8.0, client.py: `_stream_handlers`, `_handle_report`.

use bytes::Bytes;

use super::{head, named_key, named_keys, named_text};
use crate::dask::TaskKey;
use crate::wire::encode::{Encode, Encoder};
use crate::wire::value::Value;

/// A message of a Client's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum ToClient {
    /// The first message, in a batch of its own. A non-empty error makes the Client raise.
    StreamStart {
        warning: String,
        error: String,
    },
    KeyInMemory {
        key: TaskKey,
        type_pickle: Option<Bytes>,
    },
    /// What the worker sent, or the pickle of an exception as `Binary`.
    TaskErred {
        key: TaskKey,
        exception: Value,
        traceback: Value,
    },
    LostData {
        key: TaskKey,
    },
    CancelledKeys {
        keys: Vec<TaskKey>,
        reason: Option<String>,
        msg: Option<String>,
    },
    TaskRetried {
        key: TaskKey,
    },
    /// Something happened on a topic that the Client subscribed to, at a time in seconds since 1970.
    Event {
        topic: String,
        time: f64,
        msg: Value,
    },
    /// In seconds.
    AdjustHeartbeatInterval {
        interval: f64,
    },
    /// All futures are cancelled.
    Restart,
    /// Raise in the Client.
    Error {
        exception: Value,
    },
    StreamClosed,
}

impl ToClient {
    /// All ops that there are.
    pub const OPS: [&'static str; 11] = [
        "stream-start",
        "key-in-memory",
        "task-erred",
        "lost-data",
        "cancelled-keys",
        "task-retried",
        "event",
        "adjust-heartbeat-interval",
        "restart",
        "error",
        "stream-closed",
    ];

    pub fn op(&self) -> &'static str {
        match self {
            Self::StreamStart { .. } => "stream-start",
            Self::KeyInMemory { .. } => "key-in-memory",
            Self::TaskErred { .. } => "task-erred",
            Self::LostData { .. } => "lost-data",
            Self::CancelledKeys { .. } => "cancelled-keys",
            Self::TaskRetried { .. } => "task-retried",
            Self::Event { .. } => "event",
            Self::AdjustHeartbeatInterval { .. } => "adjust-heartbeat-interval",
            Self::Restart => "restart",
            Self::Error { .. } => "error",
            Self::StreamClosed => "stream-closed",
        }
    }
}

impl Encode for ToClient {
    fn encode(&self, encoder: &mut Encoder) {
        let op = self.op();
        match self {
            Self::StreamStart { warning, error } => {
                head(encoder, op, 2);
                named_text(encoder, "warning", warning);
                named_text(encoder, "error", error);
            }
            Self::KeyInMemory { key, type_pickle } => {
                // Clients are told nothing else as often.
                encoder.map(2 + usize::from(type_pickle.is_some()));
                encoder.encoded(b"\xa2op\xadkey-in-memory\xa3key");
                encoder.key(key);
                if let Some(type_pickle) = type_pickle {
                    encoder.encoded(b"\xa4type");
                    encoder.binary(type_pickle);
                }
            }
            Self::TaskErred { key, exception, traceback } => {
                head(encoder, op, 3);
                named_key(encoder, key);
                encoder.text("exception");
                encoder.value(exception);
                encoder.text("traceback");
                encoder.value(traceback);
            }
            Self::LostData { key } | Self::TaskRetried { key } => {
                head(encoder, op, 1);
                named_key(encoder, key);
            }
            Self::CancelledKeys { keys, reason, msg } => {
                head(encoder, op, 1 + usize::from(reason.is_some()) + usize::from(msg.is_some()));
                named_keys(encoder, keys);
                for (name, text) in [("reason", reason), ("msg", msg)] {
                    if let Some(text) = text {
                        named_text(encoder, name, text);
                    }
                }
            }
            Self::Event { topic, time, msg } => {
                head(encoder, op, 2);
                named_text(encoder, "topic", topic);
                encoder.text("event");
                encoder.array(2);
                encoder.float(*time);
                encoder.value(msg);
            }
            Self::AdjustHeartbeatInterval { interval } => {
                head(encoder, op, 1);
                encoder.text("interval");
                encoder.float(*interval);
            }
            Self::Restart | Self::StreamClosed => head(encoder, op, 0),
            Self::Error { exception } => {
                head(encoder, op, 1);
                encoder.text("exception");
                encoder.value(exception);
            }
        }
    }
}
