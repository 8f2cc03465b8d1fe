//! Large graphs are taken in part by part.
//!
//! A graph of a million tasks takes the better part of a second to record. So that nobody else has to wait for that, only
//! some of its tasks are taken in at a time, and what happens meanwhile is handled in between. Tasks may start before the
//! end of their graph has arrived. They are kept until all is there, since who needs them may be among the last.
//!
//! All this is as if the graph had been taken in at once: whatever its owner says next, and whoever names a key that is not
//! there yet, waits for the rest. What cannot be done by parts is done at once: a graph that is not in the order of its
//! edges, since it may have a cycle, and an edited collection's.

use std::vec;

use crate::dask::TaskKey;
use crate::engine::collection::Output;
use crate::engine::intake::{Intake, TakenIn};
use crate::engine::owner::Owner;
use crate::engine::task_table::TaskId;
use crate::engine::{ClientId, CollectionId, Engine, OutputSummary, Requirements, TaskCounts};

/// A graph under way.
#[derive(Debug)]
pub(super) struct Arrival {
    intake: Intake,
    wishes: Wishes,
    /// How far it is with the tasks that were kept until all is there: the place of the next key.
    unkept: u32,
}

/// What is wanted of a graph.
#[derive(Debug)]
pub(super) enum Wishes {
    OfClient {
        client: ClientId,
        /// Of each key of the graph whether it is wanted.
        is_wanted: Vec<bool>,
        /// The places of keys that are wanted and have no task in the graph, or none that was let in.
        others: vec::IntoIter<u32>,
    },
    OfCollection {
        collection: CollectionId,
        outputs: Vec<(String, vec::IntoIter<TaskKey>)>,
    },
}

impl Wishes {
    pub(super) fn of_client(client: ClientId, wanted: &[u32], intake: &Intake) -> Self {
        let mut is_wanted = vec![false; intake.places() as usize];
        wanted.iter().for_each(|place| is_wanted[*place as usize] = true);
        let others: Vec<u32> = wanted.iter().copied().filter(|place| !intake.is_own(*place)).collect();
        Self::OfClient { client, is_wanted, others: others.into_iter() }
    }

    /// Whether a Client wants the task of a key itself.
    fn is_for_client(&self, place: u32) -> bool {
        match self {
            Self::OfClient { is_wanted, .. } => is_wanted[place as usize],
            Self::OfCollection { .. } => false,
        }
    }
}

impl Arrival {
    /// For `invariants`: what is taken in so far.
    pub(super) fn taken_in(&self) -> impl Iterator<Item = (&TaskKey, TaskId)> {
        // Once all is there, tasks may go.
        self.intake.taken_in().filter(|_| self.intake.len() > 0)
    }

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
        let mut arrival = Arrival { intake, wishes, unkept: 0 };
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
        self.complete_arrivals_that(|arrival| arrival.intake.owner == owner);
        if let Owner::Client(client) = owner {
            self.complete_departures_of(client);
        }
    }

    /// Has all graphs arrive as a whole if one of these keys is not known: it may be among what is left of them.
    pub(super) fn complete_arrivals_with<'k>(&mut self, keys: impl IntoIterator<Item = &'k TaskKey>) {
        if !self.arrivals.is_empty() && keys.into_iter().any(|key| self.tasks.id(key).is_none()) {
            self.complete_arrivals();
        }
    }

    /// Has all graphs arrive as a whole if one that is to be taken in names a key that may be among what is left of them.
    pub(super) fn complete_arrivals_before(&mut self, intake: &Intake) {
        // Mostly there are none, and the keys need not be looked at.
        if !self.arrivals.is_empty() {
            self.complete_arrivals_with(intake.foreign_keys());
        }
    }

    /// Has all graphs arrive as a whole.
    pub(super) fn complete_arrivals(&mut self) {
        self.complete_arrivals_that(|_| true);
    }

    fn complete_arrivals_that(&mut self, concerns: impl Fn(&Arrival) -> bool) {
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
        let Arrival { intake, wishes, unkept } = arrival;
        if intake.len() > 0 {
            let is_last = intake.len() <= count;
            let is_whole = is_last && intake.is_untouched();
            let taken_in = self.take_in_tasks(intake, count);
            self.wish_for(&intake.requirements, wishes, taken_in, is_whole);
            if let (true, true, Wishes::OfClient { others, is_wanted, .. }) = (is_last, intake.has_left_out(), &mut *wishes) {
                let left_out = (0..intake.places()).filter(|place| is_wanted[*place as usize] && intake.id(*place).is_none());
                *others = left_out.collect::<Vec<u32>>().into_iter();
            }
            if !is_whole {
                return true;
            }
            *unkept = intake.places();
        }
        if self.take_in_wishes(intake, wishes, count) {
            return true;
        }
        let end = intake.places().min(unkept.saturating_add(count as u32));
        for id in (*unkept..end).filter(|place| !wishes.is_for_client(*place)).filter_map(|place| intake.id(place)) {
            self.tasks[id].arriving -= 1;
            self.unsettled.push_back(id);
        }
        *unkept = end;
        end < intake.places() || intake.drop_keys(count)
    }

    /// Wants what is wanted of tasks that were taken in; keeps the others, unless they are all there are.
    fn wish_for(&mut self, requirements: &Requirements, wishes: &Wishes, taken_in: Vec<TakenIn>, is_whole: bool) {
        for TakenIn { id, place, annotations } in taken_in {
            match wishes {
                Wishes::OfClient { client, .. } if wishes.is_for_client(place) => {
                    self.want(id, Owner::Client(*client));
                    self.announce_to(id, *client);
                    // It is needed without being kept.
                    continue;
                }
                Wishes::OfClient { .. } => {}
                Wishes::OfCollection { collection, .. } => {
                    self.join_collection(id, *collection);
                    self.adopt_orphan(id, *collection, requirements, annotations.as_deref());
                    if let (Some(collection), Some(_)) = (self.collections.get_mut(collection), &annotations) {
                        collection.annotate(id, annotations);
                    }
                }
            }
            if !is_whole {
                self.tasks[id].arriving += 1;
            }
        }
    }

    /// Whether something is left to do.
    fn take_in_wishes(&mut self, intake: &Intake, wishes: &mut Wishes, count: usize) -> bool {
        match wishes {
            Wishes::OfClient { client, others, .. } => {
                let part: Vec<TaskKey> = others.by_ref().take(count).map(|place| intake.key(place).clone()).collect();
                self.desire_keys(*client, &part);
                others.len() > 0
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
