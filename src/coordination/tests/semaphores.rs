//! Semaphores and locks.

use super::*;

#[test]
fn leases_go_to_those_who_waited_longest() {
    let mut world = World::default();
    world.semaphore(1, None);
    assert_eq!(world.answer(acquire("a")), Answer::Boolean(true));
    assert_eq!(world.ask(acquire("b")), []);
    assert_eq!(world.ask(acquire("c")), []);
    assert_eq!(world.ask(release("a")), [to(3, Answer::Boolean(true)), to(5, Answer::Nil)]);
    assert_eq!(world.leases(), Answer::Count(1));
    assert_eq!(world.ask(release("b")), [to(4, Answer::Boolean(true)), to(7, Answer::Nil)]);
}

#[test]
fn who_asks_twice_for_a_lease_has_it_once() {
    let mut world = World::default();
    world.semaphore(2, None);
    assert_eq!(world.answer(acquire("a")), Answer::Boolean(true));
    assert_eq!(world.answer(acquire("a")), Answer::Boolean(true));
    assert_eq!(world.leases(), Answer::Count(1));
    assert_eq!(world.answer(release("a")), Answer::Nil);
    assert_eq!(world.answer(release("a")), Answer::Nil);
    assert_eq!(world.leases(), Answer::Count(0));
}

#[test]
fn all_who_register_agree_on_the_number() {
    let mut world = World::default();
    world.semaphore(2, None);
    world.semaphore(2, None);
    let other = Request::SemaphoreRegister { name: name("s"), leases_max: 3, lease_timeout_ms: None };
    let refusal = Refusal::InconsistentLeases { given: 3, expected: 2 };
    assert_eq!(refusal.to_string(), "Inconsistent max leases: 3, expected: 2");
    assert_eq!(world.answer(other), Answer::Refused(refusal));
}

#[test]
fn a_semaphore_is_registered_first() {
    let refusal = Refusal::UnknownSemaphore { name: name("s") };
    assert_eq!(World::default().answer(acquire("a")), Answer::Refused(refusal));
    assert_eq!(World::default().answer(release("a")), Answer::Nil);
    assert_eq!(World::default().leases(), Answer::Count(0));
}

#[test]
fn waiting_ends_with_its_time() {
    let mut world = World::default();
    world.semaphore(1, None);
    world.ask(acquire("a"));
    assert_eq!(world.ask_within(Some(0), acquire("b")), [to(3, Answer::Boolean(false))]);
    assert_eq!(world.ask_within(Some(500), acquire("c")), []);
    assert_eq!(world.coordination.next_timeout(), Some(Millis(500)));
    assert_eq!(world.pass(499), []);
    assert_eq!(world.pass(1), [to(4, Answer::Boolean(false))]);
    assert_eq!(world.coordination.next_timeout(), None);
    // Nobody waits any more.
    assert_eq!(world.answer(release("a")), Answer::Nil);
    assert_eq!(world.leases(), Answer::Count(0));
}

#[test]
fn nothing_is_granted_to_who_is_gone() {
    let mut world = World::default();
    world.semaphore(1, None);
    world.ask(acquire("a"));
    assert_eq!(world.ask(acquire("dead")), []);
    assert_eq!(world.ask(acquire("alive")), []);
    assert_eq!(world.gone(3), []);
    assert_eq!(world.ask(release("a")), [to(4, Answer::Boolean(true)), to(5, Answer::Nil)]);
}

#[test]
fn leases_that_nobody_refreshes_end() {
    let mut world = World::default();
    world.semaphore(1, Some(1000));
    world.ask(acquire("dead"));
    assert_eq!(world.ask(acquire("next")), []);
    assert_eq!(world.pass(1000), []);
    assert_eq!(world.pass(1), [to(3, Answer::Boolean(true))]);
    assert_eq!(world.leases(), Answer::Count(1));
}

#[test]
fn refreshed_leases_last() {
    let mut world = World::default();
    world.semaphore(1, Some(1000));
    world.ask(acquire("a"));
    for _ in 0..10 {
        assert_eq!(world.pass(800), []);
        let refresh = Request::SemaphoreRefreshLeases { name: name("s"), leases: vec![name("a")] };
        assert_eq!(world.answer(refresh), Answer::Nil);
    }
    assert_eq!(world.leases(), Answer::Count(1));
    assert_eq!(world.pass(1101), []);
    assert_eq!(world.leases(), Answer::Count(0));
    assert_eq!(world.coordination.next_timeout(), None);
}

#[test]
fn a_lease_refreshed_too_late_counts_again() {
    let mut world = World::default();
    world.semaphore(1, Some(1000));
    world.ask(acquire("slow"));
    world.pass(1101);
    assert_eq!(world.answer(acquire("quick")), Answer::Boolean(true));
    let refresh = Request::SemaphoreRefreshLeases { name: name("s"), leases: vec![name("slow")] };
    assert_eq!(world.answer(refresh), Answer::Nil);
    assert_eq!(world.leases(), Answer::Count(2));
}

#[test]
fn closing_tells_those_who_wait() {
    let mut world = World::default();
    world.semaphore(1, None);
    world.ask(acquire("a"));
    world.ask(acquire("b"));
    let refusal = || Answer::Refused(Refusal::UnknownSemaphore { name: name("s") });
    assert_eq!(world.ask(Request::SemaphoreClose { name: name("s") }), [to(3, refusal()), to(4, Answer::Nil)]);
    assert_eq!(world.answer(acquire("c")), refusal());
}

#[test]
fn unused_ones_make_room_for_new_ones() {
    let mut world = World::default();
    let register =
        |index: usize| Request::SemaphoreRegister { name: name(&format!("s{index}")), leases_max: 1, lease_timeout_ms: None };
    for index in 0..OBJECTS_MAX {
        world.answer(register(index));
    }
    world.answer(Request::SemaphoreAcquire { name: name("s7"), lease: name("a") });
    assert!(matches!(world.answer(register(OBJECTS_MAX)), Answer::Refused(Refusal::TooMany { .. })));
    world.pass(2 * 60 * 60 * 1000);
    assert_eq!(world.answer(register(OBJECTS_MAX)), Answer::Nil);
    assert_eq!(world.answer(Request::SemaphoreValue { name: name("s7") }), Answer::Count(1));
}
