//! Lets workers go without losing what only they hold.
//!
//! ```text
//! retire_workers ─► closing_gracefully ─► copy sole replicas ─┬► close, answer
//!                          ▲                    │             └► as before (nobody takes them, or an actor lives there)
//!                          └────── more came ───┘
//! ```

use std::collections::BTreeSet;

use tracing::info;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId, WorkerStatus};
use crate::server::copies::{Errand, Order, Source};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::requests::{Reply, shown};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::ToWorker;
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
        let targets = self.takers();
        if sole.is_empty() {
            return self.close_retired(retirement);
        }
        if targets.is_empty() || retirement.rounds == ROUNDS_MAX {
            return self.keep_after_all(retirement);
        }
        let mut orders: Vec<Order> = targets.into_iter().map(|worker| Order { worker, sources: Vec::new() }).collect();
        let count = orders.len();
        for (index, source) in sole.into_iter().enumerate() {
            orders[index % count].sources.push(source);
        }
        orders.retain(|order| !order.sources.is_empty());
        self.copy(orders, Errand::Retire(retirement));
    }

    /// What is nowhere else.
    fn sole_replicas(&self, leaving: &[WorkerId]) -> Vec<Source> {
        let addresses: BTreeSet<&WorkerAddress> = leaving.iter().filter_map(|id| Some(&self.workers.get(*id)?.address)).collect();
        let keys: BTreeSet<TaskKey> = leaving.iter().flat_map(|id| self.engine.has_what(*id)).collect();
        let sources = keys.into_iter().map(|key| self.source(key));
        sources.filter(|source| source.holders.iter().all(|holder| addresses.contains(holder))).collect()
    }

    pub(crate) fn go_on_retiring(&mut self, mut retirement: Retirement) {
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

/// Addresses and names.
fn names(workers: &Value, names: &Value) -> BTreeSet<String> {
    let all = [workers, names].into_iter().flat_map(|list| list.as_elements().unwrap_or_default());
    all.filter_map(shown).collect()
}
