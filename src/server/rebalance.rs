//! Moves results from workers with much memory in use to those with little.
//!
//! Source: distributed 2026.8.0, scheduler.py: `rebalance`; distributed.yaml: `worker.memory.rebalance`.

use std::collections::{BTreeMap, BTreeSet};

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId};
use crate::server::call;
use crate::server::copies::{Copied, Errand, Order};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Workers whose memory is within this share of their limit of the mean are left alone.
const HALF_GAP: f64 = 0.05 / 2.0;
/// Who has less of its limit in use sends nothing,
const SENDER_MIN: f64 = 0.30;
/// and who has more takes nothing.
const RECIPIENT_MAX: f64 = 0.60;

/// Moves under way.
#[derive(Debug)]
pub(crate) struct Rebalancing {
    moves: Vec<Move>,
    /// The caller said which keys, and is told which of them stayed.
    of_keys: bool,
    answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    from: WorkerId,
    to: WorkerId,
    key: TaskKey,
}

/// What one worker has.
#[derive(Clone, Debug)]
struct Load {
    worker: WorkerId,
    /// Bytes in use.
    memory: u64,
    limit: Option<u64>,
    /// What may leave, with sizes.
    keys: Vec<(TaskKey, u64)>,
    /// All that is there.
    holds: BTreeSet<TaskKey>,
}

impl Namespace {
    /// The RPC `rebalance`.
    pub(crate) fn rebalance(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let keys: Option<BTreeSet<TaskKey>> = fields.optional_keys("keys")?.map(|keys| keys.into_iter().collect());
        let lost: Vec<Value> = keys.iter().flatten().filter(|key| self.engine.who_has(key).is_empty()).map(Value::from).collect();
        if !lost.is_empty() {
            return Ok(Value::map([("status", "partial-fail".into()), ("keys", Value::Array(lost))]).into());
        }
        let named = fields.optional_texts("workers")?.unwrap_or_default();
        if let Some(unknown) = named.iter().find(|name| self.workers.by_address(&WorkerAddress::new(name.as_str())).is_none()) {
            return Ok(rpc::failed(&Object::key_error(unknown), unknown).into());
        }
        let takers = self.takers();
        let selected = self.selected(fields)?.into_iter().map(|(id, _)| id).filter(|id| takers.contains(id));
        let loads: Vec<Load> = selected.filter_map(|id| self.load(id, keys.as_ref())).collect();
        let moves = plan(loads);
        let of_keys = keys.is_some();
        Ok(Reply::later(move |namespace, answer| namespace.move_keys(Rebalancing { moves, of_keys, answer })))
    }

    fn load(&self, worker: WorkerId, keys: Option<&BTreeSet<TaskKey>>) -> Option<Load> {
        let view = self.engine.worker(worker)?;
        let holds: BTreeSet<TaskKey> = self.engine.has_what(worker).into_iter().collect();
        let may_leave = |key: &TaskKey| keys.is_none_or(|keys| keys.contains(key)) && !self.engine.is_actor(key);
        let leaving = holds.iter().filter(|key| may_leave(key));
        let leaving = leaving.filter_map(|key| Some((key.clone(), self.engine.nbytes(key)?))).collect();
        // What came since the last heartbeat counts as well.
        Some(Load { worker, memory: view.memory.max(view.nbytes), limit: view.profile.memory_limit, keys: leaving, holds })
    }

    fn move_keys(&mut self, rebalancing: Rebalancing) {
        let mut orders: BTreeMap<WorkerId, Vec<_>> = BTreeMap::new();
        for Move { to, key, .. } in &rebalancing.moves {
            orders.entry(*to).or_default().push(self.source(key.clone()));
        }
        let orders = orders.into_iter().map(|(worker, sources)| Order { worker, sources }).collect();
        self.copy(orders, Errand::Rebalance(rebalancing));
    }

