//! What happened to tasks, and how often.

use std::collections::{BTreeMap, VecDeque};

use crate::dask::TaskKey;
use crate::engine::{Millis, WorkerId};

/// How many transitions are remembered.
pub const STORY_ENTRIES_MAX: usize = 10_000;

/// One state change of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryEntry {
    pub at: Millis,
    pub key: TaskKey,
    pub from: &'static str,
    pub to: &'static str,
    /// The stimulus that was being handled.
    pub because: &'static str,
    /// Who runs or holds it afterwards.
    pub worker: Option<WorkerId>,
}

/// The last transitions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Story(VecDeque<StoryEntry>);

impl Story {
    pub(super) fn push(&mut self, entry: StoryEntry) {
        if self.0.len() == STORY_ENTRIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn of(&self, key: &TaskKey) -> Vec<StoryEntry> {
        self.0.iter().filter(|entry| &entry.key == key).cloned().collect()
    }
}

/// Counters since the engine started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub stimuli: u64,
    pub transitions: u64,
    /// Stimuli, or parts of them, that made no sense in the state they met, by kind.
    pub ignored_stimuli: BTreeMap<&'static str, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_transitions_are_forgotten_first() {
        let mut story = Story::default();
        let entry = |at: usize| StoryEntry {
            at: Millis(at as u64),
            key: TaskKey::from_text("a"),
            from: "released",
            to: "waiting",
            because: "update-graph",
            worker: None,
        };
        (0..STORY_ENTRIES_MAX + 5).for_each(|at| story.push(entry(at)));
        let entries = story.of(&TaskKey::from_text("a"));
        assert_eq!((entries.len(), entries[0].at), (STORY_ENTRIES_MAX, Millis(5)));
    }
}
