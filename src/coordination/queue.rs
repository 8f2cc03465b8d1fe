//! Queues: items in order, from many to many.
//!
//! A queue is there from its first `create` until as many `release`s have come; objects that vanish without one keep it, as
//! in Dask. A future in it is kept until who got it has said that it wants it itself.

use std::collections::{BTreeMap, VecDeque};

use crate::coordination::request::{Answer, Batch, CallId, Effect, Holder, Refusal};
use crate::coordination::{Content, OBJECTS_MAX, Outcome};
use crate::dask::TaskKey;

#[derive(Debug, Default)]
pub(super) struct Queues {
    by_name: BTreeMap<TaskKey, Queue>,
    /// By queue, how often each future is in it, is about to be, or was given out and is not confirmed. Outlives the queue.
    held: BTreeMap<TaskKey, BTreeMap<TaskKey, u64>>,
    nbytes: usize,
}

#[derive(Debug)]
struct Queue {
    items_max: Option<usize>,
    /// Objects that use it.
    users: u64,
    items: VecDeque<Content>,
    /// Calls that want items, the oldest first. Empty unless `items` is.
    getters: VecDeque<Getter>,
    /// Calls with items that have no room, the oldest first.
    putters: VecDeque<(CallId, Content)>,
}

#[derive(Debug)]
struct Getter {
    call: CallId,
    batch: Batch,
    taken: Vec<Content>,
}

impl Queues {
    pub(super) fn nbytes(&self) -> usize {
        self.nbytes
    }

    pub(super) fn create(&mut self, name: TaskKey, items_max: Option<usize>) -> Outcome {
        if let Some(queue) = self.by_name.get_mut(&name) {
            queue.users += 1;
            return Ok(Some(Answer::Nil));
        }
        if self.by_name.len() >= OBJECTS_MAX {
            return Err(Refusal::TooMany { kind: "queues", max: OBJECTS_MAX });
        }
        let (items, getters, putters) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        self.by_name.insert(name, Queue { items_max, users: 1, items, getters, putters });
        Ok(Some(Answer::Nil))
    }

    /// One user less; the last one ends the queue, with all that is in it and all who wait.
    pub(super) fn release(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(queue) = self.by_name.get_mut(name) else { return };
        queue.users -= 1;
        if queue.users > 0 {
            return;
        }
        let Some(Queue { items, getters, putters, .. }) = self.by_name.remove(name) else { return };
        let mut dropped = Vec::from(items);
        let mut waiting = Vec::new();
        for getter in getters {
            waiting.push(getter.call);
            dropped.extend(getter.taken);
        }
        for (call, content) in putters {
            waiting.push(call);
            dropped.push(content);
        }
        let refused = || Answer::Refused(Refusal::UnknownQueue { name: name.clone() });
        effects.extend(waiting.into_iter().map(|call| Effect::Answer { call, answer: refused() }));
        let holds_nothing = !self.held.contains_key(name);
        for content in dropped {
            self.discard(name, &content, effects);
        }
        if holds_nothing {
            effects.push(Effect::Gone { holder: Holder::Queue(name.clone()) });
        }
    }

    pub(super) fn put(&mut self, call: CallId, name: &TaskKey, content: Content, effects: &mut Vec<Effect>) -> Outcome {
        let Some(queue) = self.by_name.get_mut(name) else { return Err(Refusal::UnknownQueue { name: name.clone() }) };
        self.nbytes += content.nbytes();
        if let Some(key) = content.future() {
            let count = self.held.entry(name.clone()).or_default().entry(key.clone()).or_default();
            *count += 1;
            if *count == 1 {
                effects.push(Effect::Hold { holder: Holder::Queue(name.clone()), key: key.clone() });
            }
        }
        queue.putters.push_back((call, content));
        self.move_on(name, effects);
        // It is answered by then if there was room.
        Ok(None)
    }

