//! Chooses the worker for a task that is ready.
//!
//! The engine finds out which workers may take the task and what each would cost; a `Placement` weighs the costs. A new
//! policy is a file here and a row in `POLICIES`.

mod least_loaded;
mod locality;

pub use least_loaded::LeastLoaded;
pub use locality::Locality;

use std::fmt::Debug;

/// All policies. Every property of the engine is tested with each of them.
pub const POLICIES: &[&dyn Placement] = &[&Locality, &LeastLoaded];

/// What it would mean to give a task to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether the worker can be given more; otherwise the task would stand in a longer queue there.
    pub has_slot: bool,
    /// How long the task would wait for a thread.
    pub wait_us: u64,
    /// How long the worker would fetch what it does not hold.
    pub transfer_us: u64,
}

/// A way to choose among the workers that may take a task.
pub trait Placement: Debug + Sync {
    /// What a candidate costs, `None` to rule it out. The cheapest is chosen; of equals the least loaded, then the one
    /// that holds least.
    fn cost(&self, candidate: &Candidate) -> Option<u64>;
}
