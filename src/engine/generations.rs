//! Which graphs go first among those of equal priority: those that were asked for first.

use crate::engine::Millis;

/// Counts graphs by when they were asked for.
#[derive(Debug, Default)]
pub(super) struct Generations {
    /// The last generation that an engine before this one gave.
    kept: u64,
    /// How many this one gave.
    given: u64,
    since: Option<Millis>,
}

/// A graph's place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// What an engine before this one gave it.
    Kept(u64),
    /// Comes after all that are kept.
    Given(u64),
}

impl Generations {
    /// The place of a graph that is asked for now. Graphs within `fifo_timeout_ms` of the first of a generation share it.
    ///
    /// Source: distributed 2026.8.0, scheduler.py: `_set_priorities`.
    pub(super) fn take_place(&mut self, now: Millis, fifo_timeout_ms: u64) -> Place {
        if self.since.is_none_or(|since| since.0.saturating_add(fifo_timeout_ms) < now.0) {
            self.given += 1;
            self.since = Some(now);
        }
        Place::Given(self.given)
    }

    pub(super) fn keep_place(&mut self, generation: u64) -> Place {
        self.kept = self.kept.max(generation);
        Place::Kept(generation)
    }

    pub(super) fn number(&self, place: Place) -> u64 {
        match place {
            Place::Kept(generation) => generation,
            Place::Given(count) => self.kept.saturating_add(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_share_a_generation_until_the_fifo_timeout_is_over() {
        let mut generations = Generations::default();
        let seen: Vec<Place> = [(0, 100), (100, 100), (101, 100), (150, 10_000), (400, 100)]
            .into_iter()
            .map(|(now, timeout)| generations.take_place(Millis(now), timeout))
            .collect();
        assert_eq!(seen, [1, 1, 2, 2, 3].map(Place::Given));
    }

    #[test]
    fn what_was_asked_for_before_a_restart_comes_first() {
        let mut generations = Generations::default();
        let new = generations.take_place(Millis(0), 100);
        let kept = [generations.keep_place(7), generations.keep_place(4)];
        assert_eq!(kept.map(|place| generations.number(place)), [7, 4]);
        assert_eq!(generations.number(new), 8);
    }
}
