//! How long tasks of one kind take.

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::dask::TaskKey;

/// What a task of a kind never seen is taken for, as in Dask.
pub(super) const UNKNOWN_US: u64 = 500_000;
/// Durations beyond are a worker's mistake.
const DURATION_MS_MAX: f64 = 1e10;
/// Further prefixes share the first entry; no sane graph has as many.
const PREFIXES_MAX: usize = 100_000;

/// The place of a prefix in the `PrefixTable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PrefixId(u32);

/// Measured durations by prefix (`sum` of `('sum-5f2a…', 3)`).
#[derive(Debug, Default)]
pub(super) struct PrefixTable {
    duration_us: IndexMap<String, Option<u64>, FxBuildHasher>,
    /// The name of the key that was looked at last, which the next often has as well.
    last: (String, PrefixId),
}

impl PrefixTable {
    pub(super) fn intern(&mut self, key: &TaskKey) -> PrefixId {
        let Some(name) = key.name() else { return self.intern_prefix(&key.prefix()) };
        if self.duration_us.is_empty() || self.last.0 != name {
            self.last.1 = self.intern_prefix(&key.prefix());
            self.last.0.clear();
            self.last.0.push_str(name);
        }
        self.last.1
    }

    fn intern_prefix(&mut self, prefix: &str) -> PrefixId {
        if let Some(index) = self.duration_us.get_index_of(prefix) {
            return PrefixId(index as u32);
        }
        if self.duration_us.len() >= PREFIXES_MAX {
            return PrefixId(0);
        }
        PrefixId(self.duration_us.insert_full(prefix.to_owned(), None).0 as u32)
    }

    /// Takes in how long a run took: half of the average is the latest, as in Dask.
    pub(super) fn observe(&mut self, prefix: PrefixId, compute_ms: Option<f64>) {
        let Some(milliseconds) = compute_ms.filter(|ms| (0.0..=DURATION_MS_MAX).contains(ms)) else { return };
        let measured_us = (milliseconds * 1000.0) as u64;
        if let Some((_, average)) = self.duration_us.get_index_mut(prefix.0 as usize) {
            *average = Some(average.map_or(measured_us, |old| old.midpoint(measured_us)));
        }
    }

    /// How long a run is expected to take.
    pub(super) fn expected_us(&self, prefix: PrefixId) -> u64 {
        self.duration_us.get_index(prefix.0 as usize).and_then(|(_, average)| *average).unwrap_or(UNKNOWN_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_run_counts_for_half_of_the_average() {
        let mut prefixes = PrefixTable::default();
        let sum = prefixes.intern(&TaskKey::from_text("sum-1"));
        assert_eq!(sum, prefixes.intern(&TaskKey::from_text("sum-2")));
        assert_eq!(prefixes.expected_us(sum), UNKNOWN_US);
        prefixes.observe(sum, Some(100.0));
        prefixes.observe(sum, Some(300.0));
        assert_eq!(prefixes.expected_us(sum), 200_000);
    }

    #[test]
    fn a_duration_that_cannot_be_is_not_taken_in() {
        let mut prefixes = PrefixTable::default();
        let sum = prefixes.intern(&TaskKey::from_text("sum-1"));
        for nonsense in [f64::NAN, -1.0, f64::INFINITY] {
            prefixes.observe(sum, Some(nonsense));
        }
        assert_eq!(prefixes.expected_us(sum), UNKNOWN_US);
    }
}
