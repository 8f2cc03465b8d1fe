//! Lets workers go without losing what only they hold.
//!
//! ```text
//! retire_workers ─► closing_gracefully ─► the engine has others fetch ─┬► nothing is only there: close, answer
//!                          ▲                              │            └► as before (nobody takes it, or it goes on no further)
//!                          └─ it goes on no further yet ──┘
//! ```
//!
//! The engine's orders are the only ones: a stock worker that fetches a key twice at a time drops it when the second
//! fetch fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::info;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId, WorkerStatus};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::requests::{Reply, shown};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::ToWorker;
use crate::wire::value::Value;

/// Others are told again to fetch what has not come in this time,
const NUDGE_AFTER: Duration = Duration::from_secs(3);
/// and workers stay when nothing at all comes in this time.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Those who wait until nothing is only on the workers that they want gone.
#[derive(Debug, Default)]
pub(crate) struct Retirements(Vec<Retirement>);

/// Workers on their way out, and the call that wants them gone.
#[derive(Debug)]
struct Retirement {
    leaving: Vec<WorkerId>,
    /// We close them; others close by themselves once they have the answer.
    closes: bool,
    /// They are none of ours from then on.
    removes: bool,
    /// How many keys were only there when that last changed.
    sole: usize,
    changed: Instant,
    nudged: Instant,
    answer: Answer,
}

impl Namespace {
    /// The RPC `retire_workers`: answers with those that were retired, by address.
    pub(crate) fn retire_workers(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let closes = fields.optional_boolean("close_workers")?.unwrap_or_default();
        let removes = fields.optional_boolean("remove")?.unwrap_or(true);
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
            let now = Instant::now();
            let retirement = Retirement { leaving: chosen, closes, removes, sole: 0, changed: now, nudged: now, answer };
            namespace.retirements.0.push(retirement);
            namespace.go_on_retiring();
        }))
    }

    fn set_status(&mut self, worker: WorkerId, status: WorkerStatus, name: &str) {
        self.stimulate(Stimulus::WorkerStatusChanged { worker, status });
        let stimulus_id = "mainstay-retire".to_owned();
        self.workers.tell(worker, &ToWorker::WorkerStatusChange { status: name.to_owned(), stimulus_id });
    }

    /// Looks how far those on their way out have come.
    pub(crate) fn go_on_retiring(&mut self) {
        for mut retirement in std::mem::take(&mut self.retirements.0) {
            let sole = self.sole_replicas(&retirement.leaving);
            let now = Instant::now();
            if sole != retirement.sole {
                (retirement.sole, retirement.changed) = (sole, now);
            }
            if sole == 0 {
                self.close_retired(retirement);
            } else if self.takers().is_empty() || now - retirement.changed > STUCK_AFTER {
                self.keep_after_all(retirement);
            } else {
                // Who was to fetch it may be gone.
                if now - retirement.nudged.max(retirement.changed) > NUDGE_AFTER {
                    retirement.nudged = now;
                    for worker in retirement.leaving.clone() {
                        self.stimulate(Stimulus::WorkerStatusChanged { worker, status: WorkerStatus::ClosingGracefully });
                    }
                }
                self.retirements.0.push(retirement);
            }
        }
    }

    /// How many keys are nowhere else.
    fn sole_replicas(&self, leaving: &[WorkerId]) -> usize {
        let addresses: BTreeSet<&WorkerAddress> = leaving.iter().filter_map(|id| Some(&self.workers.get(*id)?.address)).collect();
        let keys: BTreeSet<TaskKey> = leaving.iter().flat_map(|id| self.engine.has_what(*id)).collect();
        keys.iter().filter(|key| self.engine.who_has(key).iter().all(|holder| addresses.contains(holder))).count()
    }

    fn close_retired(&mut self, retirement: Retirement) {
        let Retirement { leaving, closes, removes, answer, .. } = retirement;
        let mut retired = Vec::new();
        for id in leaving {
            let Some(worker) = self.workers.get(id) else { continue };
            info!(worker = %worker.name, address = %worker.address, closes, "retired a worker");
            retired.push((Value::from(worker.address.as_str()), worker.identity()));
            if closes {
                self.workers.close(id, "retired");
            }
            match (removes, closes) {
                (true, true) => self.on_worker_gone(id),
                (true, false) => self.let_go(id),
                (false, _) => {}
            }
        }
        let addresses = Value::Array(retired.iter().map(|(address, _)| address.clone()).collect());
        self.note(&["all"], "retire-workers", [("retired", addresses)]);
        for (address, _) in &retired {
            self.note(&[address.as_text().unwrap_or_default()], "retired", []);
        }
        // The caller may have gone.
        let _ = answer.send(Value::Map(retired).encode());
    }

    fn keep_after_all(&mut self, retirement: Retirement) {
        let address = |id: &WorkerId| Some(Value::from(self.workers.get(*id)?.address.as_str()));
        let addresses = Value::Array(retirement.leaving.iter().filter_map(address).collect());
        for worker in retirement.leaving {
            self.set_status(worker, WorkerStatus::Running, "running");
        }
        self.note(&["all"], "retire-workers", [("could-not-retire", addresses)]);
        let _ = retirement.answer.send(Value::Map(Vec::new()).encode());
    }
}

/// Addresses and names.
fn names(workers: &Value, names: &Value) -> BTreeSet<String> {
    let all = [workers, names].into_iter().flat_map(|list| list.as_elements().unwrap_or_default());
    all.filter_map(shown).collect()
}
