//! What happened to tasks, and how often.

use std::collections::{BTreeMap, VecDeque};

use crate::dask::TaskKey;
use crate::engine::task::StateName;
use crate::engine::task_table::TaskId;
use crate::engine::{Millis, WorkerId};

/// How many transitions are remembered.
pub const STORY_ENTRIES_MAX: usize = 10_000;

/// One state change of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryEntry {
    pub at: Millis,
    pub from: &'static str,
    pub to: &'static str,
    /// The stimulus that was being handled.
    pub because: &'static str,
    /// Who runs or holds it afterwards.
    pub worker: Option<WorkerId>,
}

/// The last transitions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Story {
    entries: VecDeque<(TaskId, Event)>,
    /// The kinds of stimuli, each once: there are few.
    causes: Vec<&'static str>,
}

/// A state change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) at: Millis,
    pub(super) because: &'static str,
    pub(super) worker: Option<WorkerId>,
    pub(super) from: StateName,
    pub(super) to: StateName,
}

/// What happened to a task, in as few bytes as will do: of each there are several.
#[derive(Debug)]
enum Event {
    Moved {
        at: Millis,
        worker: Option<WorkerId>,
        /// Place in `Story::causes`.
        because: u8,
        from: StateName,
        to: StateName,
    },
    /// From here on the id may be another task's. The key is a copy: it would hold the whole document that it came in.
    Forgotten(Box<[u8]>),
}

const _: () = assert!(size_of::<(TaskId, Event)>() <= 32, "an entry of the story has grown: thousands of them are held");

impl Story {
    pub(super) fn push(&mut self, id: TaskId, moved: Moved) {
        let Moved { at, because, worker, from, to } = moved;
        let known = self.causes.iter().rposition(|cause| std::ptr::eq(*cause, because));
        let place = known.unwrap_or_else(|| {
            self.causes.push(because);
            self.causes.len() - 1
        });
        // There are fewer kinds of stimuli than that.
        let because = u8::try_from(place).unwrap_or(u8::MAX);
        self.add(id, Event::Moved { at, worker, because, from, to });
    }

    pub(super) fn push_forgotten(&mut self, id: TaskId, key: &TaskKey) {
        self.add(id, Event::Forgotten(key.as_msgpack().into()));
    }

    fn add(&mut self, id: TaskId, event: Event) {
        if self.entries.len() == STORY_ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((id, event));
    }

    /// What happened to a key, which is now that of the task `id`, if it is known.
    pub(super) fn of(&self, key: &TaskKey, mut id: Option<TaskId>) -> Vec<StoryEntry> {
        let mut found = Vec::new();
        for (of, event) in self.entries.iter().rev() {
            match event {
                Event::Moved { at, worker, because, from, to } if Some(*of) == id => found.push(StoryEntry {
                    at: *at,
                    from: from.as_str(),
                    to: to.as_str(),
                    because: self.causes.get(usize::from(*because)).copied().unwrap_or_default(),
                    worker: *worker,
                }),
                Event::Moved { .. } => {}
                Event::Forgotten(forgotten) if **forgotten == *key.as_msgpack() => id = Some(*of),
                Event::Forgotten(_) if Some(*of) == id => id = None,
                Event::Forgotten(_) => {}
            }
        }
        found.reverse();
        found
    }
}

/// Counters since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub stimuli: u64,
    pub transitions: u64,
    /// Stimuli, or parts of them, that made no sense in the state they met, by kind.
    pub ignored_stimuli: BTreeMap<&'static str, u64>,
    /// Results and runs of engines before this one that were taken over.
    pub adopted_results: u64,
    pub adopted_runs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(at: u64) -> Moved {
        Moved { at: Millis(at), from: StateName::Released, to: StateName::Waiting, because: "update-graph", worker: None }
    }

    #[test]
    fn the_oldest_transitions_are_forgotten_first() {
        let (mut story, id) = (Story::default(), TaskId::from_bits(7));
        (0..STORY_ENTRIES_MAX as u64 + 5).for_each(|at| story.push(id, moved(at)));
        let entries = story.of(&TaskKey::from_text("a"), Some(id));
        assert_eq!((entries.len(), entries[0].at), (STORY_ENTRIES_MAX, Millis(5)));
    }

    #[test]
    fn a_key_has_its_story_whatever_ids_it_had() {
        let mut story = Story::default();
        let (one, other) = (TaskId::from_bits(1), TaskId::from_bits(2));
        let (a, b) = (TaskKey::from_text("a"), TaskKey::from_text("b"));
        story.push(one, moved(1));
        story.push_forgotten(one, &a);
        story.push(one, moved(2));
        story.push(other, moved(3));
        story.push_forgotten(one, &b);
        let times = |key, id| story.of(key, id).iter().map(|entry| entry.at.0).collect::<Vec<_>>();
        assert_eq!(times(&a, Some(other)), [1, 3]);
        assert_eq!(times(&b, None), [2]);
    }
}
