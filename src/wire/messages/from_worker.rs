//! What a worker says on its stream.
//!
//! Source: distributed 2026.8.0, worker_state_machine.py: subclasses of `SendMessageToScheduler`; worker.py.

use bytes::Bytes;

use super::task_finished::TaskFinished;
use crate::dask::{Serialized, TaskKey};
use crate::wire::document::{DocumentError, Fields, Items};
use crate::wire::fields::shared_key;
use crate::wire::frame::Message;
use crate::wire::msgpack::{Reader, Token};
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
        Items::read_all(message, |items| match items.try_next(Self::read_quickly) {
            Some(read) => Ok(Some(read)),
            None => items.fields()?.as_ref().map(Self::read).transpose(),
        })
    }

    /// Reads what workers say most in one pass, if it is as they write it: the op first, nothing twice, nothing wrong.
    pub(super) fn read_quickly<'m>(document: &'m Bytes, reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<Self> {
        let Token::Map(length) = reader.token().ok()? else { return None };
        if reader.short_ascii() != Some(b"op") {
            return None;
        }
        *elements_left = elements_left.checked_sub(length)?;
        match reader.short_ascii()? {
            b"task-finished" => TaskFinished::read_quickly(document, reader, length - 1, elements_left).map(Self::TaskFinished),
            b"release-worker-data" => {
                let read = |reader: &mut Reader<'m>, _: &mut usize| shared_key(document, reader);
                let key = read_only_field(b"key", read, reader, length - 1, elements_left)?;
                Some(Self::ReleaseWorkerData { key })
            }
            b"add-keys" => {
                let read = |reader: &mut Reader<'m>, elements_left: &mut usize| read_shared_keys(document, reader, elements_left);
                let keys = read_only_field(b"keys", read, reader, length - 1, elements_left)?;
                Some(Self::AddKeys { keys })
            }
            _ => None,
        }
    }

    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
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
            "keep-alive" => Self::KeepAlive,
            "close-stream" => Self::CloseStream,
            op => Self::Unknown { op: op.to_owned() },
        })
    }
}

/// The value of the one field of a message that counts; nothing if it is there twice or not at all.
fn read_only_field<'m, T>(
    name: &[u8],
    read: impl Fn(&mut Reader<'m>, &mut usize) -> Option<T>,
    reader: &mut Reader<'m>,
    fields: usize,
    elements_left: &mut usize,
) -> Option<T> {
    let mut value = None;
    for _ in 0..fields {
        match reader.short_ascii()? {
            found if found == name && value.is_none() => value = Some(read(reader, elements_left)?),
            found if found == name => return None,
            b"op" => return None,
            _ => _ = reader.skip(elements_left).ok()?,
        }
    }
    value
}

fn read_shared_keys<'m>(document: &'m Bytes, reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<Vec<TaskKey>> {
    let Token::Array(length) = reader.token().ok()? else { return None };
    *elements_left = elements_left.checked_sub(length)?;
    let mut keys = Vec::with_capacity(reader.capacity(length));
    for _ in 0..length {
        keys.push(shared_key(document, reader)?);
    }
    Some(keys)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::FromWorker;
    use crate::wire::frame::Message;
    use crate::wire::msgpack::Reader;
    use crate::wire::value::Value;

    fn document(fields: &[(&'static str, Value)]) -> Bytes {
        Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()).to_msgpack().into()
    }

    fn thoroughly(document: &Bytes) -> Option<FromWorker> {
        let message = Message { frames: vec![[b"\x91", &document[..]].concat().into()] };
        let read = FromWorker::decode_batch(&message).ok()?;
        read.into_iter().next()
    }

    #[test]
    fn what_is_read_quickly_is_read_as_thoroughly() {
        let key = || Value::Array(vec!["x".into(), 3_i64.into()]);
        let released = [("op", "release-worker-data".into()), ("stimulus_id", "s".into()), ("key", key())];
        let added = [("op", "add-keys".into()), ("keys", Value::Array(vec![key(), "y".into()])), ("stimulus_id", "s".into())];
        for fields in [released, added] {
            let usual = document(&fields);
            let quickly = FromWorker::read_quickly(&usual, &mut Reader::new(&usual), &mut 100);
            assert!(quickly.is_some() && quickly == thoroughly(&usual));
            let [op, first, second] = fields;
            let op_last = document(&[first.clone(), second.clone(), op.clone()]);
            let twice = document(&[op.clone(), first.clone(), second.clone(), first.clone(), second.clone()]);
            for unusual in [op_last, twice] {
                assert_eq!(FromWorker::read_quickly(&unusual, &mut Reader::new(&unusual), &mut 100), None);
                assert_eq!(thoroughly(&unusual), quickly);
            }
            let wrong = document(&[op, ("key", Value::Nil), ("keys", 7_i64.into())]);
            assert_eq!(FromWorker::read_quickly(&wrong, &mut Reader::new(&wrong), &mut 100), None);
        }
    }
}
