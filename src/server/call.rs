//! Requests that need workers: fetching results for Clients, putting data on workers, passing calls on.
//!
//! All of it runs outside the loop. Values pass through as they came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::comm::{CallError, Pool};
use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{ClientId, WorkerId};
use crate::error::chain;
use crate::server::event::{Answer, Event, Scattered};
use crate::wire::encode::encode_message;
use crate::wire::messages::Ask;
use crate::wire::messages::rpc::{acknowledgement, failed};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// A worker that sends to too many others says "busy"; it is asked again this often, this far apart.
const BUSY_ATTEMPTS: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Fetches results, in a form that the caller can read, and answers `gather`.
pub(crate) fn gather(pool: Arc<Pool>, wanted: Vec<(TaskKey, Vec<WorkerAddress>)>, serializers: Value, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        reply(answer, &collect(&pool, wanted, &serializers).await);
    });
}

async fn collect(pool: &Pool, wanted: Vec<(TaskKey, Vec<WorkerAddress>)>, serializers: &Value) -> Value {
    let mut found: BTreeMap<TaskKey, Value> = BTreeMap::new();
    let mut left = wanted;
    // Each round asks another holder of what is still missing.
    while left.iter().any(|(_, holders)| !holders.is_empty()) {
        let mut by_holder: BTreeMap<WorkerAddress, Vec<TaskKey>> = BTreeMap::new();
        for (key, holders) in &mut left {
            if let Some(holder) = holders.pop() {
                by_holder.entry(holder).or_default().push(key.clone());
            }
        }
        let fetches = by_holder.iter().map(|(holder, keys)| get_data(pool, holder, keys, serializers));
        for fetched in join_all(fetches).await {
            found.extend(fetched);
        }
        left.retain(|(key, _)| !found.contains_key(key));
    }
    if left.is_empty() {
        let data = found.iter().map(|(key, value)| (Value::from(key), value.clone())).collect();
        return Value::map([("status", "OK".into()), ("data", Value::Map(data))]);
    }
    let missing = left.iter().map(|(key, _)| Value::from(key)).collect();
    Value::map([("status", "error".into()), ("keys", Value::Array(missing))])
}

/// What one worker has of these keys; nothing when it cannot be reached.
async fn get_data(pool: &Pool, holder: &WorkerAddress, keys: &[TaskKey], serializers: &Value) -> Vec<(TaskKey, Value)> {
    let keys = Value::Array(keys.iter().map(Value::from).collect());
    let ask = Ask::new("get_data").with("keys", keys).with("who", "mainstay");
    let ask = if serializers.is_nil() { ask } else { ask.with("serializers", serializers.clone()) };
    let request = encode_message(&ask);
    for _ in 0..BUSY_ATTEMPTS {
        let Ok(message) = pool.call_confirmed(holder, request.clone(), acknowledgement()).await else { break };
        let Ok(answer) = Value::decode(&message) else { break };
        if answer.get("status").and_then(Value::as_text) == Some("busy") {
            sleep(BUSY_PAUSE).await;
            continue;
        }
        let data = answer.get("data").and_then(Value::as_map).unwrap_or_default();
        return data.iter().filter_map(|(key, value)| Some((key.as_key()?, value.clone()))).collect();
    }
    Vec::new()
}

/// What a Client wants on workers.
pub(crate) struct Scatter {
    pub(crate) client: ClientId,
    pub(crate) data: Vec<(TaskKey, Value)>,
    pub(crate) targets: Vec<(WorkerId, WorkerAddress)>,
    /// On how many of them each value is to be.
    pub(crate) copies: usize,
}

/// Puts values on workers; the loop answers when they are there.
pub(crate) fn scatter(pool: Arc<Pool>, events: mpsc::Sender<Event>, scatter: Scatter, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        if scatter.targets.is_empty() {
            let text = "no running worker takes the data";
            reply(answer, &failed(&Object::timeout_error(text), text));
            return;
        }
        match place(&pool, &scatter).await {
            Ok(scattered) => {
                // The loop has ended when nobody takes it.
                let _ = events.send(Event::Scattered { client: scatter.client, scattered, answer }).await;
            }
            Err(text) => {
                reply(answer, &failed(&Object::runtime_error(&text), &text));
            }
        }
    });
}

async fn place(pool: &Pool, scatter: &Scatter) -> Result<Vec<Scattered>, String> {
    let mut shares: Vec<Vec<(Value, Value)>> = vec![Vec::new(); scatter.targets.len()];
    for (index, (key, value)) in scatter.data.iter().enumerate() {
        for copy in 0..scatter.copies {
            let place = (index + copy) % shares.len();
            shares[place].push((Value::from(key), value.clone()));
        }
    }
    let mut placed: BTreeMap<TaskKey, Scattered> = BTreeMap::new();
    for ((worker, address), share) in scatter.targets.iter().zip(shares).filter(|(_, share)| !share.is_empty()) {
        let request = encode_message(&Ask::new("update_data").with("data", Value::Map(share)));
        let message = pool.call(address, request).await.map_err(|error| chain(&error))?;
        let answer = Value::decode(&message).map_err(|error| chain(&error))?;
        for (key, nbytes) in answer.get("nbytes").and_then(Value::as_map).unwrap_or_default() {
            let Some(key) = key.as_key() else { continue };
            let nbytes = nbytes.as_integer().unwrap_or_default().max(0) as u64;
            placed.entry(key.clone()).or_insert_with(|| Scattered { key, nbytes, workers: Vec::new() }).workers.push(*worker);
        }
    }
    Ok(placed.into_values().collect())
}

