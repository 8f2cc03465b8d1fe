//! What a worker takes up by itself: it starts what is ready, and fetches what that reads.

use std::collections::BTreeSet;

use mainstay::dask::{TaskKey, WorkerAddress};

use super::event::Instruction;
use super::machine::{Machine, Steps};
use super::task::Finish;

impl Machine {
    /// Starts what is ready, as long as there are threads.
    pub(super) fn ensure_computing(&mut self) -> Steps {
        let mut steps = Steps::new();
        while self.running && self.executing.len() < self.nthreads {
            let Some(key) = self.next_ready() else { break };
            self.ready.remove(&key);
            self.constrained.remove(&key);
            for (name, amount) in self.tasks[&key].resources.clone() {
                *self.available.entry(name).or_default() -= amount;
            }
            self.executing.insert(key.clone());
            steps.insert(key, Finish::Executing);
        }
        steps
    }

    fn next_ready(&self) -> Option<TaskKey> {
        let first = |set: &BTreeSet<TaskKey>| {
            let order = |one: &&TaskKey, other: &&TaskKey| self.tasks[*one].priority.partial_cmp(&self.tasks[*other].priority);
            set.iter().min_by(|one, other| order(one, other).expect("priorities are numbers")).cloned()
        };
        let (ready, constrained) = (first(&self.ready), first(&self.constrained));
        let fits = |key: &TaskKey| {
            let mut resources = self.tasks[key].resources.iter();
            resources.all(|(name, amount)| self.available.get(name).copied().unwrap_or_default() >= *amount)
        };
        match (ready, constrained) {
            (Some(ready), Some(constrained)) => {
                let goes_first = self.tasks[&constrained].priority < self.tasks[&ready].priority;
                Some(if goes_first && fits(&constrained) { constrained } else { ready })
            }
            (Some(ready), None) => Some(ready),
            (None, constrained) => constrained.filter(|key| fits(key)),
        }
    }

    pub(super) fn give_back(&mut self, key: &TaskKey) {
        for (name, amount) in self.tasks[key].resources.clone() {
            *self.available.entry(name).or_default() += amount;
        }
    }

    /// Asks peers for what is to be fetched: each for all that it has, the one with the most urgent first.
    pub(super) fn ensure_communicating(&mut self) -> (Steps, Vec<Instruction>) {
        let (mut steps, mut instructions) = (Steps::new(), Vec::new());
        if !self.running {
            return (steps, instructions);
        }
        self.data_needed.retain(|_, keys| !keys.is_empty());
        while let Some(worker) = self.next_to_ask() {
            let keys = self.data_needed.remove(&worker).unwrap_or_default();
            for key in &keys {
                for holder in &self.tasks[key].who_has {
                    if let Some(needed) = self.data_needed.get_mut(holder) {
                        needed.remove(key);
                    }
                }
                steps.insert(key.clone(), Finish::Flight(worker.clone()));
            }
            instructions.push(Instruction::Gather { worker: worker.clone(), keys: keys.clone() });
            self.in_flight.insert(worker, keys);
        }
        (steps, instructions)
    }

    fn next_to_ask(&self) -> Option<WorkerAddress> {
        let may_ask = |worker: &WorkerAddress| !self.in_flight.contains_key(worker) && !self.busy.contains(worker);
        let candidates = self.data_needed.iter().filter(|(worker, keys)| !keys.is_empty() && may_ask(worker));
        let rank = |(worker, keys): (&WorkerAddress, &BTreeSet<TaskKey>)| {
            let urgent = keys.iter().map(|key| self.tasks[key].priority.clone()).reduce(
                |one, other| {
                    if other < one { other } else { one }
                },
            );
            (urgent, worker.host() != self.address.host(), std::cmp::Reverse(keys.len()), worker.clone())
        };
        let ranks = candidates.map(rank);
        ranks.min_by(|one, other| one.partial_cmp(other).expect("priorities are numbers")).map(|(_, _, _, worker)| worker)
    }
}
