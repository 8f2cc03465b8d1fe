//! Variables: one value for all who know the name.
//!
//! A future in one is kept for as long as it is there, and then until all who were told of it have said that they want
//! it themselves, or have gone.

use std::collections::{BTreeMap, VecDeque};

use crate::coordination::request::{Answer, CallId, Effect, Holder, Refusal};
use crate::coordination::{Content, OBJECTS_MAX, Outcome};
use crate::dask::TaskKey;
use crate::engine::ClientId;

/// Readers of one variable who have not confirmed; more are told without being waited for.
const UNCONFIRMED_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Variables {
    /// None of them is empty.
    by_name: BTreeMap<TaskKey, Variable>,
    tokens: u64,
    nbytes: usize,
}

#[derive(Debug, Default)]
struct Variable {
    content: Option<Content>,
    /// Calls that wait for the first value, with the Clients that make them. Empty when there is a value.
    waiting: VecDeque<(CallId, Option<ClientId>)>,
    /// Futures that Clients were told of and have not confirmed, by token.
    unconfirmed: BTreeMap<u64, (TaskKey, ClientId)>,
}

impl Variables {
    pub(super) fn nbytes(&self) -> usize {
        self.nbytes
    }

    pub(super) fn set(&mut self, name: TaskKey, content: Content, effects: &mut Vec<Effect>) -> Outcome {
        if self.by_name.len() >= OBJECTS_MAX && !self.by_name.contains_key(&name) {
            return Err(Refusal::TooMany { kind: "variables", max: OBJECTS_MAX });
        }
        self.nbytes += content.nbytes();
        if let Some(key) = content.future() {
            effects.push(Effect::Hold { holder: Holder::Variable(name.clone()), key: key.clone() });
        }
        let variable = self.by_name.entry(name.clone()).or_default();
        let old = variable.content.replace(content.clone());
        for (call, client) in std::mem::take(&mut variable.waiting) {
            let answer = variable.tell(&content, client, &mut self.tokens);
            effects.push(Effect::Answer { call, answer });
        }
        self.nbytes -= old.as_ref().map_or(0, Content::nbytes);
        if let Some(Content::Future(key)) = old {
            self.let_go(&name, &key, effects);
        }
        Ok(Some(Answer::Nil))
    }

    pub(super) fn get(&mut self, call: CallId, name: TaskKey, client: Option<ClientId>) -> Outcome {
        let variable = self.by_name.entry(name).or_default();
        let Some(content) = variable.content.clone() else {
            variable.waiting.push_back((call, client));
            return Ok(None);
        };
        Ok(Some(variable.tell(&content, client, &mut self.tokens)))
    }

    pub(super) fn delete(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        let Some(content) = self.by_name.get_mut(name).and_then(|variable| variable.content.take()) else { return };
        self.nbytes -= content.nbytes();
        if let Content::Future(key) = content {
            self.let_go(name, &key, effects);
        }
        self.drop_if_empty(name, effects);
    }

    pub(super) fn confirm(&mut self, name: &TaskKey, token: &str, effects: &mut Vec<Effect>) {
        let Some(variable) = self.by_name.get_mut(name) else { return };
        let Some((key, _)) = token.parse().ok().and_then(|token: u64| variable.unconfirmed.remove(&token)) else { return };
        self.let_go(name, &key, effects);
        self.drop_if_empty(name, effects);
    }

    pub(super) fn withdraw(&mut self, call: CallId, name: &TaskKey, effects: &mut Vec<Effect>) {
        if let Some(variable) = self.by_name.get_mut(name) {
            variable.waiting.retain(|(waiting, _)| *waiting != call);
            self.drop_if_empty(name, effects);
        }
    }

    pub(super) fn on_client_left(&mut self, client: ClientId, effects: &mut Vec<Effect>) {
        let mut dropped = Vec::new();
        for (name, variable) in &mut self.by_name {
            let of_client = variable.unconfirmed.extract_if(.., |_, (_, told)| *told == client);
            dropped.extend(of_client.map(|(_, (key, _))| (name.clone(), key)));
        }
        for (name, key) in dropped {
            self.let_go(&name, &key, effects);
            self.drop_if_empty(&name, effects);
        }
    }

    /// Lets go of a key, unless the variable has it again or somebody was told of it and has not confirmed.
    fn let_go(&self, name: &TaskKey, key: &TaskKey, effects: &mut Vec<Effect>) {
        let is_needed = self.by_name.get(name).is_some_and(|variable| {
            variable.content.as_ref().and_then(Content::future) == Some(key)
                || variable.unconfirmed.values().any(|(told, _)| told == key)
        });
        if !is_needed {
            effects.push(Effect::LetGo { holder: Holder::Variable(name.clone()), key: key.clone() });
        }
    }

    fn drop_if_empty(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        let is_empty =
            |variable: &Variable| variable.content.is_none() && variable.waiting.is_empty() && variable.unconfirmed.is_empty();
        if self.by_name.get(name).is_some_and(is_empty) {
            self.by_name.remove(name);
            effects.push(Effect::Gone { holder: Holder::Variable(name.clone()) });
        }
    }
}

impl Variable {
    /// The answer for one reader, who is to confirm a future if it can want one.
    fn tell(&mut self, content: &Content, client: Option<ClientId>, tokens: &mut u64) -> Answer {
        let Some(key) = content.future() else { return Answer::Content { content: content.clone(), token: None } };
        *tokens += 1;
        if let Some(client) = client
            && self.unconfirmed.len() < UNCONFIRMED_MAX
        {
            self.unconfirmed.insert(*tokens, (key.clone(), client));
        }
        Answer::Content { content: content.clone(), token: Some(*tokens) }
    }
}
