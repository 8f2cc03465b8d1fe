//! Peer-to-peer shuffles: which run of each is the present one, who takes part in it, and which worker makes what.
//!
//! The data goes from worker to worker. What they agree upon is here: a *run* says which worker makes which output
//! partition, and has a number that is never used again, so that what comes of an earlier run is known and refused.
//! Does no I/O and knows no task; the engine runs those, `server/shuffles.rs` connects both.
//!
//! ```text
//! declare ─► the first transfer asks: start ─► run ─► other workers: join ─► barrier: check ─► outputs ─► end
//!                                  ▲                                                            │
//!                                  └── again, with a higher number ◄── worker_left, restart ────┘
//! ```

mod run;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::dask::{Partition, ShuffleId, ShuffleSpec, TaskKey, WorkerAddress};
pub use run::Run;

/// Why a worker is told no.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("no active shuffle with id='{id}' found")]
    NotActive { id: ShuffleId },
    #[error("the shuffle {id} is not known: its barrier is in no graph")]
    Unknown { id: ShuffleId },
    #[error("the scheduler is unaware of the worker {worker}")]
    UnknownWorker { worker: WorkerAddress },
    #[error("expected `{key}` to be processing, but it is {state}")]
    NotProcessing { key: TaskKey, state: &'static str },
    #[error("no running worker may make what the shuffle {id} gives")]
    NoWorkers { id: ShuffleId },
    #[error("request stale: run {found} of the shuffle {id} was given up, the present one is {expected}")]
    Stale { id: ShuffleId, found: u64, expected: u64 },
    #[error("request invalid: the shuffle {id} has had no run {found}, the present one is {expected}")]
    Invalid { id: ShuffleId, found: u64, expected: u64 },
}

/// More runs than this are started in no two to the power of so many units of an epoch.
const RUNS_BITS: u32 = 20;

/// The shuffles of one namespace.
#[derive(Debug, Default)]
pub struct Shuffles {
    declared: BTreeMap<ShuffleId, Arc<ShuffleSpec>>,
    active: BTreeMap<ShuffleId, Run>,
    /// How many runs there were, which is the number of the last.
    runs: u64,
    /// Where the next run begins to give out partitions, so that many small shuffles do not all go to the same worker.
    turn: usize,
}

impl Shuffles {
    /// Without any. Workers may have data of runs that a scheduler of an earlier epoch has numbered, and the first of this one
    /// gets a higher number.
    pub fn of_epoch(epoch: u64) -> Self {
        Self { runs: (epoch << RUNS_BITS) & i64::MAX.cast_unsigned(), ..Self::default() }
    }

    /// Takes in what a graph says. What is said of a shuffle is always the same.
    pub fn declare(&mut self, specs: Vec<ShuffleSpec>) {
        self.declared.extend(specs.into_iter().map(|spec| (spec.id.clone(), Arc::new(spec))));
    }

    /// Forgets the shuffles that are in no graph any more.
    pub fn forget_unless(&mut self, is_in_graph: impl Fn(&ShuffleId) -> bool) {
        let active = &self.active;
        self.declared.retain(|id, _| active.contains_key(id) || is_in_graph(id));
    }

    pub fn is_declared(&self, id: &ShuffleId) -> bool {
        self.declared.contains_key(id)
    }

    /// Whether there is any shuffle at all.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    /// The present run, in which the worker takes part from here on.
    ///
    /// # Errors
    /// When there is none.
    pub fn join(&mut self, id: &ShuffleId, worker: &WorkerAddress) -> Result<&Run, Refusal> {
        let run = self.active.get_mut(id).ok_or_else(|| Refusal::NotActive { id: id.clone() })?;
        run.admit(worker);
        Ok(run)
    }

    /// Starts a run. The output partitions go to `workers`, in ranges of about the same length; those of a shuffle in
    /// `aligned`, which has outputs in common with this one, stay where they are: an output is made in one place.
    ///
    /// # Errors
    /// When the shuffle was never declared, or there is no worker.
    pub fn start(
        &mut self,
        id: &ShuffleId,
        asker: &WorkerAddress,
        mut workers: Vec<WorkerAddress>,
        aligned: &[ShuffleId],
    ) -> Result<&Run, Refusal> {
        let spec = self.declared.get(id).ok_or_else(|| Refusal::Unknown { id: id.clone() })?;
        if workers.is_empty() {
            return Err(Refusal::NoWorkers { id: id.clone() });
        }
        let turn = self.turn % workers.len();
        workers.rotate_left(turn);
        let fixed: BTreeMap<&Partition, &WorkerAddress> =
            aligned.iter().filter_map(|other| self.active.get(other)).flat_map(Run::worker_for).collect();
        let run = Run::new(self.runs + 1, Arc::clone(spec), workers, &fixed, asker);
        self.runs += 1;
        self.turn = self.turn.wrapping_add(1);
        Ok(self.active.entry(id.clone()).insert_entry(run).into_mut())
    }

    /// The present run, if it is the one that is meant.
    ///
    /// # Errors
    /// When it is another, or there is none.
    pub fn check(&self, id: &ShuffleId, found: u64) -> Result<&Run, Refusal> {
        let run = self.active.get(id).ok_or_else(|| Refusal::NotActive { id: id.clone() })?;
        let (id, expected) = (id.clone(), run.number());
        match found.cmp(&expected) {
            std::cmp::Ordering::Equal => Ok(run),
            std::cmp::Ordering::Less => Err(Refusal::Stale { id, found, expected }),
            std::cmp::Ordering::Greater => Err(Refusal::Invalid { id, found, expected }),
        }
    }

    /// Gives the present run up, if there is one: all is made, or nobody wants it, or it is to begin anew.
    pub fn end(&mut self, id: &ShuffleId) -> Option<Run> {
        self.active.remove(id)
    }

    /// Gives up all runs in which a worker took part that is gone. What it had of them is lost, so they begin anew.
    pub fn worker_left(&mut self, worker: &WorkerAddress) -> Vec<Run> {
        self.active.extract_if(.., |_, run| run.has(worker)).map(|(_, run)| run).collect()
    }
}
