//! Variables.

use super::*;

#[test]
fn the_first_value_wakes_all_readers() {
    let mut world = World::default();
    assert_eq!(world.ask(read(1)), []);
    assert_eq!(world.ask_within(Some(5), read(2)), []);
    assert_eq!(world.ask(read(3)), []);
    assert_eq!(world.pass(5), [to(2, timed_out())]);
    assert_eq!(world.gone(3), []);
    assert_eq!(world.ask(set(number(7))), [to(1, got(number(7))), to(4, Answer::Nil)]);
    assert_eq!(world.answer(set(number(8))), Answer::Nil);
    assert_eq!(world.answer(read(1)), got(number(8)));
}

#[test]
fn a_future_waits_for_its_task() {
    let mut world = World::default();
    assert_eq!(world.ask_within(Some(100), set(future("x"))), []);
    assert_eq!(world.ask_within(Some(50), set(future("never"))), []);
    assert!(world.coordination.awaits_tasks());
    let refusal = Refusal::UnknownTask { key: name("never") };
    assert_eq!(refusal.to_string(), "Task never unknown to scheduler.");
    assert_eq!(world.pass(50), [to(2, Answer::Refused(refusal))]);
    world.known.push(name("x"));
    let (mut effects, known) = (Vec::new(), world.known.clone());
    world.coordination.on_tasks(Millis(60), &|key| known.contains(key), &mut effects);
    assert_eq!(effects, [hold(Holder::Variable, "v", "x"), to(1, Answer::Nil)]);
    assert!(!world.coordination.awaits_tasks());
    assert_eq!(world.coordination.next_timeout(), None);
}

#[test]
fn a_future_is_kept_until_its_readers_want_it_themselves() {
    let mut world = World { known: vec![name("x"), name("y")], ..World::default() };
    world.ask(set(future("x")));
    let Answer::Content { token: Some(token), .. } = world.answer(read(1)) else { panic!("no token") };
    world.answer(read(2));
    // Another value is there, and two have not confirmed the first.
    assert_eq!(world.ask(set(future("y"))), [hold(Holder::Variable, "v", "y"), to(4, Answer::Nil)]);
    let mut effects = Vec::new();
    world.coordination.confirm_variable(&name("v"), "no token", &mut effects);
    world.coordination.confirm_variable(&name("v"), &token.to_string(), &mut effects);
    assert_eq!(effects, []);
    world.coordination.on_client_left(ClientId(2), &mut effects);
    assert_eq!(effects, [let_go(Holder::Variable, "v", "x")]);
    effects.clear();
    world.coordination.delete_variable(&name("v"), &mut effects);
    let gone = Effect::Gone { holder: Holder::Variable(name("v")) };
    assert_eq!(effects, [let_go(Holder::Variable, "v", "y"), gone]);
    assert_eq!(world.coordination.variables.nbytes(), 0);
}

#[test]
fn the_same_future_again_is_kept() {
    let mut world = World { known: vec![name("x")], ..World::default() };
    world.ask(set(future("x")));
    assert_eq!(world.ask(set(future("x"))), [hold(Holder::Variable, "v", "x"), to(2, Answer::Nil)]);
    assert_eq!(world.ask(set(number(1))), [let_go(Holder::Variable, "v", "x"), to(3, Answer::Nil)]);
}

#[test]
fn who_waits_for_a_deleted_variable_goes_on_waiting() {
    let mut world = World::default();
    world.answer(set(number(1)));
    let mut effects = Vec::new();
    world.coordination.delete_variable(&name("v"), &mut effects);
    assert_eq!(effects, [Effect::Gone { holder: Holder::Variable(name("v")) }]);
    assert_eq!(world.ask(read(1)), []);
    world.coordination.delete_variable(&name("v"), &mut effects);
    assert_eq!(world.ask(set(number(2))), [to(2, got(number(2))), to(3, Answer::Nil)]);
}

#[test]
fn there_is_an_end_to_what_is_held() {
    let mut world = World::default();
    let large = || Content::Value(Value::Binary(vec![0; VALUES_BYTES_MAX / 2].into()));
    assert_eq!(world.answer(set(large())), Answer::Nil);
    world.queue(None);
    assert_eq!(world.answer(put(large())), Answer::Refused(Refusal::NoRoom { bytes_max: VALUES_BYTES_MAX }));
    assert_eq!(world.answer(set(number(1))), Answer::Nil);
    assert_eq!(world.answer(put(large())), Answer::Nil);
    assert!(matches!(world.answer(get(Batch::One)), Answer::Content { .. }));
    assert_eq!(world.coordination.queues.nbytes(), 0);
}