/// What becomes of a target that cannot be asked, or does not know the op.
///
/// Source: distributed 2026.8.0, scheduler.py: `broadcast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    Raise,
    /// In the place of its reply stands what went wrong, as a text or as the pickle of an exception.
    Return,
    ReturnPickle,
    Ignore,
}

impl OnError {
    /// # Errors
    /// When there is no such thing.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        Ok(match text {
            None | Some("raise") => Self::Raise,
            Some("return") => Self::Return,
            Some("return_pickle") => Self::ReturnPickle,
            Some("ignore") => Self::Ignore,
            Some(other) => {
                return Err(format!("on_error must be 'raise', 'return', 'return_pickle', or 'ignore'; got '{other}'"));
            }
        })
    }
}

/// Who is asked: the address that the reply goes by, and the one to call, if anybody is there.
pub(crate) type Target = (WorkerAddress, Option<WorkerAddress>);

/// Asks each target the same and answers with their replies by worker address.
pub(crate) fn broadcast(pool: Arc<Pool>, targets: Vec<Target>, message: Value, on_error: OnError, answer: Answer) {
    let asked = targets.into_iter().map(|target| (target, message.clone())).collect();
    ask_each(pool, asked, on_error, answer, Value::Map);
}

/// Asks each target something and answers with what `answers` makes of their replies by worker address.
pub(crate) fn ask_each(
    pool: Arc<Pool>,
    asked: Vec<(Target, Value)>,
    on_error: OnError,
    answer: Answer,
    answers: impl FnOnce(Vec<(Value, Value)>) -> Value + Send + 'static,
) {
    Arc::clone(&pool).spawn(async move {
        let replies = ask_all(&pool, &asked, on_error).await;
        reply(answer, &replies.map_or_else(|failed| failed, answers));
    });
}

/// The replies of all targets by worker address; else what is due to the caller in their place.
pub(crate) async fn ask_all(pool: &Pool, asked: &[(Target, Value)], on_error: OnError) -> Result<Vec<(Value, Value)>, Value> {
    let calls = asked.iter().map(|((worker, target), message)| async move {
        let reply = match target {
            Some(target) => pass_on(pool, target, message).await.map_err(|error| call_error(&error)),
            None => Err(os_error(&format!("no worker is at {worker}"))),
        };
        // A handler that raised: the caller is to raise the same.
        reply.and_then(|reply| if is_failed(&reply) { Err(reply) } else { Ok(reply) })
    });
    let mut by_worker = Vec::new();
    for (((worker, _), _), reply) in asked.iter().zip(join_all(calls).await) {
        let reply = match (reply, on_error) {
            (Ok(reply), _) => reply,
            (Err(failed), OnError::Raise) => return Err(failed),
            (Err(failed), OnError::Return) => failed.get("exception_text").cloned().unwrap_or(Value::Nil),
            (Err(failed), OnError::ReturnPickle) => failed.get("exception").cloned().unwrap_or(Value::Nil),
            (Err(_), OnError::Ignore) => continue,
        };
        by_worker.push((worker.as_str().into(), reply));
    }
    Ok(by_worker)
}

/// What a caller is to raise about a worker that does not answer.
fn call_error(error: &CallError) -> Value {
    let text = chain(error);
    match error {
        CallError::NoAnswer { .. } => failed(&Object::comm_closed_error(&text), &text),
        CallError::Unreachable { .. } | CallError::BadAddress { .. } => os_error(&text),
    }
}

fn os_error(text: &str) -> Value {
    failed(&Object::os_error(text), text)
}

/// Whether a reply makes the caller raise.
fn is_failed(reply: &Value) -> bool {
    reply.get("status").and_then(Value::as_text) == Some("uncaught-error")
}

/// Answers a request whose caller may have gone.
pub(crate) fn reply(answer: Answer, value: &Value) {
    let _ = answer.send(value.encode());
}

/// Passes a request on to one worker and its reply back.
pub(crate) fn proxy(pool: Arc<Pool>, worker: WorkerAddress, message: Value, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        let said = pass_on(&pool, &worker, &message).await;
        reply(answer, &said.unwrap_or_else(|error| call_error(&error)));
    });
}

/// Asks one target what somebody else wants to know.
pub(crate) async fn pass_on(pool: &Pool, target: &WorkerAddress, message: &Value) -> Result<Value, CallError> {
    let answer = pool.call(target, message.encode()).await?;
    Value::decode(&answer).map_err(|_| CallError::NoAnswer { address: target.clone() })
}
