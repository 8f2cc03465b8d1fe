//! Placement by load and by where the data is.

use crate::engine::placement::{Candidate, Placement};

/// Where the task can start first, counting what has to be fetched: Dask's own rule.
///
/// A worker that holds the data is preferred to a free one as long as the wait is shorter than the transfer.
#[derive(Clone, Copy, Debug)]
pub struct Locality;

impl Placement for Locality {
    fn cost(&self, candidate: &Candidate) -> Option<u64> {
        Some(candidate.wait_us.saturating_add(candidate.transfer_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_wait_is_cheaper_than_a_long_transfer() {
        let holder = Candidate { has_slot: false, wait_us: 100, transfer_us: 0 };
        let free = Candidate { has_slot: true, wait_us: 0, transfer_us: 5_000 };
        assert!(Locality.cost(&holder) < Locality.cost(&free));
        let busy = Candidate { wait_us: 10_000, ..holder };
        assert!(Locality.cost(&free) < Locality.cost(&busy));
    }
}
