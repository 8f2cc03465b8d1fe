//! Placement by load alone.

use crate::engine::placement::{Candidate, Placement};

/// The worker with a free slot that can start first, wherever the data is: for tasks whose inputs are small.
#[derive(Clone, Copy, Debug)]
pub struct LeastLoaded;

impl Placement for LeastLoaded {
    fn cost(&self, candidate: &Candidate) -> Option<u64> {
        candidate.has_slot.then_some(candidate.wait_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_a_slot_is_left_alone() {
        let candidate = Candidate { has_slot: false, wait_us: 0, transfer_us: 0 };
        assert_eq!(LeastLoaded.cost(&candidate), None);
    }
}
