//! Keeps what anybody can cause from filling logs and status.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many are let through at once,
const BURST: u64 = 8;
/// and the next so long after the first of them.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets some through in a while, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    began: Option<Instant>,
    passed: u64,
    held_back: u64,
}

impl Throttle {
    /// Whether this one is let through; if so, how many were not since the last.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.duration_since(began) >= PERIOD) {
            (state.began, state.passed) = (Some(now), 0);
        }
        if state.passed == BURST {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_in_a_period_are_let_through_and_the_next_says_how_many_were_not() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        assert!((0..BURST).all(|_| throttle.pass(start) == Some(0)));
        assert_eq!([1, 2].map(|second| throttle.pass(start + Duration::from_secs(second))), [None, None]);
        assert_eq!(throttle.pass(start + PERIOD), Some(2));
    }
}
