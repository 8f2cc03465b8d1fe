//! Laws that hold whatever happens: random graphs, workers that answer late, fail, lie, come and go, and Clients that
//! change their minds. The engine's own invariants are checked after each stimulus.

use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert_eq, proptest};
use proptest::test_runner::RngSeed;

use crate::draw::Draw;
use crate::world::{Move, World};

fn moves() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec((any::<u8>(), any::<u32>()), 0..400)
}

fn play(policy: usize, seed: u64, moves: &[Move]) -> World {
    let mut world = World::new(policy, seed);
    world.join(&mut Draw::new(1), false);
    for one in moves {
        world.make(*one);
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_wanted_settles_and_nothing_else_is_held(policy in 0_usize..2, seed in 0_u64..4, moves in moves()) {
        play(policy, seed, &moves).check_settled();
    }

    #[test]
    fn the_same_stimuli_give_the_same_instructions(seed in 0_u64..4, moves in moves()) {
        let (one, other) = (play(0, seed, &moves), play(0, seed, &moves));
        prop_assert_eq!(one.trace, other.trace);
    }
}

/// The same few cases each time; with `PROPTEST_CASES` that many, and others each time.
fn config() -> ProptestConfig {
    let asked_for = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked_for.is_some() { RngSeed::Random } else { RngSeed::Fixed(0) };
    ProptestConfig { cases: asked_for.unwrap_or(40), rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}
