//! Has a number of workers hold each of some keys.
//!
//! A key spreads from all that have it, so the number of holders grows by a factor in each round.
//!
//! Source: distributed 2026.8.0, scheduler.py: `replicate`.

use std::collections::BTreeMap;

use crate::dask::TaskKey;
use crate::engine::{Stimulus, WorkerId};
use crate::server::call;
use crate::server::copies::{Copied, Errand, Order, Source};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// How many fetch from one holder at a time when the caller does not say.
const BRANCHING_FACTOR: u64 = 2;

/// Keys, and the workers that may hold them.
#[derive(Debug)]
pub(crate) struct Replication {
    keys: Vec<TaskKey>,
    workers: Vec<WorkerId>,
    /// So many of them are to hold each key.
    copies: usize,
    branching_factor: usize,
    answer: Answer,
}

impl Namespace {
    /// The RPC `replicate`.
    pub(crate) fn replicate(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let keys = fields.keys("keys")?;
        let lost: Vec<Value> = keys.iter().filter(|key| self.engine.who_has(key).is_empty()).map(Value::from).collect();
        if !lost.is_empty() {
            return Ok(Value::map([("status", "partial-fail".into()), ("keys", Value::Array(lost))]).into());
        }
        let takers = self.takers();
        let selected = self.selected(fields)?.into_iter().map(|(id, _)| id);
        let workers: Vec<WorkerId> = selected.filter(|id| takers.contains(id)).collect();
        let wanted = fields.optional_unsigned("n")?.map_or(workers.len(), |wanted| usize::try_from(wanted).unwrap_or(usize::MAX));
        let branching_factor = fields.optional_unsigned("branching_factor")?.unwrap_or(BRANCHING_FACTOR).max(1) as usize;
        let copies = wanted.min(workers.len());
        if copies == 0 {
            let text = "Can not use replicate to delete data";
            return Ok(rpc::failed(&Object::value_error(text), text).into());
        }
        Ok(Reply::later(move |namespace, answer| {
            let replication = Replication { keys, workers, copies, branching_factor, answer };
            namespace.drop_surplus(&replication);
            namespace.replicate_on(replication);
        }))
    }

    /// Of more holders than wanted the fullest let go.
    fn drop_surplus(&mut self, replication: &Replication) {
        let mut dropped: BTreeMap<WorkerId, Vec<TaskKey>> = BTreeMap::new();
        for key in &replication.keys {
            let (mut holding, _) = self.split(&replication.workers, key);
            let surplus = holding.len().saturating_sub(replication.copies);
            holding.sort_by_key(|id| std::cmp::Reverse(self.bytes_on(*id)));
            for worker in holding.into_iter().take(surplus) {
                dropped.entry(worker).or_default().push(key.clone());
            }
        }
        for (worker, keys) in dropped {
            self.stimulate(Stimulus::DropReplicas { worker, keys });
        }
    }

    /// One round: as many copies as the holders can serve.
    fn replicate_on(&mut self, replication: Replication) {
        let mut orders: BTreeMap<WorkerId, Vec<Source>> = BTreeMap::new();
        for key in &replication.keys {
            let (holding, mut without) = self.split(&replication.workers, key);
            let source = self.source(key.clone());
            let most = replication.branching_factor.saturating_mul(source.holders.len());
            let missing = replication.copies.saturating_sub(holding.len()).min(most);
            without.sort_by_key(|id| self.bytes_on(*id));
            for worker in without.into_iter().take(missing) {
                orders.entry(worker).or_default().push(self.source(key.clone()));
            }
        }
        if orders.is_empty() {
            return call::reply(replication.answer, &Value::Nil);
        }
        let orders = orders.into_iter().map(|(worker, sources)| Order { worker, sources }).collect();
        self.copy(orders, Errand::Replicate(replication));
    }

    pub(crate) fn go_on_replicating(&mut self, replication: Replication, copied: &Copied) {
        if copied.iter().all(|(_, keys)| keys.is_empty()) {
            // Nobody could fetch any: what is left is lost, or its workers are.
            let keys = replication.keys.iter().map(Value::from).collect();
            let failed = Value::map([("status", "partial-fail".into()), ("keys", Value::Array(keys))]);
            return call::reply(replication.answer, &failed);
        }
        self.replicate_on(replication);
    }

    /// Those of the workers that hold a key, and the others.
    fn split(&self, workers: &[WorkerId], key: &TaskKey) -> (Vec<WorkerId>, Vec<WorkerId>) {
        let holders = self.engine.who_has(key);
        let holds = |id: &WorkerId| self.workers.get(*id).is_some_and(|worker| holders.contains(&worker.address));
        let there = workers.iter().copied().filter(|id| self.workers.get(*id).is_some());
        there.partition(holds)
    }

    fn bytes_on(&self, worker: WorkerId) -> u64 {
        self.engine.worker(worker).map_or(0, |worker| worker.nbytes)
    }
}
