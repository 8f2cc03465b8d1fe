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

/// Fetches results and answers `gather`.
pub(crate) fn gather(pool: Arc<Pool>, wanted: Vec<(TaskKey, Vec<WorkerAddress>)>, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        let reply = collect(&pool, wanted).await;
        // The caller may have gone.
        let _ = answer.send(reply.encode());
    });
}

async fn collect(pool: &Pool, wanted: Vec<(TaskKey, Vec<WorkerAddress>)>) -> Value {
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
        let fetches = by_holder.iter().map(|(holder, keys)| get_data(pool, holder, keys));
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
async fn get_data(pool: &Pool, holder: &WorkerAddress, keys: &[TaskKey]) -> Vec<(TaskKey, Value)> {
    let keys = Value::Array(keys.iter().map(Value::from).collect());
    let request = encode_message(&Ask::new("get_data").with("keys", keys).with("who", "mainstay"));
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
    pub(crate) broadcast: bool,
}

/// Puts values on workers; the loop answers when they are there.
pub(crate) fn scatter(pool: Arc<Pool>, events: mpsc::Sender<Event>, scatter: Scatter, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        if scatter.targets.is_empty() {
            let text = "no running worker takes the data";
            let _ = answer.send(failed(&Object::timeout_error(text), text).encode());
            return;
        }
        match place(&pool, &scatter).await {
            Ok(scattered) => {
                // The loop has ended when nobody takes it.
                let _ = events.send(Event::Scattered { client: scatter.client, scattered, answer }).await;
            }
            Err(text) => {
                let _ = answer.send(failed(&Object::runtime_error(&text), &text).encode());
            }
        }
    });
}

async fn place(pool: &Pool, scatter: &Scatter) -> Result<Vec<Scattered>, String> {
    let mut shares: Vec<Vec<(Value, Value)>> = vec![Vec::new(); scatter.targets.len()];
    for (index, (key, value)) in scatter.data.iter().enumerate() {
        let chosen = if scatter.broadcast { 0..shares.len() } else { index % shares.len()..index % shares.len() + 1 };
        for share in &mut shares[chosen] {
            share.push((Value::from(key), value.clone()));
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

/// Asks each target the same and answers with their replies by worker address.
pub(crate) fn broadcast(
    pool: Arc<Pool>,
    targets: Vec<(WorkerAddress, WorkerAddress)>,
    message: Value,
    raises: bool,
    answer: Answer,
) {
    Arc::clone(&pool).spawn(async move {
        let calls = targets.iter().map(|(_, target)| pass_on(&pool, target, &message));
        let replies = join_all(calls).await;
        let mut by_worker = Vec::new();
        for ((worker, _), reply) in targets.iter().zip(replies) {
            match reply {
                Ok(reply) => by_worker.push((Value::from(worker.as_str()), reply)),
                Err(error) if raises => {
                    let text = chain(&error);
                    let _ = answer.send(failed(&Object::runtime_error(&text), &text).encode());
                    return;
                }
                Err(_) => {}
            }
        }
        let _ = answer.send(Value::Map(by_worker).encode());
    });
}

/// Passes a request on to one worker and its reply back.
pub(crate) fn proxy(pool: Arc<Pool>, worker: WorkerAddress, message: Value, answer: Answer) {
    Arc::clone(&pool).spawn(async move {
        let reply = pass_on(&pool, &worker, &message).await.unwrap_or_else(|error| {
            let text = chain(&error);
            failed(&Object::runtime_error(&text), &text)
        });
        let _ = answer.send(reply.encode());
    });
}

async fn pass_on(pool: &Pool, target: &WorkerAddress, message: &Value) -> Result<Value, CallError> {
    let answer = pool.call(target, message.encode()).await?;
    Value::decode(&answer).map_err(|_| CallError::NoAnswer { address: target.clone() })
}
