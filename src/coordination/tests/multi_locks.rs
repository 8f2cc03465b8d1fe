//! Multi-locks.

use super::*;

fn unlock(id: &str) -> Request {
    Request::MultiLockRelease { id: name(id) }
}

#[test]
fn all_locks_are_had_or_waited_for() {
    let mut world = World::default();
    assert_eq!(world.answer(lock("a", &["x", "y"], 2)), Answer::Boolean(true));
    assert_eq!(world.answer(lock("b", &["z"], 1)), Answer::Boolean(true));
    assert_eq!(world.ask(lock("c", &["y", "z"], 2)), []);
    assert_eq!(world.ask(lock("d", &["z", "x"], 2)), []);
    assert_eq!(world.answer(unlock("a")), Answer::Nil);
    assert_eq!(world.ask(unlock("b")), [to(3, Answer::Boolean(true)), to(6, Answer::Nil)]);
    assert_eq!(world.ask(unlock("c")), [to(4, Answer::Boolean(true)), to(7, Answer::Nil)]);
    assert_eq!(world.answer(unlock("d")), Answer::Nil);
    assert_eq!(world.answer(unlock("d")), Answer::Refused(Refusal::UnknownMultiLock { id: name("d") }));
}

#[test]
fn some_of_them_are_enough() {
    let mut world = World::default();
    assert_eq!(world.answer(lock("a", &["x"], 1)), Answer::Boolean(true));
    assert_eq!(world.answer(lock("b", &["x", "y"], 1)), Answer::Boolean(true));
    assert_eq!(world.ask(lock("c", &["x", "y"], 1)), []);
    assert_eq!(world.ask(unlock("b")), [to(3, Answer::Boolean(true)), to(4, Answer::Nil)]);
    assert_eq!(world.answer(unlock("c")), Answer::Nil);
    assert!(matches!(world.answer(lock("d", &["x", "x"], 2)), Answer::Refused(Refusal::TooFewLocks { .. })));
    assert!(matches!(world.answer(lock("a", &["x"], 1)), Answer::Refused(Refusal::AcquiredBefore { .. })));
}

#[test]
fn who_gives_up_or_is_gone_stands_in_nobodys_way() {
    let mut world = World::default();
    assert_eq!(world.answer(lock("a", &["x", "y"], 2)), Answer::Boolean(true));
    assert_eq!(world.ask_within(Some(8), lock("b", &["x", "z"], 2)), []);
    assert_eq!(world.ask(lock("c", &["x"], 1)), []);
    assert_eq!(world.ask(lock("d", &["z"], 1)), []);
    assert_eq!(world.pass(8), [to(4, Answer::Boolean(true)), to(2, Answer::Boolean(false))]);
    assert_eq!(world.gone(3), []);
    assert_eq!(world.answer(unlock("a")), Answer::Nil);
    assert_eq!(world.answer(lock("e", &["x", "y"], 2)), Answer::Boolean(true));
}
