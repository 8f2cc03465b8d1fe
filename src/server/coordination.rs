//! Requests about coordination objects: reads them, and carries out what `crate::coordination` decides.
//!
//! Futures in variables and queues are kept by standing Clients, `variable-…` and `queue-…`, as in Dask.

use std::collections::BTreeMap;

use crate::coordination::{Answer as Said, Asked, Batch, CallId, Content, Effect, Holder, Refusal, Request};
use crate::dask::{TaskKey, parse_timedelta};
use crate::engine::{ClientId, Millis, Stimulus};
use crate::server::carry_out::exception_values;
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// The ops that are answered here.
pub(crate) const OPS: &[&str] = &[
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
];

/// Calls that coordination owes an answer.
pub(crate) type WaitingCalls = BTreeMap<CallId, Answer>;

impl Namespace {
    /// Takes a request of one of `OPS`; it may be answered later.
    pub(crate) fn coordinate(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let request = self.read_coordination(fields)?;
        let timeout_ms = timeout_ms(fields)?;
        Ok(Reply::later(move |namespace, answer| {
            let call = answer.call;
            let deadline = timeout_ms.map(|timeout| Millis(namespace.now.0.saturating_add(timeout)));
            namespace.waiting_calls.insert(call, answer);
            namespace.decide(|coordination, now, knows, effects| {
                coordination.handle(now, Asked { call, deadline, request }, knows, effects);
            });
        }))
    }

    /// Who asked is gone; if it waits for something it does so no longer.
    pub(crate) fn on_caller_gone(&mut self, call: CallId) {
        if self.waiting_calls.remove(&call).is_some() {
            self.decide(|coordination, _, _, effects| coordination.on_call_gone(call, effects));
        }
    }

    /// Answers those whose time is up and those whose tasks have come.
    pub(crate) fn coordinate_if_due(&mut self) {
        let is_due = self.coordination.next_timeout().is_some_and(|at| at <= self.now);
        if is_due {
            self.decide(|coordination, now, _, effects| coordination.on_time(now, effects));
        }
        if self.coordination.awaits_tasks() {
            self.decide(|coordination, now, knows, effects| coordination.on_tasks(now, knows, effects));
        }
    }

    pub(crate) fn on_variable_delete(&mut self, name: &TaskKey) {
        self.decide(|coordination, _, _, effects| coordination.delete_variable(name, effects));
    }

    pub(crate) fn on_variable_confirm(&mut self, client: ClientId, name: &TaskKey, key: TaskKey, token: &str) {
        // Before the variable lets go of it.
        self.stimulate(Stimulus::ClientDesiresKeys { client, keys: vec![key] });
        self.decide(|coordination, _, _, effects| coordination.confirm_variable(name, token, effects));
    }

    pub(crate) fn on_queue_release(&mut self, name: &TaskKey) {
        self.decide(|coordination, _, _, effects| coordination.release_queue(name, effects));
    }

    pub(crate) fn on_queue_confirm(&mut self, client: ClientId, name: &TaskKey, key: TaskKey) {
        // Before the queue lets go of it.
        self.stimulate(Stimulus::ClientDesiresKeys { client, keys: vec![key.clone()] });
        self.decide(|coordination, _, _, effects| coordination.confirm_queue(name, &key, effects));
    }

    /// A Client that may have been told of futures has left.
    pub(crate) fn on_reader_left(&mut self, client: ClientId) {
        self.decide(|coordination, _, _, effects| coordination.on_client_left(client, effects));
    }

    fn decide(
        &mut self,
        decide: impl FnOnce(&mut crate::coordination::Coordination, Millis, &dyn Fn(&TaskKey) -> bool, &mut Vec<Effect>),
    ) {
        let mut effects = Vec::new();
        let engine = &self.engine;
        decide(&mut self.coordination, self.now, &|key| engine.knows(key), &mut effects);
        for effect in effects {
            match effect {
                Effect::Answer { call, answer } => {
                    if let Some(waiting) = self.waiting_calls.remove(&call) {
                        // The caller may have gone.
                        let _ = waiting.send(self.answer_value(answer).encode());
                    }
                }
                Effect::Hold { holder, key } => {
                    let client = self.clients.standing(&holder.to_string());
                    self.stimulate(Stimulus::ClientDesiresKeys { client, keys: vec![key] });
                }
                Effect::LetGo { holder, key } => {
                    let client = self.clients.standing(&holder.to_string());
                    self.stimulate(Stimulus::ClientReleasesKeys { client, keys: vec![key] });
                }
                Effect::Gone { holder } => self.on_holder_gone(&holder),
            }
        }
    }

    fn on_holder_gone(&mut self, holder: &Holder) {
        if let Some(client) = self.clients.end_standing(&holder.to_string()) {
            self.stimulate(Stimulus::ClientLeft { client });
        }
    }

