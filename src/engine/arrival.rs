//! Large graphs are taken in part by part.
//!
//! A graph of a million tasks takes the better part of a second to record. So that nobody else has to wait for that, only
//! some of its tasks are taken in at a time, and what happens meanwhile is handled in between. Tasks may start before the
//! end of their graph has arrived. They are kept until all is there, since who wants them may be among the last.
//!
//! All this is as if the graph had been taken in at once: whatever its owner says next, and whoever names a key that is not
//! there yet, waits for the rest. What cannot be done by parts is done at once: a graph that is not in the order of its
//! edges, since it may have a cycle, and an edited collection's.

use std::vec;

use crate::dask::TaskKey;
use crate::engine::collection::Output;
use crate::engine::intake::Intake;
use crate::engine::owner::Owner;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::{ClientId, CollectionId, Engine, OutputSummary, TaskCounts};

/// A graph under way.
#[derive(Debug)]
pub(super) struct Arrival {
    intake: Intake,
    wishes: Wishes,
    /// The tasks that are kept until all is there.
    kept: TaskSet,
}

/// What is wanted of a graph.
#[derive(Debug)]
pub(super) enum Wishes {
    OfClient { client: ClientId, keys: vec::IntoIter<TaskKey> },
    OfCollection { collection: CollectionId, outputs: Vec<(String, vec::IntoIter<TaskKey>)> },
}

impl Arrival {
    /// Counts what is still to come of a collection, so that it is not taken for all there is.
    fn count_rest(&self, id: CollectionId, tasks: &mut TaskCounts, summaries: &mut [OutputSummary]) {
        let Wishes::OfCollection { collection, outputs } = &self.wishes else { return };
        if *collection != id {
            return;
        }
        tasks.total += self.intake.len() as u64;
        tasks.waiting += self.intake.len() as u64;
        for (summary, (_, keys)) in summaries.iter_mut().zip(outputs) {
            summary.keys += keys.len() as u64;
        }
    }
}

impl Engine {
    /// Counts what is still to come of a collection as waiting.
    pub(super) fn count_arriving(&self, id: CollectionId, tasks: &mut TaskCounts, outputs: &mut [OutputSummary]) {
        self.arrivals.iter().for_each(|arrival| arrival.count_rest(id, tasks, outputs));
    }

    /// Takes a graph in, or the first part of it if there are to be parts.
    pub(super) fn arrive(&mut self, intake: Intake, wishes: Wishes, by_parts: bool) {
        let mut arrival = Arrival { intake, wishes, kept: TaskSet::default() };
        if let Wishes::OfCollection { collection, outputs } = &arrival.wishes
            && let Some(collection) = self.collections.get_mut(collection)
        {
            let name_of = |(name, _): &(String, _)| Output { name: name.clone(), keys: Vec::new() };
            collection.outputs = outputs.iter().map(name_of).collect();
        }
        let part = if by_parts { self.config.intake_tasks_max } else { usize::MAX };
        if self.take_in_part(&mut arrival, part) {
            self.arrivals.push_back(arrival);
        }
    }

    /// Whether a graph is to be taken in by parts.
    pub(super) fn is_large(&self, intake: &Intake) -> bool {
        let count = intake.len();
        let fits = self.tasks.len() + count <= self.config.tasks_max;
        // Until all of a graph is there it is not known what of it is needed, and so what is to be taken over.
        let is_alone = !self.holds && self.brought.is_empty();
        count > self.config.intake_tasks_max && fits && is_alone && intake.is_ordered()
    }

    /// Takes in one part of the graph that arrived first.
    pub(super) fn continue_arrivals(&mut self) {
        if let Some(mut arrival) = self.arrivals.pop_front()
            && self.take_in_part(&mut arrival, self.config.intake_tasks_max)
        {
            self.arrivals.push_front(arrival);
        }
    }

    /// Has what somebody asked for arrive as a whole, and what it has no use for go, before the next thing that it says.
    pub(super) fn complete_arrivals_of(&mut self, owner: Owner) {
        self.complete_arrivals(|arrival| arrival.intake.owner == owner);
        if let Owner::Client(client) = owner {
            self.complete_departures_of(client);
        }
    }

    /// Has all graphs arrive as a whole if one of these keys is not known: it may be among what is left of them.
    pub(super) fn complete_arrivals_with<'k>(&mut self, keys: impl IntoIterator<Item = &'k TaskKey>) {
        if !self.arrivals.is_empty() && keys.into_iter().any(|key| self.tasks.id(key).is_none()) {
            self.complete_arrivals(|_| true);
        }
    }

    /// Has all graphs arrive as a whole if one that is to be taken in names a key that may be among what is left of them.
    pub(super) fn complete_arrivals_before(&mut self, intake: &Intake) {
        // Mostly there are none, and the keys need not be looked at.
        if !self.arrivals.is_empty() {
            self.complete_arrivals_with(intake.foreign_keys());
        }
    }

    fn complete_arrivals(&mut self, concerns: impl Fn(&Arrival) -> bool) {
        for mut arrival in std::mem::take(&mut self.arrivals) {
            if concerns(&arrival) {
                while self.take_in_part(&mut arrival, usize::MAX) {}
            } else {
                self.arrivals.push_back(arrival);
            }
        }
    }

    /// Takes in so many more tasks; when all are there, so many wishes; and when all are known, lets go of so many tasks,
    /// and at last of so many keys of the graph.
    /// Whether something is left to do.
    fn take_in_part(&mut self, arrival: &mut Arrival, count: usize) -> bool {
        let Arrival { intake, wishes, kept } = arrival;
        if intake.len() > 0 {
            let is_last = intake.len() <= count;
            let is_whole = is_last && kept.is_empty();
            for taken in self.take_in_tasks(intake, count) {
                if let Wishes::OfCollection { collection, .. } = wishes {
                    self.join_collection(taken.id, *collection);
                    if let (Some(collection), Some(_)) = (self.collections.get_mut(collection), &taken.annotations) {
                        collection.annotate(taken.id, taken.annotations);
                    }
                }
                if !is_whole && kept.insert(taken.id) {
                    self.tasks[taken.id].arriving += 1;
                    self.unsettled.push_back(taken.id);
                }
            }
            if !is_whole {
                return true;
            }
        }
        if self.take_in_wishes(wishes, count) {
            return true;
        }
        for _ in 0..count {
            let Some(id) = kept.pop_first() else { return intake.drop_keys(count) };
            self.tasks[id].arriving -= 1;
            self.unsettled.push_back(id);
        }
        true
    }

    /// Whether something is left to do.
    fn take_in_wishes(&mut self, wishes: &mut Wishes, count: usize) -> bool {
        match wishes {
            Wishes::OfClient { client, keys } => {
                let part: Vec<TaskKey> = keys.by_ref().take(count).collect();
                self.desire_keys(*client, &part);
                keys.len() > 0
            }
            Wishes::OfCollection { collection: id, outputs } => {
                let Some(place) = outputs.iter().position(|(_, keys)| keys.len() > 0) else { return false };
                let (name, keys) = &mut outputs[place];
                let part: Vec<TaskId> = keys.by_ref().take(count).map(|key| self.want_output(*id, name, &key)).collect();
                self.changed.insert(*id);
                if let Some(collection) = self.collections.get_mut(id) {
                    collection.outputs[place].keys.extend(part);
                }
                true
            }
        }
    }
}
