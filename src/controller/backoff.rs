//! How long to wait after a failure.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Twice as long after each failure in a row, up to five minutes; between half and all of it, so that objects that failed
/// together do not come back together.
pub(super) fn after(failures: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(0.5 + 0.5 * random_fraction())
}

/// From 0 to 1; the standard library's only source of randomness.
fn random_fraction() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes() {
        for (failures, longest) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (1000, 300)] {
            let wait = after(failures).as_secs_f64();
            assert!((f64::from(longest) / 2.0..=f64::from(longest)).contains(&wait), "{failures}: {wait}");
        }
    }
}