    fn read_coordination(&self, fields: &Fields<'_>) -> Result<Request, DocumentError> {
        let name = || fields.key("name");
        let lease = || fields.key("lease_id");
        Ok(match fields.op() {
            "event_wait" => Request::EventWait { name: name()? },
            "event_set" => Request::EventSet { name: name()? },
            "event_clear" => Request::EventClear { name: name()? },
            "event_is_set" => Request::EventIsSet { name: name()? },
            "semaphore_register" => Request::SemaphoreRegister {
                name: name()?,
                leases_max: fields.integer("max_leases")?,
                lease_timeout_ms: fields.optional_number("lease_timeout")?.map(millis),
            },
            "semaphore_acquire" => Request::SemaphoreAcquire { name: name()?, lease: lease()? },
            "semaphore_release" => Request::SemaphoreRelease { name: name()?, lease: lease()? },
            "semaphore_refresh_leases" => Request::SemaphoreRefreshLeases { name: name()?, leases: fields.keys("lease_ids")? },
            "semaphore_value" => Request::SemaphoreValue { name: name()? },
            "semaphore_close" => Request::SemaphoreClose { name: name()? },
            "multi_lock_acquire" => {
                let locks = fields.keys("locks")?;
                let count = fields.optional_unsigned("num_locks")?.map_or(locks.len(), |count| count as usize);
                Request::MultiLockAcquire { locks, id: fields.key("id")?, count }
            }
            "multi_lock_release" => Request::MultiLockRelease { id: fields.key("id")? },
            "variable_set" => Request::VariableSet { name: name()?, content: content(fields)? },
            "variable_get" => {
                let client = fields.optional_text("client")?.and_then(|name| self.clients.by_name(name));
                Request::VariableGet { name: name()?, client }
            }
            "queue_create" => {
                let items_max = fields.optional_value("maxsize")?.as_integer().unwrap_or_default();
                Request::QueueCreate { name: name()?, items_max: usize::try_from(items_max).ok().filter(|max| *max > 0) }
            }
            "queue_put" => Request::QueuePut { name: name()?, content: content(fields)? },
            "queue_get" => Request::QueueGet { name: name()?, batch: batch(&fields.optional_value("batch")?) },
            _ => Request::QueueSize { name: name()? },
        })
    }

    fn answer_value(&self, answer: Said) -> Value {
        match answer {
            Said::Nil => Value::Nil,
            Said::Boolean(boolean) => boolean.into(),
            Said::Count(count) => (count as u64).into(),
            Said::Content { content, token } => self.record(content, token),
            Said::Contents(contents) => Value::Array(contents.into_iter().map(|content| self.record(content, None)).collect()),
            Said::Refused(refusal) => {
                let (exception, text) = exception(&refusal);
                rpc::failed(&exception, &text)
            }
        }
    }

    /// What variables and queues hold, as Clients take it: a future with the state of its task.
    fn record(&self, content: Content, token: Option<u64>) -> Value {
        let key = match content {
            Content::Value(value) => return Value::map([("type", "msgpack".into()), ("value", value)]),
            Content::Future(key) => key,
        };
        let state = self.engine.task_state(&key).unwrap_or("lost");
        let mut entries =
            vec![("type".into(), "Future".into()), ("value".into(), Value::from(&key)), ("state".into(), state.into())];
        if let Some(token) = token {
            entries.push(("token".into(), Value::Text(token.to_string())));
        }
        if let Some(failure) = self.engine.failure(&key) {
            let (exception, traceback) = exception_values(&key, failure.exception.clone());
            entries.extend([("exception".into(), exception), ("traceback".into(), traceback)]);
        }
        Value::Map(entries)
    }
}

/// How long a request may wait: a number of seconds or, from variables, the text that the user wrote.
fn timeout_ms(fields: &Fields<'_>) -> Result<Option<u64>, DocumentError> {
    let seconds = match fields.optional_value("timeout")? {
        Value::Text(text) => match parse_timedelta(&text) {
            Ok(seconds) => Some(seconds),
            Err(_) => return Err(fields.wrong_kind("timeout", "a duration", "text")),
        },
        other => other.as_number(),
    };
    // What is no number of this world is no end.
    Ok(seconds.filter(|seconds| seconds.is_finite()).map(millis))
}

/// Whole milliseconds, at least as long as meant.
fn millis(seconds: f64) -> u64 {
    (seconds * 1e3).ceil() as u64
}

fn content(fields: &Fields<'_>) -> Result<Content, DocumentError> {
    Ok(match fields.optional_key("key")? {
        Some(key) => Content::Future(key),
        None => Content::Value(fields.optional_value("data")?),
    })
}

/// `False` or 0 for one item, `True` for all, or a number.
fn batch(value: &Value) -> Batch {
    match value {
        Value::Boolean(true) => Batch::All,
        Value::Integer(count) if *count != 0 => Batch::Count(usize::try_from(*count).unwrap_or_default()),
        _ => Batch::One,
    }
}

/// The exception that a Client raises.
fn exception(refusal: &Refusal) -> (Object, String) {
    let text = refusal.to_string();
    let exception = match refusal {
        Refusal::InconsistentLeases { .. } | Refusal::TooFewLocks { .. } => Object::value_error(&text),
        Refusal::UnknownQueue { .. } | Refusal::UnknownMultiLock { .. } => Object::key_error(&text),
        Refusal::BatchWithTimeout => Object::not_implemented_error(&text),
        Refusal::UnknownTask { .. } | Refusal::TimedOut => Object::timeout_error(&text),
        Refusal::UnknownSemaphore { .. } | Refusal::AcquiredBefore { .. } | Refusal::TooMany { .. } | Refusal::NoRoom { .. } => {
            Object::runtime_error(&text)
        }
    };
    (exception, text)
}
