//! Lets workers go without losing what only they hold.
//!
//! ```text
//! retire_workers ─► closing_gracefully ─► copy sole replicas ─┬► close, answer
//!                          ▲                    │             └► as before (nobody takes them, or an actor lives there)
//!                          └────── more came ───┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use tracing::info;

use crate::comm::Pool;
use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId, WorkerStatus};
use crate::server::event::{Answer, Event};
use crate::server::namespace::Namespace;
use crate::server::requests::{Reply, shown};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::encode::encode_message;
use crate::wire::messages::{Ask, ToWorker};
use crate::wire::value::Value;

/// Tasks that were running may leave more results behind; these are copied as well, in so many rounds.
const ROUNDS_MAX: u32 = 5;

/// Workers on their way out, and the call that wants them gone.
#[derive(Debug)]
pub(crate) struct Retirement {
    leaving: Vec<WorkerId>,
    closes: bool,
    rounds: u32,
    answer: Answer,
}

/// A key that only workers on their way out hold.
#[derive(Debug)]
struct SoleReplica {
    key: TaskKey,
    holders: Vec<WorkerAddress>,
}

/// Keys that now have one more holder.
pub(crate) type Copied = Vec<(WorkerId, Vec<TaskKey>)>;

impl Namespace {
    /// The RPC `retire_workers`: answers with those that were retired, by address.
    pub(crate) fn retire_workers(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let closes = fields.optional_boolean("close_workers")?.unwrap_or_default();
        let named = names(&fields.optional_value("workers")?, &fields.optional_value("names")?);
        let is_named = |address: &WorkerAddress, name: &str| named.contains(address.as_str()) || named.contains(name);
        let chosen: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(id, worker)| is_named(&worker.address, &worker.name) && !self.engine.holds_actors(*id))
            .map(|(id, _)| id)
            .collect();
        for worker in &chosen {
            self.set_status(*worker, WorkerStatus::ClosingGracefully, "closing_gracefully");
        }
        Ok(Reply::later(move |namespace, answer| {
            namespace.copy_sole_replicas(Retirement { leaving: chosen, closes, rounds: 0, answer });
        }))
    }

    fn set_status(&mut self, worker: WorkerId, status: WorkerStatus, name: &str) {
        self.stimulate(Stimulus::WorkerStatusChanged { worker, status });
        let stimulus_id = "mainstay-retire".to_owned();
        self.workers.tell(worker, &ToWorker::WorkerStatusChange { status: name.to_owned(), stimulus_id });
    }

    fn copy_sole_replicas(&mut self, retirement: Retirement) {
        let sole = self.sole_replicas(&retirement.leaving);
        let targets: Vec<(WorkerId, WorkerAddress)> = self
            .engine
            .workers()
            .filter(|worker| worker.status == WorkerStatus::Running && !worker.profile.builder)
            .map(|worker| (worker.id, worker.profile.address.clone()))
            .collect();
        if sole.is_empty() {
            return self.close_retired(retirement);
        }
        if targets.is_empty() || retirement.rounds == ROUNDS_MAX {
            return self.keep_after_all(retirement);
        }
        let mut shares: BTreeMap<usize, Vec<SoleReplica>> = BTreeMap::new();
        for (index, copy) in sole.into_iter().enumerate() {
            shares.entry(index % targets.len()).or_default().push(copy);
        }
        let orders = shares.into_iter().map(|(index, copies)| (targets[index].clone(), copies)).collect();
        copy(Arc::clone(&self.pool), self.events.clone(), orders, retirement);
    }

    /// What is nowhere else.
    fn sole_replicas(&self, leaving: &[WorkerId]) -> Vec<SoleReplica> {
        let addresses: BTreeSet<&WorkerAddress> = leaving.iter().filter_map(|id| Some(&self.workers.get(*id)?.address)).collect();
        let keys: BTreeSet<TaskKey> = leaving.iter().flat_map(|id| self.engine.has_what(*id)).collect();
        let copies = keys.into_iter().map(|key| SoleReplica { holders: self.engine.who_has(&key), key });
        copies.filter(|copy| copy.holders.iter().all(|holder| addresses.contains(holder))).collect()
    }

    /// Copies have arrived, as many as could be made.
    pub(crate) fn on_copied(&mut self, mut retirement: Retirement, copied: Copied) {
        for (worker, keys) in copied {
            self.stimulate(Stimulus::AddKeys { worker, keys });
        }
        retirement.rounds += 1;
        self.copy_sole_replicas(retirement);
    }

    fn close_retired(&mut self, retirement: Retirement) {
        let Retirement { leaving, closes, answer, .. } = retirement;
        let mut retired = Vec::new();
        for id in leaving {
            let Some(worker) = self.workers.get(id) else { continue };
            info!(worker = %worker.name, address = %worker.address, closes, "retired a worker");
            retired.push((Value::from(worker.address.as_str()), worker.identity()));
            // Otherwise it closes by itself once it has the answer.
            if closes {
                self.workers.close(id, "retired");
                self.on_worker_gone(id);
            }
        }
        // The caller may have gone.
        let _ = answer.send(Value::Map(retired).encode());
    }

    fn keep_after_all(&mut self, retirement: Retirement) {
        for worker in retirement.leaving {
            self.set_status(worker, WorkerStatus::Running, "running");
        }
        let _ = retirement.answer.send(Value::Map(Vec::new()).encode());
    }
}

/// Has the targets fetch what they are to have, outside the loop.
fn copy(
    pool: Arc<Pool>,
    events: tokio::sync::mpsc::Sender<Event>,
    orders: Vec<((WorkerId, WorkerAddress), Vec<SoleReplica>)>,
    retirement: Retirement,
) {
    Arc::clone(&pool).spawn(async move {
        let fetches = orders.into_iter().map(|((worker, address), copies)| {
            let pool = Arc::clone(&pool);
            async move { (worker, fetch(&pool, &address, copies).await) }
        });
        let copied = join_all(fetches).await;
        // The loop has ended when nobody takes it.
        let _ = events.send(Event::Copied { retirement, copied }).await;
    });
}

/// Those of the keys that the worker has in the end.
///
/// Source: distributed 2026.8.0, worker.py: `gather`.
async fn fetch(pool: &Pool, address: &WorkerAddress, copies: Vec<SoleReplica>) -> Vec<TaskKey> {
    let holders = |copy: &SoleReplica| Value::Array(copy.holders.iter().map(|holder| holder.as_str().into()).collect());
    let who_has = copies.iter().map(|copy| (Value::from(&copy.key), holders(copy))).collect();
    let request = encode_message(&Ask::new("gather").with("who_has", Value::Map(who_has)));
    let Ok(message) = pool.call(address, request).await else { return Vec::new() };
    let Ok(answer) = Value::decode(&message) else { return Vec::new() };
    let missing: BTreeSet<TaskKey> = match answer.get("keys") {
        Some(Value::Array(keys)) => keys.iter().filter_map(Value::as_key).collect(),
        Some(Value::Map(keys)) => keys.iter().filter_map(|(key, _)| key.as_key()).collect(),
        _ => BTreeSet::new(),
    };
    copies.into_iter().map(|copy| copy.key).filter(|key| !missing.contains(key)).collect()
}

/// Addresses and names.
fn names(workers: &Value, names: &Value) -> BTreeSet<String> {
    let all = [workers, names].into_iter().flat_map(|list| list.as_elements().unwrap_or_default());
    all.filter_map(shown).collect()
}
