//! Events: flags that calls wait for.
//!
//! They belong to nobody; one that is clear and that nobody waits for is nowhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordination::request::{Answer, CallId, Effect, Refusal};
use crate::coordination::{OBJECTS_MAX, Outcome};
use crate::dask::TaskKey;

#[derive(Debug, Default)]
pub(super) struct Events {
    set: BTreeSet<TaskKey>,
    /// By event that is clear; no set of calls is empty.
    waiting: BTreeMap<TaskKey, BTreeSet<CallId>>,
}

impl Events {
    pub(super) fn wait(&mut self, call: CallId, name: TaskKey) -> Outcome {
        if self.set.contains(&name) {
            return Ok(Some(Answer::Boolean(true)));
        }
        self.waiting.entry(name).or_default().insert(call);
        Ok(None)
    }

    pub(super) fn withdraw(&mut self, call: CallId, name: &TaskKey) {
        if let Some(calls) = self.waiting.get_mut(name) {
            calls.remove(&call);
            if calls.is_empty() {
                self.waiting.remove(name);
            }
        }
    }

    /// Answers all who wait.
    pub(super) fn set(&mut self, name: TaskKey, effects: &mut Vec<Effect>) -> Outcome {
        if self.set.len() >= OBJECTS_MAX && !self.set.contains(&name) {
            return Err(Refusal::TooMany { kind: "events", max: OBJECTS_MAX });
        }
        let calls = self.waiting.remove(&name).unwrap_or_default();
        effects.extend(calls.into_iter().map(|call| Effect::Answer { call, answer: Answer::Boolean(true) }));
        self.set.insert(name);
        Ok(Some(Answer::Nil))
    }

    pub(super) fn clear(&mut self, name: &TaskKey) -> Outcome {
        self.set.remove(name);
        Ok(Some(Answer::Nil))
    }

    pub(super) fn is_set(&self, name: &TaskKey) -> Outcome {
        Ok(Some(Answer::Boolean(self.set.contains(name))))
    }
}
