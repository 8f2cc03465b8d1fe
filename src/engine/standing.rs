//! Where collections stand in the queue.

use crate::dask::Priority;
use crate::engine::{CollectionId, Engine};

impl Engine {
    /// Keeps the order of the collections that wait, and tells those whose position is another.
    pub(super) fn update_standings(&mut self) {
        let mut has_moved = false;
        for id in &self.changed {
            let Some(collection) = self.collections.get_mut(id) else { continue };
            let is_waiting = collection.task_counts().queued > 0;
            let standing = is_waiting.then(|| Priority::new(collection.requirements.priority, collection.generation as f64, 0));
            let before = std::mem::replace(&mut collection.standing, standing);
            if before != standing {
                has_moved = true;
                before.map(|before| self.standings.remove(&(before, *id)));
                standing.map(|standing| self.standings.insert((standing, *id)));
            }
        }
        if has_moved {
            self.changed.extend(self.standings.iter().map(|(_, id)| *id));
        }
    }

    /// 1 for the collections that get the next free thread; none for one that waits for no thread.
    ///
    /// What single tasks are given apart from their collection does not count here.
    pub(super) fn position(&self, id: CollectionId) -> Option<u64> {
        let standing = self.collections.get(&id)?.standing?;
        let ahead = self.standings.range(..(standing, CollectionId(0))).count();
        Some(ahead as u64 + 1)
    }
}
