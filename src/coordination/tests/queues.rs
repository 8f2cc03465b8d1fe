//! Queues.

use super::*;

#[test]
fn items_come_out_in_order() {
    let mut world = World::default();
    world.queue(None);
    for index in 0..3 {
        assert_eq!(world.answer(put(number(index))), Answer::Nil);
    }
    assert_eq!(world.answer(Request::QueueSize { name: name("q") }), Answer::Count(3));
    assert_eq!(world.answer(get(Batch::One)), got(number(0)));
    assert_eq!(world.answer(get(Batch::All)), Answer::Contents(vec![number(1), number(2)]));
    assert_eq!(world.answer(get(Batch::All)), Answer::Contents(vec![]));
    assert_eq!(world.answer(get(Batch::Count(0))), Answer::Contents(vec![]));
    let refusal = Answer::Refused(Refusal::BatchWithTimeout);
    assert_eq!(world.ask_within(Some(1), get(Batch::Count(2))), [to(10, refusal)]);
}

#[test]
fn a_queue_is_made_first() {
    let refusal = || Answer::Refused(Refusal::UnknownQueue { name: name("q") });
    assert_eq!(World::default().answer(put(number(1))), refusal());
    assert_eq!(World::default().answer(get(Batch::One)), refusal());
    assert_eq!(World::default().answer(Request::QueueSize { name: name("q") }), refusal());
}

#[test]
fn who_wants_items_waits_for_them() {
    let mut world = World::default();
    world.queue(None);
    assert_eq!(world.ask(get(Batch::One)), []);
    assert_eq!(world.ask_within(Some(9), get(Batch::One)), []);
    assert_eq!(world.ask(get(Batch::Count(2))), []);
    assert_eq!(world.pass(9), [to(3, timed_out())]);
    assert_eq!(world.ask(put(number(1))), [to(5, Answer::Nil), to(2, got(number(1)))]);
    assert_eq!(world.answer(put(number(2))), Answer::Nil);
    let both = Answer::Contents(vec![number(2), number(3)]);
    assert_eq!(world.ask(put(number(3))), [to(7, Answer::Nil), to(4, both)]);
}

#[test]
fn what_a_dead_reader_had_taken_goes_to_the_next() {
    let mut world = World::default();
    world.queue(None);
    world.ask(get(Batch::Count(3)));
    world.ask(put(number(1)));
    world.ask(put(number(2)));
    assert_eq!(world.ask(get(Batch::One)), []);
    assert_eq!(world.gone(2), [to(5, got(number(1)))]);
    assert_eq!(world.answer(get(Batch::One)), got(number(2)));
}

#[test]
fn who_finds_it_full_waits_for_room() {
    let mut world = World::default();
    world.queue(Some(1));
    assert_eq!(world.answer(put(number(1))), Answer::Nil);
    assert_eq!(world.ask(put(number(2))), []);
    assert_eq!(world.ask_within(Some(3), put(number(3))), []);
    assert_eq!(world.ask(put(number(4))), []);
    assert_eq!(world.ask(put(number(5))), []);
    assert_eq!(world.pass(3), [to(4, timed_out())]);
    assert_eq!(world.gone(5), []);
    assert_eq!(world.ask(get(Batch::One)), [to(7, got(number(1))), to(3, Answer::Nil)]);
    assert_eq!(world.ask(get(Batch::All)), [to(6, Answer::Nil), to(8, Answer::Contents(vec![number(2)]))]);
    assert_eq!(world.answer(get(Batch::One)), got(number(5)));
}

#[test]
fn a_future_is_kept_until_its_reader_wants_it_itself() {
    let mut world = World { known: vec![name("x")], ..World::default() };
    world.queue(None);
    assert_eq!(world.ask(put(future("x"))), [hold(Holder::Queue, "q", "x"), to(2, Answer::Nil)]);
    assert_eq!(world.answer(put(future("x"))), Answer::Nil);
    assert_eq!(world.answer(get(Batch::One)), got(future("x")));
    let mut effects = Vec::new();
    world.coordination.confirm_queue(&name("q"), &name("x"), &mut effects);
    assert_eq!(effects, []);
    // The last user closes it while one reader is still to confirm.
    assert_eq!(world.answer(get(Batch::One)), got(future("x")));
    world.coordination.release_queue(&name("q"), &mut effects);
    assert_eq!(effects, []);
    world.coordination.confirm_queue(&name("q"), &name("x"), &mut effects);
    assert_eq!(effects, [let_go(Holder::Queue, "q", "x"), Effect::Gone { holder: Holder::Queue(name("q")) }]);
    world.coordination.confirm_queue(&name("q"), &name("x"), &mut effects);
    assert_eq!(effects.len(), 2);
}

#[test]
fn a_future_that_found_no_room_is_let_go() {
    let mut world = World { known: vec![name("x")], ..World::default() };
    world.queue(Some(1));
    world.ask(put(number(1)));
    assert_eq!(world.ask_within(Some(4), put(future("x"))), [hold(Holder::Queue, "q", "x")]);
    assert_eq!(world.pass(4), [let_go(Holder::Queue, "q", "x"), to(3, timed_out())]);
}

#[test]
fn the_last_user_ends_it() {
    let mut world = World { known: vec![name("x")], ..World::default() };
    world.queue(Some(1));
    world.queue(Some(9));
    world.ask(put(future("x")));
    assert_eq!(world.ask(put(number(2))), []);
    let mut effects = Vec::new();
    world.coordination.release_queue(&name("q"), &mut effects);
    assert_eq!(effects, []);
    world.coordination.release_queue(&name("q"), &mut effects);
    let refusal = || Answer::Refused(Refusal::UnknownQueue { name: name("q") });
    let gone = Effect::Gone { holder: Holder::Queue(name("q")) };
    assert_eq!(effects, [to(4, refusal()), let_go(Holder::Queue, "q", "x"), gone]);
    assert_eq!(world.answer(get(Batch::One)), refusal());
    assert_eq!(world.coordination.queues.nbytes(), 0);
}