    /// What has arrived leaves its sender.
    pub(crate) fn end_rebalancing(&mut self, rebalancing: Rebalancing, copied: &Copied) {
        let arrived: BTreeSet<(WorkerId, &TaskKey)> =
            copied.iter().flat_map(|(worker, keys)| keys.iter().map(|key| (*worker, key))).collect();
        let mut stayed = Vec::new();
        for Move { from, to, key } in rebalancing.moves {
            if arrived.contains(&(to, &key)) {
                self.stimulate(Stimulus::DropReplicas { worker: from, keys: vec![key] });
            } else {
                stayed.push(Value::from(&key));
            }
        }
        let reply = if rebalancing.of_keys && !stayed.is_empty() {
            Value::map([("status", "partial-fail".into()), ("keys", Value::Array(stayed))])
        } else {
            Value::map([("status", "OK".into())])
        };
        call::reply(rebalancing.answer, &reply);
    }
}

/// Which key goes from where to where: from the fullest to the emptiest, until both are near the mean.
fn plan(mut loads: Vec<Load>) -> Vec<Move> {
    if loads.is_empty() {
        return Vec::new();
    }
    let mean = loads.iter().map(|load| load.memory).sum::<u64>() / loads.len() as u64;
    let share = |load: &Load, share: f64, without: f64| load.limit.map_or(without, |limit| limit as f64 * share);
    let is_sender = |load: &Load| {
        let memory = load.memory as f64;
        memory >= mean as f64 + share(load, HALF_GAP, 0.0) && memory >= share(load, SENDER_MIN, 0.0)
    };
    let is_recipient = |load: &Load| {
        let memory = load.memory as f64;
        memory < mean as f64 - share(load, HALF_GAP, 0.0) && memory < share(load, RECIPIENT_MAX, f64::INFINITY)
    };
    loads.sort_by_key(|load| (load.memory, load.worker));
    let (mut senders, others): (Vec<Load>, Vec<Load>) = loads.into_iter().rev().partition(is_sender);
    let mut recipients: Vec<Load> = others.into_iter().filter(is_recipient).collect();
    let mut moves = Vec::new();
    for sender in &mut senders {
        for (key, nbytes) in std::mem::take(&mut sender.keys) {
            // It would take the sender below the mean.
            if sender.memory.saturating_sub(nbytes) < mean || sender.memory < nbytes {
                continue;
            }
            recipients.sort_by_key(|load| (load.memory, load.worker));
            let takes = |load: &&mut Load| load.memory + nbytes <= mean && !load.holds.contains(&key);
            let Some(recipient) = recipients.iter_mut().find(takes) else { continue };
            recipient.memory += nbytes;
            recipient.holds.insert(key.clone());
            sender.memory -= nbytes;
            moves.push(Move { from: sender.worker, to: recipient.worker, key });
            if !is_sender(sender) {
                break;
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(worker: u32, limit: Option<u64>, keys: &[(&str, u64)]) -> Load {
        let keys: Vec<(TaskKey, u64)> = keys.iter().map(|(key, nbytes)| (TaskKey::from_text(key), *nbytes)).collect();
        let holds = keys.iter().map(|(key, _)| key.clone()).collect();
        Load { worker: WorkerId(worker), memory: keys.iter().map(|(_, nbytes)| nbytes).sum(), limit, keys, holds }
    }

    fn described(moves: &[Move]) -> Vec<String> {
        moves.iter().map(|each| format!("{} {}->{}", each.key, each.from.0, each.to.0)).collect()
    }

    #[test]
    fn keys_go_from_the_fullest_to_the_emptiest_up_to_the_mean() {
        let full = load(0, None, &[("a", 10), ("b", 10), ("c", 10), ("d", 10), ("e", 20)]);
        let moves = plan(vec![full, load(1, None, &[]), load(2, None, &[])]);
        assert_eq!(described(&moves), ["a 0->1", "b 0->2", "c 0->1", "d 0->2"]);
    }

    #[test]
    fn nothing_moves_between_workers_near_the_mean_or_with_little_in_use() {
        let limit = Some(1000);
        assert!(plan(vec![load(0, limit, &[("a", 410)]), load(1, limit, &[("b", 390)])]).is_empty());
        assert!(plan(vec![load(0, limit, &[("a", 100), ("b", 100)]), load(1, limit, &[])]).is_empty());
        assert!(plan(Vec::new()).is_empty());
    }

    #[test]
    fn a_key_does_not_go_where_it_is_already() {
        let moves = plan(vec![load(0, None, &[("a", 5), ("b", 5), ("c", 20)]), load(1, None, &[("a", 5)])]);
        assert_eq!(described(&moves), ["b 0->1"]);
    }
}
