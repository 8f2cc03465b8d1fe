//! All tasks, and the dense ids that stand for their keys.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::dask::TaskKey;
use crate::engine::task::Task;

/// The place of a task in the `TaskTable`; given again once the task is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId(u32);

impl TaskId {
    /// How many bits are enough for every id.
    pub(super) const BITS: u32 = 24;
    /// How many tasks there can be at once.
    pub(super) const COUNT: usize = 1 << Self::BITS;

    /// The id of these bits, which may be that of no task.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    fn place(self) -> (usize, usize) {
        (self.0 as usize / CHUNK_TASKS, self.0 as usize % CHUNK_TASKS)
    }
}

/// Most tasks have few neighbours: four fit without an allocation.
pub(super) type TaskList = SmallVec<[TaskId; 4]>;

/// Tasks are stored in chunks of so many: growing moves nothing, and a chunk goes with its last task.
const CHUNK_TASKS: usize = 1024;

/// All tasks, by dense id and by key.
#[derive(Debug, Default)]
pub(super) struct TaskTable {
    chunks: Vec<Chunk>,
    /// All and only chunks with a vacant slot.
    with_room: BTreeSet<usize>,
    /// Never iterated: its order would leak into decisions.
    ids: HashTable<TaskId>,
}

#[derive(Debug, Default)]
struct Chunk {
    slots: Vec<Option<Task>>,
    /// Empty slots, the last freed is the first taken.
    vacant: Vec<u32>,
}

impl TaskTable {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn id(&self, key: &TaskKey) -> Option<TaskId> {
        self.ids.find(hash(key), |id| self[*id].key == *key).copied()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Task> {
        let (chunk, slot) = id.place();
        self.chunks.get(chunk)?.slots.get(slot)?.as_ref()
    }

    /// Makes room for so many more at once.
    pub(super) fn reserve(&mut self, additional: usize) {
        let chunks = &self.chunks;
        self.ids.reserve(additional, |id| hash_of(chunks, *id));
    }

    /// Adds a task; its key is not in the table.
    pub(super) fn insert(&mut self, task: Task) -> TaskId {
        let place = self.with_room.first().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.with_room.insert(self.chunks.len() - 1);
            self.chunks.len() - 1
        });
        let hash = hash(&task.key);
        let chunk = &mut self.chunks[place];
        let slot = match chunk.vacant.pop() {
            Some(slot) => {
                chunk.slots[slot as usize] = Some(task);
                slot as usize
            }
            None => {
                // All at once, so that records never move.
                chunk.slots.reserve_exact(CHUNK_TASKS - chunk.slots.len());
                chunk.slots.push(Some(task));
                chunk.slots.len() - 1
            }
        };
        if chunk.vacant.is_empty() && chunk.slots.len() == CHUNK_TASKS {
            self.with_room.remove(&place);
        }
        let id = TaskId(u32::try_from(place * CHUNK_TASKS + slot).expect("`tasks_max` is below the number of ids"));
        let chunks = &self.chunks;
        self.ids.insert_unique(hash, id, |id| hash_of(chunks, *id));
        id
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Task {
        let (place, slot) = id.place();
        let task = self.chunks[place].slots[slot].take().expect("a task that is removed exists");
        if let Ok(entry) = self.ids.find_entry(hash(&task.key), |other| *other == id) {
            entry.remove();
        }
        let chunk = &mut self.chunks[place];
        chunk.vacant.push(slot as u32);
        if chunk.vacant.len() == chunk.slots.len() {
            *chunk = Chunk::default();
        }
        self.with_room.insert(place);
        if self.ids.is_empty() {
            *self = Self::default();
        }
        task
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let places = self.chunks.iter().enumerate();
        places.flat_map(|(place, chunk)| {
            let slots = chunk.slots.iter().enumerate();
            slots.filter_map(move |(slot, task)| Some((TaskId((place * CHUNK_TASKS + slot) as u32), task.as_ref()?)))
        })
    }
}

fn hash(key: &TaskKey) -> u64 {
    FxBuildHasher.hash_one(key)
}

fn hash_of(chunks: &[Chunk], id: TaskId) -> u64 {
    let (chunk, slot) = id.place();
    chunks[chunk].slots[slot].as_ref().map_or(0, |task| hash(&task.key))
}

/// For ids that an index of ours holds: those are of tasks that exist.
impl std::ops::Index<TaskId> for TaskTable {
    type Output = Task;

    fn index(&self, id: TaskId) -> &Task {
        let (chunk, slot) = id.place();
        self.chunks[chunk].slots[slot].as_ref().expect("an indexed task exists")
    }
}

impl std::ops::IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        let (chunk, slot) = id.place();
        self.chunks[chunk].slots[slot].as_mut().expect("an indexed task exists")
    }
}
