//! Copies results between workers for whoever wants them elsewhere: to replicate, to rebalance.
//!
//! The copying is done outside the loop; then the errand goes on, maybe with another round.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;

use crate::comm::Pool;
use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId};
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::server::rebalance::Rebalancing;
use crate::server::replicate::Replication;
use crate::wire::encode::encode_message;
use crate::wire::messages::Ask;
use crate::wire::value::Value;

/// What one worker is to fetch.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) worker: WorkerId,
    pub(crate) sources: Vec<Source>,
}

/// A key, and who has it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) key: TaskKey,
    pub(crate) holders: Vec<WorkerAddress>,
}

/// Keys that now have one more holder.
pub(crate) type Copied = Vec<(WorkerId, Vec<TaskKey>)>;

/// What the copies are for.
#[derive(Debug)]
pub(crate) enum Errand {
    Replicate(Replication),
    Rebalance(Rebalancing),
}

impl Namespace {
    /// Workers that take copies.
    pub(crate) fn takers(&self) -> Vec<WorkerId> {
        self.engine.workers().filter(|worker| worker.takes_tasks).map(|worker| worker.id).collect()
    }

    pub(crate) fn source(&self, key: TaskKey) -> Source {
        Source { holders: self.engine.who_has(&key), key }
    }

    /// Has workers fetch what they are to have; the errand goes on when they have answered.
    pub(crate) fn copy(&self, orders: Vec<Order>, errand: Errand) {
        let address = |id| self.workers.get(id).map(|worker| worker.address.clone());
        let orders: Vec<_> = orders.into_iter().filter_map(|order| Some((address(order.worker)?, order))).collect();
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            let fetches = orders.into_iter().map(|(address, Order { worker, sources })| {
                let pool = Arc::clone(&pool);
                async move { (worker, fetch(&pool, &address, sources).await) }
            });
            let copied = join_all(fetches).await;
            // The loop has ended when nobody takes it.
            let _ = events.send(Event::Copied { errand, copied }).await;
        });
    }

    /// Copies have arrived, as many as could be made.
    pub(crate) fn on_copied(&mut self, errand: Errand, copied: Copied) {
        for (worker, keys) in &copied {
            self.stimulate(Stimulus::AddKeys { worker: *worker, keys: keys.clone() });
        }
        match errand {
            Errand::Replicate(replication) => self.go_on_replicating(replication, &copied),
            Errand::Rebalance(rebalancing) => self.end_rebalancing(rebalancing, &copied),
        }
    }
}

/// Those of the keys that the worker has in the end.
///
/// Source: distributed 2026.8.0, worker.py: `gather`.
async fn fetch(pool: &Pool, address: &WorkerAddress, sources: Vec<Source>) -> Vec<TaskKey> {
    let holders = |source: &Source| Value::Array(source.holders.iter().map(|holder| holder.as_str().into()).collect());
    let who_has = sources.iter().map(|source| (Value::from(&source.key), holders(source))).collect();
    let request = encode_message(&Ask::new("gather").with("who_has", Value::Map(who_has)));
    let Ok(message) = pool.call(address, request).await else { return Vec::new() };
    let Ok(answer) = Value::decode(&message) else { return Vec::new() };
    let missing: BTreeSet<TaskKey> = match answer.get("keys") {
        Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_key).collect(),
        Some(Value::Map(keys)) => keys.iter().filter_map(|(key, _)| key.as_key()).collect(),
        _ => BTreeSet::new(),
    };
    sources.into_iter().map(|source| source.key).filter(|key| !missing.contains(key)).collect()
}
