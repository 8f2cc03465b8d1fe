//! How long to wait after a failure.

use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use rustc_hash::FxHasher;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
const FIRST_AFTER_RACE: Duration = Duration::from_millis(250);
const LONGEST_AFTER_RACE: Duration = Duration::from_secs(8);

/// Twice as long after each failure in a row, up to five minutes; between half and all of it, so that objects that failed
/// together do not come back together.
pub(super) fn after(uid: &str, failures: u32) -> Duration {
    doubled(FIRST, failures).min(LONGEST).mul_f64(0.5 + 0.5 * fraction(uid, failures))
}

/// After somebody else's change came in between. The watch calls as soon as it shows that change; this is for when it lags.
pub(super) fn after_race(failures: u32) -> Duration {
    doubled(FIRST_AFTER_RACE, failures).min(LONGEST_AFTER_RACE)
}

fn doubled(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// From 0 to 1: different for each object and each time, the same for both of them.
fn fraction(uid: &str, failures: u32) -> f64 {
    let mut hasher = FxHasher::default();
    (uid, failures).hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes() {
        for (failures, longest) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (1000, 300)] {
            let wait = after("a", failures).as_secs_f64();
            assert!((f64::from(longest) / 2.0..=f64::from(longest)).contains(&wait), "{failures}: {wait}");
        }
    }

    #[test]
    fn objects_that_failed_together_come_back_apart() {
        let mut waits: Vec<Duration> = (0..100).map(|uid| after(&format!("uid-{uid}"), 10)).collect();
        waits.sort();
        waits.dedup();
        assert_eq!(waits.len(), 100);
        let (early, late) = (waits[10].as_secs(), waits[90].as_secs());
        assert!(early < 190 && late > 260, "{early} s to {late} s");
    }

    #[test]
    fn races_are_settled_soon_or_wait_for_the_watch() {
        let waits: Vec<u128> = [1, 2, 5, 6, 7, 100].map(|failures| after_race(failures).as_millis()).into();
        assert_eq!(waits, [250, 500, 4_000, 8_000, 8_000, 8_000]);
    }
}
