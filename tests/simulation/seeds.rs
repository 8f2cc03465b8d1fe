//! Runs from seeds: `SEEDS=N` of them from `FROM`, or one `SEED=S`; `TRACE=1` tells what happens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::world::World;

/// One run in so many is run twice, and has to go the same way.
const TWICE: u64 = 50;
/// Where nobody says how many.
const FEW: u64 = 60;

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_goes_wrong_all_is_well_in_the_end() {
    if let Some(seed) = number("SEED") {
        eprintln!("seed {seed}: trace {:016x}", World::new(seed).run());
        return;
    }
    let (from, count) = (number("FROM").unwrap_or_default(), number("SEEDS"));
    let until = from + count.unwrap_or(FEW);
    let (mut failed, mut events) = (Vec::new(), 0);
    for seed in from..until {
        let run = || {
            let mut world = World::new(seed);
            let trace = world.run();
            (trace, world.events)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok((trace, count)) => {
                events += count;
                if seed % TWICE == 0 {
                    assert_eq!(trace, World::new(seed).run(), "seed {seed} does not go the same way twice");
                }
            }
            Err(_) => {
                eprintln!("seed {seed} fails: SEED={seed} TRACE=1 make simulate");
                failed.push(seed);
            }
        }
    }
    if count.is_some() {
        eprintln!("seeds {from}..{until}: {} failed, {events} events", failed.len());
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}
