//! Events.

use super::*;

fn set_event() -> Request {
    Request::EventSet { name: name("e") }
}

#[test]
fn setting_wakes_all() {
    let mut world = World::default();
    assert_eq!(world.answer(Request::EventIsSet { name: name("e") }), Answer::Boolean(false));
    assert_eq!(world.ask(wait_event()), []);
    assert_eq!(world.ask_within(Some(1000), wait_event()), []);
    let both = [to(2, Answer::Boolean(true)), to(3, Answer::Boolean(true)), to(4, Answer::Nil)];
    assert_eq!(world.ask(set_event()), both);
    assert_eq!(world.coordination.next_timeout(), None);
    assert_eq!(world.answer(wait_event()), Answer::Boolean(true));
    assert_eq!(world.answer(Request::EventIsSet { name: name("e") }), Answer::Boolean(true));
    assert_eq!(world.answer(Request::EventClear { name: name("e") }), Answer::Nil);
    assert_eq!(world.ask(wait_event()), []);
}

#[test]
fn waiting_ends_with_its_time_or_its_caller() {
    let mut world = World::default();
    assert_eq!(world.ask_within(Some(10), wait_event()), []);
    assert_eq!(world.ask(wait_event()), []);
    assert_eq!(world.pass(10), [to(1, Answer::Boolean(false))]);
    assert_eq!(world.gone(2), []);
    assert_eq!(world.answer(set_event()), Answer::Nil);
}
