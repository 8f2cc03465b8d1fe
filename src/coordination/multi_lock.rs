//! Multi-locks: some or all of several locks at once, without deadlock between those who ask in different orders.
//!
//! Each lock is a list of those who ask for it; the first has it. There is no lease: a holder that died holds for ever, as
//! in Dask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::coordination::request::{Answer, CallId, Effect, Refusal};
use crate::coordination::{OBJECTS_MAX, Outcome};
use crate::dask::TaskKey;

#[derive(Debug, Default)]
pub(super) struct MultiLocks {
    /// Who asks for each lock, the holder first. No list is empty.
    locks: BTreeMap<TaskKey, VecDeque<TaskKey>>,
    requests: BTreeMap<TaskKey, LocksAsked>,
}

/// What one caller asks for or holds.
#[derive(Debug)]
struct LocksAsked {
    /// The locks in whose lists it stands.
    locks: BTreeSet<TaskKey>,
    /// How many it needs beside those that it holds.
    missing: usize,
    /// Its call, until it is answered.
    call: Option<CallId>,
}

impl MultiLocks {
    pub(super) fn acquire(&mut self, call: CallId, locks: Vec<TaskKey>, id: TaskKey, count: usize) -> Outcome {
        if self.requests.contains_key(&id) {
            return Err(Refusal::AcquiredBefore { id });
        }
        let locks: BTreeSet<TaskKey> = locks.into_iter().collect();
        if count == 0 || count > locks.len() {
            return Err(Refusal::TooFewLocks { count, locks: locks.len() });
        }
        if self.requests.len() >= OBJECTS_MAX || self.locks.len() + locks.len() > OBJECTS_MAX {
            return Err(Refusal::TooMany { kind: "locks in use", max: OBJECTS_MAX });
        }
        // Those that few ask for come first: the free ones are had at once, and the rest may not be needed.
        let mut by_length: Vec<TaskKey> = locks.into_iter().collect();
        by_length.sort_by_key(|lock| self.locks.get(lock).map_or(0, VecDeque::len));
        let mut asked = LocksAsked { locks: BTreeSet::new(), missing: count, call: Some(call) };
        for lock in by_length {
            let list = self.locks.entry(lock.clone()).or_default();
            list.push_back(id.clone());
            asked.locks.insert(lock);
            if list.len() == 1 {
                asked.missing -= 1;
                if asked.missing == 0 {
                    asked.call = None;
                    break;
                }
            }
        }
        let answer = (asked.missing == 0).then_some(Answer::Boolean(true));
        self.requests.insert(id, asked);
        Ok(answer)
    }

    pub(super) fn release(&mut self, id: &TaskKey, effects: &mut Vec<Effect>) -> Outcome {
        if !self.requests.contains_key(id) {
            return Err(Refusal::UnknownMultiLock { id: id.clone() });
        }
        self.withdraw(id, effects);
        Ok(Some(Answer::Nil))
    }

    /// Takes a caller out of all lists, and tells those who have what they need by that.
    pub(super) fn withdraw(&mut self, id: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(asked) = self.requests.remove(id) else { return };
        for lock in asked.locks {
            let Some(list) = self.locks.get_mut(&lock) else { continue };
            let was_first = list.front() == Some(id);
            list.retain(|waiting| waiting != id);
            if list.is_empty() {
                self.locks.remove(&lock);
                continue;
            }
            let first = list.front().filter(|_| was_first);
            let Some(next) = first.and_then(|first| self.requests.get_mut(first)) else { continue };
            next.missing = next.missing.saturating_sub(1);
            if next.missing == 0
                && let Some(call) = next.call.take()
            {
                effects.push(Effect::Answer { call, answer: Answer::Boolean(true) });
            }
        }
    }
}
