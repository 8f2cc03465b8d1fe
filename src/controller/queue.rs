//! Which objects are to be looked at, and when: each at most once, and none while it is being looked at.
//!
//! Pure: time comes in. Holds nothing of an object that nothing calls for, and gives its memory back when it has run empty.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// Objects by what they are called, `K`.
#[derive(Debug)]
pub(super) struct Queue<K> {
    /// When each is due, and how many were called for before it.
    calls: BTreeMap<K, (Instant, u64)>,
    /// The same in order.
    order: BTreeMap<(Instant, u64), K>,
    /// Those being looked at, and when they were called for meanwhile.
    busy: BTreeMap<K, Option<Instant>>,
    called: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), order: BTreeMap::new(), busy: BTreeMap::new(), called: 0 }
    }
}

impl<K: Clone + Ord> Queue<K> {
    /// Calls for an object at this time; an earlier call stands.
    pub(super) fn call(&mut self, object: K, at: Instant) {
        if let Some(again) = self.busy.get_mut(&object) {
            *again = Some(again.map_or(at, |other| other.min(at)));
            return;
        }
        if let Some(call) = self.calls.get(&object) {
            if call.0 <= at {
                return;
            }
            self.order.remove(call);
        }
        let call = (at, self.called);
        self.called += 1;
        self.calls.insert(object.clone(), call);
        self.order.insert(call, object);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.keys().next().map(|(at, _)| *at)
    }

    /// The next one that is due; it is being looked at until `done`.
    pub(super) fn take(&mut self, now: Instant) -> Option<K> {
        let first = self.order.first_entry().filter(|first| first.key().0 <= now)?;
        let object = first.remove();
        self.calls.remove(&object);
        self.busy.insert(object.clone(), None);
        Some(object)
    }

    /// One was looked at, and is to be looked at again then.
    pub(super) fn done(&mut self, object: K, again: Option<Instant>) {
        let meanwhile = self.busy.remove(&object).flatten();
        for at in [again, meanwhile].into_iter().flatten() {
            self.call(object.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_object_is_looked_at_once_for_many_calls_at_the_earliest_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        queue.call("a", now + 3 * second);
        queue.call("a", now + second);
        queue.call("a", now + 2 * second);
        assert_eq!((queue.next(), queue.take(now)), (Some(now + second), None));
        assert_eq!(queue.take(now + second), Some("a"));
        assert_eq!((queue.next(), queue.take(now + 9 * second)), (None, None));
    }

    #[test]
    fn those_that_are_due_come_in_the_order_of_their_calls() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for object in ["c", "a", "b"] {
            queue.call(object, now);
        }
        assert_eq!([queue.take(now), queue.take(now), queue.take(now)], [Some("c"), Some("a"), Some("b")]);
    }

    #[test]
    fn what_is_being_looked_at_is_looked_at_again_afterwards() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let later = now + Duration::from_secs(9);
        queue.call("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.call("a", now);
        assert_eq!((queue.next(), queue.take(now)), (None, None));
        queue.done("a", Some(later));
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Some(later));
        assert_eq!((queue.next(), queue.take(now)), (Some(later), None));
    }
}