    pub(super) fn get(&mut self, call: CallId, name: &TaskKey, batch: Batch, effects: &mut Vec<Effect>) -> Outcome {
        let Some(queue) = self.by_name.get_mut(name) else { return Err(Refusal::UnknownQueue { name: name.clone() }) };
        if batch == Batch::All {
            let items = Vec::from(std::mem::take(&mut queue.items));
            self.nbytes -= items.iter().map(Content::nbytes).sum::<usize>();
            self.move_on(name, effects);
            return Ok(Some(Answer::Contents(items)));
        }
        queue.getters.push_back(Getter { call, batch, taken: Vec::new() });
        self.move_on(name, effects);
        Ok(None)
    }

    pub(super) fn size(&self, name: &TaskKey) -> Outcome {
        let queue = self.by_name.get(name).ok_or_else(|| Refusal::UnknownQueue { name: name.clone() })?;
        Ok(Some(Answer::Count(queue.items.len())))
    }

    pub(super) fn withdraw_put(&mut self, call: CallId, name: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(queue) = self.by_name.get_mut(name) else { return };
        let Some(index) = queue.putters.iter().position(|(putting, _)| *putting == call) else { return };
        if let Some((_, content)) = queue.putters.remove(index) {
            self.discard(name, &content, effects);
        }
    }

    /// What a getter has taken so far goes back to where it was.
    pub(super) fn withdraw_get(&mut self, call: CallId, name: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(queue) = self.by_name.get_mut(name) else { return };
        let Some(index) = queue.getters.iter().position(|getter| getter.call == call) else { return };
        if let Some(getter) = queue.getters.remove(index) {
            for content in getter.taken.into_iter().rev() {
                queue.items.push_front(content);
            }
            self.move_on(name, effects);
        }
    }

    /// A future of a queue is held once less.
    pub(super) fn let_go(&mut self, name: &TaskKey, key: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(counts) = self.held.get_mut(name) else { return };
        let Some(count) = counts.get_mut(key) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        counts.remove(key);
        effects.push(Effect::LetGo { holder: Holder::Queue(name.clone()), key: key.clone() });
        if counts.is_empty() {
            self.held.remove(name);
            if !self.by_name.contains_key(name) {
                effects.push(Effect::Gone { holder: Holder::Queue(name.clone()) });
            }
        }
    }

    /// An item goes with nobody to have it.
    fn discard(&mut self, name: &TaskKey, content: &Content, effects: &mut Vec<Effect>) {
        self.nbytes -= content.nbytes();
        if let Some(key) = content.future() {
            self.let_go(name, key, effects);
        }
    }

    /// Gives items to those who wait for them and room to those who wait for that.
    fn move_on(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(queue) = self.by_name.get_mut(name) else { return };
        loop {
            if let Some(getter) = queue.getters.front_mut() {
                if let Some(content) = queue.items.pop_front() {
                    getter.taken.push(content);
                }
                if getter.is_served()
                    && let Some(getter) = queue.getters.pop_front()
                {
                    self.nbytes -= getter.taken.iter().map(Content::nbytes).sum::<usize>();
                    effects.push(Effect::Answer { call: getter.call, answer: getter.answer() });
                    continue;
                }
            }
            let is_stuck = queue.getters.is_empty() || queue.items.is_empty();
            if queue.has_room()
                && let Some((call, content)) = queue.putters.pop_front()
            {
                queue.items.push_back(content);
                effects.push(Effect::Answer { call, answer: Answer::Nil });
            } else if is_stuck {
                return;
            }
        }
    }
}

impl Queue {
    fn has_room(&self) -> bool {
        self.items_max.is_none_or(|items_max| self.items.len() < items_max)
    }
}

impl Getter {
    fn is_served(&self) -> bool {
        match self.batch {
            Batch::One => !self.taken.is_empty(),
            Batch::Count(count) => self.taken.len() >= count,
            Batch::All => true,
        }
    }

    fn answer(mut self) -> Answer {
        match (self.batch, self.taken.pop()) {
            (Batch::One, Some(content)) => Answer::Content { content, token: None },
            (_, last) => {
                self.taken.extend(last);
                Answer::Contents(self.taken)
            }
        }
    }
}
