//! What goes wrong between the operator and the API server.

use std::time::Duration;

use crate::random::Random;

/// How often each thing goes wrong: once in so many times.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    refused: u64,
    unanswered: u64,
    hangs: u64,
    pub(crate) watch_cut: u64,
    slow_ms: u64,
    watch_lag_ms: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Served,
    /// Not done, and said so.
    Refused(u16),
    /// Done, but the answer is lost.
    Unanswered,
    /// Not done, and nothing is said for a long time.
    Hangs,
}

impl Trouble {
    pub(crate) fn none() -> Self {
        Self { refused: u64::MAX, unanswered: u64::MAX, hangs: u64::MAX, watch_cut: u64::MAX, slow_ms: 1, watch_lag_ms: 1 }
    }

    pub(crate) fn is_any(&self) -> bool {
        [self.refused, self.unanswered, self.hangs].iter().any(|often| *often < u64::MAX)
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let often = |random: &mut Random| if random.one_in(2) { u64::MAX } else { random.between(2, 30) };
        let (refused, unanswered, hangs, watch_cut) = (often(random), often(random), often(random), often(random));
        let slow_ms = *[1, 20, 500].get(random.below(3) as usize).expect("a time");
        let watch_lag_ms = *[1, 50, 5_000].get(random.below(3) as usize).expect("a time");
        Self { refused, unanswered, hangs, watch_cut, slow_ms, watch_lag_ms }
    }

    pub(crate) fn fate(&self, random: &mut Random) -> Fate {
        if random.one_in(self.refused) {
            return Fate::Refused(*[429, 500, 503].get(random.below(3) as usize).expect("a code"));
        }
        if random.one_in(self.unanswered) {
            return Fate::Unanswered;
        }
        if random.one_in(self.hangs) { Fate::Hangs } else { Fate::Served }
    }

    pub(crate) fn delay(&self, random: &mut Random) -> Duration {
        Duration::from_millis(1 + random.below(self.slow_ms))
    }

    pub(crate) fn lag(&self, random: &mut Random) -> Duration {
        Duration::from_millis(1 + random.below(self.watch_lag_ms))
    }
}
